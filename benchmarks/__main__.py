"""`python -m benchmarks`: run the cases, print their tables with the targets, write the page and the plot."""

from __future__ import annotations

import argparse
import asyncio
import gc
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from benchmarks.backends import bench_backends, bench_leases, bench_long_history
from benchmarks.context import bench_growth, bench_long_send, bench_long_session, bench_prefixes
from benchmarks.crowd import bench_crowd
from benchmarks.fleet import bench_fleet
from benchmarks.report import Result, machine, show, write
from benchmarks.setting import ROOT, Setting
from benchmarks.starts import bench_first_reply, bench_handle, bench_import
from benchmarks.storage import bench_in_process, bench_statements, bench_storage
from benchmarks.timers import bench_timers
from benchmarks.turns import bench_deltas, bench_plain_turns, bench_tools
from benchmarks.workers import bench_workers
from benchmarks.workflows import bench_workflows
from tests.model_server import ModelServerProcess

CASES: dict[str, Callable[[Setting], Awaitable[Result]]] = {
    "turns": bench_plain_turns,
    "crowd": bench_crowd,
    "tools": bench_tools,
    "deltas": bench_deltas,
    "start": bench_first_reply,
    "kernel": bench_in_process,
    "statements": bench_statements,
    "storage": bench_storage,
    "backends": bench_backends,
    "history": bench_long_history,
    "leases": bench_leases,
    "timers": bench_timers,
    "workflows": bench_workflows,
    "fleet": bench_fleet,
    "workers": bench_workers,
    "growth": bench_growth,
    "prefixes": bench_prefixes,
    "rounds": bench_long_send,
    "session": bench_long_session,
    "import": bench_import,
    "handle": bench_handle,
}


async def run(setting: Setting, names: list[str]) -> list[Result]:
    """Run the cases in order, telling each as it ends."""
    results = []
    for name in names:
        result = await CASES[name](setting)
        show(result)
        results.append(result)
        gc.collect()
    return results


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="case", help=f"of {', '.join(CASES)}; all of them if none is named")
    parser.add_argument("--quick", action="store_true", help="few samples")
    parser.add_argument(
        "--out", type=Path, help="where the page and the plot go (default: benchmarks, after a full run)"
    )
    parser.add_argument("--folder", type=Path, help="where the databases lie meanwhile (default: a temporary folder)")
    arguments = parser.parse_args()
    unknown = set(arguments.cases) - CASES.keys()
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    names = arguments.cases or list(CASES)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder, ModelServerProcess(bench=True) as server:
        setting = Setting(Path(folder), server.base_url, arguments.quick)
        where = machine(setting.folder)
        print(where)
        results = asyncio.run(run(setting, names))
    out = arguments.out or (ROOT / "benchmarks" if names == list(CASES) else None)
    if out is not None:
        write(results, out, where=where, when=time.strftime("%d %B %Y"), quick=arguments.quick)
        print(f"\nwritten: {out / 'results.md'}")


if __name__ == "__main__":
    main()
