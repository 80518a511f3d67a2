"""Lets agents share what they know: a blackboard for a tree of sessions, on which no write is lost.

You will see a plan that the model writes, an entry that the application changes meanwhile, and the model being told so
when it writes on what it had read before.
"""

import asyncio

from power_loop import StatefulAgentLoop, create_llm_service_from_env
from power_loop.errors import BlackboardConflictError
from power_loop.tools import blackboard_tools


async def main() -> None:
    """Plan on a blackboard, from two sides."""
    async with StatefulAgentLoop(
        llm=create_llm_service_from_env(), dsn="app.db", tool_registry=blackboard_tools()
    ) as loop:
        sid = await loop.new_session(system_prompt="Keep the plan on the blackboard, under the key `plan`.")
        print((await loop.send("Plan a party: post what is to be done.", session_id=sid)).final_text)

        store = await loop.get_store()
        for entry in await store.read_entries(sid):
            print(f"{entry.key} (version {entry.version}): {entry.value}")
            await store.update_entry(sid, entry.key, "book the hall, in June", expected_version=entry.version)
            try:  # whoever says what he has read, and was too slow, changes nothing
                await store.update_entry(sid, entry.key, "book a boat", expected_version=entry.version)
            except BlackboardConflictError as error:
                print(f"{error.code}: there is version {error.version} by now")

        print((await loop.send("Note on the plan that the hall is booked.", session_id=sid)).final_text)
        for entry in await store.read_entries(sid):
            print(f"{entry.key} (version {entry.version}): {entry.value}")


if __name__ == "__main__":
    asyncio.run(main())
