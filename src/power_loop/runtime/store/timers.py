"""Keeps the timers: one row each, which is claimed when it is due, and moved on in the transaction that delivers it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from power_loop.contracts.errors import (
    InputError,
    RequestConflictError,
    ScheduleError,
    StoreCorruptError,
    TimerLimitError,
    TimerNotFoundError,
)
from power_loop.contracts.messages import Message, Role, TextPart, clean_text
from power_loop.contracts.schedules import (
    At,
    Cron,
    Every,
    Schedule,
    check_schedule,
    due_of,
    first_run,
    missed_until,
    next_run,
    schedule_from_json,
    schedule_to_json,
    settled,
)
from power_loop.contracts.states import SessionState
from power_loop.contracts.timers import (
    MAX_INPUT_BYTES,
    MAX_TIMERS,
    NewTimer,
    TimerClaim,
    TimerMaker,
    TimerRecord,
    TimerState,
    check_timer_id,
    check_timer_name,
)
from power_loop.runtime.store.codec import decode_choice, decode_json, decode_message, encode_json
from power_loop.runtime.store.messages import message_row
from power_loop.runtime.store.sessions import Sessions, not_found
from power_loop.runtime.store.sql.database import Row, Transaction
from power_loop.runtime.store.sql.dialect import Renderer
from power_loop.runtime.store.sql.migrations import IS_KNOWN, refuse_newer
from power_loop.runtime.store.sql.tables import SCHEMA_MIGRATIONS

_COLUMNS = (
    "id, session_id, state, name, made_by, schedule, body, input_hash, number, planned_at_ms, due_at_ms, owner, epoch,"
    " delivered, missed, vetoed, failures, last_error, created_at_ms, delivered_at_ms, ended_at_ms"
)


class TimerBell:
    """Tells this process's runners that a timer was made in it; may be rung from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._heard: tuple[Callable[[], None], ...] = ()

    def watch(self, heard: Callable[[], None]) -> Callable[[], None]:
        """Call `heard` at each ring, in the thread that rings; what is returned ends that."""
        with self._lock:
            self._heard = (*self._heard, heard)

        def leave() -> None:
            with self._lock:
                self._heard = tuple(one for one in self._heard if one is not heard)

        return leave

    def ring(self) -> None:
        """Tell all."""
        for heard in self._heard:
            heard()


class TimerRows:
    """Runs the statements on `timers`, inside of others' transactions.

    Whoever changes a timer together with its session holds the session's head row first.
    """

    def __init__(self, render: Renderer, sessions: Sessions) -> None:
        self._sessions = sessions
        lock = render.dialect.for_update
        self.bell = TimerBell()
        self._hold_session = render("SELECT state FROM {sessions} WHERE id = ?" + lock)
        self._count = render("SELECT COUNT(*) FROM {timers} WHERE session_id = ? AND wake_at_ms IS NOT NULL")
        self._insert = render(
            "INSERT INTO {timers} (id, session_id, state, name, made_by, schedule, body, input_hash, number,"
            " planned_at_ms, due_at_ms, wake_at_ms, owner, epoch, delivered, missed, vetoed, failures, last_error,"
            " created_at_ms, delivered_at_ms, ended_at_ms, op)"
            " VALUES (?, ?, 'armed', ?, ?, ?, ?, ?, 1, ?, ?, ?, NULL, 0, 0, 0, 0, 0, NULL, ?, NULL, NULL, ?)"
        )
        self._select = render(f"SELECT {_COLUMNS} FROM {{timers}} WHERE id = ?")
        self._op = render("SELECT op FROM {timers} WHERE id = ?" + lock)
        due, skip = f"SELECT {_COLUMNS} FROM {{timers}} WHERE wake_at_ms <= ?", render.dialect.skip_locked
        self._due = render(f"{due} ORDER BY wake_at_ms, id LIMIT ?{skip}")
        self._is_due = render(f"{due} AND id = ?{skip}")
        self._due_of = render(f"{due} AND made_by = ? ORDER BY wake_at_ms, id LIMIT ?{skip}")
        self._has_due = render("SELECT 1 FROM {timers} WHERE wake_at_ms <= ? AND made_by = ? LIMIT 1")
        self._claim = render(
            f"UPDATE {{timers}} SET owner = ?, epoch = epoch + 1, wake_at_ms = ?, op = ? WHERE id = ? AND {IS_KNOWN}"
        )
        # By the index of the times: a claim's is when it is over.
        self._owners = render(
            "SELECT DISTINCT owner FROM {timers} WHERE wake_at_ms > ? AND wake_at_ms <= ? AND owner IS NOT NULL"
        )
        self._free = render(
            "UPDATE {timers} SET owner = NULL, wake_at_ms = ?, op = ? WHERE owner = ? AND wake_at_ms > ?"
            f" AND {IS_KNOWN}"
        )
        self._version = render(f"SELECT MAX(version) FROM {{{SCHEMA_MIGRATIONS.name}}}")
        self._prefix = render.prefix
        self._next = render("SELECT MIN(wake_at_ms) FROM {timers} WHERE wake_at_ms IS NOT NULL")
        ours = "WHERE id = ? AND owner = ? AND epoch = ? AND wake_at_ms IS NOT NULL"
        self._move_on = render(
            "UPDATE {timers} SET state = ?, number = number + 1, planned_at_ms = ?, due_at_ms = ?, wake_at_ms = ?,"
            " owner = NULL, delivered = delivered + ?, missed = missed + ?, vetoed = vetoed + ?, failures = 0,"
            f" last_error = NULL, delivered_at_ms = COALESCE(?, delivered_at_ms), ended_at_ms = ?, op = ? {ours}"
        )
        self._put_back = render(
            "UPDATE {timers} SET due_at_ms = ?, wake_at_ms = ?, owner = NULL, failures = failures + ?, last_error = ?,"
            f" op = ? {ours}"
        )
        end = (
            "UPDATE {timers} SET state = ?, planned_at_ms = NULL, due_at_ms = NULL, wake_at_ms = NULL, owner = NULL,"
            " ended_at_ms = ?, op = ?"
        )
        self._end = render(f"{end} WHERE id = ? AND wake_at_ms IS NOT NULL")
        self._end_all = render(f"{end} WHERE session_id = ? AND wake_at_ms IS NOT NULL")
        self._page = render(f"SELECT {_COLUMNS} FROM {{timers}} WHERE id > ? ORDER BY id LIMIT ?")
        self._page_of = render(f"SELECT {_COLUMNS} FROM {{timers}} WHERE session_id = ? AND id > ? ORDER BY id LIMIT ?")
        self._armed = render(
            f"SELECT {_COLUMNS} FROM {{timers}} WHERE wake_at_ms IS NOT NULL AND id > ? ORDER BY id LIMIT ?"
        )
        self._armed_of = render(
            f"SELECT {_COLUMNS} FROM {{timers}} WHERE session_id = ? AND wake_at_ms IS NOT NULL AND id > ?"
            " ORDER BY id LIMIT ?"
        )

    def work(self, tx: Transaction, session_id: str, *, new_id: Callable[[], str], at_ms: int, op: str) -> TimerWork:
        """Return the timers of a session within a transaction that holds its head row."""
        return TimerWork(tx, self, session_id, new_id=new_id, at_ms=at_ms, op=op)

    async def insert_absent(self, tx: Transaction, new: NewTimer, *, at_ms: int, op: str) -> bool:
        """Make a timer whose id says what it is for, as part of a larger move; False where it is there already, or
        where its session is closed or gone, so that nobody could be woken.

        The session's head row is locked by it. Ring `bell` behind the commit, so that it need not be polled for.
        Raises `schedule.invalid`, `input.invalid`, `timer.limit`.
        """
        state = await tx.query(self._hold_session, (new.session_id,))
        if not state or state[0][0] != SessionState.OPEN.value or await self.get(tx, new.id) is not None:
            return False
        await self.insert(tx, new, at_ms=at_ms, op=op)
        return True

    async def schedule(self, tx: Transaction, new: NewTimer, *, at_ms: int, op: str) -> TimerRecord:
        """Make a timer, or return the one that was made of the same request. Raises `session.not_found`,
        `session.closed`, `timer.limit`, `request.conflict`."""
        rows = await tx.query(self._hold_session, (new.session_id,))
        if not rows:
            raise not_found(new.session_id)
        there = await self.get(tx, new.id)
        if there is not None:
            if (there.session_id, there.input_hash) != (new.session_id, new.input_hash):
                raise RequestConflictError(
                    f"timer {new.id!r} was made of another request: repeat a request with the same session, input and"
                    " schedule, or give another request_id",
                    session_id=new.session_id,
                    request_id=new.id,
                )
            return there
        if rows[0][0] != SessionState.OPEN.value:
            raise await self._sessions.refusal(tx, new.session_id, at_ms=at_ms, needs_open=True)
        await self.insert(tx, new, at_ms=at_ms, op=op)
        made = await self.get(tx, new.id)
        assert made is not None
        return made

    async def insert(self, tx: Transaction, new: NewTimer, *, at_ms: int, op: str) -> None:
        """Make a timer under a lock on its session. Raises `schedule.invalid`, `input.invalid`, `timer.limit`."""
        check_schedule(new.schedule)
        stored = settled(new.schedule, at_ms)
        planned_ms = first_run(stored, at_ms)
        if planned_ms is None:
            raise ScheduleError(f"{new.schedule!r:.300} plans no run: its end comes before its first one")
        if new.max_timers is not None:
            [(count,)] = await tx.query(self._count, (new.session_id,))
            if count >= new.max_timers:
                raise TimerLimitError(
                    f"session {new.session_id!r} has {count} timers, and may have {new.max_timers}: cancel some that it"
                    " needs no longer",
                    session_id=new.session_id,
                    max_timers=new.max_timers,
                )
        _, body = message_row(new.message)
        if len(body.encode()) > MAX_INPUT_BYTES:
            raise InputError(
                f"the input of a timer has {len(body.encode())} bytes as JSON, and may have {MAX_INPUT_BYTES}: write"
                " what is long to a file or a note, and name that"
            )
        due_ms = due_of(stored, planned_ms, new.id, 1)
        row = (
            *(new.id, new.session_id, None if new.name is None else clean_text(new.name), new.made_by.value),
            *(encode_json(schedule_to_json(stored), "schedule of a timer"), body, new.input_hash),
            *(planned_ms, due_ms, due_ms, at_ms, op),
        )
        await tx.execute(self._insert, row)

    async def get(self, tx: Transaction, timer_id: str) -> TimerRecord | None:
        """Return a timer; None where there is none."""
        rows = await tx.query(self._select, (timer_id,))
        return _record_of(rows[0]) if rows else None

    async def cancel(
        self,
        tx: Transaction,
        session_id: str | None,
        timer_id: str,
        *,
        at_ms: int,
        op: str,
        made_by: TimerMaker | None = None,
    ) -> bool:
        """End a timer, of this session and of this maker if they are given; False if it had ended. Raises
        `timer.not_found`, `input.invalid` for one that another made."""
        timer = await self.get(tx, timer_id)
        if timer is None or session_id not in (None, timer.session_id):
            raise timer_not_found(timer_id, session_id)
        if made_by not in (None, timer.made_by):
            raise InputError(
                f"timer {timer_id!r} was made by the {timer.made_by.value}, and can be cancelled there: of this session"
                f" only what the {made_by.value} made may be cancelled here"
            )
        return bool(await tx.execute(self._end, (TimerState.CANCELLED.value, at_ms, op, timer_id)))

    async def end_all(
        self, tx: Transaction, session_id: str, *, at_ms: int, op: str, state: TimerState = TimerState.SESSION_CLOSED
    ) -> int:
        """End the timers of a session, such as one that is closed; return how many."""
        return await tx.execute(self._end_all, (state.value, at_ms, op, session_id))

    async def owners(self, tx: Transaction, *, at_ms: int, until_ms: int) -> tuple[str, ...]:
        """Return who holds claims that are over by then."""
        return tuple([owner for (owner,) in await tx.query(self._owners, (at_ms, until_ms))])

    async def has_due(self, tx: Transaction, made_by: TimerMaker, *, at_ms: int) -> bool:
        """Tell whether a timer of a maker is due."""
        return bool(await tx.query(self._has_due, (at_ms, made_by.value)))

    async def free(self, tx: Transaction, owners: Sequence[str], *, at_ms: int, op: str) -> None:
        """Let what these owners have claimed be due again."""
        for owner in owners:
            await tx.execute(self._free, (at_ms, op, owner, at_ms))

    async def claim(
        self,
        tx: Transaction,
        owner: str,
        *,
        at_ms: int,
        until_ms: int,
        limit: int,
        only: Sequence[str] | None,
        made_by: TimerMaker | None,
        op: str,
    ) -> list[TimerClaim]:
        """Give out due timers, the longest overdue first. Raises `store.schema_newer`."""
        if made_by is not None:
            rows = await tx.query(self._due_of, (at_ms, made_by.value, limit))
        elif only is None:
            rows = await tx.query(self._due, (at_ms, limit))
        else:
            rows = [row for one in only[:limit] for row in await tx.query(self._is_due, (at_ms, one))]
        # They are locked, so that what is written is what was read; none is where a newer version has the tables.
        if not rows:
            return []
        if not await tx.execute_many(self._claim, [(owner, until_ms, op, row[0]) for row in rows]):
            refuse_newer((await tx.query(self._version))[0][0], self._prefix)
            return []
        claims = []
        for row in rows:
            # One that cannot be read holds nobody up: it is passed over until its claim is over, and again then.
            with contextlib.suppress(StoreCorruptError):
                timer = _record_of(row)
                claims.append(TimerClaim(replace(timer, owner=owner, epoch=timer.epoch + 1), at_ms))
        return claims

    async def next_wake(self, tx: Transaction) -> int | None:
        """Return when a timer has to be looked at first."""
        [(at_ms,)] = await tx.query(self._next)
        return None if at_ms is None else int(at_ms)

    async def move_on(
        self, tx: Transaction, claim: TimerClaim, *, at_ms: int, op: str, delivered: int, missed: int, vetoed: int
    ) -> bool:
        """Move a timer behind its firing, or end it; False where the claim is lost."""
        timer = claim.timer
        assert timer.planned_at_ms is not None
        # Behind a run that came too late, those that are not come all the same.
        passed_ms = missed_until(timer.schedule, at_ms) if missed else at_ms
        planned_ms, passed = next_run(timer.schedule, timer.planned_at_ms, passed_ms, timer.delivered + delivered)
        state, ended_at_ms, due_ms = TimerState.ARMED, None, None
        if planned_ms is None:
            state, ended_at_ms = TimerState.VETOED if vetoed else TimerState.DONE, at_ms
        else:
            due_ms = due_of(timer.schedule, planned_ms, timer.id, timer.number + 1)
        params = (
            *(state.value, planned_ms, due_ms, due_ms, delivered, missed + passed, vetoed),
            *(at_ms if delivered else None, ended_at_ms, op),
        )
        return bool(await tx.execute(self._move_on, (*params, *_claimed(claim))))

    async def put_back(
        self, tx: Transaction, claim: TimerClaim, *, due_ms: int, wake_ms: int, error: str | None, op: str
    ) -> bool:
        """Give a claim back, to be claimed again later; False where it is lost."""
        params = (due_ms, wake_ms, int(error is not None), error, op)
        return bool(await tx.execute(self._put_back, (*params, *_claimed(claim))))

    async def end_claimed(self, tx: Transaction, claim: TimerClaim, *, at_ms: int, op: str) -> None:
        """End the claimed timer of a session that takes no input."""
        await tx.execute(self._end, (TimerState.SESSION_CLOSED.value, at_ms, op, claim.timer.id))

    async def is_held(self, tx: Transaction, claim: TimerClaim) -> bool:
        """Tell whether a claim still counts."""
        timer = await self.get(tx, claim.timer.id)
        return timer is not None and (timer.owner, timer.epoch) == (claim.timer.owner, claim.timer.epoch)

    async def has_op(self, tx: Transaction, timer_id: str, op: str) -> bool:
        """Tell whether the last write on a timer has this token, behind one that is still on its way."""
        rows = await tx.query(self._op, (timer_id,))
        return bool(rows) and rows[0][0] == op

    async def page(
        self, tx: Transaction, session_id: str | None, *, with_ended: bool, after: str, limit: int
    ) -> list[TimerRecord]:
        """Return timers in order of their ids, behind one of them."""
        if session_id is None:
            rows = await tx.query(self._page if with_ended else self._armed, (after, limit))
        else:
            rows = await tx.query(self._page_of if with_ended else self._armed_of, (session_id, after, limit))
        return [_record_of(row) for row in rows]


class TimerWork:
    """Is the timers of one session within one transaction; satisfies `TimerTransaction`."""

    def __init__(
        self, tx: Transaction, rows: TimerRows, session_id: str, *, new_id: Callable[[], str], at_ms: int, op: str
    ) -> None:
        self._tx = tx
        self._rows = rows
        self._session_id = session_id
        self._new_id = new_id
        self._at_ms = at_ms
        self._op = op
        self.has_scheduled = False

    async def schedule(
        self, text: str, schedule: Schedule, *, name: str | None = None, max_timers: int | None = MAX_TIMERS
    ) -> TimerRecord:
        """Make a timer that brings `text` to the session."""
        given: Any = text
        if not isinstance(given, str) or not given:
            raise InputError(f"the text of a timer is {given!r:.80}: give at least one character")
        check_timer_name(name)
        message = Message(Role.USER, (TextPart(clean_text(text)),))
        new = NewTimer(
            *(self._new_id(), self._session_id, message, "", schedule),
            name=name,
            made_by=TimerMaker.MODEL,
            max_timers=max_timers,
        )
        made = await self._rows.schedule(self._tx, new, at_ms=self._at_ms, op=self._op)
        self.has_scheduled = True
        return made

    async def cancel(self, timer_id: str, *, made_by: TimerMaker | None = None) -> bool:
        """End a timer of the session, of this maker if one is given; False if it had ended. Raises `input.invalid`,
        `timer.not_found`."""
        check_timer_id(timer_id)
        return await self._rows.cancel(
            self._tx, self._session_id, timer_id, at_ms=self._at_ms, op=self._op, made_by=made_by
        )


# ---- parts ----


def timer_not_found(timer_id: str, session_id: str | None) -> TimerNotFoundError:
    """Return the error for a timer that is not there."""
    where = "there is no timer" if session_id is None else f"session {session_id!r} has no timer"
    return TimerNotFoundError(
        f"{where} {timer_id!r:.100}: list_timers() tells which there are; ended ones may have been pruned",
        timer_id=timer_id,
    )


def read_schedule(text: str, where: str) -> At | Every | Cron:
    """Return a stored schedule. Raises `store.corrupt`."""
    try:
        return schedule_from_json(decode_json(text, f"schedule of {where}"))
    except ScheduleError as error:
        raise StoreCorruptError(f"schedule of {where} is damaged: {error.message}") from error


def _claimed(claim: TimerClaim) -> tuple[str, str | None, int]:
    return claim.timer.id, claim.timer.owner, claim.timer.epoch


def _record_of(row: Row) -> TimerRecord:
    where = f"timer {row[0]!r}"
    timer_id, session_id = row[:2]
    return TimerRecord(
        timer_id,
        session_id,
        decode_choice(TimerState, row[2], f"state of {where}"),
        row[3],
        decode_choice(TimerMaker, row[4], f"maker of {where}"),
        read_schedule(row[5], where),
        decode_message(Role.USER.value, row[6], f"input of {where}"),
        *row[7:],
    )
