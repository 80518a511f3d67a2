"""A worker of a fleet whose model takes a while: it works when it is told to, until there is nothing left."""

import asyncio
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.kernel import InProcessModel, StatefulAgentLoop
from power_loop import LLMResponse, Worker


class SlowModel(InProcessModel):
    """A model that answers after so many seconds, as one over a network does."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    async def generate(self, request: Any, emit: Any) -> LLMResponse:
        """Give the next answer."""
        if self._seconds:
            await asyncio.sleep(self._seconds)
        return await super().generate(request, emit)


async def main(dsn: str, seconds: str, concurrency: str) -> None:
    async with StatefulAgentLoop(llm=SlowModel(float(seconds)), dsn=dsn) as loop:
        await loop.get_store()
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        worker = Worker(loop, concurrency=int(concurrency), poll_s=0.05)
        await worker.run(until_idle=True)
        print(worker.turns, flush=True)


asyncio.run(main(*sys.argv[1:]))
