"""Reads regular files within limits, and puts others in their place: whoever looks sees the old one or the new one.

New content is written beside the file under a name of its own, brought to the disk, and renamed. A process that dies on
the way leaves that name behind and nothing else; the next attempt of the same call removes it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from typing import Any

from power_loop.contracts.errors import PathRefusedError, ToolError
from power_loop.contracts.frozen import frozen
from power_loop.runtime.host.directories import Directory
from power_loop.runtime.host.paths import PathGuard, Place, kind_of, missing, translated

#: How the name of a file begins that is not in its place yet.
STAGED_PREFIX = ".power-loop-"
_READ_BYTES = 1 << 20
_NEW_FILE_MODE = 0o666
_TRIES = 10
_MAX_SWEPT = 100_000


@frozen
class FileContent:
    """Is what a file held when it was read, and what it was."""

    data: bytes
    status: os.stat_result

    @property
    def digest(self) -> str:
        """What tells this content from any other."""
        return digest_of(self.data)


def digest_of(data: bytes) -> str:
    """Return what tells content from any other, in 32 characters."""
    return hashlib.sha256(data).hexdigest()[:32]


def read_file(place: Place, *, max_bytes: int, advice: str) -> FileContent:
    """Return what a file holds. Raises `tool.failed` where there is none or it is larger than `max_bytes` (`advice`
    says what to do then), `path.refused` for what is no regular file."""
    if place.status is None:
        raise missing(place.directory, place.name, place.shown)
    if place.is_folder:
        raise ToolError(f"{place.shown!r} is a folder: list it with glob, as in {_below(place.shown)!r}")
    if not place.is_file:
        raise PathRefusedError(f"{place.shown!r} is {kind_of(place.status)}, no file: these tools leave it alone")
    return read_entry(place.directory, place.name, place.shown, max_bytes=max_bytes, advice=advice)


def read_entry(directory: Directory, name: str, shown: str, *, max_bytes: int, advice: str) -> FileContent:
    """Return what a file in a folder holds; see `read_file`."""
    with translated(shown):
        fd = directory.open(name, os.O_RDONLY)
        try:
            status = os.fstat(fd)
            # It was a file when it was looked up; opened without waiting, something else is found out here.
            if not stat.S_ISREG(status.st_mode):
                raise PathRefusedError(f"{shown!r} is {kind_of(status)}, no file: these tools leave it alone")
            if status.st_size > max_bytes:
                raise _too_large(shown, status.st_size, max_bytes, advice)
            pieces: list[bytes] = []
            left = max_bytes + 1
            while left and (piece := os.read(fd, min(left, _READ_BYTES))):
                pieces.append(piece)
                left -= len(piece)
        finally:
            os.close(fd)
    if not left:  # it grew while it was read, as files of /proc do
        raise _too_large(shown, max_bytes + 1, max_bytes, advice)
    return FileContent(b"".join(pieces), status)


def _too_large(shown: str, size: int, max_bytes: int, advice: str) -> ToolError:
    return ToolError(f"{shown!r} has {size:,} bytes, and {max_bytes:,} are read at most: {advice}")


def _below(shown: str) -> str:
    return "*" if shown == "." else f"{shown}/*"


@frozen
class Change:
    """Is what becomes of one name: new content, or (None) no file. `is_executable` None leaves that as it is."""

    place: Place
    data: bytes | None
    is_executable: bool | None = None


class Staging:
    """Puts several files in their places, all or none.

    Everything is written beside first; then the names change one after the other, and are changed back if one of them
    cannot be. A process that dies in between leaves some of them changed: `sweep` and a second attempt of the same
    call, which finds those done, bring it to its end.
    """

    __slots__ = ("_done", "_guard", "_staged", "_tag")

    def __init__(self, guard: PathGuard, *, key: str) -> None:
        """Take the guard, and the idempotency key of the call."""
        self._guard = guard
        self._tag = hashlib.sha256(key.encode()).hexdigest()[:12]
        self._staged: list[tuple[Change, str | None]] = []
        self._done: list[tuple[Change, str | None]] = []

    def sweep(self, directory: Directory) -> None:
        """Remove what an earlier attempt of the same call left behind in a folder."""
        with contextlib.suppress(OSError):
            for name in directory.names(_MAX_SWEPT):
                if name.startswith(f"{STAGED_PREFIX}{self._tag}-"):
                    directory.unlink(name)

    def apply(self, changes: list[Change]) -> None:
        """Make all changes, or none and raise."""
        try:
            for change in changes:
                self._stage(change)
            for change, staged in self._staged:
                self._move(change, staged)
        except BaseException:
            self._undo()
            raise
        self._forget()

    def _stage(self, change: Change) -> None:
        place = change.place
        _check(place)
        if change.data is None:
            if place.status is None:
                raise missing(place.directory, place.name, place.shown)
            self._staged.append((change, None))
            return
        with translated(place.shown):
            fd, name = self._new(place.directory)
            # It is known before it is written, so that a write that fails leaves nothing.
            self._staged.append((change, name))
            try:
                _write(fd, change.data)
                _keep(fd, place, is_executable=change.is_executable)
                os.fsync(fd)
            finally:
                os.close(fd)

    def _new(self, directory: Directory) -> tuple[int, str]:
        """Make a file of a name that nobody has."""
        for _ in range(_TRIES):
            name = self._name()
            with contextlib.suppress(FileExistsError):
                return directory.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, _NEW_FILE_MODE), name
        raise ToolError("no free name was found for a new file: try again")

    def _name(self) -> str:
        return f"{STAGED_PREFIX}{self._tag}-{os.urandom(6).hex()}"

    def _move(self, change: Change, staged: str | None) -> None:
        place = change.place
        directory = place.directory
        with translated(place.shown):
            if place.status is None:
                assert staged is not None  # what is not there is not removed
                _put_new(directory, staged, place)
                self._done.append((change, None))
            else:
                _check_same(place)
                kept = self._name()
                if staged is None:
                    directory.rename(place.name, directory, kept)
                    self._done.append((change, kept))
                else:
                    self._replace(change, staged, kept)
            directory.sync()

    def _replace(self, change: Change, staged: str, kept: str) -> None:
        place = change.place
        try:
            place.directory.link(place.name, place.directory, kept)
        except OSError:
            # A file system without second names: a file that stands alone needs none, it is replaced or it is not.
            if len(self._staged) > 1:
                place.directory.rename(place.name, place.directory, kept)
        self._done.append((change, kept))
        place.directory.rename(staged, place.directory, place.name)

    def _undo(self) -> None:
        for change, kept in reversed(self._done):
            place = change.place
            with contextlib.suppress(OSError):
                if kept is None:
                    place.directory.unlink(place.name)
                else:
                    place.directory.rename(kept, place.directory, place.name)
                    # Where both are names of one file, the system leaves both.
                    place.directory.unlink(kept)
        for change, staged in self._staged:
            if staged is not None:
                with contextlib.suppress(OSError):
                    change.place.directory.unlink(staged)
        self.remove_made([change.place for change, _ in self._staged])

    def remove_made(self, places: list[Place]) -> None:
        """Remove the folders that were made on the way to places at which nothing was made, if they are empty."""
        for parts in sorted({parts for place in places for parts in place.made}, key=len, reverse=True):
            with contextlib.suppress(OSError, ToolError):
                made = self._guard.find("/".join(parts))
                made.directory.remove_folder(made.name)

    def _forget(self) -> None:
        for change, kept in self._done:
            if kept is not None:
                with contextlib.suppress(OSError):
                    change.place.directory.unlink(kept)


def _check(place: Place) -> None:
    """Refuse what cannot be replaced as a whole."""
    status = place.status
    if status is None:
        return
    if place.is_folder:
        raise ToolError(f"{place.shown!r} is a folder: give the path of a file")
    if not place.is_file:
        raise PathRefusedError(f"{place.shown!r} is {kind_of(status)}, no file: these tools leave it alone")
    if not status.st_mode & 0o222:
        raise ToolError(f"{place.shown!r} is marked read-only: leave it, or ask the user to change its mode")


def _check_same(place: Place) -> None:
    """Refuse to replace what has been replaced since it was looked up: somebody else is at work on it."""
    found: Any = place.directory.stat(place.name)
    known: Any = place.status
    marks = ("st_ino", "st_dev", "st_size", "st_mtime_ns")
    if any(getattr(found, mark) != getattr(known, mark) for mark in marks):
        raise ToolError(f"{place.shown!r} is being changed by somebody else: read it again, then try again")


def _put_new(directory: Directory, staged: str, place: Place) -> None:
    """Give a new file its name, which nobody may have taken meanwhile."""
    try:
        directory.link(staged, directory, place.name)
    except FileExistsError as error:
        raise ToolError(f"{place.shown!r} has just been made by somebody else: read it first") from error
    except OSError:  # a file system without second names
        directory.rename(staged, directory, place.name)
        return
    directory.unlink(staged)


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _keep(fd: int, place: Place, *, is_executable: bool | None) -> None:
    """Give a new file the owner, the mode and the attributes of the one that it replaces."""
    status = place.status
    new = os.fstat(fd)
    if status is not None and hasattr(os, "fchown"):
        if new.st_uid != status.st_uid:
            try:
                os.fchown(fd, status.st_uid, -1)
            except OSError as error:
                raise ToolError(
                    f"{place.shown!r} belongs to another user and would not any more: leave it, or ask the user"
                ) from error
        if new.st_gid != status.st_gid:
            with contextlib.suppress(OSError):
                os.fchown(fd, -1, status.st_gid)
        _keep_attributes(fd, place)
    mode = stat.S_IMODE(new.st_mode if status is None else status.st_mode)
    if is_executable is not None:
        # Whoever may read it may run it, as git has it.
        mode = mode | (mode & 0o444) >> 2 if is_executable else mode & ~0o111
    if hasattr(os, "fchmod") and mode != stat.S_IMODE(new.st_mode):
        os.fchmod(fd, mode)


def _keep_attributes(fd: int, place: Place) -> None:
    if not hasattr(os, "listxattr"):
        return
    with contextlib.suppress(OSError):
        old = place.directory.open(place.name, os.O_RDONLY)
        try:
            for name in os.listxattr(old):
                with contextlib.suppress(OSError):
                    os.setxattr(fd, name, os.getxattr(old, name))
        finally:
            os.close(old)
