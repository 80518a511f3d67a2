"""What it costs to begin: a process up to its first resumed reply, the import, and a handle that does nothing."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
import tracemalloc

from benchmarks.conversation import history
from benchmarks.kernel import InProcessModel, StatefulAgentLoop, seed
from benchmarks.limit import LimitSession, open_database
from benchmarks.measure import Spread, number
from benchmarks.report import Bars, Claim, Result
from benchmarks.setting import ROOT, Setting, program

MESSAGES = 200
HANDLES = 2000
SDK_PACKAGES = ("openai", "anthropic", "aiohttp", "httpx", "httpx2", "pydantic")


def until_reply(command: list[str]) -> float:
    """Seconds from before the process starts to its first reply."""
    began = time.perf_counter()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        took = time.perf_counter() - began
        process.communicate()
    if not line.startswith("reply The answer is ready."):
        raise RuntimeError(f"{command[1]} said {line!r}")
    return took


async def bench_first_reply(setting: Setting) -> Result:
    """A fresh process resumes a session of 200 messages and gets a reply."""
    database = setting.database("limit-start")
    limit = LimitSession(open_database(database), setting.port, "start")
    limit.fill(history(MESSAGES))
    file = setting.folder / "history.json"
    file.write_text(json.dumps(history(MESSAGES)))
    dsn = setting.database("kernel-start")
    session_id = await seed(dsn, MESSAGES)
    commands = {
        "Python alone": [sys.executable, "-c", "print('reply The answer is ready.')"],
        "the limit": program("start_limit", setting.port, database, "start"),
        "official SDK, the call alone": program("start_sdk", setting.base_url, file),
        "power-loop, lean carrier": program("start_kernel", setting.base_url, dsn, session_id, "lean"),
        "power-loop, SDK carrier": program("start_kernel", setting.base_url, dsn, session_id, "sdk"),
    }
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for command in commands.values():
        until_reply(command)
    for _ in range(setting.samples(15)):
        for name, command in commands.items():
            taken[name].append(until_reply(command))
    spreads = {name: Spread.of(values).scaled(1e3) for name, values in taken.items()}
    result = Result(
        "From nothing to a reply",
        f"From before a process starts to its first reply in a stored session of {MESSAGES} messages. Milliseconds.",
        ["contestant", "wall"],
        rows=[[name, str(spread)] for name, spread in spreads.items()],
    )
    ours = spreads["power-loop, lean carrier"].median
    result.claims.append(
        Claim("power-loop, lean carrier: first resumed reply ≤ 150 ms", f"{number(ours)} ms", ours <= 150)
    )
    medians = {name: spread.median for name, spread in spreads.items()}
    result.bars.append(Bars("Process start to first resumed reply", "ms", medians))
    result.figures = medians
    return result


IMPORTS = {
    "import asyncio, sqlite3, json": "import asyncio, sqlite3, json",
    "import power_loop": "import power_loop",
    "from power_loop import StatefulAgentLoop": "from power_loop import StatefulAgentLoop",
    "import openai": "import openai",
}


def import_ms(statement: str) -> float:
    """Milliseconds of an import in a fresh process, without the start of the interpreter."""
    code = f"import time; began = time.perf_counter(); {statement}; print(time.perf_counter() - began)"
    return float(subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True).stdout) * 1e3


def loaded_packages() -> set[str]:
    """The top-level packages that a fresh process has loaded after the import."""
    code = "import sys; from power_loop import StatefulAgentLoop; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True, text=True)
    return {module.split(".")[0] for module in run.stdout.split()}


async def bench_import(setting: Setting) -> Result:
    """What the import costs and what it drags in."""
    taken: dict[str, list[float]] = {name: [] for name in IMPORTS}
    for _ in range(setting.samples(15, 5)):
        for name, statement in IMPORTS.items():
            taken[name].append(import_ms(statement))
    spreads = {name: Spread.of(values) for name, values in taken.items()}
    base = spreads["import asyncio, sqlite3, json"].median
    result = Result(
        "The import",
        "In a fresh interpreter, bytecode cached. Milliseconds, and times the three standard modules.",
        ["statement", "ms", "×"],
        rows=[[name, str(spread), f"{spread.median / base:.2f}"] for name, spread in spreads.items()],
    )
    ratio = spreads["import power_loop"].median / base
    limit = "import power_loop ≤ 1.5 × import asyncio, sqlite3, json"
    result.claims.append(Claim(limit, f"{ratio:.2f} ×", ratio <= 1.5))
    # What the lazy import above leaves for later: no limit is set for it, and it is not hidden.
    whole = spreads["from power_loop import StatefulAgentLoop"].median / base
    result.claims.append(Claim("with the handle's own modules", f"{whole:.2f} ×", None))
    loaded = sorted(loaded_packages() & set(SDK_PACKAGES))
    result.claims.append(Claim("the import loads no SDK", ", ".join(loaded) or "none loaded", not loaded))
    result.figures = {name: spread.median for name, spread in spreads.items()}
    return result


async def bench_handle(setting: Setting) -> Result:
    """What a handle costs that is made and not used."""
    llm, dsn = InProcessModel(), setting.database("idle")
    StatefulAgentLoop(llm=llm, dsn=dsn)
    gc.collect()
    times = []
    for _ in range(setting.samples(9)):
        began = time.perf_counter()
        handles = [StatefulAgentLoop(llm=llm, dsn=dsn) for _ in range(HANDLES)]
        times.append((time.perf_counter() - began) / HANDLES * 1e6)
        del handles
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    handles = [StatefulAgentLoop(llm=llm, dsn=dsn) for _ in range(HANDLES)]
    size = (tracemalloc.get_traced_memory()[0] - before) / HANDLES
    tracemalloc.stop()
    assert len(handles) == HANDLES
    micros = Spread.of(times)
    return Result(
        "An idle handle",
        f"{HANDLES:,} loops made over one DSN, none of them used.",
        ["", "figure"],
        rows=[["bytes", f"{size:,.0f}"], ["microseconds", str(micros)]],
        claims=[
            Claim("an idle handle < 5 KiB", f"{size:,.0f} bytes", size < 5 * 1024),
            Claim("an idle handle < 20 µs", f"{number(micros.median)} µs", micros.median < 20),
        ],
        figures={"bytes": size, "us": micros.median},
    )
