"""Lets a model write a workflow itself: it checks its plan, mends it, submits it, and is told when the run has ended.

You will see the tools that it calls. A plan is refused before anything runs, with every problem at once and what was
probably meant, so that one round mends it.
"""

import asyncio

from power_loop import StatefulAgentLoop, ToolRegistry, create_llm_service_from_env
from power_loop.events import ToolCallStarted
from power_loop.workflow import list_runs, workflow_tools


async def main() -> None:
    """Ask for something that takes a plan."""
    registry = ToolRegistry()
    loop = StatefulAgentLoop(llm=create_llm_service_from_env(), dsn="app.db", tool_registry=registry)
    for definition in workflow_tools(loop):
        registry.register(definition)
    async with loop:
        loop.event_bus.subscribe(lambda event: print(f"→ {event.payload.name}"), types=[ToolCallStarted])
        sid = await loop.new_session(
            system_prompt="Plan work of many parts as a workflow: check the spec, mend it, then submit it."
        )
        question = "Have three agents write one sentence each about the Rhine, the Po and the Loire."
        print((await loop.send(question, session_id=sid)).final_text)
    # The end of the `with` block waits for the run, whose end came to the session's inbox and was answered there.
    async with StatefulAgentLoop(llm=create_llm_service_from_env(), dsn="app.db") as again:
        for run in await list_runs(again):
            print(f"{run.name}: {run.state}")
        print((await again.get_messages(sid))[-1].message.text)
    await registry.aclose()


if __name__ == "__main__":
    asyncio.run(main())
