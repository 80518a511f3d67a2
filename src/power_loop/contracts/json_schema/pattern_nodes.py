"""Names the parts that a pattern is made of."""

from __future__ import annotations

import unicodedata
from enum import Enum

WORD_CHARS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")


class Place(Enum):
    """A condition on a position that consumes nothing."""

    START = "^"
    END = "$"
    BOUNDARY = "\\b"
    NO_BOUNDARY = "\\B"


class CharSet:
    """A set of characters, compared by identity."""

    __slots__ = ("negated", "parts", "ranges", "singles")

    def __init__(
        self,
        singles: frozenset[str],
        ranges: tuple[tuple[str, str], ...] = (),
        *,
        parts: tuple[CharSet | Category, ...] = (),
        negated: bool = False,
    ) -> None:
        self.singles = singles
        self.ranges = ranges
        self.parts = parts
        self.negated = negated

    def has(self, char: str) -> bool:
        """Tells whether a character is in the set."""
        found = (
            char in self.singles
            or any(low <= char <= high for low, high in self.ranges)
            or any(part.has(char) for part in self.parts)
        )
        return found is not self.negated


class Category:
    """The characters of a Unicode general category, such as `Lu`, or of a group of them, such as `L`."""

    __slots__ = ("negated", "prefix")

    def __init__(self, prefix: str, *, negated: bool) -> None:
        self.prefix = prefix
        self.negated = negated

    def has(self, char: str) -> bool:
        """Tells whether a character is in the category."""
        return unicodedata.category(char).startswith(self.prefix) is not self.negated


class Look:
    """A look-ahead: what follows must match (or, negative, must not)."""

    __slots__ = ("negative", "sequences")

    def __init__(self, sequences: frozenset[Sequence], *, negative: bool) -> None:
        self.sequences = sequences
        self.negative = negative


class Choice:
    """A group of alternatives."""

    __slots__ = ("alternatives",)

    def __init__(self, alternatives: tuple[Sequence, ...]) -> None:
        self.alternatives = alternatives


class Repeat:
    """A part that comes `least` to `most` times (`most` is None: without end); equal counts of one part are equal."""

    __slots__ = ("_hash", "body", "least", "most")

    def __init__(self, body: Sequence, least: int, *, most: int | None) -> None:
        self.body = body
        self.least = least
        self.most = most
        self._hash = hash((id(body), least, most))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Repeat)
            and self.body is other.body
            and self.least == other.least
            and self.most == other.most
        )

    def after_one(self, least: int) -> Sequence:
        """What of the repeat is left after one round, of which `least` would have been needed."""
        if self.most is None:
            return (self,) if least == self.least == 0 else (Repeat(self.body, max(least - 1, 0), most=None),)
        if self.most == 1:
            return ()
        return (Repeat(self.body, max(least - 1, 0), most=self.most - 1),)


Node = Place | CharSet | Category | Look | Choice | Repeat
Sequence = tuple[Node, ...]
