"""Opens connections to SQLite files, and says in our errors what went wrong with them."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import stat
import time
from pathlib import Path

from power_loop.contracts.errors import (
    InvalidDsnError,
    NotADatabaseError,
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreReadOnlyError,
    StoreUnavailableError,
    StoreValueError,
)
from power_loop.runtime.store.sql.database import DuplicateKeyError

_CACHED_STATEMENTS = 256
# Pages of 4 KiB that a write-ahead log gathers before they are copied into the file: 8 MiB.
_CHECKPOINT_PAGES = 2000
# What a log keeps on disk after a burst.
_KEPT_LOG_BYTES = 32 * 1024 * 1024
# KiB of pages that the writing connection keeps in memory.
_CACHE_KIB = 16 * 1024
# The first and the longest pause between two tries for a lock that another process holds, in seconds.
_FIRST_PAUSE_S = 0.001
_MAX_PAUSE_S = 0.02


class Failure:
    """Is one way in which SQLite fails: its primary result code, the words of its message, our error, and what to do.

    `is_fatal` says that the connection cannot be trusted after it.
    """

    __slots__ = ("advice", "code", "is_fatal", "kind", "words")

    def __init__(self, code: int, words: str, kind: type[StoreError], advice: str, *, is_fatal: bool = False) -> None:
        self.code = code
        self.words = words
        self.kind = kind
        self.advice = advice
        self.is_fatal = is_fatal


# https://www.sqlite.org/rescode.html; Python 3.10 does not tell the code, so that the words have to do there.
_BUSY = Failure(5, "database is locked", StoreUnavailableError, "another process holds the write lock; try again")
_FAILURES = (
    _BUSY,
    Failure(6, "table is locked", StoreUnavailableError, "another connection holds a lock; try again"),
    Failure(15, "locking protocol", StoreUnavailableError, "too many processes open it at once; try again"),
    Failure(
        8,
        "readonly database",
        StoreReadOnlyError,
        "make the file and its directory writable for this user",
        is_fatal=True,
    ),
    Failure(13, "disk is full", StoreFullError, "free space on its disk; what was acknowledged is safe", is_fatal=True),
    Failure(10, "disk I/O error", StoreUnavailableError, "the disk failed; look at the system's log", is_fatal=True),
    Failure(11, "malformed", StoreCorruptError, "restore a backup; PRAGMA integrity_check tells more", is_fatal=True),
    Failure(26, "not a database", NotADatabaseError, "name a new file or a SQLite database", is_fatal=True),
    Failure(14, "unable to open", StoreUnavailableError, "see that the file can be opened by this user", is_fatal=True),
    Failure(18, "too big", StoreValueError, "SQLite takes values up to 1,000,000,000 bytes"),
    Failure(25, "bind or column index out of range", StoreValueError, "that is a defect of power-loop"),
    Failure(1, "Could not decode to UTF-8", StoreCorruptError, "the row was not written by power-loop"),
)


def failure_of(error: Exception) -> Failure | None:
    """Return the way in which SQLite failed, if it is a known one."""
    code = getattr(error, "sqlite_errorcode", None)
    text = str(error)
    for failure in _FAILURES:
        if failure.words in text or (code is not None and code & 0xFF == failure.code != 1):
            return failure
    return None


def is_busy(error: sqlite3.Error) -> bool:
    """Tell whether somebody else's lock was in the way."""
    return failure_of(error) is _BUSY


def coded(error: Exception, name: str) -> StoreError:
    """Return our error for one of SQLite's; `name` says which database."""
    result: StoreError
    if isinstance(error, sqlite3.IntegrityError) and "UNIQUE constraint failed" in str(error):
        result = DuplicateKeyError(f"database {name} has a row of this key already: {error}")
    elif (failure := failure_of(error)) is not None:
        result = failure.kind(f"database {name}: {error}: {failure.advice}")
    elif isinstance(error, (OverflowError, UnicodeEncodeError)):
        result = StoreValueError(f"database {name} cannot hold a value: {error}")
    else:
        result = StoreError(f"database {name} failed: {type(error).__name__}: {error}")
    result.__cause__ = error
    return result


class SqliteFile:
    """Is a database file, or a database in memory, and how connections to it are set up."""

    def __init__(self, path: str | None, *, synchronous: str = "full", busy_timeout_s: float = 10.0) -> None:
        self.path = path
        self.synchronous = synchronous
        self.busy_timeout_s = busy_timeout_s
        self._identity: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """How messages call it."""
        return ":memory:" if self.path is None else repr(self.path)

    def exists(self) -> bool:
        """Tell whether there is a file; a database in memory is always a new one."""
        return self.path is not None and os.path.exists(self.path)

    @property
    def is_replaced(self) -> bool:
        """True if another file, or none, stands where the first connection found this one."""
        return self._identity is not None and self._identity != self._there()

    def check_place(self) -> None:
        """Raise `store.unavailable` if the file was replaced: a deleted file still takes writes, and nobody would ever
        find them, or another file would be given a write-ahead log that is not its own."""
        if self.is_replaced:
            what = "was replaced by another file" if self.exists() else "was deleted"
            raise StoreUnavailableError(
                f"database file {self.path!r} {what} while it was open: put it back, or let go of this handle and open"
                " the store again"
            )

    def level_modes(self) -> None:
        """Let the write-ahead log be written where the file may be: SQLite makes it with the file's mode of then, and
        never changes that."""
        path = self.path
        with contextlib.suppress(OSError):
            if path is not None and os.access(path, os.W_OK):
                mode = stat.S_IMODE(os.stat(path).st_mode)
                for log in (f"{path}-wal", f"{path}-shm"):
                    if os.path.exists(log) and not os.access(log, os.W_OK):
                        os.chmod(log, mode)

    def _there(self) -> tuple[int, int] | None:
        assert self.path is not None
        try:
            status = os.stat(self.path)
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def connect(self, *, create: bool, read_only: bool = False) -> sqlite3.Connection:
        """Return a connection that has looked at the file. Raises coded errors; what it refuses stays untouched."""
        if self.path is not None:
            self.check_place()
            self._look(create=create)
        try:
            connection = self._connect(create=create)
        except sqlite3.Error as error:
            raise self._why(error) from error
        try:
            # The first read of the file: only here SQLite sees whether it is a database.
            connection.execute("PRAGMA schema_version").fetchall()
            for pragma in self._pragmas(read_only=read_only):
                connection.execute(pragma).fetchall()
        except sqlite3.Error as error:
            connection.close()
            raise self._why(error) from error
        if self.path is not None and self._identity is None:
            self._identity = self._there()
        return connection

    def begin(self, cursor: sqlite3.Cursor) -> None:
        """Begin a write transaction; waits for other processes as long as `busy_timeout_s`."""
        self._patiently(cursor, "BEGIN IMMEDIATE")

    def commit(self, cursor: sqlite3.Cursor) -> None:
        """Commit; without a write-ahead log this may have to wait for readers."""
        self._patiently(cursor, "COMMIT")

    def use_write_ahead_log(self, cursor: sqlite3.Cursor) -> None:
        """Switch the file to a write-ahead log if it has none: readers then never wait for the writer.

        Where the file system cannot have one, SQLite keeps its rollback journal, which is as safe.
        """
        if self.path is None or cursor.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
            return
        self._patiently(cursor, "PRAGMA journal_mode=WAL")
        cursor.fetchall()

    def _patiently(self, cursor: sqlite3.Cursor, sql: str) -> None:
        """Run a statement that needs a lock; try again while another process holds it.

        SQLite's own waiting is off on the connection that writes: it gives up at once where it fears a deadlock, and
        its pauses of 0.1 s leave a busy file idle.
        """
        try:
            cursor.execute(sql)
            return
        except sqlite3.OperationalError as error:
            if not is_busy(error):
                raise
        deadline = time.monotonic() + self.busy_timeout_s
        pause_s = _FIRST_PAUSE_S
        while True:
            time.sleep(pause_s * random.random())
            pause_s = min(pause_s * 2, _MAX_PAUSE_S)
            try:
                cursor.execute(sql)
                return
            except sqlite3.OperationalError as error:
                if not is_busy(error) or time.monotonic() >= deadline:
                    raise

    def _connect(self, *, create: bool) -> sqlite3.Connection:
        if self.path is None:
            target, is_uri = ":memory:", False
        else:
            target, is_uri = f"{Path(self.path).absolute().as_uri()}?mode={'rwc' if create else 'rw'}", True
        return sqlite3.connect(
            target,
            uri=is_uri,
            timeout=self.busy_timeout_s,
            isolation_level=None,
            cached_statements=_CACHED_STATEMENTS,
        )

    def _pragmas(self, *, read_only: bool) -> list[str]:
        pragmas = ["PRAGMA trusted_schema=OFF", "PRAGMA foreign_keys=ON", "PRAGMA temp_store=MEMORY"]
        if read_only:
            return [*pragmas, "PRAGMA query_only=ON"]
        return [
            *pragmas,
            f"PRAGMA synchronous={self.synchronous}",
            # On macOS fsync() leaves data in the drive's cache; these two flush that as well.
            "PRAGMA fullfsync=ON",
            "PRAGMA checkpoint_fullfsync=ON",
            f"PRAGMA wal_autocheckpoint={_CHECKPOINT_PAGES}",
            f"PRAGMA journal_size_limit={_KEPT_LOG_BYTES}",
            f"PRAGMA cache_size=-{_CACHE_KIB}",
            "PRAGMA busy_timeout=0",
        ]

    def _look(self, *, create: bool) -> None:
        """Refuse what cannot be a database before SQLite touches it.

        Nothing is opened for that: with any descriptor of a file that it closes a process loses all its locks on the
        file (https://www.sqlite.org/howtocorrupt.html, 2.2), and another process would take the log for its own.
        """
        path = self.path
        assert path is not None
        try:
            status = os.stat(path)
        except FileNotFoundError:
            if not create:
                raise StoreUnavailableError(f"database file {path!r} is gone") from None
            directory = os.path.dirname(path) or "."
            if not os.path.isdir(directory):
                raise self._no_directory(directory) from None
            return
        except NotADirectoryError:
            raise self._no_directory(os.path.dirname(path)) from None
        except OSError as error:
            raise StoreUnavailableError(f"database file {path!r} cannot be read: {error}") from error
        if not stat.S_ISREG(status.st_mode):
            kind = "a directory" if stat.S_ISDIR(status.st_mode) else "no regular file"
            raise NotADatabaseError(f"{path!r} is {kind}: name a new file or a SQLite database")
        # SQLite takes a file of one byte for an empty one.
        if status.st_size == 1:
            raise NotADatabaseError(f"{path!r} is no SQLite database: name a new file or a SQLite database")
        if not os.access(path, os.R_OK):
            raise StoreUnavailableError(f"database file {path!r} may not be read by this user")

    def _no_directory(self, directory: str) -> StoreError:
        return InvalidDsnError(f"database {self.name} lies in {directory!r}, which is no directory: make it first")

    def _why(self, error: sqlite3.Error) -> StoreError:
        """Return our error for a connection that could not be made; SQLite says "unable to open" for many reasons."""
        path = self.path
        if path is not None and "unable to open" in str(error):
            directory = os.path.dirname(path) or "."
            place = path if os.path.exists(path) else directory
            if not os.access(place, os.W_OK) or not os.access(directory, os.W_OK):
                return StoreReadOnlyError(f"database {self.name} cannot be made or written: {place!r} is read-only")
        return coded(error, self.name)
