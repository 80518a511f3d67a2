"""Reads JSON that a model wrote, and refuses what is ambiguous or dangerous to read."""

from __future__ import annotations

import json
import re
from math import isfinite
from typing import Any, NoReturn

from power_loop.contracts.json_schema.problems import quoted
from power_loop.contracts.json_schema.values import MAX_DEPTH

# Characters that are read by default: several times the longest reply of a model.
MAX_JSON_CHARS = 4_000_000
# Characters of one number: the longest finite double has 309 digits before the point, and reading an integer is
# quadratic.
MAX_NUMBER_CHARS = 400


class InvalidJson(ValueError):  # noqa: N818 - says what the text is
    """Says why a text is not acceptable JSON; `position` is the offset in characters (in bytes if it is not UTF-8)."""

    def __init__(self, message: str, position: int) -> None:
        self.position = position
        super().__init__(message)


class _Offence(Exception):  # noqa: N818 - a signal
    """Stops the parser at what Python accepts but we do not; the place is looked up afterwards."""


def loads_strict(text: str | bytes, *, max_chars: int = MAX_JSON_CHARS) -> Any:
    """Reads JSON that a model wrote; raises `InvalidJson` with the place of what RFC 8259 or prudence forbids.

    Refused beyond what Python's parser refuses: NaN and infinities (also as 1e999), repeated names in an object,
    numbers of more than `MAX_NUMBER_CHARS` characters, nesting deeper than `MAX_DEPTH`, texts longer than `max_chars`,
    bytes that are not UTF-8. Lone surrogates are kept.
    """
    if isinstance(text, bytes):
        # UTF-8 takes at most four bytes a character, so a text that is too long need not be decoded to be known as
        # such.
        if len(text) > 4 * max_chars:
            raise InvalidJson(f"the JSON is longer than {max_chars} characters: send less at a time", max_chars)
        try:
            text = text.decode()
        except UnicodeDecodeError as error:
            raise InvalidJson(f"the JSON is not valid UTF-8 at byte {error.start}", error.start) from error
    if len(text) > max_chars:
        raise InvalidJson(
            f"the JSON is {len(text)} characters long, but at most {max_chars} are accepted: send less at a time",
            max_chars,
        )
    if text.count("[") + text.count("{") > MAX_DEPTH:
        _refuse_depth(text)
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        reason = error.msg[:1].lower() + error.msg[1:]
        raise InvalidJson(f"invalid JSON {_place(text, error.pos)}: {reason}", error.pos) from error
    except _Offence:
        pass
    except RecursionError as error:
        raise InvalidJson("the JSON is nested too deeply: flatten it", 0) from error
    position, reason = _first_offence(text)
    raise InvalidJson(f"invalid JSON {_place(text, position)}: {reason}", position)


def _place(text: str, position: int) -> str:
    line = text.count("\n", 0, position) + 1
    column = position - text.rfind("\n", 0, position)
    near = text[max(position - 20, 0) : position + 20]
    return f"at line {line}, column {column} (near {quoted(near)})" if near else f"at line {line}, column {column}"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _Offence
    return members


def _integer(text: str) -> int:
    if len(text) > MAX_NUMBER_CHARS:
        raise _Offence
    return int(text)


def _float(text: str) -> float:
    if len(text) > MAX_NUMBER_CHARS:
        raise _Offence
    value = float(text)
    if not isfinite(value):
        raise _Offence
    return value


def _constant(text: str) -> NoReturn:
    raise _Offence


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant)
# The closing quote is optional so that an unterminated string cannot make the search start over at each later quote.
_STRING = r'"[^"\\]*(?:\\.[^"\\]*)*"?'
_ALL_BUT_BRACKETS = re.compile(rf'{_STRING}|[^\[\]{{}}"]+', re.DOTALL)
_TOKENS = re.compile(
    rf"(?P<string>{_STRING})(?P<colon>[ \t\r\n]*:)?|(?P<bracket>[\[\]{{}}])"
    r"|(?P<constant>NaN|-?Infinity)|(?P<number>-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)",
    re.DOTALL,
)


def _refuse_depth(text: str) -> None:
    """Counts brackets before the parser starts, because how deep it may recurse depends on the Python version."""
    depth = 0
    for bracket in _ALL_BUT_BRACKETS.sub("", text):
        if bracket in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                break
        else:
            depth -= 1
    else:
        return
    depth = 0
    for token in _TOKENS.finditer(text):
        if token["bracket"]:
            depth += 1 if token[0] in "[{" else -1
            if depth > MAX_DEPTH:
                position = token.start()
                reason = f"nested deeper than {MAX_DEPTH} levels: flatten it"
                raise InvalidJson(f"invalid JSON {_place(text, position)}: {reason}", position)


def _first_offence(text: str) -> tuple[int, str]:
    """Finds what made the parser stop, in a text that is well formed up to there."""
    names: list[set[str]] = []
    for token in _TOKENS.finditer(text):
        found = token[0]
        if token["constant"]:
            return token.start(), f"{found} is not JSON: use a finite number, null or a string"
        if token["number"]:
            if len(found) > MAX_NUMBER_CHARS:
                reason = (
                    f"a number of {len(found)} characters is too long (at most {MAX_NUMBER_CHARS}): send it as a string"
                )
                return token.start(), reason
            if not found.lstrip("-").isdecimal() and not isfinite(float(found)):
                return token.start(), f"{found} is too large for a number: send it as a string"
        elif token["bracket"]:
            if found in "[{":
                names.append(set())
            else:
                names.pop()
        elif token["colon"]:
            name = json.loads(token["string"])
            if name in names[-1]:
                return token.start(), f"the name {quoted(name)} is repeated in the same object: keep one"
            names[-1].add(name)
    raise AssertionError("the parser stopped at something that cannot be found again")
