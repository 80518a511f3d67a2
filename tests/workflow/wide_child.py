"""Runs a workflow of very many leaves and is killed in the middle of it.

`python -m tests.workflow.wide_child DSN PREFIX FOLDER COUNT KILL_AT` ends by SIGKILL behind so many stored replies.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

from power_loop import LLMRequest, LLMResponse, StatefulAgentLoop, Usage
from power_loop.llm import ModelInfo
from power_loop.workflow import create_workflow

from .parts import agent, asked, flow

RUN_ID = "run_wide"
CONCURRENCY = 50
A_CALL = Usage(10, 5)


class Model:
    """Answers every leaf, and writes down which one asked."""

    info = ModelInfo("story", "story")

    def __init__(self, file: Path) -> None:
        self._file = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    async def generate(self, request: LLMRequest, emit: Any) -> LLMResponse:
        """Answer."""
        item = asked(request)
        os.write(self._file, f"{item}\n".encode())
        await asyncio.sleep(0)
        return LLMResponse.of_text(f"on {item}", usage=A_CALL)


def spec_of(count: int) -> dict[str, Any]:
    """Return a workflow of so many leaves side by side."""
    body = agent("r", "Write.", input="{{t}}")
    each = {"type": "foreach", "id": "all", "items_from": "input", "as": "t", "parallel": True, "body": body}
    return flow(each, input=list(range(count)))


async def main() -> None:
    """Run it, and die."""
    dsn, prefix, folder, count, kill_at = sys.argv[1:]
    async with StatefulAgentLoop(llm=Model(Path(folder) / "first"), dsn=dsn, table_prefix=prefix) as loop:
        stored = 0

        def on_point(point: str, name: str) -> None:
            nonlocal stored
            stored += (point, name) == ("commit.after", "append_reply")
            if stored == int(kill_at):
                os.kill(os.getpid(), signal.SIGKILL)

        store: Any = await loop.get_store()
        store.on_point = on_point
        spec = spec_of(int(count))
        await create_workflow(spec, parent_loop=loop, run_id=RUN_ID, max_concurrency=CONCURRENCY).run()


if __name__ == "__main__":
    asyncio.run(main())
