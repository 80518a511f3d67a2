"""Makes the request of a model call from a session's window: what the model is shown of the log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from power_loop.contracts.frozen import frozen
from power_loop.contracts.llm import LLMRequest, ModelInfo, OutputSchema, ToolSpec
from power_loop.contracts.messages import Message, Role
from power_loop.core.context import texts
from power_loop.core.context.tokens import estimate_message, estimate_text, estimate_tool
from power_loop.core.context.transcript import Transcript
from power_loop.core.context.window import Window

#: The part of the room for messages that is freed at once when it is full. Big steps keep the start of the prompt as it
#: is for many rounds, so that a provider finds it in its cache.
TRIM_STEP = 0.4
#: The part of a model's context window that its output cap takes at most.
MAX_OUTPUT_SHARE = 0.5
# What telling the model of messages that are left out takes.
_NOTICE_TOKENS = 64


@frozen
class Assembled:
    """Is a request and what is known of it.

    `left_out` counts the messages of the transcript that are not in it, `problems` says what had to be mended in the
    transcript, `tokens` estimates the whole prompt.
    """

    request: LLMRequest
    left_out: int
    problems: tuple[str, ...]
    tokens: int


def assemble(
    window: Window,
    *,
    info: ModelInfo,
    tools: tuple[ToolSpec, ...] = (),
    system_prompt: str | None = None,
    output_schema: OutputSchema | None = None,
    max_output_tokens: int | None = None,
    tail: str | None = None,
    tool_choice: str = "auto",
    temperature: float | None = None,
    reasoning_effort: str | None = None,
    parallel_tool_calls: bool | None = None,
    extra: Mapping[str, Any] | None = None,
    budget_share: float = 1.0,
) -> Assembled:
    """Return the request for the next reply in `window`; it depends on nothing but what is given.

    `system_prompt` stands in for the session's own. An `output_schema` goes along as it is where the model takes this
    one, and in words otherwise. The oldest messages are left out where the whole would not fit the model's context
    window less its output cap, of which `budget_share` may be used: what stays begins with a user message, splits no
    reply from its answers, and always holds the last user message and the newest reply.
    """
    system = window.system_prompt if system_prompt is None else system_prompt
    if output_schema is not None and not _is_native(output_schema, info):
        tail = _joined(tail, texts.prompted_schema(output_schema))
        output_schema = None
    fixed = (estimate_text(system) if system else 0) + sum(map(estimate_tool, tools))
    cap = info.max_output_tokens if max_output_tokens is None else max_output_tokens
    room = info.context_window_tokens - min(cap, int(info.context_window_tokens * MAX_OUTPUT_SHARE))
    room = int(room * budget_share) - fixed
    transcript = window.transcript
    tail_tokens = estimate_text(tail) if tail else 0
    messages, message_tokens = _fitting(transcript, room=room - tail_tokens, step=room * TRIM_STEP)
    left_out = len(transcript.view()) - len(messages)
    if left_out:
        tail = _joined(texts.left_out(left_out), tail)
    request = LLMRequest(
        messages=messages,
        system=system or None,
        tools=tools,
        tool_choice=tool_choice,
        output_schema=output_schema,
        tail=tail,
        max_output_tokens=max_output_tokens,
        temperature=temperature,
        reasoning_effort=reasoning_effort,
        parallel_tool_calls=parallel_tool_calls,
        cache_key=window.session_id,
        extra=extra,
    )
    tokens = fixed + message_tokens + tail_tokens + (_NOTICE_TOKENS if left_out else 0)
    return Assembled(request, left_out, transcript.problems, tokens)


def _is_native(output_schema: OutputSchema, info: ModelInfo) -> bool:
    return info.has_json_schema and output_schema.native_form(info.schema_dialect) is not None


def _fitting(transcript: Transcript, *, room: int, step: float) -> tuple[tuple[Message, ...], int]:
    """Return the newest messages that fit into `room` tokens, and about how many tokens they take.

    What has to go is rounded up to a multiple of `step`, so the cut is the same for many rounds on end, and the same
    for everyone who knows the log: no memory of earlier cuts is needed.
    """
    view, tokens = transcript.view(), transcript.tokens
    excess = tokens - room
    if excess <= 0 or not view:
        return tuple(view), tokens
    excess += _NOTICE_TOKENS
    cut = _cut(transcript, excess, step=step)
    last_user = transcript.last_user
    if cut <= last_user:
        return tuple(view[cut:]), tokens - transcript.tokens_before(cut)
    # A cut inside the last send keeps what the send is about.
    question = view[last_user]
    question_tokens = estimate_message(question)
    cut = _cut(transcript, excess + question_tokens, step=step)
    return (question, *view[cut:]), tokens - transcript.tokens_before(cut) + question_tokens


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
