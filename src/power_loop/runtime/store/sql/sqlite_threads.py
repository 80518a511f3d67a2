"""Holds the threads of one SQLite database: one that writes and commits what waits together, a few that read."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from types import CoroutineType
from typing import Any

from power_loop.contracts.errors import StoreError, StoreFullError, StoreReadOnlyError, TransactionError
from power_loop.runtime.store.sql.database import Counts, Params, RefusedCommitError, Row, Statement
from power_loop.runtime.store.sql.sqlite_connection import SqliteFile, coded, failure_of

#: Transactions that share one COMMIT at most, so that the first of them does not wait long for the last.
MAX_BATCH = 256
#: Threads that read, each with a connection of its own.
READERS = 2

# What the sqlite3 module raises for a statement, its parameters' conversion included.
_DRIVER_ERRORS = (sqlite3.Error, OverflowError, UnicodeEncodeError)


class Job:
    """Is work for a thread, with the future on which its outcome is awaited, if it is.

    `move` names a transaction; None is work between transactions.
    """

    __slots__ = ("act", "error", "future", "move", "value")

    def __init__(
        self, act: Callable[..., Any], future: asyncio.Future[Any] | None = None, *, move: str | None = None
    ) -> None:
        self.act = act
        self.future = future
        self.move = move
        self.value: Any = None
        self.error: BaseException | None = None


class SqliteTransaction:
    """Runs statements at once, on the thread that owns the connection."""

    __slots__ = ("_counts", "_cursor", "_name")

    def __init__(self, cursor: sqlite3.Cursor, name: str, counts: Counts) -> None:
        self._cursor = cursor
        self._name = name
        self._counts = counts

    async def execute(self, sql: str, params: Params = ()) -> int:
        """Run a statement and return how many rows it changed."""
        self._counts.statements += 1
        try:
            return self._cursor.execute(sql, params).rowcount
        except _DRIVER_ERRORS as error:
            raise coded(error, self._name) from error

    async def execute_many(self, sql: str, rows: Sequence[Params]) -> int:
        """Run a statement once for each of `rows` and return how many rows all of them changed."""
        self._counts.statements += len(rows)
        try:
            return self._cursor.executemany(sql, rows).rowcount
        except _DRIVER_ERRORS as error:
            raise coded(error, self._name) from error

    async def execute_all(self, statements: Sequence[Statement]) -> list[int]:
        """Run statements and return how many rows each changed."""
        self._counts.statements += len(statements)
        try:
            changed = []
            for sql, params in statements:
                changed.append(self._cursor.execute(sql, params).rowcount)
                if not changed[0]:
                    break
            return changed
        except _DRIVER_ERRORS as error:
            raise coded(error, self._name) from error

    async def query(self, sql: str, params: Params = ()) -> list[Row]:
        """Return the rows of a query."""
        self._counts.statements += 1
        try:
            return self._cursor.execute(sql, params).fetchall()
        except _DRIVER_ERRORS as error:
            raise coded(error, self._name) from error


class SqliteThreads:
    """Owns the connections. The threads live until `stop` runs as a job; nothing but the queues is shared with them."""

    def __init__(self, file: SqliteFile, point: Callable[[str, Sequence[Job]], None], counts: Counts) -> None:
        self.jobs: SimpleQueue[Job] = SimpleQueue()
        self.reads: SimpleQueue[Job | None] = SimpleQueue()
        self.is_over = False
        self._is_deserted = False
        self._file = file
        self._point = point
        self._counts = counts
        self._connection: sqlite3.Connection | None = None
        self._cursor: sqlite3.Cursor | None = None
        self._has_log = False
        self._timer: tuple[float, Callable[[], None]] | None = None
        self._closing: list[Job] = []
        self._readers: list[threading.Thread] = []
        self._readers_lock = threading.Lock()
        self.writer = threading.Thread(target=self._write_on, name="power-loop-store-writer", daemon=True)
        self.writer.start()

    # ---- from any thread ----

    def put(self, job: Job) -> None:
        """Give the writing thread something to do."""
        self.jobs.put(job)
        # While the threads end, what comes is theirs to refuse: here it could be taken from those that still work.
        if self._is_deserted:
            self._refuse_all()

    def put_read(self, job: Job) -> None:
        """Give the reading threads something to do."""
        if not self._readers:
            self._start_readers()
        self.reads.put(job)
        if self._is_deserted:
            self._refuse_all()

    def _start_readers(self) -> None:
        with self._readers_lock:
            if self._readers or self.is_over:
                return
            for number in range(READERS):
                name = f"power-loop-store-reader-{number}"
                thread = threading.Thread(target=self._read_on, name=name, daemon=True)
                thread.start()
                self._readers.append(thread)

    # ---- as jobs, on the writing thread ----

    def open(self, *, create: bool) -> bool:
        """Connect; False if there is no file and none may be made."""
        if self._cursor is None:
            if not create and not self._file.exists():
                return False
            self._connect(create=create)
        return True

    def stop(self) -> None:
        """End the threads, once what was given to them before is done."""
        self.is_over = True

    def set_timer(self, seconds: float, act: Callable[[], None]) -> None:
        """Call `act` in so many seconds, in place of what was set before."""
        self._timer = (time.monotonic() + seconds, act)

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection that writes, which a database in memory is."""
        if self._connection is None:
            self._connect(create=True)
        assert self._connection is not None
        return self._connection

    # ---- the writing thread ----

    def _write_on(self) -> None:
        try:
            while not self.is_over:
                # What a job holds is let go of with this call's frame, before the next wait.
                self._take_what_waits()
        finally:
            self.is_over = True
            self._close()

    def _close(self) -> None:
        with self._readers_lock:
            readers = list(self._readers)
        for _ in readers:
            self.reads.put(None)
        for thread in readers:
            thread.join()
        try:
            # Last, because the last connection of a file copies the write-ahead log into it and removes the log.
            if self._connection is not None:
                self._connection.close()
        finally:
            self._connection = self._cursor = None
            self._is_deserted = True
            self._refuse_all()
            _release(self._closing)
            self._closing = []

    def _take_what_waits(self) -> None:
        job: Job | None = self._next()
        batch: list[Job] = []
        while job is not None and job.move is not None:
            batch.append(job)
            has_more = len(batch) < MAX_BATCH and not self.jobs.empty()
            job = self.jobs.get_nowait() if has_more else None
        if batch:
            self._commit(batch)
            _release(batch)
        if job is not None:
            _act(job)
            if self.is_over:
                self._closing.append(job)
            else:
                _release([job])

    def _next(self) -> Job:
        while self._timer is not None:
            due, act = self._timer
            try:
                return self.jobs.get(timeout=max(0.0, due - time.monotonic()))
            except Empty:
                self._timer = None
                act()
        return self.jobs.get()

    def _commit(self, batch: list[Job], *, is_second_try: bool = False) -> None:
        """Run transactions and commit them together; each has its outcome afterwards."""
        try:
            self._transact(self._ready_cursor(), batch)
        except Exception as error:
            # BEGIN or COMMIT failed, or the disk under a statement: nothing of the batch is in the database.
            self._recover(error)
            failure = failure_of(error)
            if failure is not None and failure.kind is StoreReadOnlyError and not is_second_try:
                # A connection stays as it was opened, so that only another one tells how the file is.
                self._file.level_modes()
                self._commit(batch, is_second_try=True)
                return
            is_refused = isinstance(error, sqlite3.IntegrityError)
            if len(batch) > 1 and (is_refused or (failure is not None and failure.kind is StoreFullError)):
                # One that is too large for the disk, or breaks a deferred constraint, takes no others with it.
                for job in batch:
                    self._commit([job])
                return
            for job in batch:
                job.value, job.error = None, _copy_of(error, self._file.name)
                if is_refused:
                    job.error = RefusedCommitError(job.error.message)
                    job.error.__cause__ = error
            return
        try:
            self._point("commit.after", batch)
        except Exception as error:
            for job in batch:
                job.error = job.error or coded(error, self._file.name)

    def _transact(self, cursor: sqlite3.Cursor, batch: list[Job]) -> None:
        tx = SqliteTransaction(cursor, self._file.name, self._counts)
        is_shared = len(batch) > 1
        self._file.begin(cursor)
        for job in batch:
            if is_shared:
                cursor.execute("SAVEPOINT job")
            _run(job, tx, self._counts)
            if not cursor.connection.in_transaction:
                # SQLite rolls the whole transaction back when it cannot go on; what stood before is gone as well.
                raise _cause_of(job)
            if isinstance(job.error, StoreReadOnlyError):
                # So it is for all of them.
                raise _cause_of(job)
            if is_shared:
                if job.error is not None:
                    cursor.execute("ROLLBACK TO job")
                cursor.execute("RELEASE job")
        if all(job.error is not None for job in batch):
            cursor.execute("ROLLBACK")
            return
        self._point("commit.before", batch)
        self._file.commit(cursor)
        self._counts.commits += 1
        # What went into a file that nobody will find again is not acknowledged.
        self._file.check_place()

    def _ready_cursor(self) -> sqlite3.Cursor:
        self._file.check_place()
        if self._cursor is None:
            self._connect(create=False)
        cursor = self._cursor
        assert cursor is not None
        if not self._has_log:
            self._file.use_write_ahead_log(cursor)
            self._has_log = True
        return cursor

    def _connect(self, *, create: bool) -> None:
        connection = self._file.connect(create=create)
        self._connection, self._cursor = connection, connection.cursor()
        self._has_log = False

    def _recover(self, error: Exception) -> None:
        """Bring the connection back to where it can begin a transaction, or let go of it."""
        connection = self._connection
        if connection is None:
            return
        failure = failure_of(error)
        is_fatal = failure is not None and failure.is_fatal
        try:
            if connection.in_transaction:
                connection.rollback()
        except sqlite3.Error:
            is_fatal = True
        # A database in memory is its connection.
        if is_fatal and self._file.path is not None:
            self._connection = self._cursor = None
            connection.close()

    def _refuse_all(self) -> None:
        late: list[Job] = []
        for queue in (self.jobs, self.reads):
            while True:
                try:
                    job = queue.get_nowait()
                except Empty:
                    break
                if job is not None:
                    job.error = StoreError(f"database {self._file.name} was closed: open_store() opens it again")
                    late.append(job)
        _release(late)

    # ---- the reading threads ----

    def _read_on(self) -> None:
        connection: sqlite3.Connection | None = None
        while True:
            job = self.reads.get()
            if job is None:
                break
            if job.future is None or not job.future.cancelled():
                connection = self._read(job, connection)
                _release([job])
            del job
        if connection is not None:
            connection.close()

    def _read(self, job: Job, connection: sqlite3.Connection | None) -> sqlite3.Connection | None:
        """Run a body on one snapshot; return the connection for the next one."""
        try:
            if connection is None:
                connection = self._file.connect(create=False, read_only=True)
            else:
                self._file.check_place()
            cursor = connection.cursor()
            cursor.execute("BEGIN")
            _run(job, SqliteTransaction(cursor, self._file.name, self._counts), self._counts)
            if connection.in_transaction:
                cursor.execute("COMMIT")
        except Exception as error:
            job.error = _copy_of(error, self._file.name)
        if job.error is None or connection is None:
            return connection
        if connection.in_transaction:
            connection.rollback()
        failure = failure_of(_cause_of(job))
        if failure is not None and failure.is_fatal:
            connection.close()
            return None
        return connection


def _run(job: Job, tx: SqliteTransaction, counts: Counts) -> None:
    """Run a transaction's body to its end and keep its outcome."""
    counts.transactions += 1
    job.error = None
    try:
        job.value = _drive(job.act, tx)
    except BaseException as error:
        job.error = error


def _drive(body: Callable[..., Any], tx: SqliteTransaction) -> Any:
    """Run a body to its end. Raises `store.transaction_misuse` if it awaits something other than `tx`."""
    coroutine = body(tx)
    if not isinstance(coroutine, CoroutineType):
        raise TransactionError(f"the body of a transaction is no async function: it returned {coroutine!r}")
    try:
        awaited = coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    # A body that holds on to what it waits for is left where it is.
    with contextlib.suppress(RuntimeError):
        coroutine.close()
    raise TransactionError(
        f"a transaction awaited {awaited!r}: its body may await nothing but its tx, so that it never holds the"
        " database while it waits; do the rest before or after it"
    )


def run_apart(job: Job) -> None:
    """Do a job on the thread that calls this, which belongs to it alone."""
    _act(job)
    _release([job])


def _act(job: Job) -> None:
    try:
        job.value = job.act()
    except BaseException as error:
        job.error = error


def _cause_of(job: Job) -> Exception:
    """Return the driver's error behind a job's."""
    cause = job.error if job.error is None else job.error.__cause__ or job.error
    if isinstance(cause, Exception):
        return cause
    return TransactionError("a transaction was rolled back inside of its body")


def _copy_of(error: Exception, name: str) -> StoreError:
    """Return an error of its own for one of several that wait: a raised one carries its raiser's traceback."""
    if not isinstance(error, StoreError):
        return coded(error, name)
    copy = type(error)(error.message)
    copy.__cause__ = error.__cause__
    return copy


def _release(jobs: list[Job]) -> None:
    """Wake those who wait for jobs: one wake-up for each event loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Job]] = {}
    for job in jobs:
        if job.future is not None:
            by_loop.setdefault(job.future.get_loop(), []).append(job)
    for loop, done in by_loop.items():
        # A closed event loop raises: nobody waits there any more.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_settle, done)


def _settle(jobs: list[Job]) -> None:
    """Hand out outcomes; who was cancelled is left alone."""
    for job in jobs:
        # An error holds the frames that it came through and these hold the job, so that the job may not hold the error.
        error, job.error = job.error, None
        future, job.future = job.future, None
        if future is not None and not future.done():
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(job.value)
