"""Says what a condition is, data that is compared and never code that is run, and whether it holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from power_loop.contracts.frozen import frozen
from power_loop.workflow.refs import Reference, ReferenceFault, Scope, Template


@frozen
class Compare:
    """Holds what a reference gives against a value; an operator that needs no value has none."""

    reference: Reference
    op: str
    value: Template | None = None


@frozen
class All:
    """Holds if each part does."""

    parts: tuple[Condition, ...]


@frozen
class AnyOf:
    """Holds if one part does."""

    parts: tuple[Condition, ...]


@frozen
class Not:
    """Holds if its part does not."""

    part: Condition


Condition = Compare | All | AnyOf | Not


def holds(condition: Condition, scope: Scope) -> bool:
    """Tell whether a condition holds; what a reference lacks is null, and types that cannot be compared do not."""
    if isinstance(condition, All):
        return all(holds(part, scope) for part in condition.parts)
    if isinstance(condition, AnyOf):
        return any(holds(part, scope) for part in condition.parts)
    if isinstance(condition, Not):
        return not holds(condition.part, scope)
    value = condition.reference.value_or_null(scope)
    if condition.value is None:
        return UNARY[condition.op](value)
    try:
        wanted = condition.value.fill(scope, keeps_types=True)
    except ReferenceFault:
        wanted = None
    return BINARY[condition.op](value, wanted)


def _equal(one: Any, other: Any) -> bool:
    """Tell whether two JSON values are equal: 1 is 1.0, and true is neither."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(value, other[name]) for name, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(one == other)


def _ordered(test: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def check(one: Any, other: Any) -> bool:
        if isinstance(one, str) and isinstance(other, str):
            return test(one, other)
        return _is_number(one) and _is_number(other) and test(one, other)

    return check


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _contains(value: Any, wanted: Any) -> bool:
    if isinstance(value, str):
        return isinstance(wanted, str) and wanted in value
    if isinstance(value, list):
        return any(_equal(item, wanted) for item in value)
    return isinstance(value, dict) and isinstance(wanted, str) and wanted in value


def _is_empty(value: Any) -> bool:
    return value is None or value in ("", [], {})


#: The operators that compare with a value, and what each asks.
BINARY: Mapping[str, Callable[[Any, Any], bool]] = {
    "eq": _equal,
    "ne": lambda one, other: not _equal(one, other),
    "lt": _ordered(lambda one, other: one < other),
    "le": _ordered(lambda one, other: one <= other),
    "gt": _ordered(lambda one, other: one > other),
    "ge": _ordered(lambda one, other: one >= other),
    "in": lambda one, other: _contains(other, one),
    "not_in": lambda one, other: not _contains(other, one),
    "contains": _contains,
    "not_contains": lambda one, other: not _contains(one, other),
    "starts_with": lambda one, other: isinstance(one, str) and isinstance(other, str) and one.startswith(other),
    "ends_with": lambda one, other: isinstance(one, str) and isinstance(other, str) and one.endswith(other),
}

#: The operators that need no value.
UNARY: Mapping[str, Callable[[Any], bool]] = {
    "exists": lambda value: value is not None,
    "missing": lambda value: value is None,
    "is_true": lambda value: value is True,
    "is_false": lambda value: value is False,
    "is_empty": _is_empty,
    "not_empty": lambda value: not _is_empty(value),
}

#: What people write for an operator, for suggestions.
SYNONYMS: Mapping[str, str] = {
    "==": "eq",
    "=": "eq",
    "===": "eq",
    "equals": "eq",
    "is": "eq",
    "!=": "ne",
    "<>": "ne",
    "neq": "ne",
    "not_equals": "ne",
    "<": "lt",
    "<=": "le",
    "lte": "le",
    ">": "gt",
    ">=": "ge",
    "gte": "ge",
    "not in": "not_in",
    "includes": "contains",
    "has": "contains",
    "startswith": "starts_with",
    "endswith": "ends_with",
    "true": "is_true",
    "truthy": "is_true",
    "false": "is_false",
    "falsy": "is_false",
    "empty": "is_empty",
    "not empty": "not_empty",
    "defined": "exists",
    "not_exists": "missing",
    "is_null": "missing",
    "not_null": "exists",
}
