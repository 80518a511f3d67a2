"""A clock that stands still until it is told to go on."""

from __future__ import annotations

from power_loop.contracts.clock import SystemClock


class StillClock(SystemClock):
    """Tells the same time again and again."""

    __slots__ = ("ms",)

    def __init__(self, ms: int = 1_000) -> None:
        self.ms = ms

    def now_ms(self) -> int:
        return self.ms

    def monotonic_s(self) -> float:
        return self.ms / 1000
