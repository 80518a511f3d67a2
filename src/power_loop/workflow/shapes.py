"""Says what is known of an output before a run: enough to tell that a reference into it can give nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from power_loop.contracts.frozen import frozen

# Schemas that are looked at for one step of a reference: combinations of more than that are taken as unknown.
_MAX_LOOKS = 100
_MAX_ALTERNATIVES = 20


@frozen
class Unknown:
    """Anything may be there."""


@frozen
class Fitting:
    """Is JSON that fits a schema, whose references lead into `whole`."""

    schema: Any
    whole: Any


@frozen
class Items:
    """Is a list."""

    item: Shape


@frozen
class Fields:
    """Is an object of which every key is known."""

    fields: Mapping[str, Shape]


@frozen
class Either:
    """Is one of these."""

    shapes: tuple[Shape, ...]


Shape = Unknown | Fitting | Items | Fields | Either

UNKNOWN = Unknown()
TEXT = Fitting({"type": "string"}, {})
NUMBER = Fitting({"type": "integer"}, {})
NULL = Fitting({"type": "null"}, {})
FAILURE = Fields({"code": TEXT, "message": TEXT, "path": TEXT})


@frozen
class Lacking:
    """Says that a step leads nowhere: where it is tried there is `kind`, with these keys."""

    kind: str
    keys: tuple[str, ...] = ()


def either(shapes: tuple[Shape, ...]) -> Shape:
    """Return what is known of one of some shapes, none of which is itself one of some: each step of a reference looks
    at a few, however often a schema leads back into itself."""
    shapes = tuple([one for shape in shapes for one in (shape.shapes if isinstance(shape, Either) else (shape,))])
    if not shapes or len(shapes) > _MAX_ALTERNATIVES or UNKNOWN in shapes:
        return UNKNOWN
    return shapes[0] if len(shapes) == 1 else Either(shapes)


def step_into(shape: Shape, step: str | int) -> Shape | Lacking:
    """Return what is known behind one step of a reference."""
    if isinstance(shape, Unknown):
        return UNKNOWN
    if isinstance(shape, Items):
        return shape.item if isinstance(step, int) else Lacking("a list")
    if isinstance(shape, Fields):
        found = shape.fields.get(step) if isinstance(step, str) else None
        return Lacking("an object", tuple(shape.fields)) if found is None else found
    if isinstance(shape, Either):
        return _joined([step_into(one, step) for one in shape.shapes])
    plain = list(_plain(shape.schema, shape.whole))
    if len(plain) > _MAX_LOOKS:
        return UNKNOWN
    return _joined([_step_into_schema(one, shape.whole, step) for one in plain])


def kinds_of(shape: Shape) -> frozenset[str]:
    """Return the JSON types that may be there; empty if nothing is known."""
    if isinstance(shape, Items):
        return frozenset(("array",))
    if isinstance(shape, Fields):
        return frozenset(("object",))
    if isinstance(shape, Either):
        each = [kinds_of(one) for one in shape.shapes]
        return frozenset().union(*each) if all(each) else frozenset()
    if isinstance(shape, Unknown):
        return frozenset()
    each = [_types(one) for one in _plain(shape.schema, shape.whole)]
    return frozenset().union(*each) if all(each) and len(each) <= _MAX_LOOKS else frozenset()


def fields_of(shape: Shape) -> Iterator[tuple[str, Shape]]:
    """Return the keys that are known of an object, each with what is known of it."""
    if isinstance(shape, Fields):
        yield from shape.fields.items()
    if isinstance(shape, Fitting):
        for one in _plain(shape.schema, shape.whole):
            properties = one.get("properties")
            if isinstance(properties, dict):
                yield from ((name, Fitting(schema, shape.whole)) for name, schema in properties.items())


def _joined(found: list[Shape | Lacking]) -> Shape | Lacking:
    """Return what is known if any of some ways may be the one."""
    there = tuple(one for one in found if not isinstance(one, Lacking))
    if there:
        return either(there)
    lacking = [one for one in found if isinstance(one, Lacking)]
    if not lacking:
        return UNKNOWN
    keys = tuple(dict.fromkeys(key for one in lacking for key in one.keys))
    return Lacking(lacking[0].kind, keys)


def _plain(schema: Any, whole: Any) -> Iterator[dict[str, Any]]:
    """Return the schemas without references and alternatives that one schema comes to, at most a few."""
    pending = [schema]
    looks = 0
    while pending:
        looks += 1
        one = pending.pop()
        if looks > _MAX_LOOKS or not isinstance(one, dict):
            yield {}
            if looks > _MAX_LOOKS:
                return
            continue
        target = one.get("$ref")
        if isinstance(target, str):
            pending.append(_target(target, whole))
            continue
        ways = [way for name in ("anyOf", "oneOf") if isinstance(way := one.get(name), list)]
        if ways:
            pending += ways[0][:_MAX_LOOKS]
        else:
            yield one


def _target(pointer: str, whole: Any) -> Any:
    found = whole
    if not pointer.startswith("#"):
        return {}
    for token in pointer[1:].split("/")[1:]:
        name = token.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict) and name in found:
            found = found[name]
        else:
            return {}
    return found


def _types(schema: dict[str, Any]) -> frozenset[str]:
    kind = schema.get("type")
    if isinstance(kind, str):
        return frozenset((kind,))
    return frozenset(one for one in kind if isinstance(one, str)) if isinstance(kind, list) else frozenset()


_IN_WORDS = {"array": "a list", "object": "an object", "string": "a text", "boolean": "a boolean", "null": "null"}


def _step_into_schema(schema: dict[str, Any], whole: Any, step: str | int) -> Shape | Lacking:
    types = _types(schema)
    needed = "array" if isinstance(step, int) else "object"
    if types and needed not in types:
        kind = sorted(types - {"null"} or types)[0]
        keys = tuple(schema["properties"]) if isinstance(schema.get("properties"), dict) else ()
        return Lacking(_IN_WORDS.get(kind, "a number"), keys)
    if isinstance(step, int):
        first = schema.get("prefixItems")
        if isinstance(first, list) and step < len(first):
            return Fitting(first[step], whole)
        return Fitting(schema["items"], whole) if isinstance(schema.get("items"), dict) else UNKNOWN
    properties = schema.get("properties")
    if not isinstance(properties, dict) or schema.get("allOf"):
        return UNKNOWN
    if step in properties:
        return Fitting(properties[step], whole)
    more = schema.get("additionalProperties", False)
    if schema.get("patternProperties") or more is True:
        return UNKNOWN
    return Fitting(more, whole) if isinstance(more, dict) else Lacking("an object", tuple(properties))
