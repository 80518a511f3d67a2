"""A run that rests is driven on by whoever is there, when its time has come, somebody answered or said something."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from power_loop import Approve, Give, HookPoint, LoopConfig, SendStatus, StatefulAgentLoop, TimerRunner, Worker, tool
from power_loop.errors import InputError, StoreUnavailableError
from power_loop.events import SendFinished, TimerFired, WorkflowRunFinished
from power_loop.testing import FrozenClock, call
from power_loop.timers import TimerMaker, TimerState
from power_loop.tools import ask_user_tools
from power_loop.workflow import RunStatus, create_workflow, drive_runs, get_run, signal_run
from tests.agent.conftest import MakeLoop
from tests.agent.elsewhere import elsewhere
from tests.agent.parts import Ears, Gate, pass_time, until, within_limit
from tests.agent.test_lease import change
from tests.agent.test_recovery import dead_owner

from .parts import Answers, agent, flow

_HOUR_S = 3_600
LATER = {"type": "wait", "id": "later", "delay_s": _HOUR_S}
ANSWERED = {"type": "wait", "id": "chosen", "signal": "chosen"}


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock(1_700_000_000_000)


async def rested(loop: StatefulAgentLoop, spec: dict[str, Any], **options: Any) -> str:
    """Begin a run that nobody waits for, and return its id once it rests; its process is gone then."""
    ears = Ears(loop)
    run_id = await create_workflow(spec, parent_loop=loop, **options).start(detached=True)
    await within_limit(until(lambda: bool(ears.of(WorkflowRunFinished))))
    await within_limit(loop.aclose())
    return run_id


@pytest.mark.promise("workflow-wait")
@pytest.mark.parametrize("how", ["runner", "worker", "recover"])
async def test_a_run_that_waits_for_a_time_is_driven_on_by_whoever_is_there(
    make_loop: MakeLoop, dsn: str, clock: FrozenClock, how: str
) -> None:
    run_id = await rested(make_loop(llm=Answers(), clock=clock), flow([LATER, agent("one")]))
    back = elsewhere(make_loop, dsn, llm=Answers(), clock=clock)
    drive_runs(back)
    assert (await get_run(back, run_id)).status is RunStatus.WAITING
    [timer] = (await back.list_timers(run_id)).items
    assert (timer.made_by, timer.due_at_ms) == (TimerMaker.WORKFLOW, clock.now_ms() + _HOUR_S * 1000)

    async def look() -> None:
        if how == "runner":
            runner = TimerRunner(back, recover_every_s=None)
            await runner.fire_due()
            await runner.drained()
        elif how == "worker":
            await Worker(back).run(until_idle=True)
        else:
            await back.recover()

    await within_limit(look())
    assert (await get_run(back, run_id)).status is RunStatus.WAITING
    clock.advance(_HOUR_S)
    await within_limit(look())
    run = await get_run(back, run_id)
    assert (run.status, run.output) == (RunStatus.COMPLETED, "Said: One.")
    assert (await back.list_timers(run_id)).items == ()


async def test_a_signal_that_comes_too_late_ends_a_wait_that_nobody_drove(
    make_loop: MakeLoop, clock: FrozenClock
) -> None:
    loop = make_loop(llm=Answers(), clock=clock)
    run_id = await rested(loop, flow({**ANSWERED, "timeout_s": _HOUR_S}))
    clock.advance(_HOUR_S)
    back = make_loop(llm=Answers(), clock=clock)
    drive_runs(back)
    ears = Ears(back)
    await within_limit(back.recover())
    run = await get_run(back, run_id)
    assert (run.status, (run.error or {})["code"]) == (RunStatus.FAILED, "workflow.timeout")
    assert [one.position for one in ears.of(TimerFired)] == [0]


async def test_what_is_said_while_the_process_sets_its_alarm_drives_the_run_on(
    make_loop: MakeLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = make_loop(llm=Answers())
    ears = Ears(loop)
    store: Any = await loop.get_store()
    look, said = store.list_timers, list[Any]()

    async def while_it_looks(run_id: str, **more: Any) -> Any:
        if not said:
            said.append(await signal_run(loop, run_id, "chosen", "tea"))
        return await look(run_id, **more)

    monkeypatch.setattr(store, "list_timers", while_it_looks)
    run_id = await create_workflow(flow({**ANSWERED, "timeout_s": _HOUR_S}), parent_loop=loop).start()
    await within_limit(until(lambda: len(ears.of(WorkflowRunFinished)) == 2))
    assert (await get_run(loop, run_id)).output == "tea"


async def test_a_signal_in_time_takes_the_alarm_away(make_loop: MakeLoop, clock: FrozenClock) -> None:
    run_id = await rested(make_loop(llm=Answers(), clock=clock), flow({**ANSWERED, "timeout_s": _HOUR_S}))
    back = make_loop(llm=Answers(), clock=clock)
    await signal_run(back, run_id, "chosen", "tea")
    await within_limit(back.aclose())
    look = make_loop(llm=Answers(), clock=clock)
    assert (await get_run(look, run_id)).output == "tea"
    [timer] = (await look.list_timers(run_id, include_ended=True)).items
    assert timer.state is TimerState.CANCELLED


async def test_the_process_that_began_a_run_goes_on_with_it_when_its_time_has_come(
    make_loop: MakeLoop, clock: FrozenClock
) -> None:
    loop = make_loop(llm=Answers(), clock=clock)
    ears = Ears(loop)
    run_id = await create_workflow(flow([LATER, agent("one")]), parent_loop=loop).start()
    await within_limit(until(lambda: len(ears.of(WorkflowRunFinished)) == 1))
    clock.advance(_HOUR_S)
    # The alarm is one of the event loop's.
    pass_time(_HOUR_S)
    await within_limit(until(lambda: len(ears.of(WorkflowRunFinished)) == 2))
    assert [one.status for one in ears.of(WorkflowRunFinished)] == ["waiting", "completed"]
    assert (await get_run(loop, run_id)).output == "Said: One."


async def test_what_is_said_while_nobody_drives_the_run_wakes_it_whatever_dies_behind_that(make_loop: MakeLoop) -> None:
    run_id = await rested(make_loop(llm=Answers()), flow([ANSWERED, agent("one", "{{chosen}}")]))
    loop = make_loop(llm=Answers(), config=LoopConfig(max_recoveries=1))
    # As if its process had died behind the commit.
    await (await loop.get_store()).signal_run(run_id, "chosen", "Tea.")
    assert (await get_run(loop, run_id)).status is RunStatus.RUNNING
    drive_runs(loop)
    await within_limit(loop.recover())
    assert (await get_run(loop, run_id)).output == "Said: Tea."


async def test_a_run_that_is_woken_often_is_not_given_up(make_loop: MakeLoop) -> None:
    steps = [{**ANSWERED, "id": f"w{nth}", "signal": f"w{nth}"} for nth in range(6)]
    run_id = await rested(make_loop(llm=Answers()), flow(steps))
    loop = make_loop(llm=Answers(), config=LoopConfig(max_recoveries=2))
    drive_runs(loop)
    store = await loop.get_store()
    for nth in range(6):
        await store.signal_run(run_id, f"w{nth}", nth)
        await within_limit(loop.recover())
    assert (await get_run(loop, run_id)).status is RunStatus.COMPLETED


def asking(**answers: Any) -> Answers:
    return Answers(one=call("request_user_input", {"prompt": "Tea?"}), **answers)


@pytest.mark.promise("workflow-wait")
@pytest.mark.parametrize("who", ["the one that answers", "a worker"])
async def test_the_answer_to_a_leaf_drives_its_run_on(make_loop: MakeLoop, dsn: str, who: str) -> None:
    tools = ask_user_tools()
    first = make_loop(llm=asking(), tool_registry=tools)
    run_id = await rested(first, flow([agent("one"), agent("two", "{{one}}")]))
    back = elsewhere(make_loop, dsn, llm=Answers(one="Green tea."), tool_registry=tools)
    [step] = (await get_run(back, run_id)).waits_for
    leaf_id = str(step.child_session_id)
    [pending] = await back.get_pending(leaf_id)
    if who == "the one that answers":
        drive_runs(back)
    result = await within_limit(back.resume(leaf_id, answers={pending.call_id: Give("Yes.")}))
    assert result.is_completed
    await within_limit(back.aclose())
    look = make_loop(llm=Answers(), tool_registry=tools)
    if who == "a worker":
        assert (await get_run(look, run_id)).status is RunStatus.RUNNING
        drive_runs(look)
        await within_limit(Worker(look).run(until_idle=True))
    run = await get_run(look, run_id)
    assert (run.status, run.output) == (RunStatus.COMPLETED, "Said: Green tea.")


async def test_a_tool_step_that_was_allowed_drives_its_run_on(make_loop: MakeLoop) -> None:
    @tool(requires_approval=True)
    def pay() -> str:
        """Pay."""
        return "paid"

    options: dict[str, Any] = {"tool_registry": [pay]}
    first, back = make_loop(llm=Answers(), **options), make_loop(llm=Answers(), **options)
    run_id = await rested(first, flow({"type": "tool", "id": "pay", "tool": "pay", "args": {}}))
    drive_runs(back)
    [step] = (await get_run(back, run_id)).waits_for
    leaf_id = str(step.child_session_id)
    [pending] = await back.get_pending(leaf_id)
    await within_limit(back.resume(leaf_id, answers={pending.call_id: Approve()}))
    await within_limit(back.aclose())
    run = await get_run(make_loop(llm=Answers()), run_id)
    assert (run.status, run.output) == (RunStatus.COMPLETED, "paid")


async def test_a_leaf_whose_answer_died_with_its_process_is_recovered_and_its_run_with_it(
    make_loop: MakeLoop, dsn: str
) -> None:
    tools = ask_user_tools()
    run_id = await rested(make_loop(llm=asking(), tool_registry=tools), flow([agent("one"), agent("two")]))
    gate = Gate()
    died = elsewhere(make_loop, dsn, llm=Answers(one=gate.then("Late.")), tool_registry=tools)
    leaf_id = str((await get_run(died, run_id)).waits_for[0].child_session_id)
    [pending] = await died.get_pending(leaf_id)
    answering = asyncio.create_task(died.resume(leaf_id, answers={pending.call_id: Give("Yes.")}))
    await gate.someone()
    change(dsn, "UPDATE pl_sessions SET owner = ? WHERE owner IS NOT NULL", dead_owner())
    back = make_loop(llm=Answers(one="Tea."), tool_registry=tools)
    drive_runs(back)
    await within_limit(back.recover())
    await within_limit(back.recover())
    run = await get_run(back, run_id)
    assert (run.status, run.outputs) == (RunStatus.COMPLETED, {"one": "Tea.", "two": "Said: Two."})
    gate.open()
    await asyncio.gather(answering, return_exceptions=True)


async def test_a_run_that_a_turn_awaited_is_recovered_once_that_turn_is_over(make_loop: MakeLoop, dsn: str) -> None:
    gate, begun = Gate(), list[str]()

    def tools(loops: list[StatefulAgentLoop]) -> Any:
        @tool(effect="once")
        async def research() -> str:
            """Research."""
            workflow = create_workflow(flow(agent("one")), parent_loop=loops[0], parent_session_id="sess_boss")
            begun.append(workflow.run_id)
            return str((await workflow.run()).output)

        return [research]

    here: list[StatefulAgentLoop] = []
    llm = Answers(boss=call("research", {}), one=gate.then("Late."))
    here.append(make_loop(llm=llm, tool_registry=tools(here)))
    await here[0].new_session(session_id="sess_boss", system_prompt="Boss.")
    sending = asyncio.create_task(here[0].send("Go.", session_id="sess_boss"))
    await gate.someone()
    change(dsn, "UPDATE pl_sessions SET owner = ? WHERE owner IS NOT NULL", dead_owner())
    there: list[StatefulAgentLoop] = []
    there.append(elsewhere(make_loop, dsn, llm=Answers(boss="It may have run."), tool_registry=tools(there)))
    drive_runs(there[0])
    found = await within_limit(there[0].recover())
    assert {one.session_id: one.status for one in found} == {
        "sess_boss": SendStatus.COMPLETED,
        begun[0]: SendStatus.COMPLETED,
    }
    assert len(begun) == 1
    assert (await get_run(there[0], begun[0])).output == "Said: One."
    gate.open()
    await asyncio.gather(sending, return_exceptions=True)


@pytest.mark.promise("workflow-detached")
async def test_the_end_of_a_run_comes_by_a_timer_and_once(make_loop: MakeLoop, dsn: str) -> None:
    loop = make_loop(llm=Answers())
    sid = await loop.new_session(system_prompt="Boss.")
    ears = Ears(loop)
    run_id = await create_workflow(flow(agent("one")), parent_loop=loop, parent_session_id=sid).start()
    await within_limit(loop.aclose())
    back = elsewhere(make_loop, dsn, llm=Answers())
    drive_runs(back)
    [timer] = (await back.list_timers(sid, include_ended=True)).items
    assert (timer.made_by, timer.state, timer.delivered) == (TimerMaker.WORKFLOW, TimerState.DONE, 1)
    assert [one.timer_id for one in ears.of(TimerFired)] == [timer.id]
    await within_limit(back.recover())
    said = [one.message.text for one in await back.get_messages(sid)]
    assert len(said) == 2
    assert f"run {run_id}" in said[0]
    assert "Said: One." in said[0]


@pytest.mark.promise("workflow-detached")
@pytest.mark.parametrize("how", ["runner", "worker", "recover"])
async def test_an_end_that_its_process_did_not_bring_is_brought_by_whoever_is_there(
    make_loop: MakeLoop, dsn: str, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    loop = make_loop(llm=Answers())
    # As if its process had died behind the commit.
    monkeypatch.setattr(StatefulAgentLoop, "deliver_soon", lambda loop, timer_id: None)
    sid = await loop.new_session(system_prompt="Boss.")
    await create_workflow(flow(agent("one")), parent_loop=loop, parent_session_id=sid).start()
    await within_limit(loop.aclose())
    back = elsewhere(make_loop, dsn, llm=Answers())
    assert await back.get_messages(sid) == ()
    if how == "runner":
        runner = TimerRunner(back, recover_every_s=None)
        await within_limit(runner.fire_due())
        await within_limit(runner.drained())
    elif how == "worker":
        await within_limit(Worker(back).run(until_idle=True))
    else:
        await within_limit(back.recover())
    assert len(await back.get_messages(sid)) == 2


@pytest.mark.promise("workflow-detached")
async def test_one_look_brings_all_ends(make_loop: MakeLoop, dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = make_loop(llm=Answers())
    monkeypatch.setattr(StatefulAgentLoop, "deliver_soon", lambda loop, timer_id: None)
    sid = await loop.new_session(system_prompt="Boss.")
    spec = flow({"type": "wait", "id": "now", "delay_s": 0})
    for _ in range(20):
        await create_workflow(spec, parent_loop=loop, parent_session_id=sid).start()
    await within_limit(loop.aclose())
    back = elsewhere(make_loop, dsn, llm=Answers())
    await within_limit(back.recover())
    timers = (await back.list_timers(sid, include_ended=True)).items
    assert [one.state for one in timers] == [TimerState.DONE] * 20


async def test_a_later_run_of_the_same_name_tells_of_its_end_too(make_loop: MakeLoop) -> None:
    first = make_loop(llm=Answers())
    sid = await first.new_session(system_prompt="Boss.")
    for nth in range(2):
        loop = make_loop(llm=Answers())
        workflow = create_workflow(flow(agent("one")), parent_loop=loop, parent_session_id=sid, run_id="run_daily")
        await workflow.start()
        await within_limit(loop.aclose())
        timers = (await first.list_timers(sid, include_ended=True)).items
        assert [one.state for one in timers] == [TimerState.DONE] * (nth + 1)
        await (await first.get_store()).delete_session("run_daily")


@pytest.mark.parametrize("how", ["the run's process", "recover"])
async def test_a_hook_of_a_delivery_that_closes_the_handle_is_told_that_it_waits_for_itself(
    make_loop: MakeLoop, dsn: str, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    loop = make_loop(llm=Answers())
    if how == "recover":
        monkeypatch.setattr(StatefulAgentLoop, "deliver_soon", lambda loop, timer_id: None)
    refused = list[InputError]()

    async def closes(context: Any) -> None:
        try:
            await loop.aclose()
        except InputError as error:
            refused.append(error)

    loop.hooks.on(HookPoint.TIMER_FIRE)(closes)
    ears = Ears(loop)
    sid = await loop.new_session(system_prompt="Boss.")
    await create_workflow(flow(agent("one")), parent_loop=loop, parent_session_id=sid).start()
    await within_limit(until(lambda: bool(ears.of(WorkflowRunFinished))))
    if how == "recover":
        await within_limit(loop.recover())
    await within_limit(until(lambda: bool(ears.of(TimerFired))))
    assert len(refused) == 1


async def test_a_conversation_that_is_called_like_a_run_is_woken_as_one(make_loop: MakeLoop) -> None:
    asked = list[str]()

    async def on_fire(context: Any) -> None:
        asked.append(context.timer.session_id)

    loop = make_loop(llm=Answers())
    loop.hooks.on(HookPoint.TIMER_FIRE)(on_fire)
    ears = Ears(loop)
    sid = await loop.new_session(session_id="run_boss", system_prompt="Boss.")
    workflow = create_workflow(
        flow({"type": "wait", "id": "now", "delay_s": 0}), parent_loop=loop, parent_session_id=sid
    )
    await workflow.start()
    await within_limit(until(lambda: any(one.result.session_id == sid for one in ears.of(SendFinished))))
    assert asked == [sid]


async def test_a_runner_that_cannot_drive_what_it_woke_leaves_it_to_others(
    make_loop: MakeLoop, dsn: str, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = await rested(make_loop(llm=Answers(), clock=clock), flow([LATER, agent("one")]))
    back = elsewhere(make_loop, dsn, llm=Answers(), clock=clock)
    drive_runs(back)
    clock.advance(_HOUR_S)

    async def away(loop: StatefulAgentLoop, session_id: str) -> None:
        raise StoreUnavailableError("the database is away")

    odd = list[Any]()
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: odd.append(context["message"]))
    runner = TimerRunner(back, recover_every_s=None)
    with monkeypatch.context() as patched:
        patched.setattr(StatefulAgentLoop, "drive_inbox", away)
        await within_limit(runner.fire_due())
        await within_limit(runner.drained())
    gc.collect()
    assert odd == []
    await within_limit(back.recover())
    assert (await get_run(back, run_id)).status is RunStatus.COMPLETED
