"""Open databases are shared by DSN: many handles, one set of threads, closed with the last user."""

from __future__ import annotations

import asyncio
import gc
import os
import queue
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from power_loop.contracts.errors import SessionNotFoundError, StoreError
from power_loop.runtime.store import open as opening
from power_loop.runtime.store.open import open_store
from power_loop.runtime.store.sql.sqlite_connection import SqliteFile
from power_loop.runtime.store.sql.sqlite_threads import READERS
from power_loop.runtime.store.store import SqlSessionStore
from tests.conformance.parts import one_send
from tests.runtime.store.parts import OwnThreads, open_files

_WRITER_AND_READERS = 1 + READERS


class Left:
    """Is what is there of the stores of a test: their threads, and the databases that others would find open."""

    def __init__(self, own_threads: OwnThreads) -> None:
        self.threads = own_threads
        self._before = set(opening._OPEN)

    def databases(self) -> set[object]:
        return set(opening._OPEN) - self._before

    async def all_gone(self) -> None:
        """Wait until none of the threads is left."""
        for thread in self.threads():
            await asyncio.to_thread(thread.join, 60)
        assert self.threads() == []


@pytest.fixture
def left(own_threads: OwnThreads) -> Left:
    return Left(own_threads)


async def test_two_hundred_handles_use_as_many_threads_and_connections_as_one(tmp_path: Path, left: Left) -> None:
    dsn = str(tmp_path / "app.db")
    first = await open_store(dsn)
    await first.create_session("sess_0", system_prompt=None, metadata={})
    for _ in range(4):
        await first.get_session("sess_0")
    files = open_files(tmp_path)

    async def request(number: int) -> None:
        store = await open_store(dsn)
        await store.create_session(f"sess_{number}", system_prompt=None, metadata={})
        await one_send(store, f"sess_{number}")
        assert (await store.get_session(f"sess_{number}")).send_count == 1
        await store.aclose()

    await asyncio.gather(*(request(number) for number in range(1, 201)))
    assert len(left.threads()) <= _WRITER_AND_READERS
    assert open_files(tmp_path) <= files + 3 * READERS
    await first.aclose()
    await left.all_gone()
    assert open_files(tmp_path) == 0


async def test_two_hundred_first_requests_at_once_open_once(tmp_path: Path, left: Left) -> None:
    dsn = str(tmp_path / "app.db")
    stores = await asyncio.gather(*(open_store(dsn) for _ in range(200)))
    assert len({id(store.memo) for store in stores}) == 1
    assert len(left.threads()) <= _WRITER_AND_READERS
    for store in stores[:-1]:
        await store.aclose()
    # The last user still has it.
    await stores[-1].create_session("sess_1", system_prompt=None, metadata={})
    await stores[-1].aclose()
    await left.all_gone()


async def test_names_of_one_file_are_one_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    os.symlink(tmp_path / "app.db", tmp_path / "link.db")
    first = await open_store("app.db")
    same = [
        await open_store(dsn)
        for dsn in ("./app.db", str(tmp_path / "app.db"), "folder/../app.db", "sqlite:///app.db", "link.db",
                    f"sqlite:///{tmp_path}/app.db", tmp_path / "app.db")
    ]  # fmt: skip
    assert all(store.memo is first.memo for store in same)
    other = await open_store("other.db")
    relaxed = await open_store("app.db?synchronous=normal")
    assert other.memo is not first.memo
    assert relaxed.memo is not first.memo
    await first.create_session("sess_1", system_prompt=None, metadata={})
    assert (await relaxed.get_session("sess_1")).id == "sess_1"
    for store in (first, *same, other, relaxed):
        await store.aclose()


async def test_every_database_in_memory_is_one_of_its_own(left: Left) -> None:
    first, second = await open_store(":memory:"), await open_store(":memory:")
    await first.create_session("sess_1", system_prompt=None, metadata={})
    with pytest.raises(SessionNotFoundError):
        await second.get_session("sess_1")
    await first.aclose()
    await second.aclose()
    await left.all_gone()


async def test_a_handle_is_given_back_once(tmp_path: Path, left: Left) -> None:
    dsn = str(tmp_path / "app.db")
    first, second = await open_store(dsn), await open_store(dsn)
    await first.aclose()
    await first.aclose()
    await asyncio.gather(first.aclose(), first.aclose())
    await second.create_session("sess_1", system_prompt=None, metadata={})
    for call in (
        first.get_session("sess_1"),
        first.create_session("sess_2", system_prompt=None, metadata={}),
        one_send(first, "sess_1"),
    ):
        with pytest.raises(StoreError) as caught:
            await call
        assert "closed" in str(caught.value)
    await second.aclose()
    await left.all_gone()


async def test_a_forgotten_handle_is_given_back(tmp_path: Path, left: Left, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "LINGER_S", 0.0)
    store = await open_store(tmp_path / "app.db")
    await store.create_session("sess_1", system_prompt=None, metadata={})
    del store
    gc.collect()
    await left.all_gone()
    assert open_files(tmp_path) == 0
    memory = await open_store(":memory:")
    assert len(left.threads()) == 1
    del memory
    gc.collect()
    await left.all_gone()


async def test_a_database_lingers_after_a_forgotten_last_user(
    tmp_path: Path, left: Left, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert opening.LINGER_S >= 1, "requests of a server come closer together"
    # On a busy machine they do not.
    monkeypatch.setattr(opening, "LINGER_S", 600.0)
    dsn = str(tmp_path / "app.db")
    threads = set()

    async def request(number: int) -> None:
        store = await open_store(dsn)
        await store.create_session(f"sess_{number}", system_prompt=None, metadata={})
        threads.update(left.threads())

    # What other tests left behind need not be looked through each time.
    gc.freeze()
    try:
        for number in range(20):
            await request(number)
            gc.collect()
    finally:
        gc.unfreeze()
    assert len(threads) <= _WRITER_AND_READERS
    last = await open_store(dsn)
    await last.aclose()
    await left.all_gone()


async def test_a_handle_that_comes_while_the_database_lingers_keeps_it(
    tmp_path: Path, left: Left, monkeypatch: pytest.MonkeyPatch
) -> None:
    due: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
    dsn = str(tmp_path / "app.db")
    forgotten = await open_store(dsn)
    # Of this one: another test may have forgotten one as well.
    monkeypatch.setattr(forgotten._rooms.database, "call_later", lambda seconds, act: due.put(act))
    kept_memo = forgotten.memo
    del forgotten
    gc.collect()
    close_if_unused = await asyncio.to_thread(due.get, timeout=60)
    kept = await open_store(dsn)
    assert kept.memo is kept_memo
    # Its time is over, before what comes next on the same thread.
    kept._rooms.database.post(close_if_unused)
    await kept.create_session("sess_1", system_prompt=None, metadata={})
    await kept.aclose()
    await left.all_gone()


async def test_handles_of_many_event_loops_share_one_database(tmp_path: Path, left: Left) -> None:
    dsn = str(tmp_path / "app.db")
    keeper = await open_store(dsn)
    counts: list[int] = []

    def serve(number: int) -> None:
        async def main() -> None:
            store = await open_store(dsn)
            await store.create_session(f"sess_{number}", system_prompt=None, metadata={})
            await one_send(store, f"sess_{number}")
            counts.append(len(left.threads()))
            await store.aclose()

        asyncio.run(main())

    await asyncio.gather(*(asyncio.to_thread(serve, number) for number in range(12)))
    assert max(counts) <= _WRITER_AND_READERS
    assert len((await keeper.list_sessions()).items) == 12
    await keeper.aclose()
    await left.all_gone()


async def test_a_file_that_was_replaced_is_not_served_from_the_open_one(tmp_path: Path, left: Left) -> None:
    path = tmp_path / "app.db"
    old = await open_store(path)
    await old.create_session("sess_1", system_prompt=None, metadata={})
    for name in os.listdir(tmp_path):
        os.unlink(tmp_path / name)
    fresh = await open_store(path)
    assert fresh.memo is not old.memo
    with pytest.raises(SessionNotFoundError):
        await fresh.get_session("sess_1")
    await old.aclose()
    await fresh.create_session("sess_2", system_prompt=None, metadata={})
    again = await open_store(path)
    assert (await again.get_session("sess_2")).id == "sess_2"
    await again.aclose()
    await fresh.aclose()
    await left.all_gone()


async def test_an_opening_that_fails_leaves_nothing_behind(tmp_path: Path, left: Left) -> None:
    (tmp_path / "app.db").write_text("this is no database, and long enough to be read as one")
    outcomes = await asyncio.gather(*(open_store(tmp_path / "app.db") for _ in range(20)), return_exceptions=True)
    assert {getattr(outcome, "code", None) for outcome in outcomes} == {"store.not_a_database"}
    await left.all_gone()
    assert left.databases() == set()


async def test_an_opening_that_is_cancelled_leaves_nothing_behind(tmp_path: Path, left: Left) -> None:
    tasks = [asyncio.create_task(open_store(tmp_path / "app.db")) for _ in range(20)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await left.all_gone()
    assert left.databases() == set()
    store = await open_store(tmp_path / "app.db")
    await store.create_session("sess_1", system_prompt=None, metadata={})
    await store.aclose()


async def test_a_database_is_touched_off_the_event_loop_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connected: list[str] = []
    connect = SqliteFile.connect

    def watched(self: SqliteFile, **members: Any) -> sqlite3.Connection:
        connected.append(threading.current_thread().name)
        return connect(self, **members)

    monkeypatch.setattr(SqliteFile, "connect", watched)
    store = await open_store(tmp_path / "app.db")
    await store.create_session("sess_1", system_prompt=None, metadata={})
    await store.get_session("sess_1")
    await store.aclose()
    # A connection refuses every thread but the one that made it.
    assert connected[0] == "power-loop-store-writer"
    assert {name.rpartition("-")[0] for name in connected[1:]} == {"power-loop-store-reader"}


async def test_an_idle_handle_is_small_and_quick(tmp_path: Path) -> None:
    keeper = await open_store(tmp_path / "app.db")
    before = len(gc.get_objects())
    handles = [await open_store(tmp_path / "app.db") for _ in range(100)]
    # Counted in objects, because bytes and time differ between machines.
    assert (len(gc.get_objects()) - before) / len(handles) < 20
    assert all(isinstance(handle, SqlSessionStore) for handle in handles)
    for handle in (keeper, *handles):
        await handle.aclose()
