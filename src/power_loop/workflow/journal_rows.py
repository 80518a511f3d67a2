"""Turns the records that decisions read into rows of the store, and rows into records."""

from __future__ import annotations

from collections.abc import Sequence

from power_loop.contracts.workflow_runs import WorkflowRunRecord, WorkflowSignalRecord, WorkflowStepRecord
from power_loop.workflow.journal import Journal, SignalRecord, StepError, StepRecord, StepState

#: What a step's record holds beside what decisions read.
_MORE = ("child_session_id", "usage", "cost_nanos", "ended_nth")


def row_of(run_id: str, record: StepRecord) -> WorkflowStepRecord:
    """Return the row of a record."""
    return WorkflowStepRecord(
        run_id,
        record.path,
        record.node_id,
        record.kind,
        record.state.value,
        record.attempt,
        input=record.input,
        output=record.output,
        error=None if record.error is None else record.error.to_json(),
        due_at_ms=record.due_at_ms,
        started_at_ms=record.started_at_ms or None,
        ended_at_ms=record.ended_at_ms,
        **{name: record.more.get(name) for name in _MORE},
    )


def record_of(row: WorkflowStepRecord) -> StepRecord:
    """Return the record of a row."""
    return StepRecord(
        row.path,
        row.node_id,
        row.kind,
        StepState(row.state),
        row.attempt,
        row.input,
        row.output,
        None if row.error is None else StepError.from_json(row.error),
        row.due_at_ms,
        row.started_at_ms or 0,
        row.ended_at_ms,
        {name: value for name in _MORE if (value := getattr(row, name)) is not None},
    )


def signal_of(row: WorkflowSignalRecord) -> SignalRecord:
    """Return the record of a signal's row."""
    return SignalRecord(row.position, row.name, row.value, row.taken_by)


def journal_of(
    run: WorkflowRunRecord, steps: Sequence[WorkflowStepRecord], signals: Sequence[WorkflowSignalRecord]
) -> Journal:
    """Return the journal of a run as the store has it, with steps in the order of their ends."""
    ended = sorted(steps, key=lambda step: (step.ended_nth is None, step.ended_nth or 0))
    journal = Journal(run.input, [record_of(step) for step in ended])
    for signal in signals:
        journal.signal(signal_of(signal))
    return journal
