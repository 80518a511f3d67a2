"""Starts the other processes of a test, and hears what they say."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
#: Processes get so long for what takes them seconds, in seconds: less than a test may take as a whole.
TIMEOUT_S = 300


def patient(dsn: str) -> str:
    """Return the DSN of a store whose writers wait for each other as long as it takes on a busy machine."""
    return dsn if "://" in dsn else f"{dsn}?busy_timeout_s=120"


def start(name: str, *arguments: object, under: Sequence[str] = ()) -> subprocess.Popen[str]:
    """Start a worker, by way of the command `under` if given. What it leaves unclosed it complains about."""
    python = [sys.executable, "-W", "error", "-m", "tests.runtime.store.workers", name, *map(str, arguments)]
    return subprocess.Popen(
        [*under, *python],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def last_words(process: subprocess.Popen[str], *, status: int = 0) -> dict[str, Any]:
    """Return the last facts that a process said. Fails if it complained or ended otherwise."""
    with process:
        output, complaints = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, complaints) == (status, ""), complaints
    facts: dict[str, Any] = json.loads(output.splitlines()[-1])
    return facts


def run_together(name: str, count: int, *arguments: object) -> None:
    """Run workers, numbered from 0, that all go at the same moment."""
    processes = [start(name, number, *arguments) for number in range(count)]
    for process in processes:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline()) == {"ready": True}
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    outcomes = [last_words(process) for process in processes]
    assert outcomes == [{"done": True}] * count
