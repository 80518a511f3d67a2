"""Is a process that is killed, by its own hand and with SIGKILL, at a point of a turn that moves money."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from power_loop import StatefulAgentLoop, open_store
from power_loop.testing import ScriptedLLM, call
from tests.agent.bank import move_money


async def main(dsn: str, prefix: str, table: str, *, sid: str, point: str, what: str) -> None:
    """Send, and die at the first pass of (`point`, `what`)."""
    store = await open_store(dsn, table_prefix=prefix)

    def die(at: str, name: str) -> None:
        if (at, name) == (point, what):
            os.kill(os.getpid(), signal.SIGKILL)

    store.on_point = die
    llm = ScriptedLLM([call("move_money", {"to": "bob", "cents": 10}, id="c"), "Done."])
    async with StatefulAgentLoop(llm=llm, store=store, tool_registry=[move_money(table)]) as loop:
        await loop.send("go", session_id=sid)


if __name__ == "__main__":
    dsn, prefix, table, sid, point, what = sys.argv[1:]
    asyncio.run(main(dsn, prefix, table, sid=sid, point=point, what=what))
