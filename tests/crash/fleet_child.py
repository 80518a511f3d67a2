"""Is one worker of a fleet: it drives what is left until there is nothing, or until its fuse has burnt down."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys

from power_loop import LLMRequest, LoopConfig, StatefulAgentLoop, Worker
from power_loop.testing import ScriptedLLM
from tests.servers.processes import die_with_parent


class Outside:
    """Is the world outside of the database: a line for each thing that happened, in the order in which it did."""

    def __init__(self, path: str, fuse: int) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._fuse = fuse

    def tell(self, what: str, text: str = "") -> None:
        os.write(self._file, json.dumps([what, os.getpid(), text]).encode() + b"\n")

    def burn(self, *point: str) -> None:
        """Pass a point; at the last one the process is gone."""
        self._fuse -= 1
        if self._fuse == 0:
            self.tell("dies", ":".join(point))
            os.kill(os.getpid(), signal.SIGKILL)


async def main(dsn: str, prefix: str, path: str, fuse: str, parent: str) -> None:
    die_with_parent(int(parent))
    outside = Outside(path, int(fuse))

    async def answer(request: LLMRequest) -> str:
        text = request.messages[-1].text
        outside.tell("asked", text)
        outside.burn("model")
        await asyncio.sleep(0)
        outside.tell("told", text)
        return f"to {text}"

    llm = ScriptedLLM([answer], repeat_last=True)
    async with StatefulAgentLoop(llm=llm, dsn=dsn, table_prefix=prefix, config=LoopConfig(max_recoveries=100)) as loop:
        store = await loop.get_store()
        store.on_point = outside.burn  # type: ignore[attr-defined]
        await Worker(loop, concurrency=4, poll_s=0.1).run(until_idle=True)


asyncio.run(main(*sys.argv[1:]))
