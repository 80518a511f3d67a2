"""Is a workflow as an application runs it: made from a spec, run or started, taken up, followed, told, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, replace
from decimal import Decimal
from functools import partial
from typing import Any

from power_loop.agent.loop import StatefulAgentLoop
from power_loop.agent.subagents import Agents, agent_id_of, granted, tools_of
from power_loop.contracts.agent_spec import AgentSpec
from power_loop.contracts.budgets import Budget
from power_loop.contracts.choices import choice_of
from power_loop.contracts.clock import SystemClock
from power_loop.contracts.errors import (
    ConfigError,
    InputError,
    LoopClosedError,
    PowerLoopError,
    RunNotFoundError,
    SessionBusyError,
    SessionNotFoundError,
    StoreError,
)
from power_loop.contracts.events import LeaseTaken, SessionCreated
from power_loop.contracts.frozen import frozen
from power_loop.contracts.llm import Usage
from power_loop.contracts.messages import user_message
from power_loop.contracts.numbers import is_whole
from power_loop.contracts.ports import SessionStore
from power_loop.contracts.records import ANY_SIGNALS, Accepted, NewChild, NewSend, SendEnd, SendRecord
from power_loop.contracts.results import StatefulResult
from power_loop.contracts.session_ids import RUN_PREFIX, check_session_id, is_run_id
from power_loop.contracts.states import SendStatus
from power_loop.contracts.workflow_runs import (
    NewRun,
    RunWrite,
    WorkflowRunRecord,
    WorkflowSignalRecord,
    WorkflowStepRecord,
)
from power_loop.core.context.window import Window
from power_loop.core.turn.agent import Agent
from power_loop.core.turn.options import SendOptions
from power_loop.core.turn.outcome import recorded_result
from power_loop.core.turn.scope import StopCause, TurnScope, TurnStopped
from power_loop.core.turn.seat import TurnSeat, budgeted, claim, hold, join, never_began, open_purse
from power_loop.core.turn.turn import Turn
from power_loop.workflow.actions import RunStatus
from power_loop.workflow.bounds import MAX_CONCURRENCY, MAX_RUN_STEPS
from power_loop.workflow.decide import outputs_of
from power_loop.workflow.engine import FOR_GOOD, SEND_OF, Engine, RunTurn
from power_loop.workflow.executors import InProcessExecutor, LeafExecutor, leaf_key
from power_loop.workflow.journal_rows import journal_of
from power_loop.workflow.migrate import Fate, StepPlan, plan_migration
from power_loop.workflow.parse import parse_workflow
from power_loop.workflow.spec import WorkflowSpec

_LOG = logging.getLogger("power_loop")

#: How many leaves of one run work at the same time where nobody says otherwise.
DEFAULT_CONCURRENCY = 16
_IN_PROCESS = InProcessExecutor()
# How the send of a run may rest that is over.
_ENDED = (SendStatus.COMPLETED, SendStatus.FAILED, SendStatus.CANCELLED, SendStatus.TIME_EXCEEDED)
_UNENDED = (SendStatus.RUNNING, SendStatus.WAITING_FOR_INPUT)
# A run in the background whose database is away is taken up again after so many seconds, up to the longest pause.
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 15.0
_UNSET: Any = object()
# How often a run is asked to stop that is taken up and left while it is asked.
_CANCEL_TRIES = 3


@frozen
class WorkflowResult:
    """Is how a run stands: its `status` (`completed`, `failed`, `cancelled`; `waiting` and `running` are no ends).

    `output` is what its root gave, `outputs` what each node with an id gave that has settled. `steps` is its journal.
    `usage` and `cost` are what it took with all its leaves. `error` says why it failed: `code`, `message`, `path`.
    `waits_for` are the steps that wait for somebody: a signal by its name, a person by the step's path, a leaf by its
    session.
    """

    run_id: str
    status: RunStatus
    output: Any = None
    outputs: Mapping[str, Any] = field(default_factory=dict)
    steps: tuple[WorkflowStepRecord, ...] = ()
    usage: Usage = field(default_factory=Usage)
    cost: Decimal | None = None
    error: Mapping[str, Any] | None = None
    waits_for: tuple[WorkflowStepRecord, ...] = ()

    @property
    def is_completed(self) -> bool:
        """True if every step that had to be done was."""
        return self.status is RunStatus.COMPLETED


class Workflow:
    """Is one run of a workflow; `create_workflow()` makes it. Nothing is stored before it begins."""

    def __init__(
        self,
        loop: StatefulAgentLoop,
        spec: WorkflowSpec,
        *,
        run_id: str,
        input: Any,
        parent_session_id: str | None,
        executor: LeafExecutor,
        budget: Budget | None,
        max_concurrency: int,
        max_steps: int,
    ) -> None:
        self._loop = loop
        self._spec = spec
        self._run_id = run_id
        self._input = input
        self._parent_id = parent_session_id
        self._executor = executor
        self._budget = budget
        self._max_concurrency = max_concurrency
        self._max_steps = max_steps

    @property
    def run_id(self) -> str:
        """The id of the run, which is a session: `resume_run()`, `get_run()` and `loop.cancel()` take it."""
        return self._run_id

    @property
    def spec(self) -> WorkflowSpec:
        """The workflow as it was understood."""
        return self._spec

    async def run(self) -> WorkflowResult:
        """Run it until it rests, and return its result; one that was begun before is gone on with.

        A failed run is a result and raises nothing. Cancelling the caller cancels the run. Raises `session.busy` where
        another process drives it, a `StoreError` when the database cannot be reached: `resume_run()` goes on then.
        """
        with self._loop.work():
            await self._make(is_detached=False)
            return await _driven(self._loop, self._run_id)

    async def start(self, *, detached: bool = True) -> str:
        """Begin it and return the run's id at once; it goes on in the background, and whatever becomes of this process,
        `recover()` and `resume_run()` go on with it.

        The session that it was made for hears of its end once, in its inbox. `detached=False` does what `run()` does
        and returns the id.
        """
        if not detached:
            return (await self.run()).run_id
        with self._loop.work():
            await self._make(is_detached=True)
            await drive_runs(self._loop).begun(self._run_id)
        return self._run_id

    async def cancel(self, reason: str = "cancelled") -> bool:
        """Stop it, in whichever process it runs; False if it is over or was not begun."""
        return await cancel_run(self._loop, self._run_id, reason=reason)

    async def _make(self, *, is_detached: bool) -> None:
        loop = self._loop
        store = await loop.get_store()
        drive_runs(loop).choose(self._run_id, self._executor)
        config, parent_id = loop.config, self._parent_id
        parent = None if parent_id is None else await store.get_session(parent_id)
        above_agent = None if parent is None or parent.agent is None else Agent.from_json(parent.agent)
        above = () if parent is None else (*(() if above_agent is None else above_agent.above), parent.id)
        agent = granted(
            AgentSpec(self._spec.name[:64], "(a workflow)"),
            config,
            above=above,
            parent=above_agent,
            tools=loop.tools if above_agent is None else tools_of(loop.tools, above_agent),
            limits=config.limits if above_agent is None else above_agent.limits,
            key=self._run_id,
        )
        place: dict[str, Any] = {} if parent is None else {"parent_send": parent.send_count}
        session = NewChild(
            self._run_id,
            None,
            agent.to_json(),
            {"workflow": self._spec.name},
            parent_id=above[-1] if above else None,
            root_id=above[0] if above else None,
            depth=len(above),
            **place,
        )
        options = {
            "max_concurrency": self._max_concurrency,
            "max_steps": self._max_steps,
            "budget": None if self._budget is None else self._budget.to_json(),
            "is_detached": is_detached,
        }
        hears = parent_id if is_detached else None
        made = NewRun(session, self._spec.name, self._spec.source, self._input, options, hears)
        await store.create_run(made)
        loop.event_bus.emit(SessionCreated(), session_id=self._run_id, agent_path=(*above, self._run_id))


def create_workflow(
    spec: Any,
    *,
    parent_loop: StatefulAgentLoop,
    parent_session_id: str | None = None,
    executor: LeafExecutor | None = None,
    budget: Budget | None = None,
    max_concurrency: int = DEFAULT_CONCURRENCY,
    max_steps: int = MAX_RUN_STEPS,
    input: Any = _UNSET,
    run_id: str | None = None,
) -> Workflow:
    """Return a run of a workflow that can be run or started.

    `spec` is the workflow as JSON (see `WORKFLOW_SCHEMA`); all that is wrong with it is told at once. Its leaves use
    the model, the tools and the store of `parent_loop`, and stand below `parent_session_id` where one is named: they
    have no more than that session has. `executor` says where they run (default: in this process), `budget` what the run
    may take, `max_concurrency` how many leaves work at a time (default 16), `max_steps` how many steps it may have,
    those of every iteration and attempt counted (default 100,000), `input` stands in for the spec's own. A `run_id`
    that was used meets the run that has it. Raises `workflow.invalid_spec`, `config.invalid`, `input.invalid`.
    """
    given: Any = parent_loop
    if not isinstance(given, StatefulAgentLoop):
        raise ConfigError(f"parent_loop is {given!r:.200}: give the StatefulAgentLoop whose model and tools it uses")
    if not is_whole(max_concurrency, least=1, most=MAX_CONCURRENCY):
        raise ConfigError(f"max_concurrency is {max_concurrency!r:.80}: give a whole number of 1 to {MAX_CONCURRENCY}")
    if not is_whole(max_steps, least=1):
        raise ConfigError(f"max_steps is {max_steps!r:.80}: give a whole number of at least 1")
    if budget is not None and not isinstance(budget, Budget):
        raise ConfigError(f"budget is {budget!r:.200}: give a Budget")
    if executor is not None and not hasattr(executor, "run_leaf"):
        raise ConfigError(f"executor is {executor!r:.200}: give a LeafExecutor, such as InProcessExecutor()")
    if run_id is not None:
        check_session_id(run_id)
        if not is_run_id(run_id):
            raise InputError(f"run_id is {run_id!r}: the ids of runs begin with '{RUN_PREFIX}_'")
    parsed = parse_workflow(spec)
    return Workflow(
        parent_loop,
        parsed,
        run_id=run_id or SystemClock().new_id(RUN_PREFIX),
        input=parsed.input if input is _UNSET else input,
        parent_session_id=parent_session_id,
        executor=executor or _IN_PROCESS,
        budget=budget,
        max_concurrency=max_concurrency,
        max_steps=max_steps,
    )


# ---- what there is to do with a run that was begun ----


async def resume_run(
    loop: StatefulAgentLoop, parent_session_id: str | None, run_id: str, executor: LeafExecutor | None = None
) -> WorkflowResult:
    """Go on with a run, whatever process began it, until it rests: what finished is not done again. One that has ended
    gives its result.

    `parent_session_id` is the session that it was made for; None where there was none. Raises `workflow.not_found`,
    `input.invalid` for a run of another session, `session.busy` where another process drives it.
    """
    store = await loop.get_store()
    run = await store.get_run(run_id)
    head = await store.get_session(run_id)
    if parent_session_id is not None and parent_session_id not in (head.parent_id, run.parent_session_id):
        raise InputError(
            f"run {run_id!r} was not made for session {parent_session_id!r}, but for {head.parent_id!r}: name that one"
        )
    with loop.work():
        driver = drive_runs(loop)
        if executor is not None:
            driver.choose(run_id, executor)
        return await _driven(loop, run_id)


async def get_run(loop: StatefulAgentLoop, run_id: str) -> WorkflowResult:
    """Return how a run stands, from whatever process. Raises `workflow.not_found`."""
    store = await loop.get_store()
    await store.get_run(run_id)
    sent = await store.get_send(run_id)
    settled = None if sent is None else await recorded_result(store, sent)
    return await _result(store, run_id, settled)


async def list_runs(
    loop: StatefulAgentLoop,
    *,
    parent_session_id: str | None = None,
    status: RunStatus | str | None = None,
    before: WorkflowRunRecord | None = None,
    limit: int = 50,
) -> tuple[WorkflowRunRecord, ...]:
    """Return runs, newest first: those of a session, those that stand so, those that come behind `before`."""
    store = await loop.get_store()
    state = None if status is None else choice_of(RunStatus, status, "status", error=InputError).value
    place = None if before is None else (before.created_at_ms, before.session_id)
    return await store.list_runs(state=state, parent_session_id=parent_session_id, before=place, limit=limit)


async def signal_run(loop: StatefulAgentLoop, run_id: str, name: str, value: Any = None) -> WorkflowSignalRecord:
    """Tell a run something, from whatever process: the first of its `wait` steps that waits for a signal of this name
    gets `value`, now or when it comes to that. A person's step has its path as the name.

    A run that rests goes on in the background of this process, and where that ends before, `recover()` and workers find
    it. Raises `workflow.not_found`, `input.invalid` for a run that has ended.
    """
    store = await loop.get_store()
    signal = await store.signal_run(run_id, name, value)
    head, sent = await store.get_session(run_id), await store.get_send(run_id)
    if head.owner is None and sent is not None and sent.status in _UNENDED:
        drive_runs(loop).start(run_id)
    return signal


async def cancel_run(loop: StatefulAgentLoop, run_id: str, *, reason: str = "cancelled") -> bool:
    """Stop a run, in whichever process it runs, and what it set going; False if it is over or is not there."""
    store = await loop.get_store()
    driver = drive_runs(loop)
    with contextlib.suppress(RunNotFoundError, SessionNotFoundError):
        for _ in range(_CANCEL_TRIES):
            await store.get_run(run_id)
            if await loop.cancel(run_id, reason=reason):
                return True
            run = await store.get_run(run_id)
            if run.ended_at_ms is not None:
                return False
            head = await store.get_session(run_id)
            with loop.work():
                scope = TurnScope(is_background=True)
                if await join(driver.end(run_id, reason, scope, epoch=head.epoch), scope):
                    return True
            # Somebody took it up meanwhile, and has to be asked.
    return False


async def migrate_run(
    loop: StatefulAgentLoop, run_id: str, new_spec: Any, *, apply: bool = False
) -> tuple[StepPlan, ...]:
    """Return what becomes of each step of a run under another spec: `keep`, `rerun` or `drop`, with the reason; with
    `apply`, let the run go on under that spec from then on.

    What is kept is not run again; of what is not, the rows and the sessions of its leaves go, and what these took is
    counted by the run's budget alone. Raises `workflow.invalid_spec`, `workflow.not_found`, `input.invalid` for a run
    that has ended, `session.busy` for one that an engine drives.
    """
    new = parse_workflow(new_spec)
    store: Any = await loop.get_store()
    if not apply:
        return await _plan(store, run_id, new)
    drive_runs(loop)
    scope = TurnScope()

    async def work() -> tuple[StepPlan, ...]:
        seat = await loop.take_run_seat(run_id, scope)
        async with seat.kit.desk.turn(run_id, scope):
            taken = await claim(seat, lambda claim: store.take_up(claim, drives=False))
            try:
                plan = await _plan(store, run_id, new)
                gone = {one.path for one in plan if one.fate is not Fate.KEEP}
                steps = (await store.read_journal(run_id))[1]
                # Before their rows, so that no step meets what it gave under the old spec.
                await _forget_leaves(store, run_id, [one for one in steps if one.path in gone])
                write = RunWrite(spec=new.source, dropped=tuple(sorted(gone)))
                await store.advance_run(
                    replace(taken.lease, signals=ANY_SIGNALS),
                    write,
                    at_seq=taken.next_seq,
                    send_index=taken.send_index,
                )
                return plan
            finally:
                seat.kit.desk.end(run_id, scope)
                await store.release(taken.lease)

    with loop.work():
        return await join(work(), scope)


async def _plan(store: Any, run_id: str, new: WorkflowSpec) -> tuple[StepPlan, ...]:
    run, steps, signals = await store.read_journal(run_id)
    if run.ended_at_ms is not None:
        raise InputError(f"run {run_id!r} has ended as {run.state!r}: make another of the new spec")
    return plan_migration(parse_workflow(run.spec), journal_of(run, steps, signals), new)


async def _forget_leaves(store: Any, run_id: str, steps: Sequence[WorkflowStepRecord]) -> None:
    """Remove the sessions of leaves, whose ids their steps come to again."""
    for step in steps:
        for attempt in range(1, step.attempt + 1):
            with contextlib.suppress(SessionNotFoundError):
                await store.delete_session(agent_id_of(run_id, leaf_key(run_id, step.path, attempt)))


def drive_runs(loop: StatefulAgentLoop, executor: LeafExecutor | None = None) -> Driver:
    """Let a handle drive the runs of workflows: `loop.recover()` goes on with those whose process died, and
    `loop.cancel()` ends them. Their leaves run in `executor` (default: the one that was named before, or this process).

    Whatever makes or resumes a run does this by itself; a process that only recovers calls it once.
    """
    driver = loop.run_driver
    if not isinstance(driver, Driver):
        loop.run_driver = driver = Driver(loop, executor or _IN_PROCESS)
    elif executor is not None:
        driver.executor = executor
    return driver


class Driver:
    """Drives runs for one handle; satisfies `RunDriver`."""

    def __init__(self, loop: StatefulAgentLoop, executor: LeafExecutor) -> None:
        # The handle knows its driver: a strong reference back would keep both from going.
        self._loop = weakref.ref(loop)
        self.executor = executor
        # Where the leaves of runs run that were begun here and have not ended: no other run's choice changes that.
        self._chosen: dict[str, LeafExecutor] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._taken: dict[str, asyncio.Event] = {}
        # Runs that something was said to while a task here may have been about to leave them.
        self._again: set[str] = set()
        # When runs go on that rest until a time; whoever delivers timers sees to it where this process ends before.
        self._alarms: dict[str, asyncio.TimerHandle] = {}

    def choose(self, run_id: str, executor: LeafExecutor) -> None:
        """Let the leaves of a run run in an executor until it has ended."""
        self._chosen[run_id] = executor

    async def drive(self, run_id: str, scope: TurnScope, **more: Any) -> StatefulResult:
        """Drive a run to its rest with its executor, as `drive` does."""
        result = await drive(self._here, run_id, scope, self._chosen.get(run_id, self.executor), **more)
        if result.send_index and result.status in _ENDED:
            self._chosen.pop(run_id, None)
        return result

    async def go_on(self, run_id: str, scope: TurnScope) -> StatefulResult | None:
        """Go on with a run whose process died."""
        return await self.drive(run_id, scope, recovers=True)

    async def end(self, run_id: str, reason: str, scope: TurnScope, *, epoch: int) -> bool:
        """End a run as cancelled that nobody drives."""
        head = await (await self._here.get_store()).get_session(run_id)
        if head.epoch != epoch:
            return False
        try:
            result = await self.drive(run_id, scope, ends=reason)
        except SessionBusyError:
            return False
        return result.status is SendStatus.CANCELLED and not result.is_replayed

    def start(self, run_id: str) -> asyncio.Task[None]:
        """See to it that a run is driven in the background; return the task that does it."""
        known = self._tasks.get(run_id)
        if known is not None and not known.done():
            self._again.add(run_id)
            return known
        in_flight = contextlib.ExitStack()
        in_flight.enter_context(self._here.work())
        self._silence(run_id)
        # In a context of its own: it is nothing that a turn waits for which happens to start it.
        self._taken[run_id] = asyncio.Event()
        task = contextvars.Context().run(asyncio.get_running_loop().create_task, self._in_background(run_id))
        task.add_done_callback(lambda _: in_flight.close())
        self._tasks[run_id] = task
        return task

    async def begun(self, run_id: str) -> None:
        """Start a run in the background, and return once its lease and its send are stored: whatever becomes of this
        process then, `recover()` finds it."""
        task = self.start(run_id)
        taken = asyncio.ensure_future(self._taken[run_id].wait())
        try:
            await asyncio.wait((task, taken), return_when=asyncio.FIRST_COMPLETED)
        finally:
            taken.cancel()

    async def _in_background(self, run_id: str) -> None:
        on_taken = self._taken[run_id].set
        pause_s = _FIRST_PAUSE_S
        try:
            while True:
                self._again.discard(run_id)
                self._silence(run_id)
                scope = TurnScope(is_background=True)
                try:
                    result = await join(self.drive(run_id, scope, on_taken=on_taken), scope)
                    if result.status is SendStatus.WAITING_FOR_INPUT:
                        await self._set_alarm(run_id)
                except StoreError as error:
                    if isinstance(error, FOR_GOOD):
                        raise
                    _LOG.warning("run %s is taken up again: %s", run_id, error)
                    await self._pause(pause_s)
                    pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                    continue
                # Behind the last wait: nothing is said between this look and the end of the task.
                if run_id not in self._again:
                    return
        except PowerLoopError as error:
            # Its events told of it; resume_run() goes on with it, and recover() where its process ended.
            _LOG.debug("run %s was not driven to its end: %s", run_id, error)
        finally:
            self._again.discard(run_id)
            self._taken.pop(run_id, None)
            self._tasks.pop(run_id, None)

    async def _pause(self, seconds: float) -> None:
        """Wait before another try. Raises `loop.closed` once the handle is closed, which waits for this."""
        clock, left_s = self._here.clock, seconds
        while left_s > 0:
            await clock.sleep(min(left_s, _FIRST_PAUSE_S))
            left_s -= _FIRST_PAUSE_S
            with self._here.work():
                pass

    async def _set_alarm(self, run_id: str) -> None:
        """Go on with a run here at the time for which it waits, if it waits for one."""
        loop = self._here
        for timer in (await (await loop.get_store()).list_timers(run_id, limit=1)).items:
            if timer.due_at_ms is not None:
                in_s = max(timer.due_at_ms - loop.clock.now_ms(), 0) / 1000
                ring = partial(_ring, weakref.ref(self), run_id)
                self._alarms[run_id] = asyncio.get_running_loop().call_later(in_s, ring)

    def _silence(self, run_id: str) -> None:
        alarm = self._alarms.pop(run_id, None)
        if alarm is not None:
            alarm.cancel()

    @property
    def _here(self) -> StatefulAgentLoop:
        loop = self._loop()
        if loop is None:
            raise LoopClosedError("the loop of this driver is gone: make another on the same DSN")
        return loop


def _ring(driver_of: Callable[[], Driver | None], run_id: str) -> None:
    """Let a driver go on with a run, unless its handle is closed or gone."""
    driver = driver_of()
    if driver is not None:
        with contextlib.suppress(LoopClosedError):
            driver.start(run_id)


async def _driven(loop: StatefulAgentLoop, run_id: str) -> WorkflowResult:
    scope = TurnScope()
    result = await join(drive_runs(loop).drive(run_id, scope), scope)
    return await _result(await loop.get_store(), run_id, result)


async def _result(store: SessionStore, run_id: str, sent: StatefulResult | None) -> WorkflowResult:
    run, steps, signals = await store.read_journal(run_id)
    journal = journal_of(run, steps, signals)
    is_ended = run.ended_at_ms is not None
    waiting = [one for one in steps if one.state == "waiting" or (one.state == "started" and one.child_session_id)]
    return WorkflowResult(
        run_id,
        RunStatus(run.state),
        run.output,
        outputs_of(parse_workflow(run.spec), journal),
        steps,
        Usage() if sent is None else sent.usage,
        None if sent is None else sent.cost,
        run.error,
        () if is_ended else tuple(waiting),
    )


# ---- one drive of one run ----


async def drive(
    loop: StatefulAgentLoop,
    run_id: str,
    scope: TurnScope,
    executor: LeafExecutor,
    *,
    recovers: bool = False,
    ends: str | None = None,
    on_taken: Callable[[], None] | None = None,
) -> StatefulResult:
    """Drive a run to its rest and return how its send rests; one that has ended gives the recorded result.

    With a reason for which it `ends`, it is brought to rest as cancelled. `on_taken` is called once its lease is held
    and its send is stored. Raises `session.busy`, `workflow.not_found`, and whatever ended the engine where that was no
    fault of a step's.
    """
    seat = await loop.take_run_seat(run_id, scope)
    try:
        return await _in_line(seat, loop, executor, recovers=recovers, ends=ends, on_taken=on_taken)
    except TurnStopped:
        return never_began(seat, scope.status or SendStatus.CANCELLED, scope.reason)


async def _in_line(
    seat: TurnSeat,
    loop: StatefulAgentLoop,
    executor: LeafExecutor,
    *,
    recovers: bool,
    ends: str | None,
    on_taken: Callable[[], None] | None,
) -> StatefulResult:
    store, run_id, scope = seat.kit.store, seat.session_id, seat.scope
    async with seat.kit.desk.turn(run_id, scope, is_stoppable=ends is None):
        run, sent = await store.get_run(run_id), await store.get_send(run_id)
        if run.ended_at_ms is not None and sent is not None and sent.status is not SendStatus.RUNNING:
            return await recorded_result(store, sent)
        taken: Any = None
        if sent is None:
            new, options = await _new_send(seat, run)
            taken = await claim(seat, lambda claim: store.accept(claim, new))
            paid_by = new.paid_by
        else:
            options, paid_by = SendOptions.from_json(sent.options), sent.paid_by
        if not isinstance(taken, Accepted):
            taken = await claim(seat, store.take_up)
        if on_taken is not None:
            on_taken()
        is_resume = sent is not None

        async def begin() -> Turn:
            return await _turn(seat, taken, options, is_resume=is_resume, paid_by=paid_by)

        async def go_on(turn: Turn) -> StatefulResult:
            if ends is not None:
                scope.stop(StopCause.CANCELLED, ends)
            return await _go_on(seat, turn, executor, loop, sent, recovers=recovers)

        return await hold(seat, taken, begin, go_on)


async def _new_send(seat: TurnSeat, run: WorkflowRunRecord) -> tuple[NewSend, SendOptions]:
    """Return the send that stands for a run, with what pays for it."""
    store = seat.kit.store
    head = await store.get_session(run.session_id)
    payer, paid_by = None, None
    above = None if head.parent_id is None else await store.get_send(head.parent_id)
    if above is not None and above.status is SendStatus.RUNNING:
        # While a send of the parent runs, that is what this work is for.
        payer = SendOptions.from_json(above.options).budget_of(above.session_id, above.index)
        if not run.options.get("is_detached"):
            paid_by = (above.session_id, above.index)
    budget = run.options.get("budget")
    options = SendOptions(budget=None if budget is None else Budget.from_json(budget), payer=payer)
    text = run.input if isinstance(run.input, str) and run.input else f"(input of workflow {run.name!r})"
    new = NewSend(user_message(text), "", options.to_json(), run.session_id, paid_by=paid_by)
    if payer is not None and options.budget is None:
        return new, options  # the handle's own budget of a send is the parent's already
    options, new = budgeted(seat, options, new)
    return new, options


async def _turn(
    seat: TurnSeat, taken: Accepted, options: SendOptions, *, is_resume: bool, paid_by: tuple[str, int] | None
) -> RunTurn:
    store, run_id = seat.kit.store, seat.session_id
    view = await store.read_view(run_id)
    turn = RunTurn(
        seat.kit,
        lease=taken.lease,
        scope=seat.scope,
        window=Window.of(view),
        tools=seat.tools,
        options=options,
        send_index=taken.send_index,
        request_id=run_id,
    )
    turn.next_input = taken.next_input
    turn.path, turn.agent, turn.agents = seat.path, seat.agent, seat.agents
    payer = None if paid_by is None else seat.kit.desk.watcher().turn_of(paid_by[0])
    if paid_by is not None and isinstance(payer, Turn) and payer.send_index == paid_by[1]:
        # Its send runs here, and counts what this one takes while it does.
        turn.be_paid_by(payer)
    if taken.previous_owner is not None:
        turn.announce(LeaseTaken(taken.previous_owner))
    if is_resume and view.send is not None:
        turn.go_on_from(view.send, ())
        turn.note_paid(await store.get_children_spending(run_id, taken.send_index))
    else:
        turn.first_seq = turn.window.next_seq - 1
    await open_purse(turn, options)
    return turn


async def _go_on(
    seat: TurnSeat,
    turn: Turn,
    executor: LeafExecutor,
    loop: StatefulAgentLoop,
    sent: SendRecord | None,
    *,
    recovers: bool,
) -> StatefulResult:
    store = seat.kit.store
    run, steps, signals = await store.read_journal(turn.session_id)
    if run.ended_at_ms is not None:
        # Another engine ended it before the lease was taken: its send rests as it did.
        ended = await store.get_send(turn.session_id, index=turn.send_index)
        if ended is not None and ended.status is SendStatus.RUNNING:
            status = SEND_OF[RunStatus(run.state)]
            await turn.end_send(SendEnd(status, {} if sent is None else sent.result or {}))
            turn.is_at_rest, turn.rest_status = True, status
            ended = await store.get_send(turn.session_id, index=turn.send_index)
        assert ended is not None
        return await recorded_result(store, ended)
    for step in steps:
        if step.usage is not None:
            turn.count_dropped(Usage(**step.usage), step.cost_nanos)
    assert isinstance(turn, RunTurn)
    assert isinstance(seat.agents, Agents)
    engine = Engine(
        turn,
        seat.agents,
        executor,
        parse_workflow(run.spec),
        journal_of(run, steps, signals),
        models=loop.config.models,
        parent_session_id=run.parent_session_id,
        max_concurrency=run.options.get("max_concurrency", DEFAULT_CONCURRENCY),
        made_at_ms=run.created_at_ms,
        max_steps=run.options.get("max_steps", MAX_RUN_STEPS),
        deliver=loop.deliver_soon,
    )
    if run.error is not None:
        engine.cancel_again(run.error)
    if recovers and sent is not None and sent.attempts > seat.kit.max_recoveries:
        return await engine.give_up(sent.attempts)
    return await engine.run(is_resume=sent is not None)
