"""What a run meets that is no fault of its steps: a database that is away, a death while it is cancelled, limits."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterator

import pytest

from power_loop import Budget, tool
from power_loop.errors import ConfigError, StoreUnavailableError
from power_loop.testing import FrozenClock, call
from power_loop.tools import ask_user_tools
from power_loop.workflow import RunStatus, create_workflow, drive_runs, get_run, resume_run
from tests.agent.conftest import MakeLoop
from tests.agent.elsewhere import elsewhere
from tests.agent.parts import Gate, within_limit
from tests.agent.test_lease import change
from tests.agent.test_recovery import dead_owner

from .parts import Answers, agent, flow

_HOUR_S = 3_600


@contextlib.contextmanager
def locked(path: str) -> Iterator[None]:
    """Let nobody else write to a database."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


async def test_a_detached_run_outlives_a_database_that_is_away(make_loop: MakeLoop, dsn: str) -> None:
    clock, gate = FrozenClock(), Gate()
    loop = make_loop(llm=Answers(one=gate.then("First.")), clock=clock, dsn=f"sqlite:///{dsn}?busy_timeout_s=0.01")
    run_id = await create_workflow(flow([agent("one"), agent("two")]), parent_loop=loop).start()
    await gate.someone()
    with locked(dsn):
        gate.open()
        # The first pause is over, and so is the second, while the database is still away.
        for _ in range(2):
            await within_limit(clock.until_asleep())
            clock.advance(0.2)
        await within_limit(clock.until_asleep())
        assert (await get_run(loop, run_id)).status is RunStatus.RUNNING

    async def ends() -> None:
        while (await get_run(loop, run_id)).status is RunStatus.RUNNING:
            clock.advance(20)
            await asyncio.sleep(0)

    await within_limit(ends())
    run = await get_run(loop, run_id)
    assert (run.status, run.outputs) == (RunStatus.COMPLETED, {"one": "First.", "two": "Said: Two."})


async def test_a_run_that_its_caller_awaits_raises_that_and_is_there_for_whoever_recovers(
    make_loop: MakeLoop, dsn: str
) -> None:
    gate = Gate()
    loop = make_loop(llm=Answers(one=gate.then("First.")), dsn=f"sqlite:///{dsn}?busy_timeout_s=0.01")
    workflow = create_workflow(flow([agent("one"), agent("two")]), parent_loop=loop)
    running = asyncio.create_task(workflow.run())
    await gate.someone()
    with locked(dsn):
        gate.open()
        with pytest.raises(StoreUnavailableError):
            await within_limit(running)
    result = await within_limit(resume_run(loop, None, workflow.run_id))
    assert (result.status, result.outputs) == (RunStatus.COMPLETED, {"one": "First.", "two": "Said: Two."})


async def test_a_cancellation_that_undoes_goes_on_where_its_process_died(make_loop: MakeLoop, dsn: str) -> None:
    gate, undo = Gate(), Gate()
    loop = make_loop(llm=Answers(slow=gate.then("Never."), undo=undo.then("Never.")))
    spec = flow([agent("one", compensate=agent("undo")), agent("slow"), agent("three")], undo_on_cancel=True)
    workflow = create_workflow(spec, parent_loop=loop)
    running = asyncio.create_task(workflow.run())
    await gate.someone()
    assert await workflow.cancel("enough")
    await undo.someone()
    change(dsn, "UPDATE pl_sessions SET owner = ? WHERE owner IS NOT NULL", dead_owner())
    back = elsewhere(make_loop, dsn, llm=Answers(undo="Undone."))
    assert ((await get_run(back, workflow.run_id)).error or {})["message"] == "enough"
    drive_runs(back)
    await within_limit(back.recover())
    run = await get_run(back, workflow.run_id)
    assert (run.status, (run.error or {})["message"]) == (RunStatus.CANCELLED, "enough")
    assert {one.path: one.state for one in run.steps} == {"one": "completed", "slow": "cancelled", "undo": "completed"}
    undo.open()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_cancellation_stands_while_what_undoes_asks_a_person(make_loop: MakeLoop) -> None:
    gate = Gate()
    loop = make_loop(llm=Answers(slow=gate.then("Never.")))
    asks = {"type": "wait", "id": "sure", "person": "Undo it?"}
    spec = flow([agent("one", compensate=asks), agent("slow"), agent("three")], undo_on_cancel=True)
    workflow = create_workflow(spec, parent_loop=loop)
    running = asyncio.create_task(workflow.run())
    await gate.someone()
    assert await workflow.cancel("enough")
    assert (await within_limit(running)).status is RunStatus.WAITING
    store = await loop.get_store()
    await store.signal_run(workflow.run_id, "sure", "yes")
    await within_limit(loop.recover())
    run = await get_run(loop, workflow.run_id)
    assert run.status is RunStatus.CANCELLED
    assert {one.path: one.state for one in run.steps} == {"one": "completed", "slow": "cancelled", "sure": "completed"}


async def test_what_a_run_of_too_many_steps_undoes_goes_on_where_its_process_died(
    make_loop: MakeLoop, dsn: str
) -> None:
    undo = Gate()
    loop = make_loop(llm=Answers(slow=Gate().then("Never."), undo=undo.then("Never.")))
    steps = [agent("a"), agent("b", compensate=agent("undo")), agent("c"), agent("d")]
    both = [agent("slow"), {"type": "sequence", "id": "s", "steps": steps}]
    spec = flow({"type": "parallel", "id": "p", "steps": both}, undo_on_cancel=True)
    workflow = create_workflow(spec, parent_loop=loop, max_steps=4)
    running = asyncio.create_task(workflow.run())
    await undo.someone()
    change(dsn, "UPDATE pl_sessions SET owner = ? WHERE owner IS NOT NULL", dead_owner())
    back = elsewhere(make_loop, dsn, llm=Answers(undo="Undone."))
    drive_runs(back)
    await within_limit(back.recover())
    run = await get_run(back, workflow.run_id)
    assert (run.status, (run.error or {})["code"]) == (RunStatus.FAILED, "workflow.too_many_steps")
    assert {one.path: one.state for one in run.steps} == {
        "a": "completed",
        "b": "completed",
        "c": "completed",
        "slow": "cancelled",
        "undo": "completed",
    }
    undo.open()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_run_has_no_more_steps_than_it_may(make_loop: MakeLoop) -> None:
    loop = make_loop(llm=Answers(loop="again"))
    body, until = agent("a"), {"ref": "a", "op": "eq", "value": "enough"}
    spec = flow(
        [
            agent("first", compensate=agent("undo")),
            {"type": "loop", "id": "l", "body": body, "until": until, "max_iterations": 50},
        ],
        undo_on_cancel=True,
    )
    result = await within_limit(create_workflow(spec, parent_loop=loop, max_steps=5).run())
    assert result.status is RunStatus.FAILED
    assert (result.error or {})["code"] == "workflow.too_many_steps"
    assert "5" in (result.error or {})["message"]
    paths = [one.path for one in result.steps]
    assert len(paths) == 6, "the five, and what undoes the first"
    assert "undo" in paths
    assert (await within_limit(create_workflow(flow([body]), parent_loop=loop, max_steps=1).run())).is_completed
    for wrong in (0, True, "5"):
        with pytest.raises(ConfigError):
            create_workflow(spec, parent_loop=loop, max_steps=wrong)  # type: ignore[arg-type]


async def test_a_tool_step_is_paid_from_the_budget_of_its_run(make_loop: MakeLoop) -> None:
    ran: list[int] = []

    @tool
    def look() -> str:
        """Look."""
        ran.append(1)
        return "seen"

    loop = make_loop(llm=Answers(), tool_registry=[look])
    steps = [{"type": "tool", "id": f"t{nth}", "tool": "look", "args": {}} for nth in range(3)]
    # The call alone takes of it: there is no model that could take tokens.
    budget = Budget(max_tool_calls=2, max_tokens=1)
    result = await within_limit(create_workflow(flow(steps), parent_loop=loop, budget=budget).run())
    assert (result.status, len(ran)) == (RunStatus.FAILED, 2)
    assert ((result.error or {})["code"], (result.error or {})["path"]) == ("send.tool_calls_exceeded", "t2")
    spent = await loop.get_budget(result.run_id)
    assert spent is not None
    assert (spent.spent.tool_calls, spent.spent.tokens) == (2, 0)


@pytest.mark.parametrize("is_detached", [True, False])
async def test_a_leaf_waits_for_a_person_as_long_as_its_step_may_take(make_loop: MakeLoop, is_detached: bool) -> None:
    clock, tools = FrozenClock(1_700_000_000_000), ask_user_tools()
    asks = call("request_user_input", {"prompt": "Tea?"})
    loop = make_loop(llm=Answers(one=asks), clock=clock, tool_registry=tools)
    spec = flow([agent("one", timeout_s=_HOUR_S, on_error="continue"), agent("two")])
    workflow = create_workflow(spec, parent_loop=loop)
    if is_detached:
        await workflow.start()
    else:
        assert (await within_limit(workflow.run())).status is RunStatus.WAITING
    await within_limit(loop.aclose())
    back = make_loop(llm=Answers(), clock=clock, tool_registry=tools)
    drive_runs(back)
    clock.advance(_HOUR_S - 1)
    await within_limit(back.recover())
    [step] = (await get_run(back, workflow.run_id)).waits_for
    clock.advance(1)
    await within_limit(back.recover())
    run = await get_run(back, workflow.run_id)
    assert (run.status, run.output) == (RunStatus.COMPLETED, "Said: Two.")
    [one, _] = run.steps
    assert ((one.error or {})["code"], one.state) == ("workflow.timeout", "failed")
    leaf = await (await back.get_store()).get_send(str(step.child_session_id))
    assert leaf is not None
    assert leaf.status.value == "aborted"
