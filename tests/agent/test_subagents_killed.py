"""A process that dies at any point while sub-agents work: the next one meets the same agents, and nothing twice."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.backends import SERVERS, SqliteFile

from .parts import within_limit

# Each point is one of some tests', so that none takes minutes. A server's commits are the same as SQLite's, and take
# longer: there only some of the points are tried.
_SHARES = 6
_EVERY_ELSEWHERE = 17
_LIMIT_S = 170
SHARES = [
    *(pytest.param(SqliteFile, first, _SHARES, id=f"sqlite-{first}") for first in range(_SHARES)),
    *(pytest.param(server, 0, _EVERY_ELSEWHERE, id=server.name) for server in SERVERS),
]


async def _lives(backend: Any, folder: Path, story: str, first: int, every: int) -> list[dict[str, Any]]:
    """Return what became of each life that was ended at a point."""
    async with backend.fresh() as place:
        arguments = (place.dsn, getattr(place, "prefix", "pl_"), str(folder), story, str(first), str(every))
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.agent.agents_child",
            *arguments,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, error = await asyncio.wait_for(process.communicate(), _LIMIT_S)
        await within_limit(process.wait())
        assert process.returncode == 0, error.decode()[-4000:]
    return [json.loads(line) for line in out.decode().splitlines()]


def _effects_are_right(life: dict[str, Any], workers: str) -> None:
    """What must not come twice came once at most; what may, came under one key."""
    lines = [line.split() for line in life["effects"]]
    for worker in workers:
        charged = [key for name, key in lines if name == f"charge:{worker}"]
        saved = {key for name, key in lines if name == f"save:{worker}"}
        assert len(charged) <= 1, life
        assert len(saved) == 1, life
    assert len(Counter(key for _, key in lines)) <= 2 * len(workers), life


@pytest.mark.promise("kill-at-any-moment")
@pytest.mark.parametrize(("backend", "first", "every"), SHARES)
async def test_whoever_takes_a_send_up_goes_on_with_its_agents_and_makes_no_others(
    backend: Any, first: int, every: int, tmp_path: Path
) -> None:
    lives = await _lives(backend, tmp_path, "waits", first, every)
    assert lives
    for life in lives:
        _effects_are_right(life, "abc")
        assert (life["status"], life["text"]) == ("completed", "All is done."), life
        assert (life["sessions"], life["sends"]) == (4, [1, 1, 1, 1]), life
        assert set(life["rest"]) == {"completed"}, life
        assert set(life["leases"]) == {None}, life
        # Nine model calls are stored: each counts once, with the send and with the session.
        assert life["model_calls"] == 9, life
        assert (life["tokens"], life["children_tokens"], life["stats_tokens"]) == (135, 105, 135), life
        assert not life["stalled"] + life["findings"], life


@pytest.mark.promise("kill-at-any-moment")
@pytest.mark.parametrize(("backend", "first", "every"), SHARES)
async def test_the_end_of_a_detached_agent_reaches_its_parent_once(
    backend: Any, first: int, every: int, tmp_path: Path
) -> None:
    lives = await _lives(backend, tmp_path, "detached", first, every)
    assert lives
    for life in lives:
        _effects_are_right(life, "d")
        assert (life["status"], life["text"]) in {
            ("completed", "It is at work."),
            # The report came before the send had ended.
            ("completed", "I have heard of it."),
        }, life
        assert life["sessions"] == 2, life
        assert set(life["rest"]) == {"completed"}, life
        assert [text for text in life["inputs"] if "d has worked." in text] == life["inputs"][1:], life
        assert len(life["inputs"]) == 2, life
        assert life["stats_tokens"] == 15 * life["model_calls"], life
        assert not life["stalled"] + life["findings"], life
