"""Folds a session because somebody asks for it, beside its sends."""

from __future__ import annotations

import contextlib

from power_loop.contracts.errors import StoreError
from power_loop.contracts.records import Accepted, FoldRecord
from power_loop.core.turn.folding import fold
from power_loop.core.turn.scope import TurnStopped
from power_loop.core.turn.seat import TurnSeat, at_rest, claim, hold, last_send
from power_loop.core.turn.turn import Turn


async def compact(seat: TurnSeat) -> FoldRecord | None:
    """Fold a session under its lease and return the fold; None where there is too little to fold, where it was not
    allowed or failed, and where the seat's scope was stopped. The newest reply stays in the window, and the log and its
    sends stay as they are.

    Raises `session.not_found`, `session.busy`.
    """
    try:
        async with seat.kit.desk.turn(seat.session_id, seat.scope):
            await last_send(seat)
            taken: Accepted = await claim(seat, lambda one: seat.kit.store.take_up(one, drives=False))
            return await hold(seat, taken, lambda: at_rest(seat, taken), _folded)
    except TurnStopped:
        return None


async def _folded(turn: Turn) -> FoldRecord | None:
    record = await fold(turn, is_asked_for=True)
    # What the window holds is what the store holds: the next send finds it.
    with contextlib.suppress(StoreError):
        await turn.kit.store.release(turn.lease)
        turn.is_at_rest = True
    return record
