"""Keeps the sends: one row an input, and what became of it."""

from __future__ import annotations

from typing import Any

from power_loop.contracts.errors import StoreCorruptError
from power_loop.contracts.records import SendRecord
from power_loop.contracts.states import RESUMABLE_SENDS, SendStatus
from power_loop.runtime.store.codec import decode_choice, decode_json
from power_loop.runtime.store.sql.database import Row, Transaction
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
            " attempts, started_at_ms, ended_at_ms) VALUES (?, ?, ?, ?, 'running', ?, ?, NULL, 1, ?, NULL)"
        )
        self._interrupt = render(
            "UPDATE {sends} SET status = 'interrupted', ended_at_ms = ? WHERE session_id = ? AND idx = ?"
            f" AND status IN ({quoted({status.value for status in UNFINISHED_SENDS})})"
        )
        self._run_again = render(
            "UPDATE {sends} SET status = 'running', attempts = attempts + 1, result = NULL, ended_at_ms = NULL"
            f" WHERE session_id = ? AND idx = ? AND status IN ({quoted({status.value for status in RESUMABLE_SENDS})})"
        )
        self._end = render(
            "UPDATE {sends} SET status = ?, result = ?, ended_at_ms = ?"
            " WHERE session_id = ? AND idx = ? AND status = 'running'"
        )
        select = (
            "SELECT s.idx, s.request_id, s.input_hash, s.status, s.first_seq, s.options, s.result, s.attempts,"
            " s.started_at_ms, s.ended_at_ms, n.first_seq FROM {sends} s"
            " LEFT JOIN {sends} n ON n.session_id = s.session_id AND n.idx = s.idx + 1 WHERE s.session_id = ?"
        )
        self._by_index = render(f"{select} AND s.idx = ?")
        self._by_request = render(f"{select} AND s.request_id = ?")
        self._last = render(f"{select} ORDER BY s.idx DESC LIMIT 1")

    async def append(
        self,
        tx: Transaction,
        session_id: str,
        index: int,
        *,
        request_id: str | None,
        input_hash: str,
        options: str,
        first_seq: int,
        at_ms: int,
    ) -> None:
        """Store a send that begins to run."""
        await tx.execute(self._insert, (session_id, index, request_id, input_hash, first_seq, options, at_ms))

    async def interrupt(self, tx: Transaction, session_id: str, index: int, *, at_ms: int) -> None:
        """Give up a send that its owner did not bring to rest."""
        await tx.execute(self._interrupt, (at_ms, session_id, index))

    async def run_again(self, tx: Transaction, session_id: str, index: int) -> None:
        """Let a send run on; one that has ended for good stays as it is."""
        await tx.execute(self._run_again, (session_id, index))

    async def end(
        self, tx: Transaction, session_id: str, index: int, *, status: SendStatus, result: str, at_ms: int
    ) -> None:
        """Bring a running send to rest. Raises `store.corrupt` if it does not run."""
        if not await tx.execute(self._end, (status.value, result, at_ms, session_id, index)):
            raise StoreCorruptError(
                f"send {index} of session {session_id!r} does not run, so that it cannot end as {status.value!r}"
            )

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

    async def _record_of(self, tx: Transaction, session_id: str, row: Row) -> SendRecord:
        index, request_id, input_hash, status, first_seq, options, result, attempts, started_ms, ended_ms, end_seq = row
        end_seq = _END_OF_LOG if end_seq is None else end_seq
        rounds, usage = await self._model_calls.sum(tx, session_id, from_seq=first_seq, to_seq=end_seq)
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
            rounds=rounds,
            tool_calls=await self._calls.count(tx, session_id, from_seq=first_seq, to_seq=end_seq),
            usage=usage,
            attempts=attempts,
            started_at_ms=started_ms,
            ended_at_ms=ended_ms,
        )
