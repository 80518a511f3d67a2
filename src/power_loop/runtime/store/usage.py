"""Keeps what every model call was and cost."""

from __future__ import annotations

from power_loop.contracts.llm import Usage
from power_loop.contracts.messages import clean_text
from power_loop.contracts.records import ModelCall
from power_loop.runtime.store.sql.database import Transaction
from power_loop.runtime.store.sql.dialect import Renderer

_NO_USAGE = (None, None, None, None, None, 0)
# A provider's figure beyond all sense is cut, so that the sums of it stay within 64 bits.
_MAX_TOKENS = 10**12


class ModelCalls:
    """Runs the statements on `model_calls`, inside of others' transactions."""

    def __init__(self, render: Renderer) -> None:
        self._insert = render(
            "INSERT INTO {model_calls} (session_id, reply_seq, send_index, round, model, stop, input_tokens,"
            " output_tokens, cached_input_tokens, cache_write_tokens, reasoning_tokens, is_estimated, attempts,"
            " duration_ms, provider_id, request_id, created_at_ms)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        )
        self._sum = render(
            "SELECT COUNT(*), COALESCE(SUM(input_tokens), 0), COALESCE(SUM(output_tokens), 0),"
            " COALESCE(SUM(cached_input_tokens), 0), COALESCE(SUM(cache_write_tokens), 0),"
            " COALESCE(SUM(reasoning_tokens), 0), COALESCE(MAX(is_estimated), 0)"
            " FROM {model_calls} WHERE session_id = ? AND reply_seq >= ? AND reply_seq < ?"
        )

    async def append(
        self,
        tx: Transaction,
        session_id: str,
        call: ModelCall,
        *,
        reply_seq: int,
        send_index: int,
        round: int,
        at_ms: int,
    ) -> None:
        """Note the model call that gave the reply at `reply_seq`."""
        usage = call.usage
        tokens = (
            _NO_USAGE
            if usage is None
            else (
                _bounded(usage.input_tokens),
                _bounded(usage.output_tokens),
                _bounded(usage.cached_input_tokens),
                _bounded(usage.cache_write_tokens),
                _bounded(usage.reasoning_tokens),
                int(usage.is_estimated),
            )
        )
        await tx.execute(
            self._insert,
            (
                session_id,
                reply_seq,
                send_index,
                round,
                clean_text(call.model),
                clean_text(call.stop),
                *tokens,
                call.attempts,
                call.duration_ms,
                _cleaned(call.provider_id),
                _cleaned(call.request_id),
                at_ms,
            ),
        )

    async def sum(self, tx: Transaction, session_id: str, *, from_seq: int, to_seq: int) -> tuple[int, Usage]:
        """Return how many model calls gave the replies from `from_seq` to before `to_seq`, and what they cost."""
        [row] = await tx.query(self._sum, (session_id, from_seq, to_seq))
        count, prompt, reply, cached, written, reasoning, is_estimated = row
        return count, Usage(prompt, reply, cached, written, reasoning, bool(is_estimated))


def _bounded(tokens: int) -> int:
    return max(0, min(tokens, _MAX_TOKENS))


def _cleaned(text: str | None) -> str | None:
    return None if text is None else clean_text(text)
