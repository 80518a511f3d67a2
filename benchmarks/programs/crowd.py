"""A process that holds a crowd of conversations and ends, for counters that watch it from outside."""

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.kernel import StatefulAgentLoop, crowd, remote_model


async def main(base_url: str, dsn: str, sessions: str, turns: str) -> None:
    async with StatefulAgentLoop(llm=remote_model(base_url, "lean"), dsn=dsn) as loop:
        await crowd(loop, int(sessions), int(turns))


asyncio.run(main(*sys.argv[1:]))
