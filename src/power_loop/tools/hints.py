"""Turns type hints into JSON Schema, and into the conversions that bring JSON values back to the hinted types."""

from __future__ import annotations

import collections.abc
import dataclasses
import sys
import types
import typing
from collections.abc import Mapping
from math import isfinite
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from power_loop.tools.conversions import (
    UnionConversion,
    hashed,
    items_converter,
    mapping_converter,
    record_converter,
    tuple_converter,
)
from power_loop.tools.docstring import read_docstring
from power_loop.tools.json_form import NoJsonForm, json_form
from power_loop.tools.record_fields import fields_of, is_record
from power_loop.tools.references import with_definitions
from power_loop.tools.scalar_hints import choice_shape, scalar_shape
from power_loop.tools.shape import ANY_KIND, Convert, HintRefused, Shape

_ARRAY = frozenset({list})
_OBJECT = frozenset({dict})

_LISTS = (
    list,
    collections.abc.Sequence,
    collections.abc.MutableSequence,
    collections.abc.Collection,
    collections.abc.Iterable,
)
_SETS = (set, collections.abc.Set, collections.abc.MutableSet)
_MAPPINGS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)

# The attributes by which libraries of constraints (annotated-types and those that read it) say what they mean.
_BOUNDS = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
    "multiple_of": "multipleOf",
}
_SIZES = {
    str: ("minLength", "maxLength"),
    list: ("minItems", "maxItems"),
    dict: ("minProperties", "maxProperties"),
}


class HintReader:
    """Reads the hints of one function; what they share stands once, under `$defs`."""

    def __init__(self, names: Mapping[str, Any]) -> None:
        """`names` is what forward references of the function may mean."""
        self._names = dict(names)
        self._records: dict[Any, _Record] = {}
        self._unions: list[UnionConversion] = []

    def read(self, hint: Any) -> Shape:
        """Return the shape of a hint. Raises `HintRefused`."""
        if isinstance(hint, (str, typing.ForwardRef)):
            hint = self.resolved(hint)
        scalar = scalar_shape(hint)
        if scalar is not None:
            return scalar
        origin = get_origin(hint)
        if origin is Annotated:
            return self._annotated(hint)
        if origin is Literal:
            return choice_shape(get_args(hint))
        if origin is Union or origin is types.UnionType:
            return self._union(get_args(hint))
        container = self._container(origin or hint, get_args(hint), is_bare=origin is None)
        if container is not None:
            return container
        if is_record(hint):
            return self._record(hint)
        return self._indirect(hint)

    def resolved(self, hint: str | typing.ForwardRef, owner: type | None = None) -> Any:
        """Return what a forward reference means in the function, or in a class. Raises `HintRefused`."""
        holder = types.SimpleNamespace(__annotations__={"hint": hint})
        names, own = self._names, dict[str, Any]()
        if owner is not None:
            module = sys.modules.get(owner.__module__)
            names = {**names, **(vars(module) if module is not None else {})}
            own = {owner.__name__: owner}
        try:
            hints = typing.get_type_hints(holder, names, own, include_extras=True)
        except NameError as error:
            text = hint if isinstance(hint, str) else hint.__forward_arg__
            raise HintRefused(
                f"the type hint {text!r} names {error.name!r}, which is not defined where the function stands:"
                " define or import it at module level, and not under TYPE_CHECKING"
            ) from None
        # A type hint is a stranger's expression.
        except Exception as error:
            raise HintRefused(f"the type hint {hint!r} cannot be read: {error}") from None
        return hints["hint"]

    def finish(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Return the schema of the whole with its `$defs`, and make the conversions of unions ready."""
        definitions = {record.name: record.schema for record in self._records.values()}
        for union in self._unions:
            union.prepare(definitions)
        return with_definitions(schema, definitions)

    def _annotated(self, hint: Any) -> Shape:
        inner, *notes = get_args(hint)
        shape = self.read(inner)
        keywords: dict[str, Any] = {}
        for note in notes:
            keywords.update(_keywords(note, shape.kinds))
        description = keywords.get("description", shape.description)
        return dataclasses.replace(shape, schema={**shape.schema, **keywords}, description=description)

    def _union(self, hints: tuple[Any, ...]) -> Shape:
        shapes = [self.read(hint) for hint in hints]
        schema = {"anyOf": [shape.schema for shape in shapes]}
        kinds = frozenset[type]().union(*(shape.kinds for shape in shapes))
        is_hashable = all(shape.is_hashable for shape in shapes)
        if all(shape.convert is None for shape in shapes):
            return Shape(schema, kinds=kinds, is_hashable=is_hashable)
        union = UnionConversion(shapes)
        self._unions.append(union)
        return Shape(schema, union.convert, kinds=kinds, is_hashable=is_hashable)

    def _container(self, origin: Any, args: tuple[Any, ...], *, is_bare: bool) -> Shape | None:
        if origin is tuple:
            return self._items((), tuple) if is_bare else self._tuple(args)
        if origin in _LISTS:
            return self._items(args, None)
        if origin in _SETS or origin is frozenset:
            shape = self._items(args, frozenset if origin is frozenset else set)
            return dataclasses.replace(shape, schema={**shape.schema, "uniqueItems": True})
        if origin in _MAPPINGS:
            return self._mapping(args)
        return None

    def _items(self, args: tuple[Any, ...], collect: Convert | None) -> Shape:
        """Return the shape of an array of one kind of items, gathered by `collect` (None: as a list)."""
        item = self.read(args[0] if args else Any)
        if collect in (set, frozenset) and args and not item.is_hashable:
            raise HintRefused(f"a set cannot hold {_shown(args[0])}, which is not hashable: use a list")
        schema: dict[str, Any] = {"type": "array", **({"items": item.schema} if item.schema else {})}
        is_hashable = collect in (tuple, frozenset) and item.is_hashable
        gather = collect if collect is None or collect is tuple else hashed(collect)
        return Shape(schema, items_converter(item.convert, gather), kinds=_ARRAY, is_hashable=is_hashable)

    def _tuple(self, args: tuple[Any, ...]) -> Shape:
        if len(args) == 2 and args[1] is Ellipsis:
            return self._items(args[:1], tuple)
        # Python 3.10 has the empty tuple as the one argument of `tuple[()]`.
        shapes = [self.read(arg) for arg in args if arg != ()]
        count = len(shapes)
        schema: dict[str, Any] = {"type": "array", "minItems": count, "maxItems": count}
        if shapes and all(shape.schema == shapes[0].schema for shape in shapes):
            schema["items"] = shapes[0].schema
        elif shapes:
            schema["prefixItems"] = [shape.schema for shape in shapes]
        converts = [shape.convert for shape in shapes]
        return Shape(
            schema, tuple_converter(converts), kinds=_ARRAY, is_hashable=all(shape.is_hashable for shape in shapes)
        )

    def _mapping(self, args: tuple[Any, ...]) -> Shape:
        if not args:
            return Shape({"type": "object"}, kinds=_OBJECT, is_hashable=False)
        key, value = self.read(args[0]), self.read(args[1])
        if key.kinds != {str}:
            raise HintRefused(
                f"a JSON object has text keys, not {_shown(args[0])}: use dict[str, ...] or a list of pairs"
            )
        schema: dict[str, Any] = {"type": "object"}
        if key.schema != {"type": "string"}:
            schema["propertyNames"] = key.schema
        if value.schema:
            schema["additionalProperties"] = value.schema
        return Shape(schema, mapping_converter(key.convert, value.convert), kinds=_OBJECT, is_hashable=False)

    def _record(self, hint: Any) -> Shape:
        record = self._records.get(hint)
        if record is None:
            taken = {other.name for other in self._records.values()}
            record = self._records[hint] = _Record(hint, _free_name(hint.__name__, taken))
            record.read(self)
        return record.shape

    def _indirect(self, hint: Any) -> Shape:
        """Return the shape of a hint that stands for another one."""
        supertype = getattr(hint, "__supertype__", None)
        if supertype is not None:
            return self.read(supertype)
        if hint is getattr(typing, "LiteralString", Ellipsis):
            return self.read(str)
        if type(hint).__name__ == "TypeAliasType":
            alias = self._records.get(hint)
            if alias is None:
                taken = {other.name for other in self._records.values()}
                alias = self._records[hint] = _Record(hint, _free_name(hint.__name__, taken))
                alias.stand_for(self.read(hint.__value__))
            return alias.shape
        raise HintRefused(_refusal(hint))


def _refusal(hint: Any) -> str:
    origin = get_origin(hint)
    if origin is not None and is_record(origin):
        return f"{_shown(hint)} has type parameters, which are not supported: write a class without them"
    if isinstance(hint, typing.TypeVar):
        return f"{_shown(hint)} is a type variable: say which type it is"
    advice = {
        bytes: "use str, with base64 text",
        bytearray: "use str, with base64 text",
        complex: "use two floats",
        type(Ellipsis): "say which type it is",
    }.get(hint if isinstance(hint, type) else type(hint))
    return f"{_shown(hint)} has no JSON form: " + (
        advice
        or "use str, int, float, bool, None, Literal, an Enum, a dataclass, a TypedDict, a NamedTuple, datetime, date,"
        " time, UUID, Decimal, Path, lists, sets, tuples and dicts of these, or unions of them"
    )


def _shown(hint: Any) -> str:
    return (
        hint.__qualname__ if isinstance(hint, type) and get_origin(hint) is None else str(hint).removeprefix("typing.")
    )


def _free_name(name: str, taken: set[str]) -> str:
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name}{number}"
    return free


def _keywords(note: Any, kinds: frozenset[type]) -> dict[str, Any]:
    """Return the schema keywords that one annotation of Annotated means; what nobody here understands means none."""
    if isinstance(note, str):
        return {"description": note}
    if isinstance(note, dict):
        return dict(note)
    if isinstance(note, type):
        return {}
    found: dict[str, Any] = {}
    for attribute in ("documentation", "description"):
        text = getattr(note, attribute, None)
        if isinstance(text, str):
            found["description"] = text
    for attribute, keyword in _BOUNDS.items():
        bound = getattr(note, attribute, None)
        if isinstance(bound, (int, float)) and not isinstance(bound, bool):
            if kinds.isdisjoint((int, float)):
                raise HintRefused(f"{note!r} bounds a number, but what it stands at is none in JSON")
            found[keyword] = bound
    for attribute, place in (("min_length", 0), ("max_length", 1)):
        size = getattr(note, attribute, None)
        if isinstance(size, int) and not isinstance(size, bool):
            sized = [keywords[place] for kind, keywords in _SIZES.items() if kind in kinds]
            if len(sized) != 1:
                raise HintRefused(f"{note!r} bounds a size, but what it stands at has none, or several, in JSON")
            found[sized[0]] = size
    return found


def described(shape: Shape, text: str | None, *, default: Any) -> dict[str, Any]:
    """Return the schema of a field or parameter, with a description (its own, or `text`) and its default if any."""
    schema = dict(shape.schema)
    if text and shape.description is None:
        schema["description"] = text
    try:
        form = json_form(default)
    except NoJsonForm:
        return schema
    if form is not None and not (isinstance(default, float) and not isfinite(default)):
        schema.setdefault("default", form)
    return schema


class _Record:
    """Is a class whose instances are JSON objects (or a recursive alias), read once however often it is named."""

    def __init__(self, hint: Any, name: str) -> None:
        self.hint = hint
        self.name = name
        self.schema: dict[str, Any] = {}
        self._build: Convert | None = None
        is_alias = not isinstance(hint, type)
        is_hashable = not is_alias and hint.__hash__ is not None
        self.shape = Shape(
            {"$ref": f"#/$defs/{name}"}, self._convert, kinds=ANY_KIND if is_alias else _OBJECT, is_hashable=is_hashable
        )

    def _convert(self, value: Any) -> Any:
        # Looked up when it runs, because a recursive class refers to itself before it has been read.
        return value if self._build is None else self._build(value)

    def stand_for(self, shape: Shape) -> None:
        self.schema = shape.schema
        self._build = shape.convert

    def read(self, reader: HintReader) -> None:
        hint = self.hint
        text = hint.__dict__.get("__doc__") or ""
        # Dataclasses and named tuples write their signature where no docstring is.
        documented = read_docstring("" if text.startswith(f"{hint.__name__}(") else text)
        properties: dict[str, Any] = {}
        required: list[str] = []
        converts: list[tuple[str, Convert]] = []
        for field in fields_of(hint, reader.resolved):
            try:
                shape = reader.read(field.hint)
            except HintRefused as refused:
                raise HintRefused(f"its field {hint.__name__}.{field.name}: {refused}") from None
            text = field.description or documented.parameters.get(field.name)
            properties[field.name] = described(shape, text, default=None if field.is_required else field.default)
            if field.is_required:
                required.append(field.name)
            if shape.convert is not None:
                converts.append((field.name, shape.convert))
        self.schema = {"type": "object"}
        if documented.summary:
            self.schema["description"] = documented.summary
        self.schema["properties"] = properties
        if required:
            self.schema["required"] = required
        self.schema["additionalProperties"] = False
        self._build = record_converter(hint, converts)
        if self._build is None:
            self.shape = dataclasses.replace(self.shape, convert=None)
