"""Finds out what a recorded model call was sent, as far as the store tells, and how a request differs from that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from power_loop.contracts.explanation import TAIL_KINDS, Segment, SegmentKind
from power_loop.contracts.frozen import frozen
from power_loop.contracts.llm import LLMRequest
from power_loop.contracts.messages import Message
from power_loop.contracts.records import FoldRecord, MessageRecord, ModelCallRecord, ProjectedMessage
from power_loop.core.context.assemble import digest_of, fixed_segments
from power_loop.core.context.recorded_prompt import recorded_prompt
from power_loop.core.context.request_diff import request_differences
from power_loop.core.context.transcript import repair


@frozen
class Recording:
    """Is what the store holds of a session: its log, its folds, and the rows of its projection."""

    messages: Sequence[MessageRecord]
    folds: Sequence[FoldRecord] = ()
    projected: Sequence[ProjectedMessage] = ()


@frozen
class Compared:
    """Is how a request differs from a recorded call, and what of it could not be compared."""

    lines: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()


def compare(record: ModelCallRecord, request: LLMRequest, recording: Recording) -> Compared:
    """Return how a request differs from what a call was sent: tools and system prompt by their digests, messages word
    by word, what stands behind them where that is the kernel's own."""
    segments = record.call.segments
    if not segments:
        return Compared(unchecked=("calls of which no segments were recorded",))
    lines = _fixed_differences(segments, request)
    unchecked: list[str] = []
    changed = next((one for one in segments if one.kind is SegmentKind.CHANGED), None)
    messages = None if changed is not None else _messages(record, recording)
    if changed is not None:
        unchecked.append(f"messages that are not what the log holds ({changed.name})")
    elif messages is None:
        unchecked.append("messages that were pruned, or whose short forms were")
    else:
        recorded = LLMRequest(messages=messages)
        lines += request_differences(recorded, LLMRequest(messages=request.messages))
    tail = [one for one in segments if one.kind in TAIL_KINDS]
    if any(one.kind is not SegmentKind.NOTICE for one in tail):
        unchecked.append("what stood behind the messages (memory, notes, live state)")
    elif [digest_of(one) for one in (request.tail or "",) if one] != [one.digest for one in tail]:
        said = "nothing" if not request.tail else repr(request.tail[:200])
        lines.append(f"what the kernel says behind the messages differs: it says {said}")
    return Compared(tuple(lines), tuple(unchecked))


def _fixed_differences(segments: Sequence[Segment], request: LLMRequest) -> list[str]:
    lines = []
    asked: dict[SegmentKind, Segment] = {one.kind: one for one in fixed_segments(request.system, request.tools)}
    recorded: dict[SegmentKind, Segment] = {one.kind: one for one in segments}
    for kind, what in ((SegmentKind.TOOLS, "the tools"), (SegmentKind.SYSTEM, "the system prompt")):
        old, new = recorded.get(kind), asked.get(kind)
        if (old and old.digest) == (new and new.digest):
            continue
        if new is None:
            shown = "there are none" if kind is SegmentKind.TOOLS else "there is none"
        elif kind is SegmentKind.TOOLS:
            shown = f"asked with {', '.join(tool.name for tool in request.tools)} (about {new.tokens} tokens)"
        else:
            shown = f"asked with {(request.system or '')[:200]!r} (about {new.tokens} tokens)"
        was = "recorded without" if old is None else f"recorded with others of about {old.tokens} tokens"
        lines.append(f"{what} differ{'' if kind is SegmentKind.TOOLS else 's'}: {was}, {shown}")
    return lines


def _messages(record: ModelCallRecord, recording: Recording) -> tuple[Message, ...] | None:
    """Return the messages of a recorded call; None where the store does not have all of them any more."""
    shown: list[Message] = []
    parts = recorded_prompt(record, messages=recording.messages, folds=recording.folds, projected=recording.projected)
    for part in parts:
        if part.segment.from_seq is None or part.segment.to_seq is None:
            continue
        if not part.is_known:
            return None
        shown += part.messages
    # What a provider would not take was mended then as it is today.
    return repair([replace(one, memo={}) for one in shown]).messages
