"""Counts what is left of processes: each test's have a mark of their own in their words."""

from __future__ import annotations

import os
from pathlib import Path

from tests.agent.parts import until, within_limit

ENV = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}


class Mark:
    """Is a number of seconds that nobody else sleeps for, so that every process that does is ours."""

    def __init__(self) -> None:
        self.sleep = f"sleep 4{int.from_bytes(os.urandom(5), 'big')}"

    def alive(self) -> list[int]:
        """The processes that sleep for it; what is only waiting to be reaped is not alive."""
        mark = self.sleep.encode()
        # A Python that was told of it is an owner, and no program of it.
        return [pid for pid in _pids() if mark in (words := _words(pid)) and b"import" not in words and runs(pid)]

    async def someone(self, count: int = 1) -> None:
        """Wait until so many are alive."""
        await within_limit(until(lambda: len(self.alive()) >= count))

    async def nobody(self) -> None:
        """Wait until none is."""
        await within_limit(until(lambda: not self.alive()))


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _words(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").strip()
    except OSError:
        return b""


def state_of(pid: int) -> str:
    """Return the letter that the system has for what a process does: T for one that stands still, X for none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def runs(pid: int) -> bool:
    """Tell whether a process is alive; one that is only waiting to be reaped is not."""
    return state_of(pid) not in "ZX"
