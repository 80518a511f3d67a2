"""Holds the rows of a workflow's run against each other, and finds what of them cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from power_loop.contracts.diagnosis import Finding, FindingKind
from power_loop.contracts.llm import Usage
from power_loop.contracts.states import SendStatus
from power_loop.contracts.timers import TimerState
from power_loop.runtime.store.codec import decode_json, decode_value
from power_loop.runtime.store.examination import MAX_ALIKE, Ailment, Columns, SessionFacts, unread
from power_loop.runtime.store.sql.database import Statement

_UNENDED_SENDS = (SendStatus.RUNNING.value, SendStatus.WAITING_FOR_INPUT.value)
# How the send of a run stands that has not ended: an engine may have failed, and the run goes on with resume_run().
_SENDS_OF_UNENDED = (*_UNENDED_SENDS, SendStatus.FAILED.value, SendStatus.INTERRUPTED.value)
_UNENDED_STEPS = ("started", "waiting")
_READ_RUN: dict[str, Callable[..., Any]] = {
    "spec": decode_json,
    "options": decode_json,
    "input": decode_value,
    "output": decode_value,
    "error": decode_json,
}
_READ_STEP: dict[str, Callable[..., Any]] = {"input": decode_value, "output": decode_value, "error": decode_json}


def examine_run(facts: SessionFacts) -> list[Ailment]:
    """Return everything that is to be said of the run that a session is, in a fixed order."""
    if not facts.runs:
        return list(_without_run(facts))
    [run] = facts.runs
    found = list(_run(facts, run))
    steps = [ailment for step in facts.steps for ailment in _step(facts, step)]
    paths = {step["path"] for step in facts.steps}
    signals = [ailment for signal in facts.signals for ailment in _signal(facts, signal, paths)]
    return [*found, *_few(facts, steps, "step.damaged"), *_few(facts, signals, "signal.damaged")]


def _without_run(facts: SessionFacts) -> Iterator[Ailment]:
    """Find steps and signals of a session that is no run."""
    for table, rows, check in (
        ("workflow_steps", facts.steps, "step.orphaned"),
        ("workflow_signals", facts.signals, "signal.orphaned"),
    ):
        if rows:
            what = "a row" if len(rows) == 1 else f"{len(rows)} rows"
            message = f"{what} of {table} for a run, and session {facts.session_id!r} is none"
            delete: Statement = (f"DELETE FROM {{{table}}} WHERE session_id = ?", (facts.session_id,))
            finding = Finding(FindingKind.ORPHANED, check, facts.session_id, message, "they are removed")
            yield Ailment(finding, (delete,))


def _run(facts: SessionFacts, run: Columns) -> Iterator[Ailment]:
    for name, read in _READ_RUN.items():
        yield from _unreadable(facts, "run.damaged", run, name, read, "the run")
    last = facts.sends[-1]["status"] if facts.sends else None
    if run["ended_at_ms"] is not None and last in _UNENDED_SENDS:
        yield _wrong(facts, "run.state", f"the run has ended as {run['state']!r:.40}, and its send is {last!r:.40}")
    elif run["ended_at_ms"] is None and last is not None and last not in _SENDS_OF_UNENDED:
        yield _wrong(facts, "run.state", f"the run is {run['state']!r:.40}, and its send has ended as {last!r:.40}")
    times = [step["due_at_ms"] for step in facts.steps if step["state"] in _UNENDED_STEPS]
    is_armed = any(timer["state"] == TimerState.ARMED.value for timer in facts.timers)
    # Whoever holds its lease goes on with it, or is found to have died.
    is_left = facts.head["owner"] is None
    if run["state"] == "waiting" and any(time is not None for time in times) and is_left and not is_armed:
        message = "the run waits for a time, and no timer wakes it then: resume_run() goes on with it"
        yield Ailment(Finding(FindingKind.STALLED, "run.no_alarm", facts.session_id, message))


def _step(facts: SessionFacts, step: Columns) -> Iterator[Ailment]:
    where = f"step {step['path']!r:.300}"
    for name, read in _READ_STEP.items():
        yield from _unreadable(facts, "step.damaged", step, name, read, where)
    if step["usage_json"] is not None:
        problem = unread(decode_json, step["usage_json"], f"usage_json of {where}") or _no_usage(step, where)
        if problem is not None:
            yield _wrong(facts, "step.damaged", problem)
    if (step["state"] in _UNENDED_STEPS) == (step["ended_at_ms"] is not None):
        yield _wrong(facts, "step.damaged", f"{where} is {step['state']!r:.40}, and when it ended says otherwise")


def _no_usage(step: Columns, where: str) -> str | None:
    try:
        Usage(**decode_json(step["usage_json"], where))
    except (TypeError, ValueError) as error:
        return f"usage_json of {where} is no usage: {error}"
    return None


def _signal(facts: SessionFacts, signal: Columns, paths: set[str]) -> Iterator[Ailment]:
    where = f"signal {signal['position']}"
    yield from _unreadable(facts, "signal.damaged", signal, "value", decode_value, where)
    taken_by = signal["taken_by"]
    if taken_by is not None and taken_by not in paths:
        yield _wrong(
            facts, "signal.damaged", f"{where} was taken by step {taken_by!r:.300}, which is none of the run's"
        )


def _unreadable(
    facts: SessionFacts, check: str, row: Columns, name: str, read: Callable[..., Any], where: str
) -> Iterator[Ailment]:
    problem = None if row[name] is None else unread(read, row[name], f"{name} of {where}")
    if problem is not None:
        yield _wrong(facts, check, problem)


def _few(facts: SessionFacts, ailments: list[Ailment], check: str) -> list[Ailment]:
    """Return the first of those that are alike, and how many more there are."""
    if len(ailments) <= MAX_ALIKE:
        return ailments
    return [*ailments[:MAX_ALIKE], _wrong(facts, check, f"and {len(ailments) - MAX_ALIKE} more")]


def _wrong(facts: SessionFacts, check: str, message: str) -> Ailment:
    return Ailment(Finding(FindingKind.INCONSISTENT, check, facts.session_id, message))
