"""Goes back in a conversation and takes another way from there: the log is shared, and no message is copied.

You will see a plan, then two forks of it: one that goes on with other words from an earlier message, and one that asks
the same under another system prompt. The session itself stays as it was.
"""

import asyncio

from power_loop import StatefulAgentLoop, create_llm_service_from_env, open_store


async def main() -> None:
    """Plan a trip three times."""
    llm = create_llm_service_from_env()
    async with StatefulAgentLoop(llm=llm, dsn="app.db") as loop:
        sid = await loop.new_session(system_prompt="You plan trips, in one sentence.")
        await loop.send("I have three days.", session_id=sid)
        print("as it was: ", (await loop.send("Plan a trip to Rome.", session_id=sid)).final_text)

        store = await open_store("app.db")
        fork = await store.fork_session(sid, at=2)  # behind the answer to "I have three days."
        await store.aclose()
        print("a fork:    ", (await loop.send("Plan a trip to Oslo.", session_id=fork)).final_text)

        # The third message is asked once more, in a fork of its own, under another prompt; llm= and tools= work too.
        other = await loop.what_if(sid, 3, system_prompt="You plan trips for people who cannot walk far.")
        print("what if:   ", other.final_text)
        print([len(await loop.get_messages(one)) for one in (sid, fork, other.session_id)])


if __name__ == "__main__":
    asyncio.run(main())
