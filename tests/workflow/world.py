"""Is a world for runs without models: leaves take simulated time and come to what a seed says, and engines die."""

from __future__ import annotations

import heapq
import zlib
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Any

from power_loop.workflow.actions import Finish, Settle, StartAgent, StartTool, StartWait, Stop, Wait, WaitFor
from power_loop.workflow.decide import decide
from power_loop.workflow.journal import Journal, SignalRecord, StepError, StepRecord, StepState
from power_loop.workflow.spec import WorkflowSpec

#: More events than any run of the tests has: one that goes on for ever ends here.
MAX_EVENTS = 5_000

#: What a leaf comes to: its output or error, and how long it takes, in milliseconds.
Leaf = tuple[Any, int]
Script = Callable[[str, int], Leaf]


def by_seed(seed: int, *, failing: int = 25) -> Script:
    """Return a script that a seed decides: so many leaves of a hundred fail."""

    def script(path: str, attempt: int) -> Leaf:
        draw = zlib.crc32(f"{seed}|{path}|{attempt}".encode())
        if draw % 100 < failing:
            return StepError(
                ("x.y", "x.z", "llm.rate_limited")[draw // 100 % 3], "no", draw % 2 == 0
            ), draw // 7 % 9_000
        return [0, 1, 2, "x", True, None, [1], {"k": 1}][draw // 100 % 8], draw // 7 % 9_000

    return script


@dataclass
class World:
    """Drives one run; `restarts` are the numbers of events after which its engine dies and another one goes on."""

    spec: WorkflowSpec
    script: Script
    restarts: Collection[int] = ()
    cancel_at_ms: int | None = None
    max_concurrency: int | None = None
    check: Callable[[World], None] | None = None
    now_ms: int = 1_000
    events: int = 0
    started: list[tuple[str, int]] = field(default_factory=list)
    inputs: dict[str, Any] = field(default_factory=dict)
    began: dict[str, int] = field(default_factory=dict)
    busiest: int = 0

    def __post_init__(self) -> None:
        self.journal = Journal(self.spec.input)
        self._ends: list[tuple[int, str, int]] = []
        self._sent: list[tuple[int, str]] = []
        self._stopped: set[str] = set()

    def run(self) -> Finish | Wait:
        """Drive it to its end, or until nothing but a person or a signal can help."""
        while True:
            if self.cancel_at_ms is not None and self.now_ms >= self.cancel_at_ms:
                self.journal.cancel()
            *actions, last = decide(self.spec, self.journal, self.now_ms, max_concurrency=self.max_concurrency)
            if self.check is not None:
                self.check(self)
            if isinstance(last, Finish):
                assert not self.journal.driven
                return last
            assert isinstance(last, Wait)
            for action in actions:
                self.perform(action)
            self.busiest = max(self.busiest, len(self.journal.driven))
            if not actions and not self.advance(last):
                assert last.is_resting
                return last
            self.tick()

    def tick(self) -> None:
        """Count an event, and let the engine die if it is time."""
        self.events += 1
        assert self.events < MAX_EVENTS, "it does not end"
        if self.events in self.restarts:
            self.journal = self.reborn()

    def reborn(self) -> Journal:
        """Return what another engine reads of the store."""
        journal = Journal(self.spec.input, self.journal.records.values(), is_cancelled=self.journal.is_cancelled)
        for signal in self.journal.signals.values():
            journal.signal(signal)
        return journal

    def advance(self, wait: Wait) -> bool:
        """Let time pass until something happens; False if nothing ever will."""
        moments = [at for at in (wait.until_ms, self._ends[0][0] if self._ends else None) if at is not None]
        moments += [at for at, _ in self._sent[:1]]
        if moments and self.cancel_at_ms is not None and self.cancel_at_ms > self.now_ms:
            moments.append(self.cancel_at_ms)
        if not moments:
            return False
        self.now_ms = max(self.now_ms, min(moments))
        while self._ends and self._ends[0][0] <= self.now_ms:
            _, path, attempt = heapq.heappop(self._ends)
            record = self.journal.records[path]
            if record.state is StepState.STARTED and record.attempt == attempt:
                self.end(path)
        while self._sent and self._sent[0][0] <= self.now_ms:
            _, name = self._sent.pop(0)
            self.journal.signal(SignalRecord(len(self.journal.signals), name, f"to {name}"))
        return True

    def perform(self, action: Any) -> None:
        """Do what was decided, and write it down."""
        match action:
            case StartAgent() | StartTool():
                self.start(action)
            case StartWait():
                self.wait(action)
            case Settle():
                self.settle(action)
            case Stop():
                self.stop(action.path)

    def start(self, action: StartAgent | StartTool) -> None:
        path = action.path
        before = self.journal.records.get(path)
        assert path not in self.journal.driven
        self.journal.drive(path)
        self.inputs[path] = action.record_input
        if before is not None and before.state is StepState.STARTED:
            assert before.attempt == action.attempt, "it is taken up again as what it was"
            assert before.input == action.record_input, "and asked for the same"
        else:
            assert before is None or (before.state is StepState.FAILED and action.attempt == before.attempt + 1)
            self.started.append((path, action.attempt))
            self.journal.note(
                StepRecord(
                    path,
                    action.node_id,
                    "agent",
                    StepState.STARTED,
                    action.attempt,
                    action.record_input,
                    started_at_ms=self.now_ms if before is None else before.started_at_ms,
                )
            )
            self.began[path] = self.now_ms
        _, takes_ms = self.script(path, action.attempt)
        if action.timeout_s is not None:
            takes_ms = min(takes_ms, round(action.timeout_s * 1000))
        heapq.heappush(self._ends, (max(self.now_ms, self.began[path] + takes_ms), path, action.attempt))

    def end(self, path: str) -> None:
        record = self.journal.records[path]
        given, takes_ms = self.script(path, record.attempt)
        timeout_s = self.spec.nodes[record.node_id].timeout_s
        if timeout_s is not None and takes_ms > timeout_s * 1000:
            given = StepError("workflow.timeout", "too late")
        if isinstance(given, StepError):
            record = replace(record, state=StepState.FAILED, error=given, ended_at_ms=self.now_ms)
        else:
            record = replace(record, state=StepState.COMPLETED, output=given, ended_at_ms=self.now_ms)
        self.journal.note(record)

    def wait(self, action: StartWait) -> None:
        before = self.journal.records.get(action.path)
        assert before is None or (before.state is StepState.FAILED and action.attempt == before.attempt + 1)
        record = StepRecord(
            action.path,
            action.node_id,
            "wait",
            StepState.WAITING,
            action.attempt,
            action.record_input,
            due_at_ms=action.due_at_ms,
            started_at_ms=self.now_ms if before is None else before.started_at_ms,
        )
        self.journal.note(record)
        given, takes_ms = self.script(action.path, action.attempt)
        if action.wait_for is not WaitFor.TIME and not isinstance(given, StepError):
            assert action.signal is not None
            self._sent = sorted([*self._sent, (self.now_ms + takes_ms, action.signal)])

    def settle(self, action: Settle) -> None:
        before = self.journal.records.get(action.path)
        record = before or StepRecord(
            action.path, action.node_id, action.kind, action.state, started_at_ms=self.now_ms, input=action.record_input
        )
        self.journal.note(
            replace(
                record,
                state=action.state,
                attempt=action.attempt,
                output=action.output,
                error=action.error,
                ended_at_ms=self.now_ms,
            )
        )
        if action.signal_position is not None:
            signal = self.journal.signals[action.signal_position]
            assert signal.taken_by is None
            self.journal.signal(replace(signal, taken_by=action.path))

    def stop(self, path: str) -> None:
        record = self.journal.records[path]
        self.journal.note(replace(record, state=StepState.CANCELLED, ended_at_ms=self.now_ms))
