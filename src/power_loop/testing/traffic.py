"""Turns requests, pieces, replies and errors of models into JSON values and back."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from power_loop import (
    AudioPart,
    FilePart,
    ImagePart,
    LLMDelta,
    LLMRequest,
    LLMResponse,
    Message,
    StopReason,
    TextPart,
    ToolSpec,
    Usage,
)
from power_loop.errors import LLMError
from power_loop.llm import DeltaKind, ModelInfo, OutputSchema
from power_loop.messages import OpaquePart, Origin, ReasoningPart, RefusalPart, Role, ToolCallPart, ToolResultPart

_PARTS: dict[str, Any] = {
    "text": TextPart,
    "image": ImagePart,
    "file": FilePart,
    "audio": AudioPart,
    "reasoning": ReasoningPart,
    "tool_call": ToolCallPart,
    "tool_result": ToolResultPart,
    "refusal": RefusalPart,
    "opaque": OpaquePart,
}
_KINDS = {kind: name for name, kind in _PARTS.items()}
# `cache_key` is the id of a session; what `memo` holds is a wire's.
_REQUEST_FIELDS = (
    "system", "tools", "tool_choice", "output_schema", "messages", "tail", "max_output_tokens", "temperature",
    "reasoning_effort", "parallel_tool_calls", "extra",
)  # fmt: skip
_ERROR_FIELDS = ("provider", "model", "status", "provider_code", "retry_after_s", "may_retry")
Value = dict[str, Any]


def canonical(value: Any) -> str:
    """Return JSON text that is the same for the same value."""
    return json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))


# ---- requests ----


def request_value(request: LLMRequest) -> Value:
    """Return what a model is asked."""
    value: Value = {}
    for name in _REQUEST_FIELDS:
        member = getattr(request, name)
        if name == "messages":
            value[name] = [message_value(one) for one in member]
        elif name == "tools" and member:
            value[name] = [_members(one) for one in member]
        elif name == "output_schema" and member is not None:
            value[name] = _members(member)
        elif name == "extra" and member:
            value[name] = _json(member)
        elif member is not None and member not in ((), {}) and (name, member) != ("tool_choice", "auto"):
            value[name] = member
    return value


def request_of(value: Value) -> LLMRequest:
    """Return the request behind a value."""
    given = {**value, "messages": tuple(message_of(one) for one in value["messages"])}
    if "tools" in given:
        given["tools"] = tuple(ToolSpec(**one) for one in given["tools"])
    if "output_schema" in given:
        given["output_schema"] = OutputSchema(**given["output_schema"])
    return LLMRequest(**given)


def message_value(message: Message) -> Value:
    """Return a message."""
    value: Value = {"role": message.role.value, "parts": [_part_value(part) for part in message.parts]}
    if message.origin is not None:
        value["origin"] = _members(message.origin)
    return value


def message_of(value: Value) -> Message:
    """Return the message behind a value."""
    origin = value.get("origin")
    parts = tuple(_part_of(one) for one in value["parts"])
    return Message(Role(value["role"]), parts, None if origin is None else Origin(**origin))


def _part_value(part: Any) -> Value:
    value = {"type": _KINDS[type(part)], **_members(part)}
    if isinstance(part, ToolResultPart):
        value["content"] = [_part_value(one) for one in part.content]
    return value


def _part_of(value: Value) -> Any:
    given = {name: member for name, member in value.items() if name != "type"}
    if "content" in given:
        given["content"] = tuple(_part_of(one) for one in given["content"])
    return _PARTS[value["type"]](**given)


def _members(record: Any) -> Value:
    """Return the fields of a record that do not have their default."""
    value: Value = {}
    for field in dataclasses.fields(record):
        member = getattr(record, field.name)
        if field.name != "memo" and member != field.default:
            value[field.name] = _json(member) if isinstance(member, Mapping) else member
    return value


def _json(value: Any) -> Any:
    return json.loads(json.dumps(value, default=repr))


# ---- what comes of them ----


def response_value(response: LLMResponse) -> Value:
    """Return a reply, without the ids that its provider gave it and the exchange."""
    value = message_value(response.message)
    del value["role"]
    value["stop"] = response.stop.value
    if response.usage is not None:
        value["usage"] = _members(response.usage)
    if response.model is not None:
        value["model"] = response.model
    return value


def response_of(value: Value) -> LLMResponse:
    """Return the reply behind a value."""
    usage = value.get("usage")
    return LLMResponse(
        message_of({**value, "role": Role.ASSISTANT}),
        StopReason(value["stop"]),
        None if usage is None else Usage(**usage),
        model=value.get("model"),
    )


def error_value(error: LLMError) -> Value:
    """Return a failure, without the id of its exchange."""
    # A class of somebody's own is known to nobody else: its nearest ancestor stands for it.
    kind = next(one for one in type(error).__mro__ if one.__module__.startswith("power_loop."))
    assert issubclass(kind, LLMError)
    value: Value = {"code": kind.code, "message": error.message}
    for name in _ERROR_FIELDS:
        member = getattr(error, name)
        default = kind.retryable if name == "may_retry" else "" if name in ("provider", "model") else None
        if member != default:
            value[name] = member
    return value


def error_of(value: Value) -> LLMError:
    """Return a new failure behind a value."""
    given = {name: member for name, member in value.items() if name not in ("code", "message")}
    return error_class(value["code"])(value["message"], **given)


def error_class(code: str) -> type[LLMError]:
    """Return the class of failures of models that have this code. Raises KeyError."""
    return {one.code: one for one in _classes(LLMError)}[code]


def _classes(kind: type[LLMError]) -> Iterator[type[LLMError]]:
    yield kind
    for one in kind.__subclasses__():
        if one.__module__.startswith("power_loop."):
            yield from _classes(one)


def delta_values(deltas: Iterable[LLMDelta]) -> list[list[Any]]:
    """Return pieces as runs of one kind: `["text", ["Hel", "lo"]]`, `["tool_call", ["{}"], 0, "add"]`."""
    runs: list[list[Any]] = []
    for delta in deltas:
        call = [delta.index, delta.name] if delta.kind is DeltaKind.TOOL_CALL else []
        goes_on = bool(runs) and runs[-1][0] == delta.kind.value
        if goes_on and (not call or (runs[-1][2] == delta.index and delta.name is None)):
            runs[-1][1].append(delta.text)
        else:
            runs.append([delta.kind.value, [delta.text], *call])
    return runs


def deltas_of(runs: Iterable[list[Any]]) -> Iterator[LLMDelta]:
    """Give the pieces behind their runs."""
    for kind, pieces, *call in runs:
        index, name = call or (0, None)
        for text, is_first in zip(pieces, itertools.chain([True], itertools.repeat(False))):  # noqa: B905 - it is endless
            yield LLMDelta(DeltaKind(kind), text, index, name if is_first else None)


def info_value(info: ModelInfo) -> Value:
    """Return what a model is."""
    return _members(info)


def info_of(value: Value) -> ModelInfo:
    """Return the model behind a value."""
    return ModelInfo(**value)
