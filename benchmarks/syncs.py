"""How often the disk is told to keep what it was given: fsyncs a turn, counted by strace in a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.measure import number
from benchmarks.report import has
from benchmarks.setting import ROOT, Setting, program

CALLS = "fsync,fdatasync"


def syncs_a_turn(setting: Setting, *, sessions: int, turns: int) -> str:
    """The count as text, or why there is none; a run of more turns less a shorter one, so that start-up drops out."""
    if not has("strace"):
        return "no strace"
    short, long = (_syncs(setting, sessions, turns * factor) for factor in (1, 3))
    if short is None or long is None:
        return "strace may not trace"
    return number((long - short) / (2 * turns * sessions))


def _syncs(setting: Setting, sessions: int, turns: int) -> int | None:
    trace = setting.folder / "syncs.txt"
    command = ["strace", "-f", "-qq", "-e", f"trace={CALLS}", "-o", str(trace)]
    command += program("crowd", setting.base_url, setting.database("syncs"), sessions, turns)
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if run.returncode:
        if "ptrace" in run.stderr or "PTRACE" in run.stderr:
            return None
        raise RuntimeError(run.stderr)
    # An interrupted call is told in two lines; only its first one names the call with its opening parenthesis.
    return sum("sync(" in line for line in trace.read_text().splitlines())


@dataclass
class Syncs:
    """How often the disk was told meanwhile; `told` says why where that is not known."""

    count: int | None = None
    told: str = "no strace"


@contextlib.contextmanager
def syncs_of(setting: Setting, pids: Sequence[int]) -> Iterator[Syncs]:
    """Count the fsyncs of running processes, and of those that they start, while the block runs."""
    syncs = Syncs()
    if not has("strace"):
        yield syncs
        return
    trace = setting.folder / "attached.txt"
    command = ["strace", "-f", "-e", f"trace={CALLS}", "-o", str(trace)]
    for pid in pids:
        command += ["-p", str(pid)]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert tracer.stderr is not None
    attached = 0
    while attached < len(pids):
        line = tracer.stderr.readline()
        if not line:
            tracer.wait()
            syncs.told = "strace may not trace"
            yield syncs
            return
        attached += "attached" in line
    try:
        yield syncs
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.communicate()
    syncs.count = sum("sync(" in line for line in trace.read_text().splitlines())


def own_process() -> list[int]:
    """This process, for `syncs_of`."""
    return [os.getpid()]
