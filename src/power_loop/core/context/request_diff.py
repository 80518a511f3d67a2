"""Says in words where one request to a model differs from another."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any

from power_loop.contracts.llm import LLMRequest

# So much of two values stands beside the place where they part.
_BEFORE_CHARS, _BEHIND_CHARS = 20, 60
_MAX_LINES = 8
# A prompt begins with these.
_FIRST = ("system", "tools", "tool_choice", "output_schema", "messages")
# Says for whom a request is, and not what is asked.
_ASIDE = frozenset({"memo", "origin", "cache_key"})

Value = dict[str, Any]


def request_differences(recorded: LLMRequest, asked: LLMRequest) -> tuple[str, ...]:
    """Return a line for each difference of what the model sees, the first ones if there are many; messages count
    from 1. Which model said a message does not count."""
    lines = list(_differences(_request_value(recorded), _request_value(asked)))
    if len(lines) > _MAX_LINES:
        lines = [*lines[:_MAX_LINES], f"and {len(lines) - _MAX_LINES} more"]
    return tuple(lines)


def _request_value(request: LLMRequest) -> Value:
    value: Value = _value(request)
    value["messages"] = [{"parts": [], **_value(one)} for one in request.messages]
    value["tools"] = [_value(one) for one in request.tools]
    return {name: value[name] for name in (*_FIRST, *value) if name in value}


def _value(value: Any) -> Any:
    """Return a JSON value of what is set in a record; a part says of which kind it is."""
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        name = type(value).__name__
        members: Value = {"type": name.removesuffix("Part").lower()} if name.endswith("Part") else {}
        for field in dataclasses.fields(value):
            member = getattr(value, field.name)
            if field.name not in _ASIDE and member != field.default:
                members[field.name] = _value(member)
        return members
    if isinstance(value, Mapping):
        return {str(name): _value(one) for name, one in value.items()}
    return [_value(one) for one in value] if isinstance(value, (list, tuple)) else value


def _differences(recorded: Value, asked: Value) -> Iterator[str]:
    for name in dict.fromkeys([*recorded, *asked]):
        if name == "messages":
            yield from _of_messages(recorded[name], asked[name])
        elif name == "tools":
            yield from _of_tools(recorded.get(name, []), asked.get(name, []))
        else:
            yield from _of_values(name, recorded.get(name), asked.get(name))


def _of_messages(recorded: list[Value], asked: list[Value]) -> Iterator[str]:
    for number, (one, other) in enumerate(zip(recorded, asked), start=1):  # noqa: B905 - what is behind is told below
        if one["role"] != other["role"]:
            yield f"message {number} differs: recorded a message of {one['role']!r}, asked one of {other['role']!r}"
        else:
            yield from _of_values(f"message {number}", one["parts"], other["parts"])
    if len(recorded) != len(asked):
        longer, who = (recorded, "recorded") if len(recorded) > len(asked) else (asked, "asked")
        first = longer[min(len(recorded), len(asked))]
        shown = _shown(json.dumps(first["parts"], ensure_ascii=False), 0)
        yield f"{len(recorded)} messages were recorded and {len(asked)} asked; the first more was {who}: {shown}"


def _of_tools(recorded: list[Value], asked: list[Value]) -> Iterator[str]:
    before, now = ({one["name"]: one for one in tools} for tools in (recorded, asked))
    for name in dict.fromkeys([*before, *now]):
        if name not in now:
            yield f"tool {name!r} was recorded and is not offered"
        elif name not in before:
            yield f"tool {name!r} is offered and was not recorded"
        else:
            yield from _of_values(f"tool {name!r}", before[name], now[name])
    if list(before) != list(now) and set(before) == set(now):
        yield f"the order of tools differs: recorded {list(before)}, asked {list(now)}"


def _of_values(place: str, recorded: Any, asked: Any) -> Iterator[str]:
    """Go down to the innermost value that differs."""
    if _is_same(recorded, asked):
        return
    if isinstance(recorded, dict) and isinstance(asked, dict):
        for name in dict.fromkeys([*recorded, *asked]):
            yield from _of_values(f"{place}, {name}", recorded.get(name), asked.get(name))
    elif isinstance(recorded, list) and isinstance(asked, list) and len(recorded) == len(asked):
        for number, (one, other) in enumerate(zip(recorded, asked, strict=True), start=1):
            # The one part that most messages have needs no number.
            inner = place if len(recorded) == 1 else f"{place}, part {number}"
            yield from _of_values(inner, one, other)
    else:
        yield _of_texts(place, recorded, asked)


def _of_texts(place: str, recorded: Any, asked: Any) -> str:
    one, other = (
        value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for value in (recorded, asked)
    )
    at = next((at for at, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))  # noqa: B905
    return f"{place} differs at character {at + 1}: recorded {_shown(one, at)}, asked {_shown(other, at)}"


def _shown(text: str, at: int) -> str:
    begin, end = max(at - _BEFORE_CHARS, 0), at + _BEHIND_CHARS
    return f"{'…' if begin else ''}{text[begin:end]!r}{'…' if end < len(text) else ''}"


def _is_same(one: Any, other: Any) -> bool:
    # As JSON, 1 is not true.
    return bool(one == other) and json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
