"""Makes the request of a model call from a session's window: what the model is shown of the log."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

from power_loop.contracts.explanation import Segment, SegmentKind
from power_loop.contracts.frozen import frozen
from power_loop.contracts.llm import LLMRequest, ModelInfo, OutputSchema, ToolSpec
from power_loop.contracts.messages import Message, Role
from power_loop.core.context import texts
from power_loop.core.context.room import prompt_room
from power_loop.core.context.tokens import estimate_message, estimate_text, estimate_tool
from power_loop.core.context.transcript import Transcript, stand_ins
from power_loop.core.context.window import Entry, Window

#: The part of the room for messages that is freed at once when it is full. Big steps keep the start of the prompt as it
#: is for many rounds, so that a provider finds it in its cache.
TRIM_STEP = 0.4
#: The part of the room for messages that a fold's summary, and what it pinned, takes at most where older messages are
#: left out; beyond that they go first.
HEAD_SHARE = 0.5
# What telling the model of messages that are left out takes.
_NOTICE_TOKENS = 64
_DIGEST_MEMO = "digest"


@frozen
class Assembled:
    """Is a request and what is known of it.

    `left_out` counts the messages of the transcript that are not in it, `problems` says what had to be mended in the
    transcript, `tokens` estimates the whole prompt, and `segments` say what it is made of.
    """

    request: LLMRequest
    left_out: int
    problems: tuple[str, ...]
    tokens: int
    segments: tuple[Segment, ...] = ()


@frozen
class LiveText:
    """Is state that may change from call to call, and so stands behind all messages: memory, notes, todo."""

    kind: SegmentKind
    text: str
    name: str | None = None


def assemble(
    window: Window,
    *,
    info: ModelInfo,
    tools: tuple[ToolSpec, ...] = (),
    system_prompt: str | None = None,
    output_schema: OutputSchema | None = None,
    max_output_tokens: int | None = None,
    live: tuple[LiveText, ...] = (),
    tail: str | None = None,
    tool_choice: str = "auto",
    temperature: float | None = None,
    reasoning_effort: str | None = None,
    parallel_tool_calls: bool | None = None,
    extra: Mapping[str, Any] | None = None,
    budget_share: float = 1.0,
    refused_tokens: int | None = None,
) -> Assembled:
    """Return the request for the next reply in `window`; it depends on nothing but what is given.

    `system_prompt` stands in for the session's own. An `output_schema` goes along as it is where the model takes this
    one, and in words otherwise. The oldest messages are left out where the whole would not fit `prompt_room`, of which
    `budget_share` may be used: what stays begins with a user message, splits no reply from its answers, and always
    holds the last user message and the newest reply, and a fold's summary as long as that leaves room for others.
    `live` state and then `tail` stand behind everything. `refused_tokens` is the estimate of a prompt that the model
    refused for its size.
    """
    system = window.system_prompt if system_prompt is None else system_prompt
    tail = _whole_tail(tail, output_schema, info)
    if output_schema is not None and not _is_native(output_schema, info):
        output_schema = None
    before = tuple(fixed_segments(system, tools))
    fixed = sum(segment.tokens for segment in before)
    cap = info.max_output_tokens if max_output_tokens is None else max_output_tokens
    room = int(prompt_room(window, info, cap, refused_tokens=refused_tokens) * budget_share) - fixed
    transcript = window.transcript
    whole_tail = "\n\n".join([*(one.text for one in live), *((tail,) if tail else ())])
    tail_tokens = estimate_text(whole_tail) if whole_tail else 0
    head = 0 if window.fold is None else 1 + len(window.pinned)
    messages, message_tokens = _fitting(transcript, room=room - tail_tokens, step=room * TRIM_STEP, head=head)
    left_out = len(transcript.view()) - len(messages)
    notice = _joined(texts.left_out(left_out) if left_out else None, tail)
    segments = [
        *before,
        *(_segments(window) if not left_out else _cut_segments(window, messages, message_tokens)),
        *_tail_segments(live, notice),
    ]
    if left_out:
        whole_tail = _joined(texts.left_out(left_out), whole_tail) or ""
    request = LLMRequest(
        messages=messages,
        system=system or None,
        tools=tools,
        tool_choice=tool_choice,
        output_schema=output_schema,
        tail=whole_tail or None,
        max_output_tokens=max_output_tokens,
        temperature=temperature,
        reasoning_effort=reasoning_effort,
        parallel_tool_calls=parallel_tool_calls,
        cache_key=window.session_id,
        extra=extra,
    )
    tokens = fixed + message_tokens + tail_tokens + (_NOTICE_TOKENS if left_out else 0)
    return Assembled(request, left_out, transcript.problems, tokens, tuple(segments))


def tokens_beside(
    window: Window,
    *,
    info: ModelInfo,
    tools: tuple[ToolSpec, ...] = (),
    system_prompt: str | None = None,
    output_schema: OutputSchema | None = None,
    live: tuple[LiveText, ...] = (),
    tail: str | None = None,
) -> int:
    """Return about how many tokens a request that is given the same has beside its messages."""
    system = window.system_prompt if system_prompt is None else system_prompt
    tail = _whole_tail(tail, output_schema, info)
    texts_beside = [system or "", *(one.text for one in live), tail or ""]
    return sum(map(estimate_text, texts_beside)) + sum(map(estimate_tool, tools))


def _whole_tail(tail: str | None, output_schema: OutputSchema | None, info: ModelInfo) -> str | None:
    if output_schema is None or _is_native(output_schema, info):
        return tail
    return _joined(tail, texts.prompted_schema(output_schema))


# ---- what it is made of ----


def fixed_segments(system: str | None, tools: tuple[ToolSpec, ...]) -> Iterator[Segment]:
    """Give the segments of what stands before the messages."""
    if tools:
        digests = "|".join(map(_tool_digest, tools))
        yield Segment(SegmentKind.TOOLS, sum(map(estimate_tool, tools)), digest=digest_of(digests))
    if system:
        yield Segment(SegmentKind.SYSTEM, estimate_text(system), digest=digest_of(system))


def _segments(window: Window) -> Iterator[Segment]:
    for run in window.runs:
        yield Segment(run.kind, run.tokens, run.from_seq, run.to_seq)


def _cut_segments(window: Window, messages: tuple[Message, ...], tokens: int) -> Iterator[Segment]:
    """Return the segments of a transcript of which an older part did not fit."""
    shown = set(map(id, messages))
    begin = 1
    if window.fold is not None and messages[0] is window.transcript.view()[0]:
        for run in window.runs:
            if run.kind in (SegmentKind.FOLD, SegmentKind.PINNED):
                tokens -= run.tokens
                yield Segment(run.kind, run.tokens, run.from_seq, run.to_seq)
        begin = window.first_seq
    found: list[Segment] = []
    for kind, entries in groupby(window.entries, key=lambda entry: _kind_of(entry, shown)):
        run_of = list(entries)
        taken = 0 if kind is SegmentKind.LEFT_OUT else sum(estimate_message(entry.message) for entry in run_of)
        found.append(Segment(kind, taken, begin, run_of[-1].to_seq))
        begin = run_of[-1].to_seq + 1
    # What was mended takes other tokens than what it stands for: the last range has the difference.
    difference = tokens - sum(segment.tokens for segment in found)
    yield from found[:-1]
    last = found[-1]
    yield Segment(last.kind, max(last.tokens + difference, 0), last.from_seq, last.to_seq)


def _kind_of(entry: Entry, shown: set[int]) -> SegmentKind:
    if id(entry.message) not in shown and not any(id(one) in shown for one in stand_ins(entry.message)):
        return SegmentKind.LEFT_OUT
    return SegmentKind.PROJECTED if entry.is_projected else SegmentKind.MESSAGES


def _tail_segments(live: tuple[LiveText, ...], notice: str | None) -> Iterator[Segment]:
    for one in live:
        yield Segment(one.kind, estimate_text(one.text), digest=digest_of(one.text), name=one.name)
    if notice:
        yield Segment(SegmentKind.NOTICE, estimate_text(notice), digest=digest_of(notice))


def _tool_digest(tool: ToolSpec) -> str:
    known = tool.memo.get(_DIGEST_MEMO)
    if known is None:
        schema = json.dumps(tool.input_schema, ensure_ascii=False, sort_keys=True, default=str)
        known = tool.memo[_DIGEST_MEMO] = digest_of(f"{tool.name}\n{tool.description}\n{schema}")
    return str(known)


def digest_of(text: str) -> str:
    """Return what is the same for the same text, and hardly for another one."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _is_native(output_schema: OutputSchema, info: ModelInfo) -> bool:
    return info.has_json_schema and output_schema.native_form(info.schema_dialect) is not None


def _fitting(transcript: Transcript, *, room: int, step: float, head: int) -> tuple[tuple[Message, ...], int]:
    """Return the newest messages that fit into `room` tokens, and about how many tokens they take; the first `head`
    messages stay with them while they leave room for others.

    What has to go is rounded up to a multiple of `step`, so the cut is the same for many rounds on end, and the same
    for everyone who knows the log: no memory of earlier cuts is needed.
    """
    view, tokens = transcript.view(), transcript.tokens
    excess = tokens - room
    if excess <= 0 or not view:
        return tuple(view), tokens
    excess += _NOTICE_TOKENS
    head_tokens = transcript.tokens_before(head)
    if head_tokens > room * HEAD_SHARE:
        head = head_tokens = 0
    cut = _cut(transcript, excess + head_tokens, step=step)
    if cut <= head:
        return tuple(view), tokens
    kept, kept_tokens = tuple(view[:head]), head_tokens
    last_user = transcript.last_user
    if cut > last_user >= head:
        # A cut inside the last send keeps what the send is about.
        question = view[last_user]
        kept, kept_tokens = (*kept, question), kept_tokens + estimate_message(question)
        cut = _cut(transcript, excess + kept_tokens, step=step)
    return (*kept, *view[cut:]), tokens - transcript.tokens_before(cut) + kept_tokens


def _cut(transcript: Transcript, excess: int, *, step: float) -> int:
    """Return where what stays begins, if at least `excess` tokens have to go."""
    whole_step = max(int(step), 1)
    behind = transcript.first_behind(-(-excess // whole_step) * whole_step)
    return _boundary(transcript.view(), behind, transcript.last_user)


def _boundary(view: list[Message], cut: int, last_user: int) -> int:
    """Return the first place from `cut` on where a transcript may begin; before the last reply or user message."""
    last = len(view) - 1
    while view[last].role is Role.TOOL:
        last -= 1
    cut = min(cut, last)
    while cut < last and view[cut].role is not Role.USER and (cut <= last_user or view[cut].role is Role.TOOL):
        cut += 1
    return cut


def _joined(first: str | None, second: str | None) -> str | None:
    return f"{first}\n\n{second}" if first and second else first or second
