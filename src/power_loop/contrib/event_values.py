"""Turns events into JSON values and back."""

from __future__ import annotations

import dataclasses
import inspect
import sys
import types
import typing
from collections.abc import Iterator, Mapping
from decimal import Decimal
from enum import Enum
from typing import Any, Union

from power_loop import AgentEvent, AudioPart, FilePart, ImagePart, TextPart
from power_loop.events import EventPayload
from power_loop.messages import OpaquePart, ReasoningPart, RefusalPart, ToolCallPart, ToolResultPart

Value = dict[str, Any]

#: How the parts of a message are told apart.
_PARTS: dict[str, type] = {
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
_PART_NAMES = {part: name for name, part in _PARTS.items()}
_CUT = "… {} characters left out"


class UnknownPayload(EventPayload):
    """Stands for a payload of a type that this version does not know, or whose members it cannot read."""

    # Of a record of its own, because `type` is the instance's.
    __slots__ = ("members", "recorded_type")

    def __init__(self, recorded_type: str, members: Mapping[str, Any]) -> None:
        object.__setattr__(self, "recorded_type", recorded_type)
        object.__setattr__(self, "members", members)

    @property
    def type(self) -> str:  # type: ignore[override]
        """The name under which it was recorded."""
        return str(self.recorded_type)  # type: ignore[attr-defined]

    def __repr__(self) -> str:
        return f"UnknownPayload({self.type!r})"


def event_value(event: AgentEvent) -> Value:
    """Return an event as a JSON object."""
    return {
        "seq": event.seq,
        "at_ms": event.at_ms,
        "monotonic_s": event.monotonic_s,
        "session_id": event.session_id,
        "send_index": event.send_index,
        "round": event.round,
        "agent_path": list(event.agent_path),
        "type": event.type,
        "payload": json_value(event.payload),
    }


def event_of(value: Mapping[str, Any]) -> AgentEvent:
    """Return the event behind a JSON object. Raises KeyError, TypeError, ValueError or
    OverflowError where it is none."""
    return AgentEvent(
        int(value["seq"]),
        int(value["at_ms"]),
        float(value["monotonic_s"]),
        str(value["session_id"]),
        int(value["send_index"]),
        int(value["round"]),
        _payload_of(str(value["type"]), value["payload"]),
        tuple(map(str, value["agent_path"])),
    )


def json_value(value: Any) -> Any:
    """Return a record, or whatever stands in one, as a JSON value."""
    if isinstance(value, Enum):
        return value.value
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, UnknownPayload):
        return dict(value.members)  # type: ignore[attr-defined]
    if dataclasses.is_dataclass(value):
        members = {
            one.name: json_value(getattr(value, one.name)) for one in dataclasses.fields(value) if one.name != "memo"
        }
        name = _PART_NAMES.get(type(value))
        return members if name is None else {"type": name, **members}
    if isinstance(value, Mapping):
        return {str(name): json_value(one) for name, one in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [json_value(one) for one in value]
    return repr(value)


def shortened(value: Any, max_chars: int | None) -> Any:
    """Return a JSON value in which the middle of texts longer than `max_chars` is left out."""
    if max_chars is None:
        return value
    if isinstance(value, str):
        half = max_chars // 2
        left_out = len(value) - 2 * half
        return value if len(value) <= max_chars else value[:half] + _CUT.format(left_out) + value[half + left_out :]
    if isinstance(value, dict):
        return {name: shortened(one, max_chars) for name, one in value.items()}
    return [shortened(one, max_chars) for one in value] if isinstance(value, list) else value


# ---- back ----


def _payload_of(name: str, members: Any) -> EventPayload:
    kind = next((one for one in _below(EventPayload) if one.__dict__.get("type") == name), None)
    if not isinstance(members, dict):
        raise TypeError(f"the payload of an event is {members!r:.100}")
    if kind is not None:
        try:
            made = _record(kind, members)
        # A Decimal that is none is an ArithmeticError.
        except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError):
            pass
        else:
            if isinstance(made, EventPayload):
                return made
    return UnknownPayload(name, members)


def _below(kind: type[Any]) -> Iterator[type[Any]]:
    below: list[type[Any]] = kind.__subclasses__()
    for one in below:
        yield one
        yield from _below(one)


def _record(kind: type, members: Mapping[str, Any]) -> Any:
    """Make a record of its members; those that a later version added are left out."""
    hints = _hints(kind)
    return kind(**{name: _of(hints[name], one) for name, one in members.items() if name in hints})


def _hints(kind: type) -> dict[str, Any]:
    wanted = {one.name for one in dataclasses.fields(kind)} - {"memo"}
    found: dict[str, Any] = {}
    for one in reversed(kind.__mro__):
        space = vars(sys.modules[one.__module__]) if one.__module__ in sys.modules else {}
        for name, hint in inspect.get_annotations(one).items():
            if name in wanted:
                found[name] = eval_hint(hint, space)
    return found


def eval_hint(hint: Any, space: dict[str, Any]) -> Any:
    """Return what an annotation means in its module."""
    if not isinstance(hint, str):
        return hint

    def holder() -> None: ...

    holder.__annotations__ = {"it": hint}
    return typing.get_type_hints(holder, globalns=space)["it"]


def _of(hint: Any, value: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any or value is None:
        return value
    if origin in (Union, types.UnionType):
        return _of_union(arguments, value)
    if origin is tuple:
        return tuple(_of(arguments[0], one) for one in value)
    if isinstance(hint, type) and isinstance(value, dict) and dataclasses.is_dataclass(hint):
        return _record(hint, value)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint(value)
    return Decimal(value) if hint is Decimal else value


def _of_union(choices: tuple[Any, ...], value: Any) -> Any:
    if isinstance(value, dict) and value.get("type") in _PARTS:
        part = _PARTS[value["type"]]
        if part in choices:
            return _record(part, value)
    wanted = [one for one in choices if one is not type(None)]
    return _of(wanted[0], value) if len(wanted) == 1 else value
