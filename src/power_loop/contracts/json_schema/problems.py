"""Words what is wrong with a JSON value, so that a model or a person can mend it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

# Characters of a value or of a name that are shown.
MAX_SHOWN_CHARS = 60
# Values of an enum, or names of properties, that a message lists.
MAX_LISTED = 12


# A place in a value, as links from the inside out; None is the whole value. A link costs less than a joined text, and
# the text is needed for problems only.
Path = tuple["Path", str | int] | None


@dataclass(frozen=True, slots=True)
class Problem:
    """Says what is wrong at one place of a value (or of a schema), for a model or a person to mend."""

    # Like JSONPath: `$` is the whole value, then `.name`, `['odd name']` or `[index]`.
    path: str
    # One sentence without a full stop: what was expected and what was found, values shortened.
    message: str
    # The schema keyword that was violated; `limit` when the check itself ran out of budget, `false` for the schema
    # `false`.
    keyword: str


def quoted(text: str) -> str:
    """A text in quotes, shortened, printable and encodable whatever it holds."""
    start = json.dumps(text[:MAX_SHOWN_CHARS], ensure_ascii=False).encode("utf-8", "backslashreplace").decode()
    return start if len(text) <= MAX_SHOWN_CHARS else f'{start[:-1]}…"'


def shown(value: Any) -> str:
    """A value in words: what kind it is and, shortened, what it holds."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "the boolean true" if value else "the boolean false"
    if isinstance(value, str):
        length = f" of {len(value)} characters" if len(value) > MAX_SHOWN_CHARS else ""
        return f"the string {quoted(value)}{length}"
    if isinstance(value, (int, float)):
        return f"the number {_number_text(value)}"
    if isinstance(value, list):
        return f"an array of {counted(len(value), 'item')}"
    if isinstance(value, dict):
        return f"an object of {counted(len(value), 'property', plural='properties')}"
    return f"a Python {type(value).__name__}, which is not JSON"


def _number_text(value: float) -> str:
    # Python refuses to print integers of thousands of digits.
    if isinstance(value, int) and value.bit_length() > 4 * MAX_SHOWN_CHARS:
        return f"of about {value.bit_length() * 3 // 10} digits"
    return str(value)


def literal(value: Any) -> str:
    """A value of a schema as JSON, shortened."""
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return _number_text(value)
    text = json.dumps(value, ensure_ascii=False, default=str).encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}…"


def listed(texts: Iterable[str], total: int) -> str:
    """The first of `total` texts, with commas."""
    start = ", ".join(text for _, text in zip(range(MAX_LISTED), texts, strict=False))
    return start if total <= MAX_LISTED else f"{start}, … ({total} in all)"


def counted(count: int, noun: str, *, plural: str | None = None) -> str:
    """A number of things: `1 item`, `2 items`."""
    return f"{count} {noun}" if count == 1 else f"{count} {plural or noun + 's'}"


def place_text(path: Path) -> str:
    """A place in a value, from its links."""
    steps: list[str | int] = []
    while path is not None:
        path, step = path
        steps.append(step)
    return path_text(reversed(steps))


def path_text(steps: Iterable[str | int]) -> str:
    """A place in a value or schema, from its steps."""
    parts = ["$"]
    for step in steps:
        if isinstance(step, int):
            parts.append(f"[{step}]")
        elif len(step) <= MAX_SHOWN_CHARS and step.isidentifier():
            parts.append(f".{step}")
        else:
            inner = quoted(step)[1:-1].replace('\\"', '"').replace("'", "\\'")
            parts.append(f"['{inner}']")
    return "".join(parts)
