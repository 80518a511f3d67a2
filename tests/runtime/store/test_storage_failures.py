"""When storage fails: a coded error, nothing acknowledged lost, and work again as soon as storage does."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from power_loop.contracts.errors import (
    InvalidDsnError,
    NotADatabaseError,
    StoreCorruptError,
    StoreFullError,
    StoreUnavailableError,
)
from power_loop.runtime.store.open import open_store
from tests.conformance.parts import one_send, waiting_call
from tests.runtime.store.processes import last_words, start


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """Give a folder that every user can reach; pytest's own are the user's alone."""
    folder = tempfile.mkdtemp(prefix="power-loop-")
    os.chmod(folder, 0o755)
    yield Path(folder)
    os.chmod(folder, 0o755)
    shutil.rmtree(folder)


async def there(path: Path) -> None:
    """Make a database with a session, whose file can be read where nothing can be written."""
    store = await open_store(path)
    await store.create_session("sess_1", system_prompt=None, metadata={})
    await store.aclose()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=DELETE")
    connection.close()


async def test_a_folder_and_a_file_that_cannot_be_written_are_read_only(public_folder: Path) -> None:
    await there(public_folder / "there.db")
    (public_folder / "empty.db").touch()
    (public_folder / "secret.db").touch(mode=0)
    os.chmod(public_folder / "there.db", 0o444)
    os.chmod(public_folder / "empty.db", 0o444)
    os.chmod(public_folder, 0o555)
    assert await asyncio.to_thread(last_words, start("read_only", public_folder)) == {
        "fresh": "store.read_only",
        "empty": "store.read_only",
        "secret": "store.unavailable",
        "written": "store.read_only",
        "reads": True,
    }
    assert sorted(os.listdir(public_folder)) == ["empty.db", "secret.db", "there.db"]


async def test_a_file_that_is_made_writable_again_takes_writes_through_the_handle_that_was_refused(
    public_folder: Path,
) -> None:
    os.chmod(public_folder, 0o777)
    assert await asyncio.to_thread(last_words, start("writable_again", public_folder)) == {
        "refused": ["store.read_only", "store.read_only"],
        "written": [None, None],
        "sessions": ["sess_1", "sess_4", "sess_5"],
    }


def delete(path: Path) -> None:
    for name in ("app.db", "app.db-wal", "app.db-shm"):
        (path.parent / name).unlink(missing_ok=True)


def delete_the_file_alone(path: Path) -> None:
    path.unlink()


def replace(path: Path) -> None:
    """Put an older copy in its place, as a restored backup is."""
    os.replace(path.parent / "copy.db", path)


@pytest.mark.parametrize(
    ("strike", "says"),
    [(delete, "was deleted"), (delete_the_file_alone, "was deleted"), (replace, "was replaced by another file")],
)
async def test_nothing_is_acknowledged_into_a_file_that_is_not_there_any_more(
    tmp_path: Path, strike: Callable[[Path], None], says: str
) -> None:
    path = tmp_path / "app.db"
    await there(path)
    shutil.copy(path, tmp_path / "copy.db")
    store = await open_store(path)
    await one_send(store, "sess_1", text="before")
    aside = tmp_path / "aside.db"
    os.link(path, aside)
    strike(path)
    left = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path) if "-" not in name}
    with pytest.raises(StoreUnavailableError, match=says):
        await one_send(store, "sess_1", text="into nowhere")
    with pytest.raises(StoreUnavailableError, match=says):
        await store.get_messages("sess_1")
    assert {name: (tmp_path / name).read_bytes() for name in left} == left
    # Put back, it goes on.
    os.replace(aside, path)
    if strike is not delete:
        await one_send(store, "sess_1", text="again")
        assert len(await store.get_messages("sess_1")) == 4
    await store.aclose()


async def test_a_file_that_is_replaced_while_a_transaction_runs_acknowledges_nothing(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    store = await open_store(path)
    await store.create_session("sess_1", system_prompt=None, metadata={})

    def strike(point: str, move: str) -> None:
        if point == "commit.before":
            delete(path)

    store.on_point = strike
    with pytest.raises(StoreUnavailableError, match="was deleted"):
        await store.create_session("sess_2", system_prompt=None, metadata={})
    assert os.listdir(tmp_path) == []
    await store.aclose()


def test_a_file_that_may_not_grow_fails_what_does_not_fit_and_goes_on_when_it_may(tmp_path: Path) -> None:
    facts = last_words(start("file_limit", tmp_path / "app.db"))
    # Where an input still fits and its reply does not, its lease stays until it is over.
    assert set(facts["codes"]) - {"session.busy"} == {"None", "store.unavailable"}
    assert (facts["read"], facts["after"]) == (None, None)
    assert facts["acknowledged"] > 0
    # An input may have been stored before its reply did not fit; a reply that was acknowledged is there.
    assert facts["sends"] > facts["acknowledged"]
    assert facts["messages"] >= 2 * (facts["acknowledged"] + 1)
    assert facts["is_gapless"]


def test_a_full_disk_fails_what_does_not_fit_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    mount = f"mount -t tmpfs -o size=2m none {tmp_path}"
    if subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("no small file system can be mounted here: that takes root and Linux")
    facts = last_words(start("full_disk", tmp_path, under=["unshare", "-m", "sh", "-c", f'{mount} && exec "$@"', "sh"]))
    assert facts["codes"] == ["None", "store.full"]
    assert facts["stored"] > 1
    assert (facts["read"], facts["after"], facts["kept"]) == (None, None, True)


async def test_sqlite_s_own_limit_is_a_full_store_and_the_small_ones_still_fit(tmp_path: Path) -> None:
    store = await open_store(tmp_path / "app.db")
    await store.create_session("sess_1", system_prompt=None, metadata={})

    async def limit(tx) -> None:
        [(pages,)] = await tx.query("PRAGMA page_count")
        await tx.query(f"PRAGMA max_page_count={pages + 10}")

    await store._rooms.database.write("limit", limit)
    with pytest.raises(StoreFullError) as caught:
        await one_send(store, "sess_1", text="x" * 1_000_000)
    assert caught.value.code == "store.full"
    assert caught.value.retryable
    # The connection was opened anew, without the limit.
    await one_send(store, "sess_1", text="x" * 1_000_000)
    assert (await store.get_session("sess_1")).next_seq == 3
    await store.aclose()


@pytest.mark.parametrize(
    "content",
    [
        b"x",
        b"SQLite format 2\0",
        b"SQLite format 3\0",
        b"SQLite format 3\0" + b"\xff" * 4080,
        b"\x89PNG\r\n" * 500,
        b"\0" * 4096,
    ],
    ids=["one byte", "other version", "header only", "rubbish behind it", "picture", "zeros"],
)  # fmt: skip
async def test_a_file_that_is_no_database_is_refused_and_untouched(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "app.db"
    path.write_bytes(content)
    with pytest.raises(NotADatabaseError) as caught:
        await open_store(path)
    assert caught.value.code == "store.not_a_database"
    assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["app.db"]


async def test_a_folder_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(NotADatabaseError):
        await open_store(tmp_path)


async def test_an_empty_file_becomes_a_database(tmp_path: Path) -> None:
    (tmp_path / "app.db").touch()
    store = await open_store(tmp_path / "app.db")
    await store.create_session("sess_1", system_prompt=None, metadata={})
    await store.aclose()


@pytest.mark.parametrize("name", ["no/app.db", "file/app.db"])
async def test_a_folder_that_is_missing_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidDsnError) as caught:
        await open_store(tmp_path / name)
    assert str(tmp_path / name.split("/")[0]) in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == ["file"]


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("UPDATE pl_messages SET body = '{' WHERE seq = 2", "message 2 of session 'sess_1'"),
        ('UPDATE pl_messages SET body = \'{"parts":[{"type":"video"}]}\' WHERE seq = 2', "message 2"),
        ("UPDATE pl_messages SET role = 'system' WHERE seq = 1", "message 1"),
        ("UPDATE pl_messages SET body = CAST(X'ff' AS TEXT) WHERE seq = 1", "UTF-8"),
        ("UPDATE pl_sessions SET state = 'ajar'", "state of session 'sess_1'"),
        ("UPDATE pl_session_details SET metadata = '[]'", "metadata of session 'sess_1'"),
        ("UPDATE pl_session_details SET tool_state = 'x'", "tool state of session 'sess_1'"),
        ("UPDATE pl_sends SET options = ''", "options of send 1 of session 'sess_1'"),
        ("UPDATE pl_sends SET status = 'napping'", "status of send 1"),
        ("UPDATE pl_tool_calls SET effect = 'maybe'", "call 'c1' of session 'sess_1'"),
    ],
)
async def test_a_damaged_row_is_named_and_the_rest_stays_usable(tmp_path: Path, statement: str, named: str) -> None:
    store = await open_store(tmp_path / "app.db")
    for session_id in ("sess_1", "sess_2"):
        await store.create_session(session_id, system_prompt=None, metadata={})
        await waiting_call(store, session_id, "c1")

    async def damage(tx) -> None:
        key = "id" if "pl_sessions" in statement else "session_id"
        await tx.execute(f"{statement} {'AND' if 'WHERE' in statement else 'WHERE'} {key} = 'sess_1'")

    await store._rooms.database.write("damage", damage)
    with pytest.raises(StoreCorruptError) as caught:
        await store.read_view("sess_1")
    assert caught.value.code == "store.corrupt"
    assert named in str(caught.value)
    assert len((await store.read_view("sess_2")).messages) == 2
    await store.aclose()
