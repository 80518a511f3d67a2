"""Is a database server behind the database port: what event loops call, what a fork and the end of the process do."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
import weakref
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from power_loop.contracts.clock import Clock
from power_loop.contracts.errors import StoreError, StoreUnsupportedError
from power_loop.contracts.ports import Listener
from power_loop.contracts.upkeep import BackedUp, Checkpointed, Vacuumed
from power_loop.runtime.store.server_dsn import ServerDsn
from power_loop.runtime.store.sql.database import Body, Counts, Landed
from power_loop.runtime.store.sql.dialect import Dialect
from power_loop.runtime.store.sql.server_clock import ServerClock
from power_loop.runtime.store.sql.server_link import Driver, Link
from power_loop.runtime.store.sql.server_loop import ServerLoop
from power_loop.runtime.store.sql.server_work import Server

T = TypeVar("T")

# How long the end of the process waits for the last transactions, in seconds.
_EXIT_WAIT_S = 10.0
_LAST_ROUNDS = 4

_DATABASES: weakref.WeakSet[ServerDatabase] = weakref.WeakSet()
# What a forked child got from its parent: closing it would speak on the parent's connections, so nothing ever lets go
# of it.
_INHERITED: list[object] = []


class ServerDatabase:
    """Is one open database on a server. Any event loop of any thread may use it; a forked child connects by itself."""

    def __init__(self, dsn: ServerDsn, driver: Driver) -> None:
        self.dialect: Dialect = driver.dialect
        self.on_point: Callable[[str, str], None] | None = None
        self.counts = Counts()
        self._clock = ServerClock()
        self.clock: Clock = self._clock
        self._dsn = dsn
        self._driver = driver
        self._thread: _LoopThread | None = None
        self._is_closed = False
        self._lock = threading.Lock()
        _DATABASES.add(self)

    async def open(self, *, create: bool) -> bool:
        """Connect, if no connection is there; a server's database is never made, so `create` means its tables only."""
        await self._call(lambda server: server.open())
        return True

    async def write(self, move: str, body: Body[T], *, landed: Landed | None = None) -> T:
        """Run a body that writes; it is durable when this returns, or has changed nothing when this raises.

        It is carried to its end even if the caller is cancelled.
        """
        return await self._call(lambda server: server.write(move, body, landed))

    async def read(self, body: Body[T]) -> T:
        """Run a body that reads, on one consistent snapshot."""
        return await self._call(lambda server: server.read(body))

    async def listen(self, channel: str, heard: Callable[[], None]) -> Listener | None:
        """Listen on a connection of its own; None where the server, or what stands before it, has no such thing."""
        if not self._driver.can_listen:
            return None
        is_wanted = True

        def tell() -> None:
            if is_wanted:
                heard()

        def stop() -> None:
            nonlocal is_wanted
            is_wanted = False

        link = await self._call(lambda server: server.listen(channel, tell))
        return _ServerListener(self, link, stop)

    async def vacuum(self, tables: Sequence[str]) -> Vacuumed:
        """Give the space that removed rows of these tables left back, as the server does that."""
        await self._call(lambda server: server.run_apart(self.dialect.vacuum(tables)))
        return Vacuumed()

    async def checkpoint(self) -> Checkpointed:
        """Do nothing: the server sees to its log."""
        return Checkpointed()

    async def backup(self, path: str, *, overwrite: bool) -> BackedUp:
        """Refuse. Raises `store.unsupported`."""
        raise StoreUnsupportedError(
            f"database {self._dsn.name} cannot be backed up by power-loop, which does that for SQLite only: use"
            f" {self.dialect.backup_tool}, or export_session() for single sessions"
        )

    async def aclose(self) -> None:
        """End what was begun, then let go of every connection and of the thread."""
        self._is_closed = True
        thread = self._thread
        if thread is not None:
            ended = asyncio.get_running_loop().create_future()
            thread.stop(ended)
            await ended

    def close_soon(self) -> None:
        """Do what `aclose` does without waiting for it."""
        self._is_closed = True
        if self._thread is not None:
            self._thread.stop(None)

    def post(self, act: Callable[[], None]) -> None:
        """Call `act` on the database's thread if there is one. A finalizer may call this: it takes no lock."""
        if self._thread is not None:
            self._thread.post(act)

    def call_later(self, seconds: float, act: Callable[[], None]) -> None:
        """Call `act` on the database's thread in so many seconds, in place of what was set before; only that thread may
        set this."""
        if self._thread is not None:
            self._thread.set_timer(seconds, act)

    @property
    def is_stale(self) -> bool:
        """False: what a name leads to is found out with every connection."""
        return False

    async def use(self, work: Callable[[Server], Awaitable[None]]) -> None:
        """Do something on the database's thread, unless that is over."""
        with contextlib.suppress(StoreError):
            await self._call(work)

    async def _call(self, work: Callable[[Server], Awaitable[T]]) -> T:
        thread = self._thread or self._running()
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        thread.put(_Job(work, future))
        try:
            return await future
        finally:
            # An error that is raised here holds this frame, and the future holds the error.
            del future

    def _running(self) -> _LoopThread:
        with self._lock:
            if self._is_closed:
                raise _closed(self._dsn)
            if self._thread is None:
                self._thread = _LoopThread(self._dsn, self._new_server)
            return self._thread

    def _new_server(self) -> Server:
        return Server(self._driver, self._dsn, clock=self._clock, counts=self.counts, tell=self._tell)

    def _tell(self, point: str, move: str) -> None:
        if self.on_point is not None:
            self.on_point(point, move)

    def forget_thread(self) -> None:
        """Begin anew in a forked child, where the parent's thread does not run."""
        self._lock = threading.Lock()
        if self._thread is not None:
            _INHERITED.append(self._thread)
            self._thread = None

    def end_with_process(self) -> None:
        """Commit what was begun and close, when the process ends."""
        thread = self._thread
        if thread is not None:
            self.close_soon()
            thread.join(_EXIT_WAIT_S)


class _ServerListener:
    """Is a connection that listens, as other threads see it."""

    def __init__(self, database: ServerDatabase, link: Link, stop: Callable[[], None]) -> None:
        self._database = database
        self._link = link
        self._stop = stop

    @property
    def is_open(self) -> bool:
        """False once nothing will be heard any more."""
        return self._link.is_open

    async def check(self) -> bool:
        """Ask the server for a sign of life; False where none comes."""
        await self._database.use(lambda server: server.check_listening(self._link))
        return self.is_open

    async def aclose(self) -> None:
        """Listen no longer."""
        self._stop()

        async def end(server: Server) -> None:
            server.end_listening(self._link)

        await self._database.use(end)


class _Job:
    """Is work for the thread, with the future on which its outcome is awaited."""

    __slots__ = ("error", "future", "value", "work")

    def __init__(self, work: Callable[[Server], Awaitable[Any]], future: asyncio.Future[Any]) -> None:
        self.work = work
        self.future: asyncio.Future[Any] | None = future
        self.value: Any = None
        self.error: BaseException | None = None


class _LoopThread:
    """Runs an event loop until `stop`, and on it what it is given."""

    def __init__(self, dsn: ServerDsn, new_server: Callable[[], Server]) -> None:
        self._dsn = dsn
        self._new_server = new_server
        self._loop = ServerLoop()
        self._gate = threading.Lock()
        self._is_over = False
        self._is_stopping = False
        self._ended: list[asyncio.Future[None]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._server: Server | None = None
        self._thread = threading.Thread(target=self._run, name="power-loop-store-server", daemon=True)
        self._thread.start()

    # ---- from any thread ----

    def put(self, job: _Job) -> None:
        """Give it something to do. Raises `store.failed` if it is over."""
        with self._gate:
            if self._is_over:
                raise _closed(self._dsn)
            self._loop.call_soon_threadsafe(self._begin, job)

    def stop(self, ended: asyncio.Future[None] | None) -> None:
        """End, once what was given before is done."""
        with self._gate:
            if not self._is_over:
                self._loop.call_soon_threadsafe(self._stop, ended)
                return
        if ended is not None:
            _hand_over(ended.get_loop(), _end, ended)

    def post(self, act: Callable[[], None]) -> None:
        """Call `act` if it is not over."""
        # A closed event loop raises.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(act)

    def join(self, seconds: float) -> None:
        """Wait until it is over, so long at most."""
        self._thread.join(seconds)

    # ---- on the thread ----

    def set_timer(self, seconds: float, act: Callable[[], None]) -> None:
        """Call `act` in so many seconds, in place of what was set before."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, act)

    def _run(self) -> None:
        loop = self._loop
        try:
            loop.run_forever()
            with self._gate:
                self._is_over = True
            # What came until the gate closed is waiting still.
            loop.call_soon(loop.stop)
            loop.run_forever()
            loop.run_until_complete(self._let_go())
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            self._is_over = True
            loop.close()
            for ended in self._ended:
                _hand_over(ended.get_loop(), _end, ended)

    async def _let_go(self) -> None:
        while self._tasks:
            await asyncio.wait(self._tasks)
        if self._server is not None:
            await self._server.close()
        # Transports that were dropped let go of their sockets with the next rounds of the event loop.
        for _ in range(_LAST_ROUNDS):
            await asyncio.sleep(0)

    def _stop(self, ended: asyncio.Future[None] | None) -> None:
        if ended is not None:
            self._ended.append(ended)
        self._is_stopping = True
        self._loop.stop()

    def _begin(self, job: _Job) -> None:
        if self._is_stopping:
            job.error = _closed(self._dsn)
            _release(job)
            return
        task = self._loop.create_task(self._work(job))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self, job: _Job) -> None:
        if self._server is None:
            self._server = self._new_server()
        try:
            job.value = await job.work(self._server)
        except BaseException as error:
            # Whatever it is, it belongs to who gave the work: this thread goes on.
            job.error = error
        _release(job)


def _closed(dsn: ServerDsn) -> StoreError:
    return StoreError(f"database {dsn.name} was closed: open_store() opens it again")


def _release(job: _Job) -> None:
    assert job.future is not None
    _hand_over(job.future.get_loop(), _settle, job)


def _hand_over(loop: asyncio.AbstractEventLoop, act: Callable[[Any], None], what: object) -> None:
    # A closed event loop raises: nobody waits there any more.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(act, what)


def _settle(job: _Job) -> None:
    """Hand out an outcome; who was cancelled is left alone."""
    # An error holds the frames that it came through and these hold the job, so that the job may not hold the error.
    error, job.error = job.error, None
    future, job.future = job.future, None
    if future is not None and not future.done():
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(job.value)


def _end(ended: asyncio.Future[None]) -> None:
    if not ended.done():
        ended.set_result(None)


def _forget_all_threads() -> None:
    for database in list(_DATABASES):
        database.forget_thread()


def _end_all() -> None:
    databases = list(_DATABASES)
    for database in databases:
        database.close_soon()
    for database in databases:
        database.end_with_process()


atexit.register(_end_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all_threads)
