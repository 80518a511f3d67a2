"""A bank beside the store: tables of the application's own in the store's database, on every backend."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from power_loop import tool
from power_loop.errors import ToolError
from power_loop.timers import SystemClock
from power_loop.tools import ToolTransaction
from tests.conformance.backends import BACKENDS

_NUMBERS = itertools.count(1)

#: The backends that several handles and processes can share.
SHARED = [backend for backend in BACKENDS if backend.name != "sqlite-memory"]


class Bank:
    """Is a store on one backend, with a table of accounts in its database, in which Ann and Bob have 100 each."""

    def __init__(self, place: Any, store: Any) -> None:
        number = next(_NUMBERS)
        self.place = place
        self.store = store
        self.sid = f"sess_{number}_a"
        self.other = f"sess_{number}_b"
        # A server's tables that begin with the prefix go with the place.
        self.table = f"{getattr(place, 'prefix', '')}accounts_{number}"

    @property
    def dsn(self) -> str:
        return str(self.place.dsn)

    @property
    def prefix(self) -> str:
        return getattr(self.place, "prefix", "pl_")

    async def open(self) -> None:
        """Make the accounts."""
        await self.run(
            f"CREATE TABLE {self.table} (name VARCHAR(20) PRIMARY KEY, cents INTEGER NOT NULL)",
            f"INSERT INTO {self.table} (name, cents) VALUES ('ann', 100), ('bob', 100)",
        )

    async def run(self, *statements: str) -> None:
        """Run statements on the database, past the store."""

        async def body(tx: Any) -> None:
            for statement in statements:
                await tx.execute(statement)

        await self.store._rooms.database.write("test", body)

    async def cents(self) -> dict[str, int]:
        """Return the balance of each account."""

        async def body(tx: Any) -> dict[str, int]:
            rows = await tx.query(f"SELECT name, cents FROM {self.table}")
            return {name: int(cents) for name, cents in rows}

        found: dict[str, int] = await self.store._rooms.database.read(body)
        return found


def move_money(table: str) -> Any:
    """Return a tool whose handler is the body of a transaction."""

    @tool(name="move_money")
    async def move(tx: ToolTransaction, to: str, cents: int) -> str:
        """Move money from Ann to somebody."""
        [(left,)] = await tx.query(f"SELECT cents FROM {table} WHERE name = ?", ("ann",))
        await tx.execute(f"UPDATE {table} SET cents = cents - ? WHERE name = ?", (cents, "ann"))
        if not await tx.execute(f"UPDATE {table} SET cents = cents + ? WHERE name = ?", (cents, to)):
            raise ToolError(f"nobody is called {to}")
        return f"Ann has {left - cents} left."

    return move


@contextlib.asynccontextmanager
async def _town(backend: Any) -> AsyncIterator[tuple[Any, Any]]:
    async with backend.fresh() as place:
        store = await place.open(SystemClock())
        try:
            yield place, store
        finally:
            await store.aclose()


@pytest.fixture(scope="module", params=SHARED, ids=[backend.name for backend in SHARED])
def town(request: pytest.FixtureRequest) -> Iterator[tuple[Any, Any]]:
    """Give the tests of a module one place for each backend, because making its tables takes longer than a test.

    A store serves any event loop: this one stands still while the tests run in theirs.
    """
    loop = asyncio.new_event_loop()
    context = _town(request.param)
    try:
        yield loop.run_until_complete(context.__aenter__())
        loop.run_until_complete(context.__aexit__(None, None, None))
    finally:
        loop.close()


@pytest.fixture
async def bank(town: tuple[Any, Any]) -> Bank:
    made = Bank(*town)
    await made.open()
    return made
