"""Looks at processes, and ends, stops and continues a process together with its children."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PROC = Path("/proc/self/stat")
# A process that was sent SIGKILL is gone within milliseconds, unless the machine itself stands still.
_GONE_S = 60.0
_LOOK_EVERY_S = 0.005


def family(pid: int) -> list[int]:
    """Return the process and everything that descends from it, parents first."""
    children: dict[int, list[int]] = {}
    for child, parent, _ in _table():
        children.setdefault(parent, []).append(child)
    found = [pid]
    for one in found:
        found += children.get(one, ())
    return found


def die_with_parent(parent: int) -> None:
    """Let this process end together with its parent, whose id this is, however that ends; on Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def is_alive(pid: int) -> bool:
    """Tell whether the process runs or is stopped; a zombie, whose parent is slow to bury it, is dead."""
    if _PROC.exists():
        state = _state(pid)
        return state is not None and state[1] not in "ZX"
    return any(one == pid and not state.startswith("Z") for one, _, state in _table())


def send(signum: int, *pids: int) -> None:
    """Send a signal to each process that is still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signum)


def kill_family(pid: int) -> None:
    """End the process and its descendants at once, as a power cut would, and wait until they are gone."""
    # A stopped parent neither makes further children nor sees that one died.
    send(signal.SIGSTOP, pid)
    found = family(pid)
    send(signal.SIGKILL, *reversed(found))
    wait_until_gone(*found)


def wait_until_gone(*pids: int) -> None:
    """Wait until none of the processes lives; raise TimeoutError after a minute."""
    end = time.monotonic() + _GONE_S
    while any(is_alive(pid) for pid in pids):
        if time.monotonic() > end:
            raise TimeoutError(f"processes {pids!r} did not end within {_GONE_S} s")
        time.sleep(_LOOK_EVERY_S)


def _table() -> list[tuple[int, int, str]]:
    """Return the pid, the parent's pid and the state of every process."""
    if _PROC.exists():
        states = ((int(name), _state(int(name))) for name in os.listdir("/proc") if name.isdigit())
        return [(pid, state[0], state[1]) for pid, state in states if state is not None]
    printed = subprocess.run(["ps", "-axo", "pid=,ppid=,stat="], check=True, capture_output=True, text=True).stdout
    lines = (line.split() for line in printed.splitlines())
    return [(int(pid), int(parent), state) for pid, parent, state in lines]


def _state(pid: int) -> tuple[int, str] | None:
    try:
        # The name, which stands in parentheses, may hold anything; what follows it is numbers and letters.
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    return int(parent), state
