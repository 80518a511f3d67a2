"""Watches a turn: everything that happens is announced as a typed event, after it is durable.

You will see one line an event, in order: what was sent, what was called, what it took. A user interface, a log and a
bill are made of the same events.
"""

import asyncio

from power_loop import AgentEvent, StatefulAgentLoop, create_llm_service_from_env, tool
from power_loop.events import LLMCallFinished, SendFinished, ToolCallFinished, ToolCallStarted


@tool(effect="read")
def look_up(word: str) -> str:
    """Look a word up in the dictionary."""
    return f"{word}: a blue-green, named after a duck"


def show(event: AgentEvent) -> None:
    """Print what is worth a line. A subscriber runs inline, so it is quick."""
    match event.payload:
        case LLMCallFinished(usage=usage, duration_s=duration_s):
            spent = f"{usage.total_tokens} tokens" if usage else "unknown"
            print(f"{event.type}: {spent} in {duration_s:.1f} s")
        case ToolCallStarted(name=name, arguments=arguments):
            print(f"{event.type}: {name} {dict(arguments)}")
        case ToolCallFinished(name=name, state=state):
            print(f"{event.type}: {name} {state}")
        case SendFinished(result=result):
            print(f"{event.type}: {result.final_text}")
        case payload if payload.is_durable:  # the pieces of a streamed answer aside
            print(event.type)


async def main() -> None:
    """Ask something that takes a tool, and watch."""
    async with StatefulAgentLoop(llm=create_llm_service_from_env(), dsn="app.db", tool_registry=[look_up]) as loop:
        sid = await loop.new_session()
        loop.event_bus.subscribe(show, session_id=sid)
        await loop.send("Look up what teal is.", session_id=sid)


if __name__ == "__main__":
    asyncio.run(main())
