"""Is another process at a blackboard: it counts, it takes jobs, or it is killed at a point of a turn that posts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys

from power_loop import SessionStore, StatefulAgentLoop, open_store
from power_loop.errors import BlackboardConflictError
from power_loop.testing import ScriptedLLM, call
from power_loop.tools import blackboard_tools

POST = {"key": "plan/step-1", "value": {"done": False}}
#: How many tasks count in a process, and how far each.
TASKS, TIMES = 3, 5


async def count(store: SessionStore, sid: str) -> None:
    """Count up by one, so many times."""
    made = 0
    while made < TIMES:
        found = await store.read_entries(sid, keys=["count"])
        try:
            if found:
                await store.update_entry(sid, "count", found[0].value + 1, expected_version=found[0].version)
            else:
                await store.post_entry(sid, "count", 1)
        except BlackboardConflictError:
            continue
        made += 1


async def take(store: SessionStore, sid: str) -> None:
    """Take jobs as long as there are any, tell of each that was got."""
    while found := await store.read_entries(sid, prefix="job/", limit=1):
        with contextlib.suppress(BlackboardConflictError):
            await store.remove_entry(sid, found[0].key, expected_version=found[0].version)
            print(found[0].key, flush=True)


async def main(dsn: str, prefix: str, sid: str, *act: str) -> None:
    """Count or take; or send, and die at the first pass of a point."""
    store = await open_store(dsn, table_prefix=prefix)
    if act in (("count",), ("take",)):
        work = count if act == ("count",) else take
        await asyncio.gather(*(work(store, sid) for _ in range(TASKS)))
        await store.aclose()
        return

    def die(*passed: str) -> None:
        if passed == act:
            os.kill(os.getpid(), signal.SIGKILL)

    store.on_point = die
    llm = ScriptedLLM([call("blackboard_post", POST, id="c"), "Done."])
    async with StatefulAgentLoop(llm=llm, store=store, tool_registry=blackboard_tools()) as loop:
        await loop.send("go", session_id=sid)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
