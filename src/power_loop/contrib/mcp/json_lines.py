"""Takes JSON objects out of lines of bytes, of bounded length, and passes over what is none."""

from __future__ import annotations

import json
from typing import Any

#: A message holds a whole result: images and files among them.
DEFAULT_MAX_MESSAGE_BYTES = 16_000_000
# No message of the protocol is deeper; the interpreter's own limit is in the hundreds.
_MAX_NUMBER_CHARS = 400


class JsonLines:
    """Gathers bytes and gives the objects of whole lines. `passed_over` counts lines that are none, `too_long` those
    that had more than `max_bytes`."""

    def __init__(self, *, max_bytes: int = DEFAULT_MAX_MESSAGE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._parts: list[bytes] = []
        self._held = 0
        self._is_skipping = False
        self.passed_over = 0
        self.too_long = 0

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """Take bytes and return the objects that they complete."""
        found = []
        *ends, rest = data.split(b"\n")
        for end in ends:
            line = b"" if self._is_skipping or not self._hold(end) else b"".join(self._parts)
            self._parts, self._held, self._is_skipping = [], 0, False
            if line.strip():
                value = object_of(line)
                if value is None:
                    self.passed_over += 1
                else:
                    found.append(value)
        if rest:
            self._hold(rest)
        return found

    def _hold(self, part: bytes) -> bool:
        if self._is_skipping:
            return False
        self._held += len(part)
        if self._held > self._max_bytes:
            self._parts, self._is_skipping = [], True
            self.too_long += 1
            return False
        self._parts.append(part)
        return True


def object_of(data: bytes | str) -> dict[str, Any] | None:
    """Return the JSON object that a text is, None where it is none."""
    try:
        value = json.loads(data, parse_constant=_refuse, parse_int=_whole)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _whole(digits: str) -> int:
    if len(digits) > _MAX_NUMBER_CHARS:
        raise ValueError("the number has too many digits")
    return int(digits)
