"""Drives one run: decide, write down, do what was decided side by side, write down what came of it, and again."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from power_loop.agent.subagents import Agents, agent_id_of
from power_loop.contracts.budgets import NANOS, Amounts, sum_of_costs
from power_loop.contracts.cancellation import CancellationToken
from power_loop.contracts.errors import (
    LeaseLostError,
    PowerLoopError,
    SendPoisonedError,
    SessionNotFoundError,
    StoreCorruptError,
    StoreError,
    StoreNewerError,
    StoreSchemaError,
    StoreUnsupportedError,
    StoreValueError,
    TransactionError,
)
from power_loop.contracts.events import (
    SendFailed,
    SendFinished,
    SessionClosed,
    WorkflowRunFinished,
    WorkflowRunStarted,
    WorkflowStepFinished,
    WorkflowStepStarted,
)
from power_loop.contracts.llm import LLMService, Usage
from power_loop.contracts.messages import Message, Role, TextPart, clean_text, user_message
from power_loop.contracts.ports import Signalled
from power_loop.contracts.records import News
from power_loop.contracts.results import StatefulResult
from power_loop.contracts.schedules import After, At
from power_loop.contracts.states import SendStatus
from power_loop.contracts.timers import MAX_NAME_CHARS, NewTimer, TimerMaker, timer_id_of
from power_loop.contracts.workflow_runs import RunEnd, RunWrite
from power_loop.core.stray import said
from power_loop.core.turn.chain import start
from power_loop.core.turn.outcome import result_of
from power_loop.core.turn.scope import StopCause, TurnStopped
from power_loop.core.turn.turn import Turn
from power_loop.workflow.actions import (
    Action,
    Finish,
    RunStatus,
    Settle,
    StartAgent,
    StartTool,
    StartWait,
    Stop,
    Wait,
)
from power_loop.workflow.decide import decide
from power_loop.workflow.executors import LeafExecutor, LeafOutcome, LeafTask, leaf_key
from power_loop.workflow.journal import Journal, StepError, StepRecord, StepState
from power_loop.workflow.journal_rows import row_of, signal_of
from power_loop.workflow.leaf import TRANSIENT, RunHost
from power_loop.workflow.spec import WorkflowSpec
from power_loop.workflow.tool_step import run_tool_step

#: The code of a step whose own time was over.
TIMEOUT = "workflow.timeout"
#: The code of a run that would have more steps than it may.
TOO_MANY_STEPS = "workflow.too_many_steps"
#: Trouble of the database that does not pass: a run that has it has failed.
FOR_GOOD = (
    StoreCorruptError,
    StoreNewerError,
    StoreSchemaError,
    StoreUnsupportedError,
    StoreValueError,
    TransactionError,
)
_UNENDED = (SendStatus.RUNNING, SendStatus.WAITING_FOR_INPUT)
#: How the send of a run ends.
SEND_OF = {
    RunStatus.COMPLETED: SendStatus.COMPLETED,
    RunStatus.FAILED: SendStatus.FAILED,
    RunStatus.CANCELLED: SendStatus.CANCELLED,
    RunStatus.WAITING: SendStatus.WAITING_FOR_INPUT,
}
_MAX_REPORT_CHARS = 4_000
_MAX_SLEEP_S = 3_600.0
#: A run for which nobody waits rests where nothing is to be done for longer than this, in seconds: a timer wakes it.
REST_FROM_S = 5.0
# How often an engine that has other work looks whether the persons answered whom its leaves asked.
_ASLEEP_S = 1.0


class RunTurn(Turn):
    """Is the turn of a run's engine: what somebody outside says wakes it."""

    __slots__ = ("woken",)

    def __init__(self, *args: Any, **members: Any) -> None:
        super().__init__(*args, **members)
        self.woken = asyncio.Event()

    def hear(self, news: News) -> None:
        """Take in what somebody outside has to say."""
        super().hear(news)
        self.woken.set()


@dataclass(slots=True)
class _Running:
    """Is a step that an executor has. `why` says why it was stopped, if it was."""

    action: StartAgent | StartTool
    host: RunHost
    token: CancellationToken
    started_at_ms: int
    task: asyncio.Task[LeafOutcome] | None = None
    timer: asyncio.TimerHandle | None = None
    why: str | None = None

    def stop(self, why: str) -> None:
        """Stop it, unless it was stopped before."""
        if self.why is None and self.task is not None and not self.task.done():
            self.why = why
            self.token.cancel(why)
            self.task.cancel()


@dataclass(slots=True)
class _Unwritten:
    """Is what the next move writes."""

    records: dict[str, StepRecord] = field(default_factory=dict)
    # A step whose next attempt is due at once has ended in this move and stands in it as started.
    ended: list[StepRecord] = field(default_factory=list)
    taken: list[tuple[int, str]] = field(default_factory=list)
    closes: list[str] = field(default_factory=list)
    cancels: dict[str, Any] | None = None

    @property
    def is_empty(self) -> bool:
        """True where there is nothing to write."""
        return not (self.records or self.taken or self.closes or self.cancels)


class Engine:
    """Drives a run under the lease of its session, until it rests."""

    def __init__(
        self,
        turn: RunTurn,
        agents: Agents,
        executor: LeafExecutor,
        spec: WorkflowSpec,
        journal: Journal,
        *,
        models: Mapping[str, LLMService],
        parent_session_id: str | None,
        max_concurrency: int,
        made_at_ms: int,
        max_steps: int,
        deliver: Callable[[str], object],
    ) -> None:
        self._turn = turn
        self._agents = agents
        self._executor = executor
        self._spec = spec
        self._journal = journal
        self._models = models
        self._parent_id = parent_session_id
        self._max_concurrency = max_concurrency
        self._made_at_ms = made_at_ms
        self._max_steps = max_steps
        self._too_much: StepError | None = None
        self._deliver = deliver
        self._rows = set(journal.records)
        self._ended = sum(record.ended_at_ms is not None for record in journal.records.values())
        self._signals = max(journal.signals, default=0)
        self._heard = turn.lease.signals
        self._running: dict[str, _Running] = {}
        # Leaves that wait for a person: nobody has to do anything before that one answers.
        self._asleep: dict[str, LeafOutcome] = {}
        self._unwritten = _Unwritten()

    async def run(self, *, is_resume: bool) -> StatefulResult:
        """Return how the run's send rests."""
        turn = self._turn
        turn.announce(WorkflowRunStarted(self._spec.name, is_resume))
        try:
            return await self._drive()
        except LeaseLostError as error:
            turn.announce(SendFailed(error.code, error.message))
            raise
        except Exception as error:
            await self._leave_running()
            # What others gave is kept.
            with contextlib.suppress(StoreError, LeaseLostError):
                await self._write()
            if isinstance(error, StoreError) and not isinstance(error, FOR_GOOD):
                # The database is away, which is nothing of the run's: it is left to whoever finds it, and has not died.
                turn.scope.is_handed_back = True
                turn.announce(SendFailed(error.code, error.message))
            else:
                await self._fail(error)
            raise
        finally:
            await self._leave_running()

    async def give_up(self, attempts: int) -> StatefulResult:
        """End a run as failed with which too many processes died."""
        error = StepError(
            SendPoisonedError.code,
            f"{attempts} processes ended while they drove this run, so that it is not recovered any more: make another",
        )
        for record in list(self._journal.records.values()):
            if record.state is StepState.STARTED:
                await self._end_leaf(record)
        return await self._end(Finish(RunStatus.FAILED, error=error))

    def cancel_again(self, cancellation: Mapping[str, Any]) -> None:
        """Let the run be cancelled on that was being cancelled when another engine ended."""
        if cancellation.get("code") == TOO_MANY_STEPS:
            self._too_much = StepError.from_json(cancellation)
            self._journal.cancel()
            return
        cause = StopCause(cancellation.get("cause", StopCause.CANCELLED.value))
        self._turn.scope.stop(cause, str(cancellation.get("message") or ""))

    def _cancellation(self) -> dict[str, Any] | None:
        """Return why the run is being cancelled, as its row has it until it has ended; None if it is not."""
        scope = self._turn.scope
        if self._too_much is not None:
            return {**self._too_much.to_json(), "path": None}
        if scope.cause is None:
            return None
        return {"code": "workflow.cancelled", "message": scope.reason, "path": None, "cause": scope.cause.value}

    async def _drive(self) -> StatefulResult:
        turn = self._turn
        while True:
            turn.scope.check_left()
            if turn.scope.cause is StopCause.LEASE_LOST:
                raise LeaseLostError(
                    f"the lease of run {turn.session_id!r} was taken over while this engine ran: nothing more was"
                    " written by it; another process drives the run on",
                    session_id=turn.session_id,
                )
            if turn.scope.cause is not None and not self._journal.is_cancelled:
                self._journal.cancel()
                # Whoever goes on with it while it undoes what it did, or stops what runs, knows that it does.
                self._unwritten.cancels = self._cancellation()
                await self._write()
            self._collect()
            await self._end_overdue()
            rest = await self._decide()
            if isinstance(rest, Finish):
                if self._too_much is not None:
                    rest = replace(rest, status=RunStatus.FAILED, error=self._too_much, output=None)
                return await self._end(rest)
            await self._write()
            until_ms, asked_ms = None if rest is None else rest.until_ms, self._asked_until()
            wakes_ms = min([one for one in (until_ms, asked_ms) if one is not None], default=None)
            if self._running or (until_ms is not None and not self._may_rest(until_ms)):
                await self._wait(wakes_ms)
                continue
            try:
                return await self._end(Finish(RunStatus.WAITING), wakes_at_ms=wakes_ms)
            except Signalled as signalled:
                # What it was going to wait for may be what was said.
                turn.hear(signalled.news)
                await self._hear_signals()
                await self._look_at_asleep()

    def _asked_until(self) -> int | None:
        """Return when the first of the leaves that wait for a person has waited for too long, if any has a limit."""
        dues = [self._journal.records[path].due_at_ms for path in self._asleep]
        return min([due for due in dues if due is not None], default=None)

    async def _end_overdue(self) -> None:
        """Let the steps fail whose leaves have waited for a person as long as they may."""
        now_ms = self._turn.kit.clock.now_ms()
        for path in list(self._asleep):
            record = self._journal.records[path]
            if record.due_at_ms is None or now_ms < record.due_at_ms:
                continue
            await self._end_leaf(record)
            del self._asleep[path]
            self._journal.release(path)
            error = StepError(TIMEOUT, "nobody answered what its leaf asked within its time", is_transient=True)
            self._put(replace(record, state=StepState.FAILED, error=error, ended_at_ms=now_ms))

    def _may_rest(self, until_ms: int) -> bool:
        """Tell whether a time is so far away that a run for which nobody waits is left alone until then."""
        scope = self._turn.scope
        if scope.cause is not None or not scope.is_background:
            return False
        return until_ms - self._turn.kit.clock.now_ms() > REST_FROM_S * 1000

    # ---- deciding ----

    async def _decide(self) -> Wait | Finish | None:
        """Decide until nothing is left to be decided, and start what was; what was decided is durable before it is
        begun."""
        while True:
            starts: list[StartAgent | StartTool] = []
            rest: Wait | Finish | None = None
            has_settled = False
            now_ms = self._turn.kit.clock.now_ms()
            for action in decide(self._spec, self._journal, now_ms, max_concurrency=self._max_concurrency):
                if self._is_one_too_many(action):
                    # Decided anew, because nothing more begins.
                    has_settled = True
                    break
                if isinstance(action, (StartAgent, StartTool)):
                    self._note_start(action, now_ms)
                    starts.append(action)
                elif isinstance(action, StartWait):
                    self._put(_waiting(action, self._journal.records.get(action.path), now_ms))
                    has_settled = True
                elif isinstance(action, Settle):
                    await self._settle(action, now_ms)
                    has_settled = True
                elif isinstance(action, Stop):
                    has_settled = await self._stop(action.path, now_ms) or has_settled
                else:
                    rest = action
            if starts or self._unwritten.cancels is not None:
                await self._write()
                for one in starts:
                    self._begin(one)
            if not has_settled and not starts:
                return rest

    def _is_one_too_many(self, action: Action) -> bool:
        """Tell whether a step is more than a run may have; it then ends as failed, as if it had been cancelled. What
        undoes its steps still runs."""
        if (
            isinstance(action, (Stop, Wait, Finish))
            or action.path in self._journal.records
            or self._journal.is_cancelled
        ):
            return False
        if len(self._journal.records) < self._max_steps:
            return False
        if self._too_much is None:
            message = f"step {action.path!r} would be one more than the {self._max_steps:,} that a run may have"
            self._too_much = StepError(TOO_MANY_STEPS, message)
            self._journal.cancel()
            self._unwritten.cancels = self._cancellation()
        return True

    def _note_start(self, action: StartAgent | StartTool, now_ms: int) -> None:
        known = self._journal.records.get(action.path)
        if known is None or known.state is not StepState.STARTED or known.attempt != action.attempt:
            kind = "agent" if isinstance(action, StartAgent) else "tool"
            self._put(
                StepRecord(
                    action.path,
                    action.node_id,
                    kind,
                    StepState.STARTED,
                    action.attempt,
                    action.record_input,
                    started_at_ms=now_ms if known is None else known.started_at_ms,
                )
            )
        self._journal.drive(action.path)

    async def _settle(self, action: Settle, now_ms: int) -> None:
        known = self._journal.records.get(action.path)
        if known is not None and known.state is StepState.STARTED:
            await self._end_leaf(known)
        base = known or StepRecord(
            action.path, action.node_id, action.kind, action.state, action.attempt, action.record_input
        )
        self._put(
            replace(
                base,
                state=action.state,
                attempt=action.attempt,
                output=action.output,
                error=action.error,
                started_at_ms=base.started_at_ms or now_ms,
                ended_at_ms=now_ms,
            )
        )
        if action.signal_position is not None:
            self._unwritten.taken.append((action.signal_position, action.path))
            signal = self._journal.signals[action.signal_position]
            self._journal.signal(replace(signal, taken_by=action.path))

    async def _stop(self, path: str, now_ms: int) -> bool:
        """Stop a step; true where it is over at once, because nobody runs it."""
        running = self._running.get(path)
        if running is not None:
            running.stop("its run does not need it any more" if self._turn.scope.cause is None else "cancelled")
            return False
        known = self._journal.records[path]
        await self._end_leaf(known)
        self._asleep.pop(path, None)
        self._put(replace(known, state=StepState.CANCELLED, ended_at_ms=now_ms))
        return True

    async def _end_leaf(self, record: StepRecord) -> None:
        """End what a leaf may have left that another process ran, or that waits for a person."""
        turn = self._turn
        leaf_id = agent_id_of(turn.session_id, leaf_key(turn.session_id, record.path, record.attempt))
        await self._agents.end_one(leaf_id, 1, turn.scope.reason or "its run does not need it any more")
        self._unwritten.closes.append(leaf_id)

    def _put(self, record: StepRecord) -> None:
        """Take a record in, which the next move writes."""
        if record.ended_at_ms is not None and "ended_nth" not in record.more:
            self._ended += 1
            record = replace(record, more={**record.more, "ended_nth": self._ended})
        self._journal.note(record)
        self._unwritten.records[record.path] = record
        if record.ended_at_ms is not None:
            self._unwritten.ended.append(record)

    # ---- what runs ----

    def _begin(self, action: StartAgent | StartTool) -> None:
        turn, path = self._turn, action.path
        token = CancellationToken()
        key = leaf_key(turn.session_id, path, action.attempt)
        host = RunHost(turn, key, self._agents, token, self._models)
        running = _Running(action, host, token, turn.kit.clock.now_ms())
        running.task = start(self._run(running))
        running.task.add_done_callback(lambda _: turn.woken.set())
        if action.timeout_s is not None:
            running.timer = asyncio.get_running_loop().call_later(action.timeout_s, running.stop, TIMEOUT)
        self._running[path] = running
        kind = self._journal.records[path].kind
        turn.announce(WorkflowStepStarted(path, action.node_id, kind, action.attempt))

    async def _run(self, running: _Running) -> LeafOutcome:
        """Return what became of a step. Raises what is no fault of the step's."""
        action, run_id = running.action, self._turn.session_id
        try:
            key = leaf_key(run_id, action.path, action.attempt)
            if isinstance(action, StartTool):
                return await run_tool_step(self._turn, self._agents, action, key=key, stopped=running.token)
            task = LeafTask(
                run_id,
                action.path,
                action.attempt,
                key,
                action.spec,
                action.input,
                action.timeout_s,
                self._made_at_ms,
            )
            return await self._executor.run_leaf(task, running.host)
        except (LeaseLostError, StoreError) as error:
            if isinstance(error, StoreValueError):
                return LeafOutcome.failed(error.code, error.message)
            raise
        except PowerLoopError as error:
            return LeafOutcome.failed(error.code, error.message, is_transient=error.code in TRANSIENT)
        except Exception as error:
            return LeafOutcome.failed(PowerLoopError.code, said(error))

    def _collect(self) -> None:
        """Take in what became of the steps that came to an end; what all others gave is kept, whatever one raised."""
        failure: BaseException | None = None
        for path, running in list(self._running.items()):
            task = running.task
            if task is None or not task.done():
                continue
            del self._running[path]
            if running.timer is not None:
                running.timer.cancel()
            if task.cancelled():
                self._note_stopped(running)
            elif task.exception() is not None:
                failure = failure or task.exception()
            else:
                self._note_outcome(running, task.result())
        if failure is not None:
            raise failure

    def _note_stopped(self, running: _Running) -> None:
        action, turn = running.action, self._turn
        known = self._journal.records[action.path]
        now_ms = turn.kit.clock.now_ms()
        key = leaf_key(turn.session_id, action.path, action.attempt)
        self._unwritten.closes.append(agent_id_of(turn.session_id, key))
        if running.why == TIMEOUT:
            error = StepError(TIMEOUT, f"it took longer than {action.timeout_s:g} s", is_transient=True)
            self._put(replace(known, state=StepState.FAILED, error=error, ended_at_ms=now_ms))
        else:
            self._put(replace(known, state=StepState.CANCELLED, ended_at_ms=now_ms))

    def _note_outcome(self, running: _Running, outcome: LeafOutcome) -> None:
        action = running.action
        known = self._journal.records[action.path]
        more = dict(known.more)
        if outcome.session_id is not None:
            more["child_session_id"] = outcome.session_id
        else:
            self._pay(running, outcome, more)
        if outcome.status is SendStatus.WAITING_FOR_INPUT:
            self._asleep[action.path] = outcome
            due_ms = known.due_at_ms
            if due_ms is None and action.timeout_s is not None:
                due_ms = running.started_at_ms + round(action.timeout_s * 1000)
            record = replace(known, more=more, due_at_ms=due_ms)
            if more != known.more or due_ms != known.due_at_ms:
                self._unwritten.records[action.path] = record
                self._journal.note(record)
            self._journal.rest(action.path)
            return
        if outcome.session_id is not None:
            self._unwritten.closes.append(outcome.session_id)
        state, error = StepState.COMPLETED, None
        if not outcome.is_completed:
            state = StepState.FAILED
            code = "internal" if outcome.error is None else outcome.error.code
            message = f"it ended as {outcome.status.value}" if outcome.error is None else outcome.error.message
            if running.why == TIMEOUT:
                code, message = TIMEOUT, f"it took longer than {action.timeout_s:g} s"
            elif running.why is not None and outcome.status is SendStatus.CANCELLED:
                state = StepState.CANCELLED
            error = StepError(code, message, is_transient=outcome.is_transient or code == TIMEOUT)
        output = outcome.output if outcome.output is not None or _has_schema(action) else outcome.final_text
        self._put(
            replace(
                known,
                state=state,
                output=output if state is StepState.COMPLETED else None,
                error=error,
                ended_at_ms=self._turn.kit.clock.now_ms(),
                more=more,
            )
        )

    def _pay(self, running: _Running, outcome: LeafOutcome, more: dict[str, Any]) -> None:
        """Count what a leaf took that stands in no session here, and let the run's budgets pay what was not paid."""
        turn = self._turn
        nanos = None if outcome.cost is None else int(outcome.cost * NANOS)
        if not outcome.usage.total_tokens and nanos is None:
            return
        more["usage"] = _usage_sum(more.get("usage"), outcome.usage)
        more["cost_nanos"] = sum_of_costs(more.get("cost_nanos"), nanos)
        turn.count_dropped(outcome.usage, nanos)
        if turn.purse is not None:
            tokens = max(outcome.usage.total_tokens - running.host.paid_usage.total_tokens, 0)
            turn.purse.owe(turn.purse.next_number(), Amounts(tokens, max((nanos or 0) - running.host.paid_nanos, 0)))

    async def _wait(self, until_ms: int | None) -> None:
        """Wait until a step ends, somebody says something, the run is stopped, or a time has come."""
        turn = self._turn
        within_s = _MAX_SLEEP_S
        if until_ms is not None:
            within_s = min(max((until_ms - turn.kit.clock.now_ms()) / 1000, 0.0), _MAX_SLEEP_S)
        waits = asyncio.ensure_future(turn.woken.wait())
        sleeps = None if until_ms is None else asyncio.ensure_future(turn.kit.clock.sleep(within_s))
        first = asyncio.wait(
            [waits] if sleeps is None else [waits, sleeps],
            timeout=_ASLEEP_S if self._asleep else _MAX_SLEEP_S,
            return_when=asyncio.FIRST_COMPLETED,
        )
        try:
            if turn.scope.cause is not None:
                # It is being brought to rest: nothing else stops it.
                await first
            else:
                with contextlib.suppress(TurnStopped):
                    await turn.scope.interruptible(first)
        finally:
            for one in (waits, sleeps):
                if one is not None:
                    one.cancel()
        turn.woken.clear()
        await self._hear_signals()
        await self._look_at_asleep()

    async def _look_at_asleep(self) -> None:
        """Take up the leaves that wait for a person no more: somebody drives them, or has driven them to their end."""
        for path, outcome in list(self._asleep.items()):
            if outcome.session_id is None:
                continue
            sent = None
            with contextlib.suppress(SessionNotFoundError):
                sent = await self._turn.kit.store.get_send(outcome.session_id)
            if sent is None or sent.status is not SendStatus.WAITING_FOR_INPUT:
                del self._asleep[path]
                self._journal.release(path)

    async def _hear_signals(self) -> None:
        """Take in the signals that came, if any did since it was last looked."""
        count = self._turn.lease.signals
        if count == self._heard:
            return
        self._heard = count
        for row in await self._turn.kit.store.get_run_signals(self._turn.session_id, after=self._signals):
            self._signals = row.position
            self._journal.signal(signal_of(row))

    async def _leave_running(self) -> None:
        """Leave what still runs as it is, for whoever goes on with the run."""
        left = [running.task for running in self._running.values() if running.task is not None]
        for running in self._running.values():
            running.stop("stopped")
            if running.timer is not None:
                running.timer.cancel()
        self._running.clear()
        if left:
            await asyncio.gather(*left, return_exceptions=True)

    # ---- writing ----

    async def _write(self) -> None:
        """Make durable what was decided and what came of it."""
        if self._unwritten.is_empty:
            return
        turn, unwritten = self._turn, self._unwritten
        write = self._taken_write()
        await turn.commit(
            lambda lease: turn.kit.store.advance_run(
                lease, write, at_seq=turn.window.next_seq, send_index=turn.send_index
            )
        )
        await self._written(unwritten, write)

    def _taken_write(self) -> RunWrite:
        unwritten, run_id, turn = self._unwritten, self._turn.session_id, self._turn
        rows = [row_of(run_id, record) for record in unwritten.records.values()]
        return RunWrite(
            made=tuple(row for row in rows if row.path not in self._rows),
            changed=tuple(row for row in rows if row.path in self._rows),
            taken=tuple(unwritten.taken),
            closes=tuple(unwritten.closes),
            cancels=unwritten.cancels,
            charges=() if turn.purse is None else turn.purse.owed,
        )

    async def _written(self, unwritten: _Unwritten, write: RunWrite) -> None:
        """Tell of what became durable."""
        turn = self._turn
        self._unwritten = _Unwritten()
        if turn.purse is not None:
            turn.purse.paid(write.charges)
        self._rows.update(unwritten.records)
        for record in unwritten.ended:
            code = None if record.error is None else record.error.code
            turn.announce(
                WorkflowStepFinished(record.path, record.node_id, record.kind, record.attempt, record.state.value, code)
            )
        resources = turn.own_tools.resources
        for leaf_id in unwritten.closes:
            turn.kit.bus.emit(SessionClosed(), session_id=leaf_id, agent_path=(*turn.path, leaf_id))
            for resource in resources:
                await resource.end_session(leaf_id)

    async def _end(self, finish: Finish, *, wakes_at_ms: int | None = None) -> StatefulResult:
        """Bring the run to rest, with everything that is not written yet, in one transaction; one that waits for a time
        is woken then."""
        turn = self._turn
        status = finish.status
        is_final = status is not RunStatus.WAITING
        send_status = SEND_OF[status]
        if turn.scope.cause is StopCause.OUT_OF_TIME and status is RunStatus.CANCELLED:
            send_status = SendStatus.TIME_EXCEEDED
        reason = None
        error: dict[str, Any] | None = None
        if finish.error is not None:
            reason = f"{finish.error.code}: {finish.error.message}"
            error = {**finish.error.to_json(), "path": finish.error_path, "not_undone": list(finish.not_undone)}
        elif not is_final:
            error = self._cancellation()
        elif status is RunStatus.CANCELLED:
            reason = turn.scope.reason
            error = {"code": "workflow.cancelled", "message": reason, "path": None}
        message = _message(finish, reason) if is_final else None
        messages = () if message is None else (message,)
        ending = turn.end_as(send_status, reason, messages=messages)
        if message is not None:
            ending = replace(ending, result={**ending.result, "text_seq": turn.window.next_seq})
        report = self._report(status, message) if is_final else None
        timers = [one for one in (report, self._alarm(wakes_at_ms)) if one is not None]
        unwritten = self._unwritten
        # The charges go with the end of the send.
        write = replace(self._taken_write(), charges=())
        end = RunEnd(status.value, ending, is_final, finish.output, error, message, tuple(timers))
        # News may change whether there is something to wait for; that it has ended, they do not.
        commit = turn.commit if is_final else turn.commit_unless_signalled
        await commit(
            lambda lease: turn.kit.store.advance_run(
                lease, write, at_seq=turn.window.next_seq, send_index=turn.send_index, end=end
            )
        )
        turn.is_at_rest, turn.rest_status = True, send_status
        await self._written(unwritten, write)
        await turn.note_appended(messages)
        result = result_of(turn, send_status, reason)
        turn.announce(
            WorkflowRunFinished(
                status.value,
                None if error is None else error["code"],
                reason,
                tuple(sorted(self._asleep)) if not is_final else (),
            )
        )
        turn.announce(SendFinished(result))
        if report is not None:
            self._deliver(report.id)
        return result

    def _alarm(self, at_ms: int | None) -> NewTimer | None:
        """Return what wakes the run at a moment, whoever drives it then. Each rest has one of its own."""
        if at_ms is None:
            return None
        run_id, epoch = self._turn.session_id, self._turn.lease.epoch
        message = user_message(f"(the time has come for which run {run_id} waits)")
        return NewTimer(
            timer_id_of(run_id, "wake", str(epoch)),
            run_id,
            message,
            "",
            At(at_ms),
            made_by=TimerMaker.WORKFLOW,
            max_timers=None,
        )

    def _report(self, status: RunStatus, message: Message | None) -> NewTimer | None:
        """Return what brings the run's end to the session that it was begun for, once."""
        if self._parent_id is None:
            return None
        run_id, said_text = self._turn.session_id, "" if message is None else message.text
        text = f"Workflow {self._spec.name!r} (run {run_id}) ended as {status.value}.\n\n{said_text}"[
            :_MAX_REPORT_CHARS
        ]
        return NewTimer(
            # Not that of an earlier run of this id, which is gone.
            timer_id_of(run_id, "end", str(self._made_at_ms)),
            self._parent_id,
            user_message(clean_text(text)),
            "",
            After(0),
            name=f"the end of workflow {self._spec.name}"[:MAX_NAME_CHARS],
            made_by=TimerMaker.WORKFLOW,
            max_timers=None,
        )

    async def _fail(self, error: Exception) -> None:
        """Record that the engine failed, so that the run can be taken up; if even that cannot be stored, the lease runs
        out."""
        turn = self._turn
        if turn.is_at_rest:
            return
        code = error.code if isinstance(error, PowerLoopError) else PowerLoopError.code
        with contextlib.suppress(StoreError, LeaseLostError):
            await turn.end_send(turn.end_as(SendStatus.FAILED, f"{code}: {error}"[:_MAX_REPORT_CHARS]))
            turn.is_at_rest, turn.rest_status = True, SendStatus.FAILED
        turn.announce(SendFailed(code, str(error)))


def _waiting(action: StartWait, known: StepRecord | None, now_ms: int) -> StepRecord:
    return StepRecord(
        action.path,
        action.node_id,
        "wait",
        StepState.WAITING,
        action.attempt,
        action.record_input,
        due_at_ms=action.due_at_ms,
        started_at_ms=now_ms if known is None else known.started_at_ms,
    )


def _has_schema(action: StartAgent | StartTool) -> bool:
    return isinstance(action, StartTool) or action.spec.output_schema is not None


def _usage_sum(known: Mapping[str, Any] | None, usage: Usage) -> dict[str, Any]:
    total = usage if known is None else Usage(**known) + usage
    return dataclasses.asdict(total)


def _message(finish: Finish, reason: str | None) -> Message:
    """Return what the run's log says of its end."""
    output = finish.output
    if finish.status is RunStatus.COMPLETED and output is not None:
        text = output if isinstance(output, str) else json.dumps(output, ensure_ascii=False)
    else:
        text = f"The workflow ended as {finish.status.value}" + (f": {reason}" if reason else ".")
    return Message(Role.ASSISTANT, (TextPart(clean_text(text) or "(nothing)"),))
