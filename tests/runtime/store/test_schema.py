"""Provisioning: tables are made once, verified exactly, and what a newer version wrote is not touched."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from power_loop.contracts.errors import ConfigError, StoreNewerError, StoreSchemaError
from power_loop.contracts.states import SchemaPolicy
from power_loop.runtime.store.open import open_store
from power_loop.runtime.store.sql.provision import SCHEMA_VERSION
from power_loop.runtime.store.sql.tables import TABLES
from tests.conformance.parts import one_send


@contextmanager
def raw(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(path)
    try:
        with connection:
            yield connection
    finally:
        connection.close()


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def run_ddl(path: Path, ddl: str) -> None:
    with raw(path) as connection:
        connection.executescript(ddl)


async def provisioned(path: Path, prefix: str = "pl_") -> None:
    store = await open_store(path, table_prefix=prefix)
    await store.aclose()


async def lacking(path: Path, prefix: str = "pl_") -> StoreSchemaError:
    with pytest.raises(StoreSchemaError) as caught:
        await open_store(path, table_prefix=prefix, schema=SchemaPolicy.VERIFY)
    assert caught.value.code == "store.schema"
    return caught.value


async def test_verify_never_makes_a_file_and_its_ddl_makes_everything(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    error = await lacking(path)
    assert os.listdir(tmp_path) == []
    for table in TABLES:
        assert f"CREATE TABLE pl_{table.name} " in error.ddl
    run_ddl(path, error.ddl)
    store = await open_store(path, schema=SchemaPolicy.VERIFY)
    await store.create_session("sess_1", system_prompt=None, metadata={})
    await one_send(store, "sess_1")
    await store.aclose()
    # What a person made by hand is the same as what is made at first use.
    await provisioned(tmp_path / "other.db")
    schemas = []
    for name in ("app.db", "other.db"):
        with raw(tmp_path / name) as connection:
            schemas.append(
                connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY 2").fetchall()
            )
    assert schemas[0] == schemas[1]


async def test_verify_of_an_empty_file_leaves_it_empty(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    path.touch()
    error = await lacking(path)
    assert path.read_bytes() == b""
    assert "table pl_sessions" in str(error)


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (
            "DROP TABLE pl_tool_calls",
            ["table pl_tool_calls", "index pl_tool_calls_by_id", "index pl_tool_calls_by_key"],
        ),
        ("DROP INDEX pl_sends_by_request", ["index pl_sends_by_request"]),
        ("ALTER TABLE pl_model_calls DROP COLUMN provider_id", ["column pl_model_calls.provider_id"]),
        ("ALTER TABLE pl_sessions DROP COLUMN tick", ["column pl_sessions.tick"]),
        ("DELETE FROM pl_schema_migrations", [f"version {SCHEMA_VERSION}"]),
        ("DROP TABLE pl_schema_migrations", ["table pl_schema_migrations", f"version {SCHEMA_VERSION}"]),
    ],
)
async def test_verify_names_exactly_what_is_missing_and_its_ddl_mends_it(
    tmp_path: Path, damage: str, named: list[str]
) -> None:
    if "DROP COLUMN" in damage and sqlite3.sqlite_version_info < (3, 35):
        pytest.skip("this SQLite cannot drop a column")
    path = tmp_path / "app.db"
    await provisioned(path)
    with raw(path) as connection:
        connection.execute(damage)
    before = digest(path)
    error = await lacking(path)
    for name in named:
        assert name in str(error)
    assert error.ddl.count(";\n") == len(named)
    assert digest(path) == before
    run_ddl(path, error.ddl)
    store = await open_store(path, schema=SchemaPolicy.VERIFY)
    await store.create_session("sess_1", system_prompt=None, metadata={})
    await one_send(store, "sess_1")
    await store.aclose()


async def test_a_database_that_a_newer_version_wrote_is_refused_and_untouched(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    await provisioned(path)
    with raw(path) as connection:
        connection.execute("INSERT INTO pl_schema_migrations VALUES (?, 'from the future', 1)", (SCHEMA_VERSION + 1,))
        connection.execute("DROP TABLE pl_model_calls")
    before = digest(path)
    for policy in SchemaPolicy:
        with pytest.raises(StoreNewerError) as caught:
            await open_store(path, schema=policy)
        assert caught.value.code == "store.schema_newer"
        assert (caught.value.found, caught.value.known) == (SCHEMA_VERSION + 1, SCHEMA_VERSION)
    assert digest(path) == before
    assert os.listdir(tmp_path) == ["app.db"]


async def test_a_newer_database_in_another_journal_mode_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with raw(path) as connection:
        connection.execute("CREATE TABLE pl_schema_migrations (version INTEGER, name TEXT, applied_at_ms INTEGER)")
        connection.execute("INSERT INTO pl_schema_migrations VALUES (99, '', 0)")
    before = digest(path)
    with pytest.raises(StoreNewerError):
        await open_store(path)
    assert digest(path) == before


async def test_another_application_s_database_keeps_its_tables_and_gets_ours_beside(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with raw(path) as connection:
        connection.execute("CREATE TABLE sessions (id INTEGER PRIMARY KEY, theirs TEXT)")
        connection.execute("CREATE TABLE plenty (x)")
        connection.execute("INSERT INTO sessions (theirs) VALUES ('kept')")
    store = await open_store(path)
    await store.create_session("sess_1", system_prompt=None, metadata={})
    await store.aclose()
    with raw(path) as connection:
        assert connection.execute("SELECT * FROM sessions").fetchall() == [(1, "kept")]
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    # An index of words is a few tables of its own.
    ours = {name for name in tables if not name.startswith("pl_memories_by_terms")}
    assert ours == {"sessions", "plenty"} | {f"pl_{table.name}" for table in TABLES}


async def test_a_table_of_the_same_name_that_is_not_ours_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with raw(path) as connection:
        connection.execute("CREATE TABLE pl_messages (theirs TEXT)")
    with pytest.raises(StoreSchemaError) as caught:
        await open_store(path)
    assert "table_prefix" in str(caught.value)
    with raw(path) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("pl_messages",)]
    await provisioned(path, "ours_")


async def test_a_provisioned_database_is_opened_without_a_write(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    await provisioned(path)
    # Somebody else may even be writing.
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    store = await open_store(f"{path}?busy_timeout_s=0")
    assert (await store.list_sessions()).items == ()
    await store.aclose()
    other.execute("ROLLBACK")
    other.close()


async def test_a_file_is_switched_to_a_write_ahead_log_once_and_is_durable(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    store = await open_store(path)
    await store.create_session("sess_1", system_prompt=None, metadata={})

    async def settings(tx) -> list[object]:
        names = ("journal_mode", "synchronous", "foreign_keys", "trusted_schema")
        return [(await tx.query(f"PRAGMA {name}"))[0][0] for name in names]

    assert await store._rooms.database.write("look", settings) == ["wal", 2, 1, 0]
    relaxed = await open_store(f"{path}?synchronous=normal")
    assert await relaxed._rooms.database.write("look", settings) == ["wal", 1, 1, 0]
    await relaxed.aclose()
    await store.aclose()


async def test_a_schema_that_runs_code_of_its_own_is_not_trusted(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    await provisioned(path)
    with raw(path) as connection:
        connection.execute("CREATE TABLE spoils (x)")
        connection.execute(
            "CREATE TRIGGER evil AFTER INSERT ON pl_sessions BEGIN"
            " INSERT INTO spoils SELECT fts3_tokenizer('simple'); END"
        )
    store = await open_store(path)
    with pytest.raises(Exception, match=r"unsafe use|no such function|failed"):
        await store.create_session("sess_1", system_prompt=None, metadata={})
    await store.aclose()


async def test_verify_and_auto_create_can_share_an_open_database(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    maker = await open_store(path)
    checked = await open_store(path, schema=SchemaPolicy.VERIFY)
    assert checked.memo is maker.memo
    error = await lacking(path, "other_")
    assert "table other_sessions" in str(error)
    await maker.create_session("sess_1", system_prompt=None, metadata={})
    await checked.aclose()
    await maker.aclose()


async def test_a_policy_may_be_named_by_its_word(tmp_path: Path) -> None:
    with pytest.raises(StoreSchemaError):
        await open_store(tmp_path / "app.db", schema="verify")
    for word in ("auto_create", "verify"):
        await (await open_store(tmp_path / "app.db", schema=word)).aclose()


@pytest.mark.parametrize("schema", ["create", "", None, 5, []])
async def test_a_policy_that_is_none_is_refused(tmp_path: Path, schema: Any) -> None:
    with pytest.raises(ConfigError, match="give one of 'auto_create', 'verify'"):
        await open_store(tmp_path / "app.db", schema=schema)
    assert os.listdir(tmp_path) == []
