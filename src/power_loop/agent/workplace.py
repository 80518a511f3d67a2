"""Is what a handle gives to a worker: its store, and how a session that was claimed is driven."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractContextManager
from typing import Any

from power_loop.contracts.frozen import frozen
from power_loop.contracts.ports import SessionStore
from power_loop.contracts.results import StatefulResult
from power_loop.core.turn.desk import Desk
from power_loop.core.turn.scope import TurnScope

#: Drives a session; None if there was nothing to do.
DriveIn = Callable[[str, TurnScope], Coroutine[Any, Any, StatefulResult | None]]


@frozen
class Workplace:
    """Is where a worker drives the sessions of a store.

    `desk` knows this process and its turns. `in_flight` counts something that closing the handle waits for, and
    `is_closed` tells that it wants to close. `deliver` delivers the timers that workflows made, and returns the
    sessions that are to be driven behind it. `recover` goes on with a send whose process died, `next_turn` makes a turn
    of the input that waits first.
    """

    store: SessionStore
    desk: Desk
    lease_ttl_s: float
    is_owner_dead: Callable[[str], bool]
    in_flight: Callable[[], AbstractContextManager[None]]
    is_closed: Callable[[], bool]
    deliver: Callable[[], Awaitable[Sequence[str]]]
    recover: DriveIn
    next_turn: DriveIn
