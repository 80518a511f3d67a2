"""Makes the leaves and the host that the tests of workers need, without a workflow around them."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from power_loop import AgentSpec, CancellationToken, LLMRequest, LLMService
from power_loop.contracts.events import EventPayload
from power_loop.runtime.host.environment import RuntimeEnv
from power_loop.runtime.host.keeper import descendants
from power_loop.testing import ScriptedLLM, call
from power_loop.workflow.executors import LeafOutcome, LeafTask, leaf_key

T = TypeVar("T")
# Many Pythons are started here one after the other, on machines that do much else.
_LIMIT_S = 150.0
#: The modules of tests, for functions that a worker finds by name.
ROOT = __file__.rpartition("/tests/")[0]


async def within_limit(work: Awaitable[T]) -> T:
    """Await something that a broken worker would never bring."""
    return await asyncio.wait_for(work, _LIMIT_S)


class Host:
    """Lends a model, and keeps what it is told."""

    def __init__(self, llm: LLMService | None = None) -> None:
        self.llm = llm or ScriptedLLM(["Done."], repeat_last=True)
        self.events: list[EventPayload] = []
        self.stop = CancellationToken()
        self.lent = 0

    @property
    def store(self) -> Any:
        """Workers have stores of their own."""
        raise AssertionError("a worker does not touch the store of the run")

    def announce(self, payload: EventPayload) -> None:
        """Keep an event."""
        self.events.append(payload)

    @contextmanager
    def lend_model(self, spec: AgentSpec) -> Iterator[LLMService]:
        """Lend the model."""
        self.lent += 1
        try:
            yield self.llm
        finally:
            self.lent -= 1

    async def run_in_process(self, task: LeafTask) -> LeafOutcome:
        """Workers do not run in process."""
        raise AssertionError("a leaf ran in process")

    @property
    def types(self) -> list[str]:
        """The names of the events, without the pieces of replies."""
        return [one.type for one in self.events if not one.type.startswith("delta")]


def leaf(path: str = "one", input: str = "Go.", *, attempt: int = 1, run_id: str = "run_1", **more: Any) -> LeafTask:
    """Return a leaf's task; `more` is of its agent."""
    timeout_s = more.pop("timeout_s", None)
    more = {"tools": (), **more}
    spec = AgentSpec("worker", "You work.", **more)
    return LeafTask(run_id, path, attempt, leaf_key(run_id, path, attempt), spec, input, timeout_s)


def tool_user() -> ScriptedLLM:
    """Is a model that a worker makes by itself: it adds, and says the sum."""
    return ScriptedLLM([call("add", {"a": 1, "b": 2}), _sum])


def _sum(request: LLMRequest) -> str:
    result: Any = request.messages[-1].tool_result
    return f"It is {result.content[0].text}."


def own_tools(env: RuntimeEnv) -> list[Any]:
    """Are the tools that a worker makes by itself."""
    assert env.workspace.is_dir()

    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    return [add]


def workers() -> list[int]:
    """The processes below this one that are workers, be they in a sandbox or not."""
    found = []
    for pid in descendants():
        with suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if words[0].rpartition(b"/")[2].startswith(b"python") and any(b"workflow.worker" in one for one in words):
                found.append(pid)
    return found


def kill_workers(number: int = signal.SIGKILL) -> None:
    """Send every worker a signal."""
    for pid in workers():
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def greedy_tools(_: RuntimeEnv) -> list[Any]:
    """Are tools that take what they are asked to."""

    def take(megabytes: int) -> str:
        """Take memory."""
        return f"taken: {len(bytearray(megabytes * 1_000_000))}"

    return [take]
