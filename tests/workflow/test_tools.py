"""An agent makes workflows itself: it mends its spec, submits it, hears of the end, looks at its runs, stops them."""

from __future__ import annotations

import json
from typing import Any

from power_loop import ToolRegistry
from power_loop.events import SendFinished, WorkflowRunFinished
from power_loop.testing import ScriptedLLM, call
from power_loop.workflow import RunStatus, create_workflow, get_run, list_runs
from power_loop.workflow.tools import workflow_tools
from tests.agent.conftest import MakeLoop
from tests.agent.parts import Ears, Gate, answers, error_answers, until, within_limit

from .parts import Answers, agent, flow


class Boss(Answers):
    """Is a model for an agent with a script, and for the leaves that it thinks of."""

    def __init__(self, *script: Any, **leaves: Any) -> None:
        super().__init__(**leaves)
        self.boss = ScriptedLLM(script)

    async def generate(self, request: Any, emit: Any) -> Any:
        is_boss = (request.system or "").startswith("Boss.")
        return await (self.boss if is_boss else super()).generate(request, emit)


async def test_an_agent_mends_its_workflow_submits_it_and_hears_of_its_end(make_loop: MakeLoop) -> None:
    bad = flow([agent("one"), agent("two", input="{{onne}}")])
    good = flow([agent("one"), agent("two", input="{{one}}")])
    llm = Boss(
        call("check_workflow", {"spec": bad}),
        call("submit_workflow", {"spec": bad}),
        call("submit_workflow", {"spec": good, "input": "tea"}),
        "It runs.",
        "It is done.",
    )
    registry = ToolRegistry()
    loop = make_loop(llm=llm, tool_registry=registry)
    for one in workflow_tools(loop):
        registry.register(one)
    ears = Ears(loop)
    sid = await loop.new_session(system_prompt="Boss.")
    result = await loop.send("Work.", session_id=sid)
    assert result.final_text in ("It runs.", "It is done.")
    told = llm.boss.requests[1:4]
    assert "did you mean" in answers(told[0])[-1]
    assert "onne" in error_answers(told[1])[-1]
    [run] = await list_runs(loop, parent_session_id=sid)
    assert run.session_id in answers(told[2])[-1]
    ends = lambda: sum(one.result.session_id == sid for one in ears.of(SendFinished))  # noqa: E731
    await until(lambda: llm.boss.steps_left == 0 and ends() > 0)
    ended = await get_run(loop, run.session_id)
    assert (ended.status, ended.output) == (RunStatus.COMPLETED, "Said: Two.")
    said = [record.message.text for record in await loop.get_messages(sid)]
    assert sum(run.session_id in text and "Said: Two." in text for text in said) == 1


async def test_an_agent_looks_at_its_own_runs_and_stops_them(make_loop: MakeLoop) -> None:
    gate = Gate()
    llm = Boss(one=gate.then("Never."))
    registry = ToolRegistry()
    loop = make_loop(llm=llm, tool_registry=registry)
    for one in workflow_tools(loop):
        registry.register(one)
    sid = await loop.new_session(system_prompt="Boss.")
    ears = Ears(loop)
    workflow = create_workflow(flow(agent("one")), parent_loop=loop, parent_session_id=sid)
    run_id = await workflow.start()
    await gate.someone()
    llm.boss.add(
        call("get_workflow", {"run_id": run_id}),
        call("cancel_workflow", {"run_id": run_id}),
        call("get_workflow", {"run_id": "run_of_another"}),
        "Stopped.",
        # It hears of the end, in this send or behind it.
        "I know.",
    )
    await loop.send("Stop it.", session_id=sid)
    seen, stopped, _ = [answers(request)[-1] for request in llm.boss.requests[1:4]]
    assert json.loads(seen)["status"] == "running"
    assert json.loads(seen)["steps"] == {"one": "started"}
    assert stopped == "It is stopped."
    assert "no run" in error_answers(llm.boss.requests[3])[-1]
    # It comes to its rest by itself.
    await within_limit(until(lambda: bool(ears.of(WorkflowRunFinished))))
    assert (await get_run(loop, run_id)).status is RunStatus.CANCELLED
