"""Brings JSON values to the types that hints name: arrays, objects, records and unions, item by item."""

from __future__ import annotations

from typing import Any

from power_loop.contracts.json_schema import Validator, compile_schema
from power_loop.tools.record_fields import is_typed_dict
from power_loop.tools.shape import ANY_KIND, Convert, Shape, Unconvertible


def items_converter(convert: Convert | None, collect: Convert | None) -> Convert | None:
    """Convert each item and gather them with `collect` (None: as the list that they are)."""
    if convert is None:
        return collect
    item = convert

    def convert_items(value: list[Any]) -> Any:
        items = []
        index = 0
        try:
            for index, one in enumerate(value):  # noqa: B007 (the place of a failure)
                items.append(item(one))
        except Unconvertible as failure:
            failure.steps.append(index)
            raise
        return items if collect is None else collect(items)

    return convert_items


def hashed(collect: Convert) -> Convert:
    """Gather items into a set, whose items may turn out not to be hashable."""

    def convert_set(items: list[Any]) -> Any:
        try:
            return collect(items)
        except TypeError as error:
            raise Unconvertible(f"its items cannot be put into a set: {error}") from None

    return convert_set


def tuple_converter(converts: list[Convert | None]) -> Convert:
    """Convert each item by its own place."""
    if all(convert is None for convert in converts):
        return tuple

    def convert_tuple(value: list[Any]) -> tuple[Any, ...]:
        items = list(value)
        index = 0
        try:
            for index, convert in enumerate(converts):
                if convert is not None:
                    items[index] = convert(items[index])
        except Unconvertible as failure:
            failure.steps.append(index)
            raise
        return tuple(items)

    return convert_tuple


def mapping_converter(key: Convert | None, value: Convert | None) -> Convert | None:
    """Convert the names and the values of an object."""
    if key is None and value is None:
        return None

    def convert_mapping(members: dict[str, Any]) -> dict[Any, Any]:
        converted = {}
        name = ""
        try:
            for name, one in members.items():
                converted[name if key is None else key(name)] = one if value is None else value(one)
        except Unconvertible as failure:
            failure.steps.append(name)
            raise
        return converted

    return convert_mapping


def record_converter(hint: Any, converts: list[tuple[str, Convert]]) -> Convert | None:
    """Convert the members of an object and make an instance of `hint` of them."""
    is_dict = is_typed_dict(hint)
    if is_dict and not converts:
        return None

    def convert_record(value: dict[str, Any]) -> Any:
        fields = dict(value)
        name = ""
        try:
            for name, convert in converts:
                if name in fields:
                    fields[name] = convert(fields[name])
        except Unconvertible as failure:
            failure.steps.append(name)
            raise
        if is_dict:
            return fields
        try:
            return hint(**fields)
        # A stranger's constructor may raise anything.
        except Exception as error:
            raise Unconvertible(f"{hint.__name__} does not take it: {error}") from error

    return convert_record


# 3 is no float where an int is offered, and 3.0 no int where a float is.
_NUMBER_TYPES: dict[type, str] = {int: "integer", float: "number"}


class UnionConversion:
    """Chooses the first alternative that a value fits, those with exactly its kind of number first."""

    def __init__(self, shapes: list[Shape]) -> None:
        self._shapes = shapes
        self._validators: list[Validator] = []
        self._by_kind: dict[type, list[int]] = {}

    def prepare(self, definitions: dict[str, Any]) -> None:
        """Compile what tells the alternatives apart; `definitions` is what their references mean."""
        for kind in ANY_KIND:
            able = [index for index, shape in enumerate(self._shapes) if kind in shape.kinds]
            exact = _NUMBER_TYPES.get(kind)
            if exact is not None:
                able.sort(key=lambda index: self._shapes[index].schema.get("type") != exact)
            self._by_kind[kind] = able
        self._validators = [compile_schema({**shape.schema, "$defs": definitions}) for shape in self._shapes]

    def convert(self, value: Any) -> Any:
        """Return the value in the type of the alternative that it fits."""
        able = self._by_kind.get(type(value))
        if able is None:
            # A value that an application made, of a class of its own.
            able = next((found for kind, found in self._by_kind.items() if isinstance(value, kind)), [])
        last: Unconvertible | None = None
        for index in able:
            if len(able) > 1 and self._validators[index].problems(value):
                continue
            convert = self._shapes[index].convert
            try:
                return value if convert is None else convert(value)
            except Unconvertible as failure:
                last = failure
        raise last or Unconvertible("it fits none of the alternatives")
