"""Care for a SQLite file that is in use: space comes back, logs empty, backups are whole, and writers lose nothing."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from power_loop.contracts.errors import InputError, StoreError, StoreUnavailableError
from power_loop.contracts.messages import TextPart
from power_loop.contracts.upkeep import Checkpointed
from power_loop.runtime.store.open import open_store
from power_loop.runtime.store.pruning import PAGE_ROWS
from power_loop.runtime.store.sql.tables import TABLES
from power_loop.runtime.store.store import SqlSessionStore
from tests.conformance.parts import COMPLETED, accepted, new_session, one_send, reply, reply_with_calls, result_step
from tests.runtime.store.processes import last_words, patient, start

PAGE = Path(__file__).resolve().parents[3] / "docs" / "en" / "user-guide" / "operating.md"
MEGABYTE = "x" * 1_000_000


@pytest.fixture
async def store(tmp_path: Path) -> Any:
    opened = await open_store(tmp_path / "app.db")
    yield opened
    await opened.aclose()


async def fat_session(store: SqlSessionStore, session_id: str, megabytes: int) -> None:
    """Make a session with so many megabytes of whole results."""
    await new_session(store, session_id)
    held = await accepted(store, session_id)
    ids = [f"c{number}" for number in range(megabytes)]
    await store.append_reply(held.lease, reply_with_calls(held, *ids))
    for index, call_id in enumerate(ids):
        one = result_step(2, index, call_id, "a part", whole=(TextPart(MEGABYTE),))
        await store.advance_calls(held.lease, [one], at_seq=3 + index, send_index=1, round=1)
    await store.append_reply(held.lease, reply(held, at_seq=3 + megabytes, round=2, end=COMPLETED))


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("app.db*"))


def names(folder: Path, start: str) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith(start))


def rows_of(path: Path, table: str = "pl_messages") -> int:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        [(count,)] = connection.execute(f"SELECT COUNT(*) FROM {table}").fetchall()
        return int(count)


async def test_vacuum_and_checkpoint_as_printed_give_the_space_back(store: SqlSessionStore, tmp_path: Path) -> None:
    await fat_session(store, "sess_1", 5)
    await one_send(store, "sess_1")
    full = size_of(tmp_path)
    await store.prune_tool_results("sess_1")
    done = await store.vacuum(), await store.checkpoint()
    assert done[0].bytes_before is not None
    assert done[0].bytes_before >= full
    assert done[0].bytes_after == (tmp_path / "app.db").stat().st_size < 500_000
    assert done[1] == Checkpointed(is_complete=True)
    assert not (tmp_path / "app.db-wal").exists() or (tmp_path / "app.db-wal").stat().st_size == 0
    await one_send(store, "sess_1")
    assert len(await store.get_messages("sess_1")) == 12


async def test_vacuum_goes_on_beside_a_reader_and_the_checkpoint_says_that_it_waits(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    store = await open_store(f"{path}?busy_timeout_s=0.05")
    await fat_session(store, "sess_1", 2)
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        before = reader.execute("SELECT COUNT(*) FROM pl_tool_results").fetchall()
        await store.prune_tool_results("sess_1")
        await store.vacuum()
        assert not (await store.checkpoint()).is_complete
        assert reader.execute("SELECT COUNT(*) FROM pl_tool_results").fetchall() == before, "it sees what it saw"
        reader.execute("COMMIT")
    assert (await store.checkpoint()).is_complete
    await store.aclose()


async def test_vacuum_waits_for_a_writer_only_so_long(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    store = await open_store(f"{path}?busy_timeout_s=0.05")
    await one_send(store, await new_session(store))
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailableError, match="locked"):
            await store.vacuum()
        writer.execute("ROLLBACK")
    await store.vacuum()
    await store.aclose()


async def test_a_backup_is_the_database_of_one_moment(store: SqlSessionStore, tmp_path: Path) -> None:
    await fat_session(store, "sess_1", 2)
    archive = await store.export_session("sess_1")
    target = tmp_path / "copy.db"
    done = await store.backup(target)
    assert (done.path, done.size_bytes) == (str(target), target.stat().st_size)
    assert names(tmp_path, "copy") == ["copy.db"], "nothing is left beside it"
    await one_send(store, "sess_1", "later")
    copy = await open_store(target)
    assert await copy.export_session("sess_1") == archive
    await one_send(copy, "sess_1")
    await copy.aclose()


async def test_a_backup_takes_no_other_files_place(store: SqlSessionStore, tmp_path: Path) -> None:
    await one_send(store, await new_session(store))
    there = tmp_path / "there.txt"
    there.write_text("mine")
    for path in (there, tmp_path / "app.db", tmp_path, tmp_path / "no" / "such.db", "", f"{tmp_path}/"):
        with pytest.raises(InputError, match="backup path"):
            await store.backup(path)
    with pytest.raises(InputError, match="is the database itself"):
        await store.backup(tmp_path / "app.db", overwrite=True)
    link = tmp_path / "link.db"
    link.symlink_to(tmp_path / "app.db")
    for own in (link, tmp_path / "app.db-wal", tmp_path / "app.db-shm"):
        with pytest.raises(InputError, match="is the database itself"):
            await store.backup(own, overwrite=True)
    with pytest.raises(InputError, match="holds a NUL"):
        await store.backup(f"{tmp_path}/a\0b")
    assert there.read_text() == "mine"
    await store.backup(there, overwrite=True)
    assert rows_of(there) == 2
    open_one = await open_store(there)
    await one_send(open_one, await new_session(open_one, "sess_2"))
    with pytest.raises(InputError, match="somebody has open"):
        await store.backup(there, overwrite=True)
    await open_one.aclose()
    assert rows_of(there) == 4
    assert not names(tmp_path, "there.txt.")


async def test_a_backup_that_nobody_waits_for_leaves_nothing(store: SqlSessionStore, tmp_path: Path) -> None:
    await fat_session(store, "sess_1", 8)
    work = asyncio.ensure_future(store.backup(tmp_path / "copy.db"))
    await asyncio.sleep(0)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    await store.aclose()
    for thread in threading.enumerate():
        if thread.name == "power-loop-store-backup":
            await asyncio.to_thread(thread.join, 30)
    assert names(tmp_path, "copy") in ([], ["copy.db"]), "either it was whole already, or there is nothing"


async def test_a_database_in_memory_is_looked_after_as_well(tmp_path: Path) -> None:
    store = await open_store(":memory:")
    await one_send(store, await new_session(store))
    await store.vacuum()
    assert await store.checkpoint() == Checkpointed()
    await store.backup(tmp_path / "copy.db")
    with pytest.raises(InputError):
        await store.backup(tmp_path / "copy.db")
    assert rows_of(tmp_path / "copy.db") == 2
    await store.aclose()
    for care in (store.vacuum, store.checkpoint, lambda: store.backup(tmp_path / "more.db")):
        with pytest.raises(StoreError, match="closed"):
            await care()


@pytest.mark.promise("upkeep")
async def test_care_from_one_process_while_two_others_write_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    store = await open_store(patient(str(path)))
    await new_session(store, "shared")
    await fat_session(store, "fat", 3)
    writers = [start("write", number, path, 40) for number in range(2)]
    for process in writers:
        assert process.stdout is not None
        await asyncio.to_thread(process.stdout.readline)
    for process in writers:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    rounds = 0
    while any(process.poll() is None for process in writers) or rounds < 3:
        await store.prune_tool_results()
        await store.vacuum()
        await store.checkpoint()
        await store.backup(tmp_path / f"copy_{rounds}.db")
        rounds += 1
    for process in writers:
        assert await asyncio.to_thread(last_words, process) == {"done": True}
    assert len(await store.get_messages("shared")) == 2 * 2 * 40
    for number in range(rounds):
        copy = await open_store(tmp_path / f"copy_{number}.db")
        messages = await copy.get_messages("shared")
        assert [record.seq for record in messages] == list(range(1, len(messages) + 1))
        assert (await copy.get_session("shared")).next_seq == len(messages) + 1
        await copy.aclose()
    await store.aclose()


async def test_a_prune_that_is_stopped_goes_on_with_the_next_run(store: SqlSessionStore) -> None:
    for number in range(3):
        await new_session(store, f"s{number}")
        await store.close_session(f"s{number}")
    removed: list[str] = []

    def stop_at_the_second(point: str, move: str) -> None:
        if (point, move) == ("commit.before", "prune_sessions"):
            removed.append(move)
            if len(removed) == 2:
                raise StoreError("stopped")

    store.on_point = stop_at_the_second
    with pytest.raises(StoreError, match="stopped"):
        await store.prune_sessions(older_than_s=0)
    store.on_point = None
    assert len((await store.list_sessions()).items) == 2
    assert (await store.prune_sessions(older_than_s=0)).sessions == 2


async def test_a_fork_of_ten_thousand_messages_costs_what_one_of_ten_does(tmp_path: Path) -> None:
    """Counted in statements, and in rows that are written, by SQLite itself."""
    costs = []
    for count in (10, 10_000):
        path = tmp_path / f"{count}.db"
        store = await open_store(path)
        await one_send(store, await new_session(store))
        lines = (await store.export_session("sess_1")).splitlines(keepends=True)
        await store.import_session(_longer(lines, count), session_id="long")
        before = _all_rows(path)
        statements, steps = await _cost(store, lambda store=store: store.fork_session("long"))
        costs.append((statements, _all_rows(path) - before))
        assert steps <= 20, "none of them looks through the log"
        assert len(await store.get_messages((await store.list_sessions()).items[0].id, limit=5)) == 5
        await store.aclose()
    assert costs[0] == costs[1]
    assert costs[0][1] == 3, "a head, its details, and the send in which it leaves"


def _longer(lines: list[bytes], count: int) -> bytes:
    rows = [json.loads(line) for line in lines]
    head, body = rows[0], rows[1:]
    session = next(row for row in body if "session" in row)
    pair = [row for row in body if "message" in row]
    send = next(row for row in body if "send" in row)
    call = next(row for row in body if "model_call" in row)
    session["session"] |= {"next_seq": count + 1, "send_count": count // 2}
    made = [session, next(row for row in body if "details" in row)]
    made += [
        {"message": {**pair[number % 2]["message"], "seq": number + 1, "send_index": number // 2 + 1}}
        for number in range(count)
    ]
    made += [{"send": {**send["send"], "idx": number + 1, "first_seq": 2 * number + 1}} for number in range(count // 2)]
    made += [
        {"model_call": {**call["model_call"], "reply_seq": 2 * number + 2, "send_index": number + 1}}
        for number in range(count // 2)
    ]
    text = b"".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n" for row in made)
    head["counts"] |= {"message": count, "send": count // 2, "model_call": count // 2}
    head["sha256"] = hashlib.sha256(text).hexdigest()
    return json.dumps(head).encode() + b"\n" + text


def _all_rows(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return sum(connection.execute(f"SELECT COUNT(*) FROM {name}").fetchone()[0] for name in tables)


async def _cost(store: SqlSessionStore, act: Any) -> tuple[int, int]:
    """Return how many statements an act sends to the database, and how many hundreds of steps SQLite makes of them."""
    statements: list[str] = []
    steps: list[None] = []
    database: Any = store._database
    connection = database._threads.connection
    await database._between(lambda: connection.set_trace_callback(statements.append))
    await database._between(lambda: connection.set_progress_handler(lambda: steps.append(None), 100))
    await act()
    await database._between(lambda: connection.set_trace_callback(None))
    await database._between(lambda: connection.set_progress_handler(None, 100))
    return len(statements), len(steps)


@pytest.mark.promise("retention")
def test_every_table_is_named_where_it_is_told_what_shrinks_it() -> None:
    section = PAGE.read_text("utf-8").partition("## What grows, and what shrinks it")[2].partition("\n## ")[0]
    named = set(re.findall(r"^\| `(\w+)`", section, re.M))
    assert named == {table.name for table in TABLES}
    assert PAGE_ROWS <= 1000, "a look at a database stays short"
