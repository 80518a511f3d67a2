"""Lets the model ask a question, and another process bring the answer.

    python examples/22_ask_user.py                    asks, prints what it waits for, and ends
    python examples/22_ask_user.py SESSION "window"   answers, from a new process

You will see the question with its choices, and in the second process the turn going on. An answer that does not fit is
refused, and the question stays open.
"""

import asyncio
import sys

from power_loop import StatefulAgentLoop, create_llm_service_from_env
from power_loop.errors import InputError
from power_loop.tools import ask_user_tools


def make_loop() -> StatefulAgentLoop:
    """Return a handle whose model may ask."""
    return StatefulAgentLoop(llm=create_llm_service_from_env(), dsn="app.db", tool_registry=ask_user_tools())


async def begin() -> None:
    """Send, and tell what is asked."""
    async with make_loop() as loop:
        sid = await loop.new_session(system_prompt="Ask the user about everything that you cannot know.")
        result = await loop.send("Book me a seat on the train to Rome.", session_id=sid)
        print(result.final_text, end="\n" if result.final_text else "")
        for call in result.pending:
            print(f"{call.prompt} {(call.data or {}).get('choices') or ''}")
        print(f"[{sid}: {result.status.value}]")


async def answer(sid: str, text: str) -> None:
    """Answer the first open question of a session."""
    async with make_loop() as loop:
        [call, *_] = await loop.get_pending(sid)
        try:
            print((await loop.submit_tool_result(sid, call.call_id, text)).final_text)
        except InputError as error:
            print(f"{error.code}: {error.message}")


if __name__ == "__main__":
    asyncio.run(answer(*sys.argv[1:3]) if sys.argv[1:] else begin())
