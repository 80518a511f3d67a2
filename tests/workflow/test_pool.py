"""Workers are used again and started ahead, no more of them than allowed, and none is left."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from power_loop.errors import ConfigError, LoopClosedError
from power_loop.testing import ScriptedLLM, call, leak_check
from power_loop.workflow import PoolLimits, SubprocessExecutor, WorkerBootstrap
from tests.agent.parts import until
from tests.workflow.worker_parts import Host, leaf, within_limit, workers

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="workers are looked at in /proc")


def pooled(folder: Path, **limits: Any) -> SubprocessExecutor:
    return SubprocessExecutor(state_folder=folder / "leaves", pool=PoolLimits(**{"spare": 0, **limits}))


async def pids(made: SubprocessExecutor, count: int) -> list[int]:
    """Run leaves one after the other, and return the worker that was there behind each."""
    found = []
    for number in range(count):
        outcome = await within_limit(made.run_leaf(leaf(f"leaf{number}"), Host()))
        assert outcome.is_completed, outcome
        found += workers()
    return found


async def test_a_worker_does_one_leaf_after_the_other(tmp_path: Path) -> None:
    async with leak_check(), pooled(tmp_path) as made:
        assert len(set(await pids(made, 3))) == 1
    assert workers() == []


async def test_a_worker_that_was_used_often_enough_is_ended(tmp_path: Path) -> None:
    async with leak_check(), pooled(tmp_path, max_uses=2) as made:
        first = await pids(made, 1)
        assert await pids(made, 1) == []
        assert first != await pids(made, 1)


async def test_behind_a_launcher_no_leaf_meets_what_another_left(tmp_path: Path) -> None:
    limits = PoolLimits(spare=0)
    made = SubprocessExecutor(state_folder=tmp_path / "l", pool=limits, launcher=lambda plan: plan.argv)
    async with leak_check(), made:
        assert await pids(made, 2) == []


async def test_there_are_no_more_workers_than_allowed_and_every_leaf_comes_to_its_turn(tmp_path: Path) -> None:
    most = 0

    def count(_: Any) -> str:
        nonlocal most
        most = max(most, len(workers()))
        return "Counted."

    async with leak_check(), pooled(tmp_path, size=2) as made:
        leaves = [made.run_leaf(leaf(f"{n}"), Host(ScriptedLLM([count]))) for n in range(6)]
        outcomes = await within_limit(asyncio.gather(*leaves))
    assert all(one.is_completed for one in outcomes)
    assert most == 2


async def test_a_worker_that_waits_for_another_kind_of_leaf_makes_room(tmp_path: Path) -> None:
    seen: list[tuple[str, ...]] = []

    def launcher(plan: Any) -> Any:
        seen.append(plan.tools)
        return plan.argv

    bootstrap = WorkerBootstrap(tool_preset="core")
    limits = PoolLimits(size=1, spare=0, max_uses=5)
    made = SubprocessExecutor(bootstrap, launcher=launcher, state_folder=tmp_path / "l", pool=limits)
    async with leak_check(), made:
        for tools in (("read_file",), ("bash", "read_file"), ("read_file", "bash")):
            outcome = await within_limit(made.run_leaf(leaf("-".join(tools), tools=tools), Host()))
            assert outcome.is_completed
    # The launcher is asked for each kind of leaf, and not for each leaf.
    assert seen == [("read_file",), ("bash", "read_file")]


async def test_workers_can_be_started_ahead(tmp_path: Path) -> None:
    async with leak_check(), pooled(tmp_path, size=2) as made:
        await within_limit(made.prewarm(count=5))
        ahead = workers()
        assert len(ahead) == 2
        assert set(await pids(made, 1)) <= set(ahead)


async def test_spare_workers_start_by_themselves_and_end_with_the_executor(tmp_path: Path) -> None:
    async with leak_check(), pooled(tmp_path, size=3, spare=1) as made:
        await pids(made, 1)
        await within_limit(until(lambda: len(workers()) == 2))
    assert workers() == []


async def test_a_worker_that_waits_too_long_ends_by_itself_and_no_leaf_notices(tmp_path: Path) -> None:
    # One that is given its leaf late, on a machine that does much else, has not ended before.
    async with leak_check(), pooled(tmp_path, idle_s=2.0) as made:
        await pids(made, 1)
        await within_limit(until(lambda: not workers()))
        assert (await within_limit(made.run_leaf(leaf("later"), Host()))).is_completed


async def test_a_closed_executor_runs_no_leaf(tmp_path: Path) -> None:
    made = pooled(tmp_path)
    await made.aclose()
    await made.aclose()
    outcome = await made.run_leaf(leaf(), Host())
    assert outcome.error is not None
    assert outcome.error.code == LoopClosedError.code


async def test_an_executor_that_is_closed_in_the_middle_lets_its_leaves_come_to_their_end(tmp_path: Path) -> None:
    begun = asyncio.Event()

    async def slow(_: Any) -> str:
        begun.set()
        await made.aclose()
        return "Done."

    async with leak_check():
        made = pooled(tmp_path)
        outcome = await within_limit(made.run_leaf(leaf(), Host(ScriptedLLM([slow]))))
        assert outcome.is_completed
        assert begun.is_set()
    assert workers() == []


@pytest.mark.parametrize(
    "wrong",
    [{"size": 0}, {"size": True}, {"spare": -1}, {"max_uses": 0}, {"idle_s": 0}, {"idle_s": float("nan")}],
)
def test_limits_that_are_none_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        PoolLimits(**wrong)


async def test_leaves_in_one_worker_do_not_see_each_others_workspace(tmp_path: Path) -> None:
    bootstrap = WorkerBootstrap(tool_preset="core")
    limits = PoolLimits(size=1, spare=0)
    async with SubprocessExecutor(bootstrap, state_folder=tmp_path / "l", pool=limits) as made:
        host = Host(ScriptedLLM([call("bash", {"command": "echo x >mine; ls"}), "Done."]))
        await within_limit(made.run_leaf(leaf("one", tools=("bash",)), host))
        host = Host(ScriptedLLM([call("bash", {"command": "ls | wc -l"}), "Done."]))
        await within_limit(made.run_leaf(leaf("two", tools=("bash",)), host))
    scripted: Any = host.llm
    result = scripted.requests[1].messages[-1].tool_result
    assert result.content[0].text.strip().startswith("0")
