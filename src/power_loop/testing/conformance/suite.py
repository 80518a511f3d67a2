"""Runs the suite on somebody's store, in a test framework or without one."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from power_loop.errors import ConfigError
from power_loop.testing.conformance.cases import Case, Check, Place

#: The parts of the suite in order; each is a module with checks.
ROOMS = (
    "sessions",
    "sends",
    "ledger",
    "reads",
    "leases",
    "inbox",
    "folds",
    "projections",
    "children",
    "budgets",
    "blackboard",
    "workflow_runs",
    "timers",
    "against_a_model",
)

#: Makes a fresh, empty database, and takes it away at the end.
Fresh = Callable[[], contextlib.AbstractAsyncContextManager[Place]]

# How long a case may take before that is a defect, in seconds. The longest takes a second on a slow machine.
_LIMIT_S = 120.0
_LOCAL_CHARS = 200


def cases(*rooms: str) -> tuple[Case, ...]:
    """Return the cases of the suite in order, of these parts only if any are named."""
    if not __debug__:
        raise ConfigError("the suite speaks in assert statements, which `python -O` leaves out: run it without -O")
    return tuple(case for room in rooms or ROOMS for case in _cases_of(room))


class ConformanceSuite:
    """Is a base class of tests, for pytest or unittest: give it `fresh`, and its subclass has a test for each case.

        class TestMyStore(ConformanceSuite):
            @contextlib.asynccontextmanager
            async def fresh(self):
                async with my_empty_database() as database:
                    yield MyPlace(database)

    `fresh` gives a `Place`: its `open(clock)` returns a handle on one and the same empty database. Each test is a plain
    function that runs an event loop of its own. With pytest, `pytest.register_assert_rewrite("power_loop.testing")`
    before the import shows the values that a failed assert saw.
    """

    __test__ = False

    def fresh(self) -> contextlib.AbstractAsyncContextManager[Place]:
        """Give a fresh, empty database."""
        raise NotImplementedError("give your suite a `fresh`, an async context manager that gives an empty database")

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        if "__test__" not in vars(cls):
            cls.__test__ = True
        for case in cases():
            setattr(cls, f"test_{case.room}_{case.name}", _test_of(case))


@dataclass(frozen=True)
class Failure:
    """Is a case that a store fails. `why` is the error with the place in the suite and what was known there."""

    case: Case
    why: str


@dataclass(frozen=True)
class ConformanceReport:
    """Is what became of a run: how many cases it had, those that failed, and how long it took in seconds."""

    ran: int
    failures: tuple[Failure, ...]
    duration_s: float

    def __str__(self) -> str:
        head = f"{self.ran} cases, {len(self.failures)} failed, {self.duration_s:.1f} s"
        return "\n\n".join([head, *(f"{failure.case}\n{failure.why}" for failure in self.failures)])

    def raise_for_failures(self) -> None:
        """Raise an AssertionError that tells every failure, if there is one."""
        if self.failures:
            raise AssertionError(str(self))


async def run_conformance(
    fresh: Fresh, *rooms: str, on_case: Callable[[Case, Failure | None], None] | None = None
) -> ConformanceReport:
    """Run the suite, each case on a database that `fresh()` gives, and report. `on_case` hears of each one.

    Raises `config.invalid` under `python -O`.
    """
    begun = time.monotonic()
    failures = []
    chosen = cases(*rooms)
    for case in chosen:
        failure = await _failure_of(case, fresh)
        if failure is not None:
            failures.append(failure)
        if on_case is not None:
            on_case(case, failure)
    return ConformanceReport(len(chosen), tuple(failures), time.monotonic() - begun)


async def _failure_of(case: Case, fresh: Fresh) -> Failure | None:
    try:
        await _run(case, fresh)
    except Exception as error:
        return Failure(case, _told(error))
    return None


async def _run(case: Case, fresh: Fresh) -> None:
    async with fresh() as place:
        await asyncio.wait_for(case.run(place), _LIMIT_S)


def _test_of(case: Case) -> Callable[[ConformanceSuite], None]:
    def test(self: ConformanceSuite) -> None:
        asyncio.run(_run(case, self.fresh))

    test.__name__ = test.__qualname__ = f"test_{case.room}_{case.name}"
    test.__doc__ = case.function.__doc__
    return test


def _cases_of(room: str) -> Iterator[Case]:
    module = importlib.import_module(f"{__package__}.{room}")
    for value in vars(module).values():
        if isinstance(value, Check):
            yield from value.cases()


def _told(error: Exception) -> str:
    """Return an error with the line of the suite that it came out of, and that line's variables."""
    told = traceback.TracebackException.from_exception(error, capture_locals=True)
    ours: Sequence[traceback.FrameSummary] = [frame for frame in told.stack if f"{__package__}." in _module_of(frame)]
    lines = [f"  {type(error).__name__}: {error}"]
    if ours:
        frame = ours[-1]
        lines.append(f"  at {frame.filename}:{frame.lineno}: {frame.line}")
        known = {name: value for name, value in (frame.locals or {}).items() if name not in ("store", "place")}
        lines += [f"    {name} = {value:.{_LOCAL_CHARS}}" for name, value in known.items()]
    return "\n".join(lines)


def _module_of(frame: traceback.FrameSummary) -> str:
    package = str(__package__).replace(".", "/")
    name = frame.filename.replace("\\", "/")
    return f"{__package__}.{name.rpartition('/')[2]}" if package in name and "/suite.py" not in name else ""
