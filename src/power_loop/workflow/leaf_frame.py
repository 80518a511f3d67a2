"""Is an agent, a tool call or a wait while it runs: what it came to stands in its record."""

from __future__ import annotations

from power_loop.workflow.frame import Failure, Frame, Outcome
from power_loop.workflow.journal import StepError, StepRecord, StepState


class Leaf(Frame):
    """Is an agent, a tool call or a wait: what it came to stands in its record."""

    has_parts = False

    __slots__ = ("is_queued", "is_reported")

    def begin(self) -> None:
        """Read its record, which says what is to be done."""
        self.run.meets(self)
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
