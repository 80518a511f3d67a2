"""Keeps a bounded number of connections to one database server."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable

from power_loop.contracts.errors import StoreUnavailableError
from power_loop.runtime.store.server_dsn import ServerDsn
from power_loop.runtime.store.sql.database import Counts
from power_loop.runtime.store.sql.server_clock import Reading
from power_loop.runtime.store.sql.server_link import Driver, DriverError, Link, Trouble, said
from power_loop.runtime.store.sql.server_loop import aborting_on_failure

# Connections of one age end a little apart, so that not all are made anew at one moment.
_LIFETIME_SPREAD = 0.1
# How long the server is given to answer a goodbye, in seconds.
_GOODBYE_S = 1.0


class Pool:
    """Hands out connections, the most recently used first, to who waits in order of arrival. It is one event loop's."""

    def __init__(self, driver: Driver, dsn: ServerDsn, *, counts: Counts, note: Callable[[Reading], None]) -> None:
        self._driver = driver
        self._dsn = dsn
        self._counts = counts
        self._note = note
        self._loop = asyncio.get_running_loop()
        self._idle: deque[Link] = deque()
        # Who waits gets a connection, or None: a place where it may make one.
        self._waiters: deque[asyncio.Future[Link | None]] = deque()
        self._size = 0
        self._ages: dict[Link, float] = {}
        self._reaper: asyncio.TimerHandle | None = None
        self._goodbyes: set[asyncio.Task[None]] = set()

    @property
    def size(self) -> int:
        """Is how many connections there are, those that are being made as well."""
        return self._size

    async def take(self) -> Link:
        """Return a connection. Raises `DriverError`, or `store.unavailable` if all are in use for too long."""
        while self._idle:
            link = self._idle.pop()
            if link.is_open and self._loop.time() < self._ages[link]:
                return link
            self._let_go(link)
        if self._size < self._dsn.pool_size:
            self._size += 1
        else:
            waiting = await self._wait()
            if waiting is not None:
                return waiting
        try:
            return await self._connect()
        except BaseException:
            self._size -= 1
            self._invite()
            raise

    def give(self, link: Link) -> None:
        """Take a connection back that is as good as before."""
        if not link.is_open or self._loop.time() >= self._ages[link]:
            self.drop(link)
            return
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(link)
                return
        link.used_s = self._loop.time()
        self._idle.append(link)
        if self._reaper is None:
            self._reaper = self._loop.call_later(self._dsn.max_idle_s, self._reap)

    def drop(self, link: Link) -> None:
        """Close a connection that cannot be trusted, at once: the server rolls back what it had begun."""
        self._ages.pop(link, None)
        link.abort()
        self._size -= 1
        self._invite()

    def drop_idle(self) -> None:
        """Close what nobody uses: the server it leads to has gone."""
        while self._idle:
            self._let_go(self._idle.pop())

    async def close(self) -> None:
        """Take leave of the server on every connection; nobody uses one any more."""
        self.drop_idle()
        if self._reaper is not None:
            self._reaper.cancel()
        if self._goodbyes:
            await asyncio.wait(self._goodbyes)

    async def _connect(self) -> Link:
        link = await self.connect()
        self._ages[link] = self._loop.time() + self._dsn.max_lifetime_s * (1 - random.random() * _LIFETIME_SPREAD)
        return link

    async def connect(self) -> Link:
        """Return a connection that the pool knows nothing of. Raises `DriverError`."""
        try:
            with aborting_on_failure():
                link = await asyncio.wait_for(
                    self._driver.connect(self._counts, self._note), timeout=self._dsn.connect_timeout_s
                )
        except (asyncio.TimeoutError, TimeoutError) as error:
            raise DriverError(
                Trouble.LOST, f"no connection within connect_timeout_s={self._dsn.connect_timeout_s:g}"
            ) from error
        except DriverError:
            raise
        except Exception as error:
            raise DriverError(Trouble.OTHER, said(error)) from error
        self._counts.connections += 1
        return link

    async def _wait(self) -> Link | None:
        waiter: asyncio.Future[Link | None] = self._loop.create_future()
        self._waiters.append(waiter)
        alarm = self._loop.call_later(self._dsn.acquire_timeout_s, self._end_wait, waiter)
        try:
            return await waiter
        finally:
            alarm.cancel()

    def _end_wait(self, waiter: asyncio.Future[Link | None]) -> None:
        if not waiter.done():
            waiter.set_exception(
                StoreUnavailableError(
                    f"database {self._dsn.name}: all {self._dsn.pool_size} connections were in use for"
                    f" {self._dsn.acquire_timeout_s:g} s: try again, or raise pool_size in the dsn"
                )
            )

    def _invite(self) -> None:
        """Give a free place to who waits longest."""
        while self._waiters and self._size < self._dsn.pool_size:
            waiter = self._waiters.popleft()
            if not waiter.done():
                self._size += 1
                waiter.set_result(None)

    def _let_go(self, link: Link) -> None:
        """Close a connection that nobody uses, politely and later."""
        self._ages.pop(link, None)
        self._size -= 1
        task = self._loop.create_task(self._say_goodbye(link))
        self._goodbyes.add(task)
        task.add_done_callback(self._goodbyes.discard)

    async def _say_goodbye(self, link: Link) -> None:
        try:
            await asyncio.wait_for(link.close(), _GOODBYE_S)
        except Exception:
            # Nobody minds how a connection ends that is not used.
            link.abort()

    def _reap(self) -> None:
        """Close what was not used for long; the oldest stand on the left."""
        self._reaper = None
        now = self._loop.time()
        while self._idle and self._idle[0].used_s + self._dsn.max_idle_s <= now:
            self._let_go(self._idle.popleft())
        if self._idle:
            self._reaper = self._loop.call_at(self._idle[0].used_s + self._dsn.max_idle_s, self._reap)
