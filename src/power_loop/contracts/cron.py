"""Reads cron expressions of five fields, and finds the next moment of one by the clock of a time zone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, datetime, timedelta, timezone, tzinfo
from typing import Any

from power_loop.contracts.errors import ScheduleError
from power_loop.contracts.frozen import frozen

MAX_EXPRESSION_CHARS = 256

_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_LONGEST_MONTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_ITEM = re.compile(r"(?:(?P<star>\*)|(?P<first>\w+)(?:-(?P<last>\w+))?)(?:/(?P<step>\w+))?", re.ASCII)
# The 29th of February on a named day of the week comes after 40 years at the latest, where a century is passed over.
_MAX_DAYS = 41 * 366
_MINUTE = timedelta(minutes=1)
# A day far away is gone to at once but for these, so that no change of the clock leads past it.
_NEAR_DAYS = 2


@frozen
class CronTimes:
    """Is what an expression allows: minutes, hours, days of the month, months, days of the week (0 is Sunday).

    Where both kinds of days are named (no field of them begins with a star), one of them is enough. `names_hours` is
    False where the field of the hours begins with a star.
    """

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    is_either_day: bool
    names_hours: bool

    def allows_day(self, day: date) -> bool:
        """Tell whether it allows a day."""
        if day.month not in self.months:
            return False
        by_month, by_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return (by_month or by_week) if self.is_either_day else (by_month and by_week)


def read_cron(expression: str) -> CronTimes:
    """Return what an expression such as `0 9 * * MON-FRI` allows. Raises `schedule.invalid`."""
    given: Any = expression
    if not isinstance(given, str) or len(given) > MAX_EXPRESSION_CHARS:
        raise ScheduleError(
            f"cron expression {expression!r:.80} is not usable: give text of at most {MAX_EXPRESSION_CHARS} characters,"
            " such as '0 9 * * MON-FRI'"
        )
    fields = expression.split()
    if len(fields) != 5:
        raise ScheduleError(
            f"cron expression {expression!r} has {len(fields)} fields: give five, which are minute, hour, day of the"
            " month, month and day of the week, such as '0 9 * * MON-FRI'; there are no seconds, no years and no words"
            " like @daily"
        )
    minute, hour, day, month, weekday = fields
    months = _field(expression, "month", month, 1, 12, _MONTHS)
    days = _field(expression, "day of the month", day, 1, 31)
    weekdays = _field(expression, "day of the week", weekday, 0, 7, _DAYS)
    is_either = not day.startswith("*") and not weekday.startswith("*")
    longest = max(_LONGEST_MONTHS[number - 1] for number in months)
    if min(days) > longest and not is_either:
        raise ScheduleError(
            f"cron expression {expression!r} never comes: its months have {longest} days at most, and its first day is"
            f" the {min(days)}th"
        )
    return CronTimes(
        tuple(sorted(_field(expression, "minute", minute, 0, 59))),
        tuple(sorted(_field(expression, "hour", hour, 0, 23))),
        days,
        months,
        frozenset(number % 7 for number in weekdays),
        is_either,
        not hour.startswith("*"),
    )


def next_moment(times: CronTimes, after: datetime, zone: tzinfo) -> datetime | None:
    """Return the first moment, in UTC, that is later than `after` and that an expression allows by the clock of a zone;
    None past the end of the calendar.

    Where hours are named, each moment comes once a day: where the clock is set forward over it, when it is set; where
    it is set back and shows it twice, the first time. Where they are not, a moment comes as often as the clock shows
    it.
    """
    try:
        if times.names_hours:
            return _next_named(times, after, zone)
        return _next_shown(times, after, zone)
    except OverflowError:
        return None


def _next_named(times: CronTimes, after: datetime, zone: tzinfo) -> datetime | None:
    wall = after.astimezone(zone).replace(tzinfo=None)
    for day in _days_from(times, wall.date()):
        for hour in times.hours:
            for minute in times.minutes:
                shown = datetime(day.year, day.month, day.day, hour, minute)
                if shown + _MINUTE <= wall:
                    continue
                moment = _first_moment(shown, zone)
                if moment > after:
                    return moment
    return None


def _next_shown(times: CronTimes, after: datetime, zone: tzinfo) -> datetime | None:
    moment = after.replace(second=0, microsecond=0) + _MINUTE
    while True:
        wall = moment.astimezone(zone)
        minutes = _minutes_on(times, wall.replace(tzinfo=None))
        if minutes is None:
            return None
        if minutes == 0:
            return moment
        # Where the clock is set on the way, no further than to the end of the hour that it shows, or minute by minute.
        for step in (minutes, 60 - wall.minute):
            if step <= minutes and (moment + step * _MINUTE).astimezone(zone).utcoffset() == wall.utcoffset():
                break
        else:
            step = 1
        moment += step * _MINUTE


def _minutes_on(times: CronTimes, wall: datetime) -> int | None:
    """Return after how many minutes, by a clock that nobody sets, one has to look again; 0 if this one is allowed."""
    day = next(_days_from(times, wall.date()), None)
    if day is None:
        return None
    into_day = wall.hour * 60 + wall.minute
    if day != wall.date():
        ahead = (day - wall.date()).days
        return (ahead if ahead <= _NEAR_DAYS else ahead - _NEAR_DAYS) * 1440 - into_day
    if wall.hour not in times.hours:
        return 60 - wall.minute
    return next((minute for minute in times.minutes if minute >= wall.minute), 60) - wall.minute


def _days_from(times: CronTimes, day: date) -> Iterator[date]:
    """Yield the days that are allowed, from one on, as far as there can be a gap between two."""
    passed = 0
    while passed < _MAX_DAYS:
        if day.month not in times.months:
            following = date(day.year + day.month // 12, day.month % 12 + 1, 1)
            passed += (following - day).days
            day = following
            continue
        if times.allows_day(day):
            yield day
            passed = 0
        day += timedelta(days=1)
        passed += 1


def _first_moment(shown: datetime, zone: tzinfo) -> datetime:
    """Return when the clock of a zone first shows a time; where it is set forward over it, when it is set."""
    moment = shown.replace(tzinfo=zone).astimezone(timezone.utc)
    if moment.astimezone(zone).replace(tzinfo=None) == shown:
        return moment
    # https://peps.python.org/pep-0495/: the two readings of such a time lie behind and before the change.
    behind, before = moment, shown.replace(tzinfo=zone, fold=1).astimezone(timezone.utc)
    changed = behind.astimezone(zone).utcoffset()
    while behind - before > timedelta(seconds=1):
        middle = (before + (behind - before) / 2).replace(microsecond=0)
        if middle == before:
            break
        if middle.astimezone(zone).utcoffset() == changed:
            behind = middle
        else:
            before = middle
    return behind


def _field(expression: str, what: str, text: str, least: int, most: int, names: tuple[str, ...] = ()) -> frozenset[int]:
    """Return the numbers that a field allows. Raises `schedule.invalid`."""
    found: set[int] = set()
    for item in text.split(","):
        match = _ITEM.fullmatch(item)
        if match is None:
            raise _wrong(expression, what, item, _advice(item, least, most, names))
        step = 1
        if match["step"] is not None:
            if not match["step"].isdigit() or not 0 < int(match["step"]) <= most:
                raise _wrong(expression, what, item, f"a step is a number from 1 to {most}")
            step = int(match["step"])
        if match["star"] is not None:
            first, last = least, most if what != "day of the week" else 6
        else:
            first = _number(expression, what, match["first"], least, most, names)
            last = first
            if match["last"] is not None:
                last = _number(expression, what, match["last"], least, most, names)
                # Sunday ends a week as well as it begins one.
                last = 7 if names is _DAYS and last == 0 and first > 0 else last
            elif match["step"] is not None:
                last = most if what != "day of the week" else 6
        if last < first:
            raise _wrong(expression, what, item, "a range goes upwards: write one that goes over the end as two")
        found.update(range(first, last + 1, step))
    return frozenset(found)


def _number(expression: str, what: str, text: str, least: int, most: int, names: tuple[str, ...]) -> int:
    if text.upper() in names:
        return names.index(text.upper()) + (1 if names is _MONTHS else 0)
    if not text.isdigit() or len(text) > 2 or not least <= int(text) <= most:
        raise _wrong(expression, what, text, _advice(text, least, most, names))
    return int(text)


def _advice(item: str, least: int, most: int, names: tuple[str, ...]) -> str:
    if re.search(r"[#?]|^L|L$|W$|^$", item.upper()):
        return (
            "there is no L, W, # or ? here: give numbers, ranges such as 1-5, steps such as */10, and lists of them;"
            " days like the last Friday are for a timer that looks at the date when it fires"
        )
    known = f", or a name from {names[0]} to {names[-1]}" if names else ""
    return f"give a number from {least} to {most}{known}"


def _wrong(expression: str, what: str, item: str, advice: str) -> ScheduleError:
    return ScheduleError(f"cron expression {expression!r}: {item!r} is no {what}: {advice}")
