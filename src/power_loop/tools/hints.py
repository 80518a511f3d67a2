"""Turns type hints into JSON Schema, and into the conversions that bring JSON values back to the hinted types."""

from __future__ import annotations

import collections.abc
import dataclasses
import inspect
import sys
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from math import isfinite
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from power_loop.contracts.json_schema import Validator, compile_schema
from power_loop.tools.docstring import read_docstring
from power_loop.tools.scalar_hints import (
    ANY_KIND,
    Convert,
    HintRefused,
    Shape,
    Unconvertible,
    choice_shape,
    scalar_shape,
)

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
# Inside of these keywords stands data, not schemas.
_DATA_KEYWORDS = ("enum", "const", "default", "examples")
# The members of these keywords are schemas, whatever their names.
_SCHEMA_MAPS = ("properties", "patternProperties", "dependentSchemas", "$defs")


class HintReader:
    """Reads the hints of one function; what they share stands once, under `$defs`."""

    def __init__(self, names: Mapping[str, Any]) -> None:
        """`names` is what forward references of the function may mean."""
        self._names = dict(names)
        self._records: dict[Any, _Record] = {}
        self._unions: list[_Union] = []

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
        container = self._container(origin or hint, get_args(hint))
        if container is not None:
            return container
        if _is_record(hint):
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
        uses: dict[str, int] = {}
        _count_references(schema, definitions, uses)
        inline = {name: definitions[name] for name, count in uses.items() if count == 1}
        schema = _inlined(schema, inline)
        shared = {name: _inlined(definitions[name], inline) for name, count in uses.items() if count > 1}
        return {**schema, "$defs": shared} if shared else schema

    def _annotated(self, hint: Any) -> Shape:
        inner, *notes = get_args(hint)
        shape = self.read(inner)
        schema = dict(shape.schema)
        for note in notes:
            schema.update(_keywords(note, shape.kinds))
        return dataclasses.replace(shape, schema=schema)

    def _union(self, hints: tuple[Any, ...]) -> Shape:
        shapes = [self.read(hint) for hint in hints]
        schema = {"anyOf": [shape.schema for shape in shapes]}
        kinds = frozenset[type]().union(*(shape.kinds for shape in shapes))
        is_hashable = all(shape.is_hashable for shape in shapes)
        if all(shape.convert is None for shape in shapes):
            return Shape(schema, kinds=kinds, is_hashable=is_hashable)
        union = _Union(shapes)
        self._unions.append(union)
        return Shape(schema, union.convert, kinds=kinds, is_hashable=is_hashable)

    def _container(self, origin: Any, args: tuple[Any, ...]) -> Shape | None:
        if origin is tuple:
            return self._tuple(args)
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
        gather = collect if collect is None or collect is tuple else _hashed(collect)
        return Shape(schema, _items_converter(item.convert, gather), kinds=_ARRAY, is_hashable=is_hashable)

    def _tuple(self, args: tuple[Any, ...]) -> Shape:
        if not args and not self._is_empty_tuple(args):
            return self._items((), tuple)
        if len(args) == 2 and args[1] is Ellipsis:
            return self._items(args[:1], tuple)
        shapes = [self.read(arg) for arg in args if arg != ()]
        count = len(shapes)
        schema: dict[str, Any] = {"type": "array", "minItems": count, "maxItems": count}
        if shapes and all(shape.schema == shapes[0].schema for shape in shapes):
            schema["items"] = shapes[0].schema
        elif shapes:
            schema["prefixItems"] = [shape.schema for shape in shapes]
        converts = [shape.convert for shape in shapes]
        return Shape(
            schema, _tuple_converter(converts), kinds=_ARRAY, is_hashable=all(shape.is_hashable for shape in shapes)
        )

    def _is_empty_tuple(self, args: tuple[Any, ...]) -> bool:
        return args == ((),)

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
        return Shape(schema, _mapping_converter(key.convert, value.convert), kinds=_OBJECT, is_hashable=False)

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


def _is_record(hint: Any) -> bool:
    return isinstance(hint, type) and (dataclasses.is_dataclass(hint) or _is_typed_dict(hint) or _is_named_tuple(hint))


def _is_typed_dict(hint: type) -> bool:
    return issubclass(hint, dict) and hasattr(hint, "__required_keys__")


def _is_named_tuple(hint: type) -> bool:
    return issubclass(hint, tuple) and hasattr(hint, "_field_defaults")


def _refusal(hint: Any) -> str:
    origin = get_origin(hint)
    if origin is not None and _is_record(origin):
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
    documentation = getattr(note, "documentation", None)
    if isinstance(documentation, str):
        found["description"] = documentation
    for attribute, keyword in _BOUNDS.items():
        bound = getattr(note, attribute, None)
        if isinstance(bound, (int, float)) and not isinstance(bound, bool):
            found[keyword] = bound
    for kind, (least, most) in _SIZES.items():
        if kinds == {kind}:
            for attribute, keyword in (("min_length", least), ("max_length", most)):
                size = getattr(note, attribute, None)
                if isinstance(size, int):
                    found[keyword] = size
    return found


class _Record:
    """A class whose instances are JSON objects (or a recursive alias), read once however often it is named."""

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
        for field in _fields(hint, reader):
            try:
                shape = reader.read(field.hint)
            except HintRefused as refused:
                raise HintRefused(f"its field {hint.__name__}.{field.name}: {refused}") from None
            schema = dict(shape.schema)
            description = field.description or documented.parameters.get(field.name)
            if description and "description" not in schema:
                schema["description"] = description
            properties[field.name] = schema
            if field.is_required:
                required.append(field.name)
            elif (default := json_default(field.default)) is not None:
                schema["default"] = default
            if shape.convert is not None:
                converts.append((field.name, shape.convert))
        self.schema = {"type": "object"}
        if documented.summary:
            self.schema["description"] = documented.summary
        self.schema["properties"] = properties
        if required:
            self.schema["required"] = required
        self.schema["additionalProperties"] = False
        self._build = _record_converter(hint, converts)
        if self._build is None:
            self.shape = dataclasses.replace(self.shape, convert=None)


@dataclasses.dataclass(frozen=True, slots=True)
class _Field:
    name: str
    hint: Any
    is_required: bool
    default: Any = None
    description: str | None = None


def _fields(hint: Any, reader: HintReader) -> list[_Field]:
    if _is_typed_dict(hint):
        return [_typed_dict_field(hint, name, _hint_of(hint, name, reader)) for name in hint.__annotations__]
    if _is_named_tuple(hint):
        defaults = hint._field_defaults
        return [
            _Field(name, _hint_of(hint, name, reader), name not in defaults, defaults.get(name))
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
    return [_dataclass_field(field, _hint_of(hint, field.name, reader)) for field in fields]


def _hint_of(hint: Any, name: str, reader: HintReader) -> Any:
    """Return the type hint of a field, read in the module of the class that declares it."""
    for owner in hint.__mro__:
        note = inspect.get_annotations(owner).get(name)
        if note is not None:
            return reader.resolved(note, owner) if isinstance(note, (str, typing.ForwardRef)) else note
    raise HintRefused(f"the field {hint.__name__}.{name} has no type hint")


def _dataclass_field(field: dataclasses.Field[Any], note: Any) -> _Field:
    missing = dataclasses.MISSING
    is_required = field.default is missing and field.default_factory is missing
    default = None if field.default is missing else field.default
    description = field.metadata.get("description")
    return _Field(field.name, note, is_required, default, description if isinstance(description, str) else None)


def _typed_dict_field(hint: Any, name: str, note: Any) -> _Field:
    is_required = name in hint.__required_keys__
    # Compared by name, because older Pythons have these words in another module; the innermost word may stand in any
    # order.
    while (word := getattr(get_origin(note), "_name", None)) in ("Required", "NotRequired", "ReadOnly"):
        if word != "ReadOnly":
            is_required = word == "Required"
        (note,) = get_args(note)
    return _Field(name, note, is_required)


def json_default(value: Any) -> Any:
    """Return a default as JSON for the model to see, or None where it is null or has no JSON form."""
    shown = _json_of(value)
    return None if shown is _NO_JSON else shown


_NO_JSON: Any = object()


def _json_of(value: Any) -> Any:
    if value is None or type(value) in (str, int, float, bool):
        return _NO_JSON if isinstance(value, float) and not isfinite(value) else value
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        items = [_json_of(item) for item in value]
        return _NO_JSON if _NO_JSON in items else items
    if type(value) is dict and all(type(key) is str for key in value):
        members = {key: _json_of(item) for key, item in value.items()}
        return _NO_JSON if _NO_JSON in members.values() else members
    shape = scalar_shape(type(value))
    if shape is None or not shape.schema or shape.schema == {"type": "null"}:
        return _NO_JSON
    if "enum" in shape.schema:
        return _json_of(value.value)
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


# ---- conversions ----


def _items_converter(convert: Convert | None, collect: Convert | None) -> Convert | None:
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


def _hashed(collect: Convert) -> Convert:
    def convert_set(items: list[Any]) -> Any:
        try:
            return collect(items)
        except TypeError as error:
            raise Unconvertible(f"its items cannot be put into a set: {error}") from None

    return convert_set


def _tuple_converter(converts: list[Convert | None]) -> Convert:
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


def _mapping_converter(key: Convert | None, value: Convert | None) -> Convert | None:
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


def _record_converter(hint: Any, converts: list[tuple[str, Convert]]) -> Convert | None:
    is_dict = _is_typed_dict(hint)
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


class _Union:
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


# ---- references ----


def _subschemas(schema: dict[str, Any]) -> Iterator[Any]:
    for keyword, value in schema.items():
        if keyword in _SCHEMA_MAPS and isinstance(value, dict):
            yield from value.values()
        elif keyword not in _DATA_KEYWORDS:
            yield value


def _count_references(schema: Any, definitions: Mapping[str, Any], uses: dict[str, int]) -> None:
    inner: Iterable[Any] = ()
    if isinstance(schema, list):
        inner = schema
    elif isinstance(schema, dict):
        name = _referred(schema, definitions)
        if name is not None:
            uses[name] = uses.get(name, 0) + 1
            if uses[name] == 1:
                _count_references(definitions[name], definitions, uses)
        inner = _subschemas(schema)
    for part in inner:
        _count_references(part, definitions, uses)


def _inlined(schema: Any, inline: Mapping[str, Any]) -> Any:
    """Return a copy of the schema in which each reference to one of `inline` is what it refers to."""
    if isinstance(schema, list):
        return [_inlined(item, inline) for item in schema]
    if not isinstance(schema, dict):
        return schema
    copied: dict[str, Any] = {}
    for keyword, value in schema.items():
        if keyword in _SCHEMA_MAPS and isinstance(value, dict):
            copied[keyword] = {name: _inlined(one, inline) for name, one in value.items()}
        else:
            copied[keyword] = value if keyword in _DATA_KEYWORDS else _inlined(value, inline)
    name = _referred(schema, inline)
    if name is None:
        return copied
    del copied["$ref"]
    return {**_inlined(inline[name], inline), **copied}


def _referred(schema: dict[str, Any], definitions: Mapping[str, Any]) -> str | None:
    reference = schema.get("$ref")
    if not isinstance(reference, str) or not reference.startswith("#/$defs/"):
        return None
    name = reference.removeprefix("#/$defs/")
    return name if name in definitions else None
