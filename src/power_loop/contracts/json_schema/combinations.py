"""Applies several schemas, or another place of the schema, to the same value."""

from __future__ import annotations

from typing import Any

from power_loop.contracts.json_schema.check import MAX_NESTED_CHECKS, Check, Found, Run
from power_loop.contracts.json_schema.problems import Path, listed, place_text, shown
from power_loop.contracts.json_schema.values import TooDeep, classes_of, has_type, types_in_words

# Alternatives of an `anyOf` or `oneOf` whose reasons a message lists.
MAX_REASONS = 4


class Slot:
    """The check of one place in the schema; references look it up when they run, so that schemas may be recursive."""

    __slots__ = ("check", "is_done")

    def __init__(self) -> None:
        self.check: Check | None = None
        self.is_done = False


def referred(slot: Slot, *, weight: int) -> Check:
    """Applies another place of the schema; `weight` is how many schemas have been entered since the last reference."""

    def check_reference(value: Any, path: Path, run: Run) -> None:
        check = slot.check
        if check is None:
            return
        run.spend(1)
        run.depth += weight
        if run.depth > MAX_NESTED_CHECKS:
            raise TooDeep
        check(value, path, run)
        run.depth -= weight

    return check_reference


def all_of(checks: list[Check]) -> Check:
    """Checks `allOf`."""
    steps = tuple(checks)
    cost = len(steps)

    def check_all_of(value: Any, path: Path, run: Run) -> None:
        run.spend(cost)
        for check in steps:
            check(value, path, run)

    return check_all_of


def negated(forbidden: Check | None, text: str) -> Check:
    """Checks `not`; `text` shows the forbidden schema."""

    def check_not(value: Any, path: Path, run: Run) -> None:
        run.spend(1)
        if run.holds(forbidden, value, path=path):
            run.add(path, "not", message=f"must not match {text}, got {shown(value)}")

    return check_not


def conditional(condition: Check | None, then: Check | None, *, otherwise: Check | None) -> Check | None:
    """Checks `if`, `then` and `else`."""
    if then is None and otherwise is None:
        return None

    def check_condition(value: Any, path: Path, run: Run) -> None:
        run.spend(1)
        following = then if run.holds(condition, value, path=path) else otherwise
        if following is not None:
            following(value, path, run)

    return check_condition


class Branch:
    """One alternative of an `anyOf` or `oneOf`, with the types it declares and its place in the list, from 1."""

    __slots__ = ("check", "classes", "names", "number")

    def __init__(self, check: Check | None, names: tuple[str, ...] | None, *, number: int) -> None:
        self.check = check
        self.names = names
        self.classes = classes_of(names or ())
        self.number = number

    def has_wrong_type(self, value: Any) -> bool:
        """Tells, without applying the alternative, that its type rules the value out."""
        return self.names is not None and type(value) not in self.classes and not has_type(value, self.names)


def any_of(branches: list[Branch]) -> Check:
    """Checks `anyOf`."""
    cost = len(branches)

    def check_any_of(value: Any, path: Path, run: Run) -> None:
        run.spend(cost)
        failures: list[tuple[Branch, list[Found]]] = []
        for branch in branches:
            if branch.check is None:
                return
            if branch.has_wrong_type(value):
                continue
            found = run.attempt(branch.check, value, path=path)
            if not found:
                return
            failures.append((branch, found))
        _explain(branches, failures, value=value, path=path, run=run, keyword="anyOf")

    return check_any_of


def exactly_one_of(branches: list[Branch]) -> Check:
    """Checks `oneOf`."""
    cost = len(branches)

    def check_one_of(value: Any, path: Path, run: Run) -> None:
        run.spend(cost)
        failures: list[tuple[Branch, list[Found]]] = []
        matches: list[str] = []
        for branch in branches:
            if branch.has_wrong_type(value):
                continue
            found = [] if branch.check is None else run.attempt(branch.check, value, path=path)
            if found:
                failures.append((branch, found))
            else:
                matches.append(str(branch.number))
        if not matches:
            _explain(branches, failures, value=value, path=path, run=run, keyword="oneOf")
        elif len(matches) > 1:
            numbers = listed(matches, len(matches))
            message = f"must match exactly one of the {len(branches)} alternatives, but matches numbers {numbers}"
            run.add(path, "oneOf", message=message)

    return check_one_of


def _explain(
    branches: list[Branch],
    failures: list[tuple[Branch, list[Found]]],
    *,
    value: Any,
    path: Path,
    run: Run,
    keyword: str,
) -> None:
    """Says why no alternative matches: through the one that was meant, if it can be told, else through all of them."""
    if not failures:
        expected = types_in_words(name for branch in branches for name in branch.names or ())
        run.add(path, keyword, message=f"must be {expected}, got {shown(value)}")
        return
    # A wrong constant in a direct property (a tag, such as `kind`) or at the value itself rules an alternative out.
    meant = [
        found
        for _, found in failures
        if not any(
            (where is path and kind in ("const", "enum", "type"))
            or (where is not None and where[0] is path and kind == "const")
            for where, kind, _ in found
        )
    ]
    if len(failures) == 1 or len(meant) == 1:
        for where, kind, message in meant[0] if len(meant) == 1 else failures[0][1]:
            run.add(where, kind, message=message)
        return
    reasons = []
    for branch, found in failures[:MAX_REASONS]:
        where, _, message = found[0]
        inside = place_text(where)[len(place_text(path)) :]
        reasons.append(f"({branch.number}) {inside and inside + ': '}{message}")
    more = "; …" if len(failures) > MAX_REASONS else ""
    run.add(path, keyword, message=f"matches none of the {len(branches)} alternatives: {'; '.join(reasons)}{more}")
