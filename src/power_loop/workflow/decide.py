"""Decides what a run does next: the same journal and time always give the same actions. No await, no clock, no I/O.

Resuming is running: a journal that was read from a store gives what one gives that was kept up to date.
"""

from __future__ import annotations

import heapq
from typing import Any

from power_loop.contracts.agent_spec import AgentSpec
from power_loop.contracts.errors import PowerLoopError
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
    WaitFor,
)
from power_loop.workflow.build import moment_ms
from power_loop.workflow.frames import Run
from power_loop.workflow.journal import Journal, StepError, StepState
from power_loop.workflow.leaf_frame import Leaf
from power_loop.workflow.refs import MAX_FILLED_CHARS, ReferenceFault, section
from power_loop.workflow.spec import AgentNode, ToolNode, WaitNode, WorkflowSpec

#: What an agent is told that has no input: everything that it needs to know stands in its prompt.
NO_INPUT = "Begin."


def decide(
    spec: WorkflowSpec, journal: Journal, now_ms: int, *, max_concurrency: int | None = None
) -> tuple[Action, ...]:
    """Return what is to be done: any number of starts, settlements and stops, then one `Wait`, or one `Finish` alone.

    What was asked for and is not in the journal yet is asked for again. `max_concurrency` bounds how many steps run at
    one time, beside the spec's own bound; a step that waits counts for nothing. It reads what changed since it was last
    asked about this journal, and takes time for that alone.
    """
    run: Run | None = journal.memo
    if run is None or run.spec is not spec:
        run = journal.memo = Run(spec, journal)
    run.catch_up()
    run.ring(now_ms)
    if run.root.outcome is not None:
        return (_finish(run),)
    bounds = [bound for bound in (spec.max_concurrency, max_concurrency) if bound is not None]
    free = min(bounds) - len(journal.driven - journal.asleep) if bounds else None
    actions = _Round(run, now_ms, free).actions()
    until = run.next_alarm()
    return (*actions, Wait(until, is_resting=not actions and not journal.driven))


def outputs_of(spec: WorkflowSpec, journal: Journal) -> dict[str, Any]:
    """Return the outputs of the nodes with an id that have settled, those within a foreach or a loop aside."""
    run: Run | None = journal.memo
    if run is None or run.spec is not spec:
        run = journal.memo = Run(spec, journal)
    run.catch_up()
    return {name: value for name, value in run.names.values.items() if name in spec.nodes and "#" not in name}


def _finish(run: Run) -> Finish:
    root, status = run.root, run.status()
    if status is RunStatus.COMPLETED:
        return Finish(status, root.output, not_undone=tuple(run.not_undone))
    if root.failure is not None:
        return Finish(
            status,
            error=root.failure.error,
            error_path=root.failure.path,
            not_undone=tuple(run.not_undone),
        )
    error = None if run.is_cancelled else StepError("workflow.stopped", "a step was stopped by somebody else")
    return Finish(status, error=error, not_undone=tuple(run.not_undone))


class _Round:
    """Makes the actions of one decision."""

    def __init__(self, run: Run, now_ms: int, free: int | None) -> None:
        self._run = run
        self._now_ms = now_ms
        self._free = free
        self._made: list[tuple[tuple[int, ...], Action]] = []

    def actions(self) -> list[Action]:
        """Return what is to be done about every leaf that wants something, in the order of the spec."""
        self._stops()
        self._waits()
        self._signals()
        self._starts()
        self._made.sort(key=lambda one: one[0])
        return [action for _, action in self._made]

    def _stops(self) -> None:
        for path, leaf in list(self._run.stopping.items()):
            if leaf.outcome is None and not leaf.is_reported:
                self._made.append((leaf.key, Stop(path)))
            else:
                del self._run.stopping[path]

    def _starts(self) -> None:
        """Take from what is ready as many as there are places for; they stay ready until somebody drives them."""
        kept: list[tuple[tuple[int, ...], Leaf]] = []
        left = self._free
        ready = self._run.ready
        while ready and (left is None or left > 0):
            leaf = heapq.heappop(ready)[1]
            if not leaf.is_ready:
                leaf.is_queued = False
                continue
            kept.append((leaf.key, leaf))
            action = self._start(leaf)
            self._made.append((leaf.key, action))
            if left is not None and not isinstance(action, Settle):
                left -= 1
        for one in kept:
            heapq.heappush(ready, one)

    def _start(self, leaf: Leaf) -> Action:
        node = leaf.node
        try:
            if isinstance(node, AgentNode):
                spec, text = self._agent(node, leaf)
                return StartAgent(leaf.path, node.id, leaf.attempt, spec, text, node.timeout_s)
            assert isinstance(node, ToolNode)
            args = node.args.fill(leaf.names, keeps_types=True)
            return StartTool(leaf.path, node.id, leaf.attempt, node.tool, args, node.timeout_s)
        except ReferenceFault as fault:
            return self._settled(leaf, StepState.FAILED, error=StepError(fault.code, str(fault)))
        except PowerLoopError as refusal:
            return self._settled(leaf, StepState.FAILED, error=StepError("workflow.invalid_agent", refusal.message))

    def _agent(self, node: AgentNode, leaf: Leaf) -> tuple[AgentSpec, str]:
        spec = AgentSpec.from_json({**node.agent, **node.texts.fill(leaf.names)})
        text = node.input.fill(leaf.names)
        parts = [text] if text.strip() else []
        parts += [section(reference, reference.value(leaf.names)) for reference in node.inputs_from]
        if sum(map(len, parts)) > MAX_FILLED_CHARS:
            raise ReferenceFault(
                f"its input is longer than {MAX_FILLED_CHARS} characters: refer to a part", code="workflow.too_large"
            )
        return spec, "\n\n".join(parts) or NO_INPUT

    def _waits(self) -> None:
        for path, leaf in list(self._run.waits.items()):
            action = None if leaf.outcome is not None or leaf.is_reported else self._wait(leaf)
            if action is None:
                del self._run.waits[path]
            else:
                self._made.append((leaf.key, action))

    def _wait(self, leaf: Leaf) -> Action | None:
        node, record = leaf.node, leaf.record
        assert isinstance(node, WaitNode)
        if record is None or record.state is not StepState.WAITING:
            return self._begin_wait(node, leaf)
        if leaf.halted:
            return self._settled(leaf, StepState.CANCELLED)
        if record.due_at_ms is None or self._now_ms < record.due_at_ms:
            return None
        if node.wait_for is WaitFor.TIME:
            return self._settled(leaf, StepState.COMPLETED)
        error = StepError("workflow.timeout", f"nobody ended {leaf.path!r} within {node.timeout_s} s")
        return self._settled(leaf, StepState.FAILED, error=error)

    def _begin_wait(self, node: WaitNode, leaf: Leaf) -> Action:
        waits: dict[str, Any] = {
            "path": leaf.path,
            "node_id": node.id,
            "attempt": leaf.attempt,
            "wait_for": node.wait_for,
        }
        if node.timeout_s is not None:
            waits["due_at_ms"] = self._now_ms + round(node.timeout_s * 1000)
        try:
            if node.wait_for is WaitFor.SIGNAL:
                return StartWait(**waits, signal=node.signal)
            if node.wait_for is WaitFor.PERSON:
                question = node.question.fill(leaf.names)
                return StartWait(**waits, signal=leaf.path, question=question, choices=node.choices)
            return StartWait(**{**waits, "due_at_ms": self._moment(node, leaf)})
        except ReferenceFault as fault:
            return self._settled(leaf, StepState.FAILED, error=StepError(fault.code, str(fault)))

    def _moment(self, node: WaitNode, leaf: Leaf) -> int:
        if node.at is None:
            return self._now_ms + round((node.delay_s or 0) * 1000)
        text = node.at.fill(leaf.names)
        moment = moment_ms(text)
        if moment is None:
            raise ReferenceFault(f"{text[:80]!r} is no date and time with a zone, like 2030-01-31T09:00:00Z")
        return moment

    def _signals(self) -> None:
        """Give each signal that nobody took to the first wait for it."""
        taken: set[str] = set()
        for signal in self._run.journal.untaken():
            waiting = self._run.waiting_for.get(signal.name, {})
            for path in [path for path, leaf in waiting.items() if leaf.outcome is not None or leaf.is_reported]:
                del waiting[path]
            free = [leaf for path, leaf in waiting.items() if path not in taken and leaf.is_waiting]
            if free:
                leaf = min(free, key=lambda one: one.key)
                taken.add(leaf.path)
                self._made = [one for one in self._made if one[0] != leaf.key]
                action = self._settled(leaf, StepState.COMPLETED, output=signal.value, signal_position=signal.position)
                self._made.append((leaf.key, action))

    def _settled(self, leaf: Leaf, state: StepState, **more: Any) -> Settle:
        record = leaf.record
        return Settle(
            path=leaf.path,
            node_id=leaf.node.id,
            kind=leaf.node.kind,
            attempt=leaf.attempt,
            state=state,
            record_input=None if record is None else record.input,
            **more,
        )
