"""Each tutorial does what it says, from an empty folder on: every file, every command, and all that they print."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import random
import shutil
import socket
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house.pages import ROOT
from tests.house.walkthroughs import Shell, Step, fits, steps_of
from tests.model_server import ThreadedModelServer, steps_from_json
from tests.servers.kinds import find_server
from tests.servers.shared import shared_server

FOLDER = ROOT / "docs" / "en" / "tutorials"
PAGES = sorted(path.name for path in FOLDER.glob("*.md") if path.name != "index.md")
# What a page says, and what stands there while a test follows it.
PORT = "8000"
POSTGRES = "postgresql://app:secret@localhost/app"


# Below those that a system gives to whoever asks for any: the server of a page takes its port several times, and nobody
# gets it meanwhile by chance.
PORTS = range(20_000, 30_000)


@contextlib.contextmanager
def free_port() -> Iterator[int]:
    """Yield a port that is free, and stays so: who holds the one of UDP has reserved that of TCP among these tests."""
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        with socket.socket(type=socket.SOCK_DGRAM) as reserved, socket.socket() as tried:
            try:
                reserved.bind(("127.0.0.1", port))
                tried.bind(("127.0.0.1", port))
            except OSError:
                continue
            tried.close()
            yield port
            return
    raise AssertionError("no port is free")


@pytest.mark.promise("tutorials")
@pytest.mark.parametrize("page", PAGES)
def test_it_does_what_it_says_from_an_empty_folder_on(page: str, tmp_path: Path) -> None:
    if page.startswith("3-") and sys.platform != "linux":
        pytest.skip("a worker gives the network up by itself on Linux only")
    text = (FOLDER / page).read_text("utf-8")
    with free_port() as port:
        text = text.replace(f"127.0.0.1:{PORT}", f"127.0.0.1:{port}").replace(f"--port {PORT}", f"--port {port}")
        if POSTGRES in text:
            kind = find_server("postgres")
            if kind.missing is not None:
                pytest.skip(str(kind))
            server = shared_server("postgres")
            dsn = server.new_database()
            try:
                follow(page, text.replace(POSTGRES, dsn), tmp_path)
            finally:
                server.drop_database(dsn)
        else:
            follow(page, text, tmp_path)


def follow(page: str, text: str, folder: Path) -> None:
    """Do what a page says, in a folder."""
    # A page starts dozens of programs, on a machine that may have much else to do: each block has a limit of its own.
    faulthandler.cancel_dump_traceback_later()
    # `make stranger` names the programs of an install that knows nothing of this checkout.
    scripts = os.environ.get("POWER_LOOP_TUTORIALS_BIN") or sysconfig.get_path("scripts")
    with ThreadedModelServer() as server:
        environment = {
            "PATH": f"{scripts}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(folder),
            "POWER_LOOP_BASE_URL": server.base_url,
            "POWER_LOOP_API_KEY": "k",
            "POWER_LOOP_MODEL": "gpt-test",
        }
        with Shell(folder, environment) as shell:
            for step in steps_of(text):
                place = f"docs/en/tutorials/{page}:{step.line}"
                server.extend(*steps_from_json(step.answers))
                if step.title is not None:
                    (folder / step.title).parent.mkdir(exist_ok=True)
                    (folder / step.title).write_text(step.source, "utf-8")
                    continue
                check(step, *shell.run(step.source), place)
                assert server.answers_left == 0, f"{place}: {server.answers_left} answers were not asked for"


def check(step: Step, status: int, printed: str, place: str) -> None:
    assert status == step.status, f"{place} ended with {status} and printed:\n{printed}"
    if step.expected is not None:
        assert fits(step.expected, printed), f"{place} printed:\n{printed}"


def test_what_follows_a_page_sees_what_is_wrong_with_it(tmp_path: Path) -> None:
    page = """
# A page

```python title="one.py"
print("one", 1 + 1)
```

<!-- status: 3 -->
```bash
python one.py && cd /tmp
exit_with() { return "$1"; }
exit_with 3
```

```text
one …
```

```bash
pwd
```

<!-- not run: it is for the reader -->
```bash
exit 7
```
"""
    steps = list(steps_of(page))
    assert [(step.line, step.title, step.status, step.expected) for step in steps] == [
        (5, "one.py", 0, None),
        (10, None, 3, "one …\n"),
        (20, None, 0, None),
    ]
    (tmp_path / "one.py").write_text(steps[0].source)
    path = {"PATH": f"{sysconfig.get_path('scripts')}:/usr/bin:/bin"}
    with Shell(tmp_path, path) as shell:
        status, printed = shell.run(steps[1].source)
        check(steps[1], status, printed, "page:10")
        assert shell.run(steps[2].source) == (0, "/tmp\n\n")
        with pytest.raises(AssertionError, match="ended with 1"):
            check(steps[2], *shell.run("false"), "page:20")
    assert fits("a … c\n", "a b\nb c\n")
    assert not fits("a … c\n", "a b c d\n")


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_a_command_that_was_killed_is_told_as_a_reader_is_told(tmp_path: Path) -> None:
    with Shell(tmp_path, {}) as shell:
        assert shell.run("bash -c 'kill -9 $$'") == (137, "Killed\n\n")
