"""Is SQLite behind the database port: what event loops call, and what a fork and the end of the process do."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from power_loop.contracts.clock import Clock, SystemClock
from power_loop.contracts.errors import StoreError
from power_loop.contracts.ports import Listener
from power_loop.contracts.upkeep import BackedUp, Checkpointed, Vacuumed
from power_loop.runtime.store.sql.database import Body, Counts, Landed
from power_loop.runtime.store.sql.dialect import Dialect, SqliteDialect
from power_loop.runtime.store.sql.sqlite_connection import SqliteFile
from power_loop.runtime.store.sql.sqlite_threads import Job, SqliteThreads, run_apart
from power_loop.runtime.store.sql.sqlite_upkeep import (
    back_up,
    check_target,
    checkpoint,
    copy_to,
    vacuum,
    vacuum_memory,
)

T = TypeVar("T")

# How long the end of the process waits for the last transactions, in seconds.
_EXIT_WAIT_S = 10.0

_DATABASES: weakref.WeakSet[SqliteDatabase] = weakref.WeakSet()
# What a forked child got from its parent: closing it would touch the parent's file, so nothing ever lets go of it.
_INHERITED: list[object] = []


class SqliteDatabase:
    """Is one open SQLite database. Any event loop of any thread may use it; a forked child gets threads of its own."""

    def __init__(self, file: SqliteFile) -> None:
        self.dialect: Dialect = SqliteDialect()
        # The file lies on this machine, so its time is the machine's.
        self.clock: Clock = SystemClock()
        self.on_point: Callable[[str, str], None] | None = None
        self.counts = Counts()
        self._file = file
        self._threads: SqliteThreads | None = None
        self._is_closed = False
        self._lock = threading.Lock()
        _DATABASES.add(self)

    async def open(self, *, create: bool) -> bool:
        """Connect; False if there is no file and `create` does not allow to make one."""
        threads = self._running()
        future = _new_future()
        threads.put(Job(lambda: threads.open(create=create), future))
        return bool(await future)

    async def write(self, move: str, body: Body[T], *, landed: Landed | None = None) -> T:
        """Run a body that writes; it is durable when this returns, or has changed nothing when this raises.

        It is carried to its end even if the caller is cancelled. SQLite tells whether a COMMIT landed, so `landed` is
        never asked.
        """
        threads = self._threads or self._running()
        future: asyncio.Future[T] = _new_future()
        threads.put(Job(body, future, move=move))
        try:
            return await future
        finally:
            # An error that is raised here holds this frame, and the future holds the error.
            del future

    async def read(self, body: Body[T]) -> T:
        """Run a body that reads, on one consistent snapshot."""
        if self._file.path is None:
            return await self.write("read", body)
        threads = self._threads or self._running()
        future: asyncio.Future[T] = _new_future()
        threads.put_read(Job(body, future, move="read"))
        try:
            return await future
        finally:
            del future

    async def listen(self, channel: str, heard: Callable[[], None]) -> Listener | None:
        """Return None: a file tells nobody anything."""
        return None

    async def vacuum(self, tables: Sequence[str]) -> Vacuumed:
        """Write the file anew, between two transactions; SQLite does so for all tables."""
        file = self._file
        threads = self._threads or self._running()
        if file.path is None:
            return await self._between(lambda: vacuum_memory(threads.connection))
        return await self._between(lambda: vacuum(file))

    async def checkpoint(self) -> Checkpointed:
        """Bring the write-ahead log into the file."""
        file = self._file
        return Checkpointed() if file.path is None else await self._between(lambda: checkpoint(file))

    async def backup(self, path: str, *, overwrite: bool) -> BackedUp:
        """Write the database as it is at one moment into a file, on a thread that ends with it."""
        is_over = threading.Event()
        threads = self._threads or self._running()
        if self._file.path is None:
            check_target(self._file, path, overwrite=overwrite)
            return await self._between(
                lambda: copy_to(threads.connection, path, overwrite=overwrite, is_unwanted=is_over.is_set)
            )
        future: asyncio.Future[BackedUp] = _new_future()
        job = Job(lambda: back_up(self._file, path, overwrite=overwrite, is_unwanted=is_over.is_set), future)
        threading.Thread(target=run_apart, args=(job,), name="power-loop-store-backup").start()
        try:
            return await future
        finally:
            is_over.set()
            del future

    async def _between(self, act: Callable[[], T]) -> T:
        """Do something on the writing thread between two transactions."""
        future: asyncio.Future[T] = _new_future()
        (self._threads or self._running()).put(Job(act, future))
        try:
            return await future
        finally:
            del future

    async def aclose(self) -> None:
        """End what was begun, then let go of every connection and thread."""
        self._is_closed = True
        threads = self._threads
        if threads is not None:
            future = _new_future()
            threads.put(Job(threads.stop, future))
            await future

    def close_soon(self) -> None:
        """Do what `aclose` does without waiting for it."""
        self._is_closed = True
        if self._threads is not None:
            self._threads.put(Job(self._threads.stop))

    def post(self, act: Callable[[], None]) -> None:
        """Call `act` on the writing thread if there is one. A finalizer may call this: it takes no lock."""
        if self._threads is not None and not self._threads.is_over:
            self._threads.put(Job(act))

    def call_later(self, seconds: float, act: Callable[[], None]) -> None:
        """Call `act` on the writing thread in so many seconds; only that thread may set this."""
        if self._threads is not None:
            self._threads.set_timer(seconds, act)

    @property
    def is_stale(self) -> bool:
        """True if another file, or none, stands where this database was opened."""
        return self._file.is_replaced

    def _running(self) -> SqliteThreads:
        with self._lock:
            if self._is_closed:
                raise StoreError(f"database {self._file.name} was closed: open_store() opens it again")
            if self._threads is None:
                self._threads = SqliteThreads(self._file, self._tell, self.counts)
            return self._threads

    def _tell(self, point: str, jobs: Sequence[Job]) -> None:
        if self.on_point is not None:
            for job in jobs:
                if job.error is None and job.move is not None:
                    self.on_point(point, job.move)

    def forget_threads(self) -> None:
        """Begin anew in a forked child, where the parent's threads do not run."""
        self._lock = threading.Lock()
        if self._threads is None:
            return
        _INHERITED.append(self._threads)
        self._threads = None
        if self._file.path is None:
            self._is_closed = True

    def end_with_process(self) -> None:
        """Commit what waits and close, when the process ends."""
        threads = self._threads
        if threads is not None and threads.writer.is_alive():
            self.close_soon()
            threads.writer.join(_EXIT_WAIT_S)


def _new_future() -> asyncio.Future[Any]:
    return asyncio.get_running_loop().create_future()


def _forget_all_threads() -> None:
    for database in list(_DATABASES):
        database.forget_threads()


def _end_all() -> None:
    for database in list(_DATABASES):
        database.end_with_process()


atexit.register(_end_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all_threads)
