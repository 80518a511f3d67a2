"""Lets a model schedule its own wake-ups: timers that bring it a note when they are due."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

from power_loop.contracts.errors import ConfigError, InputError, PowerLoopError, ToolError
from power_loop.contracts.frozen import frozen
from power_loop.contracts.numbers import is_number, is_whole
from power_loop.contracts.schedules import After, At, Cron, Every, Schedule, runs_of, zone_of
from power_loop.contracts.timers import TimerMaker, TimerRecord
from power_loop.contracts.tools import ToolContext, ToolDefinition, ToolResult, ToolTransaction
from power_loop.tools.decorator import tool

MAX_NOTE_CHARS = 4_000
# What of a note the list shows, in characters.
_SHOWN_CHARS = 200
# Runs of an expression are this far apart at least, in seconds; two that are close together are among the first ones.
_LEAST_CRON_S = 60.0
_RUNS_LOOKED_AT = 400
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@frozen
class WakeupPolicy:
    """Is what a model may schedule: `max_wakeups` timers of a session armed at the same time, those of the application
    included (default 20), and none that comes more often than every `min_every_s` seconds (default 60). It may cancel
    what it scheduled, and with `cancels_all` what the application did as well (default False)."""

    max_wakeups: int = 20
    min_every_s: float = 60.0
    cancels_all: bool = False

    def __post_init__(self) -> None:
        if not is_whole(self.max_wakeups, least=1):
            raise ConfigError(f"max_wakeups is {self.max_wakeups!r:.200}: give a whole number of at least 1")
        if not is_number(self.min_every_s, least=1.0):
            raise ConfigError(f"min_every_s is {self.min_every_s!r:.200}: give at least 1 second")


def wakeup_tools(policy: WakeupPolicy | None = None) -> tuple[ToolDefinition, ...]:
    """Return the tools `schedule_wakeup`, `list_wakeups` and `cancel_wakeup`.

    A wake-up and the result of its call are one transaction: whatever dies meanwhile, it is made once. A `TimerRunner`
    has to run somewhere for it to come.
    """
    chosen = WakeupPolicy() if policy is None else policy

    @tool(effect="transactional")
    async def schedule_wakeup(
        tx: ToolTransaction,
        note: str,
        in_minutes: float | None = None,
        at: str | None = None,
        every_minutes: float | None = None,
        cron: str | None = None,
        zone: str = "UTC",
        max_runs: int | None = None,
    ) -> ToolResult:
        """Schedule a message to yourself: when it is due you are woken with your note, also if nobody wrote to you.
        Give exactly one of in_minutes, at, every_minutes and cron.

        Args:
            note: What you will need to know then, with everything that it takes to act on it.
            in_minutes: Once, after so many minutes.
            at: Once, at this time, such as 2026-03-01T09:00; without an offset it is the time of the zone.
            every_minutes: Again and again, so many minutes apart.
            cron: Again and again, by a cron expression of five fields, such as "0 9 * * MON-FRI".
            zone: The time zone of at and cron, such as Europe/Berlin.
            max_runs: How often it comes at most, of one that comes again and again.
        """

        async def schedule() -> str:
            # Also where it only says how the time is told: behind the timer nothing may be refused.
            zone_of(zone)
            when = _schedule(chosen, in_minutes, at, every_minutes, cron, zone, max_runs)
            if not note.strip():
                raise InputError("the note is empty: say what you will need to know then")
            if len(note) > MAX_NOTE_CHARS:
                raise InputError(f"the note has {len(note):,} characters and may have {MAX_NOTE_CHARS:,}: shorten it")
            text = f"A wake-up that you scheduled is due. Your note: {note}"
            made = await tx.timers.schedule(text, when, name=_name(note), max_timers=chosen.max_wakeups)
            return f"Scheduled {made.id}. It is due at {_time(made.due_at_ms, zone)}."

        return await _told(schedule)

    @tool(effect="read")
    async def list_wakeups(context: ToolContext, zone: str = "UTC") -> dict[str, Any] | str:
        """List the wake-ups that are scheduled in this conversation.

        Args:
            zone: The time zone in which times are shown, such as Europe/Berlin.
        """
        try:
            zone_of(zone)
            found = await context.read_timers()
        except InputError as error:
            raise ToolError(error.message) from error
        if not found:
            return "No wake-up is scheduled."
        in_order = sorted(found, key=lambda timer: timer.due_at_ms or 0)
        return {"wakeups": [_shown(timer, zone) for timer in in_order]}

    @tool(effect="transactional")
    async def cancel_wakeup(tx: ToolTransaction, wakeup_id: str) -> ToolResult:
        """Cancel a wake-up that you scheduled.

        Args:
            wakeup_id: Its id, as schedule_wakeup or list_wakeups told, such as tmr_7k2m.
        """

        async def cancel() -> str:
            made_by = None if chosen.cancels_all else TimerMaker.MODEL
            was_armed = await tx.timers.cancel(wakeup_id, made_by=made_by)
            return f"Cancelled {wakeup_id}." if was_armed else f"{wakeup_id} had come or was cancelled before."

        return await _told(cancel)

    return schedule_wakeup, list_wakeups, cancel_wakeup


async def _told(work: Callable[[], Coroutine[Any, Any, str]]) -> ToolResult:
    """Return what a model is told of a write: what came of it, or why nothing changed."""
    try:
        return ToolResult(await work())
    except PowerLoopError as error:
        return ToolResult(f"Nothing changed: {error.message}", is_error=True)


def _schedule(
    policy: WakeupPolicy,
    in_minutes: float | None,
    at: str | None,
    every_minutes: float | None,
    cron: str | None,
    zone: str,
    max_runs: int | None,
) -> Schedule:
    """Return when a wake-up comes. Raises `schedule.invalid`, `schedule.no_time_zone`, `input.invalid`."""
    if sum(one is not None for one in (in_minutes, at, every_minutes, cron)) != 1:
        raise InputError("give exactly one of in_minutes, at, every_minutes and cron")
    if in_minutes is not None:
        return After(in_minutes * 60)
    if at is not None:
        return At(_moment(at, zone))
    if cron is not None:
        _check_rhythm(policy, cron)
        return Cron(cron, zone, max_runs=max_runs)
    assert every_minutes is not None
    if every_minutes * 60 < policy.min_every_s:
        least = policy.min_every_s / 60
        raise InputError(f"every_minutes is {every_minutes:g}: a wake-up may come every {least:g} minutes at most")
    return Every(every_minutes * 60, max_runs=max_runs)


def _check_rhythm(policy: WakeupPolicy, cron: str) -> None:
    """Raise `input.invalid` for an expression whose runs come closer together than they may; it has no seconds."""
    if policy.min_every_s <= _LEAST_CRON_S:
        return
    # By a clock that nobody sets, so that one that comes daily does so.
    runs = runs_of(Cron(cron), from_ms=0, count=_RUNS_LOOKED_AT)
    if any(later - earlier < policy.min_every_s * 1000 for earlier, later in pairwise(runs)):
        least = policy.min_every_s / 60
        raise InputError(f"cron is {cron!r:.80}: a wake-up may come every {least:g} minutes at most")


def _moment(at: str, zone: str) -> datetime:
    try:
        moment = datetime.fromisoformat(at.strip().replace("Z", "+00:00"))
    except ValueError as error:
        raise InputError(f"at is {at!r:.80}: give a time such as 2026-03-01T09:00 or 2026-03-01T09:00+01:00") from error
    return moment.replace(tzinfo=zone_of(zone)) if moment.tzinfo is None else moment


def _name(note: str) -> str:
    words = " ".join(note.split())
    return words if len(words) <= _SHOWN_CHARS else f"{words[: _SHOWN_CHARS - 1]}…"


def _time(at_ms: int | None, zone: str) -> str:
    assert at_ms is not None
    moment = (_EPOCH + timedelta(milliseconds=at_ms)).astimezone(zone_of(zone))
    return moment.strftime(f"%A, %Y-%m-%d %H:%M:%S %z ({zone})")


def _shown(timer: TimerRecord, zone: str) -> dict[str, Any]:
    schedule = timer.schedule
    comes: Any = "once"
    if isinstance(schedule, Every):
        comes = f"every {schedule.seconds / 60:g} minutes"
    elif isinstance(schedule, Cron):
        comes = f"cron {schedule.expression} ({schedule.zone})"
    told = {"id": timer.id, "due_at": _time(timer.due_at_ms, zone), "comes": comes, "note": timer.name}
    return told | {"made_by": "you" if timer.made_by.value == "model" else f"the {timer.made_by.value}"}
