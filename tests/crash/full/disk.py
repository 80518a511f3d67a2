"""Makes the disk under a SQLite file fail: at a write or a flush, once or from then on, torn, or with the process."""

from __future__ import annotations

import errno
import functools
import shutil
import subprocess
from pathlib import Path
from typing import Any

from power_loop.testing.matrix.histories import Kind, NotReachedError, Stage
from power_loop.testing.matrix.points import Point

_SOURCE = Path(__file__).with_name("injector.c")
_DIE, _TEAR = 0, -1

#: By kind of fault: what happens at a call, whether it lasts, and the calls that it can happen to.
FAULTS: dict[str, tuple[int, bool, tuple[str, ...]]] = {
    "kill-in-syscall": (_DIE, False, ("any",)),
    "torn-write": (_TEAR, False, ("write",)),
    "disk-full": (errno.ENOSPC, False, ("write",)),
    "disk-stays-full": (errno.ENOSPC, True, ("write",)),
    "io-error": (errno.EIO, False, ("write", "sync")),
}


class NoInjectorError(Exception):
    """Says why the disk cannot be made to fail here."""


@functools.cache
def injector(folder: Path) -> Path:
    """Return the library, which is compiled for this machine. Raises `NoInjectorError` where it cannot be."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise NoInjectorError("no C compiler is here, which the faults of the disk need")
    made = folder / "injector.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(made), str(_SOURCE), "-ldl", "-lpthread"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoInjectorError(
            f"the library that makes the disk fail does not compile here: {done.stderr.strip()[:300]}"
        )
    return made


def count_calls(stage: Stage, call: str) -> int:
    """Return how many calls of a kind the scenario makes on its database."""
    with stage.closing():
        life = stage.play("begin", inject={"number": 0, "call": call, "error": errno.EIO, "lasts": 0})
    return int(life.left["injected"])


def _fail(fault: str, stage: Stage, point: Point, *, way: str, more: str = "") -> None:
    """Let a call fail that the process makes on its database; another one goes on with a disk that is well."""
    error, lasts, _ = FAULTS[fault]
    inject: dict[str, Any] = {"number": point.time, "call": point.name, "error": error, "lasts": int(lasts)}
    life = stage.play("begin", inject=inject)
    if life.is_killed != (error in (_DIE, _TEAR)):
        raise NotReachedError(str(point))
    stage.history.faults += 1
    if life.error is not None:
        stage.history.notes.append(f"the caller was told {life.error}")
    stage.settle(way)


DISK_KINDS: dict[str, Kind] = {fault: functools.partial(_fail, fault) for fault in FAULTS}
