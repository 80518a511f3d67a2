"""Makes text of strangers fit to be shown on a terminal: nothing in it moves the cursor, hides or reorders anything."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from decimal import Decimal
from enum import Enum
from typing import Any

# Controls of C0 (but for the tab and the end of a line) and C1, what changes the direction of writing, what has no
# width, and halves of characters, which no output encodes.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
# Joins the pieces of one emoji, and of letters in some scripts; it cannot hide anything.
_JOINER = "\u200d"


def printable(text: str) -> str:
    """Return text in which each character that a terminal would obey stands as its escape, such as `\\x1b`."""
    return _UNPRINTABLE.sub(_escaped, text.replace("\r\n", "\n"))


def one_line(text: str, limit: int = 80) -> str:
    """Return the beginning of a text in one printable line of at most `limit` characters."""
    joined = " ".join(printable(text[: limit * 4]).split())
    return joined if len(joined) <= limit else joined[: limit - 1] + "…"


def plain(value: Any) -> Any:
    """Return the JSON value of a record: its fields by name, the word of a choice, money as text."""
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: plain(getattr(value, one.name)) for one in fields(value) if one.name != "memo"}
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(one) for one in value]
    return str(value) if isinstance(value, Decimal) else value


def _escaped(found: re.Match[str]) -> str:
    char = found[0]
    if char == _JOINER:
        return char
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
