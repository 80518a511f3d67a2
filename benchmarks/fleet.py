"""A fleet: inputs a second that worker processes drive, by their number, on each backend."""

from __future__ import annotations

import asyncio
import time

from benchmarks.backends import Backend, backends, open_loop
from benchmarks.conversation import SYSTEM_PROMPT, question
from benchmarks.measure import Spread, number
from benchmarks.report import Bars, Result
from benchmarks.setting import Setting, program

SESSIONS, INPUTS, CONCURRENCY = 40, 5, 8
WORKERS = (1, 2, 4)
MODELS = {"at once": 0.0, "after 200 ms": 0.2}


async def bench_fleet(setting: Setting) -> Result:
    """The same inputs, left beforehand, driven by 1, 2 and 4 worker processes."""
    result = Result(
        "A fleet",
        f"{SESSIONS} sessions in each of which {INPUTS} inputs were left with `enqueue()`, driven by worker processes"
        f" on this machine, {CONCURRENCY} sessions at a time each, from the word go to the end of the last one. The"
        " model stands in the worker; the database, the workers and the measurement share the machine's cores.",
        ["backend", "model answers", *[f"{count} worker{'s' * (count > 1)}" for count in WORKERS], "4 to 1"],
    )
    async with backends(setting) as found:
        for one in found:
            for told, seconds in MODELS.items():
                rates = {count: await _rate(setting, one, seconds, count) for count in WORKERS}
                gain = rates[WORKERS[-1]].median / rates[1].median
                result.rows.append([one.name, told, *map(str, rates.values()), f"{number(gain)} ×"])
                result.figures[f"{one.name}, {told}"] = {str(count): rate.median for count, rate in rates.items()}
    for count in WORKERS:
        values = {name: rates[str(count)] for name, rates in result.figures.items() if "ms" in name}
        result.bars.append(Bars(f"Fleet of {count}", "inputs/s", values, more_is_better=True))
    return result


async def _rate(setting: Setting, backend: Backend, seconds: float, workers: int) -> Spread:
    """Inputs a second, in a few runs."""
    rates = []
    for _ in range(setting.samples(5, quick=1)):
        await _leave(backend)
        rates.append(SESSIONS * INPUTS / await _drive(backend, seconds, workers))
    return Spread.of(rates)


async def _leave(backend: Backend) -> None:
    async with open_loop(backend) as loop:
        sids = [await loop.new_session(system_prompt=SYSTEM_PROMPT) for _ in range(SESSIONS)]
        for n in range(INPUTS):
            await asyncio.gather(*(loop.enqueue(sid, question(n)) for sid in sids))


async def _drive(backend: Backend, seconds: float, workers: int) -> float:
    """Let workers drive everything; return the seconds that took."""
    command = program("fleet_worker", backend.dsn, seconds, CONCURRENCY)
    pipe = asyncio.subprocess.PIPE
    started = [await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe) for _ in range(workers)]
    for one in started:
        assert one.stdout is not None
        await one.stdout.readline()
    began_s = time.perf_counter()
    for one in started:
        assert one.stdin is not None
        one.stdin.write(b"go\n")
    turns = 0
    for one in started:
        assert one.stdout is not None
        turns += int(await one.stdout.readline())
    took_s = time.perf_counter() - began_s
    for one in started:
        await one.wait()
    assert turns == SESSIONS * INPUTS, turns
    return took_s
