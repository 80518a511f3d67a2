"""Is one transaction on a database server, as its body sees it."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import TypeVar

from power_loop.contracts.errors import StoreError, TransactionError
from power_loop.runtime.store.sql.database import Params, Row, Statement
from power_loop.runtime.store.sql.server_link import DriverError, Link, coded

T = TypeVar("T")


class NeedsSnapshotError(Exception):
    """Says that a body that reads asks a second question, and so has to begin anew on one snapshot."""

    def __init__(self, first: str) -> None:
        super().__init__()
        self.first = first


class ServerTransaction:
    """Runs statements on one connection and keeps what went wrong first, whatever the body makes of it.

    One that `reads` begins without a snapshot if its first query is none of `long_reads`.
    """

    __slots__ = ("_first", "_long_reads", "_name", "_reads", "failure", "has_begun", "is_waiting", "link")

    def __init__(self, link: Link, name: str, *, reads: bool = False, long_reads: set[str] | None = None) -> None:
        self.link = link
        self.failure: DriverError | None = None
        # True where the driver is what the body waits for.
        self.is_waiting = False
        self.has_begun = False
        self._name = name
        self._reads = reads
        self._long_reads = long_reads
        self._first: str | None = None

    async def begin(self, *, is_read: bool) -> None:
        """Begin; what goes wrong is a `DriverError`."""
        self.has_begun = True
        await self.link.begin(is_read=is_read)

    async def execute(self, sql: str, params: Params = ()) -> int:
        """Run a statement and return how many rows it changed."""
        self._check_writes()
        return await self._wait(self.link.execute(sql, params))

    async def execute_many(self, sql: str, rows: Sequence[Params]) -> int:
        """Run a statement once for each of `rows` and return how many rows all of them changed."""
        self._check_writes()
        return sum([await self._wait(self.link.execute(sql, row)) for row in rows])

    async def execute_all(self, statements: Sequence[Statement]) -> list[int]:
        """Run statements and return how many rows each changed."""
        self._check_writes()
        return await self._wait(self.link.execute_all(statements))

    async def query(self, sql: str, params: Params = ()) -> list[Row]:
        """Return the rows of a query."""
        if not self.has_begun:
            if self._first is not None:
                raise NeedsSnapshotError(self._first)
            self._first = sql
            if self._long_reads is None or sql in self._long_reads:
                await self._wait(self.begin(is_read=True))
        return await self._wait(self.link.query(sql, params))

    def _check_writes(self) -> None:
        """Refuse what would change something outside of a transaction."""
        if self._reads:
            raise TransactionError("a transaction that was begun to read may change nothing: let it be a write")

    async def _wait(self, work: Awaitable[T]) -> T:
        self.is_waiting = True
        try:
            return await work
        except DriverError as failure:
            self.failure = self.failure or failure
            raise self._coded(failure) from failure.__cause__
        finally:
            self.is_waiting = False

    def _coded(self, failure: DriverError) -> StoreError:
        return coded(failure, self._name)
