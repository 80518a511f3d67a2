"""Puts a cassette behind the model server: what the server says to either wire is what was recorded."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from power_loop import StopReason, TextPart, Usage
from power_loop.errors import LLMOverloadedError, LLMRateLimitedError
from power_loop.llm import DeltaKind
from power_loop.messages import ReasoningPart, RefusalPart, ToolCallPart
from power_loop.testing import RecordedCall
from tests import model_server as server

_FINISH = {StopReason.END: "stop", StopReason.TOOL_CALLS: "tool_calls", StopReason.LENGTH: "length"}


def steps_of(calls: Iterable[RecordedCall]) -> list[Any]:
    """Return the script of a server that says what was recorded."""
    return [_failure(call) if call.response is None else _answer(call) for call in calls]


def _failure(call: RecordedCall) -> Any:
    if isinstance(call.error, LLMRateLimitedError):
        return server.faults.rate_limited(retry_after=call.error.retry_after_s)
    assert isinstance(call.error, LLMOverloadedError), "the recordings of these tests have no others"
    return server.faults.unavailable()


def _answer(call: RecordedCall) -> server.Answer:
    response = call.response
    assert response is not None
    parts: list[Any] = []
    for part in response.message.parts:
        if isinstance(part, TextPart):
            parts.append(server.Text(_pieces(call, DeltaKind.TEXT) or (part.text,)))
        elif isinstance(part, ReasoningPart):
            parts.append(server.Reasoning(_pieces(call, DeltaKind.REASONING) or (part.text,)))
        elif isinstance(part, ToolCallPart):
            at = response.message.tool_calls.index(part)
            pieces = _pieces(call, DeltaKind.TOOL_CALL, at) or (part.arguments,)
            parts.append(server.ToolCall(part.name, pieces, id=part.id or server.script.AUTO_ID))
        elif isinstance(part, RefusalPart):
            parts.append(server.Refusal((part.text,)))
    return server.Answer(tuple(parts), finish=_FINISH[response.stop], usage=_usage(response.usage))


def _pieces(call: RecordedCall, kind: DeltaKind, index: int = 0) -> tuple[str, ...]:
    return tuple(one.text for one in call.deltas if one.kind is kind and one.index == index and one.text)


def _usage(usage: Usage | None) -> server.Usage | None:
    if usage is None:
        return None
    return server.Usage(usage.input_tokens, usage.output_tokens, usage.cached_input_tokens, usage.cache_write_tokens)
