"""The writing thread: what waits together is committed together, and nobody pays for another's failure."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import sqlite3
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest

from power_loop.contracts.errors import (
    StoreError,
    StoreFullError,
    StoreUnavailableError,
    StoreValueError,
    TransactionError,
)
from power_loop.runtime.store.sql.database import DuplicateKeyError, RefusedCommitError
from power_loop.runtime.store.sql.sqlite import SqliteDatabase
from power_loop.runtime.store.sql.sqlite_connection import SqliteFile
from power_loop.runtime.store.sql.sqlite_threads import MAX_BATCH, READERS
from tests.runtime.store.parts import Points, put, words


class Gate:
    """Holds the writing thread inside of a transaction, so that others have to wait for it."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    async def body(self, tx: Any) -> None:
        self.entered.set()
        assert self.opened.wait(30)


async def _behind(gate: Gate, database: SqliteDatabase, *bodies: Any) -> list[Any]:
    """Let bodies pile up while the writer is held; return their outcomes."""
    held = asyncio.create_task(database.write("gate", gate.body))
    await asyncio.to_thread(gate.entered.wait, 30)
    tasks = [asyncio.create_task(database.write(f"move {n}", body)) for n, body in enumerate(bodies)]
    await asyncio.sleep(0)
    gate.opened.set()
    await held
    return await asyncio.gather(*tasks, return_exceptions=True)


async def test_what_waits_together_is_committed_once(database: SqliteDatabase) -> None:
    points = database.on_point = Points()
    outcomes = await _behind(Gate(), database, *(put(str(n)) for n in range(100)))
    assert outcomes == [str(n) for n in range(100)]
    assert points.commits == [["gate"], [f"move {n}" for n in range(100)]]
    assert await words(database) == [str(n) for n in range(100)]


async def test_a_commit_takes_no_more_than_its_limit(database: SqliteDatabase) -> None:
    points = database.on_point = Points()
    await _behind(Gate(), database, *(put(str(n)) for n in range(2 * MAX_BATCH + 1)))
    assert [len(moves) for moves in points.commits] == [1, MAX_BATCH, MAX_BATCH, 1]
    assert len(await words(database)) == 2 * MAX_BATCH + 1


async def test_one_that_commit_refuses_takes_no_others_with_it(database: SqliteDatabase) -> None:
    async def make(tx: Any) -> None:
        await tx.execute("CREATE TABLE kid (id INTEGER REFERENCES t(id) DEFERRABLE INITIALLY DEFERRED)")

    async def breaks(tx: Any) -> None:
        await tx.execute("INSERT INTO kid (id) VALUES (77)")

    await database.write("make", make)
    outcomes = await _behind(Gate(), database, put("a"), breaks, put("b"), breaks)
    assert [outcomes[0], outcomes[2]] == ["a", "b"]
    assert [type(outcomes[1]), type(outcomes[3])] == [RefusedCommitError, RefusedCommitError]
    with pytest.raises(RefusedCommitError, match="FOREIGN KEY"):
        await database.write("alone", breaks)
    assert await words(database) == ["a", "b"]


async def test_one_that_fails_among_many_is_undone_alone(database: SqliteDatabase) -> None:
    async def fails_late(tx: Any) -> None:
        await tx.execute("INSERT INTO t (word) VALUES ('half')")
        await tx.execute("UPDATE t SET word = 'ruined'")
        raise LookupError("mine")

    async def bad_sql(tx: Any) -> None:
        await tx.execute("INSERT INTO t (word) VALUES ('half')")
        await tx.execute("SELECT nothing FROM nowhere")

    points = database.on_point = Points()
    outcomes = await _behind(
        Gate(), database, put("a"), fails_late, put("b"), bad_sql, put("c", key=1), put("d", key=1), put("e")
    )
    assert [type(outcome) for outcome in outcomes] == [
        str,
        LookupError,
        str,
        StoreError,
        DuplicateKeyError,
        DuplicateKeyError,
        str,
    ]
    assert await words(database) == ["a", "b", "e"]
    assert points.commits[-1] == ["move 0", "move 2", "move 6"]


async def test_one_that_fails_alone_leaves_nothing_and_commits_nothing(database: SqliteDatabase) -> None:
    points = database.on_point = Points()

    async def fails(tx: Any) -> None:
        await tx.execute("INSERT INTO t (word) VALUES ('half')")
        raise LookupError("mine")

    with pytest.raises(LookupError):
        await database.write("fails", fails)
    outcomes = await _behind(Gate(), database, fails, fails)
    assert [type(outcome) for outcome in outcomes] == [LookupError, LookupError]
    assert points.commits == [["gate"]]
    assert await words(database) == []


@pytest.mark.parametrize("count", [1, 3])
async def test_a_body_that_awaits_something_else_is_refused_and_undone(database: SqliteDatabase, count: int) -> None:
    reached = []

    async def sleeps(tx: Any) -> None:
        await tx.execute("INSERT INTO t (word) VALUES ('half')")
        try:
            await asyncio.sleep(0)
        finally:
            reached.append("finally")
        reached.append("never")

    outcomes = await _behind(Gate(), database, sleeps, *(put(str(n)) for n in range(count - 1)))
    assert isinstance(outcomes[0], TransactionError)
    assert outcomes[0].code == "store.transaction_misuse"
    assert reached == ["finally"]
    assert await words(database) == [str(n) for n in range(count - 1)]


async def test_a_body_that_waits_for_a_future_or_holds_on_is_refused(database: SqliteDatabase) -> None:
    loop = asyncio.get_running_loop()

    async def waits(tx: Any) -> None:
        await loop.create_future()

    async def stubborn(tx: Any) -> None:
        try:
            await asyncio.sleep(0)
        except GeneratorExit:
            await asyncio.sleep(0)

    def no_coroutine(tx: Any) -> int:
        return 7

    for body in (waits, stubborn, no_coroutine):
        with pytest.raises(TransactionError):
            await database.write("misuse", body)  # type: ignore[arg-type]
        with pytest.raises(TransactionError):
            await database.read(body)  # type: ignore[arg-type]
    assert await database.write("fine", put("after")) == "after"


async def test_a_commit_that_fails_is_told_to_all_who_were_in_it(database: SqliteDatabase) -> None:
    await database.write("first", put("kept"))

    def broken(point: str, move: str) -> None:
        if point == "commit.before" and move == "move 1":
            raise sqlite3.OperationalError("disk I/O error")

    database.on_point = broken
    outcomes = await _behind(Gate(), database, *(put(str(n)) for n in range(5)))
    assert [type(outcome) for outcome in outcomes] == [StoreUnavailableError] * 5
    assert len({id(outcome) for outcome in outcomes}) == 5
    assert all(outcome.retryable for outcome in outcomes)
    database.on_point = None
    assert await words(database) == ["kept"]
    assert await database.write("later", put("again")) == "again"
    assert await words(database) == ["kept", "again"]


async def test_a_full_disk_fails_those_who_do_not_fit_and_no_others(database: SqliteDatabase) -> None:
    def full(point: str, move: str) -> None:
        if point == "commit.before" and move == "move 1":
            raise sqlite3.OperationalError("database or disk is full")

    database.on_point = full
    outcomes = await _behind(Gate(), database, *(put(str(n)) for n in range(3)))
    assert outcomes[0] == "0"
    assert isinstance(outcomes[1], StoreFullError)
    assert outcomes[2] == "2"
    assert await words(database) == ["0", "2"]


async def test_an_acknowledgement_that_is_lost_does_not_undo_what_was_committed(database: SqliteDatabase) -> None:
    def lost(point: str, move: str) -> None:
        if point == "commit.after":
            raise ConnectionError("lost")

    database.on_point = lost
    with pytest.raises(StoreError):
        await database.write("move", put("landed"))
    database.on_point = None
    assert await words(database) == ["landed"]


async def test_values_that_no_database_holds_are_refused_one_by_one(database: SqliteDatabase) -> None:
    async def too_big(tx: Any) -> None:
        await tx.execute("INSERT INTO t (id) VALUES (?)", (1 << 70,))

    async def surrogate(tx: Any) -> None:
        await tx.execute("INSERT INTO t (word) VALUES (?)", ("\ud800",))

    async def too_long(tx: Any) -> None:
        await tx.execute("INSERT INTO t (word) VALUES (zeroblob(1100000000))")

    outcomes = await _behind(Gate(), database, put("a"), too_big, surrogate, too_long, put("b"))
    assert [type(outcome) for outcome in outcomes[1:4]] == [StoreValueError] * 3
    assert {outcome.code for outcome in outcomes[1:4]} == {"store.value_too_large"}
    assert await words(database) == ["a", "b"]


async def test_a_thousand_cancelled_writers_leave_no_transaction_open(database: SqliteDatabase) -> None:
    rng = random.Random(7)
    ended: list[str] = []

    async def write(number: int) -> None:
        try:
            await database.write("move", put(str(number)))
            ended.append("done")
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    tasks = [asyncio.create_task(write(number)) for number in range(1500)]
    for task in rng.sample(tasks, 1000):
        task.cancel()
        if rng.random() < 0.05:
            await asyncio.sleep(0)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert ended.count("done") >= 500
    assert await database.write("after", put("after")) == "after"
    stored = await words(database)
    # Whoever was told that it is done has its row; a cancelled one has it once or not at all.
    assert stored[-1] == "after"
    assert len(stored) == len(set(stored))
    assert len(stored) > ended.count("done")
    # Another connection can write at once: nothing holds the lock.
    with sqlite3.connect(database_path(database), timeout=0) as other:
        other.execute("INSERT INTO t (word) VALUES ('other')")
    other.close()


def database_path(database: SqliteDatabase) -> str:
    path = database._file.path
    assert path is not None
    return path


async def test_a_write_that_was_begun_is_carried_to_its_end_though_its_caller_left(database: SqliteDatabase) -> None:
    gate = Gate()
    held = asyncio.create_task(database.write("gate", gate.body))
    await asyncio.to_thread(gate.entered.wait, 30)
    left = asyncio.create_task(database.write("left", put("left")))
    await asyncio.sleep(0)
    left.cancel()
    held.cancel()
    gate.opened.set()
    await asyncio.gather(left, held, return_exceptions=True)
    await database.write("fence", put("fence"))
    assert await words(database) == ["left", "fence"]


async def test_many_event_loops_in_many_threads_share_one_database(database: SqliteDatabase) -> None:
    def serve(number: int) -> list[str]:
        async def main() -> list[str]:
            return await asyncio.gather(*(database.write("move", put(f"{number}-{n}")) for n in range(50)))

        return asyncio.run(main())

    results = await asyncio.gather(*(asyncio.to_thread(serve, number) for number in range(4)))
    assert sorted(word for result in results for word in result) == sorted(await words(database))
    assert len(await words(database)) == 200


async def test_an_event_loop_that_was_closed_holds_nobody_up(database: SqliteDatabase) -> None:
    gate = Gate()
    held = asyncio.create_task(database.write("gate", gate.body))
    await asyncio.to_thread(gate.entered.wait, 30)

    def walk_away() -> None:
        loop = asyncio.new_event_loop()
        task = loop.create_task(database.write("left", put("left")))
        loop.run_until_complete(asyncio.sleep(0))
        task.cancel()
        loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        loop.close()

    await asyncio.to_thread(walk_away)
    waiting = asyncio.create_task(database.write("mine", put("mine")))
    await asyncio.sleep(0)
    gate.opened.set()
    assert await waiting == "mine"
    await held
    assert await words(database) == ["left", "mine"]


def test_an_idle_thread_holds_nothing_of_what_it_did(tmp_path: Path) -> None:
    class Thing:
        pass

    async def main() -> None:
        database = SqliteDatabase(SqliteFile(str(tmp_path / "a.db")))
        await database.open(create=True)
        thing = Thing()
        gone = weakref.ref(thing)

        async def body(tx: Any, thing: Any = thing) -> None:
            raise LookupError("with a traceback")

        with pytest.raises(LookupError):
            await database.write("move", body)
        with pytest.raises(LookupError):
            await database.read(body)
        del thing, body
        # Each thread begins something else, so that it is done with what it did before.
        both = threading.Barrier(READERS)

        async def meet(tx: Any) -> None:
            both.wait(30)

        async def nothing(tx: Any) -> None:
            pass

        await asyncio.gather(*(database.read(meet) for _ in range(READERS)), database.write("next", nothing))
        assert gone() is None
        await database.aclose()

    # Without a collector, and with the event loop's own tasks: what is held shows, and a cycle as well.
    gc.disable()
    try:
        asyncio.run(main())
    finally:
        gc.enable()


async def test_readers_cannot_write_and_see_only_what_is_committed(database: SqliteDatabase) -> None:
    with pytest.raises(StoreError):
        await database.read(put("by a reader"))
    gate = Gate()

    async def slow(tx: Any) -> None:
        await tx.execute("INSERT INTO t (word) VALUES ('unseen')")
        await gate.body(tx)

    held = asyncio.create_task(database.write("slow", slow))
    await asyncio.to_thread(gate.entered.wait, 30)
    assert await words(database) == []
    gate.opened.set()
    await held
    assert await words(database) == ["unseen"]


async def test_a_reader_sees_one_moment_however_long_it_looks(database: SqliteDatabase) -> None:
    await database.write("move", put("a"))
    gate = Gate()

    async def slow(tx: Any) -> tuple[int, int]:
        [(before,)] = await tx.query("SELECT COUNT(*) FROM t")
        await gate.body(tx)
        [(after,)] = await tx.query("SELECT COUNT(*) FROM t")
        return before, after

    reading = asyncio.create_task(database.read(slow))
    await asyncio.to_thread(gate.entered.wait, 30)
    await database.write("move", put("b"))
    gate.opened.set()
    assert await reading == (1, 1)
    assert await words(database) == ["a", "b"]


async def test_a_slow_reader_does_not_hold_up_the_others(database: SqliteDatabase) -> None:
    gate = Gate()
    slow = asyncio.create_task(database.read(gate.body))
    await asyncio.to_thread(gate.entered.wait, 30)
    for number in range(20):
        await database.write("move", put(str(number)))
        assert len(await words(database)) == number + 1
    gate.opened.set()
    await slow


async def test_closing_ends_what_was_begun_and_refuses_what_comes_later(tmp_path: Path) -> None:
    database = SqliteDatabase(SqliteFile(str(tmp_path / "a.db")))
    await database.open(create=True)

    async def make(tx: Any) -> None:
        await tx.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, word TEXT)")

    await database.write("make", make)
    writes = [asyncio.create_task(database.write("move", put(str(n)))) for n in range(50)]
    reads = [asyncio.create_task(words(database)) for _ in range(10)]
    await asyncio.sleep(0)
    await database.aclose()
    assert [await task for task in writes] == [str(n) for n in range(50)]
    for task in reads:
        assert len(await task) <= 50
    for late in (database.write("late", put("late")), words(database), database.open(create=True)):
        with pytest.raises(StoreError) as caught:
            await late
        assert "closed" in str(caught.value)
    # The log was copied into the file and removed.
    assert os.listdir(tmp_path) == ["a.db"]


async def test_who_comes_while_a_database_closes_is_refused_and_takes_nothing_from_those_that_end(
    tmp_path: Path,
) -> None:
    database = SqliteDatabase(SqliteFile(str(tmp_path / "a.db")))
    await database.open(create=True)
    gate, at_gate = Gate(), []

    async def slow(tx: Any) -> None:
        at_gate.append(threading.current_thread())
        await gate.body(tx)

    begun = asyncio.create_task(database.read(slow))
    await asyncio.to_thread(gate.entered.wait, 30)
    threads = database._threads
    assert threads is not None
    closing = asyncio.create_task(database.aclose())
    for reader in set(threads._readers) - set(at_gate):
        await asyncio.to_thread(reader.join, 30)
    late = [asyncio.create_task(database.write("late", put("late"))), asyncio.create_task(words(database))]
    await asyncio.sleep(0)
    gate.opened.set()
    await asyncio.wait_for(closing, 30)
    await begun
    for task in late:
        with pytest.raises(StoreError, match="closed"):
            await task


async def test_another_process_s_lock_is_waited_for_and_then_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    database = SqliteDatabase(SqliteFile(str(path), busy_timeout_s=0.05))
    await database.open(create=True)

    async def make(tx: Any) -> None:
        await tx.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, word TEXT)")

    await database.write("make", make)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailableError) as caught:
        await database.write("move", put("a"))
    assert caught.value.code == "store.unavailable"
    assert caught.value.retryable
    assert await words(database) == []
    other.execute("ROLLBACK")
    assert await database.write("move", put("b")) == "b"
    other.close()
    await database.aclose()


async def test_a_lock_that_is_let_go_in_time_is_never_noticed(database: SqliteDatabase) -> None:
    other = sqlite3.connect(database_path(database), isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    waiting = asyncio.create_task(database.write("move", put("a")))
    await asyncio.sleep(0)
    other.execute("COMMIT")
    assert await waiting == "a"
    other.close()


async def test_a_database_in_memory_is_written_and_read_on_one_thread() -> None:
    database = SqliteDatabase(SqliteFile(None))
    await database.open(create=True)

    async def make(tx: Any) -> None:
        await tx.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, word TEXT)")

    await database.write("make", make)
    await database.write("move", put("a"))
    assert await words(database) == ["a"]

    def broken(point: str, move: str) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    database.on_point = broken
    with pytest.raises(StoreUnavailableError):
        await database.write("move", put("b"))
    database.on_point = None
    # It is not lost with a failed commit, as a file's connection would be.
    assert await words(database) == ["a"]
    await database.aclose()
