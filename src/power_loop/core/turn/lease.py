"""Takes a session's lease and keeps it while a turn runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

from power_loop.contracts.errors import LeaseLostError, PowerLoopError, SessionBusyError
from power_loop.contracts.ports import SessionStore
from power_loop.contracts.records import Accepted, Claim, Lease
from power_loop.core.turn.desk import Desk
from power_loop.core.turn.scope import StopCause, TurnScope

T = TypeVar("T")

_LOG = logging.getLogger("power_loop")
#: A lease is renewed so many times before it would expire.
BEATS = 3
# How long a send waits between two looks at a lease that another process holds.
_FIRST_LOOK_S = 0.02
_LONGEST_LOOK_S = 0.5


async def claim_lease(
    session_id: str,
    take: Callable[[Claim], Awaitable[T]],
    *,
    desk: Desk,
    scope: TurnScope,
    ttl_s: float,
    is_owner_dead: Callable[[str], bool],
) -> T:
    """Return what `take` gives for a claim, with the turn of `scope` entered at the desk if that is the lease.

    A lease whose owner is known to be dead is taken over at once, and so is one that this process took for the turn
    beforehand. Raises `session.busy` where somebody else's turn
    runs.
    """
    with desk.claiming(session_id):
        before = desk.forget_taken(session_id)
        try:
            taken = await take(Claim(session_id, desk.owner, ttl_s, dead_owner=None if before is None else desk.owner))
        except SessionBusyError as busy:
            # This process's own lease without a turn is one that could not be given back: the database was away.
            is_left_over = busy.owner == desk.owner and desk.is_left_over(session_id)
            if not is_left_over and not await asyncio.to_thread(is_owner_dead, busy.owner):
                raise
            taken = await take(Claim(session_id, desk.owner, ttl_s, dead_owner=busy.owner))
        if isinstance(taken, Accepted):
            desk.begin(session_id, scope)
            if before is not None:
                return replace(taken, previous_owner=before[0])
        return taken


async def until_free(session_id: str, *, desk: Desk, attempt: int) -> None:
    """Wait until a lease that somebody else holds is worth another try: at once when a turn of this process ends, else
    after a time that grows with each attempt."""
    with desk.ending(session_id) as ended:
        delay_s = min(_FIRST_LOOK_S * 2**attempt, _LONGEST_LOOK_S)
        await asyncio.wait((ended,), timeout=delay_s)


class Heartbeat:
    """Renews a lease every third of its time; stops the turn when the lease is lost."""

    __slots__ = ("_lease", "_scope", "_store", "_task", "_timer", "_ttl_s")

    def __init__(self, store: SessionStore, lease: Lease, ttl_s: float, scope: TurnScope) -> None:
        self._store = store
        self._lease = lease
        self._ttl_s = ttl_s
        self._scope = scope
        self._task: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(ttl_s / BEATS, self._beat)

    def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._renew())
        self._timer = loop.call_later(self._ttl_s / BEATS, self._beat)

    async def _renew(self) -> None:
        try:
            await self._store.renew(self._lease, ttl_s=self._ttl_s)
        except LeaseLostError:
            self._timer.cancel()
            self._scope.stop(StopCause.LEASE_LOST)
        except PowerLoopError as error:
            # The database may be back before the lease is over; until then every write is guarded anyway.
            _LOG.warning("the lease of %s could not be renewed: %s", self._lease.session_id, error)

    async def stop(self) -> None:
        """End it."""
        self._timer.cancel()
        if self._task is not None and not self._task.done():
            await asyncio.wait((self._task,))
