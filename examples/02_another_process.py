"""Remembers across processes: each run is a new process that goes on with the same conversation.

    python examples/02_another_process.py "My favorite color is teal."
    python examples/02_another_process.py "What is my favorite color?"

You will see that the second process knows what the first one was told. Nothing but the file and the session's name
went from one to the other.
"""

import asyncio
import sys

from power_loop import StatefulAgentLoop, create_llm_service_from_env


async def main(text: str) -> None:
    """Say one thing to the diary."""
    async with StatefulAgentLoop(llm=create_llm_service_from_env(), dsn="app.db") as loop:
        found = (await loop.list_sessions(metadata={"name": "diary"}, limit=1)).items
        sid = found[0].id if found else await loop.new_session(metadata={"name": "diary"})
        result = await loop.send(text, session_id=sid)
        print(result.final_text)
        print(f"[{len(await loop.get_messages(sid))} messages so far]")


if __name__ == "__main__":
    asyncio.run(main(" ".join(sys.argv[1:]) or "What did I tell you?"))
