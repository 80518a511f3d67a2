"""What an engine does with steps that fail, take too long, wait or are stopped; and what it is paid with."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from power_loop import Approve, Budget, LLMRetryPolicy, LoopConfig, SendStatus, StatefulAgentLoop, tool
from power_loop.errors import InputError, LLMAuthError, LLMServerError, RunNotFoundError, StoreUnavailableError
from power_loop.events import WorkflowRunFinished, WorkflowRunStarted, WorkflowStepFinished, WorkflowStepStarted
from power_loop.hooks import SubagentStartContext, Veto
from power_loop.testing import FrozenClock
from power_loop.workflow import (
    InProcessExecutor,
    LeafOutcome,
    RunStatus,
    WorkflowResult,
    cancel_run,
    create_workflow,
    drive_runs,
    get_run,
    list_runs,
    migrate_run,
    resume_run,
    signal_run,
)
from tests.agent.conftest import MakeLoop
from tests.agent.parts import Ears, Gate, until, within_limit
from tests.agent.test_lease import change

from .parts import Answers, agent, flow

ONCE = LoopConfig(retry=LLMRetryPolicy(max_attempts=1))


def states(result: WorkflowResult) -> dict[str, str]:
    """Return the state of each step by its path."""
    return {step.path: step.state for step in result.steps}


async def run(loop: StatefulAgentLoop, spec: Any, **members: Any) -> WorkflowResult:
    """Run a workflow."""
    return await within_limit(create_workflow(spec, parent_loop=loop, **members).run())


async def test_no_result_is_lost_when_a_sibling_fails(make_loop: MakeLoop) -> None:
    loop = make_loop(llm=Answers(bad=LLMAuthError("no key", provider="p", status=401)), config=ONCE)
    steps = [agent("one"), agent("bad"), agent("two")]
    result = await run(loop, flow({"type": "parallel", "steps": steps}))
    assert result.status is RunStatus.FAILED
    assert result.error is not None
    assert (result.error["code"], result.error["path"]) == ("llm.auth", "bad")
    by_path = {step.path: step for step in result.steps}
    assert by_path["bad"].state == "failed"
    done = [path for path, step in by_path.items() if step.state == "completed"]
    assert all(by_path[path].output == f"Said: {path.capitalize()}." for path in done)
    again = await resume_run(loop, None, result.run_id)
    assert again == result


async def test_a_step_is_tried_again_as_its_spec_says(make_loop: MakeLoop) -> None:
    failures: list[Any] = [LLMServerError("down", provider="p", status=500)] * 2
    llm = Answers(one=lambda _: failures.pop() if failures else "At last.")
    loop = make_loop(llm=llm, config=ONCE)
    ears = Ears(loop)
    retry = {"attempts": 3, "backoff": {"first_s": 0.001}, "on": ["transient"]}
    result = await run(loop, flow(agent("one", retry=retry)))
    assert (result.status, result.output) == (RunStatus.COMPLETED, "At last.")
    assert [one.attempt for one in ears.of(WorkflowStepStarted)] == [1, 2, 3]
    assert [one.code for one in ears.of(WorkflowStepFinished)] == ["llm.server", "llm.server", None]
    store: Any = await loop.get_store()
    assert len(await store.get_children(result.run_id)) == 3


async def test_a_step_whose_time_is_over_is_ended(make_loop: MakeLoop) -> None:
    gate = Gate()
    loop = make_loop(llm=Answers(slow=gate.then("Never.")))
    result = await run(loop, flow(agent("slow", timeout_s=0.05)))
    assert result.status is RunStatus.FAILED
    assert result.error is not None
    assert result.error["code"] == "workflow.timeout"
    assert gate.cancelled == gate.came


async def test_a_cancelled_run_ends_what_it_set_going(make_loop: MakeLoop) -> None:
    gate = Gate()
    loop = make_loop(llm=Answers(one="Done.", slow=gate.then("Never.")))
    workflow = create_workflow(flow([agent("one"), agent("slow"), agent("two")]), parent_loop=loop)
    task = asyncio.ensure_future(workflow.run())
    await gate.someone()
    assert await workflow.cancel("enough")
    result = await within_limit(task)
    assert result.status is RunStatus.CANCELLED
    assert states(result) == {"one": "completed", "slow": "cancelled"}
    store: Any = await loop.get_store()
    leaves = {one.id: await store.get_send(one.id) for one in await store.get_children(result.run_id)}
    assert sorted(one.status.value for one in leaves.values()) == ["cancelled", "completed"]
    assert not await workflow.cancel()
    assert gate.cancelled == 1


async def test_another_process_cancels_a_run(make_loop: MakeLoop) -> None:
    gate = Gate()
    here, there = make_loop(llm=Answers(slow=gate.then("Never."))), make_loop(llm=Answers())
    workflow = create_workflow(flow(agent("slow")), parent_loop=here)
    task = asyncio.ensure_future(workflow.run())
    await gate.someone()
    store: Any = await there.get_store()
    await store.ask_to_cancel(workflow.run_id, reason="from afar")
    result = await within_limit(task)
    assert result.status is RunStatus.CANCELLED
    assert result.error is not None
    assert result.error["message"] == "from afar"


async def test_a_run_that_waits_rests_and_a_signal_lets_it_go_on(make_loop: MakeLoop) -> None:
    loop = make_loop(llm=Answers())
    ears = Ears(loop)
    wait = {"type": "wait", "id": "ok", "signal": "go"}
    spec = flow([agent("one"), wait, agent("two", "Two.", input="It was {{ok.word}}.")])
    result = await run(loop, spec)
    assert result.status is RunStatus.WAITING
    assert [step.path for step in result.waits_for] == ["ok"]
    await signal_run(loop, result.run_id, "other", 1)
    await signal_run(loop, result.run_id, "go", {"word": "green"})
    ended = await within_limit(resumed(loop, result.run_id))
    assert ended.status is RunStatus.COMPLETED
    assert ended.outputs["ok"] == {"word": "green"}
    assert ears.of(WorkflowRunStarted)[0].is_resume is False
    assert [one.status for one in ears.of(WorkflowRunFinished)][-1] == "completed"


async def resumed(loop: StatefulAgentLoop, run_id: str) -> WorkflowResult:
    """Return the end of a run that goes on in the background."""
    while True:
        result = await get_run(loop, run_id)
        if result.status not in (RunStatus.RUNNING, RunStatus.WAITING):
            return result
        await asyncio.sleep(0)


async def test_a_waiting_run_is_cancelled(make_loop: MakeLoop) -> None:
    loop = make_loop(llm=Answers())
    result = await run(loop, flow({"type": "wait", "id": "ok", "signal": "go"}))
    assert result.status is RunStatus.WAITING
    assert await cancel_run(loop, result.run_id, reason="enough")
    ended = await get_run(loop, result.run_id)
    assert ended.status is RunStatus.CANCELLED
    assert not await cancel_run(loop, result.run_id)
    assert not await cancel_run(loop, "run_none")


@pytest.mark.parametrize("effect", ["read", "once"])
async def test_a_tool_is_a_step_of_the_ledger(make_loop: MakeLoop, effect: str) -> None:
    seen: list[int] = []

    @tool(effect=effect)
    def double(n: int) -> dict[str, int]:
        """Double a number."""
        seen.append(n)
        return {"twice": 2 * n}

    llm = Answers()
    loop = make_loop(llm=llm, tool_registry=[double])
    step = {"type": "tool", "id": "d", "tool": "double", "args": {"n": "{{input.n}}"}}
    result = await run(loop, flow([step, agent("one", input="{{d.twice}}")], input={"n": 21}))
    assert result.status is RunStatus.COMPLETED, result.error
    assert (seen, result.outputs["d"]) == ([21], {"twice": 42})
    assert sum(llm.counts.values()) == 1
    [step_row] = [one for one in result.steps if one.path == "d"]
    store: Any = await loop.get_store()
    [entry] = await store.get_calls(step_row.child_session_id)
    assert (entry.name, entry.state.value, entry.effect.value) == ("double", "succeeded", effect)


async def test_a_tool_that_fails_fails_its_step(make_loop: MakeLoop) -> None:
    @tool(effect="read")
    def bad() -> str:
        """Fail."""
        raise ValueError("broken")

    loop = make_loop(llm=Answers(), tool_registry=[bad])
    result = await run(loop, flow({"type": "tool", "id": "b", "tool": "bad", "args": {}}))
    assert result.error is not None
    assert result.error["code"] == "tool.failed"
    assert "broken" in result.error["message"]
    missing = await run(loop, flow({"type": "tool", "id": "b", "tool": "none", "args": {}}))
    assert missing.error is not None
    assert missing.error["code"] == "agent.not_granted"


async def test_a_leaf_that_asks_a_person_lets_the_run_rest(make_loop: MakeLoop) -> None:
    seen: list[str] = []

    @tool(effect="once", requires_approval=True)
    def pay(whom: str) -> str:
        """Pay."""
        seen.append(whom)
        return f"paid {whom}"

    loop = make_loop(llm=Answers(), tool_registry=[pay])
    result = await run(loop, flow({"type": "tool", "id": "p", "tool": "pay", "args": {"whom": "Ada"}}))
    assert result.status is RunStatus.WAITING
    [waiting] = result.waits_for
    assert waiting.child_session_id is not None
    [pending] = await loop.get_pending(waiting.child_session_id)
    await loop.resume(waiting.child_session_id, answers={pending.call_id: Approve()})
    ended = await resume_run(loop, None, result.run_id)
    assert (ended.status, ended.output, seen) == (RunStatus.COMPLETED, "paid Ada", ["Ada"])


async def test_a_budget_bounds_all_leaves_together(make_loop: MakeLoop) -> None:
    loop = make_loop(llm=Answers())
    steps = [agent(f"a{number}") for number in range(5)]
    result = await run(loop, flow(steps), budget=Budget(max_tokens=310), max_concurrency=1)
    assert result.status is RunStatus.FAILED
    assert result.error is not None
    assert result.error["code"] == "send.tokens_exceeded"
    assert result.usage.total_tokens <= 310
    budget = await loop.get_budget(result.run_id)
    assert budget is not None
    assert budget.spent.tokens == result.usage.total_tokens


async def test_as_many_leaves_run_at_a_time_as_may(make_loop: MakeLoop) -> None:
    now = most = 0

    async def work(_: Any) -> str:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0)
        now -= 1
        return "Done."

    loop = make_loop(llm=Answers(one=work))
    each = {"type": "foreach", "id": "all", "items_from": "input", "as": "t", "parallel": True, "body": agent("one")}
    result = await run(loop, flow(each, input=list(range(12))), max_concurrency=3)
    assert result.status is RunStatus.COMPLETED
    assert result.output == ["Done."] * 12
    assert most <= 3


async def test_a_hook_forbids_a_leaf(make_loop: MakeLoop) -> None:
    loop = make_loop(llm=Answers())
    loop.hooks.add("subagent.start", lambda context: forbid(context), name="no")
    result = await run(loop, flow(agent("one")))
    assert result.error is not None
    assert result.error["code"] == "tool.failed"
    assert "not today" in result.error["message"]


def forbid(context: SubagentStartContext) -> Veto:
    """Forbid it."""
    assert context.call_id == "one"
    return Veto("not today")


async def test_a_run_below_a_session_has_no_more_than_that(make_loop: MakeLoop) -> None:
    loop = make_loop(llm=Answers())
    sid = await loop.new_session()
    result = await run(loop, flow(agent("one")), parent_session_id=sid)
    store: Any = await loop.get_store()
    head = await store.get_session(result.run_id)
    assert (head.parent_id, head.root_id, head.depth) == (sid, sid, 1)
    stats = await loop.get_session_stats(sid)
    assert (stats.children, stats.children_usage.total_tokens) == (2, 15)
    deleted = await store.delete_session(sid)
    assert deleted.rows > 0
    assert (await loop.list_sessions()).items == ()
    assert result.steps[0].child_session_id is not None
    assert SendStatus.COMPLETED.value == "completed"


async def test_what_is_said_while_a_run_comes_to_rest_is_heard(make_loop: MakeLoop) -> None:
    loop = make_loop(llm=Answers())
    store: Any = await loop.get_store()
    wait = {"type": "wait", "id": "ok", "signal": "go"}
    workflow = create_workflow(flow([wait, agent("one")]), parent_loop=loop)
    told: list[Any] = []
    original = store.advance_run

    async def advance(lease: Any, write: Any, *, end: Any = None, **place: Any) -> None:
        if end is not None and not told:
            # Somebody speaks between the decision to rest and the move that does.
            told.append(await store.signal_run(workflow.run_id, "go", "now"))
        await original(lease, write, end=end, **place)

    store.advance_run = advance
    result = await within_limit(workflow.run())
    assert (result.status, result.outputs["ok"]) == (RunStatus.COMPLETED, "now")


class PatientClock(FrozenClock):
    """Ends who asks for the time again and again where others would have to have their turn."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def now_ms(self) -> int:
        self.asked += 1
        assert self.asked < 1_000, "it kept the event loop for itself"
        return super().now_ms()


async def test_a_cancelled_run_undoes_in_its_time_and_holds_up_nobody(make_loop: MakeLoop) -> None:
    gate, clock = Gate(), PatientClock()
    loop = make_loop(llm=Answers(one="Done.", slow=gate.then("Never.")), clock=clock)
    one = agent("one", compensate={"type": "wait", "id": "pause", "delay_s": 60})
    workflow = create_workflow(flow([one, agent("slow")], undo_on_cancel=True), parent_loop=loop)
    task = asyncio.ensure_future(workflow.run())
    await gate.someone()
    assert await workflow.cancel("enough")
    await within_limit(clock.until_asleep())
    assert not task.done()
    clock.advance(60)
    result = await within_limit(task)
    assert result.status is RunStatus.CANCELLED
    assert states(result) == {"one": "completed", "slow": "cancelled", "pause": "completed"}


def approved(seen: list[str]) -> Any:
    """Return a tool that a person has to allow."""

    @tool(effect="once", requires_approval=True)
    def pay(whom: str) -> str:
        """Pay."""
        seen.append(whom)
        return f"paid {whom}"

    return pay


PAY = {"type": "tool", "id": "p", "tool": "pay", "args": {"whom": "Ada"}}


async def test_a_leaf_that_asks_a_person_takes_up_no_place(make_loop: MakeLoop) -> None:
    loop = make_loop(llm=Answers(), tool_registry=[approved([])])
    result = await run(loop, flow({"type": "parallel", "steps": [PAY, agent("one")]}), max_concurrency=1)
    assert result.status is RunStatus.WAITING
    assert states(result) == {"p": "started", "one": "completed"}


async def test_an_answer_to_a_leaf_is_taken_up_while_its_run_has_other_work(
    make_loop: MakeLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("power_loop.workflow.engine._ASLEEP_S", 0.01)
    gate, seen = Gate(), list[str]()
    loop = make_loop(llm=Answers(slow=gate.then("Late.")), tool_registry=[approved(seen)])
    ears = Ears(loop)
    then = {"type": "sequence", "id": "s", "steps": [PAY, agent("next")]}
    workflow = create_workflow(flow({"type": "parallel", "steps": [then, agent("slow")]}), parent_loop=loop)
    task = asyncio.ensure_future(workflow.run())
    await gate.someone()
    store: Any = await loop.get_store()
    pending: tuple[Any, ...] = ()
    leaf = ""
    while not pending:
        await asyncio.sleep(0)
        for leaf in [one.id for one in await store.get_children(workflow.run_id)]:
            sent = await store.get_send(leaf)
            if sent is not None and sent.status is SendStatus.WAITING_FOR_INPUT:
                pending = await loop.get_pending(leaf)
                break
    await loop.resume(leaf, answers={pending[0].call_id: Approve()})
    await until(lambda: "next" in [one.path for one in ears.of(WorkflowStepFinished)])
    gate.open()
    result = await within_limit(task)
    assert (result.status, result.outputs["s"], seen) == (RunStatus.COMPLETED, "Said: Next.", ["Ada"])


async def test_what_was_given_is_kept_where_another_step_ends_the_engine(make_loop: MakeLoop) -> None:
    class Elsewhere:
        """Runs a leaf where no store is; one of them cannot reach that of the run."""

        def __init__(self) -> None:
            self.seen: list[str] = []

        async def run_leaf(self, task: Any, host: Any) -> LeafOutcome:
            self.seen.append(task.path)
            if task.path == "bad" and self.seen.count("bad") == 1:
                raise StoreUnavailableError("the database is gone")
            return LeafOutcome(SendStatus.COMPLETED, f"It is {task.path}.")

        async def aclose(self) -> None:
            pass

    loop, executor = make_loop(llm=Answers()), Elsewhere()
    spec = flow({"type": "parallel", "steps": [agent("one"), agent("bad"), agent("two")]})
    workflow = create_workflow(spec, parent_loop=loop, executor=executor)
    with pytest.raises(StoreUnavailableError):
        await within_limit(workflow.run())
    result = await within_limit(resume_run(loop, None, workflow.run_id))
    assert result.outputs == {"one": "It is one.", "bad": "It is bad.", "two": "It is two."}
    assert sorted(executor.seen) == ["bad", "bad", "one", "two"]


async def test_each_run_has_the_executor_that_it_was_made_with(make_loop: MakeLoop) -> None:
    class Noting(InProcessExecutor):
        """Runs leaves here, and notes which."""

        def __init__(self) -> None:
            self.seen: list[str] = []

        async def run_leaf(self, task: Any, host: Any) -> LeafOutcome:
            self.seen.append(task.path)
            return await super().run_leaf(task, host)

    loop, guarded, other = make_loop(llm=Answers()), Noting(), Noting()
    wait = {"type": "wait", "id": "ok", "signal": "go"}
    first = create_workflow(flow([agent("one"), wait, agent("two")]), parent_loop=loop, executor=guarded)
    await first.start(detached=True)
    second = create_workflow(flow(agent("three")), parent_loop=loop, executor=other)
    await second.start(detached=True)
    assert (await run(loop, flow(agent("four")))).is_completed
    await signal_run(loop, first.run_id, "go")
    await within_limit(resumed(loop, first.run_id))
    await within_limit(resumed(loop, second.run_id))
    assert (guarded.seen, other.seen) == (["one", "two"], ["three"])


async def test_a_started_run_is_stored_as_one_that_recovery_finds(make_loop: MakeLoop) -> None:
    gate = Gate()
    loop = make_loop(llm=Answers(one=gate.then("Done.")))
    store: Any = await loop.get_store()
    workflow = create_workflow(flow(agent("one")), parent_loop=loop)
    run_id = await workflow.start(detached=True)
    sent, head = await store.get_send(run_id), await store.get_session(run_id)
    assert (sent.status, head.owner is None) == (SendStatus.RUNNING, False)
    assert await within_limit(workflow.start(detached=True)) == run_id
    gate.open()
    await within_limit(resumed(loop, run_id))


async def test_a_signal_is_heard_that_comes_while_the_run_is_being_left(make_loop: MakeLoop) -> None:
    loop = make_loop(llm=Answers())
    wait = {"type": "wait", "id": "ok", "signal": "go"}
    workflow = create_workflow(flow(wait), parent_loop=loop)
    told = list[str]()

    driver = drive_runs(loop)
    driven = driver.drive

    async def drive(run_id: str, scope: Any, **more: Any) -> Any:
        result = await driven(run_id, scope, **more)
        # The run rests in the store by now, and its task in the background has not ended.
        if not told:
            told.append("go")
            await signal_run(loop, run_id, "go", "now")
        return result

    driver.drive = drive  # type: ignore[method-assign]
    await workflow.start(detached=True)
    result = await within_limit(resumed(loop, workflow.run_id))
    assert (result.status, result.output) == (RunStatus.COMPLETED, "now")


async def test_a_wrong_status_is_told_with_those_that_there_are(make_loop: MakeLoop) -> None:
    with pytest.raises(InputError, match="'waiting'"):
        await list_runs(make_loop(llm=Answers()), status="asleep")


async def test_a_signal_lets_a_migrated_run_go_on(make_loop: MakeLoop) -> None:
    loop = make_loop(llm=Answers())
    spec = flow([{"type": "wait", "id": "ok", "signal": "go"}, agent("one")])
    result = await run(loop, spec)
    longer = flow([*spec["root"]["steps"], agent("two")])
    await migrate_run(loop, result.run_id, longer, apply=True)
    await signal_run(loop, result.run_id, "go")
    ended = await within_limit(resumed(loop, result.run_id))
    assert (ended.status, ended.output) == (RunStatus.COMPLETED, "Said: Two.")


async def test_the_doctor_finds_the_rows_of_a_run_without_its_session(make_loop: MakeLoop, dsn: str) -> None:
    async with make_loop(llm=Answers()) as loop:
        result = await run(loop, flow([agent("one"), {"type": "wait", "id": "ok", "signal": "go"}]))
        store: Any = await loop.get_store()
        await store.signal_run(result.run_id, "other")
    change(dsn, "DELETE FROM pl_sessions WHERE id = ?", result.run_id)
    loop = make_loop(llm=Answers())
    store = await loop.get_store()
    strays = [one.message async for one in store.diagnose(repair=True) if one.session_id == result.run_id]
    for table in ("workflow_runs", "workflow_steps", "workflow_signals"):
        assert any(f"pl_{table} for" in message for message in strays), strays
    with pytest.raises(RunNotFoundError):
        await get_run(loop, result.run_id)
    assert [one async for one in store.diagnose(repair=True) if one.session_id == result.run_id] == []
