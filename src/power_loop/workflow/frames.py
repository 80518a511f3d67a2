"""Holds what runs of a run: a frame for each node instance, opened in order, settled once; a pure view of the journal.

However a journal came to hold its records, in whatever order and over however many processes, frames that read it come
to the same state. Three rules make it so: a frame opens when those before it have settled; where a part failed, its
siblings are *halted*, which means that only what has a record goes on; and whatever needs a time takes it from records.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from enum import Enum
from typing import Any

from power_loop.contracts.frozen import frozen
from power_loop.workflow.actions import RunStatus, WaitFor
from power_loop.workflow.bounds import MAX_ITEMS
from power_loop.workflow.conditions import holds
from power_loop.workflow.journal import Journal, StepError, StepRecord, StepState
from power_loop.workflow.refs import ReferenceFault
from power_loop.workflow.spec import (
    AgentNode,
    BranchNode,
    ForeachNode,
    LoopNode,
    Node,
    OnError,
    OnExhausted,
    ParallelNode,
    SequenceNode,
    ToolNode,
    WaitNode,
    WorkflowSpec,
)


class Outcome(Enum):
    """Is how a frame settled."""

    DONE = "done"
    FAILED = "failed"
    HALTED = "halted"  # it, or a part of it, was never begun or was stopped


@frozen
class Failure:
    """Is why a frame failed, where, and when."""

    error: StepError
    path: str
    at_ms: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return what `{{error}}` gives in a fallback or a compensation."""
        return {"code": self.error.code, "message": self.error.message, "path": self.path}


#: Failures that come again whenever the same is tried again.
_CERTAIN = frozenset(
    f"workflow.{name}" for name in ("reference", "too_large", "not_a_list", "too_many_items", "invalid_agent")
)


class Names:
    """Is what names stand for in one place of a run: what was said here, or else around it."""

    __slots__ = ("around", "values")

    def __init__(self, values: dict[str, Any], around: Names | None = None) -> None:
        self.values = values
        self.around = around

    def lookup(self, name: str) -> Any:
        """Return what a name stands for; None for a node that was skipped or failed."""
        here: Names | None = self
        while here is not None:
            if name in here.values:
                return here.values[name]
            here = here.around
        return None


class Role(Enum):
    """Is what a frame is to the one around it."""

    PART = "part"
    FALLBACK = "fallback"
    UNDO = "undo"


class Frame:
    """Is one instance of a node while it runs: its tries, its time, and what becomes of a failure."""

    __slots__ = (
        "around",
        "attempt",
        "deadline_ms",
        "ended_ms",
        "instead",
        "is_expired",
        "failure",
        "halted",
        "is_open",
        "is_stopped",
        "is_trying",
        "is_undoing",
        "key",
        "names",
        "node",
        "outcome",
        "output",
        "place",
        "prefix",
        "retry_at_ms",
        "role",
        "run",
        "started_ms",
        "to_undo",
        "undoable",
        "was_skipped",
    )

    def __init__(
        self, run: Run, node: Node, *, names: Names, prefix: str, around: Frame | None, place: int = 0
    ) -> None:
        self.run = run
        self.node = node
        self.names = names
        self.prefix = prefix
        self.around = around
        self.place = place
        self.key: tuple[int, ...] = (*(around.key if around is not None else ()), node.order, place)
        self.role = Role.PART
        self.attempt = 1
        self.is_open = False
        self.halted = False
        self.is_stopped = False
        self.is_trying = False
        self.is_expired = False
        self.is_undoing = False
        self.instead: Frame | None = None
        self.was_skipped = False
        self.outcome: Outcome | None = None
        self.output: Any = None
        self.failure: Failure | None = None
        self.started_ms: int | None = None
        self.ended_ms = 0
        self.deadline_ms: int | None = None
        self.retry_at_ms: int | None = None
        self.undoable: list[Frame] = []
        self.to_undo: list[Frame] = []

    @property
    def path(self) -> str:
        """The name of the instance in its run."""
        return self.prefix + self.node.id

    @property
    def inner_prefix(self) -> str:
        """What the paths within it begin with; a further try has paths of its own."""
        return self.prefix if self.attempt == 1 else f"{self.prefix}{self.node.id}~{self.attempt}/"

    # --- its life ---

    def open(self) -> None:
        """Begin, unless its condition says no."""
        self.is_open = True
        if self.node.when is not None and not holds(self.node.when, self.names):
            self.was_skipped = True
            self.settle(Outcome.DONE)
            return
        self.is_trying = True
        self.begin()

    def begin(self) -> None:
        """Begin an attempt."""
        raise NotImplementedError

    def halt(self, *, stop: bool) -> None:
        """Begin nothing more that has no record; with `stop`, end what runs."""
        if self.outcome is not None or (self.halted and (self.is_stopped or not stop)):
            return
        self.halted = True
        self.is_stopped = self.is_stopped or stop
        if self.retry_at_ms is not None:
            self.retry_at_ms = None
            self.give_up()
        elif self.instead is not None:
            self.instead.halt(stop=stop)
        elif self.is_trying:
            self.halt_parts(stop=stop)

    def halt_parts(self, *, stop: bool) -> None:
        """Hand a halt on to what is open within."""
        raise NotImplementedError

    def part_settled(self, part: Frame) -> None:
        """Go on behind a part of the node itself."""
        raise NotImplementedError

    def child_settled(self, child: Frame) -> None:
        """Take in what a frame within this one came to."""
        self.ended_ms = max(self.ended_ms, child.ended_ms)
        if child.role is Role.UNDO:
            if child.outcome is not Outcome.DONE:
                self.run.not_undone.append(child.path)
            self.undo_next()
        elif child.role is Role.FALLBACK:
            self.undoable += child.undoable
            self.output = child.output
            self.failure = child.failure or self.failure
            self.settle(child.outcome or Outcome.HALTED)
        else:
            self.undoable += child.undoable
            self.part_settled(child)

    def began_at(self, at_ms: int) -> None:
        """Learn when something within began; a time limit counts from the first."""
        frame: Frame | None = self
        while frame is not None and (frame.started_ms is None or at_ms < frame.started_ms):
            frame.started_ms = at_ms
            if frame.is_trying and frame.node.timeout_s is not None and not isinstance(frame, Leaf):
                frame.deadline_ms = at_ms + round(frame.node.timeout_s * 1000)
                frame.run.wake_at(frame.deadline_ms, frame)
            frame = frame.around

    def tick(self, now_ms: int) -> None:
        """Do what the time has come for."""
        if self.outcome is not None:
            return
        if self.retry_at_ms is not None and now_ms >= self.retry_at_ms:
            self.retry_at_ms = None
            self.next_attempt()
        elif self.deadline_ms is not None and now_ms >= self.deadline_ms and self.is_trying:
            self.is_expired = True
            self.halt_parts(stop=True)

    def waits_for(self, at_ms: int) -> bool:
        """Tell whether it has something to do at a moment that it asked for once."""
        if self.outcome is not None:
            return False
        return at_ms == self.retry_at_ms or (self.is_trying and at_ms == self.deadline_ms)

    # --- how an attempt ends ---

    def done(self, output: Any) -> None:
        """End an attempt well, unless it took too long."""
        if self.deadline_ms is not None and self.ended_ms > self.deadline_ms and not isinstance(self, Leaf):
            self.failed(self.too_late())
            return
        self.output = output
        self.settle(Outcome.DONE)

    def stopped(self) -> None:
        """End an attempt of which a part was halted."""
        if self.is_late():
            self.failed(self.too_late())
        elif self.around is None and self.run.spec.undo_on_cancel:
            self.undo()
        else:
            self.settle(Outcome.HALTED)

    def is_late(self) -> bool:
        """Tell whether its parts were stopped because of its own time limit, and not of one around it."""
        deadline_ms = self.deadline_ms
        if deadline_ms is None or not (self.is_expired or self.ended_ms >= deadline_ms):
            return False
        around = self.around
        while around is not None:
            if around.deadline_ms is not None and around.deadline_ms <= deadline_ms:
                return False
            around = around.around
        return True

    def too_late(self) -> Failure:
        """Return what a time limit that was passed means."""
        message = f"{self.path!r} took longer than its {self.node.timeout_s} s"
        return Failure(StepError("workflow.timeout", message), self.path, self.deadline_ms or 0)

    def failed(self, failure: Failure) -> None:
        """End an attempt badly: undo what it did if the failure goes no further, then do what the node says."""
        self.failure = failure
        self.is_trying = self.is_expired = False
        self.deadline_ms = None
        if self.tries_again() or self.node.on_error is not OnError.HALT or self.around is None:
            self.undo()
        else:
            self.settle(Outcome.FAILED)

    def tries_again(self) -> bool:
        """Tell whether its failure is followed by another attempt."""
        retry, failure = self.node.retry, self.failure
        if retry is None or failure is None or self.attempt >= retry.attempts or failure.error.code in _CERTAIN:
            return False
        if self.halted and not self.run.has_begun(f"{self.prefix}{self.node.id}~{self.attempt + 1}/"):
            return False
        return any(_matches(word, failure.error) for word in retry.on)

    def undo(self) -> None:
        """Run the compensations of what was done within, the last one first."""
        self.is_trying = False
        self.to_undo = sorted(self.undoable, key=lambda frame: (frame.ended_ms, frame.key))
        self.undoable = []
        self.is_undoing = True
        self.undo_next()

    def undo_next(self) -> None:
        """Run the next compensation, or go on behind the last one."""
        if self.to_undo:
            frame = self.to_undo.pop()
            assert frame.node.compensate is not None
            error = None if self.failure is None else self.failure.to_json()
            names = Names({"error": error}, frame.names)
            self.made(frame.node.compensate, names, prefix=frame.prefix, role=Role.UNDO).open()
            return
        self.is_undoing = False
        if self.failure is None:
            self.settle(Outcome.HALTED)
        elif self.tries_again():
            retry = self.node.retry
            assert retry is not None
            self.retry_at_ms = max(self.failure.at_ms, self.ended_ms) + retry.backoff.wait_ms(self.attempt)
            if self.halted:
                self.retry_at_ms = None
                self.next_attempt()
            else:
                self.run.wake_at(self.retry_at_ms, self)
        else:
            self.give_up()

    def next_attempt(self) -> None:
        """Begin anew, as if nothing had been."""
        self.attempt += 1
        self.failure = None
        self.started_ms = self.deadline_ms = None
        self.forget()
        self.is_trying = True
        self.begin()

    def forget(self) -> None:
        """Forget what the last attempt's parts gave."""
        for name in self.run.names_within(self.node):
            self.names.values.pop(name, None)

    def give_up(self) -> None:
        """Do what the node says of a failure for good."""
        if self.node.on_error is OnError.CONTINUE:
            self.settle(Outcome.DONE)
        elif self.node.on_error is OnError.FALLBACK and self.node.fallback is not None:
            assert self.failure is not None
            names = Names({"error": self.failure.to_json()}, self.names)
            self.instead = self.made(self.node.fallback, names, prefix=self.prefix, role=Role.FALLBACK)
            self.instead.open()
        else:
            self.settle(Outcome.FAILED)

    def settle(self, outcome: Outcome) -> None:
        """Come to rest, and tell the frame around."""
        self.outcome = outcome
        if outcome is Outcome.DONE:
            self.names.values[self.node.id] = self.output
            if self.node.compensate is not None and not self.was_skipped and self.failure is None:
                self.undoable.append(self)
        if self.around is not None:
            self.around.child_settled(self)

    def made(self, node: Node, names: Names, *, prefix: str, role: Role = Role.PART, place: int = 0) -> Frame:
        """Return a frame within this one, which is not open yet. What undoes is never halted."""
        frame = _FRAMES[type(node)](self.run, node, names=names, prefix=prefix, around=self, place=place)
        frame.role = role
        if role is not Role.UNDO:
            frame.halted, frame.is_stopped = self.halted, self.is_stopped
        return frame


def _matches(word: str, error: StepError) -> bool:
    if word == "any":
        return True
    if word == "transient":
        return error.is_transient
    if word == "timeout":
        return error.code.endswith("timeout")
    return error.code.startswith(word[:-1]) if word.endswith(".*") else error.code == word


class Leaf(Frame):
    """Is an agent, a tool call or a wait: what it came to stands in its record."""

    __slots__ = ("is_queued", "is_reported")

    def begin(self) -> None:
        """Read its record, which says what is to be done."""
        self.run.leaves[self.path] = self
        self.is_reported = self.is_queued = False
        self.look()

    def look(self) -> None:
        """Read its record anew."""
        if self.outcome is not None or self.retry_at_ms is not None or self.is_reported:
            return
        record = self.record
        if record is None:
            # What is driven has begun: its record is on its way.
            if self.halted and self.path not in self.run.journal.driven:
                self.is_reported = True
                self.settle(Outcome.HALTED)
            else:
                self.run.wants(self)
            return
        self.attempt = max(self.attempt, record.attempt)
        self.began_at(record.started_at_ms)
        if record.state is StepState.STARTED or record.state is StepState.WAITING:
            self.run.wants(self)
            if record.state is StepState.WAITING and record.due_at_ms is not None:
                self.run.wake_at(record.due_at_ms, self)
            return
        if record.attempt < self.attempt:  # it is that of the attempt before
            self.run.wants(self)
            return
        self.is_reported = True
        self.ended_ms = max(self.ended_ms, record.ended_at_ms or 0)
        if record.state is StepState.COMPLETED:
            self.done(record.output)
        elif record.state is StepState.FAILED:
            error = record.error or StepError("workflow.failed", "nobody wrote down why")
            self.failed(Failure(error, self.path, self.ended_ms))
        else:
            self.settle(Outcome.HALTED)

    def __lt__(self, other: Leaf) -> bool:
        return self.key < other.key

    @property
    def is_waiting(self) -> bool:
        """Tell whether it waits, and may go on."""
        record = self.record
        return not self.halted and record is not None and record.state is StepState.WAITING

    @property
    def is_ready(self) -> bool:
        """Tell whether it can be started."""
        if self.outcome is not None or self.is_reported or self.retry_at_ms is not None or self.is_stopped:
            return False
        record = self.record
        is_asking = record is not None and record.state is StepState.WAITING
        return not is_asking and self.path not in self.run.journal.driven

    @property
    def record(self) -> StepRecord | None:
        """Its record, if there is one."""
        return self.run.journal.records.get(self.path)

    def waits_for(self, at_ms: int) -> bool:
        """Tell whether it has something to do at a moment that it asked for once."""
        record = self.record
        is_due = self.is_waiting and record is not None and record.due_at_ms == at_ms
        return super().waits_for(at_ms) or (is_due and self.outcome is None)

    def halt_parts(self, *, stop: bool) -> None:
        """Settle if it was never begun; what runs is stopped by the decision, if it is."""
        record = self.record
        if self.is_undoing or self.is_reported:
            return
        is_begun = record is not None and record.attempt >= self.attempt
        if is_begun or self.path in self.run.journal.driven:
            self.run.wants(self)
        else:
            self.is_reported = True
            self.settle(Outcome.HALTED)

    def tries_again(self) -> bool:
        """Tell whether its failure is followed by another attempt: a leaf that is halted has had its last one."""
        return not self.halted and super().tries_again()

    def forget(self) -> None:
        """Do nothing: it has no parts."""

    def next_attempt(self) -> None:
        """Ask to be started once more."""
        self.attempt += 1
        self.failure = None
        self.is_trying = True
        self.is_reported = False
        self.run.wants(self)

    def part_settled(self, part: Frame) -> None:
        """Never happens: it has no parts."""
        raise AssertionError(part.path)


class Sequence(Frame):
    """Runs its steps one after the other."""

    __slots__ = ("current", "is_moving", "next_step")

    node: SequenceNode

    def begin(self) -> None:
        """Open the first step."""
        self.next_step = 0
        self.current: Frame | None = None
        self.is_moving = False
        self.move()

    def move(self) -> None:
        """Open steps until one has to be waited for."""
        if self.is_moving:
            return
        self.is_moving = True
        steps = self.node.steps
        while self.current is None or self.current.outcome is not None:
            if self.current is not None and self.current.outcome is not Outcome.DONE:
                break
            if self.next_step == len(steps):
                break
            step = steps[self.next_step]
            self.next_step += 1
            self.current = self.made(step, self.names, prefix=self.inner_prefix)
            self.current.open()
        self.is_moving = False
        last = self.current
        if last is None or last.outcome is None:
            return
        if last.outcome is Outcome.DONE:
            self.done(last.output)
        elif last.outcome is Outcome.FAILED and last.failure is not None:
            self.failed(last.failure)
        else:
            self.stopped()

    def part_settled(self, part: Frame) -> None:
        """Open the next step."""
        self.move()

    def halt_parts(self, *, stop: bool) -> None:
        """Halt the step that runs."""
        if self.current is not None:
            self.current.halt(stop=stop)


class Branch(Frame):
    """Runs the first case that holds."""

    __slots__ = ("chosen",)

    node: BranchNode

    def begin(self) -> None:
        """Choose, and open what was chosen."""
        self.chosen: Frame | None = None
        node = next((case for when, case in self.node.cases if holds(when, self.names)), self.node.otherwise)
        if node is None:
            self.done(None)
            return
        self.chosen = self.made(node, self.names, prefix=self.inner_prefix)
        self.chosen.open()

    def part_settled(self, part: Frame) -> None:
        """Come to what the case came to."""
        if part.outcome is Outcome.DONE:
            self.done(part.output)
        elif part.outcome is Outcome.FAILED and part.failure is not None:
            self.failed(part.failure)
        else:
            self.stopped()

    def halt_parts(self, *, stop: bool) -> None:
        """Halt the case that runs."""
        if self.chosen is not None:
            self.chosen.halt(stop=stop)


class Loop(Frame):
    """Runs its body until its condition holds."""

    __slots__ = ("count", "current", "is_moving")

    node: LoopNode

    def begin(self) -> None:
        """Open the body for the first time."""
        self.count = 0
        self.current: Frame | None = None
        self.is_moving = False
        self.move()

    def move(self) -> None:
        """Run the body until it has to be waited for, or need not be run again."""
        if self.is_moving:
            return
        self.is_moving = True
        while self.current is None or self.current.outcome is not None:
            if self.current is not None and (
                self.current.outcome is not Outcome.DONE
                or self.holds_behind(self.current)
                or self.count == self.node.max_iterations
            ):
                break
            values: dict[str, Any] = {}
            if self.node.variable is not None:
                values[self.node.variable] = None if self.current is None else self.current.output
            if self.node.index_variable is not None:
                values[self.node.index_variable] = self.count
            prefix = f"{self.inner_prefix}{self.node.id}[{self.count}]/"
            self.current = self.made(self.node.body, Names(values, self.names), prefix=prefix, place=self.count)
            self.count += 1
            self.current.open()
        self.is_moving = False
        last = self.current
        if last.outcome is None:
            return
        if last.outcome is Outcome.FAILED and last.failure is not None:
            self.failed(last.failure)
        elif last.outcome is not Outcome.DONE:
            self.stopped()
        elif self.node.on_exhausted is OnExhausted.ACCEPT or self.holds_behind(last):
            self.done(last.output)
        else:
            message = f"{self.path!r} ran {self.count} times, and its condition does not hold"
            self.failed(Failure(StepError("workflow.loop_exhausted", message), self.path, self.ended_ms))

    def holds_behind(self, last: Frame) -> bool:
        """Tell whether the condition holds behind a body that has run."""
        return self.node.until is not None and holds(self.node.until, last.names)

    def part_settled(self, part: Frame) -> None:
        """Look whether it is to run again."""
        self.move()

    def halt_parts(self, *, stop: bool) -> None:
        """Halt the body that runs."""
        if self.current is not None:
            self.current.halt(stop=stop)


class Many(Frame):
    """Runs parts side by side, so many at one time; one that fails halts the others, which come to their end first."""

    __slots__ = ("count", "failing", "is_moving", "limit", "next_part", "open_parts", "outputs", "worst")

    def begin(self) -> None:
        """Open as many parts as may run at one time."""
        self.next_part = 0
        self.open_parts: dict[int, Frame] = {}
        self.failing: Frame | None = None
        self.worst = Outcome.DONE
        self.is_moving = False
        try:
            self.count, self.limit = self.parts()
        except ReferenceFault as fault:
            self.failed(Failure(StepError(fault.code, str(fault)), self.path, self.ended_ms))
            return
        self.outputs: list[Any] = [None] * self.count
        self.move()

    def parts(self) -> tuple[int, int]:
        """Return how many parts there are and how many may run at one time. Raises `ReferenceFault`."""
        raise NotImplementedError

    def part(self, place: int) -> Frame:
        """Return the frame of a part, which is not open yet."""
        raise NotImplementedError

    def output_of(self, outputs: list[Any]) -> Any:
        """Return the output of all."""
        raise NotImplementedError

    def move(self) -> None:
        """Open parts until all are open that may be."""
        if self.is_moving:
            return
        self.is_moving = True
        while self.next_part < self.count and (len(self.open_parts) < self.limit or self.worst is not Outcome.DONE):
            place = self.next_part
            self.next_part += 1
            frame = self.part(place)
            frame.halted = self.halted or self.worst is not Outcome.DONE
            self.open_parts[place] = frame
            frame.open()
        self.is_moving = False
        if self.open_parts or self.next_part < self.count:
            return
        if self.failing is not None and self.failing.failure is not None:
            self.failed(self.failing.failure)
        elif self.worst is Outcome.HALTED:
            self.stopped()
        else:
            self.done(self.output_of(self.outputs))

    def part_settled(self, part: Frame) -> None:
        """Keep what a part gave, and open the next one; or halt the others."""
        del self.open_parts[part.place]
        self.outputs[part.place] = part.output
        if part.outcome is not Outcome.DONE:
            was_fine = self.worst is Outcome.DONE
            if part.outcome is Outcome.FAILED:
                self.worst = Outcome.FAILED
                if self.failing is None or part.place < self.failing.place:
                    self.failing = part
            elif was_fine:
                self.worst = Outcome.HALTED
            if was_fine:
                was_moving, self.is_moving = self.is_moving, True
                for other in list(self.open_parts.values()):
                    other.halt(stop=False)
                self.is_moving = was_moving
        self.move()

    def halt_parts(self, *, stop: bool) -> None:
        """Halt what runs, and begin nothing more."""
        was_moving, self.is_moving = self.is_moving, True
        for frame in list(self.open_parts.values()):
            frame.halt(stop=stop)
        if self.next_part < self.count and self.worst is Outcome.DONE:
            self.worst = Outcome.HALTED
        self.is_moving = was_moving
        self.move()


class Parallel(Many):
    """Runs its steps side by side."""

    __slots__ = ()

    node: ParallelNode

    def parts(self) -> tuple[int, int]:
        """Return how many steps there are and how many may run at one time."""
        return len(self.node.steps), self.node.max_concurrency or len(self.node.steps)

    def part(self, place: int) -> Frame:
        """Return the frame of a step."""
        return self.made(self.node.steps[place], self.names, prefix=self.inner_prefix, place=place)

    def output_of(self, outputs: list[Any]) -> Any:
        """Return the outputs by the ids of their steps."""
        return {step.id: output for step, output in zip(self.node.steps, outputs, strict=True)}


class Foreach(Many):
    """Runs its body once an item."""

    __slots__ = ("items",)

    node: ForeachNode

    def parts(self) -> tuple[int, int]:
        """Return how many items there are and how many may run at one time."""
        if self.node.items_from is not None:
            items = self.node.items_from.value(self.names)
        else:
            assert self.node.items is not None
            items = self.node.items.fill(self.names, keeps_types=True)
        if items is None:
            items = []
        if not isinstance(items, list):
            raise ReferenceFault(
                f"`{self.node.items_from}` is no list but {type(items).__name__}: {str(items)[:80]!r}",
                code="workflow.not_a_list",
            )
        if len(items) > MAX_ITEMS:
            raise ReferenceFault(
                f"{self.path!r} has {len(items)} items: give at most {MAX_ITEMS}", code="workflow.too_many_items"
            )
        self.items: list[Any] = items
        return len(items), (self.node.max_concurrency or len(items)) if self.node.is_parallel else 1

    def part(self, place: int) -> Frame:
        """Return the frame of the body for an item."""
        values = {self.node.variable: self.items[place]}
        if self.node.index_variable is not None:
            values[self.node.index_variable] = place
        prefix = f"{self.inner_prefix}{self.node.id}[{place}]/"
        return self.made(self.node.body, Names(values, self.names), prefix=prefix, place=place)

    def output_of(self, outputs: list[Any]) -> Any:
        """Return the outputs in the order of the items."""
        return outputs


_FRAMES: Mapping[type[Node], type[Frame]] = {
    AgentNode: Leaf,
    ToolNode: Leaf,
    WaitNode: Leaf,
    SequenceNode: Sequence,
    ParallelNode: Parallel,
    ForeachNode: Foreach,
    BranchNode: Branch,
    LoopNode: Loop,
}


class Run:
    """Is the frames of one run, and what they wait for."""

    def __init__(self, spec: WorkflowSpec, journal: Journal) -> None:
        self.spec = spec
        self.journal = journal
        self.names = Names({"input": journal.input})
        self.leaves: dict[str, Leaf] = {}
        self.not_undone: list[str] = []
        self.is_cancelled = False
        self.ready: list[tuple[tuple[int, ...], Leaf]] = []
        self.waits: dict[str, Leaf] = {}
        self.waiting_for: dict[str, dict[str, Leaf]] = {}
        self.stopping: dict[str, Leaf] = {}
        self._alarms: list[tuple[int, tuple[int, ...], int, Frame]] = []
        self._alarm_count = 0
        self._attempts_begun: set[str] = set()
        self._names_within: dict[str, tuple[str, ...]] = {}
        for path in journal.records:
            self._learn(path)
        journal.changed.clear()
        self.root: Frame = _FRAMES[type(spec.root)](self, spec.root, names=self.names, prefix="", around=None)
        self.root.halted = self.root.is_stopped = self.is_cancelled = journal.is_cancelled
        self.root.open()

    def catch_up(self) -> None:
        """Read what changed in the journal."""
        if self.journal.is_cancelled and not self.is_cancelled:
            self.is_cancelled = True
            self.root.halt(stop=True)
        changed, self.journal.changed = self.journal.changed, []
        for path in changed:
            self._learn(path)
            leaf = self.leaves.get(path)
            if leaf is not None:
                leaf.look()

    def status(self) -> RunStatus:
        """Return what a run comes to whose root has settled."""
        if self.root.outcome is Outcome.DONE:
            return RunStatus.COMPLETED
        return RunStatus.CANCELLED if self.is_cancelled else RunStatus.FAILED

    def wants(self, leaf: Leaf) -> None:
        """Remember that something may have to be done about a leaf."""
        if isinstance(leaf.node, WaitNode):
            self.waits[leaf.path] = leaf
            record = leaf.record
            if record is not None and record.state is StepState.WAITING and leaf.node.wait_for is not WaitFor.TIME:
                name = leaf.node.signal if leaf.node.wait_for is WaitFor.SIGNAL else leaf.path
                self.waiting_for.setdefault(name, {})[leaf.path] = leaf
        elif leaf.is_stopped:
            self.stopping[leaf.path] = leaf
        elif not leaf.is_queued:
            leaf.is_queued = True
            heapq.heappush(self.ready, (leaf.key, leaf))

    def wake_at(self, at_ms: int, frame: Frame) -> None:
        """Remember when a frame has something to do."""
        self._alarm_count += 1
        heapq.heappush(self._alarms, (at_ms, frame.key, self._alarm_count, frame))

    def ring(self, now_ms: int) -> None:
        """Let every frame act whose time has come."""
        while self._alarms and self._alarms[0][0] <= now_ms:
            frame = heapq.heappop(self._alarms)[3]
            frame.tick(now_ms)
            if isinstance(frame, Leaf) and frame.outcome is None:
                self.wants(frame)

    def next_alarm(self) -> int | None:
        """Return when a frame has something to do, if one has."""
        while self._alarms and not self._alarms[0][3].waits_for(self._alarms[0][0]):
            heapq.heappop(self._alarms)
        return self._alarms[0][0] if self._alarms else None

    def has_begun(self, prefix: str) -> bool:
        """Tell whether a further attempt of a node has records."""
        return prefix in self._attempts_begun

    def _learn(self, path: str) -> None:
        """Learn which attempts have begun."""
        at = path.find("~")
        while at >= 0:
            end = path.find("/", at)
            self._attempts_begun.add(path[: end + 1])
            at = path.find("~", end)

    def names_within(self, node: Node) -> tuple[str, ...]:
        """Return the ids that an attempt of a node may have given a meaning to."""
        if node.id not in self._names_within:
            inside = f"{node.place}."
            self._names_within[node.id] = tuple(
                one.id for one in self.spec.nodes.values() if one.place.startswith(inside)
            )
        return self._names_within[node.id]
