"""Turns records into JSON values and back, by the types of their fields: what does not fit them is refused."""

from __future__ import annotations

import collections.abc
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import fields
from decimal import Decimal, InvalidOperation
from enum import Enum
from functools import cache
from math import isfinite
from typing import Any, TypeVar

from power_loop.contracts.errors import PowerLoopError

R = TypeVar("R")
_Write = Callable[[Any], Any]
_Read = Callable[[Any, str], Any]
# What every column and every other reader of JSON takes.
_MOST = 2**63 - 1
#: Names the class of a record, where a field may hold records of several.
KIND = "is_a"


class InvalidValueError(ValueError):
    """Says which member of a value does not fit, and what was expected there."""


def value_of(record: Any) -> dict[str, Any]:
    """Return a frozen record as a JSON object of the fields that do not have their default; scratch space is left
    out."""
    kind: Any = type(record)
    value: dict[str, Any] = _record(kind)[0](record)
    return value


def record_of(kind: type[R], value: Any) -> R:
    """Return the record of a class behind a JSON value. Raises `InvalidValueError` for anything else, whatever it
    is."""
    made: Any = kind
    record: R = _record(made)[1](value, kind.__name__)
    return record


@cache
def _record(kind: Any) -> tuple[_Write, _Read]:
    hints = typing.get_type_hints(kind)
    members = {one.name: _codec(hints[one.name]) for one in fields(kind) if one.compare}
    shape = kind.__shape__

    def write(record: Any) -> Any:
        value = {}
        for name, (write_member, _) in members.items():
            member = getattr(record, name)
            if name not in shape.defaults or member != shape.defaults[name]:
                value[name] = write_member(member)
        return value

    def read(value: Any, place: str) -> Any:
        if not isinstance(value, dict):
            raise _unfit(value, place, "an object")
        given = {}
        for name, member in value.items():
            if name not in members:
                raise InvalidValueError(f"{place} has no {name!r:.100}")
            given[name] = members[name][1](member, f"{place}.{name}")
        try:
            return kind(**given)
        except (TypeError, ValueError, PowerLoopError) as error:
            raise InvalidValueError(f"{place} cannot be made: {error}") from error

    return write, read


@cache
def _codec(hint: Any) -> tuple[_Write, _Read]:
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return _plain_json, lambda value, _: value
    if hint in _PLAIN:
        return _same, _PLAIN[hint]
    if origin in (typing.Union, types.UnionType):
        return _union(tuple(inside))
    if origin is typing.Literal:
        return _same, _one_of(inside)
    if origin in (tuple, list, collections.abc.Sequence):
        return _sequence(inside[0])
    if origin in (dict, collections.abc.Mapping):
        return _mapping(inside[1])
    if isinstance(hint, type) and issubclass(hint, Enum):
        return lambda one: one.value, _member_of(hint)
    if hint is Decimal:
        return str, _read_decimal
    return _record(hint)


def _union(kinds: tuple[Any, ...]) -> tuple[_Write, _Read]:
    rest = tuple(one for one in kinds if one is not type(None))
    is_optional = len(rest) < len(kinds)
    records = {one.__name__: _record(one) for one in rest if hasattr(one, "__shape__")}
    if len(records) == len(rest) > 1:
        write, read = _one_record(records)
    else:
        # The others differ in Python only: a tuple and a list are the same in JSON.
        write, read = _codec(rest[0])
    if not is_optional:
        return write, read
    return (
        lambda one: None if one is None else write(one),
        lambda value, place: None if value is None else read(value, place),
    )


def _one_record(records: dict[str, tuple[_Write, _Read]]) -> tuple[_Write, _Read]:
    def write(one: Any) -> Any:
        name = type(one).__name__
        return {KIND: name, **records[name][0](one)}

    def read(value: Any, place: str) -> Any:
        name = value.get(KIND) if isinstance(value, dict) else None
        if not isinstance(name, str) or name not in records:
            raise InvalidValueError(f"{place} is none of {', '.join(records)}")
        return records[name][1]({key: member for key, member in value.items() if key != KIND}, place)

    return write, read


def _sequence(inside: Any) -> tuple[_Write, _Read]:
    write, read = _codec(inside)

    def read_all(value: Any, place: str) -> Any:
        if not isinstance(value, list):
            raise _unfit(value, place, "an array")
        return tuple([read(one, f"{place}[{index}]") for index, one in enumerate(value)])

    return lambda many: [write(one) for one in many], read_all


def _mapping(inside: Any) -> tuple[_Write, _Read]:
    write, read = _codec(inside)

    def read_all(value: Any, place: str) -> Any:
        if not isinstance(value, dict):
            raise _unfit(value, place, "an object")
        return {name: read(one, f"{place}.{name:.100}") for name, one in value.items()}

    return lambda many: {name: write(one) for name, one in many.items()}, read_all


def _same(value: Any) -> Any:
    return value


def _plain_json(value: Any) -> Any:
    """Return JSON without the mappings and tuples of Python that `json` does not write."""
    if isinstance(value, Mapping):
        return {name: _plain_json(one) for name, one in value.items()}
    return [_plain_json(one) for one in value] if isinstance(value, (list, tuple)) else value


def _read_text(value: Any, place: str) -> Any:
    if not isinstance(value, str):
        raise _unfit(value, place, "a text")
    return value


def _read_whole(value: Any, place: str) -> Any:
    if not isinstance(value, int) or isinstance(value, bool) or not -_MOST <= value <= _MOST:
        raise _unfit(value, place, "a whole number of 64 bits")
    return value


def _read_number(value: Any, place: str) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not _is_usable(value):
        raise _unfit(value, place, "a finite number")
    return value


def _is_usable(value: float) -> bool:
    return -_MOST <= value <= _MOST if isinstance(value, int) else isfinite(value)


def _read_truth(value: Any, place: str) -> Any:
    if not isinstance(value, bool):
        raise _unfit(value, place, "true or false")
    return value


def _read_decimal(value: Any, place: str) -> Any:
    try:
        number = Decimal(value) if isinstance(value, str) and len(value) <= 100 else None
    except InvalidOperation:
        number = None
    if number is None or not number.is_finite():
        raise _unfit(value, place, "a decimal number as text")
    return number


def _one_of(values: tuple[Any, ...]) -> _Read:
    def read(value: Any, place: str) -> Any:
        if not isinstance(value, str) or value not in values:
            raise _unfit(value, place, f"one of {', '.join(map(repr, values))}")
        return value

    return read


def _member_of(kind: type[Enum]) -> _Read:
    read = _one_of(tuple(one.value for one in kind))
    return lambda value, place: kind(read(value, place))


def _unfit(value: Any, place: str, wanted: str) -> InvalidValueError:
    return InvalidValueError(f"{place} is {type(value).__name__}: {wanted} was expected")


_PLAIN: dict[Any, _Read] = {str: _read_text, int: _read_whole, float: _read_number, bool: _read_truth}
