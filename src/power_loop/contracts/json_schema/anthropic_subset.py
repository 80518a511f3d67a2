"""Fits a schema to what Anthropic's structured output takes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from power_loop.contracts.json_schema.compile import Compiler
from power_loop.contracts.json_schema.node import Location
from power_loop.contracts.json_schema.strict import LOOSENED_RULES, NOT_IN_PATTERNS, NotExpressible, StrictForm

# The documented bounds of one request.
_MAX_OPTIONAL = 24
_MAX_UNIONS = 16
_FORMATS = ("date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid")
# Back-references, lazy repeats, and counted repeats, of which only small ones are taken: none is worth the risk.
_NOT_SIMPLE = re.compile(r"\\[1-9]|[*+?}][?+]|\{")
# A note is for a model to keep in mind; what is longer says more than it can.
_MAX_NOTE_CHARS = 300


def to_anthropic_subset(schema: Mapping[str, Any] | bool) -> dict[str, Any] | None:
    """Rewrites a schema into Anthropic's subset; None where the subset cannot hold a reply to its shape.

    Every object is closed, optional properties stay optional. Limits of numbers, texts and arrays, which the subset
    does not know, go into the description: the form then allows more than the schema, and the reply has to be checked
    by the caller, as ever. A recursive schema and a root that is no object have no form. Raises `SchemaError` for a
    malformed schema. Source of the subset and its bounds: the provider's guide to structured outputs.
    """
    try:
        return _AnthropicForm(Compiler(schema)).write()
    except NotExpressible:
        return None


class _AnthropicForm(StrictForm):
    """Writes the form of one compiled schema."""

    formats = _FORMATS
    may_loosen = True
    has_optional = True

    def by_type(self, location: Location, schema: dict[str, Any], rules: list[str]) -> dict[str, Any]:
        form = super().by_type(location, schema, rules)
        lost = {rule: schema[rule] for rule in rules if rule in LOOSENED_RULES and not self.keeps(rule, schema[rule])}
        note = "Must fit " + json.dumps(lost, ensure_ascii=False)
        if lost and len(note) <= _MAX_NOTE_CHARS:
            form["description"] = "\n\n".join(filter(None, (form.get("description"), note)))
        return form

    def keeps(self, rule: str, asked: Any) -> bool:
        if rule == "pattern":
            return not any(map(asked.count, NOT_IN_PATTERNS)) and _NOT_SIMPLE.search(asked) is None
        return rule == "minItems" and asked == 1

    def check_whole(self, form: dict[str, Any]) -> None:
        definitions = form.get("$defs", {})
        pointers = {name: {_name_of(one) for one in _references(inner)} for name, inner in definitions.items()}
        root = {name: inner for name, inner in form.items() if name != "$defs"}
        if any(one == "#" for one in _references(form)) or _has_cycle(pointers):
            raise NotExpressible
        parts = [part for whole in (root, *definitions.values()) for part in _parts(whole)]
        optional = sum(len(part.get("properties", ())) - len(part.get("required", ())) for part in parts)
        unions = sum("anyOf" in part or isinstance(part.get("type"), list) for part in parts)
        if optional > _MAX_OPTIONAL or unions > _MAX_UNIONS:
            raise NotExpressible


def _parts(form: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every schema within a form, the form itself first; definitions are not looked into."""
    yield form
    for inner in (*form.get("properties", {}).values(), *form.get("anyOf", ())):
        yield from _parts(inner)
    if "items" in form:
        yield from _parts(form["items"])


def _references(form: dict[str, Any]) -> Iterator[str]:
    for part in (*_parts(form), *(one for inner in form.get("$defs", {}).values() for one in _parts(inner))):
        if "$ref" in part:
            yield part["$ref"]


def _name_of(pointer: str) -> str:
    return pointer.removeprefix("#/$defs/")


def _has_cycle(pointers: Mapping[str, set[str]]) -> bool:
    """Whether following references ever comes back: what points nowhere is taken away until nothing is left."""
    left = dict(pointers)
    while ends := [name for name, targets in left.items() if targets.isdisjoint(left)]:
        for name in ends:
            del left[name]
    return bool(left)
