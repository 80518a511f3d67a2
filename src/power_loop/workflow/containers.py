"""Is the nodes that hold others while they run: in order, side by side, once an item, by a condition."""

from __future__ import annotations

from typing import Any

from power_loop.workflow.bounds import MAX_ITEMS
from power_loop.workflow.conditions import holds
from power_loop.workflow.frame import Failure, Frame, Names, Outcome
from power_loop.workflow.journal import StepError
from power_loop.workflow.refs import ReferenceFault
from power_loop.workflow.spec import BranchNode, ForeachNode, LoopNode, OnExhausted, ParallelNode, SequenceNode


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
