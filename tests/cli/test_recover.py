"""`power-loop recover`: processes die for real, are found, and their sessions are driven to their end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.test_command import LIMIT_S, run

LOOP = """
import os, signal
from power_loop import StatefulAgentLoop
from power_loop.testing import ScriptedLLM

def make_loop(dsn):
    return StatefulAgentLoop(llm=ScriptedLLM(["Done."], repeat_last=True), dsn=dsn)

def no_loop():
    return 7

async def die(dsn):
    loop = StatefulAgentLoop(llm=ScriptedLLM([lambda request: os.kill(os.getpid(), signal.SIGKILL)]), dsn=dsn)
    await loop.send("go", session_id=await loop.new_session())
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an application and a database in which two of its processes died."""
    (tmp_path / "my_app.py").write_text(LOOP, "utf-8")
    for _ in range(2):
        code = "import asyncio, my_app; asyncio.run(my_app.die('app.db'))"
        died = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, timeout=LIMIT_S, check=False)
        assert died.returncode == -9
    return tmp_path


@pytest.mark.promise("recover")
def test_what_died_is_listed_then_driven_then_gone(folder: Path) -> None:
    for more in ((), ("--app", "my_app:make_loop", "--dry-run")):
        listed = run("recover", "--dsn", "app.db", *more, folder=folder)
        assert (listed.returncode, listed.stdout.count("dead_turn"), listed.stderr) == (1, 2, "")
    driven = run("recover", "--dsn", "app.db", "--app", "my_app:make_loop", "--json", folder=folder)
    assert (driven.returncode, driven.stderr) == (0, "")
    reports = [json.loads(line) for line in driven.stdout.splitlines()]
    assert {(one["found"], one["status"], one["was_driven"]) for one in reports} == {("dead_turn", "completed", True)}
    assert len(reports) == 2
    after = run("recover", "--dsn", "app.db", folder=folder)
    assert (after.returncode, after.stdout) == (0, "nothing is left\n")


@pytest.mark.parametrize(
    ("drive", "said"),
    [("my_app", "MODULE:LOOP"), ("my_app:none", "cannot be imported"), ("my_app:no_loop", "StatefulAgentLoop")],
)
def test_a_callable_that_is_none_is_refused(tmp_path: Path, drive: str, said: str) -> None:
    (tmp_path / "my_app.py").write_text(LOOP, "utf-8")
    done = run("recover", "--dsn", "app.db", "--app", drive, folder=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def make(dsn):\n    raise ValueError('no such tenant')\n", "raised ValueError: no such tenant, in "),
        ("def make(dsn, tenant):\n    pass\n", "missing 1 required positional argument: 'tenant'"),
        ("def make(dsn:\n", "cannot be imported: SyntaxError"),
        ("from power_loop import LoopConfig\ndef make():\n    LoopConfig(on_unknown='?')\n", "on_unknown is '?'"),
    ],
)
def test_a_fault_of_the_application_is_told_as_its_own(tmp_path: Path, code: str, said: str) -> None:
    (tmp_path / "my_app.py").write_text(code, "utf-8")
    done = run("recover", "--dsn", "app.db", "--app", "my_app:make", folder=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert "report it" not in done.stderr


@pytest.mark.parametrize("options", [(), ("--app", "my_app:make", "--dry-run")])
def test_to_look_for_ever_is_refused(tmp_path: Path, options: tuple[str, ...]) -> None:
    done = run("recover", "--dsn", "app.db", "--every", "5", *options, folder=tmp_path)
    assert done.returncode == 2
    assert "--every" in done.stderr


def test_a_look_makes_no_database(tmp_path: Path) -> None:
    done = run("recover", "--dsn", "none.db", folder=tmp_path)
    assert done.returncode == 2
    assert list(tmp_path.iterdir()) == []
