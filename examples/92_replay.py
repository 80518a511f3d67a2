"""Makes a regression test of a session that really happened: today's code is asked to do the same again.

You will see a recorded session replayed without a model, then the same under an edited tool: the replay stops at the
first call that is asked something else, and says what differs.
"""

import asyncio

from power_loop import StatefulAgentLoop, ToolDefinition, create_llm_service_from_env, open_store, tool
from power_loop.testing import check_replay_fixture, write_replay_fixture


@tool(effect="read")
def find_price(item: str) -> str:
    """Find the price of an item."""
    return f"{item}: 42 kroner"


@tool(effect="read", name="find_price")
def edited(item: str) -> str:
    """Find the price of an item, in kroner."""
    return f"{item}: 42 kroner"


def make_loop(price: ToolDefinition) -> StatefulAgentLoop:
    """Make the application's loop."""
    return StatefulAgentLoop(llm=create_llm_service_from_env(), dsn="app.db", tool_registry=[price])


async def main() -> None:
    """Record, keep, and hold today's code against it."""
    async with make_loop(find_price) as loop:
        sid = await loop.new_session()
        print((await loop.send("What is a coffee?", session_id=sid)).final_text)
        print(await loop.replay(sid))
        store = await open_store("app.db")
        archive = await store.export_session(sid)  # or `power-loop export`, from production
        await store.aclose()
        await write_replay_fixture(loop, archive, "coffee.jsonl")

    # From here on it is a test of its own, on any machine.
    async with make_loop(edited) as loop:
        try:
            await check_replay_fixture(loop, "coffee.jsonl")
        except AssertionError as error:
            print(error)


if __name__ == "__main__":
    asyncio.run(main())
