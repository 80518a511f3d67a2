"""Says of any model call what it was sent, and which part of it a provider's cache could serve.

You will see two calls taken apart: system prompt, tools, messages. Then the system prompt is edited, and the third one
says that this is what made the prompt new.
"""

import asyncio

from power_loop import StatefulAgentLoop, create_llm_service_from_env


async def main() -> None:
    """Ask three things, and explain each."""
    async with StatefulAgentLoop(llm=create_llm_service_from_env(), dsn="app.db") as loop:
        sid = await loop.new_session(system_prompt="You are brief.")
        await loop.send("Name a river.", session_id=sid)
        print(await loop.explain(sid), end="\n\n")
        await loop.send("And another one.", session_id=sid)
        print(await loop.explain(sid), end="\n\n")
        await loop.update_session(sid, system_prompt="You are very brief.")
        await loop.send("And a mountain.", session_id=sid)
        print(await loop.explain(sid))


if __name__ == "__main__":
    asyncio.run(main())
