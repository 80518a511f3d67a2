"""Lets processes run random workflows and die at random commits, and others go on: a fork for each life.

`python -m tests.workflow.random_child FOLDER` reads a line of JSON for each run (`spec`, `seed`, `failing`, `effect`,
`max_concurrency`, `mutant`, and in `kills` behind how many thousandths of all points each life is killed) and prints a
line with what it came to without a death and with all of them.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import os
import shutil
import signal
import sys
import zlib
from pathlib import Path
from typing import Any

from power_loop import LLMRequest, LLMResponse, LLMRetryPolicy, LoopConfig, StatefulAgentLoop, ToolContext, Usage, tool
from power_loop.errors import LLMAuthError, LLMRateLimitedError, ToolError
from power_loop.llm import ModelInfo
from power_loop.workflow import (
    InProcessExecutor,
    LeafHost,
    LeafOutcome,
    LeafTask,
    RunStatus,
    create_workflow,
    drive_runs,
    resume_run,
)
from tests.agent.agents_child import live
from tests.crash.mutants import broken

RUN_ID = "run_random"
_ANSWERS = ("0", "1", "2", "x", "", "y z")
# A life that goes on is killed at its own points; behind so many of them one lives to its end.
_MAX_LIVES = 12
_LEAF: contextvars.ContextVar[str] = contextvars.ContextVar("leaf")


class Executor(InProcessExecutor):
    """Runs leaves here, and remembers which one it is in the context of each."""

    async def run_leaf(self, task: LeafTask, host: LeafHost) -> LeafOutcome:
        """Run a leaf to its outcome."""
        _LEAF.set(f"{task.path} {task.attempt}")
        return await super().run_leaf(task, host)


class Run:
    """Is one run of a workflow with all of its lives, in a folder of its own."""

    def __init__(self, told: dict[str, Any], folder: Path, template: Path) -> None:
        self._told = told
        self._folder = folder
        folder.mkdir()
        shutil.copyfile(template, folder / "app.db")

    def lives(self, kills: list[int]) -> dict[str, Any]:
        """Let one life after the other be killed at its point, and the last one live."""
        died = [live(self._life(kill_at)) for kill_at in kills]
        assert set(died) <= {0, -signal.SIGKILL}, died
        assert live(self._life(None)) == 0
        facts: dict[str, Any] = json.loads((self._folder / "facts").read_text("utf-8"))
        shutil.rmtree(self._folder)
        return {**facts, "deaths": died.count(-signal.SIGKILL)}

    async def _life(self, kill_at: int | None) -> None:
        with broken(self._told["mutant"]):
            await self._run(kill_at)

    async def _run(self, kill_at: int | None) -> None:
        passed = 0

        def on_point(point: str, name: str) -> None:
            nonlocal passed
            passed += 1
            if passed == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

        told = self._told
        async with self._loop() as loop:
            store: Any = await loop.get_store()
            store.on_point = on_point
            executor = Executor()
            drive_runs(loop, executor)
            work = create_workflow(
                told["spec"],
                parent_loop=loop,
                run_id=RUN_ID,
                executor=executor,
                max_concurrency=told["max_concurrency"],
            )
            result = await work.run()
            assert result.status is not RunStatus.WAITING, result
            assert (await resume_run(loop, None, RUN_ID, executor)).status is result.status
            store.on_point = None
            await self._look(loop, result, passed)

    async def _look(self, loop: StatefulAgentLoop, result: Any, points: int) -> None:
        store = await loop.get_store()
        children = await store.get_children(RUN_ID)
        calls = [call for child in children for call in await store.get_calls(child.id)]
        steps = [
            [one.path, one.kind, one.state, one.attempt, one.output, one.error and one.error["code"]]
            for one in result.steps
        ]
        facts = {
            "points": points,
            "status": result.status.value,
            "output": result.output,
            "outputs": dict(result.outputs),
            "error": result.error and [result.error["code"], result.error["path"]],
            "steps": steps,
            "tokens": result.usage.total_tokens,
            "held": [one.id for one in (await store.get_session(RUN_ID), *children) if one.owner is not None],
            "children": sorted(child.id for child in children),
            "unknown": sum(call.state.value == "unknown" for call in calls),
            "open": [call.state.value for call in calls if call.state.value in ("requested", "started", "waiting")],
            "asked": _lines(self._folder / "asked"),
            "effects": _lines(self._folder / "effects"),
            "findings": [str(one) async for one in store.diagnose() if one.is_problem],
        }
        (self._folder / "facts").write_text(json.dumps(facts), "utf-8")

    def _loop(self) -> StatefulAgentLoop:
        return StatefulAgentLoop(
            llm=_Model(self),
            dsn=str(self._folder / "app.db"),
            tool_registry=[_tool(self, self._told["effect"])],
            config=LoopConfig(retry=LLMRetryPolicy(max_attempts=1), max_recoveries=100),
        )

    def draw(self, name: str) -> int:
        """Return a number that the seed decides for something, in whichever life."""
        return zlib.crc32(f"{self._told['seed']}|{name}".encode())

    def fails(self, draw: int) -> bool:
        """Tell whether something with this number fails."""
        return bool(draw % 100 < self._told["failing"])

    def note(self, file: str, line: str) -> None:
        """Write down outside of the database that something happened."""
        opened = os.open(self._folder / file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.write(opened, f"{line}\n".encode())
        os.close(opened)


class _Model:
    info = ModelInfo("random", "random", has_json_schema=True)

    def __init__(self, run: Run) -> None:
        self._run = run

    async def generate(self, request: LLMRequest, emit: Any) -> LLMResponse:
        """Answer, or fail, as the seed says of the leaf."""
        leaf = _LEAF.get()
        self._run.note("asked", leaf)
        await asyncio.sleep(0)
        draw = self._run.draw(leaf)
        if self._run.fails(draw):
            raise LLMRateLimitedError("no") if draw // 100 % 2 else LLMAuthError("no")
        return LLMResponse.of_text(_ANSWERS[draw // 100 % len(_ANSWERS)] or "-", usage=Usage(10, 5))


def _tool(run: Run, effect: str) -> Any:
    @tool(effect=effect)  # type: ignore[call-overload]
    async def t(a: str, context: ToolContext) -> str:
        """Have an effect, and then fail or not, as the seed says of the call."""
        key = context.idempotency_key
        run.note("effects", key)
        draw = run.draw(key)
        if run.fails(draw):
            raise ToolError("no")
        return json.dumps([0, 1, 2, "x", True, None, [1], {"k": 1}][draw // 100 % 8])

    return t


def _lines(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines() if path.exists() else []


async def _make(template: Path) -> None:
    async with StatefulAgentLoop(llm=_Model(None), dsn=str(template)) as loop:  # type: ignore[arg-type]
        await loop.get_store()


def main() -> None:
    """Answer each line."""
    folder = Path(sys.argv[1])
    template = folder / "template.db"
    assert live(_make(template)) == 0
    for number, line in enumerate(sys.stdin):
        told = json.loads(line)
        whole = Run(told, folder / f"{number}-whole", template).lives([])
        killed = Run(told, folder / f"{number}-killed", template).lives(
            [1 + at * whole["points"] // 1000 for at in told["kills"][:_MAX_LIVES]]
        )
        sys.stdout.write(json.dumps({"whole": whole, "killed": killed}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
