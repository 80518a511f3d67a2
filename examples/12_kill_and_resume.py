"""Survives kill -9: a process dies in the middle of a tool call, and another one goes on.

You will see a child process killed by itself while its tool runs, what the database says of the call then, and the
same turn brought to its end. Nothing had been saved beforehand.
"""

import asyncio
import os
import signal
import sys

from power_loop import StatefulAgentLoop, ToolContext, create_llm_service_from_env, tool


@tool(effect="idempotent")
def pack(thing: str, context: ToolContext) -> str:
    """Pack a thing into the suitcase."""
    if context.attempt == 1:  # the first attempt dies, as by a power cut
        os.kill(os.getpid(), signal.SIGKILL)
    return f"The {thing} is in the suitcase."


def make_loop() -> StatefulAgentLoop:
    """Return a handle; every process makes its own."""
    return StatefulAgentLoop(llm=create_llm_service_from_env(), dsn="app.db", tool_registry=[pack])


async def send(sid: str) -> None:
    """Be the process that dies."""
    async with make_loop() as loop:
        await loop.send("Pack the camera.", session_id=sid)


async def main() -> None:
    """Have a child die, then go on."""
    async with make_loop() as loop:
        sid = await loop.new_session()
        child = await asyncio.create_subprocess_exec(sys.executable, __file__, sid)
        print(f"the child ended with {await child.wait()}")
        for call in await loop.get_pending(sid):
            print(f"open: {call.name} {dict(call.arguments)} {call.state}")
        result = await loop.resume(sid)
        print(f"{result.status.value}: {result.final_text}")


if __name__ == "__main__":
    asyncio.run(send(sys.argv[1]) if sys.argv[1:] else main())
