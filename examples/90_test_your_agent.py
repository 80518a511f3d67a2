"""Tests an agent without a model, a network or a wait: a model by script, a clock that stands still, faults on demand.

    python -m pytest examples/90_test_your_agent.py

You will see three tests pass in a moment: what the agent does with an answer, that it waits as long as it is told to,
and that it leaves nothing behind. `make_agent` stands for your own.
"""

import asyncio

from power_loop import LLMService, StatefulAgentLoop, tool
from power_loop.testing import Fault, FaultyLLM, FrozenClock, ScriptedLLM, call, leak_check
from power_loop.timers import Clock


@tool(effect="idempotent")
def order(title: str) -> str:
    """Order a book."""
    return f"{title} is ordered"


def make_agent(llm: LLMService, clock: Clock | None = None) -> StatefulAgentLoop:
    """Make the agent as the application does, with the model that it is given."""
    return StatefulAgentLoop(llm=llm, dsn=":memory:", tool_registry=[order], clock=clock)


async def test_it_orders_what_it_is_asked_for() -> None:
    """Look at what was called, and at what the model was told of it."""
    model = ScriptedLLM([call("order", {"title": "Emma"}), "It is on its way."])
    async with make_agent(model) as agent:
        result = await agent.send("I want Emma.", session_id=await agent.new_session())
    assert (result.final_text, result.tool_calls) == ("It is on its way.", 1)
    told = model.requests[1].messages[-1].tool_result
    assert told is not None
    assert told.text == "Emma is ordered"


async def test_it_waits_as_long_as_it_is_told_to() -> None:
    """Take half a minute in a moment."""
    clock = FrozenClock(skips_sleep=True)
    faults = [Fault(1, "error", code="llm.rate_limited", retry_after_s=30)]
    async with make_agent(FaultyLLM(ScriptedLLM(["Hello."]), faults), clock) as agent:
        result = await agent.send("Hello?", session_id=await agent.new_session())
    assert result.is_completed
    assert sum(clock.slept) >= 30


async def test_it_leaves_nothing_behind() -> None:
    """Fail for a task, a thread, a process or a descriptor that outlives its agent."""
    async with leak_check(kinds=["task"]), make_agent(ScriptedLLM(["Hello."])) as agent:
        await agent.send("Hello?", session_id=await agent.new_session())


async def main() -> None:
    """Run the tests, as a test runner does."""
    for test in (
        test_it_orders_what_it_is_asked_for,
        test_it_waits_as_long_as_it_is_told_to,
        test_it_leaves_nothing_behind,
    ):
        await test()
        print(f"{test.__name__} passed")


if __name__ == "__main__":
    asyncio.run(main())
