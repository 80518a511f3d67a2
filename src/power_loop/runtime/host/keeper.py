"""Is the process that stands between us and a program: it starts it, keeps what it says, and leaves none of it alive.

It runs as `python -I -S keeper.py FD`, knows nothing of this package, and ends with the descriptor FD: when the other
end is closed, by whatever death, everything that the program started is killed. As a subreaper it stays the ancestor of
what leaves its process group or its session.

Both sides speak JSON, one object a line. The first line says what to run (see `process.py`, which writes it).
"""

from __future__ import annotations

import binascii
import contextlib
import ctypes
import fcntl
import json
import os
import resource
import select
import signal
import sys
import termios
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_CHUNK_BYTES = 65_536
# The first line holds arguments and an environment: a system takes 6 MB of these at most, and JSON writes a byte of
# them in six.
_MAX_LINE_BYTES = 40_000_000
# What outlives SIGKILL for so long waits for a device that does not answer.
_KILL_S = 5.0
# Output that is still on its way when the program has ended comes within moments.
_DRAIN_S = 0.2
# How often the processes of a program are counted.
_COUNT_S = 0.1
# How often it is looked whether those that were asked to end have done so.
_LOOK_S = 0.01
# It ends when its owner does, and not when somebody presses Ctrl-C at the owner's terminal.
_IGNORED = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGPIPE)


class Output:
    """Keeps the beginning and the end of what a program writes, and the whole in a file as far as that may grow."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self._head_bytes: int = spec["head_bytes"]
        self._tail_bytes: int = spec["tail_bytes"]
        self._file_bytes: int = spec.get("file_bytes", 0)
        self._path: str | None = spec.get("path")
        self._head = b""
        self._tail = bytearray()
        self._file = -1
        self._in_file = 0
        self._total = 0
        if self._path and spec.get("is_file_eager"):
            self._open()

    def put(self, data: bytes) -> None:
        """Take what was written next."""
        if self._path and self._file < 0 and self._total + len(data) > self._head_bytes + self._tail_bytes:
            self._open()
            self._write(self._head + bytes(self._tail))
        self._total += len(data)
        if self._file >= 0:
            self._write(data)
        room = self._head_bytes - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        self._tail += data
        # Cut now and then, so that it is not moved with every chunk.
        if len(self._tail) > 2 * self._tail_bytes + _CHUNK_BYTES:
            self._cut()

    def told(self) -> dict[str, Any]:
        """Return what is kept, as it is told."""
        self._cut()
        return {
            "head": _text(self._head),
            "tail": _text(bytes(self._tail)),
            "total_bytes": self._total,
            "path": self._path if self._file >= 0 else None,
            "file_bytes": self._in_file,
        }

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _cut(self) -> None:
        del self._tail[: max(len(self._tail) - self._tail_bytes, 0)]

    def _open(self) -> None:
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file = os.open(self._path or "", flags, 0o600)
        except OSError:
            self._path = None

    def _write(self, data: bytes) -> None:
        data = data[: max(self._file_bytes - self._in_file, 0)]
        while data:
            try:
                count = os.write(self._file, data)
            except OSError:  # the disk is full: the beginning and the end are still told
                self._file_bytes = self._in_file
                return
            self._in_file += count
            data = data[count:]


class Keeper:
    """Runs one program: until it ends, until it is told to stop, or until nobody is there to tell."""

    def __init__(self, control: int, spec: dict[str, Any], rest: bytes) -> None:
        self._control = control
        self._spec = spec
        self._is_shell: bool = spec.get("is_shell", False)
        self._received = rest
        self._sent: bytearray = bytearray()
        self._is_heard = True
        # A forked child of our owner may hold its end of the descriptor open, so its own end is watched too.
        self._owner = _watch(spec["owner"])
        self._status: int | None = None
        self._cause: str | None = None
        # Times are of the monotonic clock; None means never.
        self._deadline: float | None = None
        self._kill_at: float | None = None
        self._drained_at: float | None = None
        self._idle_at: float | None = None
        self._counted_at: float | None = None
        self._command: int | None = 0 if self._is_shell else None
        self._said = b""
        self._to_program = bytearray()
        self._output = Output(spec["output"])
        self._errors = Output(spec["errors"]) if spec.get("errors") else None
        self._woken, wake = os.pipe()
        for one in (self._woken, wake):
            os.set_blocking(one, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        self._pid, self._input, self._out, self._err = _start(spec)

    def serve(self) -> None:
        """Return when nothing of the program is alive any more, and that was told."""
        now = time.monotonic()
        if self._spec.get("timeout_s") is not None:
            self._deadline = now + self._spec["timeout_s"]
        if self._spec.get("max_processes"):
            self._counted_at = now + _COUNT_S
        # What came together with the first line.
        self._obey_lines()
        while True:
            self._wait()
            self._reap()
            now = time.monotonic()
            if self._cause is None:
                self._look_at_times(now)
            elif self._kill_at is not None and (now >= self._kill_at or not descendants()):
                break
        self._end()

    # ---- waiting ----

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        if self._is_heard:
            poll.register(self._control, select.POLLIN | (select.POLLOUT if self._sent else 0))
        for one in (self._out, self._err, self._owner):
            if one >= 0:
                poll.register(one, select.POLLIN)
        if self._to_program and self._input >= 0:
            poll.register(self._input, select.POLLOUT)
        times = [one for one in self._times() if one is not None]
        wait_s = max(min(times) - time.monotonic(), 0.0) if times else None
        if self._cause is not None:
            wait_s = min(wait_s or 0.0, _LOOK_S)
        for one, what in poll.poll(None if wait_s is None else wait_s * 1000 + 1):
            if one == self._woken:
                _drain(self._woken)
            elif one == self._control:
                self._hear(what)
            elif one == self._owner:
                self._lose_owner()
            elif one == self._out:
                self._read_output()
            elif one == self._err:
                self._read_errors()
            elif one == self._input:
                self._write_to_program()

    def _times(self) -> tuple[float | None, ...]:
        return (self._deadline, self._kill_at, self._drained_at, self._idle_at, self._counted_at)

    def _look_at_times(self, now: float) -> None:
        if self._status is not None:
            # What the program left behind may hold its output open for ever.
            if self._drained_at is None:
                self._drained_at = now + (_DRAIN_S if not self._is_shell else 0.0)
            if now >= self._drained_at or (self._out < 0 and self._err < 0):
                self._stop("exit", 0.0)
        elif self._deadline is not None and now >= self._deadline:
            self._stop("timeout", self._spec.get("grace_s", 0.0))
        elif self._idle_at is not None and now >= self._idle_at:
            self._stop("idle", self._spec.get("grace_s", 0.0))
        elif self._counted_at is not None and now >= self._counted_at:
            self._counted_at = now + _COUNT_S
            if len(descendants(at_most=self._spec["max_processes"] + 1)) > self._spec["max_processes"]:
                self._stop("processes", 0.0)

    # ---- what we are told ----

    def _hear(self, what: int) -> None:
        if what & select.POLLOUT and self._sent:
            self._send()
        if not what & (select.POLLIN | select.POLLHUP | select.POLLERR):
            return
        try:
            data = os.read(self._control, _CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lose_hearer()
            return
        self._received += data
        self._obey_lines()

    def _obey_lines(self) -> None:
        *lines, self._received = self._received.split(b"\n")
        for line in lines:
            self._obey(json.loads(line))

    def _obey(self, told: dict[str, Any]) -> None:
        if "stop" in told:
            self._stop("stopped", told["stop"])
        elif "look" in told:
            self._read_what_is_there()
            self._tell({"event": "look", "output": self._output.told()})
        elif "run" in told and self._is_shell and self._cause is None:
            self._command = told["run"]
            self._deadline = time.monotonic() + told["timeout_s"]
            self._idle_at = None
            self._output = Output(told["output"])
            self._to_program += os.fsencode(told["command"]) + b"\0"

    def _lose_owner(self) -> None:
        os.close(self._owner)
        self._owner = -1
        self._lose_hearer()

    def _lose_hearer(self) -> None:
        self._is_heard = False
        self._stop("abandoned", 0.0)

    # ---- what we tell ----

    def _tell(self, what: dict[str, Any]) -> None:
        self._sent += json.dumps(what).encode("ascii") + b"\n"
        self._send()

    def _send(self) -> None:
        try:
            while self._sent and self._is_heard:
                del self._sent[: os.write(self._control, self._sent)]
        except BlockingIOError:
            return
        except OSError:
            self._lose_hearer()

    # ---- the program ----

    def _write_to_program(self) -> None:
        try:
            del self._to_program[: os.write(self._input, self._to_program)]
        except BlockingIOError:
            return
        except OSError:
            self._to_program.clear()

    def _read_output(self) -> None:
        data = _read(self._out)
        if data:
            self._output.put(data)
        elif data is not None:
            os.close(self._out)
            self._out = -1

    def _read_what_is_there(self) -> None:
        """Take the output that was written until this moment, and leave what comes later."""
        left = _readable(self._out) if self._out >= 0 else 0
        while left > 0:
            data = _read(self._out, left)
            if not data:
                break
            self._output.put(data)
            left -= len(data)

    def _read_errors(self) -> None:
        data = _read(self._err)
        if data is None:
            return
        if not data:
            os.close(self._err)
            self._err = -1
        elif self._is_shell:
            self._said = (self._said + data)[-_CHUNK_BYTES:]
            *words, self._said = self._said.split(b"\0")
            for one in words:
                self._hear_shell(one)
        elif self._errors is not None:
            self._errors.put(data)

    def _hear_shell(self, said: bytes) -> None:
        """Take what the shell says behind a command: its exit status, and where it stands."""
        status, _, folder = said.partition(b" ")
        if self._command is None or not status.isdigit():
            return
        # What the command wrote is in the pipe already; what others write behind it is the next one's.
        self._read_what_is_there()
        event = {"event": "done", "run": self._command, "status": int(status), "folder": _text(folder)}
        self._tell({**event, "output": self._output.told()})
        self._output.close()
        self._output = Output(self._spec["output"])
        self._command = None
        self._deadline = None
        self._idle_at = time.monotonic() + self._spec["idle_s"] if self._spec.get("idle_s") else None

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if pid == self._pid:
                self._status = os.waitstatus_to_exitcode(status)

    # ---- the end ----

    def _stop(self, cause: str, grace_s: float) -> None:
        now = time.monotonic()
        if self._cause is None:
            self._cause = cause
        # Told twice, the shorter grace counts.
        self._kill_at = min(now + grace_s, self._kill_at if self._kill_at is not None else now + grace_s)
        self._deadline = self._drained_at = self._idle_at = self._counted_at = None
        if grace_s > 0:
            for pid in descendants():
                _kill(pid, signal.SIGTERM)

    def _end(self) -> None:
        survivors = self._kill_all()
        for one, output in ((self._out, self._output), (self._err, None if self._is_shell else self._errors)):
            while one >= 0 and output is not None:
                data = _read(one)
                if not data:
                    break
                output.put(data)
        self._tell(
            {
                "event": "end",
                "cause": self._cause,
                "status": self._status,
                "run": self._command,
                "survivors": survivors,
                "output": self._output.told(),
                "errors": self._errors.told() if self._errors is not None else None,
            }
        )
        # Who is gone does not read it, and nobody waits for us.
        if self._is_heard and self._sent:
            os.set_blocking(self._control, True)
            self._send()

    def _kill_all(self) -> int:
        """Kill until nothing is left, and return how many are: only what stays the same for long is given up."""
        last: set[int] = set()
        until = time.monotonic() + _KILL_S
        while True:
            left = descendants()
            # A whole group dies at once, so that nobody in it can start another before it is his turn. One in which a
            # single process of ours is found may be a stranger's, whose pid was ours a moment ago.
            sizes = Counter(map(_group, left))
            for group in {one for one, size in sizes.items() if size > 1} - {0, os.getpgid(0)}:
                _kill(-group, signal.SIGKILL)
            for pid in left:
                _kill(pid, signal.SIGKILL)
            self._reap()
            if not left:
                return 0
            if not last.issuperset(left):
                until = time.monotonic() + _KILL_S
            last = set(left)
            if time.monotonic() > until:
                return len(left)
            time.sleep(0.001)


def descendants(*, at_most: int = 1_000_000) -> list[int]:
    """Return the processes below this one, as many as `at_most`."""
    found: list[int] = []
    todo = [os.getpid()]
    children = _children_of_the_system()
    while todo and len(found) < at_most:
        below = children(todo.pop())
        found += below
        todo += below
    return found


def _children_of_the_system() -> Callable[[int], list[int]]:
    if os.path.exists(f"/proc/self/task/{os.getpid()}/children"):
        return _children_in_proc
    if os.path.isdir("/proc/self"):
        known = _parents()
        return lambda pid: known.get(pid, [])
    return _children_of_darwin


def _children_of_darwin(pid: int) -> list[int]:
    """Ask macOS, where nothing adopts what leaves its parent: it is found as long as its parents live."""
    found = (ctypes.c_int * 4096)()
    count = ctypes.CDLL(None).proc_listchildpids(pid, found, ctypes.sizeof(found))
    return list(found[: max(count, 0)])


def _children_in_proc(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", "rb") as file:
                found += map(int, file.read().split())
    except OSError:  # it ended meanwhile, and its children are ours
        pass
    return found


def _parents() -> dict[int, list[int]]:
    """Return the children of every process, where the kernel has no list of them for each."""
    known: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    known.setdefault(int(file.read().rpartition(b")")[2].split()[1]), []).append(int(name))
            except OSError:
                continue
    return known


def _watch(pid: int) -> int:
    """Return a descriptor that can be read when a process has ended; -1 where there is no such thing."""
    try:
        return os.pidfd_open(pid) if sys.platform == "linux" else -1
    except OSError:
        return -1


def _start(spec: dict[str, Any]) -> tuple[int, int, int, int]:
    """Start the program; return its pid, where it reads (-1: nowhere), its output, and its errors (-1: in its output).

    Raises OSError when it cannot be started.
    """
    has_errors = spec.get("is_shell") or spec.get("errors")
    files = _take_over(spec)
    out, out_end = os.pipe()
    err, err_end = os.pipe() if has_errors else (-1, out_end)
    given, input_end = (-1, -1)
    if spec.get("is_shell"):
        input_end, given = os.pipe()
    elif spec.get("input") is not None:
        input_end = spec["input"]
    else:
        input_end = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    failed, failed_end = os.pipe()
    keeper = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != keeper:
                os._exit(127)
            for number in (*_IGNORED, signal.SIGCHLD, signal.SIGXFSZ):
                signal.signal(number, signal.SIG_DFL)
            for name, value in spec.get("limits", {}).items():
                _limit(getattr(resource, name, None), value)
            if spec.get("folder"):
                os.chdir(spec["folder"])
            for target, one in ((0, input_end), (1, out_end), (2, err_end)):
                os.dup2(one, target)
            for target, one in files.items():
                os.dup2(one, target)
            os.execvpe(spec["argv"][0], spec["argv"], spec["env"])
        except BaseException as error:
            os.write(failed_end, str(error).encode("utf-8", "replace")[:1000])
        finally:
            os._exit(127)
    for one in {input_end, out_end, err_end, failed_end, *files.values()}:
        os.close(one)
    reason = os.read(failed, 1000)
    os.close(failed)
    if reason:
        os.waitpid(pid, 0)
        raise OSError(reason.decode("utf-8", "replace"))
    for one in (out, err, given):
        if one >= 0:
            os.set_blocking(one, False)
    return pid, given, out, err


def _limit(which: int | None, value: int) -> None:
    if which is None:
        return
    hard = resource.getrlimit(which)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (value, value))


def _take_over(spec: dict[str, Any]) -> dict[int, int]:
    """Return by the number that the program finds it under where each of its files is; they and its input are moved out
    of the way of these numbers."""
    files = {int(number): descriptor for number, descriptor in spec.get("files", {}).items()}
    least = max(files, default=2) + 1
    if spec.get("input") is not None:
        spec["input"] = _moved(spec["input"], least)
    return {number: _moved(descriptor, least) for number, descriptor in files.items()}


def _moved(descriptor: int, least: int) -> int:
    """Return an inherited descriptor under a number from `least` on, which nothing of the program's inherits."""
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, least)
    os.close(descriptor)
    return moved


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except OSError:
        return 0


def _kill(pid: int, what: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, what)


def _read(fd: int, at_most: int = _CHUNK_BYTES) -> bytes | None:
    """Return what can be read at once: nothing at the end, None where there is nothing yet."""
    try:
        return os.read(fd, min(at_most, _CHUNK_BYTES))
    except BlockingIOError:
        return None
    except OSError:
        return b""


def _readable(fd: int) -> int:
    return int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), sys.byteorder)


def _drain(fd: int) -> None:
    while _read(fd):
        pass


def _text(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def _first_line(control: int) -> tuple[bytes, bytes]:
    received = bytearray()
    data = b""
    while b"\n" not in data:
        data = os.read(control, _CHUNK_BYTES)
        if not data or len(received) > _MAX_LINE_BYTES:
            sys.exit(1)
        received += data
    line, _, rest = bytes(received).partition(b"\n")
    return line, rest


def main() -> None:
    """Run what the first line of the descriptor named in the arguments says."""
    control = int(sys.argv[1])
    os.set_inheritable(control, False)
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    line, rest = _first_line(control)
    os.set_blocking(control, False)
    try:
        keeper = Keeper(control, json.loads(line), rest)
    except (OSError, ValueError) as error:
        os.set_blocking(control, True)
        os.write(control, json.dumps({"event": "failed", "reason": str(error)}).encode("ascii") + b"\n")
        return
    keeper.serve()
    # Nothing is left to be tidied up, and somebody waits.
    os._exit(0)


if __name__ == "__main__":
    main()
