"""Tells a database server's time in this process, without asking for it each time."""

from __future__ import annotations

import time

from power_loop.contracts.clock import SystemClock
from power_loop.contracts.frozen import frozen

# How old the last reading becomes before the next transaction that has a connection reads again, in seconds.
_STALE_S = 5.0


@frozen
class Reading:
    """Is what a server's clock showed, and between which moments of our monotonic clock that was."""

    server_ms: int
    asked_s: float
    answered_s: float


class ServerClock(SystemClock):
    """Shows the server's time: the last reading, carried on with the monotonic clock.

    What this process's wall clock shows does not matter. An answer is taken to be as late as it can be, so that this
    clock may lag by a round trip and never runs ahead: a process whose clock lags can only think that a foreign lease
    still holds.
    """

    __slots__ = ("_offset_ms", "_read_s")

    def __init__(self) -> None:
        # The server's time less our monotonic time.
        self._offset_ms: float | None = None
        self._read_s = 0.0

    def now_ms(self) -> int:
        """Return the server's epoch milliseconds; before the first connection this machine's."""
        offset_ms = self._offset_ms
        if offset_ms is None:
            return super().now_ms()
        return int(time.monotonic() * 1000 + offset_ms)

    @property
    def is_stale(self) -> bool:
        """True where the next transaction should read again."""
        return self._offset_ms is None or time.monotonic() - self._read_s > _STALE_S

    def note(self, reading: Reading) -> None:
        """Take a reading over; what the way of an answer explains changes nothing, so that time does not jitter."""
        lowest = reading.server_ms - reading.answered_s * 1000
        highest = reading.server_ms + 1 - reading.asked_s * 1000
        if self._offset_ms is None or not lowest <= self._offset_ms <= highest:
            self._offset_ms = lowest
        self._read_s = reading.answered_s
