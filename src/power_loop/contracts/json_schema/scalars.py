"""Checks types, constants, strings and numbers."""

from __future__ import annotations

from typing import Any

from power_loop.contracts.json_schema.check import Check, Run
from power_loop.contracts.json_schema.pattern import Pattern, StepBudget
from power_loop.contracts.json_schema.problems import Path, counted, listed, literal, quoted, shown
from power_loop.contracts.json_schema.values import classes_of, equality_key, has_type, is_multiple, types_in_words

# A schema's own values are bounded when it is copied, so comparing them needs a budget in name only.
_SCHEMA_STEPS = 1_000_000


def typed(names: tuple[str, ...], following: Check | None) -> Check:
    """Checks the type, and what follows only if the type is right: the rest would say nothing more."""
    classes = classes_of(names)
    expected = types_in_words(names)

    def check_type(value: Any, path: Path, run: Run) -> None:
        if type(value) not in classes and not has_type(value, names):
            run.add(path, "type", message=f"must be {expected}, got {shown(value)}")
        elif following is not None:
            following(value, path, run)

    return check_type


def equal_to(allowed: list[Any], keyword: str) -> Check:
    """Checks `enum` or `const`."""
    keys = frozenset(equality_key(value, StepBudget(_SCHEMA_STEPS)) for value in allowed)
    texts = listed((literal(value) for value in allowed), len(allowed)) or "no value at all"
    expected = texts if keyword == "const" else f"one of {texts}"
    only_scalars = not any(isinstance(value, (list, dict)) for value in allowed)

    def check_equal(value: Any, path: Path, run: Run) -> None:
        is_hopeless = only_scalars and isinstance(value, (list, dict))
        if is_hopeless or equality_key(value, run) not in keys:
            run.add(path, keyword, message=f"must be {expected}, got {shown(value)}")

    return check_equal


def string(least: int, most: int | None, *, pattern: Pattern | None) -> Check | None:
    """Checks `minLength`, `maxLength` (in code points) and `pattern`."""
    if not least and most is None and pattern is None:
        return None

    def check_string(value: Any, path: Path, run: Run) -> None:
        if not isinstance(value, str):
            return
        length = len(value)
        if length < least:
            run.add(path, "minLength", message=f"must have at least {counted(least, 'character')}, has {length}")
        if most is not None and length > most:
            run.add(path, "maxLength", message=f"must have at most {counted(most, 'character')}, has {length}")
        if pattern is not None and not pattern.search(value, run):
            run.add(path, "pattern", message=f"must match the pattern {quoted(pattern.source)}, got {shown(value)}")

    return check_string


def number(
    least: float | None, most: float | None, *, above: float | None, below: float | None, divisor: float | None
) -> Check | None:
    """Checks `minimum`, `maximum`, `exclusiveMinimum`, `exclusiveMaximum` and `multipleOf`."""
    if least is None and most is None and above is None and below is None and divisor is None:
        return None

    def check_number(value: Any, path: Path, run: Run) -> None:
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            return
        # Negated comparisons, so that NaN meets no bound.
        if least is not None and not value >= least:
            run.add(path, "minimum", message=f"must be at least {literal(least)}, got {shown(value)}")
        if above is not None and not value > above:
            run.add(path, "exclusiveMinimum", message=f"must be above {literal(above)}, got {shown(value)}")
        if most is not None and not value <= most:
            run.add(path, "maximum", message=f"must be at most {literal(most)}, got {shown(value)}")
        if below is not None and not value < below:
            run.add(path, "exclusiveMaximum", message=f"must be below {literal(below)}, got {shown(value)}")
        if divisor is not None and not is_multiple(value, divisor):
            run.add(path, "multipleOf", message=f"must be a multiple of {literal(divisor)}, got {shown(value)}")

    return check_number
