"""Says something to a run from another process: `python -m tests.workflow.other_process DSN cancel|signal RUN_ID`."""

from __future__ import annotations

import asyncio
import sys

from power_loop import StatefulAgentLoop
from power_loop.testing import ScriptedLLM
from power_loop.workflow import cancel_run, signal_run


async def main(dsn: str, what: str, run_id: str) -> None:
    """Say it, and print what came of it."""
    async with StatefulAgentLoop(llm=ScriptedLLM([]), dsn=dsn) as loop:
        if what == "cancel":
            print(await cancel_run(loop, run_id, reason="from afar"))
        else:
            print((await signal_run(loop, run_id, "go", "now")).position)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
