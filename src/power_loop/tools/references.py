"""Puts what several places of a schema share under `$defs`, and everything else where it is used."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

# Inside of these keywords stands data, not schemas.
_DATA_KEYWORDS = ("enum", "const", "default", "examples")
# The members of these keywords are schemas, whatever their names.
_SCHEMA_MAPS = ("properties", "patternProperties", "dependentSchemas", "$defs")


def with_definitions(schema: dict[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema with what it refers to: in place what is used once, under `$defs` what is used more often."""
    uses: dict[str, int] = {}
    _count_references(schema, definitions, uses)
    inline = {name: definitions[name] for name, count in uses.items() if count == 1}
    schema = _inlined(schema, inline)
    shared = {name: _inlined(definitions[name], inline) for name, count in uses.items() if count > 1}
    return {**schema, "$defs": shared} if shared else schema


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
