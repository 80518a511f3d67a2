"""Is one instance of a node while it runs: its tries, its time limit, and what becomes of a failure.

However a journal came to hold its records, in whatever order and over however many processes, frames that read it come
to the same state. Three rules make it so: a frame opens when those before it have settled; where a part failed, its
siblings are *halted*, which means that only what has a record goes on; and whatever needs a time takes it from records.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, ClassVar, Protocol

from power_loop.contracts.frozen import frozen
from power_loop.workflow.conditions import holds
from power_loop.workflow.journal import Journal, StepError
from power_loop.workflow.spec import Node, OnError, WorkflowSpec


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


class Surroundings(Protocol):
    """Is what a frame knows of its run."""

    spec: WorkflowSpec
    journal: Journal
    not_undone: list[str]

    def made(self, node: Node, names: Names, *, prefix: str, around: Frame | None, place: int = 0) -> Frame:
        """Return a frame for a node, which is not open yet."""
        ...

    def meets(self, leaf: Any) -> None:
        """Learn of a leaf that begins."""
        ...

    def wants(self, leaf: Any) -> None:
        """Remember that something may have to be done about a leaf."""
        ...

    def wake_at(self, at_ms: int, frame: Frame) -> None:
        """Remember when a frame has something to do."""
        ...

    def has_begun(self, prefix: str) -> bool:
        """Tell whether a further attempt of a node has records."""
        ...

    def names_within(self, node: Node) -> tuple[str, ...]:
        """Return the ids that an attempt of a node may have given a meaning to."""
        ...


class Frame:
    """Is one instance of a node while it runs: its tries, its time, and what becomes of a failure."""

    #: Whether it holds frames of other nodes.
    has_parts: ClassVar[bool] = True

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
        self, run: Surroundings, node: Node, *, names: Names, prefix: str, around: Frame | None, place: int = 0
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
            if frame.is_trying and frame.node.timeout_s is not None and frame.has_parts:
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
        if self.deadline_ms is not None and self.ended_ms > self.deadline_ms and self.has_parts:
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
        frame = self.run.made(node, names, prefix=prefix, around=self, place=place)
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
