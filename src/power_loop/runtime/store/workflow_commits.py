"""Makes the durable moves of a workflow's run, one transaction each: the points where its engine can die."""

from __future__ import annotations

from typing import Any

from power_loop.contracts.clock import Clock
from power_loop.contracts.errors import InputError, RunNotFoundError, SessionNotFoundError, StoreCorruptError
from power_loop.contracts.messages import clean_text
from power_loop.contracts.records import Lease
from power_loop.contracts.session_ids import is_session_id
from power_loop.contracts.timers import TimerState
from power_loop.contracts.workflow_runs import (
    NewRun,
    RunEnd,
    RunWrite,
    WorkflowRunRecord,
    WorkflowSignalRecord,
    WorkflowStepRecord,
)
from power_loop.runtime.store.blobs import Blobs
from power_loop.runtime.store.budgets import Budgets
from power_loop.runtime.store.children import Children
from power_loop.runtime.store.codec import encode_json, encode_value
from power_loop.runtime.store.commits import new_op
from power_loop.runtime.store.messages import Messages, message_row
from power_loop.runtime.store.run_wakes import RunWakes
from power_loop.runtime.store.sends import Sends
from power_loop.runtime.store.sessions import Sessions
from power_loop.runtime.store.sql.database import Database, Statement, Transaction
from power_loop.runtime.store.timers import TimerRows
from power_loop.runtime.store.workflow_rows import RunRows

#: Signals that one run may be sent, those that nobody waited for included.
MAX_SIGNALS = 10_000
_MAX_NAME_CHARS = 255


class RunCommits:
    """Makes the moves. Those of an engine prove the lease of its run first."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        sessions: Sessions,
        children: Children,
        sends: Sends,
        messages: Messages,
        blobs: Blobs,
        budgets: Budgets,
        rows: RunRows,
        timers: TimerRows,
        wakes: RunWakes,
    ) -> None:
        self._database = database
        self._clock = clock
        self._sessions = sessions
        self._children = children
        self._sends = sends
        self._messages = messages
        self._blobs = blobs
        self._budgets = budgets
        self._rows = rows
        self._timers = timers
        self._wakes = wakes

    async def create(self, run: NewRun, *, lease: Lease | None) -> WorkflowRunRecord:
        """Make a run with its session, or return the one that is there already."""
        at_ms, op = self._clock.now_ms(), new_op()
        run_id = run.session.session_id

        async def body(tx: Transaction) -> WorkflowRunRecord:
            if await self._children.create(tx, lease, run.session, at_ms=at_ms, op=op):
                await self._rows.make(tx, run, at_ms=at_ms)
            return await self._get(tx, run_id)

        return await self._database.write("create_run", body, landed=lambda tx: self._sessions.has_op(tx, run_id, op))

    async def advance(self, lease: Lease, write: RunWrite, *, at_seq: int, send_index: int, end: RunEnd | None) -> None:
        """Write steps and what belongs to them, and with `end` bring the run to rest and give the lease back."""
        at_ms, op = self._clock.now_ms(), new_op()
        run_id = lease.session_id
        blobs: dict[str, str] = {}
        message = None if end is None else end.message
        rows = [] if message is None else [message_row(message, blobs)]
        guard = self._sessions.guard(lease, at_seq=at_seq, count=len(rows), is_last=end is not None, at_ms=at_ms, op=op)
        writes = self._rows.writes(run_id, write)
        tail: list[Statement] = [
            *self._budgets.settles(run_id, write.charges),
            *[self._sessions.close_free(child_id, at_ms=at_ms) for child_id in write.closes],
        ]
        ends: list[Statement] = []
        if end is None:
            tail.append(self._rows.touch(run_id, at_ms=at_ms))
        else:
            tail += self._budgets.settles(run_id, end.send.charges)
            tail += self._messages.inserts(run_id, rows, at_seq=at_seq, send_index=send_index, round=0, at_ms=at_ms)
            if end.is_final:
                tail.append(self._sessions.close_free(run_id, at_ms=at_ms))
            result = encode_json(end.send.result, "result of a send")
            ends = [
                self._rows.end(run_id, end, at_ms=at_ms),
                self._sends.end(run_id, send_index, status=end.send.status, result=result, at_ms=at_ms, op=op),
            ]

        async def body(tx: Transaction) -> None:
            # First, so that a stale engine changes nothing, and nobody else's move comes in between.
            if not await tx.execute(*guard):
                await self._sessions.raise_unwritten(tx, lease, at_seq)
            changed = await tx.execute_all((*writes, *ends, *tail))
            if not all(changed[: len(writes) + len(ends)]):
                raise StoreCorruptError(
                    f"the journal of run {run_id!r} is not as its engine knows it, so that nothing was written: read it"
                    " with get_run(), and look at the store with `power-loop doctor`"
                )
            await self._blobs.keep(tx, run_id, blobs, at_ms=at_ms)
            if end is None:
                return
            if end.send.has_payers:
                await self._budgets.settle_left(tx, run_id)
            await self._timers.end_all(tx, run_id, at_ms=at_ms, op=op, state=TimerState.CANCELLED)
            for timer in end.timers:
                await self._timers.insert_absent(tx, timer, at_ms=at_ms, op=op)

        async def landed(tx: Transaction) -> bool:
            if await self._sessions.has_op(tx, run_id, op):
                return True
            # Behind the end of a run's send somebody else may hold the lease already.
            return end is not None and await self._sends.has_op(tx, run_id, send_index, op)

        await self._database.write("end_run" if end is not None else "advance_run", body, landed=landed)
        if end is not None and end.timers:
            self._timers.bell.ring()

    async def signal(self, run_id: str, name: str, value: Any) -> WorkflowSignalRecord:
        """Leave a signal, and let the engine that runs hear of it, or wake a run that rests."""
        given: Any = name
        if not isinstance(given, str) or not given.strip() or len(given) > _MAX_NAME_CHARS:
            raise InputError(f"the name of a signal is {name!r:.80}: give text of 1 to {_MAX_NAME_CHARS} characters")
        text = encode_value(value, "value of a signal")
        _check_id(run_id)
        at_ms, op, position = self._clock.now_ms(), new_op(), 0

        async def body(tx: Transaction) -> WorkflowSignalRecord:
            nonlocal position
            # First, which orders signals among each other and with the moves of the engine.
            try:
                await self._sessions.signal(tx, run_id)
            except SessionNotFoundError:
                raise _no_run(run_id) from None
            run = await self._get(tx, run_id)
            if run.ended_at_ms is not None:
                raise InputError(f"run {run_id!r} has ended as {run.state!r}, so that it hears no signal any more")
            position = await self._rows.add_signal(tx, run_id, clean_text(name), text, at_ms=at_ms, op=op)
            if position > MAX_SIGNALS:
                raise InputError(f"run {run_id!r} was sent {MAX_SIGNALS} signals, which is as many as it takes")
            # In the same move: whoever dies behind it leaves a run that is found.
            await self._wakes.wake(tx, run_id, at_ms=at_ms)
            return WorkflowSignalRecord(run_id, position, clean_text(name), value, at_ms)

        async def landed(tx: Transaction) -> bool:
            # The look at the head waits for a write that is still on its way.
            await self._sessions.has_op(tx, run_id, op)
            return await self._rows.has_signal_op(tx, run_id, position, op)

        return await self._database.write("signal_run", body, landed=landed)

    # ---- reading ----

    async def get(self, run_id: str) -> WorkflowRunRecord:
        """Return a run. Raises `workflow.not_found`."""
        _check_id(run_id)
        return await self._database.read(lambda tx: self._get(tx, run_id))

    async def journal(
        self, run_id: str
    ) -> tuple[WorkflowRunRecord, tuple[WorkflowStepRecord, ...], tuple[WorkflowSignalRecord, ...]]:
        """Return a run with its steps and signals, in one snapshot."""
        _check_id(run_id)

        async def body(
            tx: Transaction,
        ) -> tuple[WorkflowRunRecord, tuple[WorkflowStepRecord, ...], tuple[WorkflowSignalRecord, ...]]:
            run = await self._get(tx, run_id)
            return run, await self._rows.steps(tx, run_id), await self._rows.signals(tx, run_id)

        return await self._database.read(body)

    async def signals(self, run_id: str, *, after: int) -> tuple[WorkflowSignalRecord, ...]:
        """Return the signals to a run behind a position."""
        return await self._database.read(lambda tx: self._rows.signals(tx, run_id, after=after))

    async def page(
        self, *, state: str | None, parent_session_id: str | None, before: tuple[int, str] | None, limit: int
    ) -> tuple[WorkflowRunRecord, ...]:
        """Return runs, newest first."""
        return await self._database.read(
            lambda tx: self._rows.page(tx, state=state, parent_session_id=parent_session_id, before=before, limit=limit)
        )

    async def _get(self, tx: Transaction, run_id: str) -> WorkflowRunRecord:
        found = await self._rows.get(tx, run_id)
        if found is None:
            raise _no_run(run_id)
        return found


def _check_id(run_id: str) -> None:
    """Refuse an id that no run can have, before a database has to compare it."""
    if not is_session_id(run_id):
        raise _no_run(run_id)


def _no_run(run_id: str) -> RunNotFoundError:
    return RunNotFoundError(
        f"there is no run {run_id!r:.200} in this store: list_runs() tells which there are", session_id=run_id
    )
