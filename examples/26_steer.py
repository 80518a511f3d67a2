"""Steers a turn while it runs: what a user says meanwhile goes into the turn at its next round.

You will see a search that takes a while, a second thought of the user, and an answer that has heard it. Any process may
say it; where no turn runs, it becomes the next one. Each input is delivered once and in order, whatever dies.
"""

import asyncio

from power_loop import StatefulAgentLoop, create_llm_service_from_env, tool
from power_loop.events import InputTaken, ToolCallStarted

was_said = asyncio.Event()


@tool(effect="read")
async def search_hotels(city: str) -> str:
    """Search the hotels of a city."""
    await was_said.wait()  # in life: a slow website
    return f"{city}: Hotel Roma (90 euros), Pensione Rosa (60 euros, no lift)"


async def main() -> None:
    """Ask, then have a second thought."""
    async with StatefulAgentLoop(
        llm=create_llm_service_from_env(), dsn="app.db", tool_registry=[search_hotels]
    ) as loop:
        sid = await loop.new_session()
        async with loop.stream("Search a cheap hotel in Rome for me.", session_id=sid) as events:
            async for event in events:
                if isinstance(event.payload, ToolCallStarted):
                    left = await loop.follow_up(sid, "One with a lift, please.")
                    print(f"[said while the turn runs: {left.is_turn_running}]")
                    was_said.set()
                elif isinstance(event.payload, InputTaken):
                    print("[the turn has heard it]")
        print(events.result.final_text)
        print(" → ".join(record.message.role.value for record in await loop.get_messages(sid)))


if __name__ == "__main__":
    asyncio.run(main())
