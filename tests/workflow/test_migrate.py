"""A run goes on under another spec with what still stands, and is told why the rest does not."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from power_loop.workflow.migrate import Fate, plan_migration
from power_loop.workflow.parse import parse_workflow
from tests.workflow.specs import GOOD_WORKFLOWS, agent, research
from tests.workflow.world import World, by_seed


def fates(change: Any) -> tuple[dict[str, str], dict[str, str]]:
    """Return what becomes of the steps of a finished research run under a changed spec, and why."""
    topics = {"subtopics": ["bowls", "water"]}
    old = parse_workflow(research())
    world = World(old, lambda path, attempt: (topics if path == "plan" else path, 100))
    world.run()
    changed = research()
    change(changed["root"]["steps"])
    plans = plan_migration(old, world.journal, parse_workflow(changed))
    return {plan.path: plan.fate.value for plan in plans}, {plan.path: plan.reason for plan in plans}


def test_under_the_same_spec_everything_is_kept() -> None:
    found, _ = fates(lambda steps: None)
    assert found == dict.fromkeys(["plan", "research[0]/r", "research[1]/r", "write"], "keep")


def test_what_surrounds_a_step_may_change() -> None:
    def change(steps: Any) -> None:
        steps[0]["retry"] = {"attempts": 5}
        steps[1]["max_concurrency"] = 9
        steps[1]["body"]["timeout_s"] = 60
        steps.append(agent("publish", "Publish {{write}}"))

    assert set(fates(change)[0].values()) == {"keep"}


def test_a_step_that_is_defined_otherwise_runs_again_and_so_does_what_reads_it() -> None:
    found, why = fates(lambda steps: steps[1]["body"].update(input="In short: {{t}}"))
    assert found == {"plan": "keep", "research[0]/r": "rerun", "research[1]/r": "rerun", "write": "rerun"}
    assert why["research[0]/r"] == "'r' is defined otherwise"
    assert why["write"] == "what it works on, or what leads to it, may come out otherwise"


def test_what_is_gone_is_dropped() -> None:
    found, why = fates(lambda steps: steps.pop())
    assert found["write"] == "drop"
    assert why["write"] == "'write' is no node of the new spec"
    assert found["plan"] == "keep"


@settings(max_examples=60, deadline=None)
@given(GOOD_WORKFLOWS, st.integers(0, 1_000))
def test_a_run_goes_on_from_what_was_kept_and_repeats_none_of_it(spec: Any, seed: int) -> None:
    parsed = parse_workflow(spec)
    world = World(parsed, by_seed(seed), max_concurrency=2, cancel_at_ms=6_000)
    world.run()
    plans = plan_migration(parsed, world.journal, parsed)
    assert [plan.path for plan in plans] == sorted(world.journal.records)
    kept = {plan.path for plan in plans if plan.fate is Fate.KEEP}
    again = World(parsed, by_seed(seed), max_concurrency=2)
    for path in kept:
        again.journal.note(world.journal.records[path])
    again.run()
    assert kept.isdisjoint(path for path, _ in again.started)
