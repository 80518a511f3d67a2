"""Is the vocabulary of reading type hints: what a hint means in JSON, and how a value or a hint is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

#: Brings a JSON value to its hinted type, or raises `Unconvertible`.
Convert = Callable[[Any], Any]

ANY_KIND: frozenset[type] = frozenset({str, int, float, bool, type(None), list, dict})


class Unconvertible(Exception):  # noqa: N818 - a signal
    """Says in its message why a valid JSON value gives no value of the hinted type.

    `steps` leads to the value, from the inside out.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.steps: list[str | int] = []


class HintRefused(Exception):  # noqa: N818 - a signal
    """Says in its message why a type hint gives no schema."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Is what a type hint means in JSON.

    `convert` brings a JSON value that fits `schema` to the hinted type; None: the value is it already. `kinds` are the
    Python classes that the JSON value may have; `is_hashable` tells whether converted values may be put into a set.
    `description` is what the hint itself says of this one use, and stands in `schema` too.
    """

    schema: dict[str, Any]
    convert: Convert | None = None
    kinds: frozenset[type] = ANY_KIND
    is_hashable: bool = True
    description: str | None = None
