"""Workflows whose leaves run in workers come to what they come to in process: answers, figures, budgets, an end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from power_loop import Budget, HookPoint, SendStatus, StatefulAgentLoop
from power_loop.hooks import LLMBeforeContext
from power_loop.testing import call, leak_check
from power_loop.workflow import (
    PoolLimits,
    RunStatus,
    SubprocessExecutor,
    WorkerBootstrap,
    create_workflow,
    resume_run,
)
from tests.agent.parts import Ears, until
from tests.model_server import ModelServer, say
from tests.runtime.host.trees import Mark, runs
from tests.workflow.parts import RESEARCH, Answers, agent, flow, researcher
from tests.workflow.worker_parts import kill_workers, within_limit, workers
from tests.workflow.worker_run_child import RUN_ID, Model, executor_in

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="workers are looked at in /proc")


def executor(folder: Path, **bootstrap: Any) -> SubprocessExecutor:
    return SubprocessExecutor(
        WorkerBootstrap(**bootstrap), state_folder=folder / "leaves", pool=PoolLimits(size=2, spare=0)
    )


async def test_the_workflow_of_the_description_comes_to_the_same_in_workers(tmp_path: Path) -> None:
    results = []
    for place in ("here", "workers"):
        async with (
            leak_check(),
            StatefulAgentLoop(llm=researcher(), dsn=str(tmp_path / f"{place}.db")) as loop,
            executor(tmp_path) as made,
        ):
            ears, calls = Ears(loop), 0

            def count(_: LLMBeforeContext) -> None:
                nonlocal calls
                calls += 1

            loop.hooks.add(HookPoint.LLM_BEFORE, count)
            work = create_workflow(RESEARCH, parent_loop=loop, executor=made if place == "workers" else None)
            results.append(await within_limit(work.run()))
            # The hooks of the loop see the calls, and its subscribers the events, wherever the leaves run.
            assert calls == 5
            assert ears.types.count("llm.finished") == 5
            # Each is told of as its leaf's, and the run ends once.
            ends = [one for one in ears.events if one.type == "send.finished"]
            assert [one.session_id for one in ends].count(work.run_id) == 1
            assert ends[-1].session_id == work.run_id
            assert len({one.session_id for one in ends}) == 6
            assert {one.agent_path for one in ends[:-1]} == {(work.run_id, one.session_id) for one in ends[:-1]}
    here, there = results
    assert there.status is RunStatus.COMPLETED
    assert (there.output, there.outputs, there.usage, there.cost) == (here.output, here.outputs, here.usage, here.cost)


async def test_a_leaf_whose_worker_is_killed_is_tried_again_as_the_spec_says(tmp_path: Path) -> None:
    asked = 0

    def dies_once(_: Any) -> str:
        nonlocal asked
        asked += 1
        if asked == 1:
            kill_workers()
        return "Survived."

    spec = flow([agent("dies", retry={"attempts": 2, "backoff": 0.01})])
    async with (
        leak_check(),
        StatefulAgentLoop(llm=Answers(dies=dies_once), dsn=str(tmp_path / "app.db")) as loop,
        executor(tmp_path) as made,
    ):
        result = await within_limit(create_workflow(spec, parent_loop=loop, executor=made).run())
    assert (result.status, result.output, asked) == (RunStatus.COMPLETED, "Survived.", 2)


async def test_a_run_of_the_same_id_in_another_database_is_another_run(tmp_path: Path) -> None:
    # What a killed process left of the one lies where the other one's workers look for what was left of theirs.
    outputs = []
    async with leak_check(), executor(tmp_path) as made:
        for place in ("one", "two"):
            llm = Answers(who=f"This is {place}.")
            async with StatefulAgentLoop(llm=llm, dsn=str(tmp_path / f"{place}.db")) as loop:
                work = create_workflow(flow([agent("who")]), parent_loop=loop, executor=made, run_id="run_same")
                outputs.append((await within_limit(work.run())).output)
    assert outputs == ["This is one.", "This is two."]


@pytest.mark.parametrize("options", [(), ("--stop-keeper",)], ids=["its keeper", "the worker itself"])
async def test_a_run_whose_process_is_killed_takes_its_leaf_up_from_the_workers_file(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    """Either may be the first to see that the process is gone, and end the worker."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.workflow.worker_run_child", str(tmp_path), *options),
        stderr=asyncio.subprocess.PIPE,
    )
    _, error = await within_limit(child.communicate())
    assert child.returncode == -signal.SIGKILL, error.decode()
    if options:
        keeper, worker = map(int, (tmp_path / "left").read_text().split())
        await within_limit(until(lambda: not runs(worker)))
        os.kill(keeper, signal.SIGCONT)
    async with (
        leak_check(),
        StatefulAgentLoop(llm=Model(tmp_path, is_deadly=False), dsn=str(tmp_path / "app.db")) as loop,
        executor_in(tmp_path) as made,
    ):
        result = await within_limit(resume_run(loop, None, RUN_ID, executor=made))
        budget = await loop.get_budget(RUN_ID)
    # The command had run once, which the worker's file knew; only the reply that was on its way is asked for again.
    assert (result.status, result.output) == (RunStatus.COMPLETED, "It gave ['x'].")
    assert [step.attempt for step in result.steps] == [1]
    assert (tmp_path / "asked").read_text().split() == ["first", "second", "second"]
    # What the process counted that died, it took with it; the budget paid for all that may have been asked.
    assert result.usage.total_tokens == 15
    assert budget is not None
    assert budget.lost.tokens >= 15
    assert budget.spent.tokens == budget.lost.tokens + 15


async def test_the_budget_of_a_run_pays_for_its_workers_calls(tmp_path: Path) -> None:
    spec = flow([agent("one"), agent("two"), agent("three")])
    async with (
        leak_check(),
        StatefulAgentLoop(llm=Answers(), dsn=str(tmp_path / "app.db")) as loop,
        executor(tmp_path) as made,
    ):
        work = create_workflow(spec, parent_loop=loop, executor=made, budget=Budget(max_tokens=20))
        result = await within_limit(work.run())
    assert result.status is not RunStatus.COMPLETED
    assert result.usage.total_tokens <= 20


async def test_a_run_that_is_cancelled_takes_its_workers_tools_with_it(tmp_path: Path) -> None:
    mark = Mark()
    node = agent("sleeper")
    node["spec"]["tools"] = ["bash"]
    llm = Answers(sleeper=call("bash", {"command": mark.sleep}))
    async with (
        leak_check(),
        StatefulAgentLoop(llm=llm, dsn=str(tmp_path / "app.db")) as loop,
        executor(tmp_path, tool_preset="core") as made,
    ):
        work = create_workflow(flow([node]), parent_loop=loop, executor=made)
        running = asyncio.create_task(work.run())
        await mark.someone()
        await work.cancel()
        result = await within_limit(running)
        assert result.status is RunStatus.CANCELLED
        await mark.nobody()
    assert workers() == []


async def test_a_worker_with_the_key_of_the_environment_calls_the_model_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "sk-secret-4711"
    llm = Answers()
    async with ModelServer([say("From afar.")]) as server:
        monkeypatch.setenv("POWER_LOOP_MODEL", "gpt-test")
        monkeypatch.setenv("POWER_LOOP_BASE_URL", f"{server.base_url}")
        monkeypatch.setenv("POWER_LOOP_API_KEY", key)
        async with (
            leak_check(),
            StatefulAgentLoop(llm=llm, dsn=str(tmp_path / "app.db")) as loop,
            SubprocessExecutor(
                bootstrap=WorkerBootstrap(llm_from_env=True, tool_preset="core"),
                launcher=lambda plan: plan.argv,
                timeout_s=120,
                state_folder=tmp_path / "leaves",
            ) as made,
        ):
            result = await within_limit(create_workflow(flow([agent("one")]), parent_loop=loop, executor=made).run())
        (request,) = server.requests
    assert (result.output, llm.requests) == ("From afar.", [])
    assert request.headers["authorization"] == f"Bearer {key}"
    assert result.usage.total_tokens > 0
    assert result.steps[0].state == SendStatus.COMPLETED.value
