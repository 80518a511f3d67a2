"""Taking a run up: two engines race, a dead one is replaced, a thousand leaves are not run again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from power_loop import LoopConfig, SendStatus, StatefulAgentLoop
from power_loop.errors import InputError, RunNotFoundError, SessionBusyError
from power_loop.messages import user_message
from power_loop.storage import Claim, NewSend
from power_loop.timers import SystemClock
from power_loop.workflow import LeafOutcome, RunStatus, create_workflow, drive_runs, get_run, migrate_run, resume_run
from tests.agent.conftest import MakeLoop
from tests.agent.parts import Gate, within_limit
from tests.conformance.backends import BACKENDS

from .parts import Answers, agent, flow

# Leaves of a wide foreach: a thousand on a file, fewer on servers, which the tests share.
_LEAVES = {"sqlite": 1_000}
_LEAVES_ELSEWHERE = 200


async def test_two_engines_on_one_run_and_the_lease_decides(make_loop: MakeLoop) -> None:
    gate = Gate()
    here, there = make_loop(llm=Answers(one=gate.then("Once."))), make_loop(llm=Answers(one="Twice."))
    workflow = create_workflow(flow(agent("one")), parent_loop=here)
    task = asyncio.ensure_future(workflow.run())
    await gate.someone()
    store: Any = await there.get_store()
    epoch = (await store.get_session(workflow.run_id)).epoch
    claimed = asyncio.ensure_future(resume_run(there, None, workflow.run_id))
    gate.open()
    results = await within_limit(asyncio.gather(task, claimed, return_exceptions=True))
    assert all(isinstance(one, SessionBusyError) or one.output == "Once." for one in results), results
    assert results[0].output == "Once."
    assert (await store.get_session(workflow.run_id)).epoch >= epoch


async def test_an_engine_that_was_replaced_writes_nothing_more(make_loop: MakeLoop) -> None:
    gate = Gate()
    config = LoopConfig(lease_ttl_s=60)
    here = make_loop(llm=Answers(one=gate.then("Once.")), config=config)
    workflow = create_workflow(flow([agent("zero"), agent("one")]), parent_loop=here)
    task = asyncio.ensure_future(workflow.run())
    await gate.someone()
    store: Any = await here.get_store()
    head = await store.get_session(workflow.run_id)
    [leaf] = [one for one in await store.get_children(workflow.run_id) if one.owner is not None]
    for session_id in (workflow.run_id, leaf.id):
        held = await store.get_session(session_id)
        taken = await store.take_up(Claim(session_id, "elsewhere", 60, dead_owner=held.owner))
        await store.release(taken.lease)
    gate.open()
    with pytest.raises(Exception, match="lease"):
        await within_limit(task)
    there = make_loop(llm=Answers(one="Again."))
    result = await within_limit(resume_run(there, None, workflow.run_id))
    assert (result.status, result.outputs["zero"]) == (RunStatus.COMPLETED, "Said: Zero.")
    assert head.epoch < (await store.get_session(workflow.run_id)).epoch


async def test_a_run_is_found_by_the_session_that_it_was_made_for(make_loop: MakeLoop) -> None:
    loop = make_loop(llm=Answers())
    sid, other = await loop.new_session(), await loop.new_session()
    result = await create_workflow(flow(agent("one")), parent_loop=loop, parent_session_id=sid).run()
    assert (await resume_run(loop, sid, result.run_id)).output == "Said: One."
    with pytest.raises(InputError, match="was not made for"):
        await resume_run(loop, other, result.run_id)
    with pytest.raises(RunNotFoundError):
        await resume_run(loop, sid, "run_none")


class Elsewhere:
    """Is an executor without a session here, which counts its leaves."""

    def __init__(self) -> None:
        self.count = 0

    async def run_leaf(self, task: Any, host: Any) -> LeafOutcome:
        self.count += 1
        await asyncio.sleep(0)
        return LeafOutcome(SendStatus.COMPLETED, f"{task.input} by {task.path}")

    async def aclose(self) -> None:
        pass


@pytest.mark.parametrize("backend", BACKENDS, ids=[backend.name for backend in BACKENDS])
async def test_a_wide_run_keeps_its_order_and_is_not_run_again(backend: Any) -> None:
    count = _LEAVES.get(backend.name, _LEAVES_ELSEWHERE)
    each = {"type": "foreach", "id": "all", "items_from": "input", "as": "t", "parallel": True}
    spec = flow({**each, "body": agent("r", "Write.", input="{{t}}")}, input=list(range(count)))
    executor = Elsewhere()
    async with backend.fresh() as place:
        store = await place.open(SystemClock())
        async with StatefulAgentLoop(llm=Answers(), store=store) as loop:
            result = await create_workflow(spec, parent_loop=loop, executor=executor, max_concurrency=50).run()
            assert result.output == [f"{number} by all[{number}]/r" for number in range(count)]
            assert len(result.steps) == executor.count == count
            assert (await resume_run(loop, None, result.run_id, executor)).status is RunStatus.COMPLETED
            assert executor.count == count
        await store.aclose()


async def test_recover_goes_on_with_a_run_whose_process_died(make_loop: MakeLoop) -> None:
    loop = make_loop(llm=Answers())
    workflow = create_workflow(flow([agent("one"), agent("two")]), parent_loop=loop)
    await workflow._make(is_detached=False)
    assert (await get_run(loop, workflow.run_id)).status is RunStatus.RUNNING
    store: Any = await loop.get_store()
    held = await store.accept(Claim(workflow.run_id, "dead:1:1:1:0000", 60), NewSend(user_message("Go."), "", {}))
    await store.release(held.lease)
    other = make_loop(llm=Answers())
    reports = await other.recover()
    assert [one.error for one in reports] == ["workflow.not_a_conversation"]
    drive_runs(other)
    [report] = await other.recover()
    assert (report.session_id, report.status) == (workflow.run_id, SendStatus.COMPLETED)
    assert (await get_run(other, workflow.run_id)).output == "Said: Two."


async def test_a_run_goes_on_under_another_spec_and_keeps_what_is_the_same(make_loop: MakeLoop) -> None:
    llm = Answers()
    loop = make_loop(llm=llm)
    wait = {"type": "wait", "id": "ok", "signal": "go"}
    workflow = create_workflow(flow([agent("one"), agent("two"), agent("old"), wait]), parent_loop=loop)
    assert (await workflow.run()).status is RunStatus.WAITING
    new = flow([agent("one"), agent("two", "Two, better."), agent("end")])
    plan = {one.path: one.fate.value for one in await migrate_run(loop, workflow.run_id, new)}
    assert plan == {"one": "keep", "two": "rerun", "old": "drop", "ok": "drop"}
    assert len((await get_run(loop, workflow.run_id)).steps) == 4
    applied = await migrate_run(loop, workflow.run_id, new, apply=True)
    assert {one.path: one.fate.value for one in applied} == plan
    result = await resume_run(loop, None, workflow.run_id)
    assert (result.status, result.output) == (RunStatus.COMPLETED, "Said: End.")
    assert result.outputs["two"] == "Said: Two, better."
    assert llm.counts["One."] == 1
    with pytest.raises(InputError, match="has ended"):
        await migrate_run(loop, workflow.run_id, new)
