"""Shares connections between the services of one event loop, and closes them with their last user or with the loop."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import AsyncGenerator

from power_loop.runtime.llm.carrier import Carrier, Connections, Endpoint

# Applications build a service for a request and drop it: the next request finds the connections open. The loop's end
# does not wait for it.
_LINGER_S = 30.0

_Key = tuple[str, Endpoint]


class Pool:
    """Is the connections of one endpoint in one event loop, with the count of the services that use them.

    All methods but `leave_from_anywhere` run in the thread of that loop.
    """

    def __init__(self, key: _Key, connections: Connections) -> None:
        self.connections = connections
        self.is_closed = False
        self._key = key
        self._loop = asyncio.get_running_loop()
        self._users = 0
        self._lingering: asyncio.TimerHandle | None = None
        self._guard = _closed_with_the_loop(self)

    async def open(self) -> None:
        """Have the event loop close this pool at its own end: `asyncio.run` closes what generators are left."""
        await self._guard.asend(None)

    def join(self) -> None:
        """Count one more user."""
        self._users += 1
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None

    async def leave(self) -> None:
        """Count one user less, and close at once with the last one."""
        self._users -= 1
        if self._users <= 0:
            await self.aclose()

    def leave_from_anywhere(self) -> None:
        """Count one user less, from any thread and at any time; connections stay open for a while for the next user."""
        with contextlib.suppress(RuntimeError):
            # The loop may be closed, or about to be, in another thread.
            self._loop.call_soon_threadsafe(self._leave_lingering)
            return
        self.abandon()

    async def aclose(self) -> None:
        """Close the connections."""
        if not self.is_closed:
            await self._guard.aclose()

    def abandon(self) -> None:
        """Close what can be closed now that the event loop is gone."""
        if not self.is_closed:
            self._forget()
            self.connections.abandon()

    def _leave_lingering(self) -> None:
        self._users -= 1
        if self._users <= 0 and not self.is_closed:
            self._lingering = self._loop.call_later(_LINGER_S, self._close_unused)

    def _close_unused(self) -> None:
        if self._users <= 0:
            self._closing = self._loop.create_task(self.aclose())

    async def close_connections(self) -> None:
        """Close the connections, once: only the guard calls this."""
        if not self.is_closed:
            self._forget()
            await self.connections.aclose()

    def _forget(self) -> None:
        self.is_closed = True
        if self._lingering is not None:
            self._lingering.cancel()
        pools = _POOLS.get(self._loop)
        if pools is not None and pools.get(self._key) is self:
            del pools[self._key]
            if not pools:
                _POOLS.pop(self._loop, None)


async def _closed_with_the_loop(pool: Pool) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        await pool.close_connections()


# Entries go when their pool closes: with its last user, with its loop, or when another loop finds it abandoned.
_POOLS: dict[asyncio.AbstractEventLoop, dict[_Key, Pool]] = {}


async def _pool_of(carrier: Carrier, endpoint: Endpoint) -> Pool:
    """The pool of an endpoint in the running event loop."""
    loop = asyncio.get_running_loop()
    if loop not in _POOLS:
        for other, pools in list(_POOLS.items()):
            if other.is_closed():
                for pool in list(pools.values()):
                    pool.abandon()
    key = (carrier.name, endpoint)
    known = _POOLS.get(loop, {}).get(key)
    if known is not None:
        return known
    connections = await carrier.connect(endpoint)
    known = _POOLS.get(loop, {}).get(key)
    if known is not None:
        # Somebody else was quicker, and nothing is open yet.
        connections.abandon()
        return known
    pool = Pool(key, connections)
    _POOLS.setdefault(loop, {})[key] = pool
    await pool.open()
    return pool


class Lease:
    """Is one service's use of an endpoint, in as many event loops as it is called from."""

    def __init__(self, owner: object, carrier: Carrier, endpoint: Endpoint) -> None:
        self._carrier = carrier
        self._endpoint = endpoint
        self._pools: dict[asyncio.AbstractEventLoop, Pool] = {}
        finalizer = weakref.finalize(owner, _leave_all, self._pools)
        # At the end of the process the system closes everything.
        finalizer.atexit = False

    async def connections(self) -> Connections:
        """Return the open connections for the running event loop."""
        loop = asyncio.get_running_loop()
        pool = self._pools.get(loop)
        if pool is None or pool.is_closed:
            for other in [other for other in self._pools if other.is_closed()]:
                self._pools.pop(other).abandon()
            pool = await _pool_of(self._carrier, self._endpoint)
            # Another call of the same owner may have waited for the same pool.
            if self._pools.get(loop) is not pool:
                self._pools[loop] = pool
                pool.join()
        return pool.connections

    async def release(self) -> None:
        """Give up the connections of every loop; those of the running one close at once if nobody else uses them."""
        running = asyncio.get_running_loop()
        while self._pools:
            loop, pool = self._pools.popitem()
            if loop is running:
                await pool.leave()
            else:
                pool.leave_from_anywhere()


def _leave_all(pools: dict[asyncio.AbstractEventLoop, Pool]) -> None:
    while pools:
        pools.popitem()[1].leave_from_anywhere()
