"""Says what the store asks of a database: transactions whose bodies are coroutines."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

from power_loop.contracts.errors import StoreCorruptError
from power_loop.runtime.store.sql.dialect import Dialect

T = TypeVar("T")

Row = tuple[Any, ...]
Params = Sequence[Any]


class DuplicateKeyError(StoreCorruptError):
    """Says that a row of this key exists already; who expects that catches it inside of the transaction."""


class Transaction(Protocol):
    """Runs statements of one transaction. A body awaits nothing but these three."""

    async def execute(self, sql: str, params: Params = ()) -> int:
        """Run a statement and return how many rows it changed."""
        ...

    async def execute_many(self, sql: str, rows: Sequence[Params]) -> int:
        """Run a statement once for each of `rows` and return how many rows all of them changed."""
        ...

    async def query(self, sql: str, params: Params = ()) -> list[Row]:
        """Return the rows of a query."""
        ...


Body = Callable[[Transaction], Coroutine[Any, Any, T]]


class Database(Protocol):
    """Runs transactions. A body may run more than once, so it changes nothing but the database.

    `on_point`, where it is set, is called with `commit.before` and `commit.after` and the name of the move, on the
    thread that commits: a test ends the process, or raises, exactly there.
    """

    dialect: Dialect
    on_point: Callable[[str, str], None] | None

    async def open(self, *, create: bool) -> bool:
        """Connect; False if the database does not exist and `create` does not allow to make it."""
        ...

    async def write(self, move: str, body: Body[T]) -> T:
        """Run a body that writes; it is durable when this returns, or has changed nothing when this raises."""
        ...

    async def read(self, body: Body[T]) -> T:
        """Run a body that reads, on one consistent snapshot."""
        ...

    async def aclose(self) -> None:
        """End what was begun, then let go of every connection and thread."""
        ...
