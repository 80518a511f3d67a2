"""Gives stalled sessions to whoever drives them: each to one of many that ask at the same time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from power_loop.contracts.clock import Clock
from power_loop.contracts.ports import Listener
from power_loop.contracts.records import StalledSession
from power_loop.runtime.store.commits import new_op
from power_loop.runtime.store.sessions import Sessions, ttl_ms_of
from power_loop.runtime.store.sql.database import Database, Transaction
from power_loop.runtime.store.stalled import Stalled

# So many more are looked at than are wanted: rivals look at the same ones first.
_SPARE = 32
# Sessions that one query asks for.
_MAX_ASKED = 50


class Claims:
    """Looks for sessions with something to do, and takes their leases.

    The look reads without a lock. What it finds is then locked by its key, passing over what others are writing, and
    taken if nothing of it has changed: nobody waits for anybody, and a look that finds nothing writes nothing.
    """

    def __init__(self, database: Database, clock: Clock, *, sessions: Sessions, stalled: Stalled) -> None:
        self._database = database
        self._clock = clock
        self._sessions = sessions
        self._stalled = stalled

    async def claim(
        self,
        owner: str,
        *,
        ttl_s: float,
        limit: int,
        dead_owners: Sequence[str],
        passing_over: Collection[str],
        failed_within_ms: int,
    ) -> tuple[StalledSession, ...]:
        """Take at most `limit` sessions."""
        at_ms = self._clock.now_ms()
        most = limit + _SPARE + len(passing_over)
        found = await self._database.read(
            lambda tx: self._stalled.work(
                tx, at_ms=at_ms, dead_owners=dead_owners, failed_within_ms=failed_within_ms, limit=most
            )
        )
        wanted = [one for one in found if one.session_id not in passing_over]
        if not wanted:
            return ()
        op, taken = new_op(), list[StalledSession]()

        async def body(tx: Transaction) -> tuple[StalledSession, ...]:
            taken.clear()
            at_ms, left = self._clock.now_ms(), wanted
            while left and len(taken) < limit:
                size = min(limit - len(taken), _MAX_ASKED)
                chunk, left = left[:size], left[size:]
                free = await self._sessions.lock_free(tx, [one.session_id for one in chunk])
                for one in chunk:
                    # Whatever turn came since the look has another epoch.
                    if free.get(one.session_id) == (one.owner, one.epoch) and await self._sessions.take_over(
                        tx, one.session_id, one.epoch, owner=owner, at_ms=at_ms, ttl_ms=ttl_ms_of(ttl_s), op=op
                    ):
                        taken.append(replace(one, epoch=one.epoch + 1))
            return tuple(taken)

        async def landed(tx: Transaction) -> bool:
            return bool(taken) and await self._sessions.has_op(tx, taken[0].session_id, op)

        return await self._database.write("claim_stalled", body, landed=landed)

    async def listen(self, heard: Callable[[], None]) -> Listener | None:
        """Call `heard` when something is left to do."""
        return await self._database.listen(self._sessions.work_channel, heard)
