"""Keeps the folds: summaries that stand for a log up to a seq, the newest of which counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from power_loop.contracts.errors import StoreCorruptError
from power_loop.contracts.messages import clean_text
from power_loop.contracts.records import FoldRecord, NewFold
from power_loop.runtime.store.codec import decode_json, encode_json
from power_loop.runtime.store.lineage import Span
from power_loop.runtime.store.sql.database import Row, Statement, Transaction
from power_loop.runtime.store.sql.dialect import Renderer
from power_loop.runtime.store.usage import token_columns, usage_of

#: Messages that one fold may pin.
MAX_PINNED = 1_000

#: What a fold is read from, in the order of `fold_of`.
FOLD_COLUMNS = (
    "to_seq, from_seq, send_index, round, strategy, model, model_calls, input_tokens, output_tokens,"
    " cached_input_tokens, cache_write_tokens, reasoning_tokens, is_estimated, tokens_before, tokens_after,"
    " refused_tokens, refused_by, text_seq, created_at_ms, cost_nanos, pinned, summary, pruned_at_ms"
)
#: How many these are.
FOLD_WIDTH = FOLD_COLUMNS.count(",") + 1


class Folds:
    """Runs the statements on `folds`, inside of others' transactions."""

    def __init__(self, render: Renderer) -> None:
        self._insert = render(
            f"INSERT INTO {{folds}} (session_id, last_seq, {FOLD_COLUMNS})"
            f" VALUES (?, ?, {'?, ' * (FOLD_WIDTH - 1)}NULL)"
        )
        # A fork sees what was made while the log was shorter than the fork's share of it: that is the same for ever.
        select = f"SELECT {FOLD_COLUMNS} FROM {{folds}} WHERE session_id = ? AND last_seq < ? ORDER BY to_seq"
        self._all = render(select)
        self._newest = render(f"{select} DESC LIMIT 1")

    def insert(
        self, session_id: str, fold: NewFold, *, from_seq: int, last_seq: int, at_ms: int
    ) -> tuple[Statement, FoldRecord]:
        """Return the statement that stores a fold, and the fold as it will be read."""
        row = (
            fold.to_seq,
            from_seq,
            fold.send_index,
            fold.round,
            clean_text(fold.strategy),
            None if fold.model is None else clean_text(fold.model),
            fold.model_calls,
            *token_columns(fold.usage),
            fold.tokens_before,
            fold.tokens_after,
            fold.refused_tokens,
            None if fold.refused_by is None else clean_text(fold.refused_by),
            fold.text_seq,
            at_ms,
            fold.cost_nanos,
            encode_json({"seqs": list(fold.pinned_seqs)}, "pinned messages of a fold"),
            clean_text(fold.summary),
        )
        return (self._insert, (session_id, last_seq, *row)), fold_of(session_id, (*row, None))

    async def newest(self, tx: Transaction, spans: Sequence[Span]) -> FoldRecord | None:
        """Return the fold that counts for a log. A session's own is newer than those of its ancestors."""
        session_id = spans[-1].session_id
        for span in reversed(spans):
            rows = await tx.query(self._newest, (span.session_id, span.to_seq))
            if rows:
                return fold_of(session_id, rows[0])
        return None

    async def all(self, tx: Transaction, spans: Sequence[Span]) -> tuple[FoldRecord, ...]:
        """Return the folds of a log in order."""
        session_id = spans[-1].session_id
        return tuple(
            [
                fold_of(session_id, row)
                for span in spans
                for row in await tx.query(self._all, (span.session_id, span.to_seq))
            ]
        )


def refusal_of(session_id: str, fold: NewFold, *, from_seq: int, at_seq: int) -> str | None:
    """Return why a fold cannot stand where it wants to; None if it can."""
    where = f"session {session_id!r} cannot be folded up to seq {fold.to_seq}: "
    if not from_seq <= fold.to_seq < at_seq:
        return f"{where}its log ends before {at_seq}, and what is not folded begins at {from_seq}"
    pinned = fold.pinned_seqs
    if len(pinned) > MAX_PINNED:
        return f"{where}{len(pinned)} messages are pinned, more than {MAX_PINNED}"
    if any(after <= before for before, after in zip((0, *pinned), pinned, strict=False)):
        return f"{where}what is pinned does not rise from 1 on: {str(pinned)[:80]}"
    beyond = max((*pinned, fold.text_seq or 0))
    if beyond > fold.to_seq:
        return f"{where}it does not cover message {beyond}, which is pinned or said to be covered"
    return None


def fold_of(session_id: str, row: Row) -> FoldRecord:
    """Return the fold behind a row of `FOLD_COLUMNS`. Raises `store.corrupt`."""
    to_seq, from_seq, send_index, round, strategy, model, model_calls, *more = row
    tokens, (tokens_before, tokens_after, refused_tokens, refused_by, text_seq, created_at_ms, cost, *more) = (
        more[:6],
        more[6:],
    )
    pinned, summary, pruned_at_ms = more
    return FoldRecord(
        session_id=session_id,
        from_seq=from_seq,
        to_seq=to_seq,
        summary=summary,
        send_index=send_index,
        round=round,
        strategy=strategy,
        created_at_ms=created_at_ms,
        pinned_seqs=pinned_seqs(pinned, f"fold {to_seq} of session {session_id!r}"),
        model=model,
        model_calls=model_calls,
        usage=usage_of(tokens),
        tokens_before=tokens_before,
        tokens_after=tokens_after,
        refused_tokens=refused_tokens,
        refused_by=refused_by,
        text_seq=text_seq,
        pruned_at_ms=pruned_at_ms,
        cost_nanos=cost,
    )


def pinned_seqs(pinned: str, where: str) -> tuple[int, ...]:
    """Return the seqs that a fold pins. Raises `store.corrupt` naming `where` they stand."""
    seqs: Any = decode_json(pinned, where).get("seqs")
    if not isinstance(seqs, list) or not all(type(seq) is int for seq in seqs):
        raise StoreCorruptError(f"{where} is damaged: what it pins is {str(seqs)[:80]}")
    return tuple(seqs)
