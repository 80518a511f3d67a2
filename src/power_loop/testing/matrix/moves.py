"""Writes down under which epoch a process makes each of its moves, and what came of it, outside of the database."""

from __future__ import annotations

import functools
import itertools
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from power_loop.errors import SessionBusyError
from power_loop.records import EffectFailure
from power_loop.storage import Accepted
from power_loop.testing.matrix.points import Points

#: The point at which a claim was refused because somebody else holds the session.
TOLD_BUSY = "told session.busy"

_CLAIMS = ("accept", "take_up")
# A release of a lost lease changes nothing and says nothing: what it changed is seen in the session alone.
_UNDER_A_LEASE = ("append_reply", "advance_calls", "run_effect", "take_inputs", "end_send", "renew", "advance_run")

Move = dict[str, Any]


class Moves:
    """Puts itself between a loop and its store; a move is there once when it begins and once when it is made."""

    def __init__(self, path: Path, points: Points) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._points = points
        self._numbers = itertools.count(1)

    def watch(self, store: Any) -> None:
        """Write down what is made with this store from now on."""
        for name in _CLAIMS:
            setattr(store, name, self._claiming(name, getattr(store, name)))
        for name in _UNDER_A_LEASE:
            setattr(store, name, self._moving(name, getattr(store, name)))

    def _claiming(self, name: str, claim: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @functools.wraps(claim)
        async def watched(*args: Any, **options: Any) -> Any:
            number = self._begin(name)
            try:
                given = await claim(*args, **options)
            except SessionBusyError:
                self._points.passed(TOLD_BUSY)
                raise
            if isinstance(given, Accepted):
                lease = given.lease
                self._note(what="claimed", number=number, move=name, session=lease.session_id, epoch=lease.epoch)
            return given

        return watched

    def _moving(self, name: str, move: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @functools.wraps(move)
        async def watched(lease: Any, *args: Any, **options: Any) -> Any:
            number = self._begin(name)
            given = await move(lease, *args, **options)
            if not isinstance(given, EffectFailure):
                self._note(what="made", number=number, move=name, session=lease.session_id, epoch=lease.epoch)
            return given

        return watched

    def _begin(self, name: str) -> int:
        number = next(self._numbers)
        self._note(what="begun", number=number, move=name)
        return number

    def _note(self, **facts: Any) -> None:
        os.write(self._file, json.dumps(facts).encode() + b"\n")


def read_moves(path: Path) -> list[Move]:
    """Return what a process wrote down, in order."""
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def made_behind(moves: list[Move], mark: int) -> list[Move]:
    """Return the moves under a lease that began behind the first `mark` lines and were made.

    One that had begun before may have been made before as well: whether it was, the session shows.
    """
    earlier = {move["number"] for move in moves[:mark]}
    return [move for move in moves[mark:] if move["what"] == "made" and move["number"] not in earlier]
