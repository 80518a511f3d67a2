"""Tells which process this is, in a way that another process on the machine can check for being alive."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

_SEPARATOR = "|"


@lru_cache(maxsize=1)
def _place() -> str:
    """Return what identifies the space in which a process id has a meaning: host, boot and pid namespace."""
    parts = [socket.gethostname().replace(_SEPARATOR, "-")]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()[:8])
    with contextlib.suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").stat().st_ino))
    return ":".join(parts)


def _started(pid: int) -> str | None:
    """Return when a process started, in the system's own words; None if it does not run (any more)."""
    stat = Path(f"/proc/{pid}/stat")
    if stat.parent.parent.joinpath("self").exists():
        try:
            fields = stat.read_bytes().rpartition(b")")[2].split()
        except OSError:
            return None
        # A zombie has ended; only its parent has not asked yet.
        return None if fields[0] in (b"Z", b"X") else fields[19].decode("ascii")
    if sys.platform == "win32":
        return "unknown"
    command = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    state, _, started = run.stdout.strip().partition(" ")
    return None if not state or state.startswith("Z") else started.strip().replace(_SEPARATOR, "-")


@lru_cache(maxsize=4)
def _process(pid: int) -> str:
    return _SEPARATOR.join((_place(), str(pid), _started(pid) or "unknown"))


def new_owner_id() -> str:
    """Return an id that no other process and no other call ever returns: place, pid, start time, and a random part."""
    return f"{_process(os.getpid())}{_SEPARATOR}{os.urandom(6).hex()}"


def is_owner_dead(owner: str) -> bool:
    """Tell whether the process behind an owner id is known to be dead; False wherever that cannot be told."""
    parts = owner.split(_SEPARATOR)
    if len(parts) != 4 or parts[0] != _place() or not parts[1].isdigit() or parts[2] == "unknown":
        return False
    pid = int(parts[1])
    return pid != os.getpid() and _started(pid) != parts[2]


async def dead_among(owners: Sequence[str], is_dead: Callable[[str], bool] = is_owner_dead) -> list[str]:
    """Return those of some owners whose processes are known to be dead; it is looked for beside the event loop."""
    return await asyncio.to_thread(lambda: [owner for owner in owners if is_dead(owner)]) if owners else []
