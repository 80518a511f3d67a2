"""The stopwatch: CPU and wall time of interleaved runs, told as medians with their spread."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Spread:
    """A median and the quartiles around it."""

    median: float
    low: float
    high: float

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        """The spread of some values; of fewer than two, the value itself."""
        if len(values) < 2:
            return Spread(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return Spread(median, low, high)

    def scaled(self, factor: float) -> Spread:
        """The same spread in another unit."""
        return Spread(self.median * factor, self.low * factor, self.high * factor)

    def __str__(self) -> str:
        return f"{number(self.median)} ({number(self.low)}–{number(self.high)})"


def number(value: float) -> str:
    """A figure with three significant digits, without an exponent."""
    if value == 0:
        return "0"
    magnitude = abs(value)
    digits = 0 if magnitude >= 100 else 1 if magnitude >= 10 else 2 if magnitude >= 1 else 3
    return f"{value:,.{digits}f}"


@dataclass
class Series:
    """Samples of one contestant, in seconds a unit of work."""

    cpu_s: list[float] = field(default_factory=list)
    wall_s: list[float] = field(default_factory=list)

    @property
    def cpu_ms(self) -> Spread:
        """CPU of the whole process, all threads, in milliseconds."""
        return Spread.of(self.cpu_s).scaled(1e3)

    @property
    def wall_ms(self) -> Spread:
        """Wall time in milliseconds."""
        return Spread.of(self.wall_s).scaled(1e3)


@dataclass(frozen=True)
class Runner:
    """One contestant of an interleaved measurement: `prepare` is not measured, `work` is; it counts `units` of work."""

    name: str
    work: Callable[[], Awaitable[object]]
    units: int = 1
    prepare: Callable[[], Awaitable[object]] | None = None


async def interleaved(runners: Sequence[Runner], samples: int) -> dict[str, Series]:
    """Take the samples in turn, one of each contestant a round, so that a slow minute of the machine meets them all."""
    series = {runner.name: Series() for runner in runners}
    for _ in range(samples):
        for runner in runners:
            if runner.prepare is not None:
                await runner.prepare()
            gc.collect()
            wall, cpu = time.perf_counter(), time.process_time()
            await runner.work()
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            series[runner.name].cpu_s.append(cpu / runner.units)
            series[runner.name].wall_s.append(wall / runner.units)
    return series
