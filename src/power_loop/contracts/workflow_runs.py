"""Is what the store keeps of a workflow's run: the run, its steps, the signals that were sent to it, and its moves."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from power_loop.contracts.budgets import Charge, money_of
from power_loop.contracts.frozen import frozen
from power_loop.contracts.messages import Message
from power_loop.contracts.records import NewChild, SendEnd
from power_loop.contracts.timers import NewTimer


@frozen
class NewRun:
    """Is a run to be made: the session that it is, and the workflow with its input and options (JSON).

    `parent_session_id` is the session that hears of its end, None where nobody does.
    """

    session: NewChild
    name: str
    spec: Mapping[str, Any]
    input: Any
    options: Mapping[str, Any]
    parent_session_id: str | None = None


@frozen
class WorkflowRunRecord:
    """Is one run. `state` is `running`, `waiting`, or how it ended, which it did at `ended_at_ms`.

    `spec`, `input` and `options` are what it was made with, `output` and `error` what it came to; one that is being
    cancelled and has not ended has its `error` already.
    """

    session_id: str
    name: str
    state: str
    spec: Mapping[str, Any]
    input: Any
    options: Mapping[str, Any]
    parent_session_id: str | None
    output: Any
    error: Mapping[str, Any] | None
    created_at_ms: int
    updated_at_ms: int
    ended_at_ms: int | None


@frozen
class WorkflowStepRecord:
    """Is one instance of a step, such as `research[3]/r`; `ended_nth` counts those that ended, in their order.

    `child_session_id` is the session of its leaf. `usage` and `cost_nanos` are what a leaf took whose session stands in
    no store of the run's; they are None of any other.
    """

    session_id: str
    path: str
    node_id: str
    kind: str
    state: str
    attempt: int = 1
    child_session_id: str | None = None
    input: Any = None
    output: Any = None
    error: Mapping[str, Any] | None = None
    usage: Mapping[str, Any] | None = None
    cost_nanos: int | None = None
    due_at_ms: int | None = None
    started_at_ms: int | None = None
    ended_at_ms: int | None = None
    ended_nth: int | None = None

    @property
    def cost(self) -> Decimal | None:
        """What it cost, where its leaf's session does not tell."""
        return None if self.cost_nanos is None else money_of(self.cost_nanos)


@frozen
class WorkflowSignalRecord:
    """Is a signal to a run, in the order of `position`, which counts from 1; `taken_by` is the path of the step that it
    reached."""

    session_id: str
    position: int
    name: str
    value: Any
    created_at_ms: int
    taken_by: str | None = None


@frozen
class RunWrite:
    """Is one durable move of a run's engine: everything in it becomes true in one transaction, or nothing.

    `made` are steps that have no row yet, `changed` are those that have one. `taken` are positions of signals, each
    with the path of the step that it reached. `closes` are sessions of leaves that are done with. `charges` are what
    leaves took of the budgets that pay for the run. `spec` replaces the run's, and `dropped` are paths whose rows go.
    `cancels` says why the run is being cancelled, which stands as its `error` from then on.
    """

    made: tuple[WorkflowStepRecord, ...] = ()
    changed: tuple[WorkflowStepRecord, ...] = ()
    taken: tuple[tuple[int, str], ...] = ()
    closes: tuple[str, ...] = ()
    charges: tuple[Charge, ...] = ()
    spec: Mapping[str, Any] | None = None
    dropped: tuple[str, ...] = ()
    cancels: Mapping[str, Any] | None = None


@frozen
class RunEnd:
    """Is how a run comes to rest, with the state that it has then: for good, or until somebody goes on with it.

    `send` is how its send ends; what that leaves to the parent is left in the same transaction. `message` says the
    outcome in the run's log. `timers` are made in the same transaction: what wakes the run, and what brings its end to
    the session that hears of it; those that the run had are ended.
    """

    state: str
    send: SendEnd
    is_final: bool = True
    output: Any = None
    error: Mapping[str, Any] | None = None
    message: Message | None = None
    timers: tuple[NewTimer, ...] = ()
