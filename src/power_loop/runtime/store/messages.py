"""Keeps the log: one immutable row a message."""

from __future__ import annotations

from collections.abc import Sequence

from power_loop.contracts.messages import Message
from power_loop.contracts.records import MessageRecord
from power_loop.runtime.store.codec import decode_message, encode_message
from power_loop.runtime.store.sql.database import Row, Transaction
from power_loop.runtime.store.sql.dialect import Renderer

_NO_LIMIT = (1 << 63) - 1


class Messages:
    """Runs the statements on `messages`, inside of others' transactions."""

    def __init__(self, render: Renderer) -> None:
        self._insert = render(
            "INSERT INTO {messages} (session_id, seq, send_index, round, role, body, created_at_ms)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)"
        )
        self._select = render(
            "SELECT seq, send_index, round, role, body, created_at_ms FROM {messages}"
            " WHERE session_id = ? AND seq > ? ORDER BY seq LIMIT ?"
        )
        # A cast, because the length of text is counted in characters.
        self._size = render(
            "SELECT COUNT(*), COALESCE(SUM(LENGTH(CAST(body AS BLOB))), 0) FROM {messages} WHERE session_id = ?"
        )

    async def append(
        self,
        tx: Transaction,
        session_id: str,
        rows: Sequence[tuple[str, str]],
        *,
        at_seq: int,
        send_index: int,
        round: int,
        at_ms: int,
    ) -> None:
        """Append rows of `message_row` in order from `at_seq` on."""
        if len(rows) == 1:
            role, body = rows[0]
            await tx.execute(self._insert, (session_id, at_seq, send_index, round, role, body, at_ms))
            return
        await tx.execute_many(
            self._insert,
            [(session_id, seq, send_index, round, role, body, at_ms) for seq, (role, body) in enumerate(rows, at_seq)],
        )

    async def read(
        self, tx: Transaction, session_id: str, *, after_seq: int = 0, limit: int | None = None
    ) -> tuple[MessageRecord, ...]:
        """Return messages in order."""
        rows = await tx.query(self._select, (session_id, after_seq, _NO_LIMIT if limit is None else limit))
        return tuple([_record_of(session_id, row) for row in rows])

    async def size(self, tx: Transaction, session_id: str) -> tuple[int, int]:
        """Return how many messages there are, and their bytes."""
        [(count, size)] = await tx.query(self._size, (session_id,))
        return count, size


def message_row(message: Message) -> tuple[str, str]:
    """Return what a message's row holds of the message itself."""
    return message.role.value, encode_message(message)


def _record_of(session_id: str, row: Row) -> MessageRecord:
    seq, send_index, round, role, body, created_at_ms = row
    message = decode_message(role, body, f"message {seq} of session {session_id!r}")
    return MessageRecord(seq, send_index, round, message, created_at_ms)
