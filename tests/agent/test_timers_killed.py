"""A runner that dies at any point of a delivery: the next one goes on, and no firing is lost or comes twice."""

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
from .timers_child import EXPECTED

# Each point is one of some tests', so that none takes minutes. A server's commits are the same as SQLite's, and take
# longer: there only some of the points are tried.
_SHARES = 3
_EVERY_ELSEWHERE = 9
_LIMIT_S = 170
SHARES = [
    *(pytest.param(SqliteFile, first, _SHARES, id=f"sqlite-{first}") for first in range(_SHARES)),
    *(pytest.param(server, 0, _EVERY_ELSEWHERE, id=server.name) for server in SERVERS),
]


@pytest.mark.promise("durable-timers")
@pytest.mark.promise("kill-at-any-moment")
@pytest.mark.parametrize(("backend", "first", "every"), SHARES)
async def test_each_firing_is_delivered_once_whenever_its_runner_dies(
    backend: Any, first: int, every: int, tmp_path: Path
) -> None:
    async with backend.fresh() as place:
        arguments = (place.dsn, getattr(place, "prefix", "pl_"), str(tmp_path), str(first), str(every))
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.agent.timers_child",
            *arguments,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, error = await asyncio.wait_for(process.communicate(), _LIMIT_S)
        await within_limit(process.wait())
        assert process.returncode == 0, error.decode()[-4000:]
    lives = [json.loads(line) for line in out.decode().splitlines()]
    assert len(lives) > 30 / every
    assert any(life["was_killed"] for life in lives)
    for move in ("claim_timers", "deliver_timer", "drop_timer", "put_back_timer"):
        assert any(move in point for point in lives[0]["points"]), move
    for life in lives:
        assert Counter(life["said"]) == EXPECTED, life
        assert life["timers"] == {"once": ["done", 1, 0], "twice": ["done", 2, 0], "asked": ["done", 1, 1]}, life
        assert (life["waiting"], life["rests"], life["findings"]) == (0, True, []), life
