"""A fleet of workers is killed again and again: each input becomes one send, in order, and no session stays stuck."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from power_loop import SendStatus, StatefulAgentLoop
from power_loop.testing import ScriptedLLM
from tests.agent.parts import said
from tests.conformance.backends import BACKENDS

ROOT = Path(__file__).parents[2]
# Nothing takes so long unless it is broken, in seconds.
LIMIT_S = 450.0
SESSIONS, INPUTS = 40, 5
#: Each of the four workers is killed so many times, at a point that the seed says: a turn passes about eight.
DEATHS, FUSES = (2, 1, 1, 1), range(1, 150)


@pytest.fixture(params=[one for one in BACKENDS if one.name != "sqlite-memory"], ids=lambda one: one.name)
async def database(request: pytest.FixtureRequest) -> AsyncIterator[tuple[str, str]]:
    async with request.param.fresh() as place:
        yield place.dsn, getattr(place, "prefix", "pl_")


async def work(database: tuple[str, str], journal: Path, fuse: int) -> int:
    """Run a worker to its end; return how it ended."""
    command = ("-m", "tests.crash.fleet_child", *database, str(journal), str(fuse), str(os.getpid()))
    process = await asyncio.create_subprocess_exec(sys.executable, *command, cwd=ROOT)
    try:
        return await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def place_of_a_worker(database: tuple[str, str], journal: Path, fuses: list[int]) -> list[int]:
    """Keep one place of the fleet manned: who was killed is followed by another one, the last one without a fuse."""
    return [await work(database, journal, fuse) for fuse in (*fuses, 0)]


def check_alone(journal: Path) -> int:
    """Hold that no session was driven by one process while another one that lived did so; return how many died."""
    inside: dict[str, int] = {}
    dead: set[int] = set()
    for line in journal.read_text("utf-8").splitlines():
        what, pid, text = json.loads(line)
        sid = text.partition(" ")[0]
        if what == "dies":
            dead.add(pid)
        elif what == "asked":
            assert sid not in inside or inside[sid] in dead, f"{inside.get(sid)} and {pid} drove {sid}"
            inside[sid] = pid
        else:
            assert inside.pop(sid) == pid
    return len(dead)


@pytest.mark.parametrize("seed", [7])
@pytest.mark.promise("fleet", "one-writer", "kill-at-any-moment")
async def test_whatever_workers_die_each_input_becomes_one_send_in_order(
    database: tuple[str, str], tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    journal = tmp_path / "journal"
    async with StatefulAgentLoop(llm=ScriptedLLM(), dsn=database[0], table_prefix=database[1]) as loop:
        sids = [await loop.new_session() for _ in range(SESSIONS)]
        left = [(sid, f"{sid} {n}") for n in range(INPUTS) for sid in sids]
        await asyncio.gather(*(loop.enqueue(*one, request_id=one[1]) for one in left[:SESSIONS]))
        places = [
            asyncio.create_task(place_of_a_worker(database, journal, chance.sample(FUSES, deaths))) for deaths in DEATHS
        ]
        # The others come while they work.
        for one in left[SESSIONS:]:
            await loop.enqueue(*one, request_id=one[1])
        ends = await asyncio.wait_for(asyncio.gather(*places), LIMIT_S)
        assert all(one[-1] == 0 for one in ends), ends
        # Who was idle while the last of the others died has gone.
        assert await work(database, journal, 0) == 0
        store = await loop.get_store()
        for sid in sids:
            texts = [f"{sid} {n}" for n in range(INPUTS)]
            log = [entry for text in texts for entry in (("user", text), ("assistant", f"to {text}"))]
            assert said(await loop.get_messages(sid)) == log
            sends = [await store.get_send(sid, index=index) for index in range(1, INPUTS + 1)]
            assert [(send.status, send.request_id) for send in sends if send is not None] == [
                (SendStatus.COMPLETED, text) for text in texts
            ]
            head = await loop.get_session(sid)
            assert (head.owner, head.send_count, await loop.get_inbox(sid)) == (None, INPUTS, ())
    killed = sum(code == -signal.SIGKILL for one in ends for code in one)
    assert killed == check_alone(journal) > 0
