"""What a block leaves behind is named, what is on its way out is waited for, and nothing else is complained of."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from power_loop import StatefulAgentLoop, tool
from power_loop.core.turn import threads
from power_loop.errors import ConfigError
from power_loop.testing import LeakError, LeakKind, ScriptedLLM, call, leak_check
from tests.agent.parts import Gate, within_limit
from tests.house.pages import ROOT, blocks_of

needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="this system has no /proc")
# Nothing takes so long unless it is broken, in seconds.
_LIMIT_S = 120.0
SLEEPER = "import signal; print('up', flush=True); signal.pause()"


@contextlib.contextmanager
def leaking(**options: Any) -> Iterator[pytest.ExceptionInfo[LeakError]]:
    """Expect the block to leave something."""
    with pytest.raises(LeakError) as caught, leak_check(within_s=0, **options):
        yield caught


@contextlib.asynccontextmanager
async def leaking_async() -> AsyncIterator[pytest.ExceptionInfo[LeakError]]:
    """Expect the block to leave something, tasks included."""
    with pytest.raises(LeakError) as caught:
        async with leak_check(within_s=0):
            yield caught


def leaks_of(caught: pytest.ExceptionInfo[LeakError]) -> list[LeakKind]:
    return [leak.kind for leak in caught.value.leaks]


async def test_a_task_is_named_with_the_line_where_it_waits() -> None:
    gate = Gate()
    async with leaking_async() as caught:
        task = asyncio.create_task(gate.passing(), name="the-stray")
        await gate.someone()
    assert leaks_of(caught) == [LeakKind.TASK]
    assert re.search(
        r"task 'the-stray' of Gate\.passing\(\)\n  it waits here:\n.*parts\.py:\d+ passing: .*\n.*locks\.py:\d+ wait:",
        str(caught.value),
    )
    task.cancel()


async def test_in_debug_mode_a_task_is_named_with_the_line_that_made_it() -> None:
    gate = Gate()
    asyncio.get_running_loop().set_debug(True)
    async with leaking_async() as caught:
        task = asyncio.create_task(gate.passing())
    assert re.search(r"made here:\n(.*\n)*.*test_leaks\.py:\d+ test_in_debug_mode", str(caught.value))
    asyncio.get_running_loop().set_debug(False)
    task.cancel()


async def test_a_task_that_is_on_its_way_out_is_waited_for() -> None:
    ended = []

    async def go_soon() -> None:
        for _ in range(20):
            await asyncio.sleep(0)
        ended.append(True)

    async with leak_check(within_s=_LIMIT_S):
        task = asyncio.create_task(go_soon())
    assert ended == [True]
    assert task.done()


async def test_what_was_there_before_may_stay() -> None:
    gate = Gate()
    task = asyncio.create_task(gate.passing())
    await gate.someone()
    read_end, write_end = os.pipe()
    async with leak_check(within_s=0):
        pass
    os.close(read_end)
    os.close(write_end)
    task.cancel()


def test_a_thread_is_named_with_the_line_where_it_stands() -> None:
    stands, is_over = threading.Event(), threading.Event()

    def stand() -> None:
        stands.set()
        is_over.wait()

    with leaking() as caught:
        thread = threading.Thread(target=stand, name="the-worker", daemon=True)
        thread.start()
        assert stands.wait(_LIMIT_S)
    assert leaks_of(caught) == [LeakKind.THREAD]
    assert re.search(
        r"thread 'the-worker' \(daemon\)\n  it stands here:\n(.*\n)*.*test_leaks\.py:\d+ stand: ", str(caught.value)
    )
    is_over.set()
    thread.join()


def test_a_thread_that_is_on_its_way_out_is_waited_for() -> None:
    goes = threading.Event()
    with leak_check(within_s=_LIMIT_S):
        threading.Thread(target=goes.wait).start()
        goes.set()


@needs_proc
def test_a_child_process_is_named_by_its_words_and_so_is_its_own_child() -> None:
    script = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEPER!r}, 'grandchild']); input()"
    child: Any = None
    with leaking(kinds=["child process"]) as caught:
        child = subprocess.Popen(
            [sys.executable, "-c", script, "the-child"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert child.stdout.readline() == "up\n"
    first, second = caught.value.leaks
    texts = sorted([first.name, second.name], key=lambda text: "the-child" in text)
    assert texts[1].startswith(f"{child.pid} ")
    assert texts[1].endswith("the-child")
    assert texts[0].endswith("grandchild")
    os.kill(int(texts[0].split()[0]), signal.SIGKILL)
    child.communicate("\n")


@needs_proc
def test_a_child_that_nobody_waited_for_is_told() -> None:
    with leaking(kinds=["child process"]) as caught:
        child = subprocess.Popen(["true"])
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert f"child process {child.pid} (has ended, and nobody waited for it)" in str(caught.value)
    child.wait()


@needs_proc
def test_descriptors_are_named_by_what_they_are_on(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        with leaking() as caught:
            file = stack.enter_context((tmp_path / "left.txt").open("w"))
            listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            client = stack.enter_context(socket.create_connection(listening.getsockname()))
        text = str(caught.value)
        assert leaks_of(caught) == [LeakKind.DESCRIPTOR] * 3
        assert f"descriptor {file.fileno()} on {tmp_path / 'left.txt'}" in text
        port = listening.getsockname()[1]
        assert re.search(
            rf"descriptor {client.fileno()} on socket:\[\d+\] \(AF_INET .* to \('127.0.0.1', {port}\)\)", text
        )


@needs_proc
def test_a_number_that_is_used_again_is_another_descriptor(tmp_path: Path) -> None:
    before = os.open(tmp_path, os.O_RDONLY)
    with leaking() as caught:
        os.close(before)
        again = os.open("/", os.O_RDONLY)
        assert again == before
    assert str(caught.value).endswith(f"descriptor {again} on /")
    os.close(again)


@needs_proc
def test_an_open_file_that_is_unlinked_stays_the_same(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w"), leak_check(within_s=0):
        (tmp_path / "file").unlink()


def test_files_are_looked_for_in_the_folders_that_are_given(tmp_path: Path) -> None:
    (tmp_path / "old").touch()
    with leak_check(within_s=0):
        (tmp_path / "unwatched").touch()
    with leaking(folders=[tmp_path]) as caught:
        (tmp_path / "below").mkdir()
        (tmp_path / "below" / "new").touch()
        (tmp_path / "old").write_text("changed")
    assert str(caught.value) == f"1 thing was left behind:\nfile {tmp_path / 'below' / 'new'}"


def test_what_is_to_be_ignored_may_stay(tmp_path: Path) -> None:
    with leak_check(within_s=0, folders=[tmp_path], ignore=["cache-"]):
        (tmp_path / "cache-1").touch()


async def test_an_error_of_the_block_goes_on_as_it_is(tmp_path: Path) -> None:
    check = leak_check(within_s=0, folders=[tmp_path])

    def leave_and_fail() -> None:
        (tmp_path / "left").touch()
        raise KeyError

    with pytest.raises(KeyError), check:
        leave_and_fail()
    (tmp_path / "left").unlink()
    with pytest.raises(KeyError):
        async with check:
            leave_and_fail()


def test_what_this_system_does_not_show_is_told(tmp_path: Path) -> None:
    with (
        pytest.raises(LeakError) as caught,
        leak_check(within_s=0, proc=tmp_path / "none", folders=[tmp_path]) as check,
    ):
        (tmp_path / "left").touch()
    assert check.unchecked == (
        f"child process: {tmp_path / 'none'} shows no processes",
        f"descriptor: {tmp_path / 'none' / 'self' / 'fd'} is no folder",
    )
    assert str(caught.value).endswith("".join(f"\nnot checked here: {one}" for one in check.unchecked))
    with leak_check(kinds=["thread"], proc=tmp_path / "none") as check:
        pass
    assert check.unchecked == ()


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'sockets': give one of 'task', 'thread'"):
        leak_check(kinds=["sockets"])


async def test_an_agent_that_is_closed_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "IDLE_S", 600.0)

    @tool(effect="read")
    def look() -> str:
        """Look, in a thread."""
        return "seen"

    async with leak_check(within_s=_LIMIT_S):
        llm = ScriptedLLM([call("look"), "Done."])
        async with StatefulAgentLoop(llm=llm, dsn=str(tmp_path / "app.db"), tool_registry=[look]) as loop:
            await within_limit(loop.send("go", session_id=await loop.new_session()))


async def test_an_agent_that_is_not_closed_is_seen(tmp_path: Path) -> None:
    loop = StatefulAgentLoop(llm=ScriptedLLM(["Done."]), dsn=str(tmp_path / "app.db"))
    async with leaking_async() as caught:
        await loop.send("go", session_id=await loop.new_session())
    assert {LeakKind.THREAD, LeakKind.DESCRIPTOR} <= set(leaks_of(caught))
    assert "power-loop-store" in str(caught.value)
    await loop.aclose()


def test_the_fixture_of_the_page_fails_the_test_that_leaks(tmp_path: Path) -> None:
    page = "docs/en/user-guide/testing.md"
    blocks = blocks_of((ROOT / page).read_text("utf-8"), page)
    (tmp_path / "conftest.py").write_text(next(one.source for one in blocks if "# conftest.py" in one.source))
    (tmp_path / "test_it.py").write_text(
        "import asyncio, os\n"
        "def test_tidy(): pass\n"
        "def test_untidy(): os.pipe()\n"
        "def test_tidy_loop(): asyncio.run(asyncio.sleep(0))\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=_LIMIT_S, check=False)
    assert "3 passed, 1 error" in done.stdout, done.stdout
    assert "ERROR test_it.py::test_untidy" in done.stdout
    assert re.search(r"descriptor \d+ on pipe:", done.stdout)
