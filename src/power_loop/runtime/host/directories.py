"""Is a folder that is held by its descriptor: what is done in it happens there, whatever becomes of its path."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
import sys
from collections.abc import Iterator
from functools import lru_cache
from typing import Protocol

# Close-on-exec is Python's default; a controlling terminal is never taken, and no open waits for a peer.
_NEVER_WAIT = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
# O_PATH asks for no right to list a folder that is only passed through.
_PASS = getattr(os, "O_PATH", os.O_RDONLY) | getattr(os, "O_DIRECTORY", 0) | _NO_FOLLOW
_LIST = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | _NO_FOLLOW | _NEVER_WAIT

# linux/openat2.h; the number of the call is the same on every architecture.
_SYS_OPENAT2 = 437
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_BENEATH = 0x08
_BENEATH = _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS | _RESOLVE_NO_SYMLINKS

#: Whether this system does things in a folder by its descriptor (Linux, macOS and BSD do, Windows does not).
HAS_DESCRIPTORS = {os.open, os.stat, os.mkdir, os.unlink, os.rename, os.readlink} <= os.supports_dir_fd


class Directory(Protocol):
    """Is one folder, in which everything is named by a single name. Raises OSError."""

    def enter(self, name: str) -> Directory:
        """Return a folder in it, which must be no link (`..` is not entered)."""
        ...

    def copy(self) -> Directory:
        """Return the same folder once more."""
        ...

    def stat(self, name: str) -> os.stat_result:
        """Return what a name stands for, links not followed."""
        ...

    def identity(self) -> tuple[int, int]:
        """Return the device and the inode of the folder itself."""
        ...

    def read_link(self, name: str) -> str:
        """Return where a link leads. EINVAL for what is none."""
        ...

    def open(self, name: str, flags: int, mode: int = 0) -> int:
        """Open a file, which must be no link; never waits."""
        ...

    def make(self, name: str) -> None:
        """Make a folder."""
        ...

    def remove_folder(self, name: str) -> None:
        """Remove an empty folder."""
        ...

    def rename(self, name: str, to: Directory, new_name: str) -> None:
        """Give a file another name, here or elsewhere, in place of what has that name."""
        ...

    def link(self, name: str, to: Directory, new_name: str) -> None:
        """Give a file a second name, which must be free."""
        ...

    def unlink(self, name: str) -> None:
        """Remove a file."""
        ...

    def names(self, limit: int) -> list[str]:
        """Return the names in it, in order, at most `limit` of them."""
        ...

    def sync(self) -> None:
        """Wait until the names in it are on the disk."""
        ...

    def close(self) -> None:
        """Give the folder back."""
        ...


class HeldDirectory:
    """Is a folder by its descriptor: no path is looked up but single names in it."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @classmethod
    def at(cls, path: str) -> HeldDirectory:
        """Return the folder of a path, whose last name must be no link."""
        return cls(os.open(path, _PASS))

    def __del__(self) -> None:
        self.close()

    @property
    def fd(self) -> int:
        """The descriptor; it stays this folder's."""
        return self._fd

    def enter(self, name: str) -> HeldDirectory:
        """Return a folder in it, which must be no link."""
        return HeldDirectory(os.open(name, _PASS, dir_fd=self._fd))

    def enter_beneath(self, path: str) -> HeldDirectory | None:
        """Return a folder deep in it by one call of the system; None where the system has no such call, and where the
        path has links or leads out."""
        fd = _openat2(self._fd, path)
        return None if fd is None else HeldDirectory(fd)

    def copy(self) -> HeldDirectory:
        """Return the same folder once more."""
        return HeldDirectory(os.dup(self._fd))

    def stat(self, name: str) -> os.stat_result:
        """Return what a name stands for, links not followed."""
        return os.stat(name, dir_fd=self._fd, follow_symlinks=False)

    def identity(self) -> tuple[int, int]:
        """Return the device and the inode of the folder itself."""
        status = os.fstat(self._fd)
        return status.st_dev, status.st_ino

    def read_link(self, name: str) -> str:
        """Return where a link leads."""
        return os.readlink(name, dir_fd=self._fd)

    def open(self, name: str, flags: int, mode: int = 0) -> int:
        """Open a file, which must be no link; never waits."""
        return os.open(name, flags | _NO_FOLLOW | _NEVER_WAIT, mode, dir_fd=self._fd)

    def make(self, name: str) -> None:
        """Make a folder."""
        os.mkdir(name, dir_fd=self._fd)

    def remove_folder(self, name: str) -> None:
        """Remove an empty folder."""
        os.rmdir(name, dir_fd=self._fd)

    def rename(self, name: str, to: Directory, new_name: str) -> None:
        """Give a file another name, here or elsewhere."""
        os.rename(name, new_name, src_dir_fd=self._fd, dst_dir_fd=_held(to).fd)

    def link(self, name: str, to: Directory, new_name: str) -> None:
        """Give a file a second name, which must be free."""
        os.link(name, new_name, src_dir_fd=self._fd, dst_dir_fd=_held(to).fd, follow_symlinks=False)

    def unlink(self, name: str) -> None:
        """Remove a file."""
        os.unlink(name, dir_fd=self._fd)

    def names(self, limit: int) -> list[str]:
        """Return the names in it, in order, at most `limit` of them."""
        with self._listing() as fd:
            return _names(fd, limit)

    def sync(self) -> None:
        """Wait until the names in it are on the disk."""
        with self._listing() as fd:
            os.fsync(fd)

    @contextlib.contextmanager
    def _listing(self) -> Iterator[int]:
        fd = os.open(".", _LIST, dir_fd=self._fd)
        try:
            yield fd
        finally:
            os.close(fd)

    def close(self) -> None:
        """Give the folder back."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class NamedDirectory:
    """Is a folder by its path, for systems without descriptors of folders (Windows): what is done in it is checked
    before, and somebody who is at work in it at the same time may come between.

    This is written for Windows and tested on Linux only.
    """

    __slots__ = ("_path",)

    def __init__(self, path: str) -> None:
        self._path = path

    def at(self, name: str) -> str:
        """Return the path of what has this name in it."""
        return os.path.join(self._path, name)

    def enter(self, name: str) -> NamedDirectory:
        """Return a folder in it, which must be no link."""
        status = self.stat(name)
        if not stat.S_ISDIR(status.st_mode) or _is_junction(status):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), name)
        return NamedDirectory(self.at(name))

    def copy(self) -> NamedDirectory:
        """Return the same folder once more."""
        return NamedDirectory(self._path)

    def stat(self, name: str) -> os.stat_result:
        """Return what a name stands for, links not followed."""
        return os.lstat(self.at(name))

    def identity(self) -> tuple[int, int]:
        """Return the device and the inode of the folder itself."""
        status = os.lstat(self._path)
        return status.st_dev, status.st_ino

    def read_link(self, name: str) -> str:
        """Return where a link leads."""
        return os.readlink(self.at(name))

    def open(self, name: str, flags: int, mode: int = 0) -> int:
        """Open a file, which must be no link; never waits."""
        if os.path.islink(self.at(name)):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name)
        return os.open(self.at(name), flags | _NO_FOLLOW | _NEVER_WAIT, mode)

    def make(self, name: str) -> None:
        """Make a folder."""
        os.mkdir(self.at(name))

    def remove_folder(self, name: str) -> None:
        """Remove an empty folder."""
        os.rmdir(self.at(name))

    def rename(self, name: str, to: Directory, new_name: str) -> None:
        """Give a file another name, here or elsewhere."""
        os.replace(self.at(name), _named(to).at(new_name))

    def link(self, name: str, to: Directory, new_name: str) -> None:
        """Give a file a second name, which must be free."""
        os.link(self.at(name), _named(to).at(new_name), follow_symlinks=False)

    def unlink(self, name: str) -> None:
        """Remove a file."""
        os.unlink(self.at(name))

    def names(self, limit: int) -> list[str]:
        """Return the names in it, in order, at most `limit` of them."""
        return _names(self._path, limit)

    def sync(self) -> None:
        """Do nothing: such a system syncs names by itself."""

    def close(self) -> None:
        """Do nothing."""


def _names(folder: int | str, limit: int) -> list[str]:
    names: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if len(names) == limit:
                break
            names.append(entry.name)
    return sorted(names)


def _held(directory: Directory) -> HeldDirectory:
    assert isinstance(directory, HeldDirectory)
    return directory


def _named(directory: Directory) -> NamedDirectory:
    assert isinstance(directory, NamedDirectory)
    return directory


def _is_junction(status: os.stat_result) -> bool:
    """Tell whether a folder is a reparse point of Windows, which leads elsewhere without being a link."""
    return bool(getattr(status, "st_file_attributes", 0) & getattr(stat, "FILE_ATTRIBUTE_REPARSE_POINT", 0))


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


@lru_cache(maxsize=1)
def _libc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        libc = ctypes.CDLL(None, use_errno=True)
    except OSError:
        return None
    return libc if hasattr(libc, "syscall") else None


def _openat2(fd: int, path: str) -> int | None:
    """Open a folder beneath another one, with no link on the way, or return None for whatever reason it cannot be."""
    libc = _libc()
    if libc is None:
        return None
    how = _OpenHow(_PASS | os.O_CLOEXEC, 0, _BENEATH)
    name = os.fsencode(path)
    found: int = libc.syscall(
        ctypes.c_long(_SYS_OPENAT2), ctypes.c_int(fd), name, ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how))
    )
    return found if found >= 0 else None
