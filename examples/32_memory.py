"""Remembers users across sessions: each has a memory of their own, in the same database.

You will see one conversation in which something is remembered, another one that knows of it, and another user who does
not. What is recalled is shown to the model as data, and is no part of the log.
"""

import asyncio

from power_loop import LoopConfig, StatefulAgentLoop, create_llm_service_from_env
from power_loop.events import MemoryRecalled
from power_loop.memory import StoreMemory, by_metadata
from power_loop.tools import memory_tools


async def main() -> None:
    """Talk to two users."""
    memory = StoreMemory("app.db", namespace=by_metadata("user_id"))
    async with StatefulAgentLoop(
        llm=create_llm_service_from_env(),
        dsn="app.db",
        tool_registry=memory_tools(memory),
        config=LoopConfig(memory=memory),
    ) as loop:
        loop.event_bus.subscribe(lambda event: print(f"[recalled: {event.payload.memories}]"), types=[MemoryRecalled])

        async def chat(user: str, text: str) -> str:
            sid = await loop.new_session(
                system_prompt="You are a cook. Remember what users tell you of themselves.", metadata={"user_id": user}
            )
            return (await loop.send(text, session_id=sid)).final_text

        print("ann:", await chat("ann", "I am allergic to nuts. Please remember that."))
        print("ann:", await chat("ann", "Which cake shall I bake?"))
        print("bob:", await chat("bob", "Which cake shall I bake?"))
        for one in (await (await memory.get_memories()).page("user_id=ann")).items:
            print(f"kept of ann: {one.text}")
    await memory.aclose()


if __name__ == "__main__":
    asyncio.run(main())
