"""Copies plain JSON out of what a caller handed in, whatever that is, and notes what could not stand in a JSON file."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from power_loop.contracts.json_schema.problems import Path, shown
from power_loop.workflow.bounds import MAX_INTEGER_BITS, MAX_SPEC_CHARS, MAX_SPEC_DEPTH, MAX_SPEC_VALUES

#: Stands where a value was refused already, so that nobody refuses it again.
REFUSED: Any = type("Refused", (), {"__repr__": lambda _: "REFUSED"})()

Note = Callable[[Path, str, str], None]


class TooMuch(Exception):  # noqa: N818 - a signal
    """Ends a copy of what is too large, too deep, or holds itself; its problem was noted."""


def plain_copy(value: Any, note: Note) -> Any:
    """Return a copy that holds nothing but JSON; `note` is told of the place, problem and expectation of all else.

    It takes one step a value, and no frame of Python's stack for what is nested. Raises `TooMuch`.
    """
    copy = _Copy(note)
    return copy.of(value)


class _Copy:
    def __init__(self, note: Note) -> None:
        self.note = note
        self.values = 0
        self.chars = 0
        self.pending: list[tuple[Any, Any, Path, int]] = []

    def of(self, value: Any) -> Any:
        top = self.begun(value, None, depth=0)
        while self.pending:
            source, target, path, depth = self.pending.pop()
            if isinstance(target, list):
                for place, item in enumerate(source):
                    target.append(self.begun(item, (path, place), depth=depth))
                continue
            for name, item in _items_of(source):
                if not isinstance(name, str):
                    self.count(path)
                    self.note(path, f"the name {_short(name)} is no text", "names in quotes")
                    continue
                inner = (path, self.text(name, path))
                target[inner[1]] = self.begun(item, inner, depth=depth)
        return top

    def begun(self, value: Any, path: Path, *, depth: int) -> Any:
        """Return the copy of a value; what a list or an object holds is copied later."""
        self.count(path)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self.text(value, path)
        if isinstance(value, int):
            if value.bit_length() <= MAX_INTEGER_BITS:
                return int(value)
            return self.refused(path, "the number is too large", f"a number of at most {MAX_INTEGER_BITS} bits")
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else self.refused(path, f"{value!r} is no JSON", "a number")
        if isinstance(value, (Mapping, list, tuple)):
            if depth >= MAX_SPEC_DEPTH:
                self.note(path, "it is nested too deeply, or holds itself", f"at most {MAX_SPEC_DEPTH} levels")
                raise TooMuch
            target: Any = {} if isinstance(value, Mapping) else []
            self.pending.append((value, target, path, depth + 1))
            return target
        return self.refused(path, f"it is {shown(value)}", "JSON")

    def count(self, path: Path) -> None:
        self.values += 1
        if self.values > MAX_SPEC_VALUES:
            self.note(path, "the spec is too large", f"at most {MAX_SPEC_VALUES} values in all")
            raise TooMuch

    def text(self, text: str, path: Path) -> str:
        self.chars += len(text)
        if self.chars > MAX_SPEC_CHARS:
            self.note(path, "the spec is too large", f"at most {MAX_SPEC_CHARS} characters in all its texts")
            raise TooMuch
        try:
            text.encode()
        except UnicodeEncodeError:
            self.note(path, "a text holds half of a surrogate pair", "Unicode text")
            return text.encode("utf-8", "replace").decode()
        return str.__str__(text)

    def refused(self, path: Path, message: str, expected: str) -> Any:
        self.note(path, message, expected)
        return REFUSED


def _items_of(source: Mapping[Any, Any]) -> Any:
    return list(source.items())


def _short(value: Any) -> str:
    """Return what a name is, in a few words: a stranger's `repr` may fail, or be as long as a book."""
    if isinstance(value, (bool, float)) or value is None:
        return repr(value)
    if isinstance(value, int) and value.bit_length() <= 64:
        return repr(value)
    return f"of Python type {type(value).__name__!r:.60}"
