"""Makes the moves of timers: schedule, cancel, claim, deliver, leave out, put back; one transaction each."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace

from power_loop.contracts.clock import Clock
from power_loop.contracts.messages import Message, clean_text
from power_loop.contracts.numbers import check_whole
from power_loop.contracts.records import Page
from power_loop.contracts.schedules import check_schedule
from power_loop.contracts.timers import (
    NewTimer,
    TimerClaim,
    TimerDelivery,
    TimerMaker,
    TimerRecord,
    check_timer_id,
    check_timer_name,
)
from power_loop.runtime.store.commits import new_op
from power_loop.runtime.store.inbox import Inbox
from power_loop.runtime.store.messages import message_row
from power_loop.runtime.store.outsiders import MAX_WAITING, inbox_full
from power_loop.runtime.store.run_wakes import RunWakes
from power_loop.runtime.store.sessions import Sessions
from power_loop.runtime.store.sql.database import Database, T, Transaction
from power_loop.runtime.store.timers import TimerRows, timer_not_found

#: Claims that one transaction gives.
MAX_CLAIMS = 200
_MAX_ERROR_CHARS = 1_000
_MAX_PAGE = 1_000


class TimerMoves:
    """Makes the moves of timers, one transaction each, by the time of the store."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        rows: TimerRows,
        sessions: Sessions,
        inbox: Inbox,
        wakes: RunWakes,
    ) -> None:
        self._database = database
        self._clock = clock
        self._rows = rows
        self._sessions = sessions
        self._inbox = inbox
        self._wakes = wakes

    async def schedule(self, new: NewTimer) -> TimerRecord:
        """Make a timer, or return the one that was made of the same request."""
        check_timer_id(new.id)
        check_timer_name(new.name)
        check_schedule(new.schedule)
        at_ms, op = self._clock.now_ms(), new_op()

        async def body(tx: Transaction) -> TimerRecord:
            return await self._rows.schedule(tx, new, at_ms=at_ms, op=op)

        made = await self._database.write("schedule_timer", body, landed=lambda tx: self._has_op(tx, new, op))
        self._rows.bell.ring()
        return made

    async def cancel(self, timer_id: str, session_id: str | None) -> bool:
        """End a timer; False if it had ended."""
        at_ms, op = self._clock.now_ms(), new_op()

        async def body(tx: Transaction) -> bool:
            return await self._rows.cancel(tx, session_id, timer_id, at_ms=at_ms, op=op)

        return await self._database.write("cancel_timer", body, landed=lambda tx: self._rows.has_op(tx, timer_id, op))

    async def get(self, timer_id: str) -> TimerRecord:
        """Return a timer. Raises `timer.not_found`."""

        async def body(tx: Transaction) -> TimerRecord:
            found = await self._rows.get(tx, timer_id)
            if found is None:
                raise timer_not_found(timer_id, None)
            return found

        return await self._database.read(body)

    async def page(
        self, session_id: str | None, *, with_ended: bool, cursor: str | None, limit: int
    ) -> Page[TimerRecord]:
        """Return a page of timers, in order of their ids."""
        check_whole("limit", limit, least=1, most=_MAX_PAGE)
        if cursor is not None:
            check_timer_id(cursor)

        async def body(tx: Transaction) -> Page[TimerRecord]:
            if session_id is not None:
                await self._sessions.inbox_of(tx, session_id)
            found = await self._rows.page(tx, session_id, with_ended=with_ended, after=cursor or "", limit=limit + 1)
            return Page(tuple(found[:limit]), found[limit - 1].id if len(found) > limit else None)

        return await self._database.read(body)

    async def claim(
        self,
        owner: str,
        *,
        ttl_ms: int,
        limit: int,
        only: Sequence[str] | None,
        dead_owners: Sequence[str],
        made_by: TimerMaker | None,
    ) -> tuple[TimerClaim, ...]:
        """Give out due timers to an owner, who has so long to deliver each, with what dead owners have claimed."""
        at_ms, op = self._clock.now_ms(), new_op()
        if made_by is not None and not dead_owners:
            # Who looks for a maker's looks often, and seldom finds any: that writes nothing.
            has_due = await self._database.read(lambda tx: self._rows.has_due(tx, made_by, at_ms=at_ms))
            if not has_due:
                return ()

        async def body(tx: Transaction) -> list[TimerClaim]:
            await self._rows.free(tx, dead_owners, at_ms=at_ms, op=op)
            return await self._rows.claim(
                tx,
                owner,
                at_ms=at_ms,
                until_ms=at_ms + ttl_ms,
                limit=min(limit, MAX_CLAIMS),
                only=only,
                made_by=made_by,
                op=op,
            )

        # Run twice, the second one finds the rows of the first claimed, and they come again when that is over.
        return tuple(await self._database.write("claim_timers", body))

    async def owners(self, *, within_ms: int) -> tuple[str, ...]:
        """Return who holds claims that are over within so long."""
        at_ms = self._clock.now_ms()
        return await self._database.read(lambda tx: self._rows.owners(tx, at_ms=at_ms, until_ms=at_ms + within_ms))

    async def next_in_ms(self) -> int | None:
        """Return in how many milliseconds a timer has to be looked at first; None if none is armed."""
        at_ms = self._clock.now_ms()
        wake_ms = await self._database.read(self._rows.next_wake)
        return None if wake_ms is None else max(wake_ms - at_ms, 0)

    async def deliver(self, claim: TimerClaim, message: Message, input_hash: str) -> TimerDelivery | None:
        """Put the input of a firing into the session's inbox and move the timer on, or end it where the session is
        closed, in one transaction; None where the claim was lost, and nothing was done."""
        at_ms, op = self._clock.now_ms(), new_op()
        timer, session_id = claim.timer, claim.timer.session_id
        _, text = message_row(message)
        position = 0

        async def wake(tx: Transaction) -> TimerDelivery:
            if not await self._wakes.is_run(tx, session_id):
                return await body(tx)  # a conversation that is called like a run
            # The head first here too.
            was_resting = await self._wakes.wake(tx, session_id, at_ms=at_ms)
            if not await self._rows.move_on(tx, claim, at_ms=at_ms, op=op, delivered=1, missed=0, vetoed=0):
                raise _ClaimLost
            return replace(await self._delivery(tx, timer.id, None, not was_resting), woke_run=was_resting)

        async def body(tx: Transaction) -> TimerDelivery:
            nonlocal position
            # The head first, as all who leave inputs do.
            if not await self._sessions.count_input(tx, session_id, at_ms=at_ms):
                if not await self._rows.is_held(tx, claim):
                    raise _ClaimLost
                await self._rows.end_claimed(tx, claim, at_ms=at_ms, op=op)
                return await self._delivery(tx, timer.id, None, False)
            if not await self._rows.move_on(tx, claim, at_ms=at_ms, op=op, delivered=1, missed=0, vetoed=0):
                raise _ClaimLost
            position, gone, owner, until_ms, _ = await self._sessions.inbox_of(tx, session_id)
            if position - gone > MAX_WAITING:
                raise inbox_full(session_id)
            sql, row = self._inbox.insert(
                session_id,
                position,
                request_id=timer.request_id,
                input_hash=input_hash,
                body=text,
                options="{}",
                at_ms=at_ms,
                op=op,
            )
            await tx.execute(sql, row)
            is_turn_running = owner is not None and until_ms > at_ms
            if not is_turn_running:
                await self._sessions.tell_of_work(tx, session_id)
            return await self._delivery(tx, timer.id, position, is_turn_running)

        return await self._settle("deliver_timer", claim, wake if timer.is_of_a_run else body, op)

    async def drop(self, claim: TimerClaim, *, is_veto: bool) -> TimerRecord | None:
        """Leave a firing out, and move the timer on; None where the claim was lost."""
        at_ms, op = self._clock.now_ms(), new_op()

        async def body(tx: Transaction) -> TimerRecord:
            moved = await self._rows.move_on(
                tx, claim, at_ms=at_ms, op=op, delivered=0, missed=int(not is_veto), vetoed=int(is_veto)
            )
            return await self._changed(tx, claim, moved)

        return await self._settle("drop_timer", claim, body, op)

    async def put_back(self, claim: TimerClaim, *, after_ms: int, error: str | None) -> TimerRecord | None:
        """Give a claim back, so that the firing comes again after so long: postponed, or failed by an `error`; None
        where the claim was lost."""
        at_ms, op = self._clock.now_ms(), new_op()
        due_ms = claim.timer.due_at_ms if error is not None else at_ms + after_ms
        assert due_ms is not None
        text = None if error is None else clean_text(error)[:_MAX_ERROR_CHARS]

        async def body(tx: Transaction) -> TimerRecord:
            moved = await self._rows.put_back(tx, claim, due_ms=due_ms, wake_ms=at_ms + after_ms, error=text, op=op)
            return await self._changed(tx, claim, moved)

        return await self._settle("put_back_timer", claim, body, op)

    async def _settle(
        self, move: str, claim: TimerClaim, body: Callable[[Transaction], Coroutine[None, None, T]], op: str
    ) -> T | None:
        with contextlib.suppress(_ClaimLost):
            return await self._database.write(move, body, landed=lambda tx: self._rows.has_op(tx, claim.timer.id, op))
        return None

    async def _changed(self, tx: Transaction, claim: TimerClaim, moved: bool) -> TimerRecord:
        if not moved:
            raise _ClaimLost
        timer = await self._rows.get(tx, claim.timer.id)
        assert timer is not None
        return timer

    async def _delivery(
        self, tx: Transaction, timer_id: str, position: int | None, is_turn_running: bool
    ) -> TimerDelivery:
        timer = await self._rows.get(tx, timer_id)
        assert timer is not None
        record = None if position is None else await self._inbox.get(tx, timer.session_id, position=position)
        return TimerDelivery(timer, record, is_turn_running)

    async def _has_op(self, tx: Transaction, new: NewTimer, op: str) -> bool:
        return await self._rows.has_op(tx, new.id, op)


class _ClaimLost(Exception):  # noqa: N818  (a signal of this room to itself, not an error)
    """Undoes what was done under a claim that somebody else has by now."""
