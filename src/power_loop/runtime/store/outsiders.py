"""Makes the moves of those who hold no lease: leave an input, take it back, ask a turn to stop, see who needs help."""

from __future__ import annotations

from collections.abc import Sequence

from power_loop.contracts.clock import Clock
from power_loop.contracts.errors import InboxFullError
from power_loop.contracts.messages import clean_text
from power_loop.contracts.records import (
    InboxRecord,
    Lease,
    News,
    NewSend,
    Queued,
    SendRecord,
    SessionRecord,
)
from power_loop.runtime.store.codec import encode_json
from power_loop.runtime.store.commits import Commits, checked_request_id, new_op
from power_loop.runtime.store.inbox import Inbox
from power_loop.runtime.store.messages import message_row
from power_loop.runtime.store.sessions import Sessions
from power_loop.runtime.store.sql.database import Database, Transaction

#: So many inputs may wait in one session's inbox.
MAX_WAITING = 1_000


class Outsiders:
    """Makes the moves, one transaction each; each writes the head row first, which orders them among each other and
    with those of a turn."""

    def __init__(self, database: Database, clock: Clock, *, sessions: Sessions, inbox: Inbox, commits: Commits) -> None:
        self._database = database
        self._clock = clock
        self._sessions = sessions
        self._inbox = inbox
        self._commits = commits

    async def put_input(self, session_id: str, new: NewSend) -> Queued | SendRecord:
        """Leave an input in the inbox and signal it, or return what has this `request_id` already."""
        at_ms, op = self._clock.now_ms(), new_op()
        _, message = message_row(new.message)
        options = encode_json(new.options, "options of an input")
        if new.request_id is not None:
            checked_request_id(new.request_id)
        position = 0

        async def body(tx: Transaction) -> Queued:
            nonlocal position
            if not await self._sessions.count_input(tx, session_id, at_ms=at_ms):
                raise await self._sessions.refusal(tx, session_id, at_ms=at_ms, needs_open=True)
            position, gone, owner, until_ms, _ = await self._sessions.inbox_of(tx, session_id)
            is_running = owner is not None and until_ms > at_ms
            if new.request_id is not None:
                known = await self._commits.known(tx, session_id, new)
                if known is not None:
                    raise _Known(known, is_running)
            if position - gone > MAX_WAITING:
                raise inbox_full(session_id)
            sql, row = self._inbox.insert(
                session_id,
                position,
                request_id=new.request_id,
                input_hash=new.input_hash,
                body=message,
                options=options,
                at_ms=at_ms,
                op=op,
            )
            await tx.execute(sql, row)
            if not is_running:
                await self._sessions.tell_of_work(tx, session_id)
            record = await self._inbox.get(tx, session_id, position=position)
            assert record is not None
            return Queued(record, is_running)

        async def landed(tx: Transaction) -> bool:
            # The look at the head waits for a write that is still on its way.
            await self._sessions.has_op(tx, session_id, op)
            return await self._inbox.has_op(tx, session_id, position, op)

        try:
            return await self._database.write("put_input", body, landed=landed)
        except _Known as known:
            if isinstance(known.record, SendRecord):
                return known.record
            return Queued(known.record, known.is_turn_running, is_known=True)

    async def get_inbox(self, session_id: str, *, limit: int | None) -> tuple[InboxRecord, ...]:
        """Return the inputs that wait, in order."""

        async def body(tx: Transaction) -> tuple[InboxRecord, ...]:
            await self._sessions.inbox_of(tx, session_id)
            return await self._inbox.waiting(tx, session_id, limit=limit)

        return await self._database.read(body)

    async def withdraw(self, session_id: str, position: int) -> bool:
        """Take an input back that waits; False if it does not (any more)."""
        at_ms = self._clock.now_ms()

        async def body(tx: Transaction) -> bool:
            await self._sessions.signal(tx, session_id)
            [(sql, row)] = self._inbox.takes(session_id, ((position, None, None),), at_ms=at_ms)
            has_left = bool(await tx.execute(sql, row))
            sql, params = self._sessions.settle_inbox(session_id, behind=0)
            await tx.execute(sql, params)
            return has_left

        return await self._database.write("withdraw_input", body)

    async def cancel(self, session_id: str, *, reason: str) -> SessionRecord:
        """Ask the turn that holds the lease to stop, if there is one; return the head."""
        text = clean_text(reason)

        async def body(tx: Transaction) -> SessionRecord:
            await self._sessions.cancel(tx, session_id, reason=text)
            return await self._sessions.get(tx, session_id)

        return await self._database.write("ask_to_cancel", body)

    async def read_signals(self, session_ids: Sequence[str]) -> dict[str, tuple[int, int]]:
        """Return (epoch, signals) of sessions."""

        async def body(tx: Transaction) -> dict[str, tuple[int, int]]:
            return await self._sessions.signals_of(tx, session_ids)

        return await self._database.read(body)

    async def read_news(self, lease: Lease) -> News:
        """Return what somebody outside has to say to the turn of a lease."""
        return await self._database.read(lambda tx: self._sessions.news(tx, lease))


class _Known(Exception):  # noqa: N818  (a signal of this room to itself, not an error)
    """Undoes the counting of an input that is there already."""

    def __init__(self, record: SendRecord | InboxRecord, is_turn_running: bool) -> None:
        super().__init__(record.request_id)
        self.record = record
        self.is_turn_running = is_turn_running


def inbox_full(session_id: str) -> InboxFullError:
    """Return the error for an inbox that takes no more."""
    return InboxFullError(
        f"{MAX_WAITING} inputs wait in the inbox of session {session_id!r}, which is as many as it takes: nothing was"
        " stored; let its turns catch up (recover() drives a session that nobody drives), or withdraw() some",
        session_id=session_id,
    )
