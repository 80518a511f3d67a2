"""Time and fresh ids, behind one protocol so that a test can hold both still."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Protocol

# Crockford's base32 without vowels' twins: case-insensitive, no separators, safe in URLs, file names and every SQL
# collation.
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_ID_BYTES = 10


class Clock(Protocol):
    """Tells the time, waits, and mints ids."""

    def now_ms(self) -> int:
        """Return the wall-clock time as integer epoch milliseconds."""
        ...

    def monotonic_s(self) -> float:
        """Return seconds that never go backwards, for durations and deadlines."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait this many seconds."""
        ...

    def new_id(self, kind: str) -> str:
        """Return a fresh id such as `sess_7k…`: `kind`, an underscore, and 16 characters of lower-case ASCII."""
        ...


class SystemClock:
    """Is the machine's own clock and randomness."""

    __slots__ = ()

    def now_ms(self) -> int:
        """Return epoch milliseconds."""
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """Return monotonic seconds."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)

    def new_id(self, kind: str) -> str:
        """Return a fresh id from the machine's randomness."""
        number = int.from_bytes(os.urandom(_ID_BYTES), "big")
        letters = []
        for _ in range(_ID_BYTES * 8 // 5):
            letters.append(_ALPHABET[number & 31])
            number >>= 5
        return f"{kind}_{''.join(letters)}"
