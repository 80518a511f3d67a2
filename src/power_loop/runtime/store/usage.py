"""Keeps what every model call was and cost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from power_loop.contracts.budgets import sum_of_costs
from power_loop.contracts.errors import StoreCorruptError
from power_loop.contracts.explanation import Segment, SegmentKind
from power_loop.contracts.frozen import frozen
from power_loop.contracts.llm import Usage
from power_loop.contracts.messages import clean_text
from power_loop.contracts.records import ModelCall, ModelCallRecord
from power_loop.runtime.store.lineage import Span
from power_loop.runtime.store.sql.database import Row, Statement, Transaction
from power_loop.runtime.store.sql.dialect import Renderer

_NO_USAGE = (None, None, None, None, None, 0)
# A provider's figure beyond all sense is cut, so that the sums of it stay within 64 bits.
_MAX_TOKENS = 10**12


@frozen
class Spent:
    """Is what a stretch of a log took: model calls that gave replies, those that folds made, and the usage and the cost
    of all; the cost is None where none of them has a price."""

    replies: int = 0
    by_folds: int = 0
    usage: Usage = Usage()
    cost_nanos: int | None = None

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            self.replies + other.replies,
            self.by_folds + other.by_folds,
            self.usage + other.usage,
            sum_of_costs(self.cost_nanos, other.cost_nanos),
        )


class ModelCalls:
    """Runs the statements on `model_calls`, inside of others' transactions."""

    def __init__(self, render: Renderer) -> None:
        self._insert = render(
            "INSERT INTO {model_calls} (session_id, reply_seq, send_index, round, model, stop, input_tokens,"
            " output_tokens, cached_input_tokens, cache_write_tokens, reasoning_tokens, is_estimated, attempts,"
            " duration_ms, provider_id, request_id, created_at_ms, estimated_tokens, segments,"
            " cost_nanos) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        )
        self._select = render(
            "SELECT reply_seq, send_index, round, model, stop, input_tokens, output_tokens, cached_input_tokens,"
            " cache_write_tokens, reasoning_tokens, is_estimated, attempts, duration_ms, provider_id, request_id,"
            " created_at_ms, estimated_tokens, segments, cost_nanos FROM {model_calls}"
            " WHERE session_id = ? AND reply_seq > ? AND reply_seq <= ? ORDER BY reply_seq DESC LIMIT ?"
        )
        sums = (
            "COALESCE(SUM(input_tokens), 0), COALESCE(SUM(output_tokens), 0), COALESCE(SUM(cached_input_tokens), 0),"
            " COALESCE(SUM(cache_write_tokens), 0), COALESCE(SUM(reasoning_tokens), 0), COALESCE(MAX(is_estimated), 0),"
            " SUM(cost_nanos)"
        )
        self._sum = render(
            f"SELECT COUNT(*), 0, {sums} FROM {{model_calls}}"
            " WHERE session_id = ? AND reply_seq >= ? AND reply_seq < ?"
            f" UNION ALL SELECT 0, COALESCE(SUM(model_calls), 0), {sums} FROM {{folds}}"
            " WHERE session_id = ? AND last_seq >= ? AND last_seq < ?"
        )

    def insert(
        self,
        session_id: str,
        call: ModelCall,
        *,
        reply_seq: int,
        send_index: int,
        round: int,
        at_ms: int,
    ) -> Statement:
        """Return the statement that notes the model call which gave the reply at `reply_seq`."""
        return self._insert, (
            session_id,
            reply_seq,
            send_index,
            round,
            clean_text(call.model),
            clean_text(call.stop),
            *token_columns(call.usage),
            call.attempts,
            call.duration_ms,
            _cleaned(call.provider_id),
            _cleaned(call.request_id),
            at_ms,
            call.estimated_tokens,
            encode_segments(call.segments),
            call.cost_nanos,
        )

    async def read(
        self, tx: Transaction, spans: Sequence[Span], *, before_seq: int, limit: int
    ) -> tuple[ModelCallRecord, ...]:
        """Return the calls whose replies stand before a seq, newest first."""
        found: list[ModelCallRecord] = []
        for span in reversed(spans):
            to_seq = min(span.to_seq, before_seq - 1)
            if len(found) < limit and to_seq > span.after_seq:
                params = (span.session_id, span.after_seq, to_seq, limit - len(found))
                found += [_record_of(span.session_id, row) for row in await tx.query(self._select, params)]
        return tuple(found)

    async def spent(self, tx: Transaction, parts: Sequence[tuple[str, int, int]]) -> Spent:
        """Return what a log took whose parts stand under several ids: (session id, from seq, to before seq)."""
        total = Spent()
        for part in parts:
            for replies, by_folds, *tokens, cost in await tx.query(self._sum, (*part, *part)):
                usage = usage_of((*map(int, tokens),))
                assert usage is not None
                total += Spent(int(replies), int(by_folds), usage, None if cost is None else int(cost))
        return total


def token_columns(usage: Usage | None) -> tuple[int | None, ...]:
    """Return usage as it stands in the columns of a row."""
    if usage is None:
        return _NO_USAGE
    return (
        _bounded(usage.input_tokens),
        _bounded(usage.output_tokens),
        _bounded(usage.cached_input_tokens),
        _bounded(usage.cache_write_tokens),
        _bounded(usage.reasoning_tokens),
        int(usage.is_estimated),
    )


def usage_of(columns: Sequence[int | None]) -> Usage | None:
    """Return the usage behind the columns of a row; None where the provider sent none."""
    prompt, reply, cached, written, reasoning, is_estimated = columns
    if prompt is None:
        return None
    return Usage(prompt, reply or 0, cached or 0, written or 0, reasoning or 0, bool(is_estimated))


def encode_segments(segments: Sequence[Segment]) -> str | None:
    """Return the segments of a prompt as they are stored: compact, because every model call has them."""
    if not segments:
        return None
    rows = [[one.kind.value, one.tokens, one.from_seq, one.to_seq, one.digest, one.name] for one in segments]
    return clean_text(json.dumps(rows, ensure_ascii=False, separators=(",", ":")))


def decode_segments(text: str | None, where: str) -> tuple[Segment, ...]:
    """Return stored segments. Raises `store.corrupt`."""
    if text is None:
        return ()
    try:
        return tuple([_segment(*row) for row in json.loads(text)])
    except (TypeError, ValueError, RecursionError) as error:
        raise StoreCorruptError(f"segments of {where} are damaged: {error}") from error


def _segment(
    kind: str, tokens: Any, from_seq: Any = None, to_seq: Any = None, digest: Any = None, name: Any = None
) -> Segment:
    numbers, texts = (tokens, from_seq or 0, to_seq or 0), (digest or "", name or "")
    if not all(type(one) is int for one in numbers) or not all(isinstance(one, str) for one in texts):
        raise TypeError(f"a segment of kind {kind!r} holds what it cannot hold")
    return Segment(SegmentKind(kind), tokens, from_seq, to_seq, digest, name)


def _record_of(session_id: str, row: Row) -> ModelCallRecord:
    reply_seq, send_index, round, model, stop, prompt, reply, cached, written, reasoning, is_estimated, *more = row
    attempts, duration_ms, provider_id, request_id, created_at_ms, estimated_tokens, segments, cost = more
    where = f"model call {reply_seq} of session {session_id!r}"
    call = ModelCall(
        model,
        stop,
        usage_of((prompt, reply, cached, written, reasoning, is_estimated)),
        attempts,
        duration_ms,
        provider_id,
        request_id,
        estimated_tokens,
        decode_segments(segments, where),
        cost,
    )
    return ModelCallRecord(reply_seq, send_index, round, call, created_at_ms)


def _bounded(tokens: int) -> int:
    return max(0, min(tokens, _MAX_TOKENS))


def _cleaned(text: str | None) -> str | None:
    return None if text is None else clean_text(text)
