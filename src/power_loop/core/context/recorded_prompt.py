"""Puts the prompt of a recorded model call together again, segment by segment, of what is still known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from power_loop.contracts.explanation import Segment, SegmentKind
from power_loop.contracts.frozen import frozen
from power_loop.contracts.llm import ToolSpec
from power_loop.contracts.messages import Message
from power_loop.contracts.records import FoldRecord, MessageRecord, ModelCallRecord, ProjectedMessage
from power_loop.core.context.assemble import digest_of, fixed_segments
from power_loop.core.context.window import fold_message


@frozen
class RecordedPart:
    """Is a segment of a recorded prompt with what it held, where that is still known.

    `messages` are those of a range of the log, each with its seq in `seqs` (the first one, of a message that stands for
    several); `text` is the system prompt, or a text behind the messages; `tools` are those that were offered.
    """

    segment: Segment
    is_known: bool
    messages: tuple[Message, ...] = ()
    seqs: tuple[int, ...] = ()
    text: str | None = None
    tools: tuple[ToolSpec, ...] = ()


def recorded_prompt(
    call: ModelCallRecord,
    *,
    messages: Sequence[MessageRecord],
    folds: Sequence[FoldRecord] = (),
    projected: Sequence[ProjectedMessage] = (),
    texts: Sequence[str] = (),
    tools: Sequence[ToolSpec] = (),
) -> tuple[RecordedPart, ...]:
    """Return what a stored model call was shown, in order, given what the store has of its session.

    Of system prompts, tools and what stands behind the messages only digests are stored: each of `texts`, and `tools`
    together, is told where its digest is the recorded one.
    """
    at = {record.seq: record.message for record in messages}
    by_digest = {digest_of(one): one for one in texts}
    offered = next(fixed_segments(None, tuple(tools)), None)
    parts = []
    for segment in call.call.segments:
        if segment.from_seq is not None and segment.to_seq is not None:
            shown = _shown(segment, segment.from_seq, segment.to_seq, at, folds, projected)
            found = () if shown is None else tuple(shown)
            parts.append(
                RecordedPart(segment, shown is not None, tuple(one for _, one in found), tuple(seq for seq, _ in found))
            )
        elif segment.kind is SegmentKind.TOOLS:
            is_same = offered is not None and offered.digest == segment.digest
            parts.append(RecordedPart(segment, is_same, tools=tuple(tools) if is_same else ()))
        else:
            text = by_digest.get(segment.digest or "")
            parts.append(RecordedPart(segment, text is not None, text=text))
    return tuple(parts)


def _shown(
    segment: Segment,
    first: int,
    last: int,
    at: dict[int, Message],
    folds: Sequence[FoldRecord],
    projected: Sequence[ProjectedMessage],
) -> list[tuple[int, Message]] | None:
    """Return the messages of a range as they were shown; None where not all of them are there any more."""
    if segment.kind is SegmentKind.LEFT_OUT:
        return []
    if segment.kind is SegmentKind.FOLD:
        fold = next((one for one in folds if one.to_seq == last), None)
        return None if fold is None else [(first, fold_message(fold))]
    if segment.kind is SegmentKind.PINNED:
        holder = next((one for one in folds if first in one.pinned_seqs and last in one.pinned_seqs), None)
        pinned = () if holder is None else [seq for seq in holder.pinned_seqs if first <= seq <= last]
        return [(seq, at[seq]) for seq in pinned] if pinned and all(seq in at for seq in pinned) else None
    if segment.kind is SegmentKind.PROJECTED:
        return _complete(_in_short(first, last, projected))
    return _complete((seq, at.get(seq)) for seq in range(first, last + 1))


def _in_short(first: int, last: int, projected: Sequence[ProjectedMessage]) -> Iterator[tuple[int, Message | None]]:
    seq = first
    while seq <= last:
        row = next((one for one in projected if one.seq == seq), None)
        yield seq, None if row is None else row.message
        seq = last + 1 if row is None else row.to_seq + 1


def _complete(found: Iterator[tuple[int, Message | None]]) -> list[tuple[int, Message]] | None:
    shown = []
    for seq, message in found:
        if message is None:
            return None
        shown.append((seq, message))
    return shown
