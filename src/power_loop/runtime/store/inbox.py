"""Keeps the inboxes: one row an input that was left for a session, in order, and where it went."""

from __future__ import annotations

from collections.abc import Sequence

from power_loop.contracts.records import InboxRecord
from power_loop.contracts.states import NextInput
from power_loop.runtime.store.codec import decode_json, decode_message
from power_loop.runtime.store.sql.database import Row, Statement, Transaction
from power_loop.runtime.store.sql.dialect import Renderer

_NO_LIMIT = (1 << 63) - 1
_ROLE = "user"

#: An input that leaves the inbox: its position, and the send and the seq that it gets, None and None if it gets none.
Place = tuple[int, int | None, int | None]


class Inbox:
    """Runs the statements on `inbox`, inside of others' transactions.

    A row that left keeps what a repeated request is recognized by; its body stands in the log then.
    """

    def __init__(self, render: Renderer) -> None:
        self._insert = render(
            "INSERT INTO {inbox} (session_id, position, request_id, input_hash, body, options, created_at_ms,"
            " taken_at_ms, send_index, seq, op) VALUES (?, ?, ?, ?, ?, ?, ?, NULL, NULL, NULL, ?)"
        )
        self._take = render(
            "UPDATE {inbox} SET body = NULL, taken_at_ms = ?, send_index = ?, seq = ?"
            " WHERE session_id = ? AND position = ? AND taken_at_ms IS NULL"
        )
        select = (
            "SELECT position, request_id, input_hash, body, options, created_at_ms, taken_at_ms, send_index, seq"
            " FROM {inbox} WHERE session_id = ?"
        )
        self._by_position = render(f"{select} AND position = ?")
        self._by_request = render(f"{select} AND request_id = ?")
        self._waiting = render(f"{select} AND taken_at_ms IS NULL ORDER BY position LIMIT ?")
        self._op = render("SELECT op FROM {inbox} WHERE session_id = ? AND position = ?")

    def insert(
        self,
        session_id: str,
        position: int,
        *,
        request_id: str | None,
        input_hash: str,
        body: str,
        options: str,
        at_ms: int,
        op: str,
    ) -> Statement:
        """Return the statement that leaves an input."""
        return self._insert, (session_id, position, request_id, input_hash, body, options, at_ms, op)

    def takes(self, session_id: str, places: Sequence[Place], *, at_ms: int) -> list[Statement]:
        """Return the statements by which inputs leave the inbox; one that does not wait changes no row."""
        return [(self._take, (at_ms, index, seq, session_id, position)) for position, index, seq in places]

    async def get(
        self, tx: Transaction, session_id: str, *, position: int | None = None, request_id: str | None = None
    ) -> InboxRecord | None:
        """Return an input by its position or its request id."""
        if position is not None:
            rows = await tx.query(self._by_position, (session_id, position))
        else:
            rows = await tx.query(self._by_request, (session_id, request_id))
        return _record_of(session_id, rows[0]) if rows else None

    async def first(self, tx: Transaction, session_id: str) -> InboxRecord | None:
        """Return the input that waits first."""
        found = await self.waiting(tx, session_id, limit=1)
        return found[0] if found else None

    async def waiting(self, tx: Transaction, session_id: str, *, limit: int | None = None) -> tuple[InboxRecord, ...]:
        """Return the inputs that wait, in order."""
        rows = await tx.query(self._waiting, (session_id, _NO_LIMIT if limit is None else limit))
        return tuple([_record_of(session_id, row) for row in rows])

    async def has_op(self, tx: Transaction, session_id: str, position: int, op: str) -> bool:
        """Tell whether the write with this token left the input at a position."""
        rows = await tx.query(self._op, (session_id, position))
        return bool(rows) and bool(rows[0][0] == op)


def next_input_of(record: InboxRecord) -> NextInput:
    """Return what an input that waits is to a turn that runs."""
    return NextInput.SEND if record.options else NextInput.FOLLOW_UP


def _record_of(session_id: str, row: Row) -> InboxRecord:
    position, request_id, input_hash, body, options, created_at_ms, taken_at_ms, send_index, seq = row
    where = f"input {position} of session {session_id!r}"
    return InboxRecord(
        session_id=session_id,
        position=position,
        request_id=request_id,
        input_hash=input_hash,
        message=None if body is None else decode_message(_ROLE, body, where),
        options=decode_json(options, f"options of {where}"),
        created_at_ms=created_at_ms,
        taken_at_ms=taken_at_ms,
        send_index=send_index,
        seq=seq,
    )
