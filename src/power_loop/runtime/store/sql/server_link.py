"""Says what a connection to a database server does, and sorts what can go wrong with one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Protocol, TypeVar

from power_loop.contracts.errors import (
    StoreError,
    StoreFullError,
    StoreReadOnlyError,
    StoreRefusedError,
    StoreUnavailableError,
    StoreValueError,
)
from power_loop.runtime.store.sql.database import (
    Counts,
    DuplicateKeyError,
    Params,
    RefusedCommitError,
    Row,
    Statement,
)
from power_loop.runtime.store.sql.dialect import Dialect
from power_loop.runtime.store.sql.server_clock import Reading

T = TypeVar("T")

# How much longer than the server's own limit a statement may take before the connection counts as lost, in seconds:
# only a network that swallows what is sent leaves a statement without an answer for so long.
_SILENCE_S = 5.0
_MAX_TEXT = 500
# What looking after a large table may take, in seconds: a week.
_NO_LIMIT_S = 7 * 86400.0


class Trouble(Enum):
    """Is what went wrong, by what is to be done about it."""

    CONFLICT = "conflict"  # another transaction was in the way: this one runs again
    HELD = "held"  # another transaction kept its locks for too long: this one runs again, if that one moves at all
    LOST = "lost"  # the connection or the server has gone: it runs again on another connection
    CROWDED = "crowded"  # the server takes no more connections: it runs again, later
    READ_ONLY = "read only"  # the server does not write: another connection may lead to one that does
    DUPLICATE = "duplicate"  # a row of this key is there
    FULL = "full"  # the server's disk is
    VALUE = "value"  # a value that the server does not take
    REFUSED = "refused"  # the server does not let this user in, or not do this
    SLOW = "slow"  # the statement took longer than it may
    OTHER = "other"


#: Troubles behind which the transaction runs again.
PASSING = frozenset({Trouble.CONFLICT, Trouble.HELD, Trouble.LOST, Trouble.CROWDED, Trouble.READ_ONLY})
#: Troubles behind which the connection is as good as before, once it is rolled back.
HARMLESS = frozenset({Trouble.CONFLICT, Trouble.HELD, Trouble.DUPLICATE, Trouble.VALUE})

_ERRORS: dict[Trouble, tuple[type[StoreError], str]] = {
    Trouble.CONFLICT: (StoreUnavailableError, "other transactions were in the way all the time; try again"),
    Trouble.HELD: (StoreUnavailableError, "other transactions were in the way all the time; try again"),
    Trouble.LOST: (StoreUnavailableError, "see that the server runs and can be reached from here; try again"),
    Trouble.CROWDED: (StoreUnavailableError, "the server has no connection left: lower pool_size, or raise its limit"),
    Trouble.READ_ONLY: (StoreReadOnlyError, "name the server that writes, or end its read-only state"),
    Trouble.DUPLICATE: (DuplicateKeyError, "a row of this key is there already"),
    Trouble.FULL: (StoreFullError, "free space on the server's disk; what was acknowledged is safe"),
    Trouble.VALUE: (StoreValueError, "the server does not take a value of this size or kind"),
    Trouble.REFUSED: (StoreRefusedError, "see to the user, its password and its rights, and to the database's name"),
    Trouble.SLOW: (StoreUnavailableError, "it took longer than statement_timeout_s allows; try again, or raise that"),
    Trouble.OTHER: (StoreError, "that is nothing that power-loop knows how to mend"),
}


class DriverError(Exception):
    """Carries a trouble with what the driver said, from a driver to where it is decided what to do."""

    def __init__(self, trouble: Trouble, text: str) -> None:
        super().__init__(text)
        self.trouble = trouble
        #: True where the server says itself, in answer to COMMIT, that it committed nothing.
        self.is_rolled_back = False


def coded(failure: DriverError, name: str) -> StoreError:
    """Return our error for a failure; `name` says which database."""
    kind, advice = _ERRORS[failure.trouble]
    error = kind(f"database {name}: {failure}: {advice}")
    error.__cause__ = failure.__cause__
    return error


def refused_commit(failure: DriverError, name: str) -> RefusedCommitError:
    """Return our error for a COMMIT that the server refused."""
    error = RefusedCommitError(f"database {name} did not commit: {failure}: nothing of what was written stays")
    error.__cause__ = failure.__cause__
    return error


def said(error: BaseException) -> str:
    """Return what an error says, in one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}..."


class Link(Protocol):
    """Is one open connection. One transaction at a time uses it, and whatever goes wrong is a `DriverError`."""

    used_s: float
    #: True where nothing may be asked outside of a transaction.
    needs_transaction: bool

    @property
    def is_open(self) -> bool:
        """False where either end has closed it."""
        ...

    async def begin(self, *, is_read: bool) -> None:
        """Begin a transaction: to read on one snapshot, or to write."""
        ...

    async def commit(self) -> None:
        """Commit. Raises the trouble `CONFLICT` only if nothing was committed."""
        ...

    async def rollback(self) -> None:
        """Roll back what was begun."""
        ...

    async def execute(self, sql: str, params: Params) -> int:
        """Run a statement and return how many rows it changed."""
        ...

    async def execute_all(self, statements: Sequence[Statement]) -> list[int]:
        """Run statements in one round trip if possible and return how many rows each changed."""
        ...

    async def query(self, sql: str, params: Params) -> list[Row]:
        """Return the rows of a query."""
        ...

    async def listen(self, channel: str, heard: Callable[[], None]) -> None:
        """Call `heard` whenever something is told on a channel, and when the connection ends."""
        ...

    def lift_limit(self) -> None:
        """Wait for what comes next as long as it takes; no transaction uses this connection afterwards."""
        ...

    async def read_clock(self) -> None:
        """Read the server's clock, now or together with what is sent next."""
        ...

    async def end_standing(self) -> None:
        """End the transactions of processes that stand still, where the server does not do so by itself."""
        ...

    def abort(self) -> None:
        """Drop the connection at once."""
        ...

    async def close(self) -> None:
        """Take leave of the server."""
        ...


class Driver(Protocol):
    """Opens connections to one kind of server."""

    dialect: Dialect
    #: True where a connection may listen to what others tell.
    can_listen: bool

    async def connect(self, counts: Counts, note: Callable[[Reading], None]) -> Link:
        """Return a connection that is set up; `note` takes what the server's clock shows. Raises `DriverError`."""
        ...


class Exchange:
    """Runs what a driver does to its end, however long a silent network would keep it waiting."""

    __slots__ = ("_abort", "_limit_s", "_loop", "_sort", "counts")

    def __init__(
        self, counts: Counts, limit_s: float, *, abort: Callable[[], None], sort: Callable[[Exception], Trouble]
    ) -> None:
        self.counts = counts
        self._limit_s = limit_s + _SILENCE_S
        self._abort = abort
        self._sort = sort
        self._loop = asyncio.get_running_loop()

    def lift_limit(self) -> None:
        """Wait as long as it takes from here on."""
        self._limit_s = _NO_LIMIT_S

    async def __call__(self, work: Any, *, statements: int = 1) -> Any:
        """Await one round trip's work."""
        counts = self.counts
        counts.round_trips += 1
        counts.statements += statements
        alarm = self._loop.call_later(self._limit_s, self._abort)
        try:
            return await work
        except DriverError:
            raise
        except Exception as error:
            # What the driver raises is sorted in one place, its own; another task cannot cancel this one.
            raise DriverError(self._sort(error), said(error)) from error
        finally:
            alarm.cancel()
