"""Finds lines that match a regular expression, in time that neither the expression nor the text can blow up."""

from __future__ import annotations

from collections.abc import Iterator

from power_loop.contracts.errors import ToolError
from power_loop.contracts.json_schema.pattern import OutOfSteps, Pattern, StepBudget
from power_loop.contracts.json_schema.pattern_syntax import PatternError

# Steps of one line: a hostile expression on a long line costs a tenth of a second.
_STEPS_A_LINE = 200_000
_SPECIAL = frozenset("\\^$.|?*+()[]{}")


class LinePattern:
    """Is what lines are searched for: a regular expression of ECMA-262, or a text as it stands."""

    __slots__ = ("_pattern", "literal")

    def __init__(self, source: str, *, is_literal: bool, ignores_case: bool) -> None:
        """Read an expression. Raises `tool.failed` for one that is none."""
        if not source:
            raise ToolError("the pattern is empty: say what to look for")
        if is_literal or not _SPECIAL & set(source):
            source = "".join(f"\\{char}" if char in _SPECIAL or char == "/" else char for char in source)
        #: What every match contains; empty where nothing is known, and with another case.
        self.literal = "" if ignores_case else required_text(source)
        try:
            self._pattern = Pattern(either_case(source) if ignores_case else source)
        except PatternError as error:
            raise ToolError(f"the pattern cannot be read: {error}; escape characters, or set literal") from error

    def search(self, text: str) -> Iterator[tuple[int, str]]:
        """Yield the matching lines of a text with their numbers. Raises OutOfSteps on a line that takes too long."""
        if self.literal and self.literal not in text:
            return
        for number, line in enumerate(text.split("\n"), 1):
            line = line.removesuffix("\r")
            if self.literal in line and self._pattern.search(line, StepBudget(_STEPS_A_LINE + len(line))):
                yield number, line


__all__ = ["LinePattern", "OutOfSteps", "either_case", "required_text"]


def required_text(source: str) -> str:
    """Return the longest text that every match of an expression contains, as far as that is seen at once."""
    if "|" in source:
        return ""
    best = run = ""
    at = 0
    while at < len(source):
        char = source[at]
        if char == "(":
            # What stands in a group may be missing, or repeated none of the time.
            return max(best, run, key=len)
        if char in "*?{":
            # What is repeated may be missing.
            run = run[:-1]
            best, run = max(best, run, key=len), ""
            at = source.find("}", at) + 1 if char == "{" and "}" in source[at:] else at + 1
            continue
        if char == "[":
            best, run = max(best, run, key=len), ""
            at = _class_end(source, at)
            continue
        if char == "\\":
            following = source[at + 1 : at + 2]
            if not following or following.isalnum():
                return max(best, run, key=len)
            run += following
            at += 2
            continue
        if char in "+.^$)]}":
            best, run = max(best, run, key=len), ""
        else:
            run += char
        at += 1
    return max(best, run, key=len)


def _class_end(source: str, at: int) -> int:
    """Return where a class that begins at a bracket is over."""
    at += 1
    while at < len(source) and source[at] != "]":
        at += 2 if source[at] == "\\" else 1
    return at + 1


def either_case(source: str) -> str:
    """Return an expression that takes each letter in both of its cases."""
    pieces: list[str] = []
    at = 0
    is_class = False
    while at < len(source):
        char = source[at]
        if char == "\\":
            length = _escape_length(source, at)
            pieces.append(source[at : at + length])
            at += length
            continue
        if is_class and source[at + 1 : at + 2] == "-" and source[at + 2 : at + 3] not in ("", "]", "\\"):
            pieces.append(_both_ranges(source[at], source[at + 2]))
            at += 3
            continue
        if not is_class and source.startswith(("(?<", "(?P<"), at) and source[at + 3 : at + 4] not in ("=", "!"):
            end = source.find(">", at) + 1 or len(source)
            pieces.append(source[at:end])
            at = end
            continue
        if not is_class and source.startswith(("(?:", "(?=", "(?!"), at):
            pieces.append(source[at : at + 3])
            at += 3
            continue
        is_class = (char == "[" and not is_class) or (is_class and char != "]")
        both = _both(char)
        pieces.append(both if is_class or both == char else f"[{both}]")
        at += 1
    return "".join(pieces)


def _both(char: str) -> str:
    other = char.swapcase()
    return char + other if len(other) == 1 and other != char else char


def _both_ranges(low: str, high: str) -> str:
    others = low.swapcase(), high.swapcase()
    is_letters = (
        low.isascii() and high.isascii() and low.isalpha() and high.isalpha() and low.islower() == high.islower()
    )
    return f"{low}-{high}{others[0]}-{others[1]}" if is_letters else f"{low}-{high}"


def _escape_length(source: str, at: int) -> int:
    """Return how many characters an escape has."""
    kind = source[at + 1 : at + 2]
    if kind in ("p", "P", "u") and source[at + 2 : at + 3] == "{":
        return (source.find("}", at) + 1 or len(source)) - at
    return {"u": 6, "x": 4, "c": 3}.get(kind, 2)
