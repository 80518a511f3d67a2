"""A program that one speaks with answers through its pipes, and nothing of it stays alive."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from power_loop.errors import ProcessError
from power_loop.sandbox import PipedProcess
from power_loop.testing import leak_check
from tests.agent.parts import LIMIT_S, within_limit
from tests.runtime.host.trees import ENV, Mark

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="processes are counted in /proc")


@pytest.fixture
def mark() -> Mark:
    return Mark()


@pytest.fixture(autouse=True)
def _nothing_is_left(mark: Mark) -> Iterator[None]:
    with leak_check():
        yield
        assert mark.alive() == []


def bounded(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    @functools.wraps(test)
    async def run(**given: Any) -> None:
        await within_limit(test(**given))

    return run


async def read_all(process: PipedProcess, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := await process.read()):
        data += more
    return data


@bounded
async def test_it_answers_what_it_is_told_and_its_errors_are_kept_apart(mark: Mark) -> None:
    process = await PipedProcess.start(["bash", "-c", "echo oops >&2; cat"], env=ENV)
    await process.write(b"one\n")
    assert await process.read() == b"one\n"
    assert await process.error_text() == "oops\n"
    assert await process.stop() in (0, -15)


@bounded
async def test_what_it_complained_of_before_it_answered_is_told_by_a_keeper_that_was_held_up(mark: Mark) -> None:
    process = await PipedProcess.start(["bash", "-c", "echo up; read -r line; echo oops >&2; echo $line; cat"], env=ENV)
    assert await process.read() == b"up\n"
    os.kill(process._kept.pid, signal.SIGSTOP)
    try:
        await process.write(b"one\n")
        assert await process.read() == b"one\n"
        asked = asyncio.ensure_future(process.error_text())
        await asyncio.sleep(0)
    finally:
        # It finds the complaint and the question at the same moment.
        os.kill(process._kept.pid, signal.SIGCONT)
    assert await asked == "oops\n"
    await process.stop()


@bounded
async def test_the_pipes_of_one_that_had_ended_are_closed_once_it_is_stopped() -> None:
    with leak_check():
        process = await PipedProcess.start(["true"], env=ENV)
        assert await process.read() == b""
        keeper = process._kept._keeper
        assert keeper is not None
        # Its keeper has said all, so that there is nothing to wait for.
        keeper.wait(LIMIT_S)
        assert await process.stop() == 0


@bounded
async def test_megabytes_pass_both_ways(mark: Mark) -> None:
    process = await PipedProcess.start(["cat"], env=ENV)
    data = os.urandom(1 << 16) * 32
    for at in range(0, len(data), 1 << 16):
        await process.write(data[at : at + (1 << 16)])
        assert await read_all(process, 1 << 16) == data[at : at + (1 << 16)]
    await process.stop()


@bounded
async def test_one_that_ignores_its_end_is_killed_with_what_it_started(mark: Mark) -> None:
    script = f"trap '' TERM; (setsid {mark.sleep} &); echo up; {mark.sleep}; {mark.sleep}"
    process = await PipedProcess.start(["bash", "-c", script], env=ENV)
    assert await process.read() == b"up\n"
    assert await process.stop(grace_s=0.05) == -9


@bounded
async def test_a_program_that_is_not_there_is_said_when_it_is_stopped(mark: Mark) -> None:
    process = await PipedProcess.start(["/no/such/program"], env=ENV)
    assert await process.read() == b""
    with pytest.raises(ProcessError, match="No such file"):
        await process.stop()


@bounded
async def test_one_that_has_ended_takes_nothing_more(mark: Mark) -> None:
    process = await PipedProcess.start(["true"], env=ENV)
    assert await process.read() == b""

    async def write_on() -> None:
        while True:
            await process.write(b"x" * 100_000)

    with pytest.raises(ProcessError, match="reads no more"):
        await write_on()
    assert await process.stop() == 0


async def test_it_ends_with_a_process_that_is_killed(mark: Mark) -> None:
    program = f"""
import asyncio, os, signal
from power_loop.sandbox import PipedProcess

async def main():
    process = await PipedProcess.start(["bash", "-c", "echo up; trap '' TERM HUP; {mark.sleep}"], env=os.environ)
    assert await process.read() == b"up\\n"
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""
    owner = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
    assert await owner.wait() == -9
    await mark.nobody()
