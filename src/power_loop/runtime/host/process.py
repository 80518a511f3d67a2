"""Is the only place that starts or ends a process: each runs under a keeper, which leaves nothing of it alive."""

from __future__ import annotations

import asyncio
import binascii
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import field
from enum import Enum
from pathlib import Path
from typing import Any

from power_loop.contracts.errors import ProcessError
from power_loop.contracts.frozen import frozen

#: Names, in the environment of everything that a keeper started, whose it is.
TREE_VARIABLE = "POWER_LOOP_TREE"

# How long a program that is asked to end has for it, before it is killed.
DEFAULT_GRACE_S = 1.0
DEFAULT_HEAD_BYTES = 12_000
DEFAULT_TAIL_BYTES = 12_000
# What one program may leave on the disk: a long build's log, and no full disk.
DEFAULT_FILE_BYTES = 16_000_000
# A keeper that was told to end kills for at most 5 seconds; this is for a machine that is very busy.
_GONE_S = 15.0
_CHUNK_BYTES = 65_536
_KEEPER = Path(__file__).with_name("keeper.py")
# How often it is looked for what a killed keeper left: at most, behind the last one found, and how long between.
_MOST_LOOKS, _LAST_LOOKS, _BETWEEN_LOOKS_S = 100, 3, 0.002
# A Python that is linked against a library of its own place does not start without it.
_KEEPER_VARIABLES = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


class EndCause(str, Enum):
    """Is why a program ended: by itself, at its time limit, because it was stopped, because nobody needed it any more,
    because it had too many processes; or its keeper was killed."""

    EXIT = "exit"
    TIMEOUT = "timeout"
    STOPPED = "stopped"
    IDLE = "idle"
    PROCESSES = "processes"
    ABANDONED = "abandoned"
    KEEPER_LOST = "keeper_lost"


@frozen
class OutputLimits:
    """Is how much of an output is kept: its beginning and its end in memory, and the whole, up to `file_bytes`, in the
    file `path` (None: nowhere). The file is made when the output does not fit into memory, or at once (`is_eager`)."""

    head_bytes: int = DEFAULT_HEAD_BYTES
    tail_bytes: int = DEFAULT_TAIL_BYTES
    path: str | None = None
    file_bytes: int = DEFAULT_FILE_BYTES
    is_eager: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return it as a keeper reads it."""
        return {
            "head_bytes": self.head_bytes,
            "tail_bytes": self.tail_bytes,
            "path": self.path,
            "file_bytes": self.file_bytes,
            "is_file_eager": self.is_eager,
        }


@frozen
class Output:
    """Is what a program wrote: the beginning, the end, how much it was, and the file that holds `file_bytes` of it."""

    head: bytes = b""
    tail: bytes = b""
    total_bytes: int = 0
    path: str | None = None
    file_bytes: int = 0

    @property
    def left_out_bytes(self) -> int:
        """How much lies between the beginning and the end."""
        return self.total_bytes - len(self.head) - len(self.tail)


@frozen
class ProcessLimits:
    """Is what each process of a program may take (None: as much as this one); `max_processes` of them may run at once.

    `cpu_s` is seconds of processor time, `memory_bytes` address space, `file_bytes` the size of a file that it writes,
    `open_files` how many descriptors it has.
    """

    cpu_s: int | None = None
    memory_bytes: int | None = None
    file_bytes: int | None = None
    open_files: int | None = None
    max_processes: int | None = None

    def as_json(self) -> dict[str, int]:
        """Return the limits of one process as a keeper reads them."""
        limits = {
            "RLIMIT_CPU": self.cpu_s,
            "RLIMIT_AS": self.memory_bytes,
            "RLIMIT_FSIZE": self.file_bytes,
            "RLIMIT_NOFILE": self.open_files,
            # A core file holds what the process knew.
            "RLIMIT_CORE": 0,
        }
        return {name: value for name, value in limits.items() if value is not None}


@frozen
class Program:
    """Is what to start: `argv` without a shell, with exactly the environment `env`, in `folder`.

    `input` is what it reads (None: nothing). With `keeps_errors` its second output is kept apart. It is ended after
    `timeout_s` seconds (None: never). `files` are descriptors that it finds open for reading, by number (20 and above);
    `pipes` are descriptors of this process that it finds under these numbers, 0 and 1 among them.
    A program that `is_shell` reads commands and answers them (see `local_shell.py`), and ends when it got none for
    `idle_s` seconds.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    folder: str | None = None
    input: bytes | None = None
    output: OutputLimits = field(default_factory=OutputLimits)
    keeps_errors: bool = False
    timeout_s: float | None = None
    grace_s: float = DEFAULT_GRACE_S
    limits: ProcessLimits = field(default_factory=ProcessLimits)
    files: Mapping[int, bytes] = field(default_factory=dict)
    pipes: Mapping[int, int] = field(default_factory=dict)
    is_shell: bool = False
    idle_s: float | None = None

    def as_json(self, tree: str, *, input: int | None, files: Mapping[int, int]) -> dict[str, Any]:
        """Return it as a keeper reads it: what it starts bears the mark `tree`; `input` and `files` are descriptors
        that the keeper inherits."""
        return {
            "owner": os.getpid(),
            "argv": list(self.argv),
            "env": {**self.env, TREE_VARIABLE: tree},
            "folder": self.folder,
            "input": input,
            "output": self.output.as_json(),
            "errors": OutputLimits().as_json() if self.keeps_errors else None,
            "timeout_s": self.timeout_s,
            "grace_s": self.grace_s,
            "limits": self.limits.as_json(),
            "max_processes": self.limits.max_processes,
            "files": {str(number): descriptor for number, descriptor in files.items()},
            "is_shell": self.is_shell,
            "idle_s": self.idle_s,
        }


@frozen
class Ended:
    """Is how a program ended. `exit_status` is negative for the signal that ended it, None where it was not seen;
    `survivors` counts what could not be killed."""

    cause: EndCause
    exit_status: int | None
    output: Output
    errors: Output | None = None
    survivors: int = 0


@frozen
class Answered:
    """Is what a shell says when a command is over: its exit status, what it wrote, and the shell's folder."""

    exit_status: int
    output: Output
    folder: str


async def run(program: Program) -> Ended:
    """Run a program to its end and return how it ended; cancelled, nothing of it is alive any more.

    What it started and left behind is killed with it. Raises `process.failed`.
    """
    process = KeptProcess(program)
    return await process.wait()


def run_blocking(program: Program) -> Ended:
    """Do what `run` does, in a thread of the caller's."""
    return KeptProcess(program).wait_blocking()


class KeptProcess:
    """Is a program that runs. Whoever holds it ends it: with `stop`, `abandon`, or by letting it go.

    It may be used from any event loop, by one task at a time; between two calls nothing of it stands in a loop.
    """

    __slots__ = ("_ended", "_is_heard", "_keeper", "_owner", "_received", "_socket", "_tree", "program")

    def __init__(self, program: Program) -> None:
        """Start it. Raises `process.failed` where processes cannot be kept; what the program says of itself comes with
        the first answer."""
        if not sys.executable or not hasattr(socket, "AF_UNIX") or os.name != "posix":
            raise ProcessError("programs are run on Linux and macOS, by a Python that knows its own sys.executable")
        self.program = program
        self._tree = os.urandom(12).hex()
        self._ended: Ended | None = None
        self._received = b""
        self._is_heard = False
        self._owner = os.getpid()
        self._keeper: subprocess.Popen[bytes] | None = None
        self._socket, theirs = socket.socketpair()
        given: list[int] = []
        try:
            given.extend(map(_file_of, [*([] if program.input is None else [program.input]), *program.files.values()]))
            self._keeper = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_KEEPER), str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={name: os.environ[name] for name in _KEEPER_VARIABLES if name in os.environ},
                pass_fds=(theirs.fileno(), *given, *program.pipes.values()),
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            self._socket.close()
            raise ProcessError(f"the keeper of {program.argv[0]!r} could not be started: {error}") from error
        finally:
            theirs.close()
            for descriptor in given:
                os.close(descriptor)
        numbers = iter(given)
        input = None if program.input is None else next(numbers)
        files = {**dict(zip(program.files, numbers, strict=True)), **program.pipes}
        self._say(program.as_json(self._tree, input=input, files=files))

    @property
    def ended(self) -> Ended | None:
        """How it ended, as far as somebody has waited for that."""
        return self._ended

    @property
    def pid(self) -> int:
        """The keeper's process id."""
        return -1 if self._keeper is None else self._keeper.pid

    async def wait(self) -> Ended:
        """Return how it ended; whoever is cancelled here ends it. Raises `process.failed` if it could not start."""
        while self._ended is None:
            await self._hear()
        return self._ended

    def wait_blocking(self) -> Ended:
        """Do what `wait` does, in a thread."""
        self._socket.settimeout(None)
        try:
            self._hear_blocking()
        except BaseException:
            self.abandon()
            raise
        finally:
            self._reap_blocking()
        assert self._ended is not None
        return self._ended

    async def watch(self, *, timeout_s: float) -> Ended | None:
        """Return how it ended, or None if it still runs after `timeout_s` seconds; being cancelled leaves it alone."""
        if self._ended is None:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._hear(ends=False), timeout_s)
        return self._ended

    async def look(self) -> Output:
        """Return what it wrote so far."""
        if self._ended is None:
            self._say({"look": True})
            frame = await self._hear(ends=False)
            if frame is not None and frame["event"] == "look":
                return _output(frame["output"])
        assert self._ended is not None
        return self._ended.output

    def tell_command(self, number: int, text: str, *, timeout_s: float, output: OutputLimits) -> None:
        """Give a shell a command, which it answers."""
        self._say({"run": number, "command": text, "timeout_s": timeout_s, "output": output.as_json()})

    async def answer(self, number: int) -> Answered | Ended:
        """Return a shell's answer to a command, or how the shell ended over it; its word that it is ready has the
        number 0. Whoever is cancelled here ends the shell."""
        while self._ended is None:
            frame = await self._hear()
            if frame is not None and frame["event"] == "done" and frame["run"] == number:
                folder = binascii.a2b_base64(frame["folder"]).decode("utf-8", "surrogateescape")
                return Answered(frame["status"], _output(frame["output"]), folder)
        return self._ended

    async def stop(self, *, grace_s: float = DEFAULT_GRACE_S) -> Ended:
        """End it with everything that it started, and return how that went. Being cancelled shortens the grace."""
        self._say({"stop": grace_s})
        return await self.wait()

    def abandon(self) -> None:
        """Have it killed, at once and without waiting for that; may be called from anywhere."""
        with contextlib.suppress(OSError):
            if os.getpid() == self._owner:
                self._socket.shutdown(socket.SHUT_WR)

    async def wait_gone(self) -> None:
        """Return when an abandoned one has been killed."""
        if self._ended is None:
            await self._gone()

    def is_over(self) -> bool:
        """Look whether it has ended, without waiting. Who waits for it at this moment sees that by itself."""
        if self._ended is None and not self._is_heard and self._keeper is not None and self._keeper.poll() is not None:
            self._socket.settimeout(_GONE_S)
            with contextlib.suppress(ProcessError):
                self._hear_blocking()
            self._reap_blocking()
        return self._ended is not None

    # ---- inside ----

    def _say(self, what: dict[str, Any]) -> None:
        line = json.dumps(what).encode("ascii") + b"\n"
        # A keeper reads at once whatever comes; one that is gone is noticed by the next who listens.
        with contextlib.suppress(OSError):
            self._socket.settimeout(_GONE_S)
            self._socket.sendall(line)

    async def _hear(self, *, ends: bool = True) -> dict[str, Any] | None:
        """Take the keeper's next word. Whoever is cancelled here ends the program, unless told otherwise."""
        self._socket.setblocking(False)
        self._is_heard = True
        try:
            while (frame := self._frame()) is None:
                try:
                    data = self._socket.recv(_CHUNK_BYTES)
                except BlockingIOError:
                    await _readable(self._socket.fileno())
                    continue
                except ConnectionResetError:
                    continue  # it ended without reading what it was told; its last words come behind the error
                if not data:
                    frame = self._lost()
                    break
                self._received += data
            self._take(frame)
        except asyncio.CancelledError:
            if ends:
                self.abandon()
                await _in_spite_of_cancellation(self._gone())
            raise
        finally:
            self._is_heard = False
        if self._ended is not None:
            await self._reap()
        return frame

    def _hear_blocking(self) -> None:
        while self._ended is None:
            frame = self._frame()
            if frame is None:
                try:
                    data = self._socket.recv(_CHUNK_BYTES)
                except ConnectionResetError:
                    continue
                self._received += data
                frame = None if data else self._lost()
            if frame is not None:
                self._take(frame)

    def _frame(self) -> dict[str, Any] | None:
        line, found, rest = self._received.partition(b"\n")
        if not found:
            return None
        self._received = rest
        frame: dict[str, Any] = json.loads(line)
        return frame

    def _take(self, frame: dict[str, Any]) -> None:
        if frame["event"] == "failed":
            self._ended = Ended(EndCause.EXIT, None, Output())
            self._reap_blocking()
            raise ProcessError(f"the program could not be started: {frame['reason']}")
        if frame["event"] == "end":
            errors = frame["errors"]
            self._ended = Ended(
                EndCause(frame["cause"]),
                frame["status"],
                _output(frame["output"]),
                None if errors is None else _output(errors),
                frame["survivors"],
            )

    def _lost(self) -> dict[str, Any]:
        """Do the work of a keeper that was killed: what bears its mark goes too."""
        kill_marked(self._tree)
        return {
            "event": "end",
            "cause": EndCause.KEEPER_LOST.value,
            "status": None,
            "output": None,
            "errors": None,
            "survivors": 0,
        }

    async def _gone(self) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError, asyncio.TimeoutError):
            while await asyncio.wait_for(loop.sock_recv(self._socket, _CHUNK_BYTES), _GONE_S):
                pass
        self._ended = self._ended or Ended(EndCause.ABANDONED, None, Output())
        await self._reap()

    async def _reap(self) -> None:
        """Wait for the keeper, which has said its last word and is on its way out."""
        until = time.monotonic() + _GONE_S
        try:
            while self._keeper is not None and self._keeper.poll() is None and time.monotonic() < until:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        finally:
            self._close()

    def _reap_blocking(self) -> None:
        if self._keeper is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._keeper.wait(_GONE_S)
        self._close()

    def _close(self) -> None:
        keeper, self._keeper = self._keeper, None
        self._socket.close()
        if keeper is not None and keeper.poll() is None:
            keeper.kill()
            keeper.wait()

    def __del__(self) -> None:
        keeper = getattr(self, "_keeper", None)
        if keeper is None:
            return
        if os.getpid() != self._owner:
            # Forked: it is the parent's, and not a child of this process.
            keeper.returncode = 0
            self._socket.close()
            return
        self._socket.close()
        self._reap_blocking()


def kill_marked(tree: str) -> int:
    """Kill every process that bears the mark of a keeper; return how many there were. Without /proc there are none.

    One that is just being made, or becomes another program, may not be seen: it is looked for until nobody is there
    several times in a row.
    """
    if not os.path.isdir("/proc/self"):
        return 0
    mark = f"{TREE_VARIABLE}={tree}".encode("ascii")
    killed: set[int] = set()
    unseen = 0
    for _ in range(_MOST_LOOKS):
        found = _marked(mark)
        killed |= found
        for pid in found:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        unseen = 0 if found else unseen + 1
        if unseen == _LAST_LOOKS:
            break
        time.sleep(_BETWEEN_LOOKS_S)
    return len(killed)


def _marked(mark: bytes) -> set[int]:
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                if mark in Path("/proc", name, "environ").read_bytes().split(b"\0"):
                    found.add(int(name))
    return found


async def _readable(descriptor: int) -> None:
    """Return when something can be read. It reads nothing itself: with a `sock_recv` that is cancelled at the moment in
    which something comes, that would be lost."""
    loop = asyncio.get_running_loop()
    came = asyncio.Event()
    loop.add_reader(descriptor, came.set)
    try:
        await came.wait()
    finally:
        loop.remove_reader(descriptor)


async def _in_spite_of_cancellation(work: Any) -> None:
    """Await something short that has to be done while the task is being cancelled; a second cancellation leaves it
    behind, to end by itself."""
    task = asyncio.ensure_future(work)
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.shield(task)


def _output(told: dict[str, Any] | None) -> Output:
    if told is None:
        return Output()
    head, tail = (binascii.a2b_base64(told[name]) for name in ("head", "tail"))
    return Output(head, tail, told["total_bytes"], told["path"], told["file_bytes"])


def _file_of(data: bytes) -> int:
    """Return a descriptor from which `data` can be read, however much it is."""
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("input", os.MFD_CLOEXEC)
    else:
        path = f"/tmp/power-loop-{os.urandom(8).hex()}"
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.unlink(path)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(file, view) :]
        os.lseek(file, 0, os.SEEK_SET)
    except OSError:
        os.close(file)
        raise
    return file
