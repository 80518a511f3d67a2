"""Shows what a crash means for each kind of effect: `read`, `idempotent` and `once`.

A child process dies in each of three tools, right after the tool did its work. You will see what really happened in the
world, and what the ledger says: a read runs again, an idempotent call runs again with the same key, and a call that may
happen once is never run again by itself; the model is told that nobody knows.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

from power_loop import StatefulAgentLoop, ToolContext, create_llm_service_from_env, tool

WORLD = Path("world.txt")


def do(what: str, context: ToolContext) -> str:
    """Do something outside of the database, then die if it was done for the first time."""
    is_first = what not in WORLD.read_text("utf-8")
    with WORLD.open("a", encoding="utf-8") as world:
        world.write(f"{what} with the key …{context.idempotency_key[-6:]}\n")
    if is_first:
        os.kill(os.getpid(), signal.SIGKILL)
    return f"{what}: done"


@tool(effect="read")
def find_order(number: int, context: ToolContext) -> str:
    """Find an order."""
    return do(f"read order {number}", context)


@tool(effect="idempotent")
def charge(number: int, context: ToolContext) -> str:
    """Charge an order to the customer's card."""
    return do(f"charged order {number}", context)


@tool(effect="once")
def write_letter(number: int, context: ToolContext) -> str:
    """Write a letter to the customer about an order."""
    return do(f"wrote a letter about order {number}", context)


async def drive(sid: str) -> None:
    """Begin the turn, or go on with it."""
    async with make_loop() as loop:
        if (await loop.get_session(sid)).send_count:
            await loop.resume(sid)
        else:
            await loop.send("Find order 17, then charge it, then write a letter about it.", session_id=sid)


def make_loop() -> StatefulAgentLoop:
    """Return a handle; every process makes its own."""
    tools = [find_order, charge, write_letter]
    return StatefulAgentLoop(llm=create_llm_service_from_env(), dsn="app.db", tool_registry=tools)


async def main() -> None:
    """Start processes until one comes to the end, then look."""
    async with make_loop() as loop:
        sid = await loop.new_session()
        WORLD.write_text("")
        while True:
            child = await asyncio.create_subprocess_exec(sys.executable, __file__, sid)
            if await child.wait() >= 0:
                break
            print("[a process died]")
        print(WORLD.read_text("utf-8"), end="")
        for call in await (await loop.get_store()).get_calls(sid):
            print(f"{call.name}: {call.effect.value}, {call.state.value}")
        print((await loop.get_messages(sid))[-1].message.text)


if __name__ == "__main__":
    asyncio.run(drive(sys.argv[1]) if sys.argv[1:] else main())
