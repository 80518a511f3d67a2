"""Applies compiled rules to one value, within a budget, and notes every problem."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from power_loop.contracts.json_schema.pattern import StepBudget
from power_loop.contracts.json_schema.problems import Path, shown

# A model mends a handful of problems at a time; more would only fill its context.
MAX_PROBLEMS = 50
# Steps that one check may take: about half a second on a slow machine; an array of 100,000 numbers takes a fifth of it.
MAX_STEPS = 500_000
# Schemas applied within each other while one value is checked; each takes up to three frames of Python's thousand.
MAX_NESTED_CHECKS = 160
# Characters of one message.
MAX_MESSAGE_CHARS = 600
# Building a message costs about as much as this many ordinary steps.
_STEPS_PER_PROBLEM = 10


class Enough(Exception):  # noqa: N818 - a signal
    """Ends a check that has found as many problems as were asked for."""


# A problem under way: where it is, the keyword, the message.
Found = tuple[Path, str, str]


class Run(StepBudget):
    """What one check of a value has found, and what it may still spend."""

    __slots__ = ("depth", "found", "limit")

    def __init__(self, limit: int) -> None:
        super().__init__(MAX_STEPS)
        self.depth = 0
        self.found: list[Found] = []
        self.limit = limit

    def add(self, path: Path, keyword: str, *, message: str) -> None:
        """Notes a problem; raises `Enough` when it was the last one wanted."""
        self.spend(_STEPS_PER_PROBLEM)
        if len(message) > MAX_MESSAGE_CHARS:
            message = message[: MAX_MESSAGE_CHARS - 1] + "…"
        self.found.append((path, keyword, message))
        if len(self.found) >= self.limit:
            raise Enough

    def attempt(self, check: Check, value: Any, *, path: Path, limit: int = MAX_PROBLEMS) -> list[Found]:
        """Applies a check whose problems are not (yet) those of the value, and returns them."""
        found, outer_limit, depth = self.found, self.limit, self.depth
        attempted: list[Found] = []
        self.found = attempted
        self.limit = limit
        try:
            check(value, path, self)
        except Enough:
            self.depth = depth
        finally:
            self.found = found
            self.limit = outer_limit
        return attempted

    def holds(self, check: Check | None, value: Any, *, path: Path) -> bool:
        """Tells whether a check finds nothing."""
        return check is None or not self.attempt(check, value, path=path, limit=1)


Check = Callable[[Any, Path, Run], None]


def check_never(value: Any, path: Path, run: Run) -> None:
    """Refuses every value: the schema `false`."""
    run.add(path, "false", message=f"nothing is allowed here, got {shown(value)}")


def in_sequence(checks: list[Check]) -> Check | None:
    """Joins checks into one; None accepts everything."""
    if len(checks) < 2:
        return checks[0] if checks else None
    steps = tuple(checks)

    def check_each(value: Any, path: Path, run: Run) -> None:
        for check in steps:
            check(value, path, run)

    return check_each
