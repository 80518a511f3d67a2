"""Says hello: one question, one answer, and a conversation that is already durable.

You will see the model's answer, and the id under which `app.db` keeps the conversation.
"""

import asyncio

from power_loop import StatefulAgentLoop, create_llm_service_from_env


async def main() -> None:
    """Ask once."""
    async with StatefulAgentLoop(llm=create_llm_service_from_env(), dsn="app.db") as loop:
        sid = await loop.new_session(system_prompt="You are brief.")
        result = await loop.send("Say hello to the world.", session_id=sid)
        print(result.final_text)
        print(f"kept as {sid}")


if __name__ == "__main__":
    asyncio.run(main())
