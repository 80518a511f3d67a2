"""Gives a test a bare SQLite database behind the port, and a way to count what it commits."""

from __future__ import annotations

import sys
import traceback
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from power_loop.runtime.store.sql.sqlite import SqliteDatabase
from power_loop.runtime.store.sql.sqlite_connection import SqliteFile
from tests.runtime.store.parts import OwnThreads, store_threads


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[SqliteDatabase]:
    opened = SqliteDatabase(SqliteFile(str(tmp_path / "bare.db")))
    await opened.open(create=True)

    async def make(tx) -> None:
        await tx.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, word TEXT)")

    await opened.write("make", make)
    yield opened
    await opened.aclose()


@pytest.fixture
def own_threads() -> OwnThreads:
    """Tell the threads of the test's own stores from those that another test of this process has left to end."""
    before = set(store_threads())
    return lambda: [thread for thread in store_threads() if thread not in before]


@pytest.fixture(autouse=True)
def no_thread_is_left(own_threads: OwnThreads) -> Iterator[None]:
    yield
    for thread in own_threads():
        thread.join(60)
        if thread.is_alive():
            frame = sys._current_frames().get(thread.ident or 0)
            pytest.fail(f"{thread.name} is left, here:\n{''.join(traceback.format_stack(frame))}")
