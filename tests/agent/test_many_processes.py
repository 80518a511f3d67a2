"""Real processes on one session, on every database: steered, cancelled, waited for and recovered from each other."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from power_loop import LLMRequest, SendStatus, StatefulAgentLoop
from power_loop.records import Found
from power_loop.testing import ScriptedLLM
from tests.conformance.backends import BACKENDS

from .parts import LIMIT_S, Gate, said, within_limit

ROOT = Path(__file__).parents[2]

# What the other process does: it says how far it is on standard output, a line each.
CHILD = """
import asyncio, json, sys
from power_loop import LoopConfig, StatefulAgentLoop
from power_loop.testing import ScriptedLLM
from tests.servers.processes import die_with_parent

dsn, prefix, sid, act, parent = sys.argv[1:]
die_with_parent(int(parent))
say = lambda *words: print(json.dumps(words), flush=True)

async def hang(request):
    say("asked")
    await asyncio.Event().wait()

async def main():
    loop = StatefulAgentLoop(llm=ScriptedLLM([hang, "Late."]), dsn=dsn, table_prefix=prefix)
    if act == "hang":
        result = await loop.send("go", session_id=sid)
        say("rests", result.status.value, result.reason)
    elif act == "wait":
        say("waits")
        loop.llm._steps[:] = ["Waited."]
        result = await loop.send("after you", session_id=sid, on_busy="wait")
        say("rests", result.status.value, result.final_text)
    else:
        left = await loop.follow_up(sid, act)
        say("left", left.position, left.is_turn_running)
    await loop.aclose()

asyncio.run(main())
"""


class Other:
    """Is another process."""

    def __init__(self, database: tuple[str, str], sid: str, act: str) -> None:
        command = [sys.executable, "-c", CHILD, *database, sid, act, str(os.getpid())]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)

    async def says(self) -> list[Any]:
        """Return what it says next."""
        assert self.process.stdout is not None
        line = await asyncio.wait_for(asyncio.to_thread(self.process.stdout.readline), LIMIT_S)
        assert line, f"it ended with {self.process.poll()}"
        words: list[Any] = json.loads(line)
        return words

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(LIMIT_S)

    def __enter__(self) -> Other:
        return self

    def __exit__(self, *error: object) -> None:
        with self.process:
            if error[0] is not None:
                self.process.kill()


@pytest.fixture(params=[one for one in BACKENDS if one.name != "sqlite-memory"], ids=lambda one: one.name)
async def database(request: pytest.FixtureRequest) -> AsyncIterator[tuple[str, str]]:
    async with request.param.fresh() as place:
        yield place.dsn, getattr(place, "prefix", "pl_")


def loop_on(database: tuple[str, str], *steps: Any) -> StatefulAgentLoop:
    return StatefulAgentLoop(llm=ScriptedLLM(steps), dsn=database[0], table_prefix=database[1])


@pytest.mark.promise("follow-up")
async def test_a_turn_is_steered_and_waited_for_from_another_process(database: tuple[str, str]) -> None:
    gate = Gate()
    async with loop_on(database, gate.then("First."), "Second.") as loop:
        sid = await loop.new_session()
        turn = asyncio.create_task(loop.send("go", session_id=sid))
        await gate.someone()
        with Other(database, sid, "and more") as steering:
            assert await steering.says() == ["left", 1, True]
        with Other(database, sid, "wait") as waiting:
            assert await waiting.says() == ["waits"]
            gate.open()
            assert (await within_limit(turn)).final_text == "Second."
            assert await waiting.says() == ["rests", "completed", "Waited."]
        texts = [text for _, text in said(await loop.get_messages(sid))]
        assert texts == ["go", "First.", "and more", "Second.", "after you", "Waited."]
        assert (steering.process.returncode, waiting.process.returncode) == (0, 0)


@pytest.mark.promise("cancel")
async def test_a_turn_is_cancelled_in_another_process(database: tuple[str, str]) -> None:
    async with loop_on(database, "Fine.") as loop:
        sid = await loop.new_session()
        with Other(database, sid, "hang") as other:
            assert await other.says() == ["asked"]
            assert await loop.cancel(sid, reason="from afar")
            assert await other.says() == ["rests", "cancelled", "from afar"]
        assert (await loop.send("again", session_id=sid)).final_text == "Fine."
        assert other.process.returncode == 0


@pytest.mark.promise("recover")
async def test_a_killed_process_is_recovered_with_what_was_said_to_it(database: tuple[str, str]) -> None:
    async def answer(request: LLMRequest) -> str:
        return f"{os.getpid()}"

    async with loop_on(database, answer) as loop:
        sid = await loop.new_session()
        with Other(database, sid, "hang") as other:
            assert await other.says() == ["asked"]
            assert (await loop.follow_up(sid, "and more")).is_turn_running
            assert await loop.recover(drive=False) == (), "it lives"
            other.kill()
        [report] = await within_limit(loop.recover())
        assert (report.found, report.status) == (Found.DEAD_TURN, SendStatus.COMPLETED)
        assert [text for _, text in said(await loop.get_messages(sid))] == ["go", "and more", f"{os.getpid()}"]
        assert await loop.recover() == ()
