"""Is what a run has done so far: one record a step instance, and the index that decisions read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field
from enum import Enum
from typing import Any

from power_loop.contracts.frozen import frozen


class StepState(str, Enum):
    """Is where a step instance stands; a failed one may be tried again, all but `started` and `waiting` rest."""

    STARTED = "started"  # an executor has it, or had it when its process died
    WAITING = "waiting"  # a `wait` step that waits for its signal, person or time, or an agent that asks a person
    COMPLETED = "completed"
    FAILED = "failed"  # the attempt that the record counts failed
    CANCELLED = "cancelled"  # it was stopped: the run was cancelled, or what it belonged to ran out of time


@frozen
class StepError:
    """Is why a step failed. `code` is that of a PowerLoopError, `is_transient` says that a later try may do better."""

    code: str
    message: str
    is_transient: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the error as JSON."""
        return {"code": self.code, "message": self.message, "is_transient": self.is_transient}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> StepError:
        """Return an error of what `to_json` gave."""
        return cls(
            code=str(value.get("code", "")),
            message=str(value.get("message", "")),
            is_transient=bool(value.get("is_transient", False)),
        )


@frozen
class StepRecord:
    """Is one step instance, as its row holds it.

    `path` names the instance in its run (`research[3]/r`), `node_id` the node of the spec. `attempt` counts from 1.
    `input` is what it was started with (an action's `record_input`), `output` what it gave (JSON). `started_at_ms` is
    when its first attempt began, and stays what it is in further ones: the time limits of what it belongs to count from
    there. `due_at_ms` is when a wait is over, or when a waiting one has waited too long. `more` holds what only the
    engine and its store know: `child_session_id`, usage, cost.
    """

    path: str
    node_id: str
    kind: str
    state: StepState
    attempt: int = 1
    input: Any = None
    output: Any = None
    error: StepError | None = None
    due_at_ms: int | None = None
    started_at_ms: int = 0
    ended_at_ms: int | None = None
    more: Mapping[str, Any] = field(default_factory=dict, compare=False)


@frozen
class SignalRecord:
    """Is a signal that was sent to a run, in order of `position`; `taken_by` is the path of the wait that took it."""

    position: int
    name: str
    value: Any = None
    taken_by: str | None = None


class Journal:
    """Is all records of one run, indexed; the engine keeps it up to date, and decisions only read it.

    `input` is the run's. `note` takes a record that is durable; a later record of the same path replaces the earlier.
    `drive` tells that this engine runs a step at the moment, so that it is not started again; a record that is not
    `started`, or `release`, puts an end to that. A step whose record says `started` and that nobody drives was
    interrupted: it is started again, under the same attempt, so that its executor finds what became of it. `rest` tells
    that one which is driven asked a person. An agent whose record says `waiting` did so too: it is left alone until its
    record says `started` again. `cancel` tells that the run was asked to stop.

    `changed` and `memo` are the decisions' own: what they have not read yet, and what they made of what they have.
    """

    def __init__(self, input: Any = None, records: Iterable[StepRecord] = (), *, is_cancelled: bool = False) -> None:
        self.input = input
        self.is_cancelled = is_cancelled
        self.records: dict[str, StepRecord] = {}
        self.signals: dict[int, SignalRecord] = {}
        self._untaken: dict[int, SignalRecord] = {}
        self.driven: set[str] = set()
        self.asleep: set[str] = set()
        self.changed: list[str] = []
        self.memo: Any = None
        for record in records:
            self.note(record)

    def note(self, record: StepRecord) -> None:
        """Take in a record that is durable."""
        self.records[record.path] = record
        self.changed.append(record.path)
        if record.state is not StepState.STARTED:
            self.driven.discard(record.path)
            self.asleep.discard(record.path)

    def drive(self, path: str) -> None:
        """Remember that this engine runs a step."""
        self.driven.add(path)
        self.changed.append(path)

    def release(self, path: str) -> None:
        """Forget that this engine runs a step: it is started again."""
        self.driven.discard(path)
        self.asleep.discard(path)
        self.changed.append(path)

    def rest(self, path: str) -> None:
        """Remember that a step which this engine drives waits for somebody: it takes up no place meanwhile."""
        self.drive(path)
        self.asleep.add(path)

    def signal(self, signal: SignalRecord) -> None:
        """Take in a signal, or that it was taken."""
        self.signals[signal.position] = signal
        if signal.taken_by is None:
            self._untaken[signal.position] = signal
        else:
            self._untaken.pop(signal.position, None)

    def untaken(self) -> list[SignalRecord]:
        """Return the signals that no wait has taken, in order."""
        return [signal for _, signal in sorted(self._untaken.items())]

    def cancel(self) -> None:
        """Remember that the run was asked to stop."""
        self.is_cancelled = True
