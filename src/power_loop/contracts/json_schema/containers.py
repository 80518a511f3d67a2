"""Checks arrays and objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from power_loop.contracts.json_schema.check import Check, Run, check_never
from power_loop.contracts.json_schema.pattern import OutOfSteps, Pattern
from power_loop.contracts.json_schema.problems import Path, counted, listed, quoted
from power_loop.contracts.json_schema.values import equality_key

# The checks of leading items and of the rest: None accepts everything.
_Items = tuple[list[Check | None], Check | None]


def array(items: _Items, least: int, *, most: int | None, contains: Check | None, is_unique: bool) -> Check | None:
    """Checks `prefixItems` with `items`, `minItems`, `maxItems`, `uniqueItems` and what `containing` has prepared."""
    leading, rest = items
    is_closed = rest is check_never
    walks = rest is not None or any(check is not None for check in leading)
    if not walks and not least and most is None and contains is None and not is_unique:
        return None

    def check_array(value: Any, path: Path, run: Run) -> None:
        if not isinstance(value, list):
            return
        length = len(value)
        run.spend(1 + length)
        if length < least:
            run.add(path, "minItems", message=f"must have at least {counted(least, 'item')}, has {length}")
        if most is not None and length > most:
            run.add(path, "maxItems", message=f"must have at most {counted(most, 'item')}, has {length}")
        if walks:
            for index, (item, check) in enumerate(zip(value, leading, strict=False)):
                if check is not None:
                    check(item, (path, index), run)
            if is_closed:
                if length > len(leading):
                    allowed = counted(len(leading), "item")
                    run.add(path, "items", message=f"must have at most {allowed}, has {length}")
            elif rest is not None:
                for index in range(len(leading), length):
                    rest(value[index], (path, index), run)
        if contains is not None:
            contains(value, path, run)
        if is_unique:
            _check_unique(value, path, run)

    return check_array


def _check_unique(value: list[Any], path: Path, run: Run) -> None:
    first_at: dict[Any, int] = {}
    for index, item in enumerate(value):
        first = first_at.setdefault(equality_key(item, run), index)
        if first != index:
            run.add((path, index), "uniqueItems", message=f"must be unique in its array, but repeats item [{first}]")


def containing(wanted: Check | None, least: int, *, most: int | None, text: str) -> Check:
    """Checks `contains`, `minContains` and `maxContains`; `text` shows the schema that is looked for."""

    def check_contains(value: Any, path: Path, run: Run) -> None:
        count = sum(run.holds(wanted, item, path=(path, index)) for index, item in enumerate(value))
        if count < least:
            wished = counted(least, "item")
            run.add(path, "contains", message=f"must contain at least {wished} that match {text}, contains {count}")
        if most is not None and count > most:
            wished = counted(most, "item")
            run.add(path, "maxContains", message=f"must contain at most {wished} that match {text}, contains {count}")

    return check_contains


def members(properties: Mapping[str, Check | None], required: list[str], *, additional: Check | None) -> Check | None:
    """Checks `required` and `properties`, and `additional` for the properties that the schema does not name."""
    known = {name: check for name, check in properties.items() if check is not None or additional is not None}
    if not known and not required and additional is None:
        return None
    cost = 1 + len(required)
    is_closed = additional is check_never
    unknown = None if is_closed else additional
    allowed = listed(map(quoted, properties), len(properties)) or "none"

    # The hot path of every tool call: what is valid costs two lookups a property and its own check.
    def check_members(value: Any, path: Path, run: Run) -> None:
        if not isinstance(value, dict):
            return
        run.steps -= cost + len(value)
        if run.steps < 0:
            raise OutOfSteps
        for name in required:
            if name not in value:
                run.add(path, "required", message=f"the required property {quoted(name)} is missing")
        for name, item in value.items():
            check = known.get(name, unknown)
            if check is not None:
                check(item, (path, name), run)
            elif is_closed and name not in known:
                _refuse_member(name, path, run=run, allowed=allowed)

    return check_members


def _refuse_member(name: object, path: Path, *, run: Run, allowed: str) -> None:
    text = str(name)
    message = f"the property {quoted(text)} is not allowed; allowed: {allowed}"
    run.add((path, text), "additionalProperties", message=message)


def patterned(
    properties: Mapping[str, object], patterns: list[tuple[Pattern, Check | None]], *, additional: Check | None
) -> Check:
    """Checks `patternProperties`, and `additional` for what neither they nor `properties` name."""
    sources = listed((quoted(pattern.source) for pattern, _ in patterns), len(patterns))
    named = listed(map(quoted, properties), len(properties))
    allowed = f"{named}, and names that match {sources}" if named else f"names that match {sources}"

    def check_patterned(value: Any, path: Path, run: Run) -> None:
        if not isinstance(value, dict):
            return
        for name, item in value.items():
            is_known = name in properties
            for pattern, check in patterns:
                if isinstance(name, str) and pattern.search(name, run):
                    is_known = True
                    if check is not None:
                        check(item, (path, name), run)
            if is_known or additional is None:
                continue
            if additional is check_never:
                _refuse_member(name, path, run=run, allowed=allowed)
            else:
                additional(item, (path, name), run)

    return check_patterned


def sized(least: int, most: int | None) -> Check | None:
    """Checks `minProperties` and `maxProperties`."""
    if not least and most is None:
        return None

    def check_size(value: Any, path: Path, run: Run) -> None:
        if not isinstance(value, dict):
            return
        count = len(value)
        if count < least:
            wished = counted(least, "property", plural="properties")
            run.add(path, "minProperties", message=f"must have at least {wished}, has {count}")
        if most is not None and count > most:
            wished = counted(most, "property", plural="properties")
            run.add(path, "maxProperties", message=f"must have at most {wished}, has {count}")

    return check_size


def named(check: Check | None) -> Check | None:
    """Checks `propertyNames`."""
    if check is None:
        return None

    def check_names(value: Any, path: Path, run: Run) -> None:
        if not isinstance(value, dict):
            return
        run.spend(1 + len(value))
        for name in value:
            for _, _, message in run.attempt(check, name, path=path):
                run.add(
                    (path, str(name)), "propertyNames", message=f"this name is not allowed for a property: {message}"
                )

    return check_names


def dependent(required: Mapping[str, list[str]], schemas: Mapping[str, Check | None]) -> Check | None:
    """Checks `dependentRequired` and `dependentSchemas`."""
    if not required and not schemas:
        return None
    cost = 1 + len(schemas) + sum(1 + len(names) for names in required.values())

    def check_dependents(value: Any, path: Path, run: Run) -> None:
        if not isinstance(value, dict):
            return
        run.spend(cost)
        for name, others in required.items():
            for other in others if name in value else ():
                if other not in value:
                    message = f"the property {quoted(other)} is required because {quoted(name)} is given"
                    run.add(path, "dependentRequired", message=message)
        for name, check in schemas.items():
            if check is not None and name in value:
                check(value, path, run)

    return check_dependents
