"""Tells under whose ids the rows of a session's log stand: a fork shares those of its ancestors up to where it left."""

from __future__ import annotations

from collections.abc import Sequence

from power_loop.contracts.errors import StoreCorruptError
from power_loop.contracts.frozen import frozen
from power_loop.contracts.records import ProjectedMessage
from power_loop.runtime.store.codec import decode_json, encode_json

END_OF_LOG = (1 << 63) - 1

#: Forks of forks, each with messages of its own: a read asks once for each.
MAX_ANCESTORS = 100


@frozen
class Span:
    """Is a stretch of a log that stands under one session's id: from behind `after_seq` to `to_seq`."""

    session_id: str
    after_seq: int
    to_seq: int


def spans_of(session_id: str, lineage: str | None) -> tuple[Span, ...]:
    """Return the stretches of a session's log, oldest first; the last one is its own. Raises `store.corrupt`."""
    spans: list[Span] = []
    after_seq = 0
    for ancestor_id, to_seq in () if lineage is None else _decode(session_id, lineage):
        spans.append(Span(ancestor_id, after_seq, to_seq))
        after_seq = to_seq
    return (*spans, Span(session_id, after_seq, END_OF_LOG))


def lineage_at(spans: Sequence[Span], at_seq: int) -> list[tuple[str, int]]:
    """Return the ancestors of a fork that leaves a log at `at_seq`, each with the last seq that is shared."""
    return [(span.session_id, min(span.to_seq, at_seq)) for span in spans if span.after_seq < at_seq]


def encode_lineage(ancestors: Sequence[tuple[str, int]]) -> str:
    """Return ancestors as they are stored."""
    return encode_json({"ancestors": [list(one) for one in ancestors]}, "lineage of a fork")


def clipped(spans: Sequence[Span], *, from_seq: int, to_seq: int) -> list[tuple[str, int, int]]:
    """Return for each stretch that reaches into `from_seq` to before `to_seq` its id and the part of it that does."""
    parts = []
    for span in spans:
        low, high = max(from_seq, span.after_seq + 1), min(to_seq, span.to_seq + (span.to_seq < END_OF_LOG))
        if low < high:
            parts.append((span.session_id, low, high))
    return parts


def spans_behind(spans: Sequence[Span], after_seq: int, without: Sequence[ProjectedMessage] = ()) -> tuple[Span, ...]:
    """Return the stretches of a log behind a seq, without those that rows of the projection stand for."""
    found = []
    for span in spans:
        begin = max(span.after_seq, after_seq)
        for row in without:
            if begin < row.to_seq and row.seq <= span.to_seq:
                if begin < row.seq - 1:
                    found.append(Span(span.session_id, begin, row.seq - 1))
                begin = row.to_seq
        if begin < span.to_seq:
            found.append(Span(span.session_id, begin, span.to_seq))
    return tuple(found)


def _decode(session_id: str, lineage: str) -> list[tuple[str, int]]:
    where = f"lineage of session {session_id!r}"
    ancestors = decode_json(lineage, where).get("ancestors")
    try:
        pairs = [(str(ancestor_id), int(to_seq)) for ancestor_id, to_seq in ancestors or ()]
    except (TypeError, ValueError, OverflowError) as error:
        raise StoreCorruptError(f"{where} is damaged: {error}") from error
    return pairs
