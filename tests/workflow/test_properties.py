"""Random workflows come to the same end however often their engine dies, and never do anything twice."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from power_loop.workflow.actions import Finish
from power_loop.workflow.decide import decide
from power_loop.workflow.journal import StepState
from power_loop.workflow.parse import parse_workflow
from tests.workflow.specs import GOOD_WORKFLOWS, good_workflow
from tests.workflow.world import World, by_seed

SEEDS = st.integers(0, 10_000)
CANCELS = st.none() | st.integers(1_000, 30_000)
LIMITS = st.sampled_from([None, 1, 2, 4])


@settings(max_examples=80, deadline=None)
@given(GOOD_WORKFLOWS, SEEDS, LIMITS, st.sets(st.integers(1, 60)), CANCELS)
def test_a_run_whose_engine_dies_at_any_moment_comes_to_the_same_as_one_that_was_left_alone(
    spec: Any, seed: int, limit: int | None, restarts: set[int], cancel_at_ms: int | None
) -> None:
    parsed = parse_workflow(spec)
    alone = World(parsed, by_seed(seed), max_concurrency=limit, cancel_at_ms=cancel_at_ms)
    killed = World(parsed, by_seed(seed), max_concurrency=limit, cancel_at_ms=cancel_at_ms, restarts=restarts)
    assert killed.run() == alone.run()
    assert killed.journal.records == alone.journal.records
    assert killed.started == alone.started
    assert limit is None or killed.busiest <= limit


@settings(max_examples=80, deadline=None)
@given(GOOD_WORKFLOWS, SEEDS, LIMITS, CANCELS)
def test_a_journal_that_is_kept_up_to_date_decides_as_one_that_was_read_anew(
    spec: Any, seed: int, limit: int | None, cancel_at_ms: int | None
) -> None:
    parsed = parse_workflow(spec)

    def check(world: World) -> None:
        fresh = world.reborn()
        for path in world.journal.driven:
            fresh.drive(path)
        kept = decide(parsed, world.journal, world.now_ms, max_concurrency=limit)
        assert decide(parsed, fresh, world.now_ms, max_concurrency=limit) == kept
        assert decide(parsed, world.journal, world.now_ms, max_concurrency=limit) == kept

    World(parsed, by_seed(seed), max_concurrency=limit, cancel_at_ms=cancel_at_ms, check=check).run()


@settings(max_examples=80, deadline=None)
@given(st.builds(good_workflow, SEEDS, waits=st.just(False)), SEEDS)
def test_a_run_without_waits_ends_and_no_step_is_left_open(spec: Any, seed: int) -> None:
    world = World(parse_workflow(spec), by_seed(seed))
    assert isinstance(world.run(), Finish)
    resting = (StepState.COMPLETED, StepState.FAILED, StepState.CANCELLED)
    assert all(record.state in resting for record in world.journal.records.values())
    assert len(set(world.started)) == len(world.started), "no attempt is made twice"
