"""A run that a tool of a turn waits for: the turn pays for it, and comes to rest with or without it."""

from __future__ import annotations

from typing import Any

from power_loop import LLMResponse, SendStatus, StatefulAgentLoop, ToolContext, Usage, tool
from power_loop.contracts.messages import ToolCallPart
from power_loop.workflow import RunStatus, create_workflow, get_run, list_runs
from tests.agent.conftest import MakeLoop
from tests.agent.parts import within_limit

from .parts import Answers, agent, flow

A_CALL = Usage(10, 5)


def looped(make_loop: MakeLoop, root: Any, *calls: str) -> StatefulAgentLoop:
    """Return a loop whose model calls tools once: `flowing`, which runs a workflow, and `pay`, which has to be
    allowed."""

    @tool(effect="once")
    async def flowing(context: ToolContext) -> str:
        """Run it."""
        workflow = create_workflow(flow(root), parent_loop=loop, parent_session_id=context.session_id)
        return str((await workflow.run()).output)

    @tool(effect="once", requires_approval=True)
    def pay() -> str:
        """Pay."""
        return "paid"

    replies: list[Any] = ["Done.", LLMResponse.of_calls(*[ToolCallPart(one, one, "{}") for one in calls], usage=A_CALL)]
    loop = make_loop(llm=Answers(boss=lambda _: replies.pop()), tool_registry=[flowing, pay])
    return loop


async def test_what_an_awaited_run_takes_is_counted_by_the_turn_that_waits(make_loop: MakeLoop) -> None:
    loop = looped(make_loop, agent("one"), "flowing")
    sid = await loop.new_session(system_prompt="Boss.")
    result = await within_limit(loop.send("Go.", session_id=sid))
    assert (result.status, result.children_usage) == (SendStatus.COMPLETED, A_CALL)
    again = await loop.resume(sid)
    assert (again.usage, again.children_usage) == (result.usage, result.children_usage)


async def test_a_send_that_made_a_run_which_waits_is_given_up_with_it(make_loop: MakeLoop) -> None:
    loop = looped(make_loop, {"type": "wait", "id": "ok", "signal": "go"}, "flowing", "pay")
    sid = await loop.new_session(system_prompt="Boss.")
    result = await within_limit(loop.send("Go.", session_id=sid))
    assert result.status is SendStatus.WAITING_FOR_INPUT
    [run] = await list_runs(loop)
    assert run.state == "waiting"
    given_up = await within_limit(loop.abort_pending(sid))
    assert given_up.status is SendStatus.ABORTED
    assert (await get_run(loop, run.session_id)).status is RunStatus.CANCELLED
    store: Any = await loop.get_store()
    assert [one async for one in store.diagnose() if one.is_problem] == []
