"""Turns whatever a handler returned into the content that a model is shown."""

from __future__ import annotations

import datetime
import decimal
import enum
import json
import pathlib
import uuid
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import fields, is_dataclass
from math import isfinite, isnan
from typing import Any, NamedTuple

from power_loop.contracts.json_schema.problems import path_text
from power_loop.contracts.json_schema.values import MAX_DEPTH
from power_loop.contracts.messages import AudioPart, ContentPart, FilePart, ImagePart, TextPart
from power_loop.contracts.tools import ToolResult, Waiting
from power_loop.tools.preview import shortened

#: What a model reads where a handler returned nothing: providers refuse an empty result.
NO_OUTPUT = "(no output)"
# Characters of text that one result keeps; more than any context window holds, and what every database takes in one
# value.
MAX_OUTPUT_CHARS = 10_000_000
# JSON values in one result: about a second of work.
MAX_OUTPUT_VALUES = 1_000_000
# Python refuses to print longer integers.
_MAX_INTEGER_BITS = 14_000

_PARTS = (TextPart, ImagePart, FilePart, AudioPart)
_AS_TEXT = (uuid.UUID, pathlib.PurePath, decimal.Decimal, datetime.timedelta)
_DATES = (datetime.date, datetime.time)


class Output(NamedTuple):
    """Is what a call gave: never empty content, and whether the model should take it as an error."""

    content: tuple[ContentPart, ...]
    is_error: bool = False


def output_of(returned: Any) -> Output | Waiting:
    """Return what a handler returned as content; a `Waiting` stays what it is.

    Text stays text, content parts and lists that hold one stay parts, everything else becomes JSON text: dataclasses
    are objects, enums their values, dates ISO text, sets sorted arrays, bytes the UTF-8 text that they hold, NaN and
    infinities their names. What has no such form gives an error for the model that says so. Nothing is raised.
    """
    if isinstance(returned, Waiting):
        return returned
    try:
        if isinstance(returned, ToolResult):
            return Output(_content_of(returned.content), returned.is_error)
        return Output(_content_of(returned))
    except _Refusal as refusal:
        return error_output(f"the tool ran, but what it returned cannot be shown: {refusal}")


def error_output(text: str) -> Output:
    """Return an error text as the output of a call."""
    return Output(_content_of(text), is_error=True)


class _Refusal(Exception):  # noqa: N818 - a signal
    """Says in its message why a value has no form that a model can be shown."""


def _content_of(value: Any) -> tuple[ContentPart, ...]:
    if isinstance(value, _PARTS):
        parts: Iterable[Any] = (value,)
    elif isinstance(value, (list, tuple)) and any(isinstance(one, _PARTS) for one in value):
        parts = value
    else:
        parts = () if value is None or value == () else (value,)
    content = [part for part in map(_part_of, parts) if not isinstance(part, TextPart) or part.text.strip()]
    return tuple(content) or (TextPart(NO_OUTPUT),)


def _part_of(value: Any) -> ContentPart:
    if isinstance(value, (ImagePart, FilePart, AudioPart)):
        return value
    text = value.text if isinstance(value, TextPart) else _text_of(value)
    if len(text) > MAX_OUTPUT_CHARS:
        text = shortened(text, MAX_OUTPUT_CHARS, fate="were too many to be kept")
    return TextPart(text)


def _text_of(value: Any) -> str:
    plain = _JsonForm().of(value, ())
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)


class _JsonForm:
    """Brings one value to plain JSON, within a budget of values and of depth."""

    __slots__ = ("_values",)

    def __init__(self) -> None:
        self._values = 0

    def of(self, value: Any, path: tuple[str | int, ...]) -> Any:
        self._values += 1
        if self._values > MAX_OUTPUT_VALUES:
            raise _Refusal(f"it holds more than {MAX_OUTPUT_VALUES:,} values: return less, or write it to a file")
        kind = type(value)
        if kind is str or kind is bool or value is None:
            return value
        if kind is int:
            return self._integer(value, path)
        if kind is float:
            return value if isfinite(value) else _name_of(value)
        if len(path) >= MAX_DEPTH:
            raise _Refusal(f"it is nested deeper than {MAX_DEPTH} levels, or contains itself")
        if isinstance(value, Mapping):
            return self._object(value.items(), path)
        if isinstance(value, (list, tuple)):
            return [self.of(item, (*path, index)) for index, item in enumerate(value)]
        return self._by_class(value, path)

    def _by_class(self, value: Any, path: tuple[str | int, ...]) -> Any:
        if isinstance(value, enum.Enum):
            return self.of(value.value, path)
        for kind, plain in _SUBCLASSES:
            if isinstance(value, kind):
                return self.of(plain(value), path)
        if isinstance(value, Set):
            items = [self.of(item, (*path, index)) for index, item in enumerate(value)]
            # A set has no order of its own; the model and a test see the same one every time.
            return sorted(items, key=_sort_key)
        if is_dataclass(value) and not isinstance(value, type):
            return self._object(((field.name, getattr(value, field.name)) for field in fields(value)), path)
        if isinstance(value, (bytes, bytearray)):
            return _decoded(value, path)
        where = f" at {path_text(path)}" if path else ""
        raise _Refusal(
            f"the {type(value).__name__}{where} has no JSON form:"
            " return text, JSON values, dataclasses or content parts"
        )

    def _integer(self, value: int, path: tuple[str | int, ...]) -> int:
        if value.bit_length() > _MAX_INTEGER_BITS:
            raise _Refusal(f"the integer at {path_text(path)} has more than {_MAX_INTEGER_BITS * 3 // 10} digits")
        return value

    def _object(self, items: Iterable[tuple[Any, Any]], path: tuple[str | int, ...]) -> dict[str, Any]:
        members: dict[str, Any] = {}
        for key, item in items:
            name = key if type(key) is str else self._name(key, path)
            if name in members:
                raise _Refusal(f"two keys of the object at {path_text(path)} are both {name!r} in JSON")
            members[name] = self.of(item, (*path, name))
        return members

    def _name(self, key: Any, path: tuple[str | int, ...]) -> str:
        plain = self.of(key, path)
        return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)


# What is more than a plain value gives the plain value that it is.
_SUBCLASSES: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    (str, lambda value: str.__str__(value)),
    (int, int),
    (float, float),
    (_DATES, lambda value: value.isoformat()),
    (_AS_TEXT, str),
)


def _name_of(number: float) -> str:
    return "NaN" if isnan(number) else "Infinity" if number > 0 else "-Infinity"


def _sort_key(plain: Any) -> tuple[str, Any, str]:
    if isinstance(plain, (int, float)) and not isinstance(plain, bool):
        return "number", plain, ""
    return type(plain).__name__, 0, json.dumps(plain)


def _decoded(value: bytes | bytearray, path: tuple[str | int, ...]) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        where = f" at {path_text(path)}" if path else ""
        raise _Refusal(
            f"the {len(value)} bytes{where} are no UTF-8 text:"
            " return ImagePart.from_bytes or FilePart.from_bytes, or write a file"
        ) from None
