"""What a leaf of a workflow costs in a process of its own: started for it, started ahead, and used again."""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.report import Claim, Result
from benchmarks.setting import Setting
from power_loop import AgentSpec, CancellationToken, LLMService
from power_loop.testing import ScriptedLLM
from power_loop.workflow import PoolLimits, SubprocessExecutor, WorkerBootstrap
from power_loop.workflow.executors import LeafTask, leaf_key


class _Host:
    """Lends a model that answers at once, and hears nothing."""

    store: Any = None

    def __init__(self) -> None:
        self.stop = CancellationToken()

    def announce(self, payload: Any) -> None:
        """Hear an event."""

    @contextmanager
    def lend_model(self, spec: AgentSpec) -> Iterator[LLMService]:
        """Lend the model."""
        yield ScriptedLLM(["Done."], repeat_last=True)

    async def run_in_process(self, task: LeafTask) -> Any:
        """Refuse: this is about workers."""
        raise AssertionError(task)


async def bench_workers(setting: Setting) -> Result:
    """Run leaves one after the other, each with one model call that travels over the pipe."""
    count = setting.samples(40, 8)
    result = Result(
        "Leaves in workers",
        f'{count} leaves, one after the other, with `llm="proxy"` and a model that answers at once. Cold: a Python is'
        " started for each. Ahead: a fresh worker for each, which was started before. Pooled: one worker does all.",
        ["worker", "a leaf (median)", "a leaf (worst)"],
    )
    cases: dict[str, tuple[PoolLimits, bool]] = {
        "cold": (PoolLimits(size=1, spare=0, max_uses=1), False),
        "ahead": (PoolLimits(size=2, spare=0, max_uses=1), True),
        "pooled": (PoolLimits(size=1, spare=0, max_uses=10_000), True),
    }
    medians = {}
    for name, (limits, is_ahead) in cases.items():
        bootstrap = WorkerBootstrap(llm="proxy")
        folder = setting.folder / f"workers-{name}"
        async with SubprocessExecutor(bootstrap, state_folder=folder, pool=limits) as executor:
            times = [await _leaf(executor, f"{name}{n}", executor.prewarm if is_ahead else None) for n in range(count)]
        medians[name] = statistics.median(times)
        result.rows.append([name, f"{medians[name] * 1000:.1f} ms", f"{max(times) * 1000:.1f} ms"])
        result.figures[name] = {"median_ms": round(medians[name] * 1000, 1), "worst_ms": round(max(times) * 1000, 1)}
    result.claims.append(
        Claim(
            "a pooled leaf costs milliseconds, not the start of a Python",
            f"{medians['pooled'] * 1000:.1f} ms, and {medians['cold'] * 1000:.0f} ms cold",
            medians["pooled"] < medians["cold"] / 4,
        )
    )
    return result


async def _leaf(executor: SubprocessExecutor, path: str, prewarm: Callable[[], Awaitable[None]] | None) -> float:
    if prewarm is not None:
        await prewarm()
    task = LeafTask("run_bench", path, 1, leaf_key("run_bench", path, 1), AgentSpec("one", "Work.", tools=()), "Go.")
    began_s = time.perf_counter()
    outcome = await executor.run_leaf(task, _Host())
    took_s = time.perf_counter() - began_s
    assert outcome.is_completed, outcome
    return took_s
