"""Says which fields a class has whose instances are JSON objects: a dataclass, a TypedDict or a NamedTuple."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable
from typing import Any, get_args, get_origin

from power_loop.tools.shape import HintRefused

# Reads a hint that is text, in the module of the class that it stands in.
Resolve = Callable[[Any, type], Any]


def is_record(hint: Any) -> bool:
    """Tell whether a hint is such a class."""
    return isinstance(hint, type) and (dataclasses.is_dataclass(hint) or is_typed_dict(hint) or _is_named_tuple(hint))


def is_typed_dict(hint: type) -> bool:
    """Tell whether a class is a TypedDict, whose instances stay plain dicts."""
    return issubclass(hint, dict) and hasattr(hint, "__required_keys__")


def _is_named_tuple(hint: type) -> bool:
    return issubclass(hint, tuple) and hasattr(hint, "_field_defaults")


@dataclasses.dataclass(frozen=True, slots=True)
class RecordField:
    """Is one field that a model may give. `default` is None where there is none, or where it is made by a factory."""

    name: str
    hint: Any
    is_required: bool
    default: Any = None
    description: str | None = None


def fields_of(hint: Any, resolve: Resolve) -> list[RecordField]:
    """Return the fields of a class in order. Raises `HintRefused` for a class that a model cannot fill."""
    if is_typed_dict(hint):
        return [_typed_dict_field(hint, name, _hint_of(hint, name, resolve)) for name in hint.__annotations__]
    if _is_named_tuple(hint):
        defaults = hint._field_defaults
        return [
            RecordField(name, _hint_of(hint, name, resolve), name not in defaults, defaults.get(name))
            for name in hint._fields
        ]
    fields = [field for field in dataclasses.fields(hint) if field.init]
    known = {field.name for field in fields}
    for parameter in inspect.signature(hint).parameters.values():
        is_optional = parameter.default is not parameter.empty or parameter.kind in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        )
        if parameter.name not in known and not is_optional:
            raise HintRefused(
                f"{hint.__name__} takes {parameter.name!r}, which is no field of it, so no model can give it"
            )
    return [_dataclass_field(field, _hint_of(hint, field.name, resolve)) for field in fields]


def _hint_of(hint: Any, name: str, resolve: Resolve) -> Any:
    """Return the type hint of a field, read in the module of the class that declares it."""
    for owner in hint.__mro__:
        notes = inspect.get_annotations(owner)
        if name in notes:
            note = notes[name]
            return resolve(note, owner) if isinstance(note, (str, typing.ForwardRef)) else note
    raise HintRefused(f"the field {hint.__name__}.{name} has no type hint")


def _dataclass_field(field: dataclasses.Field[Any], note: Any) -> RecordField:
    missing = dataclasses.MISSING
    is_required = field.default is missing and field.default_factory is missing
    default = None if field.default is missing else field.default
    description = field.metadata.get("description")
    return RecordField(field.name, note, is_required, default, description if isinstance(description, str) else None)


def _typed_dict_field(hint: Any, name: str, note: Any) -> RecordField:
    is_required = name in hint.__required_keys__
    # Compared by name, because older Pythons have these words in another module; the innermost word may stand in any
    # order.
    while (word := getattr(get_origin(note), "_name", None)) in ("Required", "NotRequired", "ReadOnly"):
        if word != "ReadOnly":
            is_required = word == "Required"
        (note,) = get_args(note)
    return RecordField(name, note, is_required)
