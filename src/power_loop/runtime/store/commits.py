"""Makes every durable move of a turn, one transaction each: the complete list of the points where a turn can die."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypedDict, TypeVar

from power_loop.contracts.budgets import BudgetKey, Charge, Granted, NewHold, Shortage
from power_loop.contracts.clock import Clock
from power_loop.contracts.errors import (
    InputError,
    RequestConflictError,
    SessionBusyError,
    SessionClosedError,
    SessionPendingError,
    StoreCorruptError,
    StoreError,
)
from power_loop.contracts.messages import clean_text
from power_loop.contracts.ports import Signalled
from power_loop.contracts.records import (
    ANY_SIGNALS,
    Accepted,
    AgentReport,
    CallRecord,
    CallStep,
    Claim,
    EffectFailure,
    FoldRecord,
    InboxRecord,
    Lease,
    NewFold,
    NewReply,
    NewSend,
    SendEnd,
    SendRecord,
    TakenInput,
)
from power_loop.contracts.states import CallState, NextInput, WaitKind
from power_loop.contracts.tools import ToolBody
from power_loop.runtime.store.blackboard import Boards, BoardWork
from power_loop.runtime.store.blobs import Blobs
from power_loop.runtime.store.budgets import Budgets
from power_loop.runtime.store.codec import encode_json
from power_loop.runtime.store.effects import BodyRaised, EffectRun
from power_loop.runtime.store.folds import Folds, refusal_of
from power_loop.runtime.store.inbox import Inbox, next_input_of
from power_loop.runtime.store.messages import Messages, message_row
from power_loop.runtime.store.projections import Projections
from power_loop.runtime.store.run_wakes import RunWakes
from power_loop.runtime.store.sends import UNFINISHED_SENDS, Sends
from power_loop.runtime.store.sessions import Head, Sessions, ttl_ms_of
from power_loop.runtime.store.sql.database import Database, DuplicateKeyError, Statement, Transaction
from power_loop.runtime.store.timers import TimerRows
from power_loop.runtime.store.tool_calls import ToolCalls, ledger_steps
from power_loop.runtime.store.usage import ModelCalls

_MAX_REQUEST_ID_CHARS = 255
_UNFINISHED = frozenset(status.value for status in UNFINISHED_SENDS)


class Commits:
    """Makes the moves. What can be prepared is prepared before the transaction, which holds up all others."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        sessions: Sessions,
        messages: Messages,
        sends: Sends,
        calls: ToolCalls,
        model_calls: ModelCalls,
        folds: Folds,
        projections: Projections,
        inbox: Inbox,
        blobs: Blobs,
        budgets: Budgets,
        boards: Boards,
        timers: TimerRows,
        wakes: RunWakes,
    ) -> None:
        self._database = database
        self._clock = clock
        self._sessions = sessions
        self._messages = messages
        self._sends = sends
        self._calls = calls
        self._model_calls = model_calls
        self._folds = folds
        self._projections = projections
        self._inbox = inbox
        self._blobs = blobs
        self._budgets = budgets
        self._boards = boards
        self._timers = timers
        self._wakes = wakes

    async def accept(self, claim: Claim, new: NewSend) -> Accepted | SendRecord | InboxRecord:
        """Take the lease and store the input of a new send, or return what has this `request_id` already, or the input
        that has to come before."""
        at_ms, op = self._clock.now_ms(), new_op()
        session_id = claim.session_id
        blobs: dict[str, str] = {}
        row = message_row(new.message, blobs)
        options = encode_json(new.options, "options of a send")
        request_id = None if new.request_id is None else checked_request_id(new.request_id)
        index = 0

        async def body(
            tx: Transaction,
        ) -> Accepted | SendRecord | InboxRecord | SessionBusyError | SessionClosedError:
            nonlocal index
            if request_id is not None and new.inbox_position is None:
                known = await self._sends.get(tx, session_id, request_id=request_id)
                if known is not None:
                    return _same_request(known, new)
            head = await self._sessions.take_for_new_send(tx, claim, at_ms=at_ms, op=op)
            if head is None:
                refusal = await self._sessions.refusal(tx, session_id, at_ms=at_ms, needs_open=True)
                # On a server the same request may have been accepted while this one waited for the head.
                other = await self.known(tx, session_id, new) if request_id is not None else None
                return refusal if other is None else other
            if head.open_calls:
                raise _pending(session_id, await self._calls.read_open(tx, session_id))
            before = await self._input_before(tx, session_id, head, new)
            if before is not None:
                raise _NotTaken(before)
            if head.send_status in _UNFINISHED:
                await self._sends.interrupt(tx, session_id, head.send_count - 1, at_ms=at_ms)
                await self._budgets.settle_left(tx, session_id)
            seq, index = head.next_seq - 1, head.send_count
            send = self._sends.insert(
                session_id,
                index,
                request_id=request_id,
                input_hash=new.input_hash,
                options=options,
                first_seq=seq,
                at_ms=at_ms,
                op=op,
                paid_by=new.paid_by,
            )
            statements = [
                send,
                *self._messages.inserts(session_id, (row,), at_seq=seq, send_index=index, round=0, at_ms=at_ms),
            ]
            if new.inbox_position is not None:
                place = (new.inbox_position, index, seq)
                statements += self._inbox.takes(session_id, (place,), at_ms=at_ms)
                statements.append(self._sessions.settle_inbox(session_id, behind=new.inbox_position))
            await self._blobs.keep(tx, session_id, blobs, at_ms=at_ms)
            await tx.execute_all(statements)
            if new.budget is not None:
                await self._budgets.make(tx, BudgetKey(session_id, index), new.budget, at_ms=at_ms)
            taken = _accepted(claim, head, at_ms)
            if new.inbox_position is None:
                return taken
            behind = await self._inbox.first(tx, session_id)
            return replace(taken, next_input=NextInput.NONE if behind is None else next_input_of(behind))

        async def landed(tx: Transaction) -> bool:
            # The look at the head waits for a write that is still on its way.
            is_last = await self._sessions.has_op(tx, session_id, op)
            return is_last or await self._sends.has_op(tx, session_id, index, op)

        try:
            outcome = await self._database.write("accept", body, landed=landed)
        except _NotTaken as refusal:
            return refusal.record
        if isinstance(outcome, (SessionBusyError, SessionClosedError)):
            raise outcome
        return outcome

    async def known(self, tx: Transaction, session_id: str, new: NewSend) -> SendRecord | InboxRecord | None:
        """Return the send or the input that has the `request_id` of another already. Raises `request.conflict`."""
        assert new.request_id is not None
        send = await self._sends.get(tx, session_id, request_id=new.request_id)
        if send is not None:
            return _same_request(send, new)
        record = await self._inbox.get(tx, session_id, request_id=new.request_id)
        return None if record is None else _same_request(record, new)

    async def _input_before(self, tx: Transaction, session_id: str, head: Head, new: NewSend) -> InboxRecord | None:
        """Return an input that forbids to accept another, now that the lease lets no further one be accepted: one with
        the same `request_id`, or one that came first."""
        if new.inbox_position is None and new.request_id is not None:
            record = await self._inbox.get(tx, session_id, request_id=new.request_id)
            if record is not None:
                return _same_request(record, new)
        if head.next_input is NextInput.NONE and new.inbox_position is None:
            return None
        first = await self._inbox.first(tx, session_id)
        if new.inbox_position is None or (first is not None and first.position != new.inbox_position):
            return first
        return None if first is not None else await self._inbox.get(tx, session_id, position=new.inbox_position)

    async def take_up(self, claim: Claim, *, drives: bool = True) -> Accepted:
        """Take the lease, and where it `drives`, let the last send run on unless it has ended for good."""
        at_ms, op = self._clock.now_ms(), new_op()

        async def body(tx: Transaction) -> Accepted | SessionBusyError | SessionClosedError:
            head = await self._sessions.take(tx, claim, at_ms=at_ms, op=op)
            if head is None:
                return await self._sessions.refusal(tx, claim.session_id, at_ms=at_ms, needs_open=False)
            await self._budgets.settle_left(tx, claim.session_id)
            if drives:
                await self._sends.run_again(tx, claim.session_id, head.send_count)
            return _accepted(claim, head, at_ms)

        outcome = await self._database.write(
            "take_up", body, landed=lambda tx: self._sessions.has_op(tx, claim.session_id, op)
        )
        if isinstance(outcome, (SessionBusyError, SessionClosedError)):
            raise outcome
        return outcome

    async def append_reply(self, lease: Lease, reply: NewReply) -> None:
        """Store a reply, its calls, its usage and, if the send ends with it, the end."""
        at_ms, op = self._clock.now_ms(), new_op()
        session_id, at_seq, index = lease.session_id, reply.at_seq, reply.send_index
        blobs: dict[str, str] = {}
        rows = [message_row(message, blobs) for message in reply.messages]
        place: _Place = {"send_index": index, "round": reply.round, "at_ms": at_ms}
        result_seqs = {called: at_seq + nth for nth, called in enumerate(reply.answered, 1)}
        statements = [
            *self._messages.inserts(session_id, rows, at_seq=at_seq, **place),
            self._model_calls.insert(session_id, reply.call, reply_seq=at_seq, **place),
            *self._calls.inserts(
                session_id, reply.calls, reply_seq=at_seq, send_index=index, result_seqs=result_seqs, at_ms=at_ms
            ),
            *self._budgets.settles(session_id, reply.charges),
        ]
        guard = self._sessions.guard(
            lease, at_seq=at_seq, count=len(rows), is_last=reply.end is not None, at_ms=at_ms, op=op
        )
        moved = (guard, *statements)
        await self._write("append_reply", lease, at_seq, index, moved, end=reply.end, at_ms=at_ms, op=op, blobs=blobs)

    async def advance_calls(
        self,
        lease: Lease,
        steps: Sequence[CallStep],
        *,
        at_seq: int,
        send_index: int,
        round: int,
        tool_state: Mapping[str, Any] | None,
        end: SendEnd | None,
    ) -> None:
        """Make steps of the ledger and append the answers that they bring."""
        at_ms, op = self._clock.now_ms(), new_op()
        session_id = lease.session_id
        blobs: dict[str, str] = {}
        rows = [message_row(step.message, blobs) for step in steps if step.message is not None]
        prepared = ledger_steps(session_id, steps, at_seq=at_seq, at_ms=at_ms, blobs=blobs)
        statements = [
            *self._calls.updates(session_id, prepared),
            *self._messages.inserts(session_id, rows, at_seq=at_seq, send_index=send_index, round=round, at_ms=at_ms),
        ]
        if tool_state is not None:
            statements.append(self._set_tool_state(session_id, tool_state))
        guard = self._sessions.guard(lease, at_seq=at_seq, count=len(rows), is_last=end is not None, at_ms=at_ms, op=op)

        async def check(tx: Transaction, changed: Sequence[int]) -> None:
            await self._calls.check_made(tx, session_id, prepared, changed=changed)

        await self._write(
            "advance_calls",
            lease,
            at_seq,
            send_index,
            (guard, *statements),
            end=end,
            at_ms=at_ms,
            op=op,
            blobs=blobs,
            check=check,
        )

    async def run_effect(
        self,
        lease: Lease,
        name: str,
        body: ToolBody,
        *,
        end: Callable[[Any], CallStep],
        at_seq: int,
        send_index: int,
        round: int,
        tool_state: Mapping[str, Any] | None,
    ) -> CallStep | EffectFailure:
        """Run a tool's body in the transaction that makes the step of its call."""
        at_ms, op = self._clock.now_ms(), new_op()
        session_id, database = lease.session_id, self._database
        guard = self._sessions.guard(lease, at_seq=at_seq, count=1, is_last=False, at_ms=at_ms, op=op)
        states = [] if tool_state is None else [self._set_tool_state(session_id, tool_state)]

        def tell(point: str) -> None:
            if database.on_point is not None:
                database.on_point(point, name)

        run = EffectRun(body, end, dialect=database.dialect, tell=tell)

        rings = False

        async def work(tx: Transaction) -> CallStep:
            nonlocal rings
            # First, so that nobody else holds the session while the body runs, and a stale owner's body never does.
            if not await tx.execute(*guard):
                await self._sessions.raise_unwritten(tx, lease, at_seq)
            board = BoardWork(tx, self._boards, session_id, author=session_id, at_ms=at_ms, op=op)
            timers = self._timers.work(tx, session_id, new_id=lambda: self._clock.new_id("tmr"), at_ms=at_ms, op=op)
            step = await run.step(tx, board, timers)
            rings = timers.has_scheduled
            blobs: dict[str, str] = {}
            prepared = ledger_steps(session_id, (step,), at_seq=at_seq, at_ms=at_ms, blobs=blobs)
            rows = [message_row(step.message, blobs)] if step.message is not None else []
            await self._blobs.keep(tx, session_id, blobs, at_ms=at_ms)
            place: _Place = {"send_index": send_index, "round": round, "at_ms": at_ms}
            messages = self._messages.inserts(session_id, rows, at_seq=at_seq, **place)
            changed = await tx.execute_all((*self._calls.updates(session_id, prepared), *messages, *states))
            await self._calls.check_made(tx, session_id, prepared, changed=changed)
            return step

        try:
            step = await database.write("run_effect", work, landed=lambda tx: self._sessions.has_op(tx, session_id, op))
            if rings:
                self._timers.bell.ring()
            return step
        except BodyRaised as raised:
            return EffectFailure(raised.error)
        except StoreError as error:
            failure = run.failure(error)
            if failure is None:
                raise
            return EffectFailure(failure)

    def _set_tool_state(self, session_id: str, tool_state: Mapping[str, Any]) -> Statement:
        return self._sessions.set_tool_state(session_id, encode_json(tool_state, "state of tools"))

    async def take_inputs(
        self, lease: Lease, inputs: Sequence[TakenInput], *, at_seq: int, send_index: int, round: int
    ) -> None:
        """Move the first waiting inputs into the log."""
        at_ms, op = self._clock.now_ms(), new_op()
        session_id = lease.session_id
        blobs: dict[str, str] = {}
        rows = [message_row(taken.message, blobs) for taken in inputs if taken.message is not None]
        seqs = iter(range(at_seq, at_seq + len(rows)))
        places = [
            (taken.position, None, None) if taken.message is None else (taken.position, send_index, next(seqs))
            for taken in inputs
        ]
        takes = self._inbox.takes(session_id, places, at_ms=at_ms)
        guard = self._sessions.guard_taking(
            lease, to_position=inputs[-1].position, at_seq=at_seq, count=len(rows), at_ms=at_ms, op=op
        )
        messages = self._messages.inserts(
            session_id, rows, at_seq=at_seq, send_index=send_index, round=round, at_ms=at_ms
        )

        async def check(tx: Transaction, changed: Sequence[int]) -> None:
            if not all(changed[: len(takes)]):
                if lease.signals == ANY_SIGNALS:
                    # One of them was taken back meanwhile.
                    raise Signalled(await self._sessions.news(tx, lease))
                raise StoreCorruptError(
                    f"session {session_id!r}: inputs {[place[0] for place in places]} of its inbox do not all wait, so"
                    " that they cannot be taken; nothing was written"
                )

        await self._write(
            "take_inputs",
            lease,
            at_seq,
            send_index,
            (guard, *takes, *messages),
            end=None,
            at_ms=at_ms,
            op=op,
            blobs=blobs,
            check=check,
        )

    async def append_fold(self, lease: Lease, fold: NewFold, *, at_seq: int) -> FoldRecord:
        """Store a fold: its summary stands for the log up to its `to_seq`."""
        at_ms, op = self._clock.now_ms(), new_op()
        session_id = lease.session_id
        guard = self._sessions.guard(lease, at_seq=at_seq, count=0, is_last=False, at_ms=at_ms, op=op)
        states = [] if fold.tool_state is None else [self._set_tool_state(session_id, fold.tool_state)]

        async def body(tx: Transaction) -> FoldRecord:
            # First, so that nobody else folds meanwhile.
            if not await tx.execute(*guard):
                await self._sessions.raise_unwritten(tx, lease, at_seq)
            before = await self._folds.newest(tx, await self._sessions.spans(tx, session_id))
            from_seq = 1 if before is None else before.to_seq + 1
            refusal = refusal_of(session_id, fold, from_seq=from_seq, at_seq=at_seq)
            if refusal is not None:
                raise StoreCorruptError(f"{refusal}; nothing was written")
            insert, record = self._folds.insert(session_id, fold, from_seq=from_seq, last_seq=at_seq - 1, at_ms=at_ms)
            await tx.execute_all((insert, *states, *self._budgets.settles(session_id, fold.charges)))
            return record

        return await self._database.write(
            "append_fold", body, landed=lambda tx: self._sessions.has_op(tx, session_id, op)
        )

    async def end_send(self, lease: Lease, send_index: int, end: SendEnd) -> None:
        """Bring a send to rest and release the lease."""
        at_ms, op = self._clock.now_ms(), new_op()
        guard = self._sessions.guard_end(lease, at_ms=at_ms, op=op)
        await self._write("end_send", lease, None, send_index, (guard,), end=end, at_ms=at_ms, op=op, blobs={})

    async def _write(
        self,
        move: str,
        lease: Lease,
        at_seq: int | None,
        send_index: int,
        statements: Sequence[Statement],
        *,
        end: SendEnd | None,
        at_ms: int,
        op: str,
        blobs: dict[str, str],
        check: Callable[[Transaction, Sequence[int]], Awaitable[None]] | None = None,
    ) -> None:
        """Run the statements of a move, whose first one proves the lease, and with `end` the one that ends the send.

        `blobs` is the data that its messages refer to.
        `check` looks at how many rows each of those behind the first one changed. Raises `session.lease_lost`, and
        `Signalled`.
        """
        session_id = lease.session_id
        if end is not None:
            result = encode_json(end.result, "result of a send")
            ending = self._sends.end(session_id, send_index, status=end.status, result=result, at_ms=at_ms, op=op)
            rows = self._projections.replaces(session_id, end.projection, at_ms=at_ms, blobs=blobs)
            settles = self._budgets.settles(session_id, end.charges)
            statements = (*statements, *settles, *rows, ending)
        report = None if end is None else end.report

        async def body(tx: Transaction) -> None:
            if blobs:
                # The guard goes first by itself, so that the look for what is known runs while the head row is held.
                guard, *rest = statements
                if not await tx.execute(*guard):
                    raise _Unwritten
                await self._blobs.keep(tx, session_id, blobs, at_ms=at_ms)
                changed = [await tx.execute(*statement) for statement in rest]
            else:
                has_lease, *changed = await tx.execute_all(statements)
                if not has_lease:
                    raise _Unwritten
            if check is not None:
                await check(tx, changed)
            if end is not None and not changed[-1]:
                raise StoreCorruptError(
                    f"send {send_index} of session {session_id!r} does not run, so that it cannot end as"
                    f" {end.status.value!r}"
                )
            if end is not None and end.has_payers:
                await self._budgets.settle_left(tx, session_id)
            if report is not None:
                await self.leave_report(tx, report, at_ms=at_ms, op=op)
            if end is not None and end.wakes is not None:
                await self._wakes.wake(tx, end.wakes, at_ms=at_ms)

        async def landed(tx: Transaction) -> bool:
            if await self._sessions.has_op(tx, session_id, op):
                return True
            # Behind the end of a send somebody else may hold the lease already.
            return end is not None and await self._sends.has_op(tx, session_id, send_index, op)

        try:
            await self._database.write(move, body, landed=landed)
        except _Unwritten:
            # Only now: what else was in the batch may have run, and is undone.
            await self._database.read(lambda tx: self._sessions.raise_unwritten(tx, lease, at_seq))
        except DuplicateKeyError:
            # Somebody else wrote where this wants to, so that the lease is lost; if it is not, that is what is wrong.
            await self._database.read(lambda tx: self._sessions.check_held(tx, lease, at_seq))
            raise

    async def reserve(
        self, lease: Lease, wish: NewHold, charges: Sequence[Charge], *, at_seq: int
    ) -> Granted | Shortage:
        """Hold what the next call may take; earlier ones hold no more than what they came to."""
        at_ms, op = self._clock.now_ms(), new_op()
        session_id = lease.session_id
        # Who else has something to say is heard by the move that the call leads to.
        proof = replace(lease, signals=ANY_SIGNALS)
        guard = self._sessions.guard(proof, at_seq=at_seq, count=0, is_last=False, at_ms=at_ms, op=op)

        async def body(tx: Transaction) -> Granted | Shortage:
            if not await tx.execute(*guard):
                await self._sessions.raise_unwritten(tx, proof, at_seq)
            return await self._budgets.reserve(tx, session_id, wish, charges, at_ms=at_ms)

        return await self._database.write("reserve", body, landed=lambda tx: self._sessions.has_op(tx, session_id, op))

    async def leave_report(self, tx: Transaction, report: AgentReport, *, at_ms: int, op: str) -> None:
        """Leave a report in the inbox of another session, unless that has it, is closed or is not there."""
        session_id, request_id = report.session_id, report.request_id
        if await self._inbox.get(tx, session_id, request_id=request_id) is not None:
            return
        if not await self._sessions.count_input(tx, session_id, at_ms=at_ms):
            return
        position, *_ = await self._sessions.inbox_of(tx, session_id)
        _, body = message_row(report.message)
        sql, row = self._inbox.insert(
            session_id,
            position,
            request_id=request_id,
            input_hash="",
            body=body,
            options="{}",
            at_ms=at_ms,
            op=op,
        )
        await tx.execute(sql, row)

    async def renew(self, lease: Lease, *, ttl_s: float) -> None:
        """Lengthen the lease."""
        at_ms = self._clock.now_ms()

        async def body(tx: Transaction) -> None:
            await self._sessions.renew(tx, lease, ttl_ms=ttl_ms_of(ttl_s), at_ms=at_ms)

        await self._database.write("renew", body)

    async def release(self, lease: Lease, *, hands_back: bool) -> None:
        """Give the lease back; does nothing if it is lost already."""
        at_ms = self._clock.now_ms()

        async def body(tx: Transaction) -> None:
            if await self._sessions.release(tx, lease, at_ms=at_ms) and hands_back:
                await self._sends.count_down(tx, lease.session_id)
                await self._sessions.tell_of_work(tx, lease.session_id)

        await self._database.write("release", body)


class _Place(TypedDict):
    """Is where in its session something belongs, and when it came."""

    send_index: int
    round: int
    at_ms: int


def new_op() -> str:
    """Return a fresh token, by which a write can be found again."""
    return os.urandom(8).hex()


class _Unwritten(Exception):  # noqa: N818  (a signal of this room to itself, not an error)
    """Undoes a move whose guard changed no row."""


class _NotTaken(Exception):  # noqa: N818  (a signal of this room to itself, not an error)
    """Undoes the taking of a lease, because of an input that stands in the inbox."""

    def __init__(self, record: InboxRecord) -> None:
        super().__init__(record.position)
        self.record = record


def _accepted(claim: Claim, head: Head, at_ms: int) -> Accepted:
    return Accepted(
        Lease(claim.session_id, claim.owner, head.epoch, head.signals),
        head.send_count,
        head.next_seq,
        head.version,
        at_ms,
        head.previous_owner,
        head.next_input,
    )


_Known = TypeVar("_Known", bound=SendRecord | InboxRecord)


def _same_request(known: _Known, new: NewSend) -> _Known:
    request_id = str(new.request_id)
    if known.input_hash != new.input_hash:
        place = f"send {known.index}" if isinstance(known, SendRecord) else f"input {known.position} of its inbox"
        raise RequestConflictError(
            f"request_id {request_id!r} was used in session {known.session_id!r} for {place} with another"
            " input or output_schema: a request_id belongs to one request, give this one a new one",
            session_id=known.session_id,
            request_id=request_id,
        )
    return known


def _pending(session_id: str, calls: tuple[CallRecord, ...]) -> SessionPendingError:
    call_ids = tuple([call.call_id for call in calls])
    waiting = [call for call in calls if call.state is CallState.WAITING]
    ways = [] if len(waiting) == len(calls) else [f"resume({session_id!r}) goes on with what did not come to its end"]
    if waiting:
        answer = "Approve()" if waiting[0].wait_kind is WaitKind.APPROVAL else "Give(...)"
        answers = f"{{{waiting[0].call_id!r}: {answer}}}"
        ways.append(f"resume({session_id!r}, answers={answers}) answers what waits")
    ways.append("send(..., heal_pending=True) gives all of it up and goes on")
    return SessionPendingError(
        f"session {session_id!r} has {_counted(call_ids)}: {', '.join(ways)}", session_id=session_id, call_ids=call_ids
    )


def _counted(call_ids: tuple[str, ...]) -> str:
    """Return open calls in words, such as `2 open calls ('c1', 'c2')`."""
    count = f"{len(call_ids)} open call{'' if len(call_ids) == 1 else 's'}"
    return f"{count} ({', '.join(map(repr, call_ids))})"


def checked_request_id(request_id: Any) -> str:
    """Return a request id that can be stored. Raises `input.invalid` for anything else."""
    is_text = isinstance(request_id, str) and 0 < len(request_id) <= _MAX_REQUEST_ID_CHARS
    if not is_text or clean_text(request_id) != request_id:
        raise InputError(
            f"request_id {request_id!r:.80} is not usable: give text of 1 to {_MAX_REQUEST_ID_CHARS} characters"
        )
    return str(request_id)
