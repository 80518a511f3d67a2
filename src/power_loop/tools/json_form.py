"""Brings a Python value to the plain JSON value that a model is shown for it."""

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
from typing import Any

from power_loop.contracts.json_schema.problems import path_text
from power_loop.contracts.json_schema.values import MAX_DEPTH

# JSON values that one value is made of: about a second of work.
MAX_VALUES = 1_000_000
# Python refuses to print longer integers.
_MAX_INTEGER_BITS = 14_000
_MAX_INTEGER_DIGITS = 4_200

# What is more than a plain value gives the plain value that it is.
_PLAIN_FORMS: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    (enum.Enum, lambda value: value.value),
    (str, lambda value: str.__str__(value)),
    (int, lambda value: int.__int__(value)),
    (float, lambda value: float.__float__(value)),
    ((datetime.date, datetime.time), lambda value: value.isoformat()),
    ((uuid.UUID, pathlib.PurePath, decimal.Decimal, datetime.timedelta), str),
)

# A place in a value, from the outside in.
_Place = tuple["str | int", ...]


class NoJsonForm(Exception):  # noqa: N818 - a signal
    """Says in its message why a value has no JSON form."""


def json_form(value: Any) -> Any:
    """Return a value as plain JSON. Raises `NoJsonForm` for what has no such form, is too large or contains itself.

    Dataclasses and named tuples are objects, enums their values, dates ISO text, sets sorted arrays, bytes the UTF-8
    text that they hold, NaN and infinities their names; keys that are not text become their JSON text.
    """
    return _Reader().plain(value, ())


class _Reader:
    """Walks one value, within a budget of values and of depth."""

    __slots__ = ("_values",)

    def __init__(self) -> None:
        self._values = 0

    def plain(self, value: Any, place: _Place) -> Any:
        self._values += 1
        if self._values > MAX_VALUES:
            raise NoJsonForm(f"it holds more than {MAX_VALUES:,} values: return less, or write it to a file")
        kind = type(value)
        if kind is str or kind is bool or value is None:
            return value
        if kind is int:
            if value.bit_length() > _MAX_INTEGER_BITS:
                raise NoJsonForm(f"the integer{_at(place)} has more than {_MAX_INTEGER_DIGITS:,} digits")
            return value
        if kind is float:
            return value if isfinite(value) else "NaN" if isnan(value) else "Infinity" if value > 0 else "-Infinity"
        if len(place) >= MAX_DEPTH:
            raise NoJsonForm(f"it is nested deeper than {MAX_DEPTH} levels, or contains itself")
        if isinstance(value, Mapping):
            return self._object(value.items(), place)
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return self._object(zip(value._fields, value, strict=True), place)
        if isinstance(value, (list, tuple)):
            return [self.plain(item, (*place, index)) for index, item in enumerate(value)]
        for known, form in _PLAIN_FORMS:
            if isinstance(value, known):
                return self.plain(form(value), place)
        if isinstance(value, Set):
            # A set has no order of its own; a model and a test see the same one every time.
            return sorted((self.plain(item, (*place, index)) for index, item in enumerate(value)), key=_sort_key)
        if is_dataclass(value) and not isinstance(value, type):
            return self._object(((field.name, getattr(value, field.name)) for field in fields(value)), place)
        if isinstance(value, (bytes, bytearray)):
            return _decoded(value, place)
        raise NoJsonForm(f"a value of type {type(value).__name__!r}{_at(place)} has no JSON form")

    def _object(self, items: Iterable[tuple[Any, Any]], place: _Place) -> dict[str, Any]:
        members: dict[str, Any] = {}
        for key, item in items:
            name = key if type(key) is str else self._name(key, place)
            if name in members:
                raise NoJsonForm(f"two keys of the object{_at(place)} are both {name!r} in JSON")
            members[name] = self.plain(item, (*place, name))
        return members

    def _name(self, key: Any, place: _Place) -> str:
        form = self.plain(key, place)
        return form if isinstance(form, str) else json.dumps(form, ensure_ascii=False)


def _at(place: _Place) -> str:
    return f" at {path_text(place)}" if place else ""


def _sort_key(form: Any) -> tuple[str, float, str]:
    if isinstance(form, (int, float)) and not isinstance(form, bool):
        return "number", form, ""
    return type(form).__name__, 0, json.dumps(form)


def _decoded(value: bytes | bytearray, place: _Place) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise NoJsonForm(f"the {len(value)} bytes{_at(place)} are no UTF-8 text") from None
