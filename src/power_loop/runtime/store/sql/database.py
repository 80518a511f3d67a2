"""Says what the store asks of a database: transactions whose bodies are coroutines."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

from power_loop.contracts.clock import Clock
from power_loop.contracts.errors import StoreCorruptError, StoreError
from power_loop.contracts.ports import Listener
from power_loop.contracts.upkeep import BackedUp, Checkpointed, Vacuumed
from power_loop.runtime.store.sql.dialect import Dialect

T = TypeVar("T")

Row = tuple[Any, ...]
Params = Sequence[Any]
#: A statement with its parameters.
Statement = tuple[str, Params]


class DuplicateKeyError(StoreCorruptError):
    """Says that a row of this key exists already; who expects that catches it, and makes an end of the transaction."""


class RefusedCommitError(StoreError):
    """Says that a constraint which is checked at COMMIT was broken: nothing of the transaction is there."""


class Counts:
    """Counts what an open database was asked for; `round_trips` and `connections` are a server's."""

    __slots__ = ("commits", "connections", "round_trips", "statements", "transactions")

    def __init__(self) -> None:
        self.transactions = 0
        self.commits = 0
        self.statements = 0
        self.round_trips = 0
        self.connections = 0


class Transaction(Protocol):
    """Runs statements of one transaction. A body awaits nothing but these four."""

    async def execute(self, sql: str, params: Params = ()) -> int:
        """Run a statement and return how many rows it changed."""
        ...

    async def execute_many(self, sql: str, rows: Sequence[Params]) -> int:
        """Run a statement once for each of `rows` and return how many rows all of them changed."""
        ...

    async def execute_all(self, statements: Sequence[Statement]) -> list[int]:
        """Run statements, none of which reads what another one writes, in one round trip where that is possible.

        Returns how many rows each changed. The first is a guard: where it changes no row, what becomes of the others is
        open, and the body has to raise.
        """
        ...

    async def query(self, sql: str, params: Params = ()) -> list[Row]:
        """Return the rows of a query."""
        ...


Body = Callable[[Transaction], Coroutine[Any, Any, T]]
#: Tells whether a write is in the database. It reads with a lock, so that it waits for one that is still on its way.
Landed = Callable[[Transaction], Coroutine[Any, Any, bool]]


class Database(Protocol):
    """Runs transactions. A body may run more than once, so it changes nothing but the database.

    `on_point`, where it is set, is called with `commit.before` and `commit.after` and the name of the move, on the
    thread that commits: a test ends the process, or raises, exactly there. `clock` tells the database's own time.
    """

    dialect: Dialect
    clock: Clock
    on_point: Callable[[str, str], None] | None

    async def open(self, *, create: bool) -> bool:
        """Connect; False if the database does not exist and `create` does not allow to make it."""
        ...

    async def write(self, move: str, body: Body[T], *, landed: Landed | None = None) -> T:
        """Run a body that writes; it is durable when this returns, or has changed nothing when this raises.

        Where the connection is lost during COMMIT, `landed` tells whether the body has to run again; without it, the
        body is one that may run twice.
        """
        ...

    async def read(self, body: Body[T]) -> T:
        """Run a body that reads, on one consistent snapshot."""
        ...

    async def listen(self, channel: str, heard: Callable[[], None]) -> Listener | None:
        """Call `heard`, on a thread of the database's, whenever `dialect.notify` tells something on a channel, and once
        when that comes to its end by itself; None where the database has no such thing."""
        ...

    async def vacuum(self, tables: Sequence[str]) -> Vacuumed:
        """Give the space that removed rows of these tables left back to the disk."""
        ...

    async def checkpoint(self) -> Checkpointed:
        """Bring what stands in a log beside the database into it, where that is not the database's own business."""
        ...

    async def backup(self, path: str, *, overwrite: bool) -> BackedUp:
        """Write the database as it is at one moment into a file. Raises `store.unsupported` where others do that."""
        ...

    async def aclose(self) -> None:
        """End what was begun, then let go of every connection and thread."""
        ...
