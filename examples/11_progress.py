"""Tells how far a slow tool is, and runs the calls of one reply side by side.

You will see lines of progress from several downloads at once, then the model's answer. A tool that takes longer than
its `timeout_s` is ended, and the model is told so.
"""

import asyncio

from power_loop import StatefulAgentLoop, ToolContext, create_llm_service_from_env, tool
from power_loop.events import ToolCallProgressed


@tool(effect="read", timeout_s=30)
async def download(name: str, context: ToolContext) -> str:
    """Download a book by its name and say how long it is."""
    for done in (0.25, 0.5, 1.0):
        await asyncio.sleep(0.05)  # in life: the next piece
        context.progress(f"downloading {name}", fraction=done)
    return f"{name} has {len(name) * 40} pages"


async def main() -> None:
    """Have two books downloaded."""
    async with StatefulAgentLoop(llm=create_llm_service_from_env(), dsn="app.db", tool_registry=[download]) as loop:
        sid = await loop.new_session()
        question = "Download Emma and Persuasion, both at once. Which one is longer?"
        async with loop.stream(question, session_id=sid) as events:
            async for event in events:
                if isinstance(event.payload, ToolCallProgressed):
                    print(f"{event.payload.message}: {event.payload.fraction:.0%}")
        print(events.result.final_text)


if __name__ == "__main__":
    asyncio.run(main())
