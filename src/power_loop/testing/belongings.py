"""Looks at what this process has at one moment: tasks, threads, child processes, descriptors, files in folders."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
import sys
import threading
import traceback
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

# Where a thing stands is told by so many of its innermost frames.
_FRAMES = 4


class LeakKind(str, Enum):
    """Is what may be left behind."""

    TASK = "task"
    THREAD = "thread"
    CHILD = "child process"
    DESCRIPTOR = "descriptor"
    FILE = "file"


@dataclass(frozen=True)
class Leak:
    """Is one thing that was left: `name` tells which, `origin` where it stands or was made, if that is known."""

    kind: LeakKind
    name: str
    origin: str = ""

    def __str__(self) -> str:
        return f"{self.kind.value} {self.name}" + (f"\n{self.origin}" if self.origin else "")


#: Things by what tells them apart, each with the function that describes it.
Found = dict[Hashable, Callable[[], Leak]]


class Belongings:
    """Looks at the kinds of things that it is asked for; `unchecked` says which of them this system does not show."""

    def __init__(self, kinds: Iterable[LeakKind], *, folders: Iterable[Path] = (), proc: Path = Path("/proc")) -> None:
        self._kinds = frozenset(kinds)
        self._folders = tuple(folders)
        self._processes = proc
        own = [proc / "self" / "fd", Path("/dev/fd")] if proc == Path("/proc") else [proc / "self" / "fd"]
        self._descriptors = next((one for one in own if one.is_dir()), None)
        unchecked = []
        if LeakKind.CHILD in self._kinds and not (proc / "self" / "stat").exists():
            unchecked.append(f"{LeakKind.CHILD.value}: {proc} shows no processes")
        if LeakKind.DESCRIPTOR in self._kinds and self._descriptors is None:
            unchecked.append(f"{LeakKind.DESCRIPTOR.value}: {own[0]} is no folder")
        #: What cannot be seen here, and why.
        self.unchecked = tuple(unchecked)

    def look(self) -> Found:
        """Return what is there."""
        found: Found = {}
        if LeakKind.TASK in self._kinds:
            found.update(_tasks())
        if LeakKind.THREAD in self._kinds:
            found.update(_threads())
        if LeakKind.CHILD in self._kinds:
            found.update(self._children())
        if LeakKind.DESCRIPTOR in self._kinds and self._descriptors is not None:
            found.update(_descriptors(self._descriptors))
        if LeakKind.FILE in self._kinds:
            for folder in self._folders:
                found.update(_files(folder))
        return found

    def _children(self) -> Found:
        """Return the processes whose parents lead to this one."""
        parents, states, starts = {}, {}, {}
        for name in os.listdir(self._processes) if self._processes.is_dir() else ():
            with contextlib.suppress(OSError, IndexError, ValueError):  # it ended meanwhile
                # The program's name stands in brackets and may hold anything.
                fields = (self._processes / name / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
                pid = int(name)
                states[pid], parents[pid], starts[pid] = fields[0], int(fields[1]), fields[19]
        own = {os.getpid()}
        is_growing = True
        while is_growing:
            more = {pid for pid, parent in parents.items() if parent in own} - own
            is_growing = bool(more)
            own |= more
        return {
            (LeakKind.CHILD, pid, starts[pid]): _later(_child, self._processes, pid, states[pid])
            for pid in own - {os.getpid()}
            if pid in parents
        }


def _later(describe: Callable[..., Leak], *given: object) -> Callable[[], Leak]:
    return lambda: describe(*given)


# ---- tasks ----


def _tasks() -> Found:
    try:
        running = asyncio.get_running_loop()
    except RuntimeError:
        return {}
    own = asyncio.current_task()
    return {task: _later(_task, task) for task in asyncio.all_tasks(running) if task is not own}


def _task(task: asyncio.Task[object]) -> Leak:
    coroutine = task.get_coro()
    what = getattr(coroutine, "__qualname__", repr(coroutine))
    # Only a loop in debug mode knows where its tasks are made.
    made = getattr(task, "_source_traceback", None)
    if made:
        return Leak(LeakKind.TASK, f"{task.get_name()!r} of {what}()", f"  made here:\n{_lines(made)}")
    stack = _awaits(coroutine)
    return Leak(
        LeakKind.TASK, f"{task.get_name()!r} of {what}()", f"  it waits here:\n{_lines(stack)}" if stack else ""
    )


def _awaits(coroutine: Any) -> traceback.StackSummary:
    """Return where a coroutine waits: the line of each that awaits another one, the innermost last."""
    frames = []
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
        if frame is not None:
            frames.append((frame, frame.f_lineno))
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)
    return traceback.StackSummary.extract(iter(frames))


def _lines(stack: Iterable[traceback.FrameSummary]) -> str:
    kept = list(stack)[-_FRAMES:]
    return "\n".join(f"    {one.filename}:{one.lineno} {one.name}: {one.line}" for one in kept)


# ---- threads ----


def _threads() -> Found:
    # The threads of a loop's own executor stay with the loop.
    return {one: _later(_thread, one) for one in threading.enumerate() if not _is_of_executor(one)}


def _is_of_executor(thread: threading.Thread) -> bool:
    try:
        executor = getattr(asyncio.get_running_loop(), "_default_executor", None)
    except RuntimeError:
        return False
    return thread in getattr(executor, "_threads", ())


def _thread(thread: threading.Thread) -> Leak:
    frame = sys._current_frames().get(thread.ident or 0)  # noqa: SLF001 - the one way to see where a thread stands
    stack = traceback.extract_stack(frame) if frame is not None else ()
    name = f"{thread.name!r}" + (" (daemon)" if thread.daemon else "")
    return Leak(LeakKind.THREAD, name, f"  it stands here:\n{_lines(stack)}" if stack else "")


# ---- child processes ----


def _child(proc: Path, pid: int, state: str) -> Leak:
    words = b""
    with contextlib.suppress(OSError):
        words = (proc / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").strip()
    ended = " (has ended, and nobody waited for it)" if state in "ZX" else ""
    return Leak(LeakKind.CHILD, f"{pid}{ended} {words.decode('utf-8', 'replace')}".rstrip())


# ---- descriptors ----


def _descriptors(folder: Path) -> Found:
    found: Found = {}
    for name in os.listdir(folder):
        with contextlib.suppress(OSError):  # the one that lists is closed by now
            number = int(name)
            status = os.fstat(number)
            target = _target(folder, number)
            # A number is used again, so that it alone does not tell one from another; what the kernel makes for itself
            # all has the same inode.
            what = target if target.startswith("anon_inode:") else (status.st_dev, status.st_ino)
            found[LeakKind.DESCRIPTOR, number, what] = _later(_descriptor, number, status.st_mode, target)
    return found


def _target(folder: Path, number: int) -> str:
    with contextlib.suppress(OSError):
        return os.readlink(folder / str(number))
    return ""


def _descriptor(number: int, mode: int, target: str) -> Leak:
    what = target or stat.filemode(mode)
    if stat.S_ISSOCK(mode):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(number)) as twin:
            what = f"{what} {_ends(twin)}"
    return Leak(LeakKind.DESCRIPTOR, f"{number} on {what}")


def _ends(one: socket.socket) -> str:
    peer: object = None
    with contextlib.suppress(OSError):
        peer = one.getpeername()
    return (
        f"({one.family.name} {one.getsockname()!r} to {peer!r})"
        if peer
        else f"({one.family.name} {one.getsockname()!r})"
    )


# ---- files ----


def _files(folder: Path) -> Found:
    found: Found = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            found[LeakKind.FILE, path] = _later(Leak, LeakKind.FILE, path)
    return found
