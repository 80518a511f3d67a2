"""Keeps the projection: finished sends as plain text, in rows that can be made again from the log."""

from __future__ import annotations

from collections.abc import Sequence

from power_loop.contracts.errors import StoreCorruptError
from power_loop.contracts.records import ProjectedMessage
from power_loop.runtime.store.blobs import Blobs
from power_loop.runtime.store.codec import decode_message
from power_loop.runtime.store.lineage import Span
from power_loop.runtime.store.messages import message_row
from power_loop.runtime.store.sql.database import Statement, Transaction
from power_loop.runtime.store.sql.dialect import Renderer


class Projections:
    """Runs the statements on `project_messages`, inside of others' transactions."""

    def __init__(self, render: Renderer, blobs: Blobs) -> None:
        self._blobs = blobs
        self._insert = render(
            "INSERT INTO {project_messages} (session_id, seq, to_seq, role, body, created_at_ms)"
            " VALUES (?, ?, ?, ?, ?, ?)"
        )
        self._delete = render("DELETE FROM {project_messages} WHERE session_id = ? AND to_seq >= ?")
        self._select = render(
            "SELECT seq, to_seq, role, body FROM {project_messages}"
            " WHERE session_id = ? AND seq > ? AND to_seq > ? AND to_seq <= ? ORDER BY seq"
        )

    def replaces(
        self, session_id: str, rows: Sequence[ProjectedMessage], *, at_ms: int, blobs: dict[str, str]
    ) -> list[Statement]:
        """Return the statements that store the rows of a send, over those of an earlier end of it.

        Raises `store.corrupt` for rows that overlap or do not rise. Big data of them goes into `blobs`.
        """
        if not rows:
            return []
        last = 0
        for row in rows:
            if not last < row.seq <= row.to_seq:
                raise StoreCorruptError(
                    f"session {session_id!r}: a row of the projection stands for messages {row.seq} to {row.to_seq},"
                    f" and the one before it ends with {last}; nothing was written"
                )
            last = row.to_seq
        inserts: list[Statement] = [
            (self._insert, (session_id, row.seq, row.to_seq, *message_row(row.message, blobs), at_ms)) for row in rows
        ]
        return [(self._delete, (session_id, rows[0].seq)), *inserts]

    async def read(self, tx: Transaction, spans: Sequence[Span], *, after_seq: int) -> tuple[ProjectedMessage, ...]:
        """Return the rows that begin behind a seq, in order.

        A fork that took up a send of its ancestor has rows of its own for all of it, which count.
        """
        found: list[ProjectedMessage] = []
        for span in spans:
            if span.to_seq <= after_seq:
                continue
            rows = await tx.query(self._select, (span.session_id, after_seq, span.after_seq, span.to_seq))
            blobs = await self._blobs.of(tx, span.session_id, [row[3] for row in rows])
            while rows and found and found[-1].to_seq >= rows[0][0]:
                found.pop()
            for seq, to_seq, role, body in rows:
                where = f"projection {seq} of session {span.session_id!r}"
                found.append(ProjectedMessage(seq, to_seq, decode_message(role, body, where, blobs)))
        return tuple(found)
