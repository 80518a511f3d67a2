"""Brings a reply in the strict form of a schema back to the schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from power_loop.contracts.json_schema.check import Run
from power_loop.contracts.json_schema.compile import Compiler
from power_loop.contracts.json_schema.node import Location
from power_loop.contracts.json_schema.pattern import OutOfSteps
from power_loop.contracts.json_schema.values import TooDeep


def drop_added_nulls(value: Any, schema: Mapping[str, Any] | bool) -> Any:
    """Returns a copy of a reply without the nulls that only the strict form of `schema` allowed.

    `schema` is the original schema. A null goes where it stands for an optional property that does not accept null
    itself. What does not fit the schema anyway is left for `Validator.problems` to report. Raises `SchemaError` for a
    malformed schema.
    """
    compiler = Compiler(schema)
    try:
        return _NullDropper(compiler).dropped(value, compiler.root, location=())
    except (OutOfSteps, TooDeep, RecursionError):
        return value


class _NullDropper:
    """Walks a reply along the original schema."""

    def __init__(self, compiler: Compiler) -> None:
        self._compiler = compiler
        self._run = Run(1)

    def dropped(self, value: Any, schema: Any, *, location: Location) -> Any:
        self._run.spend(1)
        if not isinstance(schema, dict) or not isinstance(value, (dict, list)):
            return value
        if "$ref" in schema:
            target, schema = self._compiler.target_of(schema["$ref"])
            return self.dropped(value, schema, location=target)
        for keyword in ("allOf", "anyOf", "oneOf"):
            for index, branch in enumerate(schema.get(keyword, ())):
                place = (*location, keyword, index)
                candidate = self.dropped(value, branch, location=place)
                if self._run.holds(self._compiler.check_at(place), candidate, path=None):
                    return candidate
        if isinstance(value, list):
            items = schema.get("items", True)
            return [self.dropped(item, items, location=(*location, "items")) for item in value]
        properties = schema.get("properties", {})
        required = schema.get("required", ())
        kept = {}
        for name, item in value.items():
            place = (*location, "properties", name)
            is_optional = name in properties and name not in required
            if item is None and is_optional and not self._run.holds(self._compiler.check_at(place), None, path=None):
                continue
            kept[name] = self.dropped(item, properties.get(name, True), location=place)
        return kept
