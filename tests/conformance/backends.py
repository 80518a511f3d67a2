"""Names the backends that the suite runs on. Another one joins with one class here."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

from power_loop.contracts.clock import Clock
from power_loop.contracts.ports import SessionStore
from power_loop.runtime.store.open import open_store


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


BACKENDS = (SqliteFile, SqliteMemory)
