"""Keeps the journals of workflows: one row a run, one an instance of a step, one a signal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from power_loop.contracts.workflow_runs import (
    NewRun,
    RunEnd,
    RunWrite,
    WorkflowRunRecord,
    WorkflowSignalRecord,
    WorkflowStepRecord,
)
from power_loop.runtime.store.codec import decode_json, decode_value, encode_json, encode_value
from power_loop.runtime.store.sql.database import Row, Statement, Transaction
from power_loop.runtime.store.sql.dialect import Renderer
from power_loop.runtime.store.sql.rows import insert_into, row_params
from power_loop.runtime.store.sql.tables import WORKFLOW_RUNS, WORKFLOW_SIGNALS, WORKFLOW_STEPS

_RUN = (
    "session_id, name, state, spec, input, options, parent_session_id, output, error, created_at_ms, updated_at_ms,"
    " ended_at_ms"
)
_STEP = (
    "path, node_id, kind, state, attempt, child_session_id, input, output, error, usage_json, cost_nanos, due_at_ms,"
    " started_at_ms, ended_at_ms, ended_nth"
)
_FIRST_AGE = (1 << 63) - 1


class RunRows:
    """Runs the statements on the three tables, inside of others' transactions."""

    def __init__(self, render: Renderer) -> None:
        self._insert_run = render(insert_into(WORKFLOW_RUNS))
        self._insert_step = render(insert_into(WORKFLOW_STEPS))
        self._insert_signal = render(insert_into(WORKFLOW_SIGNALS))
        names = [column.name for column in WORKFLOW_STEPS.columns if column.name not in ("session_id", "path")]
        self._change_step = render(
            f"UPDATE {{workflow_steps}} SET {', '.join(f'{name} = ?' for name in names)}"
            " WHERE session_id = ? AND path = ?"
        )
        self._drop_step = render("DELETE FROM {workflow_steps} WHERE session_id = ? AND path = ?")
        self._take_signal = render(
            "UPDATE {workflow_signals} SET taken_by = ? WHERE session_id = ? AND position = ? AND taken_by IS NULL"
        )
        self._touch = render("UPDATE {workflow_runs} SET state = ?, updated_at_ms = ? WHERE session_id = ?")
        self._end = render(
            "UPDATE {workflow_runs} SET state = ?, output = ?, error = ?, updated_at_ms = ?, ended_at_ms = ?"
            " WHERE session_id = ? AND ended_at_ms IS NULL"
        )
        self._set_error = render("UPDATE {workflow_runs} SET error = ? WHERE session_id = ? AND ended_at_ms IS NULL")
        self._set_spec = render("UPDATE {workflow_runs} SET name = ?, spec = ? WHERE session_id = ?")
        self._run = render(f"SELECT {_RUN} FROM {{workflow_runs}} WHERE session_id = ?")
        self._steps = render(f"SELECT {_STEP} FROM {{workflow_steps}} WHERE session_id = ? ORDER BY path")
        self._signals = render(
            "SELECT position, name, value, created_at_ms, taken_by FROM {workflow_signals}"
            " WHERE session_id = ? AND position > ? ORDER BY position"
        )
        self._last_signal = render("SELECT COALESCE(MAX(position), 0) FROM {workflow_signals} WHERE session_id = ?")
        self._signal_op = render("SELECT op FROM {workflow_signals} WHERE session_id = ? AND position = ?")
        self._render = render

    # ---- writing ----

    async def make(self, tx: Transaction, run: NewRun, *, at_ms: int) -> None:
        """Store a run that begins."""
        values = {
            "session_id": run.session.session_id,
            "state": "running",
            "parent_session_id": run.parent_session_id,
            "created_at_ms": at_ms,
            "updated_at_ms": at_ms,
            "name": run.name,
            "options": encode_json(run.options, "options of a run"),
            "spec": encode_json(run.spec, "spec of a run"),
            "input": encode_value(run.input, "input of a run"),
        }
        await tx.execute(self._insert_run, row_params(WORKFLOW_RUNS, values))

    def writes(self, session_id: str, write: RunWrite) -> list[Statement]:
        """Return the statements of a move on steps and signals; each changes one row."""
        statements = [
            (self._insert_step, row_params(WORKFLOW_STEPS, {"session_id": session_id, **_values(step)}))
            for step in write.made
        ]
        for step in write.changed:
            _, _, *params = row_params(WORKFLOW_STEPS, _values(step))
            statements.append((self._change_step, (*params, session_id, step.path)))
        statements += [(self._take_signal, (path, session_id, position)) for position, path in write.taken]
        statements += [(self._drop_step, (session_id, path)) for path in write.dropped]
        if write.spec is not None:
            name = str(write.spec.get("name", ""))
            statements.append((self._set_spec, (name, encode_json(write.spec, "spec of a run"), session_id)))
        if write.cancels is not None:
            statements.append((self._set_error, (encode_json(write.cancels, "error of a run"), session_id)))
        return statements

    def touch(self, session_id: str, *, at_ms: int) -> Statement:
        """Return the statement that notes that a run goes on."""
        return self._touch, ("running", at_ms, session_id)

    def end(self, session_id: str, end: RunEnd, *, at_ms: int) -> Statement:
        """Return the statement that brings a run to rest; it changes no row of one that has ended."""
        output = None if end.output is None else encode_value(end.output, "output of a run")
        error = None if end.error is None else encode_json(end.error, "error of a run")
        return self._end, (end.state, output, error, at_ms, at_ms if end.is_final else None, session_id)

    async def add_signal(self, tx: Transaction, session_id: str, name: str, value: str, *, at_ms: int, op: str) -> int:
        """Store a signal behind those that are there, while the session's head is held; return its position."""
        [(last,)] = await tx.query(self._last_signal, (session_id,))
        position = int(last) + 1
        values = {
            "session_id": session_id,
            "position": position,
            "name": name,
            "value": value,
            "created_at_ms": at_ms,
            "op": op,
        }
        await tx.execute(self._insert_signal, row_params(WORKFLOW_SIGNALS, values))
        return position

    async def has_signal_op(self, tx: Transaction, session_id: str, position: int, op: str) -> bool:
        """Tell whether the write with this token left the signal at a position."""
        rows = await tx.query(self._signal_op, (session_id, position))
        return bool(rows) and bool(rows[0][0] == op)

    # ---- reading ----

    async def get(self, tx: Transaction, session_id: str) -> WorkflowRunRecord | None:
        """Return a run; None where a session is none."""
        rows = await tx.query(self._run, (session_id,))
        return _run_of(rows[0]) if rows else None

    async def page(
        self,
        tx: Transaction,
        *,
        state: str | None,
        parent_session_id: str | None,
        before: tuple[int, str] | None,
        limit: int,
    ) -> tuple[WorkflowRunRecord, ...]:
        """Return runs, newest first, those that stand behind `before`."""
        at_ms, last_id = before or (_FIRST_AGE, "")
        conditions = ["created_at_ms <= ?", "(created_at_ms < ? OR session_id < ?)"]
        params: list[Any] = [at_ms, at_ms, last_id]
        for column, value in (("state", state), ("parent_session_id", parent_session_id)):
            if value is not None:
                conditions.append(f"{column} = ?")
                params.append(value)
        sql = (
            f"SELECT {_RUN} FROM {{workflow_runs}} WHERE {' AND '.join(conditions)}"
            " ORDER BY created_at_ms DESC, session_id DESC LIMIT ?"
        )
        return tuple([_run_of(row) for row in await tx.query(self._render(sql), (*params, limit))])

    async def steps(self, tx: Transaction, session_id: str) -> tuple[WorkflowStepRecord, ...]:
        """Return the steps of a run, by their paths."""
        return tuple([_step_of(session_id, row) for row in await tx.query(self._steps, (session_id,))])

    async def signals(self, tx: Transaction, session_id: str, *, after: int = 0) -> tuple[WorkflowSignalRecord, ...]:
        """Return the signals to a run in order, those behind a position."""
        return tuple([_signal_of(session_id, row) for row in await tx.query(self._signals, (session_id, after))])


def _values(step: WorkflowStepRecord) -> dict[str, Any]:
    where = f"of step {step.path}"
    return {
        "path": step.path,
        "node_id": step.node_id,
        "kind": step.kind,
        "state": step.state,
        "attempt": step.attempt,
        "child_session_id": step.child_session_id,
        "due_at_ms": step.due_at_ms,
        "started_at_ms": step.started_at_ms,
        "ended_at_ms": step.ended_at_ms,
        "ended_nth": step.ended_nth,
        "cost_nanos": step.cost_nanos,
        "usage_json": None if step.usage is None else encode_json(step.usage, f"usage {where}"),
        "input": encode_value(step.input, f"input {where}"),
        "output": None if step.output is None else encode_value(step.output, f"output {where}"),
        "error": None if step.error is None else encode_json(step.error, f"error {where}"),
    }


def _run_of(row: Row) -> WorkflowRunRecord:
    session_id, name, state, spec, input, options, parent_id, output, error, created_ms, updated_ms, ended_ms = row
    where = f"of run {session_id!r}"
    return WorkflowRunRecord(
        session_id,
        name,
        state,
        decode_json(spec, f"spec {where}"),
        decode_value(input, f"input {where}"),
        decode_json(options, f"options {where}"),
        parent_id,
        None if output is None else decode_value(output, f"output {where}"),
        _maybe_json(error, f"error {where}"),
        created_ms,
        updated_ms,
        ended_ms,
    )


def _step_of(session_id: str, row: Row) -> WorkflowStepRecord:
    path, node_id, kind, state, attempt, child_id, input, output, error, usage, cost_nanos, *times = row
    where = f"of step {path!r} of run {session_id!r}"
    due_ms, started_ms, ended_ms, ended_nth = times
    return WorkflowStepRecord(
        session_id,
        path,
        node_id,
        kind,
        state,
        attempt,
        child_id,
        decode_value(input, f"input {where}"),
        None if output is None else decode_value(output, f"output {where}"),
        _maybe_json(error, f"error {where}"),
        _maybe_json(usage, f"usage {where}"),
        cost_nanos,
        due_ms,
        started_ms,
        ended_ms,
        ended_nth,
    )


def _signal_of(session_id: str, row: Row) -> WorkflowSignalRecord:
    position, name, value, created_at_ms, taken_by = row
    where = f"value of signal {position} of run {session_id!r}"
    return WorkflowSignalRecord(session_id, position, name, decode_value(value, where), created_at_ms, taken_by)


def _maybe_json(text: str | None, where: str) -> Mapping[str, Any] | None:
    return None if text is None else decode_json(text, where)
