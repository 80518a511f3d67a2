"""Gives the model a place for what it must not forget: notes, and a list of things to do.

You will see both as the model sees them, behind all messages of its next call. They belong to the session, survive
every fold of the conversation, and are stored together with the calls that write them.
"""

import asyncio

from power_loop import HookPoint, StatefulAgentLoop, create_llm_service_from_env
from power_loop.hooks import LLMBeforeContext
from power_loop.tools import notes_tools, todo_tools


def show(context: LLMBeforeContext) -> None:
    """Print what stands behind all messages."""
    if context.request.tail:
        print(f"--- round {context.round}\n{context.request.tail}")


async def main() -> None:
    """Have something planned."""
    async with StatefulAgentLoop(
        llm=create_llm_service_from_env(), dsn="app.db", tool_registry=[*notes_tools(), *todo_tools()]
    ) as loop:
        loop.hooks.add(HookPoint.LLM_BEFORE, show)
        sid = await loop.new_session(
            system_prompt="Keep codes and numbers as notes. Keep a todo list of what is left to do."
        )
        request = "The code of the door is 4711. Plan the party: invite the guests, buy drinks, bake a cake."
        print((await loop.send(request, session_id=sid)).final_text)


if __name__ == "__main__":
    asyncio.run(main())
