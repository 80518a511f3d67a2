"""Tests what travels between a run and the executor of its leaves."""

from __future__ import annotations

import json
from decimal import Decimal

from power_loop import AgentLifecycle, AgentSpec, Budget, PermissionRule, SendLimits, SendStatus, Usage
from power_loop.workflow.executors import LeafError, LeafOutcome, LeafTask, leaf_key

SPEC = AgentSpec(
    "writer",
    "Write.",
    "It writes.",
    tools=["read_file"],
    model="small",
    limits=SendLimits(max_rounds=3),
    output_schema={"type": "object"},
    permission_rules=[PermissionRule.ask("bash")],
    permission_mode="auto",
    lifecycle=AgentLifecycle.EPHEMERAL,
    budget=Budget(max_tokens=100, max_cost="0.5"),
)


def test_a_task_is_the_same_behind_json() -> None:
    for spec in (SPEC, AgentSpec("plain", "Do it.")):
        task = LeafTask("run_1", "research[3]/r", 2, leaf_key("run_1", "research[3]/r", 2), spec, "Go.", 1.5)
        again = LeafTask.from_json(json.loads(json.dumps(task.to_json())))
        assert again.to_json() == task.to_json()
        assert again.spec.tools == spec.tools
        assert again.spec.budget == spec.budget


def test_an_outcome_is_the_same_behind_json() -> None:
    outcomes = (
        LeafOutcome(SendStatus.COMPLETED, "Done.", {"n": [1]}, Usage(3, 4), Decimal("0.25"), session_id="agt_1"),
        LeafOutcome.failed("llm.timeout", "It took too long.", is_transient=True),
    )
    for outcome in outcomes:
        assert LeafOutcome.from_json(json.loads(json.dumps(outcome.to_json()))) == outcome
    assert outcomes[0].is_completed
    assert not outcomes[1].is_completed
    assert outcomes[1].error == LeafError("llm.timeout", "It took too long.")


def test_keys_differ_by_run_path_and_attempt() -> None:
    keys = {leaf_key(run, path, attempt) for run in ("run_1", "run_2") for path in ("a", "a[1]") for attempt in (1, 2)}
    assert len(keys) == 8
    assert leaf_key("run_1", "a", 1) in keys
