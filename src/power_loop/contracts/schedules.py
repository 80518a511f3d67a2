"""Says when a timer fires: once, in an even rhythm, or by the calendar of a time zone; and which moment comes next."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone, tzinfo
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from power_loop.contracts.cron import CronTimes, next_moment, read_cron
from power_loop.contracts.errors import ScheduleError, TimeZoneMissingError
from power_loop.contracts.frozen import frozen
from power_loop.contracts.numbers import is_number, is_whole

#: The first second of the year 2200, in epoch milliseconds: nothing is planned behind it.
MAX_AT_MS = 7_258_118_400_000
#: A run counts as missed that is later than this, in seconds: as long as a process takes to be replaced by another one.
DEFAULT_GRACE_S = 60.0
#: Runs that were missed are counted up to this many at a time.
MAX_COUNTED = 1_000
_MAX_S = 100 * 365 * 86_400.0
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


class Missed(str, Enum):
    """Is what becomes of the runs that came while nobody delivered them."""

    ONCE = "once"  # one run stands for all of them
    SKIP = "skip"  # those that are later than `grace_s` are left out
    ALL = "all"  # each is delivered, one after the other


@frozen
class At:
    """Fires once, at a moment: an aware `datetime`, or epoch milliseconds. One that is past is due at once."""

    at: datetime | int

    def __post_init__(self) -> None:
        object.__setattr__(self, "at", _moment_ms("at", self.at))

    @property
    def at_ms(self) -> int:
        """The moment in epoch milliseconds."""
        assert isinstance(self.at, int)
        return self.at


@frozen
class After:
    """Fires once, so many seconds after it is scheduled."""

    seconds: float

    def __post_init__(self) -> None:
        _check_seconds("seconds", self.seconds, least=0.0)


@frozen
class Every:
    """Fires every so many `seconds` (at least 1), the first time one such while after it is scheduled, or at `start`.

    Each run is later than its rhythm by up to `jitter_s`, by chance, which does not add up. `missed` says what becomes
    of runs that came while nobody delivered them, `grace_s` from when on one counts as missed. It ends after `max_runs`
    deliveries, and before the first run behind `until`.
    """

    seconds: float
    jitter_s: float = 0.0
    start: datetime | int | None = None
    missed: Missed = Missed.ONCE
    grace_s: float = DEFAULT_GRACE_S
    max_runs: int | None = None
    until: datetime | int | None = None

    if TYPE_CHECKING:  # what is given may be wider than what is kept

        def __init__(
            self,
            seconds: float,
            jitter_s: float = 0.0,
            start: datetime | int | None = None,
            missed: Missed | str = Missed.ONCE,
            grace_s: float = DEFAULT_GRACE_S,
            max_runs: int | None = None,
            until: datetime | int | None = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        _check_seconds("seconds", self.seconds, least=1.0)
        if self.start is not None:
            object.__setattr__(self, "start", _moment_ms("start", self.start))
        _check_recurring(self)
        if self.jitter_s > self.seconds:
            raise ScheduleError(
                f"jitter_s is {self.jitter_s!r} and a run comes every {self.seconds!r} seconds: give a jitter that is"
                " no longer, so that runs keep their order"
            )

    @property
    def step_ms(self) -> int:
        """The rhythm in milliseconds."""
        return round(self.seconds * 1000)


@frozen
class Cron:
    """Fires by a cron `expression` of five fields (minute, hour, day of the month, month, day of the week), on the
    clock of a time `zone`, such as `Europe/Berlin`.

    Fields hold numbers, names (`MON-FRI`, `JAN`), ranges, steps and lists. Where both kinds of days are named, one is
    enough. A run whose hour is named comes once a day: where the clock is set forward over it, when it is set, and
    where it is set back, the first time. The rest is as in `Every`.
    """

    expression: str
    zone: str = "UTC"
    jitter_s: float = 0.0
    missed: Missed = Missed.ONCE
    grace_s: float = DEFAULT_GRACE_S
    max_runs: int | None = None
    until: datetime | int | None = None

    if TYPE_CHECKING:  # what is given may be wider than what is kept

        def __init__(
            self,
            expression: str,
            zone: str = "UTC",
            jitter_s: float = 0.0,
            missed: Missed | str = Missed.ONCE,
            grace_s: float = DEFAULT_GRACE_S,
            max_runs: int | None = None,
            until: datetime | int | None = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        expression: Any = self.expression
        # What is no text is refused there, and could not be remembered.
        (_times_of if isinstance(expression, str) else read_cron)(expression)
        given: Any = self.zone
        if not isinstance(given, str) or not given:
            raise ScheduleError(f"zone is {given!r:.80}: give the name of a time zone, such as 'Europe/Berlin'")
        _check_recurring(self)


Schedule = At | After | Every | Cron


def check_schedule(schedule: Any) -> None:
    """Raise `schedule.invalid` for what is no schedule, `schedule.no_time_zone` for a zone that is not here."""
    if not isinstance(schedule, (At, After, Every, Cron)):
        raise ScheduleError(
            f"schedule is {schedule!r:.200}: give At(moment), After(seconds), Every(seconds) or Cron(expression, zone)"
        )
    if isinstance(schedule, Cron):
        zone_of(schedule.zone)


def settled(schedule: Schedule, now_ms: int) -> At | Every | Cron:
    """Return a schedule in the form in which it is stored: one that depends on nothing but itself."""
    if isinstance(schedule, After):
        return At(min(now_ms + round(schedule.seconds * 1000), MAX_AT_MS))
    return schedule


def first_run(schedule: At | Every | Cron, now_ms: int) -> int | None:
    """Return the first moment for which a schedule plans a run; None where it plans none."""
    if isinstance(schedule, At):
        return schedule.at_ms
    if isinstance(schedule, Every):
        start_ms = now_ms + schedule.step_ms if schedule.start is None else schedule.start
        assert isinstance(start_ms, int)
        return _within(schedule, start_ms)
    return _next_cron(schedule, now_ms)


def next_run(schedule: At | Every | Cron, planned_ms: int, now_ms: int, runs: int) -> tuple[int | None, int]:
    """Return the moment of the run behind one that was planned for `planned_ms`, and how many runs between them are
    missed; None where it was the last. `runs` is how many were delivered, that one included."""
    if isinstance(schedule, At) or (schedule.max_runs is not None and runs >= schedule.max_runs):
        return None, 0
    is_all = schedule.missed is Missed.ALL
    if isinstance(schedule, Every):
        step_ms = schedule.step_ms
        steps = 1 if is_all else max((now_ms - planned_ms) // step_ms + 1, 1)
        return _within(schedule, planned_ms + steps * step_ms), steps - 1
    found, passed = _next_cron(schedule, planned_ms), 0
    while found is not None and found <= now_ms and not is_all:
        passed += 1
        found = _next_cron(schedule, found if passed < MAX_COUNTED else now_ms)
    return found, passed


def due_of(schedule: At | Every | Cron, planned_ms: int, timer_id: str, number: int) -> int:
    """Return when a planned run is due: later by its part of the jitter, which is the same whoever asks."""
    jitter_s = 0.0 if isinstance(schedule, At) else schedule.jitter_s
    if not jitter_s:
        return planned_ms
    chance = int.from_bytes(hashlib.sha256(f"{timer_id}/{number}".encode()).digest()[:8], "big") / (1 << 64)
    return planned_ms + int(chance * jitter_s * 1000)


def is_missed(schedule: At | Every | Cron, due_ms: int, now_ms: int) -> bool:
    """Tell whether a run is to be left out because it is too late."""
    if isinstance(schedule, At) or schedule.missed is not Missed.SKIP:
        return False
    return now_ms - due_ms > schedule.grace_s * 1000


def missed_until(schedule: At | Every | Cron, now_ms: int) -> int:
    """Return the last moment whose run is too late by now, where one was left out because it was."""
    grace_s = 0.0 if isinstance(schedule, At) else schedule.grace_s
    return now_ms - int(grace_s * 1000) - 1


def runs_of(schedule: Schedule, *, from_ms: int, count: int) -> tuple[int, ...]:
    """Return the first moments, at most `count`, for which a schedule plans runs if it is scheduled at `from_ms`."""
    stored = settled(schedule, from_ms)
    found: list[int] = []
    planned = first_run(stored, from_ms)
    while planned is not None and len(found) < count:
        found.append(planned)
        planned, _ = next_run(stored, planned, planned, len(found))
    return tuple(found)


# ---- JSON ----


def schedule_to_json(schedule: Schedule) -> dict[str, Any]:
    """Return a schedule as JSON."""
    if isinstance(schedule, After):
        return {"kind": "after", "seconds": schedule.seconds}
    if isinstance(schedule, At):
        return {"kind": "at", "at_ms": schedule.at_ms}
    told: dict[str, Any] = {"kind": "every", "seconds": schedule.seconds} if isinstance(schedule, Every) else {}
    if isinstance(schedule, Every):
        told |= {} if schedule.start is None else {"start_ms": schedule.start}
    else:
        told = {"kind": "cron", "expression": schedule.expression, "zone": schedule.zone}
    told |= {"jitter_s": schedule.jitter_s, "missed": schedule.missed.value, "grace_s": schedule.grace_s}
    told |= {} if schedule.max_runs is None else {"max_runs": schedule.max_runs}
    return told | ({} if schedule.until is None else {"until_ms": schedule.until})


def schedule_from_json(value: Mapping[str, Any]) -> At | Every | Cron:
    """Return a settled schedule of what `schedule_to_json` gave. Raises `schedule.invalid` for what it cannot have
    given."""
    kind = value.get("kind")
    if kind == "at":
        return At(value.get("at_ms"))  # type: ignore[arg-type]  # checked there
    more = {name: value[name] for name in ("jitter_s", "missed", "grace_s", "max_runs") if name in value}
    more |= {"until": value["until_ms"]} if "until_ms" in value else {}
    if kind == "every":
        return Every(value.get("seconds"), start=value.get("start_ms"), **more)  # type: ignore[arg-type]
    if kind == "cron":
        return Cron(value.get("expression"), value.get("zone"), **more)  # type: ignore[arg-type]
    raise ScheduleError(f"{dict(value)!r:.200} is no schedule: its kind is at, every or cron")


# ---- parts ----


def zone_of(name: str) -> tzinfo:
    """Return a time zone by its name. Raises `schedule.no_time_zone` where this machine does not know it."""
    if name == "UTC":
        return timezone.utc
    return _zone(name)


@lru_cache(maxsize=64)
def _zone(name: str) -> tzinfo:
    # It reads how this Python was built, which not every Python has beside it, and UTC needs none of it.
    import zoneinfo

    try:
        return zoneinfo.ZoneInfo(name)
    except (OSError, ValueError, KeyError) as error:
        raise TimeZoneMissingError(
            f"there is no time zone {name!r:.80} on this machine: give a name such as 'Europe/Berlin' or 'UTC'; where"
            " the system has none at all, as on Windows and in small containers, `pip install tzdata` brings them",
            zone=name,
        ) from error


@lru_cache(maxsize=256)
def _times_of(expression: str) -> CronTimes:
    return read_cron(expression)


def _next_cron(schedule: Cron, after_ms: int) -> int | None:
    after = _EPOCH + timedelta(milliseconds=after_ms)
    found = next_moment(_times_of(schedule.expression), after, zone_of(schedule.zone))
    return None if found is None else _within(schedule, (found - _EPOCH) // timedelta(milliseconds=1))


def _within(schedule: Every | Cron, planned_ms: int) -> int | None:
    until = MAX_AT_MS if schedule.until is None else schedule.until
    assert isinstance(until, int)
    return planned_ms if planned_ms <= min(until, MAX_AT_MS) else None


def _moment_ms(name: str, value: Any) -> int:
    """Return a moment in epoch milliseconds. Raises `schedule.invalid`."""
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            raise ScheduleError(
                f"{name} is {value!r}, of which nobody knows in which time zone: give a datetime with tzinfo"
            )
        value = (value - _EPOCH) // timedelta(milliseconds=1)
    if not is_whole(value, most=MAX_AT_MS):
        raise ScheduleError(
            f"{name} is {value!r:.80}: give an aware datetime or epoch milliseconds, before the year 2200"
        )
    return int(value)


def _check_seconds(name: str, value: Any, *, least: float) -> None:
    if not is_number(value, least=least, most=_MAX_S):
        raise ScheduleError(f"{name} is {value!r:.80}: give seconds from {least:g} to {_MAX_S:g}")


def _check_recurring(schedule: Every | Cron) -> None:
    for name in ("jitter_s", "grace_s"):
        _check_seconds(name, getattr(schedule, name), least=0.0)
    try:
        object.__setattr__(schedule, "missed", Missed(schedule.missed))
    except ValueError as error:
        known = ", ".join(repr(one.value) for one in Missed)
        raise ScheduleError(f"missed is {schedule.missed!r:.80}: give one of {known}") from error
    if schedule.max_runs is not None and not is_whole(schedule.max_runs, least=1):
        raise ScheduleError(f"max_runs is {schedule.max_runs!r:.80}: give a whole number of at least 1, or None")
    if schedule.until is not None:
        object.__setattr__(schedule, "until", _moment_ms("until", schedule.until))
