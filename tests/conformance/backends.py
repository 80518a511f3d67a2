"""Names the backends that the suite runs on. Another one joins with one class here."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

import pytest

from power_loop.contracts.clock import Clock
from power_loop.contracts.ports import SessionStore
from power_loop.runtime.store.open import open_store
from power_loop.runtime.store.sql.tables import SCHEMA_MIGRATIONS, TABLES
from tests.servers import find_server, shared_database, shared_server


class Place(Protocol):
    """Is one fresh database, on which a test opens as many handles as it likes."""

    async def open(self, clock: Clock) -> SessionStore:
        """Return a handle."""
        ...


class SqliteFile:
    """Is a SQLite file in a folder of its own."""

    name = "sqlite"

    def __init__(self, folder: Path) -> None:
        self.dsn = str(folder / "app.db")

    async def open(self, clock: Clock) -> SessionStore:
        return await open_store(self.dsn, clock=clock)

    @classmethod
    @contextlib.asynccontextmanager
    async def fresh(cls) -> AsyncIterator[Place]:
        with tempfile.TemporaryDirectory() as folder:
            yield cls(Path(folder))


class SqliteMemory:
    """Is a SQLite database in memory, whose handles are the same one, because every other would be another database."""

    name = "sqlite-memory"

    def __init__(self) -> None:
        self.store: SessionStore | None = None

    async def open(self, clock: Clock) -> SessionStore:
        if self.store is None:
            self.store = await open_store(":memory:", clock=clock)
        return self.store

    @classmethod
    @contextlib.asynccontextmanager
    async def fresh(cls) -> AsyncIterator[Place]:
        place = cls()
        yield place
        if place.store is not None:
            await place.store.aclose()


class Tables:
    """Is a set of tables under a prefix of their own, beside other sets in one database."""

    def __init__(self, dsn: str, prefix: str) -> None:
        self.dsn, self.prefix = dsn, prefix

    async def open(self, clock: Clock) -> SessionStore:
        return await open_store(self.dsn, table_prefix=self.prefix, clock=clock)


class DatabaseServer:
    """Is a server that all tests of the run share; a test is skipped where there is none.

    Making tables takes a server longer than most tests do, so a process makes them once, and empties them behind each.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._tables: Tables | None = None

    @contextlib.asynccontextmanager
    async def fresh(self) -> AsyncIterator[Place]:
        kind = find_server(self.name)
        if kind.missing is not None:
            pytest.skip(str(kind))
        if self._tables is None:
            self._tables = Tables(shared_database(self.name), "t_")
        try:
            yield self._tables
        finally:
            self._empty(self._tables)

    def _empty(self, tables: Tables) -> None:
        names = [table.name for table in TABLES if table is not SCHEMA_MIGRATIONS]
        shared_server(self.name).run(*(f"DELETE FROM {tables.prefix}{name}" for name in names), dsn=tables.dsn)


SERVERS = tuple(DatabaseServer(name) for name in ("postgres", "mysql", "mariadb"))
BACKENDS = (SqliteFile, SqliteMemory, *SERVERS)
