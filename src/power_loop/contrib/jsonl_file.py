"""Appends JSON lines to a file that other processes append to as well, and goes on in a new one when it is full."""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # pragma: no cover - there, one process a file
    fcntl = None  # type: ignore[assignment]

_SUFFIX_DIGITS = 6
# The longest line that is looked for from the end: an event with media is longer than any text.
_TAIL_BYTES = 64_000_000
_CHUNK_BYTES = 65_536


class JsonlFile:
    """Appends numbered JSON objects: `n` counts from 1 over all processes, restarts and files, without gaps.

    A full file is renamed to `NAME.000001`, and so on upwards; the oldest beyond `max_files` are removed. Only its
    owner may read it. A line that a crash cut short is ended by the next one that is written.
    """

    def __init__(self, path: Path, *, max_bytes: int | None, max_files: int | None) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._lock = threading.Lock()
        self._file = -1
        self._pid = os.getpid()
        # Where our last line ended and what its number was: if the file ends there, nobody wrote since.
        self._end = -1
        self._n = 0
        self._is_dirty = False

    def append(self, value: dict[str, Any]) -> None:
        """Append one object. Raises OSError."""
        with self._own_lock():
            while not self._appended(value):
                pass

    def sync(self) -> None:
        """See to it that what was written survives a power cut. Raises OSError."""
        with self._own_lock():
            if self._is_dirty and self._file >= 0:
                self._is_dirty = False
                os.fsync(self._file)

    def close(self) -> None:
        """Sync and let go; another append opens it again."""
        with contextlib.suppress(OSError):
            self.sync()
        with self._own_lock():
            self._let_go()

    def _own_lock(self) -> threading.Lock:
        """Return this process's lock. In a forked child a thread of the parent's may hold the other one for ever, and
        what is locked under the parent's descriptor is locked for both."""
        if self._pid != os.getpid():
            self._pid, self._lock = os.getpid(), threading.Lock()
            self._is_dirty = False
            self._let_go()
        return self._lock

    def _appended(self, value: dict[str, Any]) -> bool:
        """Append an object, or make room for it in a new file, which somebody else may be the first to write to."""
        with self._locked() as size:
            if size != self._end:
                self._look_at_end(size)
            line = _line({"n": self._n + 1, **value})
            if self._max_bytes is not None and size and size + len(line) > self._max_bytes:
                self._rotate()
                return False
            data = b"\n" + line if size > 0 and self._end < 0 else line
            self._end = -1
            written = os.write(self._file, data)
            if written < len(data):
                raise OSError(f"{str(self._path)!r} took {written} of {len(data)} bytes: is the disk full?")
            self._end = size + written
            self._n += 1
            self._is_dirty = True
            return True

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        """Hold the file that the path names at this moment against others, and give its size."""
        while True:
            if self._file < 0:
                self._open()
            _flock(self._file, is_held=True)
            here = os.fstat(self._file)
            try:
                there = os.stat(self._path, follow_symlinks=False)
            except FileNotFoundError:
                there = None
            if there is not None and (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino):
                break
            # Somebody else went on in a new file, or removed this one.
            self._let_go()
        try:
            yield here.st_size
        finally:
            if self._file >= 0:
                _flock(self._file, is_held=False)

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self._path, flags, 0o600)
        self._end = -1

    def _let_go(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _look_at_end(self, size: int) -> None:
        """Find the number of the last whole line, here or in the newest full file; a torn end leaves `_end` at -1."""
        last, is_torn = _last_line(self._file, size)
        if last is None:
            full = full_files(self._path)
            if full:
                with contextlib.suppress(OSError), full[-1].open("rb") as file:
                    last, _ = _last_line(file.fileno(), os.fstat(file.fileno()).st_size)
        self._n = max(_number(last), 0)
        self._end = -1 if is_torn else size

    def _rotate(self) -> None:
        """Give the full file its number; who waits for it sees that."""
        if self._is_dirty:
            os.fsync(self._file)
        full = full_files(self._path)
        number = int(full[-1].name.rpartition(".")[2]) + 1 if full else 1
        os.rename(self._path, self._path.with_name(f"{self._path.name}.{number:0{_SUFFIX_DIGITS}}"))
        if self._max_files is not None:
            for old in full[: max(len(full) + 2 - self._max_files, 0)]:
                with contextlib.suppress(FileNotFoundError):
                    old.unlink()
        self._let_go()


def full_files(path: Path) -> list[Path]:
    """Return the files that were full, the oldest first."""
    pattern = re.compile(re.escape(path.name) + rf"\.(\d{{{_SUFFIX_DIGITS},}})")
    found = [(int(match[1]), one) for one in path.parent.glob("*") if (match := pattern.fullmatch(one.name))]
    return [one for _, one in sorted(found)]


def _line(value: dict[str, Any]) -> bytes:
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(value), ensure_ascii=False, separators=(",", ":"))
    # A lone surrogate is no character of UTF-8.
    return text.encode("utf-8", "backslashreplace") + b"\n"


def _finite(value: Any) -> Any:
    """Return a JSON value in which numbers that JSON has not are texts."""
    if isinstance(value, float) and value - value != 0:
        return str(value)
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list) else value


def _last_line(file: int, size: int) -> tuple[bytes | None, bool]:
    """Return the last whole line that is an object, and whether something torn stands behind the last line's end."""
    tail, at = b"", size
    while at > 0 and len(tail) < _TAIL_BYTES:
        step = min(_CHUNK_BYTES, at)
        at -= step
        tail = os.pread(file, step, at) + tail
        lines = tail.split(b"\n")
        for line in reversed(lines[1:] if at else lines):
            if _number(line) >= 0:
                return line, not tail.endswith(b"\n")
    return None, bool(tail) and not tail.endswith(b"\n")


def _number(line: bytes | None) -> int:
    """Return the number of a line, -1 of one that is torn."""
    try:
        value = json.loads(line or b"")
    except (ValueError, RecursionError):
        return -1
    n = value.get("n") if isinstance(value, dict) else None
    return n if isinstance(n, int) else -1


def _flock(file: int, *, is_held: bool) -> None:
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX if is_held else fcntl.LOCK_UN)
