"""Runs a workflow whose leaf works in a worker, and is killed in the leaf's second model call.

`python -m tests.workflow.worker_run_child FOLDER` lets the test find the run in `FOLDER/app.db`. With `--stop-keeper`
the worker's keeper stands still before that, and `FOLDER/left` holds its process id and the worker's.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

from power_loop import Budget, LLMRequest, LLMResponse, StatefulAgentLoop, Usage
from power_loop.llm import ModelInfo
from power_loop.messages import Role, ToolCallPart
from power_loop.workflow import PoolLimits, SubprocessExecutor, WorkerBootstrap, create_workflow

from .parts import agent, flow
from .worker_parts import workers

RUN_ID = "run_workers"
SPEC = flow([{**agent("one"), "spec": {"name": "one", "system_prompt": "One.", "tools": ["bash"]}}])
_COMMAND = ToolCallPart("call_1", "bash", '{"command": "echo x >>effects; cat effects"}')


class Model:
    """Asks for a command, and then says what it gave; `deadly` is its second call."""

    info = ModelInfo("story", "story")

    def __init__(self, folder: Path, *, is_deadly: bool, stops_keeper: bool = False) -> None:
        self._folder = folder
        self._is_deadly = is_deadly
        self._stops_keeper = stops_keeper

    async def generate(self, request: LLMRequest, emit: Any) -> LLMResponse:
        """Answer."""
        result = next((one.tool_result for one in request.messages if one.role is Role.TOOL), None)
        with (self._folder / "asked").open("a") as asked:
            asked.write("first\n" if result is None else "second\n")
        if result is None:
            return LLMResponse.of_calls(_COMMAND, usage=Usage(10, 5))
        if self._stops_keeper:
            self._stop_keeper()
        if self._is_deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return LLMResponse.of_text(f"It gave {result.content[0].text.split()}.", usage=Usage(10, 5))  # type: ignore[union-attr]

    def _stop_keeper(self) -> None:
        [worker] = workers()
        keeper = int(Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[1])
        (self._folder / "left").write_text(f"{keeper} {worker}")
        os.kill(keeper, signal.SIGSTOP)


def executor_in(folder: Path) -> SubprocessExecutor:
    """Return an executor with one worker, whose files outlive the process."""
    bootstrap = WorkerBootstrap(tool_preset="core")
    return SubprocessExecutor(bootstrap, state_folder=folder / "leaves", pool=PoolLimits(size=1, spare=0))


async def main() -> None:
    """Run it, and die."""
    folder = Path(sys.argv[1])
    llm = Model(folder, is_deadly=True, stops_keeper="--stop-keeper" in sys.argv)
    loop = StatefulAgentLoop(llm=llm, dsn=str(folder / "app.db"))
    async with loop, executor_in(folder) as executor:
        budget = Budget(max_tokens=1_000_000)
        await create_workflow(SPEC, parent_loop=loop, run_id=RUN_ID, executor=executor, budget=budget).run()


if __name__ == "__main__":
    asyncio.run(main())
