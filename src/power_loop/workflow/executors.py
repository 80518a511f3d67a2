"""Is the seam between a workflow and where its leaves run: a task goes out, an outcome comes back, both plain data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import field
from decimal import Decimal
from typing import Any, Protocol

from power_loop.contracts.agent_spec import AgentSpec
from power_loop.contracts.cancellation import CancellationToken
from power_loop.contracts.events import EventPayload
from power_loop.contracts.frozen import frozen
from power_loop.contracts.llm import LLMService, Usage
from power_loop.contracts.ports import SessionStore
from power_loop.contracts.states import SendStatus
from power_loop.core.turn.turn import id_of_place


@frozen
class LeafTask:
    """Is all that a leaf is; as JSON it may travel to another process or machine.

    `path` is its step in the run, `attempt` counts its tries from 1. `key` is the request id of its send: the same
    however often this attempt is begun. `spec` has every reference filled in. `timeout_s` bounds it (default None: no
    limit of its own). `run_made_at_ms` tells its run from one of the same id in another database.
    """

    run_id: str
    path: str
    attempt: int
    key: str
    spec: AgentSpec
    input: str
    timeout_s: float | None = None
    run_made_at_ms: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "run_id": self.run_id,
            "path": self.path,
            "attempt": self.attempt,
            "key": self.key,
            "spec": self.spec.to_json(),
            "input": self.input,
            "timeout_s": self.timeout_s,
            "run_made_at_ms": self.run_made_at_ms,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> LeafTask:
        """Return the task of what `to_json` gave."""
        return cls(**{**value, "spec": AgentSpec.from_json(value["spec"])})


def leaf_key(run_id: str, path: str, attempt: int) -> str:
    """Return the key of an attempt at a step: always the same, and of no other."""
    return id_of_place("leaf", f"{run_id}|{path}|{attempt}")


@frozen
class LeafError:
    """Is why a leaf failed: the `code` of an error, and its message."""

    code: str
    message: str

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {"code": self.code, "message": self.message}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> LeafError:
        """Return the error of what `to_json` gave."""
        return cls(value["code"], value["message"])


@frozen
class LeafOutcome:
    """Is what became of a leaf: the `status` of its send, its text, and its parsed `output` where a schema was given.

    `usage` and `cost` are all that it took. Every status but `completed` and `waiting_for_input` has an `error`;
    `is_transient` tells that another try may go better. `session_id` is its session where that is in the run's own
    store: then that counts what it took.
    """

    status: SendStatus
    final_text: str = ""
    output: Any = None
    usage: Usage = field(default_factory=Usage)
    cost: Decimal | None = None
    error: LeafError | None = None
    session_id: str | None = None
    is_transient: bool = False

    @classmethod
    def failed(cls, code: str, message: str, *, is_transient: bool = False, **more: Any) -> LeafOutcome:
        """Return the outcome of a leaf that came to nothing."""
        return cls(SendStatus.FAILED, error=LeafError(code, message), is_transient=is_transient, **more)

    @property
    def is_completed(self) -> bool:
        """True if the leaf answered."""
        return self.status is SendStatus.COMPLETED

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "status": self.status.value,
            "final_text": self.final_text,
            "output": self.output,
            "usage": dataclasses.asdict(self.usage),
            "cost": None if self.cost is None else str(self.cost),
            "error": None if self.error is None else self.error.to_json(),
            "session_id": self.session_id,
            "is_transient": self.is_transient,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> LeafOutcome:
        """Return the outcome of what `to_json` gave."""
        return cls(
            SendStatus(value["status"]),
            value["final_text"],
            value["output"],
            Usage(**value["usage"]),
            None if value["cost"] is None else Decimal(value["cost"]),
            None if value["error"] is None else LeafError.from_json(value["error"]),
            value["session_id"],
            value["is_transient"],
        )


class LeafHost(Protocol):
    """Is what a run gives to the executor of one of its leaves."""

    @property
    def store(self) -> SessionStore:
        """The store of the run."""
        ...

    @property
    def stop(self) -> CancellationToken:
        """Says when the leaf is to end: its run was cancelled, its time is over, or it is not needed any more."""
        ...

    def announce(self, payload: EventPayload) -> None:
        """Tell the subscribers of the run's loop what happens in the leaf."""
        ...

    def lend_model(self, spec: AgentSpec) -> AbstractContextManager[LLMService]:
        """Lend the model of a spec as long as the block lasts, for a leaf that has none of its own.

        Its calls pass the hooks of the run's loop, are tried again as the loop's own are, and are counted and paid for
        by the run. Raises `agent.not_granted` for a model that the loop does not have.
        """
        ...

    async def run_in_process(self, task: LeafTask) -> LeafOutcome:
        """Run the leaf as a session below the run's, in its store."""
        ...

    async def recorded(self, task: LeafTask) -> LeafOutcome | None:
        """Return what the store has of a leaf that another process runs as a session below the run's, and count what
        it took; None as long as it has not come to rest."""
        ...

    async def give_up(self, task: LeafTask, reason: str) -> bool:
        """Ask another process to stop such a leaf, unless somebody else drives the run by now; False if no process
        drives it."""
        ...


class LeafExecutor(Protocol):
    """Runs leaves somewhere. One executor may run many at a time, of many runs."""

    async def run_leaf(self, task: LeafTask, host: LeafHost) -> LeafOutcome:
        """Run a leaf to its outcome, soon once `host.stop` is cancelled.

        A leaf's own failure is an outcome. When the task that awaits this is cancelled, nothing of the leaf may go on
        behind it.
        """
        ...

    async def aclose(self) -> None:
        """Let go of what it holds. May be called again."""
        ...


class InProcessExecutor:
    """Runs leaves in this process, each as a session below its run's."""

    async def run_leaf(self, task: LeafTask, host: LeafHost) -> LeafOutcome:
        """Run a leaf to its outcome."""
        return await host.run_in_process(task)

    async def aclose(self) -> None:
        """Do nothing: it holds nothing."""
