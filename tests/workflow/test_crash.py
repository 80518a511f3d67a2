"""A process that dies at any point of a run: the next one comes to the same results, and repeats nothing finished."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.agent.parts import within_limit
from tests.conformance.backends import SERVERS, SqliteFile

# A server's commits are the same as SQLite's, and take longer: there only some of the points are tried.
_EVERY_ELSEWHERE = 19
_PARTS, _PARTS_ELSEWHERE = 6, 3
_ASKED_PARTS = 3
_LIMIT_S = 230
BACKENDS = (SqliteFile, *SERVERS)
#: On a file all points, on a server some, both in parts: none takes long where a machine does much else.
SHARES = [
    *[(SqliteFile, first, _PARTS) for first in range(_PARTS)],
    *[
        (one, nth * _EVERY_ELSEWHERE, _PARTS_ELSEWHERE * _EVERY_ELSEWHERE)
        for one in SERVERS
        for nth in range(_PARTS_ELSEWHERE)
    ],
]
_SAID = {
    "plan": {"topics": ["a", "b"]},
    "all": ["Said: Write a.", "Said: Write b."],
    "write": "Said: Write.",
    "save": "saved",
    "end": "Said: End.",
}


async def _lives(backend: Any, folder: Path, story: str, first: int, every: int) -> list[dict[str, Any]]:
    """Return what became of each life that was ended at a point."""
    async with backend.fresh() as place:
        arguments = (place.dsn, getattr(place, "prefix", "pl_"), str(folder), story, str(first), str(every))
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.workflow.runs_child",
            *arguments,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, error = await asyncio.wait_for(process.communicate(), _LIMIT_S)
        await within_limit(process.wait())
        assert process.returncode == 0, error.decode()[-4000:]
    return [json.loads(line) for line in out.decode().splitlines()]


@pytest.mark.promise("workflow-killed")
@pytest.mark.parametrize("share", SHARES, ids=[f"{one.name}-{first}" for one, first, _ in SHARES])
async def test_a_run_that_was_killed_comes_to_the_same_and_repeats_nothing(share: Any, tmp_path: Path) -> None:
    backend, first, every = share
    lives = await _lives(backend, tmp_path, "research", first, every)
    assert lives
    for life in lives:
        assert (life["status"], life["outputs"]) == ("completed", _SAID), life
        assert [one[1:] for one in life["steps"]] == [["completed", 1]] * 6, life
        assert (life["children"], life["model_calls"] >= 5, set(life["leases"])) == (7, True, {None}), life
        assert life["tokens"] == 75, life
        # A leaf whose reply was stored is not asked again; one that was on its way when the process died is, once.
        again = Counter(life["asked"]["second"])
        assert not set(life["done"]) & set(again), life
        assert set((Counter(life["asked"]["first"]) + again).values()) <= {1, 2}, life
        assert set(again.values()) <= {1}, life
        assert life["asked"]["third"] == [], life
        charged = [line for line in life["effects"] if line.startswith("charge")]
        saved = {line for line in life["effects"] if line.startswith("save")}
        assert len(charged) <= 1, life
        assert len(saved) == 1, life
        assert not life["stalled"] + life["findings"], life


@pytest.mark.promise("workflow-detached")
@pytest.mark.parametrize("backend", BACKENDS, ids=[backend.name for backend in BACKENDS])
async def test_the_end_of_a_detached_run_reaches_its_session_once(backend: Any, tmp_path: Path) -> None:
    lives = await _lives(backend, tmp_path, "detached", 0, 1 if backend is SqliteFile else _EVERY_ELSEWHERE)
    assert lives
    points = {life["point"] for life in lives}
    # The timer that brings the end, and what it wakes.
    assert backend is not SqliteFile or {f"commit.after {name}" for name in ("claim_timers", "deliver_timer")} <= points
    for life in lives:
        assert (life["status"], life["outputs"]) == ("completed", {"only": "Said: Only."}), life
        assert (life["woken"], life["waiting"]) == (1, 0), life
        assert set(life["leases"]) == {None}, life
        assert not life["stalled"] + life["findings"], life


@pytest.mark.promise("workflow-wait")
@pytest.mark.parametrize("first", range(_ASKED_PARTS))
async def test_an_answer_drives_its_run_on_whatever_dies_behind_it(first: int, tmp_path: Path) -> None:
    lives = await _lives(SqliteFile, tmp_path, "asked", first, _ASKED_PARTS)
    assert lives
    for life in lives:
        assert (life["status"], life["outputs"]) == ("completed", {"allow": "allowed", "end": "Said: End."}), life
        assert (life["woken"], life["waiting"], set(life["leases"])) == (1, 0, {None}), life
        assert len(set(life["effects"])) == 1, life
        assert not life["stalled"] + life["findings"], life
