"""Schedules: cron expressions against a scan of every minute, across changes of the clock; rhythms; what is refused."""

from __future__ import annotations

import contextlib
from datetime import datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from power_loop import After, At, Cron, Every
from power_loop.contracts.cron import CronTimes, read_cron
from power_loop.contracts.schedules import (
    due_of,
    first_run,
    is_missed,
    next_run,
    schedule_from_json,
    schedule_to_json,
    settled,
)
from power_loop.errors import ScheduleError, TimeZoneMissingError
from power_loop.timers import Missed, runs_of

_MINUTE = timedelta(minutes=1)
# One hour forward and back, on both halves of the globe; half an hour; at midnight; a day left out; none at all.
ZONES = (
    *("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Santiago", "Africa/Casablanca"),
    *("Pacific/Apia", "America/St_Johns", "Asia/Kolkata", "UTC"),
)
# In each of these spans some of the zones set their clocks.
STARTS = (
    *("2024-03-30T10:00", "2024-10-26T10:00", "2024-03-09T20:00", "2024-11-02T20:00", "2011-12-29T00:00"),
    *("2024-04-06T10:00", "2024-10-05T10:00", "2024-09-07T20:00", "2011-03-12T20:00", "2024-02-28T00:00"),
)
_DAYS = 3


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp() * 1000)


def told(moments: Any, zone: str = "UTC") -> list[str]:
    shown = [datetime.fromtimestamp(moment / 1000, timezone.utc).astimezone(ZoneInfo(zone)) for moment in moments]
    return [moment.strftime("%m-%d %H:%M %z") for moment in shown]


def allows(times: CronTimes, wall: datetime) -> bool:
    return wall.minute in times.minutes and wall.hour in times.hours and times.allows_day(wall.date())


def scanned(expression: str, zone: str, from_ms: int) -> list[int]:
    """Return the moments within some days, by a look at every minute and at what the clock shows then."""
    times, tz = read_cron(expression), ZoneInfo(zone)
    found = []
    moment = datetime.fromtimestamp(from_ms / 1000, timezone.utc)
    before = moment.astimezone(tz).replace(tzinfo=None)
    shown = {before - nth * _MINUTE for nth in range(1440)}
    for _ in range(_DAYS * 1440):
        moment += _MINUTE
        wall = moment.astimezone(tz).replace(tzinfo=None)
        is_allowed = allows(times, wall)
        if times.names_hours:
            passed_over = [before + nth * _MINUTE for nth in range(1, round((wall - before) / _MINUTE))]
            is_allowed = (is_allowed and wall not in shown) or any(allows(times, one) for one in passed_over)
            shown.add(wall)
        if is_allowed:
            found.append(round(moment.timestamp() * 1000))
        before = wall
    return found


def field(least: int, most: int, *more: str) -> st.SearchStrategy[str]:
    """Return fields of a cron expression: stars, numbers, ranges, steps, names, and lists of them."""
    number = st.integers(least, most)
    a_range = st.tuples(number, number).map(lambda pair: f"{min(pair)}-{max(pair)}")
    stepped = st.tuples(st.one_of(st.just("*"), a_range), st.integers(1, most)).map(lambda pair: f"{pair[0]}/{pair[1]}")
    item = st.one_of(number.map(str), a_range, stepped, *[st.just(one) for one in more])
    return st.one_of(st.just("*"), st.lists(item, min_size=1, max_size=3).map(",".join))


EXPRESSIONS = st.tuples(
    field(0, 59),
    field(0, 23),
    st.one_of(st.just("*"), field(1, 28)),
    st.one_of(st.just("*"), st.just("*"), field(1, 12, "JAN", "mar", "OCT-DEC")),
    st.one_of(st.just("*"), field(0, 7, "SUN", "fri", "MON-SAT", "SAT-SUN")),
).map(" ".join)


@settings(max_examples=120, deadline=None)
@given(expression=EXPRESSIONS, zone=st.sampled_from(ZONES), start=st.sampled_from(STARTS))
def test_the_moments_of_an_expression_are_those_that_a_look_at_every_minute_finds(
    expression: str, zone: str, start: str
) -> None:
    from_ms = ms(start)
    expected = scanned(expression, zone, from_ms)
    planned = runs_of(Cron(expression, zone), from_ms=from_ms, count=len(expected) + 1)
    until_ms = from_ms + _DAYS * 86_400_000
    assert [moment for moment in planned if moment <= until_ms] == expected


def test_a_named_hour_comes_once_a_day_where_the_clock_is_set() -> None:
    daily = Cron("30 2 * * *", "Europe/Berlin")
    assert told(runs_of(daily, from_ms=ms("2024-03-30T12:00"), count=2), "Europe/Berlin") == [
        "03-31 03:00 +0200",  # 02:30 is not shown on that day
        "04-01 02:30 +0200",
    ]
    assert told(runs_of(daily, from_ms=ms("2024-10-26T12:00"), count=2), "Europe/Berlin") == [
        "10-27 02:30 +0200",  # shown twice: the first time
        "10-28 02:30 +0100",
    ]
    hourly = Cron("30 * * * *", "Europe/Berlin")
    assert told(runs_of(hourly, from_ms=ms("2024-10-26T23:40"), count=4), "Europe/Berlin") == [
        "10-27 02:30 +0200",
        "10-27 02:30 +0100",
        "10-27 03:30 +0100",
        "10-27 04:30 +0100",
    ]


@pytest.mark.parametrize(
    ("expression", "first"),
    [
        ("0 0 29 2 *", "2028-02-29 00:00"),
        ("0 12 29 2 */7", "2032-02-29 12:00"),
        ("0 0 13 * FRI", "2024-03-01 00:00"),  # both are named: one of them is enough
        ("0 0 */7 * MON", "2024-04-01 00:00"),  # one begins with a star: both have to be
        ("15,45 8-9 1 1 *", "2025-01-01 08:15"),
        ("0 9 * * MON-FRI", "2024-03-01 09:00"),
        ("*/20 23 * * *", "2024-02-29 23:00"),
        ("5/20 * * * *", "2024-02-29 12:05"),
    ],
)
def test_an_expression_is_read_as_cron_reads_it(expression: str, first: str) -> None:
    [moment] = runs_of(Cron(expression), from_ms=ms("2024-02-29T12:00"), count=1)
    assert datetime.fromtimestamp(moment / 1000, timezone.utc).strftime("%Y-%m-%d %H:%M") == first


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("* * * *", "has 4 fields: give five"),
        ("@daily", "no words like @daily"),
        ("0 0 0 * * *", "no seconds"),
        ("60 * * * *", "'60' is no minute: give a number from 0 to 59"),
        ("* 24 * * *", "is no hour"),
        ("0 0 0 * *", "is no day of the month"),
        ("0 0 * FOO *", "a name from JAN to DEC"),
        ("0 0 * * 8", "a name from SUN to SAT"),
        ("0 0 L * *", "no L, W, # or ?"),
        ("0 0 * * 5#2", "no L, W, # or ?"),
        ("0 0 * * 5L", "no L, W, # or ?"),
        ("0 0 15W * *", "no L, W, # or ?"),
        ("0 0 ? * *", "no L, W, # or ?"),
        ("0 0 1,,2 * *", "no L, W, # or ?"),
        ("0 0 * * FRI-MON", "a range goes upwards"),
        ("*/0 * * * *", "a step is a number"),
        ("0 0 31 2,4 *", "never comes"),
        ("x" * 300, "at most 256 characters"),
        ("٣ * * * *", "is no minute"),
    ],
)
def test_what_is_no_expression_is_refused_with_what_to_write(expression: str, says: str) -> None:
    with pytest.raises(ScheduleError) as caught:
        Cron(expression)
    assert caught.value.code == "schedule.invalid"
    assert says in caught.value.message


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="0123456789*/-,JANMOSULW#? @x", max_size=30))
def test_any_text_is_an_expression_or_is_refused(text: str) -> None:
    with contextlib.suppress(ScheduleError):
        runs_of(Cron(text), from_ms=ms("2024-03-30T10:00"), count=2)


def test_a_zone_that_is_not_here_says_what_to_install() -> None:
    with pytest.raises(TimeZoneMissingError, match="pip install tzdata") as caught:
        runs_of(Cron("0 0 * * *", "Mars/Olympus"), from_ms=0, count=1)
    assert (caught.value.code, caught.value.zone) == ("schedule.no_time_zone", "Mars/Olympus")


@pytest.mark.parametrize(
    "make",
    [
        lambda: At(datetime(2024, 1, 1)),
        lambda: At(-1),
        lambda: At(True),
        lambda: After(-1),
        lambda: After(float("nan")),
        lambda: Every(0.5),
        lambda: Every(60, jitter_s=61),
        lambda: Every(60, missed="later"),
        lambda: Every(60, max_runs=0),
        lambda: Cron("0 0 * * *", ""),
        lambda: Cron(5),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_schedule_is_refused(make: Any) -> None:
    with pytest.raises(ScheduleError):
        make()


def test_a_rhythm_keeps_its_beat_whatever_was_missed() -> None:
    every = Every(60, max_runs=5)
    assert first_run(every, 1_000) == 61_000
    assert next_run(every, 61_000, 61_005, 1) == (121_000, 0)
    assert next_run(every, 61_000, 500_000, 1) == (541_000, 7)
    assert next_run(every, 61_000, 500_000, 5) == (None, 0)
    assert next_run(Every(60, missed=Missed.ALL), 61_000, 500_000, 1) == (121_000, 0)
    assert next_run(Every(60, until=100_000), 61_000, 61_000, 1) == (None, 0)
    assert runs_of(Every(60, start=5_000), from_ms=0, count=2) == (5_000, 65_000)
    skip = Every(60, missed=Missed.SKIP, grace_s=10)
    assert not is_missed(skip, 61_000, 71_000)
    assert is_missed(skip, 61_000, 71_001)
    assert not is_missed(Every(60), 61_000, 10**9)


def test_missed_moments_of_an_expression_are_counted_as_far_as_it_is_cheap() -> None:
    minutely = Cron("* * * * *")
    assert next_run(minutely, 0, 10 * 60_000, 1) == (11 * 60_000, 10)
    assert next_run(minutely, 0, 90 * 86_400_000, 1) == (90 * 86_400_000 + 60_000, 1_000)


@settings(max_examples=100)
@given(st.integers(0, 10**6), st.text("abc", max_size=5), st.integers(1, 1000))
def test_jitter_is_the_same_whoever_asks_and_stays_within_its_bound(planned_ms: int, name: str, number: int) -> None:
    every = Every(60, jitter_s=10)
    due_ms = due_of(every, planned_ms, name, number)
    assert due_ms == due_of(every, planned_ms, name, number)
    assert planned_ms <= due_ms < planned_ms + 10_000
    assert due_of(Every(60), planned_ms, name, number) == planned_ms


def test_jitter_spreads_timers_that_were_made_alike() -> None:
    assert len({due_of(Every(60, jitter_s=60), 0, f"tmr_{nth}", 1) // 6_000 for nth in range(200)}) == 10


@pytest.mark.parametrize(
    "schedule",
    [
        At(5),
        Every(60),
        Every(90.5, jitter_s=3, start=7, missed=Missed.ALL, grace_s=1, max_runs=3, until=10**12),
        Cron("0 9 * * MON", "Europe/Berlin", jitter_s=2, missed=Missed.SKIP, max_runs=2, until=10**12),
    ],
)
def test_a_schedule_is_the_same_behind_its_json(schedule: Any) -> None:
    assert schedule_from_json(schedule_to_json(schedule)) == schedule
    assert settled(schedule, 10) == schedule


@pytest.mark.parametrize("value", [{}, {"kind": "at"}, {"kind": "every"}, {"kind": "cron", "expression": "x"}])
def test_what_is_no_json_of_a_schedule_is_refused(value: Any) -> None:
    with pytest.raises(ScheduleError):
        schedule_from_json(value)


_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.text(max_size=4), inner, max_size=2)),
    max_leaves=3,
)
_MEMBERS = ("at_ms", "seconds", "start_ms", "expression", "zone", "jitter_s", "missed", "grace_s", "max_runs")


@settings(max_examples=200, deadline=None)
@given(
    kind=st.sampled_from(("at", "every", "cron")),
    members=st.dictionaries(st.sampled_from((*_MEMBERS, "until_ms")), _JSON),
    whole=st.sampled_from(({}, {"seconds": 60}, {"expression": "* * * * *", "zone": "UTC"})),
)
def test_any_json_is_a_schedule_or_is_refused(kind: str, members: dict[str, Any], whole: dict[str, Any]) -> None:
    with contextlib.suppress(ScheduleError):
        schedule = schedule_from_json({"kind": kind, **whole, **members})
        assert schedule_from_json(schedule_to_json(schedule)) == schedule


def test_a_year_of_schedules_is_planned_in_a_moment() -> None:
    from_ms = ms("2024-01-01T00:00") - 1
    yearly = {
        "0 9 * * MON-FRI": 262,
        "0 0 1 * *": 12,
        "0 0 29 2 *": 1,
        "*/30 8-17 * * *": 366 * 20,
        "0 */6 * * *": 366 * 4,
    }
    for expression, count in yearly.items():
        found = runs_of(Cron(expression), from_ms=from_ms, count=count + 1)
        assert len([moment for moment in found if moment < ms("2025-01-01T00:00")]) == count, expression
