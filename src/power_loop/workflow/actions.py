"""Is what a decision about a run can ask of its engine."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from power_loop.contracts.agent_spec import AgentSpec
from power_loop.contracts.frozen import frozen
from power_loop.workflow.journal import StepError, StepState


class RunStatus(str, Enum):
    """Is where a run stands; `running` and `waiting` are no ends."""

    RUNNING = "running"
    WAITING = "waiting"  # what is left to do waits for a signal, a person or a time
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


@frozen
class StartAgent:
    """Start, or take up again, an agent as one attempt of a step.

    `spec` has every reference filled in. `input` is what it is told. `timeout_s` bounds this attempt; the engine keeps
    it. Its record's output is the parsed answer where `spec` has an output schema, else the text of the answer.
    """

    path: str
    node_id: str
    attempt: int
    spec: AgentSpec
    input: str
    timeout_s: float | None = None

    @property
    def record_input(self) -> dict[str, Any]:
        """What the step's record holds as its input: two that are equal ask for the same work."""
        return {"agent": self.spec.to_json(), "input": self.input}


@frozen
class StartTool:
    """Start, or take up again, a tool call as one attempt of a step."""

    path: str
    node_id: str
    attempt: int
    tool: str
    args: Mapping[str, Any]
    timeout_s: float | None = None

    @property
    def record_input(self) -> dict[str, Any]:
        """What the step's record holds as its input."""
        return {"tool": self.tool, "args": dict(self.args)}


class WaitFor(str, Enum):
    """Is what a `wait` step waits for."""

    SIGNAL = "signal"
    PERSON = "person"
    TIME = "time"


@frozen
class StartWait:
    """Write down that a step waits, with state `waiting` and `due_at_ms`.

    `signal` is the name of the signal that ends it (for a person: the step's path). `question` and `choices` are what a
    person is asked. `due_at_ms` is when a time is reached, or when a signal or answer comes too late.
    """

    path: str
    node_id: str
    attempt: int
    wait_for: WaitFor
    signal: str | None = None
    question: str | None = None
    choices: tuple[str, ...] = ()
    due_at_ms: int | None = None

    @property
    def record_input(self) -> dict[str, Any]:
        """What the step's record holds as its input."""
        return {
            "wait_for": self.wait_for.value,
            "signal": self.signal,
            "question": self.question,
            "choices": list(self.choices),
        }


@frozen
class Settle:
    """Write down the outcome of a step that needs no executor: a wait that is over, a step that cannot be started.

    `kind`, `attempt` and `record_input` are for a step that has no record yet. `signal_position` is the signal that it
    took, to be marked as taken in the same transaction.
    """

    path: str
    node_id: str
    kind: str
    attempt: int
    state: StepState
    output: Any = None
    error: StepError | None = None
    record_input: Any = None
    signal_position: int | None = None


@frozen
class Stop:
    """Stop a step that runs: its record becomes `cancelled`, or whatever it came to before that."""

    path: str


@frozen
class Wait:
    """Nothing else can be done until a step ends, a signal comes, or `until_ms` is reached (None: no time will help).

    `is_resting` tells that no step runs: the run may be left alone until then.
    """

    until_ms: int | None
    is_resting: bool


@frozen
class Finish:
    """End the run. `error` is why it failed; `not_undone` are the paths of compensations that failed
    themselves."""

    status: RunStatus
    output: Any = None
    error: StepError | None = None
    error_path: str | None = None
    not_undone: tuple[str, ...] = ()


Action = StartAgent | StartTool | StartWait | Settle | Stop | Wait | Finish
