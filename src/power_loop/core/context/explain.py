"""Explains a model call: what it was sent, and where its prompt parted from that of the call before."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from power_loop.contracts.explanation import TAIL_KINDS, CallExplanation, Segment, SegmentKind
from power_loop.contracts.frozen import frozen
from power_loop.contracts.records import ModelCallRecord


@frozen
class Parting:
    """Is how far two prompts are the same: about so many tokens, and what broke the second one, if it did not only
    grow."""

    shared_tokens: int = 0
    broken_by: Segment | None = None
    reason: str | None = None


def explain_call(session_id: str, record: ModelCallRecord, previous: ModelCallRecord | None) -> CallExplanation:
    """Return the explanation of a stored call; `previous` is the one before it."""
    call = record.call
    parting = Parting() if previous is None else _parting(previous, record)
    return CallExplanation(
        session_id=session_id,
        call=record.reply_seq,
        send_index=record.send_index,
        round=record.round,
        model=call.model,
        segments=call.segments,
        estimated_tokens=call.estimated_tokens,
        usage=call.usage,
        previous_call=None if previous is None else previous.reply_seq,
        shared_tokens=parting.shared_tokens,
        broken_by=parting.broken_by,
        reason=parting.reason,
    )


def _parting(previous: ModelCallRecord, record: ModelCallRecord) -> Parting:
    before, after = previous.call, record.call
    for one in (previous, record):
        if not one.call.segments:
            return Parting(reason=f"the segments of call {one.reply_seq} were not recorded")
    if before.model != after.model:
        return Parting(reason=f"another model was asked: {after.model!r}, and {before.model!r} before")
    for one in (previous, record):
        changed = next((segment for segment in one.call.segments if segment.kind is SegmentKind.CHANGED), None)
        if changed is not None:
            return Parting(reason=f"the request of call {one.reply_seq} is not what its segments say: {changed.name}")
    return parting(before.segments, after.segments)


def parting(before: Sequence[Segment], after: Sequence[Segment]) -> Parting:
    """Return where the prompt `after` parts from the one `before`.

    What stands behind the messages is left aside: it never was part of what is kept. A range of the log that grew is
    the same as far as it went, if nothing else stood behind it.
    """
    shared = 0
    olds, news = _kept(before), _kept(after)
    for place, (old, new) in enumerate(zip_longest(olds, news)):
        if old is None:
            return Parting(shared)
        if new is None:
            return Parting(shared, old, _gone(old))
        if _is_same(old, new):
            shared += new.tokens
            continue
        if _has_grown(new, old):
            shared += new.tokens
            if place + 1 == len(news):
                return Parting(shared, new, f"what stood behind message {new.to_seq} is not there any more")
            return Parting(shared, news[place + 1], _said(news[place + 1], old))
        if not _has_grown(old, new):
            is_gone = _ORDER[old.kind] < _ORDER[new.kind] and old.kind in _FIXED
            return Parting(shared, old, _gone(old)) if is_gone else Parting(shared, new, _said(new, old))
        shared += old.tokens
        if place + 1 < len(olds):
            return Parting(shared, new, _said(new, olds[place + 1]))
    return Parting(shared)


_ORDER = {kind: place for place, kind in enumerate(SegmentKind)}
_FIXED = frozenset({SegmentKind.TOOLS, SegmentKind.SYSTEM})


def _kept(segments: Sequence[Segment]) -> list[Segment]:
    return [one for one in segments if one.kind not in TAIL_KINDS and one.kind is not SegmentKind.CHANGED]


def _is_same(old: Segment, new: Segment) -> bool:
    return (old.kind, old.from_seq, old.to_seq, old.digest) == (new.kind, new.from_seq, new.to_seq, new.digest)


def _has_grown(old: Segment, new: Segment) -> bool:
    # A summary is another one, and what did not fit is a gap: neither of them grows.
    if old.kind is not new.kind or old.kind not in (SegmentKind.MESSAGES, SegmentKind.PROJECTED):
        return False
    is_range = old.from_seq == new.from_seq and old.to_seq is not None and new.to_seq is not None
    return is_range and (old.to_seq or 0) < (new.to_seq or 0)


def _said(new: Segment, old: Segment) -> str:
    """Say what a segment is that stands where another one was."""
    at = f"messages {new.from_seq} to {new.to_seq}"
    if new.kind in _FIXED:
        what = "the tools" if new.kind is SegmentKind.TOOLS else "the system prompt"
        return f"{what} {'changed' if old.kind is new.kind else 'came'}"
    if new.kind is SegmentKind.FOLD:
        return f"{at} were folded into a summary"
    if new.kind is SegmentKind.PINNED:
        return f"of {at} others are shown beside the summary"
    if new.kind is SegmentKind.PROJECTED:
        return f"{at} are shown in short"
    if new.kind is SegmentKind.LEFT_OUT:
        return f"{at} did not fit"
    return f"{at} are shown as they are"


def _gone(old: Segment) -> str:
    return f"{old} is not there any more"
