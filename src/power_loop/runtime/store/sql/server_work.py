"""Runs transactions on a database server, on its own event loop: tries again, and settles commits that were lost."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Generator, Sequence
from types import CoroutineType
from typing import Any, NoReturn

from power_loop.contracts.errors import PowerLoopError, StoreError, StoreUnavailableError, TransactionError
from power_loop.runtime.store.server_dsn import ServerDsn
from power_loop.runtime.store.sql.database import Body, Counts, Landed, T
from power_loop.runtime.store.sql.server_clock import ServerClock
from power_loop.runtime.store.sql.server_link import (
    HARMLESS,
    PASSING,
    Driver,
    DriverError,
    Link,
    Trouble,
    coded,
    refused_commit,
)
from power_loop.runtime.store.sql.server_pool import Pool
from power_loop.runtime.store.sql.server_transaction import NeedsSnapshotError, ServerTransaction

# The first and the longest pause between two tries, in seconds; each is cut by chance, so that rivals part.
_FIRST_PAUSE_S = 0.005
_MAX_PAUSE_S = 0.5
# How long a server that does not write is looked at again: behind a name that moves, its successor may answer soon.
_READ_ONLY_S = 2.0
# What a server may need, beyond the time for tries, until it ends a transaction whose client has gone, in seconds.
_SETTLE_S = 20.0


class Server:
    """Is one database on a server, as its own event loop sees it."""

    def __init__(
        self, driver: Driver, dsn: ServerDsn, *, clock: ServerClock, counts: Counts, tell: Callable[[str, str], None]
    ) -> None:
        self.pool = Pool(driver, dsn, counts=counts, note=clock.note)
        self._dsn = dsn
        self._clock = clock
        self._counts = counts
        self._tell = tell
        # The first queries of bodies that asked for more: they begin with a snapshot at once.
        self._long_reads: set[str] = set()
        self._endings: set[asyncio.Task[None]] = set()
        self._listening: set[Link] = set()

    async def open(self) -> None:
        """Connect, if nobody has yet."""
        patience = _Patience(self._dsn.retry_s)
        self.pool.give(await self._link(patience))

    async def close(self) -> None:
        """Let go of every connection; nothing runs any more."""
        while self._endings:
            await asyncio.wait(self._endings)
        for link in tuple(self._listening):
            self.end_listening(link)
        await self.pool.close()

    # ---- writing ----

    async def write(self, move: str, body: Body[T], landed: Landed | None) -> T:
        """Run a body until it is committed. Raises what it raises, or why it cannot be run."""
        patience = _Patience(self._dsn.retry_s)
        lost: _LostCommit | None = None
        while True:
            try:
                return await self._write_once(move, body, patience)
            except DriverError as failure:  # noqa: PERF203 - a few tries at most
                await self._pause(patience, failure)
            except _LostCommit as found:
                lost = found
                if landed is not None and await self._has_landed(move, landed, lost):
                    self._tell_after(move)
                    return lost.value  # type: ignore[no-any-return]
                await self._pause(patience, lost.failure)
            except PowerLoopError:
                # What the body met may be its own first try, which was still on its way when it was looked for.
                if lost is not None and landed is not None and await self._has_landed(move, landed, lost):
                    return lost.value  # type: ignore[no-any-return]
                raise

    async def _write_once(self, move: str, body: Body[T], patience: _Patience) -> T:
        """Run a body once. Raises `DriverError` where it may run again, `_LostCommit` where nobody knows."""
        link = await self._link(patience)
        tx = ServerTransaction(link, self._dsn.name)
        is_over = False
        try:
            value = await self._run(tx, body, is_read=False)
            self._tell_before(move)
            try:
                await link.commit()
            except DriverError as failure:
                if failure.trouble is Trouble.CONFLICT:
                    tx.failure = failure
                    raise
                tx.failure = failure
                if failure.is_rolled_back:
                    raise refused_commit(failure, self._dsn.name) from failure.__cause__
                raise _LostCommit(value, failure) from failure
            is_over = True
        finally:
            await self._put_back(tx, is_over=is_over)
        self._counts.commits += 1
        self._tell_after(move)
        return value

    async def _has_landed(self, move: str, landed: Landed, lost: _LostCommit) -> bool:
        """Look whether a write is in the database whose connection was lost during COMMIT."""
        patience = _Patience(self._dsn.retry_s + _SETTLE_S)
        while True:
            try:
                link = await self._link(patience)
                tx = ServerTransaction(link, self._dsn.name)
                try:
                    return await self._run(tx, landed, is_read=False)
                finally:
                    await self._put_back(tx, is_over=False)
            except DriverError as failure:  # noqa: PERF203 - a few tries at most
                try:
                    await self._pause(patience, failure)
                except StoreError as error:
                    raise StoreUnavailableError(
                        f"database {self._dsn.name}: the connection was lost during the COMMIT of {move!r}; it could"
                        f" not be found out whether that landed ({failure}): look at it before you try again"
                    ) from error

    # ---- reading ----

    async def read(self, body: Body[T]) -> T:
        """Run a body that reads: a single query by itself, several ones on one snapshot."""
        patience = _Patience(self._dsn.retry_s)
        needs_snapshot = False
        while True:
            try:
                return await self._read_once(body, patience, needs_snapshot=needs_snapshot)
            except NeedsSnapshotError as error:  # noqa: PERF203 - a few tries at most
                self._long_reads.add(error.first)
                needs_snapshot = True
            except DriverError as failure:
                await self._pause(patience, failure)

    async def _read_once(self, body: Body[T], patience: _Patience, *, needs_snapshot: bool) -> T:
        link = await self._link(patience)
        needs_snapshot |= link.needs_transaction
        long_reads = None if needs_snapshot else self._long_reads
        tx = ServerTransaction(link, self._dsn.name, reads=True, long_reads=long_reads)
        is_done = False
        try:
            value = await self._run(tx, body, is_read=True)
            is_done = True
        finally:
            if not is_done or tx.failure is not None:
                await self._put_back(tx, is_over=False)
            elif not tx.has_begun:
                self.pool.give(link)
            else:
                # Who reads does not wait for the end of the snapshot.
                ending = asyncio.get_running_loop().create_task(self._put_back(tx, is_over=False))
                self._endings.add(ending)
                ending.add_done_callback(self._endings.discard)
        return value

    # ---- beside transactions ----

    async def run_apart(self, statements: Sequence[str]) -> None:
        """Run statements by themselves, however long they take, on a connection that ends with them."""
        link = await self._link(_Patience(self._dsn.retry_s))
        try:
            link.lift_limit()
            for sql in statements:
                for row in await link.query(sql, ()):
                    # MySQL tells a failure to look after a table as a row: table, operation, kind of message, text.
                    if "error" in row[2:3]:
                        raise DriverError(Trouble.OTHER, f"{sql}: {row[3]}")
        except DriverError as failure:
            raise coded(failure, self._dsn.name) from failure.__cause__
        finally:
            self.pool.drop(link)

    async def listen(self, channel: str, heard: Callable[[], None]) -> Link:
        """Return a connection of its own that listens on a channel until `end_listening`. It is tried once."""
        try:
            link = await self.pool.connect()
            self._listening.add(link)
            try:
                await link.listen(channel, heard)
            except BaseException:
                self.end_listening(link)
                raise
        except DriverError as failure:
            raise coded(failure, self._dsn.name) from failure.__cause__
        return link

    async def check_listening(self, link: Link) -> None:
        """Look whether a connection that listens still leads to the server; end it if not."""
        try:
            await link.query("SELECT 1", ())
        except DriverError:
            self.end_listening(link)

    def end_listening(self, link: Link) -> None:
        """Listen no longer."""
        self._listening.discard(link)
        link.abort()

    # ---- both ----

    async def _run(self, tx: ServerTransaction, body: Body[T], *, is_read: bool) -> T:
        """Run a body. Raises `DriverError` where it met one behind which it may run again, whatever it made of that."""
        self._counts.transactions += 1
        try:
            if not is_read:
                await tx.begin(is_read=False)
            if self._clock.is_stale and (tx.has_begun or not tx.link.needs_transaction):
                await tx.link.read_clock()
            value: T = await _Driven(body, tx)
        except DriverError as failure:
            tx.failure = tx.failure or failure
            if failure.trouble in PASSING:
                raise
            raise coded(failure, self._dsn.name) from failure.__cause__
        except NeedsSnapshotError:
            raise
        except Exception as error:
            if tx.failure is not None and tx.failure.trouble in PASSING:
                raise tx.failure from error
            raise
        if tx.failure is None:
            return value
        if tx.failure.trouble in PASSING:
            raise tx.failure
        raise coded(tx.failure, self._dsn.name)

    async def _link(self, patience: _Patience) -> Link:
        """Return a connection. Raises a coded error where there is none in time."""
        while True:
            try:
                return await self.pool.take()
            except DriverError as failure:  # noqa: PERF203 - a few tries at most
                if failure.trouble not in PASSING:
                    raise coded(failure, self._dsn.name) from failure.__cause__
                await self._pause(patience, failure)

    async def _put_back(self, tx: ServerTransaction, *, is_over: bool) -> None:
        """Give a connection back to the pool, or close it if anything odd happened to it."""
        link = tx.link
        if tx.failure is not None and tx.failure.trouble not in HARMLESS:
            self.pool.drop(link)
            if tx.failure.trouble in (Trouble.LOST, Trouble.READ_ONLY):
                # The others lead to the same server.
                self.pool.drop_idle()
            return
        try:
            if not is_over and tx.has_begun:
                await link.rollback()
        except DriverError:
            self.pool.drop(link)
        except BaseException:
            self.pool.drop(link)
            raise
        else:
            self.pool.give(link)

    async def _end_standing(self) -> None:
        """End what may hold the locks that this process waited for; if it cannot be done, the next try tells."""
        with contextlib.suppress(DriverError):
            link = await self.pool.take()
            try:
                await link.end_standing()
            except BaseException:
                self.pool.drop(link)
                raise
            self.pool.give(link)

    async def _pause(self, patience: _Patience, failure: DriverError) -> None:
        """Wait before the next try. Raises the coded error if there is none."""
        if failure.trouble is Trouble.HELD:
            await self._end_standing()
        limit_s = _READ_ONLY_S if failure.trouble is Trouble.READ_ONLY else None
        pause_s = patience.next_pause(limit_s)
        if pause_s is None:
            raise coded(failure, self._dsn.name) from failure.__cause__
        await asyncio.sleep(pause_s)

    def _tell_before(self, move: str) -> None:
        try:
            self._tell("commit.before", move)
        except Exception as error:
            self._fail(error)

    def _tell_after(self, move: str) -> None:
        try:
            self._tell("commit.after", move)
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> NoReturn:
        if isinstance(error, StoreError):
            raise error
        raise StoreError(f"database {self._dsn.name} failed: {type(error).__name__}: {error}") from error


class _LostCommit(Exception):  # noqa: N818 - it is no error but a question
    """Carries what a body returned whose COMMIT may have landed or not."""

    def __init__(self, value: Any, failure: DriverError) -> None:
        super().__init__()
        self.value = value
        self.failure = failure


class _Patience:
    """Tells how long to wait before the next try, until the time for tries is over."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._since_s: float | None = None
        self._tries = 0

    def next_pause(self, limit_s: float | None = None) -> float | None:
        """Return the seconds to wait; None where it has been tried for long enough."""
        now = time.monotonic()
        self._since_s = now if self._since_s is None else self._since_s
        if now - self._since_s >= min(self._limit_s, self._limit_s if limit_s is None else limit_s):
            return None
        self._tries += 1
        pause_s: float = min(_FIRST_PAUSE_S * 2 ** min(self._tries, 16), _MAX_PAUSE_S)
        return pause_s * (0.5 + random.random() / 2)


class _Driven:
    """Runs a body, and refuses one that awaits something other than its `tx`."""

    __slots__ = ("_body", "_tx")

    def __init__(self, body: Body[Any], tx: ServerTransaction) -> None:
        self._body = body
        self._tx = tx

    def __await__(self) -> Generator[Any, Any, Any]:
        coroutine = self._body(self._tx)
        if not isinstance(coroutine, CoroutineType):
            raise TransactionError(f"the body of a transaction is no async function: it returned {coroutine!r}")
        tx = self._tx
        step: Callable[[Any], Any] = coroutine.send
        value: Any = None
        while True:
            try:
                awaited = step(value)
            except StopIteration as stop:
                return stop.value
            if not tx.is_waiting:
                # A body that holds on to what it waits for is left where it is.
                with contextlib.suppress(RuntimeError):
                    coroutine.close()
                raise TransactionError(
                    f"a transaction awaited {awaited!r}: its body may await nothing but its tx, so that it never holds"
                    " the database while it waits; do the rest before or after it"
                )
            try:
                value, step = (yield awaited), coroutine.send
            except BaseException as error:
                value, step = error, coroutine.throw
