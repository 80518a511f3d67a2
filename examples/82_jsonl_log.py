"""Writes every event to a file of JSON lines, and reads it back as events.

You will see the file's lines by type, and the same turn told from the file alone. Secrets are masked, a full file goes
on in a new one, several processes may write to it, and a slow disk slows no turn.
"""

import asyncio
from collections import Counter

from power_loop import StatefulAgentLoop, create_llm_service_from_env, tool
from power_loop.contrib.jsonl_sink import attach_jsonl_sink, replay
from power_loop.events import SendFinished, ToolCallStarted


@tool(effect="read")
def look_up(word: str) -> str:
    """Look a word up."""
    return f"{word}: a blue-green"


async def main() -> None:
    """Log a turn."""
    async with StatefulAgentLoop(llm=create_llm_service_from_env(), dsn="app.db", tool_registry=[look_up]) as loop:
        attach_jsonl_sink(loop.event_bus, "events.jsonl")
        sid = await loop.new_session()
        await loop.send("Look up what teal is.", session_id=sid)
    # The loop is closed, so the file has everything.
    print(Counter(event.type for event in replay("events.jsonl") if event.session_id == sid))
    for event in replay("events.jsonl"):
        match event.payload:
            case ToolCallStarted(name=name, arguments=arguments):
                print(f"{name} {dict(arguments)}")
            case SendFinished(result=result):
                print(result.final_text)


if __name__ == "__main__":
    asyncio.run(main())
