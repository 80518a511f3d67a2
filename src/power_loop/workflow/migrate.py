"""Plans how a run goes on under another spec: which of its steps are kept, which run again, and which are dropped."""

from __future__ import annotations

from dataclasses import fields
from enum import Enum
from typing import Any

from power_loop.contracts.frozen import frozen
from power_loop.workflow.actions import Finish, Settle, StartAgent, StartTool, StartWait
from power_loop.workflow.decide import decide
from power_loop.workflow.journal import Journal, StepRecord, StepState
from power_loop.workflow.spec import Node, WorkflowSpec


class Fate(str, Enum):
    """Is what becomes of a step."""

    KEEP = "keep"  # its outcome counts, and it is not run again
    RERUN = "rerun"  # its record goes, and the run comes to it again, or to what it may come to
    DROP = "drop"  # its record goes, and nothing of the new spec asks for it


@frozen
class StepPlan:
    """Says what becomes of one step, and why."""

    path: str
    fate: Fate
    reason: str


def plan_migration(old: WorkflowSpec, journal: Journal, new: WorkflowSpec) -> tuple[StepPlan, ...]:
    """Return the fate of every step of a journal, in the order of their paths; nothing is changed by it.

    A completed step is kept if the new spec asks at its path for the same work on the same input. A run is migrated
    while nobody drives it.
    """
    kept = _kept(journal, new)
    return tuple(_plan(record, kept, old=old, new=new) for _, record in sorted(journal.records.items()))


def _kept(journal: Journal, new: WorkflowSpec) -> dict[str, StepRecord]:
    """Return the records that stand under the new spec: let it ask for steps, and give it those that it asks for."""
    ours = Journal(journal.input)
    while True:
        asked = decide(new, ours, 0)
        found = [record for action in asked if (record := _answer(action, journal)) is not None]
        if not found or isinstance(asked[-1], Finish):
            return ours.records
        for record in found:
            ours.note(record)


def _answer(action: Any, journal: Journal) -> StepRecord | None:
    """Return the record of the work that an action asks for, if that was done."""
    if not isinstance(action, (StartAgent, StartTool, StartWait, Settle)):
        return None
    record = journal.records.get(action.path)
    if record is None or not _is_kept(record):
        return None
    return record if record.input == action.record_input else None


def _is_kept(record: StepRecord) -> bool:
    """Tell whether a record may stand: work that is done, and a wait that goes on."""
    return record.state is StepState.COMPLETED or (record.kind == "wait" and record.state is StepState.WAITING)


def _plan(record: StepRecord, kept: dict[str, StepRecord], *, old: WorkflowSpec, new: WorkflowSpec) -> StepPlan:
    if record.path in kept:
        return StepPlan(record.path, Fate.KEEP, "the new spec asks for the same work on the same input")
    node, before = new.nodes.get(record.node_id), old.nodes.get(record.node_id)
    if node is None or node.kind != record.kind:
        what = "no node" if node is None else f"a {node.kind} node"
        return StepPlan(record.path, Fate.DROP, f"{record.node_id!r} is {what} of the new spec")
    if not _is_kept(record):
        return StepPlan(record.path, Fate.RERUN, f"it is {record.state.value}, and begins anew")
    if before is not None and _work(before) != _work(node):
        return StepPlan(record.path, Fate.RERUN, f"{record.node_id!r} is defined otherwise")
    return StepPlan(record.path, Fate.RERUN, "what it works on, or what leads to it, may come out otherwise")


def _work(node: Node) -> tuple[Any, ...]:
    """Return what a node asks for, without what surrounds it: its place, its retries, and what a failure means."""
    around = {"place", "order", "description", "when", "retry", "timeout_s", "on_error", "fallback", "compensate"}
    return tuple(getattr(node, field.name) for field in fields(node) if field.name not in around)
