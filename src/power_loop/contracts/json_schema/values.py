"""Says what type a JSON value has and which values are equal, as JSON Schema sees it."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import Any

from power_loop.contracts.json_schema.pattern import StepBudget

# Nesting of JSON that is read, of schemas, and of values that are compared: far above what tools use, far below
# Python's stack.
MAX_DEPTH = 100


class TooDeep(Exception):  # noqa: N818 - a signal
    """Ends a check whose value or schema is nested too deeply."""


# The Python classes whose instances certainly have a type; `True` is no `int` here because its class is `bool`.
TYPES: dict[str, tuple[frozenset[type], str]] = {
    "string": (frozenset((str,)), "a string"),
    "integer": (frozenset((int,)), "an integer"),
    "number": (frozenset((int, float)), "a number"),
    "boolean": (frozenset((bool,)), "a boolean"),
    "object": (frozenset((dict,)), "an object"),
    "array": (frozenset((list,)), "an array"),
    "null": (frozenset((type(None),)), "null"),
}


def has_type(value: Any, names: tuple[str, ...]) -> bool:
    """Decides for values whose class alone does not: subclasses, and floats that are integers."""
    if value is None:
        return "null" in names
    if isinstance(value, bool):
        return "boolean" in names
    if isinstance(value, int):
        return "integer" in names or "number" in names
    if isinstance(value, float):
        return "number" in names or ("integer" in names and value.is_integer())
    if isinstance(value, str):
        return "string" in names
    if isinstance(value, dict):
        return "object" in names
    return isinstance(value, list) and "array" in names


def classes_of(names: Iterable[str]) -> frozenset[type]:
    """The classes whose instances certainly have one of the types."""
    return frozenset(known for name in names for known in TYPES[name][0])


def types_in_words(names: Iterable[str]) -> str:
    """Types as a message names them: `a string, an integer or null`."""
    texts = list(dict.fromkeys(TYPES[name][1] for name in names))
    return " or ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)


def equality_key(value: Any, budget: StepBudget, *, depth: int = 0) -> Any:
    """A hashable stand-in for a JSON value: equal stand-ins are equal JSON, so 1 is 1.0 but not true."""
    if isinstance(value, bool):
        return ("boolean", value)
    if isinstance(value, (list, dict)):
        if depth > MAX_DEPTH:
            raise TooDeep
        budget.spend(1 + len(value))
        if isinstance(value, list):
            return ("array", tuple([equality_key(item, budget, depth=depth + 1) for item in value]))
        return (
            "object",
            frozenset([(name, equality_key(item, budget, depth=depth + 1)) for name, item in value.items()]),
        )
    if value is None or isinstance(value, (str, int, float)):
        return value
    return ("stranger", id(value))


def is_multiple(value: float, divisor: float) -> bool:
    """Divides the numbers as they are written in decimal, so that 19.99 is a multiple of 0.01."""
    if isinstance(value, int) and isinstance(divisor, int):
        return value % divisor == 0
    if value in (inf, -inf) or value != value:
        return False
    digits, exponent = _decimal(value)
    divisor_digits, divisor_exponent = _decimal(divisor)
    shift = exponent - divisor_exponent
    if shift >= 0:
        digits *= 10**shift
    else:
        divisor_digits *= 10**-shift
    return digits % divisor_digits == 0


def _decimal(value: float) -> tuple[int, int]:
    """The digits of a number as an integer, and the power of ten they count."""
    if isinstance(value, int):
        return value, 0
    mantissa, _, exponent = float.__repr__(value).partition("e")
    whole, _, fraction = mantissa.partition(".")
    return int(whole + fraction), int(exponent or 0) - len(fraction)
