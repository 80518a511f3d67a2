"""Says for each type that is one JSON scalar which schema it has and how its value is brought back from JSON."""

from __future__ import annotations

import datetime
import decimal
import enum
import pathlib
import re
import uuid
from collections.abc import Iterable
from math import isfinite
from typing import Any

from power_loop.tools.shape import HintRefused, Shape, Unconvertible

_TEXT = frozenset({str})
_NUMBER = frozenset({int, float})

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
# What RFC 3339 allows and what people and models write beside it: a space for the T, no seconds, no offset.
_TIME = r"(?P<minute>[0-9]{2}:[0-9]{2})(?P<second>:[0-9]{2}(?:[.,](?P<fraction>[0-9]+))?)?"
_OFFSET = r"(?P<offset>[Zz]|(?P<hours>[+-][0-9]{2}):?(?P<minutes>[0-9]{2})(?P<seconds>:[0-9]{2}(?:\.[0-9]{6})?)?)?"
_TIME_OF_DAY = re.compile(_TIME + _OFFSET)
_DATE_TIME = re.compile(rf"(?P<date>{_DATE.pattern})(?:[Tt ]{_TIME}{_OFFSET})?")


def _to_int(value: Any) -> int:
    # JSON Schema counts 1.0 as an integer.
    return value if type(value) is int else int(value)


def _to_float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        raise Unconvertible("the number is too large") from None


def _to_date(value: str) -> datetime.date:
    if _DATE.fullmatch(value) is None:
        raise Unconvertible(f"{value!r} is not a date: write it as '2031-05-17'")
    try:
        return datetime.date.fromisoformat(value)
    except ValueError as error:
        raise Unconvertible(f"{value!r} is not a date: {error}") from None


def _to_time(value: str) -> datetime.time:
    found = _TIME_OF_DAY.fullmatch(value)
    if found is None:
        raise Unconvertible(f"{value!r} is not a time: write it as '14:30:00' or '14:30:00+02:00'")
    try:
        return datetime.time.fromisoformat(_clock_text(found))
    except ValueError as error:
        raise Unconvertible(f"{value!r} is not a time: {error}") from None


def _to_datetime(value: str) -> datetime.datetime:
    found = _DATE_TIME.fullmatch(value)
    if found is None:
        raise Unconvertible(f"{value!r} is not a date and time: write it as '2031-05-17T14:30:00Z'")
    try:
        return datetime.datetime.fromisoformat(f"{found['date']}T{_clock_text(found)}" if found["minute"] else value)
    except ValueError as error:
        raise Unconvertible(f"{value!r} is not a date and time: {error}") from None


def _clock_text(found: re.Match[str]) -> str:
    """Return a time as every supported Python reads it: fractions have six digits, and UTC is an offset."""
    text = found["minute"] + (found["second"] or "")[:3]
    if found["fraction"]:
        text += f".{found['fraction'][:6]:0<6}"
    if found["offset"]:
        is_utc = found["offset"] in "Zz"
        text += "+00:00" if is_utc else f"{found['hours']}:{found['minutes']}{found['seconds'] or ''}"
    return text


def _to_uuid(value: str) -> uuid.UUID:
    try:
        return uuid.UUID(value)
    except ValueError:
        raise Unconvertible(f"{value!r} is not a UUID: write it as '123e4567-e89b-12d3-a456-426614174000'") from None


_SCALARS: dict[Any, Shape] = {
    Any: Shape({}),
    object: Shape({}),
    None: Shape({"type": "null"}, kinds=frozenset({type(None)})),
    type(None): Shape({"type": "null"}, kinds=frozenset({type(None)})),
    str: Shape({"type": "string"}, kinds=_TEXT),
    bool: Shape({"type": "boolean"}, kinds=frozenset({bool})),
    int: Shape({"type": "integer"}, _to_int, kinds=_NUMBER),
    float: Shape({"type": "number"}, _to_float, kinds=_NUMBER),
    datetime.datetime: Shape({"type": "string", "format": "date-time"}, _to_datetime, kinds=_TEXT),
    datetime.date: Shape({"type": "string", "format": "date"}, _to_date, kinds=_TEXT),
    datetime.time: Shape({"type": "string", "format": "time"}, _to_time, kinds=_TEXT),
    uuid.UUID: Shape({"type": "string", "format": "uuid"}, _to_uuid, kinds=_TEXT),
    # As text: a JSON number has gone through binary floating point before anybody sees it.
    decimal.Decimal: Shape(
        {"type": "string", "pattern": r"^[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,6})?$"}, decimal.Decimal, kinds=_TEXT
    ),
    **{
        kind: Shape({"type": "string"}, kind, kinds=_TEXT)
        for kind in (
            pathlib.Path,
            type(pathlib.Path()),
            pathlib.PurePath,
            pathlib.PurePosixPath,
            pathlib.PureWindowsPath,
        )
    },
}


def scalar_shape(hint: Any) -> Shape | None:
    """Return the shape of a type that is one scalar, or None. Raises `HintRefused` for an unusable enum."""
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return _enum_shape(hint)
    try:
        return _SCALARS.get(hint)
    except TypeError:
        return None


def choice_shape(values: Iterable[Any]) -> Shape:
    """Return the shape of a Literal: its values, enum members by their values. Raises `HintRefused`."""
    return _choice([(value.value if isinstance(value, enum.Enum) else value, value) for value in values], "Literal")


def _enum_shape(hint: type[enum.Enum]) -> Shape:
    if issubclass(hint, enum.Flag):
        raise HintRefused(f"{hint.__name__} is a Flag, whose members combine: use a list of an Enum")
    shape = _choice([(member.value, member) for member in hint], hint.__name__)
    text = hint.__dict__.get("__doc__")
    # Older Pythons write this sentence themselves.
    if text and text != "An enumeration.":
        shape.schema["description"] = " ".join(text.split("\n\n")[0].split())
    return shape


_TYPE_NAMES: dict[type, str] = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}


def _choice(choices: list[tuple[Any, Any]], name: str) -> Shape:
    """Return the shape of pairs of a JSON value and what it stands for."""
    if not choices:
        raise HintRefused(f"{name} has no values to choose from")
    for value, _ in choices:
        if not isinstance(value, (str, int, float, type(None))) or (isinstance(value, float) and not isfinite(value)):
            raise HintRefused(f"{name} holds {value!r}, which is not a JSON string, number, boolean or null")
    plain = [_plain(value) for value, _ in choices]
    classes = list(dict.fromkeys(type(value) for value in plain))
    schema: dict[str, Any] = {"enum": plain}
    if len(classes) == 1:
        schema = {"type": _TYPE_NAMES[classes[0]], **schema}
    kinds = frozenset(classes)
    # 1 and 1.0 are the same JSON value, so either may come.
    kinds = kinds | _NUMBER if kinds & _NUMBER else kinds
    if all(value is meant for value, (_, meant) in zip(plain, choices, strict=True)) and not kinds & _NUMBER:
        return Shape(schema, kinds=kinds)
    # True and 1 are the same key in Python, but not in JSON.
    meanings = {(type(value) is bool, value): meant for value, (_, meant) in zip(plain, choices, strict=True)}
    return Shape(schema, lambda value: meanings[value is True or value is False, value], kinds=kinds)


def _plain(value: Any) -> Any:
    """Return the value as its own JSON class: a `str` that is more than a str gives its characters only."""
    if value is None or type(value) is bool:
        return value
    for kind in (str, int, float):
        if isinstance(value, kind):
            return value if type(value) is kind else kind(value)
    return value
