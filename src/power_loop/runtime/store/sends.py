"""Keeps the sends: one row an input, and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from power_loop.contracts.records import SendRecord
from power_loop.contracts.states import RESUMABLE_SENDS, SendStatus
from power_loop.runtime.store.codec import decode_choice, decode_json
from power_loop.runtime.store.lineage import Span, clipped, spans_of
from power_loop.runtime.store.sql.database import Row, Statement, Transaction
from power_loop.runtime.store.sql.dialect import Renderer
from power_loop.runtime.store.sql.tables import quoted
from power_loop.runtime.store.tool_calls import ToolCalls
from power_loop.runtime.store.usage import ModelCalls

#: A send that stands so was left by an owner that did not bring it to rest, unless its calls are open.
UNFINISHED_SENDS = frozenset({SendStatus.RUNNING, SendStatus.WAITING_FOR_INPUT})
_END_OF_LOG = (1 << 63) - 1


class Sends:
    """Runs the statements on `sends`, inside of others' transactions."""

    def __init__(self, render: Renderer, calls: ToolCalls, model_calls: ModelCalls) -> None:
        self._calls = calls
        self._model_calls = model_calls
        self._insert = render(
            "INSERT INTO {sends} (session_id, idx, request_id, input_hash, status, first_seq, options, result,"
            " attempts, started_at_ms, ended_at_ms, accept_op, end_op, paid_by, paid_by_send)"
            " VALUES (?, ?, ?, ?, 'running', ?, ?, NULL, 1, ?, NULL, ?, NULL, ?, ?)"
        )
        self._interrupt = render(
            "UPDATE {sends} SET status = 'interrupted', ended_at_ms = ? WHERE session_id = ? AND idx = ?"
            f" AND status IN ({quoted({status.value for status in UNFINISHED_SENDS})})"
        )
        self._run_again = render(
            # A send that waited had come to rest by itself: taking it up then says nothing against it.
            "UPDATE {sends} SET attempts = attempts + CASE WHEN status = 'waiting_for_input' THEN 0 ELSE 1 END,"
            " status = 'running', result = NULL, ended_at_ms = NULL"
            f" WHERE session_id = ? AND idx = ? AND status IN ({quoted({status.value for status in RESUMABLE_SENDS})})"
        )
        self._count_down = render(
            "UPDATE {sends} SET attempts = attempts - 1 WHERE session_id = ? AND status = 'running' AND attempts > 0"
            " AND idx = (SELECT s.send_count FROM {sessions} s WHERE s.id = ?)"
        )
        self._end = render(
            "UPDATE {sends} SET status = ?, result = ?, ended_at_ms = ?, end_op = ?"
            " WHERE session_id = ? AND idx = ? AND status = 'running'"
        )
        select = (
            "SELECT s.idx, s.request_id, s.input_hash, s.status, s.first_seq, s.options, s.result, s.attempts,"
            " s.started_at_ms, s.ended_at_ms, s.paid_by, s.paid_by_send, n.first_seq,"
            " (SELECT d.lineage FROM {session_details} d WHERE d.session_id = s.session_id) FROM {sends} s"
            " LEFT JOIN {sends} n ON n.session_id = s.session_id AND n.idx = s.idx + 1 WHERE s.session_id = ?"
        )
        self._by_index = render(f"{select} AND s.idx = ?")
        self._by_request = render(f"{select} AND s.request_id = ?")
        self._of_span = render(f"{select} AND s.idx = ? AND s.first_seq <= ?")
        self._last = render(f"{select} ORDER BY s.idx DESC LIMIT 1")
        self._paid = render(
            "SELECT session_id, idx FROM {sends} WHERE paid_by = ? AND paid_by_send = ? ORDER BY session_id, idx"
        )
        self._ops = render(
            "SELECT accept_op, end_op FROM {sends} WHERE session_id = ? AND idx = ?" + render.dialect.for_update
        )

    def insert(
        self,
        session_id: str,
        index: int,
        *,
        request_id: str | None,
        input_hash: str,
        options: str,
        first_seq: int,
        at_ms: int,
        op: str,
        paid_by: tuple[str, int] | None = None,
    ) -> Statement:
        """Return the statement that stores a send which begins to run."""
        payer = (None, None) if paid_by is None else paid_by
        return self._insert, (session_id, index, request_id, input_hash, first_seq, options, at_ms, op, *payer)

    async def interrupt(self, tx: Transaction, session_id: str, index: int, *, at_ms: int) -> None:
        """Give up a send that its owner did not bring to rest."""
        await tx.execute(self._interrupt, (at_ms, session_id, index))

    async def run_again(self, tx: Transaction, session_id: str, index: int) -> None:
        """Let a send run on; one that has ended for good stays as it is."""
        await tx.execute(self._run_again, (session_id, index))

    async def count_down(self, tx: Transaction, session_id: str) -> None:
        """Forget that the last send was taken up, if it runs."""
        await tx.execute(self._count_down, (session_id, session_id))

    def end(self, session_id: str, index: int, *, status: SendStatus, result: str, at_ms: int, op: str) -> Statement:
        """Return the statement that brings a running send to rest; it changes no row if the send does not run."""
        return self._end, (status.value, result, at_ms, op, session_id, index)

    async def has_op(self, tx: Transaction, session_id: str, index: int, op: str) -> bool:
        """Tell whether a write with this token accepted or ended a send."""
        rows = await tx.query(self._ops, (session_id, index))
        return bool(rows) and op in rows[0]

    async def get(
        self, tx: Transaction, session_id: str, *, index: int | None = None, request_id: str | None = None
    ) -> SendRecord | None:
        """Return a send by its index or its request id, or the last one."""
        if index is not None:
            rows = await tx.query(self._by_index, (session_id, index))
        elif request_id is not None:
            rows = await tx.query(self._by_request, (session_id, request_id))
        else:
            rows = await tx.query(self._last, (session_id,))
        return await self._record_of(tx, session_id, rows[0]) if rows else None

    async def paid_by(self, tx: Transaction, session_id: str, index: int) -> list[tuple[str, int]]:
        """Return the sends that a send pays for."""
        return [(child_id, at) for child_id, at in await tx.query(self._paid, (session_id, index))]

    async def get_shared(self, tx: Transaction, spans: Sequence[Span], index: int) -> SendRecord | None:
        """Return a send of a fork's history that an ancestor holds; its request id is not the fork's."""
        session_id = spans[-1].session_id
        for span in reversed(spans[:-1]):
            rows = await tx.query(self._of_span, (span.session_id, index, span.to_seq))
            if rows:
                index, _, *more = rows[0]
                return await self._record_of(tx, session_id, (index, None, *more), spans)
        return None

    async def _record_of(
        self, tx: Transaction, session_id: str, row: Row, spans: Sequence[Span] | None = None
    ) -> SendRecord:
        index, request_id, input_hash, status, first_seq, options, result, attempts, started_ms, ended_ms = row[:10]
        payer_id, payer_send, end_seq, lineage = row[10:]
        spans = spans_of(session_id, lineage) if spans is None else spans
        parts = clipped(spans, from_seq=first_seq, to_seq=_END_OF_LOG if end_seq is None else end_seq)
        spent = await self._model_calls.spent(tx, parts)
        where = f"send {index} of session {session_id!r}"
        found: dict[str, Any] | None = None if result is None else decode_json(result, f"result of {where}")
        return SendRecord(
            session_id=session_id,
            index=index,
            request_id=request_id,
            input_hash=input_hash,
            status=decode_choice(SendStatus, status, f"status of {where}"),
            first_seq=first_seq,
            options=decode_json(options, f"options of {where}"),
            result=found,
            rounds=spent.replies,
            tool_calls=await self._calls.count_over(tx, parts),
            usage=spent.usage,
            attempts=attempts,
            started_at_ms=started_ms,
            ended_at_ms=ended_ms,
            cost_nanos=spent.cost_nanos,
            paid_by=None if payer_id is None else (payer_id, payer_send),
        )
