"""Counts the points that a process passes, and does to it what a test has planned for one of them."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple

from power_loop.timers import SystemClock

_REAL_NOW_MS = SystemClock.now_ms


class Point(NamedTuple):
    """Is a place in a run: the `time`th passing of a name such as `commit.after append_reply`."""

    name: str
    time: int

    def __str__(self) -> str:
        return f"{self.name.replace(' ', ':', 1)}#{self.time}"

    @classmethod
    def parse(cls, text: str) -> Point:
        """Return the point that `str()` of it names."""
        name, _, time = text.rpartition("#")
        return cls(name.replace(":", " ", 1), int(time))

    @property
    def is_commit(self) -> bool:
        """Tell whether it is one of a transaction."""
        return self.name.startswith("commit.")


class Plan(NamedTuple):
    """Is what happens at a point: `SIGKILL`, `SIGSTOP`, or `jump` of the clock by `by_ms`.

    `number` counts all points from 1 and stands in for the point.
    """

    do: str
    point: Point | None = None
    number: int = 0
    by_ms: int = 0


class Points:
    """Is the list of points that this process passed, kept in a file so that it outlives the process."""

    def __init__(self, path: Path, plans: Sequence[Plan] = ()) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._plans = list(plans)
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._is_armed = False
        #: True once the kernel itself told of effects, and of models.
        self.hears_effects = False
        self.hears_models = False

    def arm(self) -> None:
        """Count from here on."""
        self._is_armed = True

    def disarm(self) -> None:
        """Count no more."""
        self._is_armed = False

    def on_point(self, place: str, what: str) -> None:
        """Pass a point that the store tells of."""
        if place.startswith("effect."):
            self.hears_effects = True
        elif place.startswith("model."):
            self.hears_models = True
        self.passed(f"{place} {what}")

    def passed(self, name: str) -> None:
        """Pass a point."""
        if not self._is_armed:
            return
        with self._lock:
            self._seen[name] += 1
            here = Point(name, self._seen[name])
            number = sum(self._seen.values())
            os.write(self._file, f"{name}\n".encode())
            due = [plan for plan in self._plans if plan.point == here or plan.number == number]
        for plan in due:
            self._carry_out(plan)

    def _carry_out(self, plan: Plan) -> None:
        if plan.do == "jump":
            shift_clock(plan.by_ms)
        else:
            # A signal to the thread itself takes effect before the next line, whatever other threads do.
            signal.pthread_kill(threading.get_ident(), getattr(signal, plan.do))


def shift_clock(by_ms: int) -> None:
    """Let the machine's wall clock be another one for this process, from now on; what measures durations goes on."""
    if by_ms:
        setattr(SystemClock, "now_ms", lambda self: time.time_ns() // 1_000_000 + by_ms)  # noqa: B010
    else:
        setattr(SystemClock, "now_ms", _REAL_NOW_MS)  # noqa: B010


class ShiftedClock(SystemClock):
    """Is ahead of the machine's clock, so that a lease is over without waiting for that."""

    __slots__ = ("ahead_ms",)

    def __init__(self, ahead_ms: int) -> None:
        self.ahead_ms = ahead_ms

    def now_ms(self) -> int:
        """Return the time as it will be."""
        return time.time_ns() // 1_000_000 + self.ahead_ms


def places_of(names: Sequence[str]) -> list[Point]:
    """Return the points that a list of passed names is."""
    seen: Counter[str] = Counter()
    places = []
    for name in names:
        seen[name] += 1
        places.append(Point(name, seen[name]))
    return places


#: Who hears of `crash_point` and `crash_problem`: what a matrix runs, and nobody elsewhere.
Listener = tuple[Callable[[str], None], Callable[[str], None]]
_LISTENER: ContextVar[Listener | None] = ContextVar("crash_matrix", default=None)


def listen(passed: Callable[[str], None], tell: Callable[[str], None]) -> None:
    """Say who hears of `crash_point` and `crash_problem` in what this task runs."""
    _LISTENER.set((passed, tell))


def crash_point(name: str) -> None:
    """Mark a place in a tool or a model at which a crash matrix ends the process; elsewhere it does nothing."""
    listener = _LISTENER.get()
    if listener is not None:
        listener[0](f"own {name}")


def crash_problem(problem: str) -> None:
    """Tell a crash matrix of something that must not be, in words; elsewhere it does nothing."""
    listener = _LISTENER.get()
    if listener is not None:
        listener[1](problem)
