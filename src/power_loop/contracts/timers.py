"""Says what a timer is: an input that a session is woken by, its schedule, and how far it has come."""

from __future__ import annotations

import hashlib
import re
from enum import Enum
from typing import Any, Protocol

from power_loop.contracts.errors import InputError
from power_loop.contracts.frozen import frozen
from power_loop.contracts.messages import Message
from power_loop.contracts.records import InboxRecord
from power_loop.contracts.schedules import At, Cron, Every, Schedule
from power_loop.contracts.session_ids import is_run_id

#: So many timers of a session may be armed, unless the caller says otherwise: a model that schedules by mistake in a
#: loop is told so before it costs much.
MAX_TIMERS = 100
#: The bytes of a timer's input as JSON: it stands in its row until it ends.
MAX_INPUT_BYTES = 262_144
MAX_NAME_CHARS = 200
_ID = re.compile(r"tmr_[A-Za-z0-9_.:-]{1,60}")


class TimerState(str, Enum):
    """Is where a timer stands; all but `armed` are ends."""

    ARMED = "armed"
    DONE = "done"  # its last run was delivered, or left out
    VETOED = "vetoed"  # a hook vetoed its last run
    CANCELLED = "cancelled"
    SESSION_CLOSED = "session_closed"


class TimerMaker(str, Enum):
    """Is who made a timer."""

    APPLICATION = "application"
    MODEL = "model"
    WORKFLOW = "workflow"


@frozen
class NewTimer:
    """Is a timer to be made. `message` is the input that it brings, `input_hash` what a repeated request is recognized
    by. `max_timers` of its session may be armed with it; None is no limit."""

    id: str
    session_id: str
    message: Message
    input_hash: str
    schedule: Schedule
    name: str | None = None
    made_by: TimerMaker = TimerMaker.APPLICATION
    max_timers: int | None = MAX_TIMERS


@frozen
class TimerRecord:
    """Is a timer as it stands. Times are epoch milliseconds.

    `number` counts its firings, and is that of the next one, which the schedule planned for `planned_at_ms` and which
    is due at `due_at_ms`: later where jitter or a hook says so; both are None once it has ended. `delivered`, `missed`
    and `vetoed` count what became of its runs. `failures` is how often the next firing was tried in vain, `last_error`
    what the last failure said. `owner` is who delivers it at the moment.
    """

    id: str
    session_id: str
    state: TimerState
    name: str | None
    made_by: TimerMaker
    schedule: At | Every | Cron
    message: Message
    input_hash: str
    number: int
    planned_at_ms: int | None
    due_at_ms: int | None
    owner: str | None
    epoch: int
    delivered: int
    missed: int
    vetoed: int
    failures: int
    last_error: str | None
    created_at_ms: int
    delivered_at_ms: int | None
    ended_at_ms: int | None

    @property
    def is_armed(self) -> bool:
        """True until it has ended."""
        return self.state is TimerState.ARMED

    @property
    def is_of_a_run(self) -> bool:
        """True if a workflow made it for its own run, which it wakes."""
        return self.made_by is TimerMaker.WORKFLOW and is_run_id(self.session_id)

    @property
    def request_id(self) -> str:
        """The request id under which the next firing comes to the session's inbox."""
        return request_id_of(self.id, self.number)


@frozen
class TimerClaim:
    """Is the right to deliver the next firing of a timer: what is done with it counts as long as `timer.epoch` is that
    of the row. `at_ms` is the store's time at which it was given."""

    timer: TimerRecord
    at_ms: int


@frozen
class TimerDelivery:
    """Is what became of a firing: the timer behind it, and the input in the inbox; None where the session is closed, so
    that the timer ended instead, and of the timer of a run. `is_turn_running` tells whether a turn will see it,
    `woke_run` that a run rested and is to be driven on."""

    timer: TimerRecord
    input: InboxRecord | None
    is_turn_running: bool = False
    woke_run: bool = False


class TimerTransaction(Protocol):
    """Is the timers of a call's session within the transaction that commits the call: what is done with them stays if
    the call's result does. A refusal changes nothing, and the transaction goes on behind it."""

    async def schedule(
        self, text: str, schedule: Schedule, *, name: str | None = None, max_timers: int | None = MAX_TIMERS
    ) -> TimerRecord:
        """Make a timer that brings `text` to the session. Raises `schedule.invalid`, `schedule.no_time_zone`,
        `timer.limit`, `input.invalid`."""
        ...

    async def cancel(self, timer_id: str, *, made_by: TimerMaker | None = None) -> bool:
        """End a timer of the session, of this maker if one is given; False if it had ended. Raises `timer.not_found`,
        `input.invalid` for one that another made."""
        ...


def is_timer_id(value: Any) -> bool:
    """Tell whether a timer may have this id."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def check_timer_id(value: Any) -> None:
    """Raise `input.invalid` for what can be the id of no timer."""
    if not is_timer_id(value):
        raise InputError(f"timer_id {value!r:.200} is not usable: give what schedule_timer() told, which begins tmr_")


def check_timer_name(value: Any) -> None:
    """Raise `input.invalid` for what can be the name of no timer."""
    if value is not None and (not isinstance(value, str) or not 0 < len(value) <= MAX_NAME_CHARS):
        raise InputError(f"name is {value!r:.200}: give text of 1 to {MAX_NAME_CHARS} characters, or None")


def timer_id_of(*parts: str) -> str:
    """Return the id of the one timer that is made for something, such as a session and a request."""
    digest = hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()
    return f"tmr_{digest[:24]}"


def request_id_of(timer_id: str, number: int) -> str:
    """Return the request id of a firing."""
    return f"{timer_id}:{number}"
