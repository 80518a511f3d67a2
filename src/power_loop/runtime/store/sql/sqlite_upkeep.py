"""Looks after SQLite files: writes them anew without gaps, empties their logs, copies them while they are written."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator

from power_loop.contracts.errors import InputError, StoreCorruptError, StoreError, StoreFullError, StoreUnavailableError
from power_loop.contracts.upkeep import BackedUp, Checkpointed, Vacuumed
from power_loop.runtime.store.sql.sqlite_connection import SqliteFile, coded

# Pages that a backup copies before it looks whether anybody still waits for it.
_PAGES_A_STEP = 1024
_LOGS = ("-wal", "-journal")


def vacuum(file: SqliteFile) -> Vacuumed:
    """Write a file anew without the space that removed rows left, and empty its log."""
    path = file.path
    assert path is not None
    with _connection(file) as connection:
        before = _size_of(path)
        # The copy that VACUUM makes on its way goes into a temporary file: it may be larger than the memory.
        connection.execute("PRAGMA temp_store=FILE")
        connection.execute("VACUUM")
        _empty_log(connection)
        return Vacuumed(before, _size_of(path))


def vacuum_memory(connection: sqlite3.Connection) -> Vacuumed:
    """Give the pages of a database in memory back."""
    with _coded(":memory:"):
        connection.execute("VACUUM")
    return Vacuumed()


def checkpoint(file: SqliteFile) -> Checkpointed:
    """Bring what stands in the write-ahead log into the file and empty the log; waits for readers a while."""
    with _connection(file) as connection:
        return _empty_log(connection)


def back_up(file: SqliteFile, path: str, *, overwrite: bool, is_unwanted: Callable[[], bool]) -> BackedUp:
    """Copy a file as it is at one moment; `is_unwanted` tells that nobody waits for that any more."""
    check_target(file, path, overwrite=overwrite)
    with _connection(file, read_only=True) as source:
        # As long as this transaction reads, the copy sees one state, whoever writes meanwhile.
        source.execute("BEGIN")
        source.execute("SELECT COUNT(*) FROM sqlite_master").fetchall()
        return copy_to(source, path, overwrite=overwrite, is_unwanted=is_unwanted)


def copy_to(source: sqlite3.Connection, path: str, *, overwrite: bool, is_unwanted: Callable[[], bool]) -> BackedUp:
    """Copy what a connection sees into a file, which has its name when it is whole, on the disk, and looked through."""
    part = f"{path}.{secrets.token_hex(4)}.part"

    def look(*_: int) -> None:
        if is_unwanted():
            raise StoreError(f"the backup into {path!r} was given up: nobody waits for it any more")

    try:
        with _coded(repr(path)), contextlib.closing(sqlite3.connect(part, isolation_level=None)) as target:
            # The whole file is synced at the end.
            target.execute("PRAGMA synchronous=OFF")
            source.backup(target, pages=_PAGES_A_STEP, progress=look)
            target.execute("PRAGMA journal_mode=DELETE").fetchall()
            found = target.execute("PRAGMA integrity_check(1)").fetchall()
        if found != [("ok",)]:
            raise StoreCorruptError(f"the backup into {path!r} is damaged, as the database may be: {found[0][0]}")
        _sync(part)
        size = os.path.getsize(part)
        _give_name(part, path, overwrite=overwrite)
        return BackedUp(os.path.abspath(path), size)
    except OSError as error:
        kind = StoreFullError if error.errno == errno.ENOSPC else StoreUnavailableError
        raise kind(f"the backup into {path!r} failed: {error}") from error
    finally:
        for name in (part, f"{part}-journal"):
            with contextlib.suppress(OSError):
                os.unlink(name)


def check_target(file: SqliteFile, path: str, *, overwrite: bool) -> None:
    """Raise `input.invalid` for a path into which nothing can be backed up, before anything is read."""
    folder = os.path.dirname(path) or "."
    if not path or path.endswith(os.sep) or not os.path.isdir(folder):
        raise InputError(f"backup path {path!r} names no file in a folder that is there: make the folder first")
    if "\0" in path:
        raise InputError(f"backup path {path!r} holds a NUL, which no file's name does")
    if not os.path.lexists(path):
        return
    own = () if file.path is None else (file.path, *(file.path + log for log in (*_LOGS, "-shm")))
    if any(os.path.exists(one) and os.path.samefile(path, one) for one in own):
        raise InputError(f"backup path {path!r} is the database itself: name another file")
    if not overwrite or not os.path.isfile(path):
        raise InputError(f"backup path {path!r} is there already: name a new file, or give overwrite=True for a file")
    if any(os.path.exists(path + log) for log in _LOGS):
        raise InputError(
            f"backup path {path!r} is a database that somebody has open, or that was left with its log: name a new file"
        )


def _give_name(part: str, path: str, *, overwrite: bool) -> None:
    if overwrite:
        os.replace(part, path)
    else:
        try:
            # Unlike a rename this takes no other file's place.
            os.link(part, path)
        except FileExistsError as error:
            raise InputError(f"backup path {path!r} came to be there meanwhile: name a new file") from error
        except OSError:
            # A file system without hard links.
            if os.path.lexists(path):
                raise InputError(f"backup path {path!r} came to be there meanwhile: name a new file") from None
            os.rename(part, path)
    with contextlib.suppress(OSError):
        _sync(os.path.dirname(path) or ".")


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _empty_log(connection: sqlite3.Connection) -> Checkpointed:
    [(is_busy, _, pages)] = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    # Without a log SQLite says -1.
    return Checkpointed(is_complete=not is_busy, pages=max(0, pages))


def _size_of(path: str) -> int:
    return sum(os.path.getsize(name) for name in (path, f"{path}-wal") if os.path.exists(name))


@contextlib.contextmanager
def _connection(file: SqliteFile, *, read_only: bool = False) -> Iterator[sqlite3.Connection]:
    """Give a connection for one piece of work, which waits for others by itself; what fails is raised as ours."""
    connection = file.connect(create=False, read_only=read_only)
    try:
        with _coded(file.name):
            connection.execute(f"PRAGMA busy_timeout={round(file.busy_timeout_s * 1000)}").fetchall()
            yield connection
    finally:
        connection.close()


@contextlib.contextmanager
def _coded(name: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise coded(error, name) from error
