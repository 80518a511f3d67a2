"""Provisioning on every kind of database: first boots at once, exact DDL, users without rights, prefixes, and views."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from power_loop.contracts.errors import InvalidTablePrefixError, StoreNewerError, StoreRefusedError, StoreSchemaError
from power_loop.contracts.states import SchemaPolicy
from power_loop.runtime.store.open import missing_ddl, open_store
from power_loop.runtime.store.schema import schema_ddl
from power_loop.runtime.store.sql.dialect import Renderer, SqliteDialect
from power_loop.runtime.store.sql.migrations import SCHEMA_VERSION
from power_loop.runtime.store.sql.tables import TABLES
from power_loop.runtime.store.sql.views import VIEWS
from power_loop.testing.conformance.parts import one_send
from tests.runtime.store.processes import last_words, start
from tests.runtime.store.sites import KINDS, ServerSite, Site, as_user, drop_user, fresh_site, run_client

_ROUNDS = 3
_users = itertools.count(1)


@pytest.fixture(params=KINDS)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    with fresh_site(request.param, tmp_path) as fresh:
        yield fresh


@pytest.fixture(params=KINDS[1:])
def server_site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServerSite]:
    with fresh_site(request.param, tmp_path) as fresh:
        assert isinstance(fresh, ServerSite)
        yield fresh


async def provisioned(dsn: str, prefix: str = "pl_", schema: SchemaPolicy = SchemaPolicy.AUTO_CREATE) -> None:
    """Open a store, see that it works, and close it."""
    store = await open_store(dsn, table_prefix=prefix, schema=schema)
    try:
        if not (await store.list_sessions()).items:
            await store.create_session("sess_1", system_prompt="p", metadata={})
        await one_send(store, "sess_1")
    finally:
        await store.aclose()


async def lacking(dsn: str, prefix: str = "pl_") -> StoreSchemaError:
    with pytest.raises(StoreSchemaError) as caught:
        await open_store(dsn, table_prefix=prefix, schema=SchemaPolicy.VERIFY)
    return caught.value


async def test_verify_changes_nothing_and_its_ddl_makes_what_auto_create_makes(site: Site) -> None:
    error = await lacking(site.dsn)
    assert site.is_untouched
    site.run(error.ddl)
    by_hand = site.shape()
    await provisioned(site.dsn, schema=SchemaPolicy.VERIFY)
    assert await missing_ddl(site.dsn) == ""
    await provisioned(site.dsn)
    assert site.shape() == by_hand
    site.wipe()
    await provisioned(site.dsn)
    assert site.shape() == by_hand
    assert await missing_ddl(site.dsn) == ""


async def test_the_ddl_goes_through_the_database_s_own_client_as_it_is_printed(site: Site) -> None:
    run_client(site, schema_ddl(site.dsn))
    await provisioned(site.dsn, schema=SchemaPolicy.VERIFY)
    assert await missing_ddl(site.dsn) == ""


async def test_verify_names_what_is_missing_and_the_client_mends_it(site: Site) -> None:
    await provisioned(site.dsn)
    whole = site.shape()
    on = {"sqlite": "", "postgres": ""}.get(site.kind, " ON pl_sends")
    cascade = " CASCADE" if site.kind == "postgres" else ""
    site.run(
        f"DROP INDEX pl_sends_by_request{on};\n"
        "ALTER TABLE pl_model_calls DROP COLUMN provider_id;\n"
        f"DROP TABLE pl_tool_results{cascade};\n"
        "DROP VIEW pl_v_usage;\n"
    )
    error = await lacking(site.dsn)
    for name in ("index pl_sends_by_request", "column pl_model_calls.provider_id", "table pl_tool_results"):
        assert name in str(error)
    assert error.ddl.count(";\n") == 4
    run_client(site, error.ddl)
    assert site.shape() == whole
    await provisioned(site.dsn, schema=SchemaPolicy.VERIFY)


async def test_a_view_that_is_missing_keeps_nobody_from_working(site: Site) -> None:
    await provisioned(site.dsn)
    whole = site.shape()
    site.run("DROP VIEW pl_v_sends;\n")
    await provisioned(site.dsn, schema=SchemaPolicy.VERIFY)
    ddl = await missing_ddl(site.dsn)
    assert ddl.count(";\n") == 1
    assert "pl_v_sends" in ddl
    site.run(ddl)
    assert site.shape() == whole


async def test_a_column_of_the_wrong_type_is_named(site: Site) -> None:
    await provisioned(site.dsn)
    if site.kind == "sqlite":
        site.run("DROP VIEW pl_v_inbox; DROP TABLE pl_inbox;\n")
        ddl = await missing_ddl(site.dsn)
        site.run(ddl.replace("send_index INTEGER", "send_index TEXT"))
    elif site.kind == "postgres":
        site.run("DROP VIEW pl_v_inbox;\nALTER TABLE pl_inbox ALTER send_index TYPE TEXT;\n")
    else:
        site.run("ALTER TABLE pl_inbox MODIFY send_index LONGTEXT;\n")
    error = await lacking(site.dsn)
    assert "column pl_inbox.send_index is '" in str(error)
    assert "belongs" in str(error)


async def test_a_newer_database_is_refused_and_stays_as_it_is(site: Site) -> None:
    await provisioned(site.dsn)
    site.run(
        "INSERT INTO pl_schema_migrations (version, name, applied_at_ms)"
        f" VALUES ({SCHEMA_VERSION + 1}, 'from the future', 1);\nDROP VIEW pl_v_usage;\n"
    )
    before = site.shape()
    for policy in SchemaPolicy:
        with pytest.raises(StoreNewerError) as caught:
            await open_store(site.dsn, schema=policy)
        assert (caught.value.found, caught.value.known) == (SCHEMA_VERSION + 1, SCHEMA_VERSION)
    with pytest.raises(StoreNewerError):
        await missing_ddl(site.dsn)
    assert site.shape() == before


async def test_tables_that_are_somebody_else_s_are_left_alone(site: Site) -> None:
    site.run("CREATE TABLE pl_messages (theirs INTEGER);\nINSERT INTO pl_messages VALUES (7);\n")
    before = site.shape("")
    with pytest.raises(StoreSchemaError, match="table_prefix"):
        await open_store(site.dsn)
    assert site.shape("") == before
    await provisioned(site.dsn, "ours_")
    assert site.rows("SELECT * FROM pl_messages") == [(7,)]


async def test_prefixes_do_not_see_each_other_however_alike(site: Site) -> None:
    # `_` stands for any character in LIKE, and each of these begins like another one.
    prefixes = ("_", "a_", "ab", "a", "a_a_", "z" * 24)
    for prefix in prefixes:
        await lacking(site.dsn, prefix)
        await provisioned(site.dsn, prefix)
        await provisioned(site.dsn, prefix, SchemaPolicy.VERIFY)
    for prefix in prefixes:
        store = await open_store(site.dsn, table_prefix=prefix, schema=SchemaPolicy.VERIFY)
        assert (await store.get_session("sess_1")).send_count == 2
        await store.aclose()
        assert site.rows(f"SELECT COUNT(*) FROM {prefix}messages") == [(4,)]


async def test_prefixes_where_one_s_tables_have_the_names_of_the_other_s_views_are_refused(site: Site) -> None:
    await provisioned(site.dsn, "pl_v_")
    before = site.shape()
    with pytest.raises(StoreSchemaError, match="table_prefix"):
        await open_store(site.dsn)
    assert site.shape() == before
    site.wipe()
    await provisioned(site.dsn)
    before = site.shape()
    with pytest.raises(StoreSchemaError, match="table_prefix"):
        await open_store(site.dsn, table_prefix="pl_v_")
    assert site.shape() == before


@pytest.mark.parametrize("prefix", ["", "PL_", "1x", "pl-", "a" * 25, "é", "pl_;", "sqlite_", 5, None])
async def test_a_prefix_that_no_database_takes_is_refused(tmp_path: Path, prefix: object) -> None:
    with pytest.raises(InvalidTablePrefixError):
        await open_store(tmp_path / "app.db", table_prefix=prefix)  # type: ignore[arg-type]


def test_every_name_fits_into_what_databases_take() -> None:
    names = [
        *(table.name for table in TABLES),
        # What PostgreSQL calls a primary key, and what nobody can say otherwise without a name for each.
        *(f"{table.name}_pkey" for table in TABLES),
        *(index.name for table in TABLES for index in table.indexes),
        *VIEWS,
    ]
    longest = "p" * 24
    Renderer(SqliteDialect(), longest)
    assert max(len(longest + name) for name in names) <= 63
    assert len(set(names)) == len(names)


async def test_eight_processes_that_boot_at_once_make_the_tables_once(site: Site) -> None:
    workers = [start("boot_rounds", number, site.dsn, _ROUNDS) for number in range(8)]
    for number in range(_ROUNDS):
        for worker in workers:
            assert worker.stdout is not None
            assert json.loads(await asyncio.to_thread(worker.stdout.readline)) == {"ready": number}
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
    outcomes = [await asyncio.to_thread(last_words, worker) for worker in workers]
    assert outcomes == [{"done": True}] * 8
    whole = None
    for number in range(_ROUNDS):
        prefix = f"r{number}_"
        assert site.rows(f"SELECT COUNT(*) FROM {prefix}sessions") == [(8,)]
        assert site.rows(f"SELECT version, name FROM {prefix}schema_migrations") == [(SCHEMA_VERSION, "create tables")]
        names = {name.replace(prefix, "") for name in site.shape(prefix)}
        assert whole is None or names == whole
        whole = names


async def test_a_user_who_may_only_read_and_write_rows_verifies_and_works(server_site: ServerSite) -> None:
    user = f"rw{next(_users)}"
    server_site.run(schema_ddl(server_site.dsn))
    dsn = as_user(server_site, user, "SELECT, INSERT, UPDATE, DELETE")
    try:
        await provisioned(dsn, schema=SchemaPolicy.VERIFY)
        # What is there already asks for no right to make it.
        await provisioned(dsn)
        on = "" if server_site.kind == "postgres" else " ON pl_sessions"
        server_site.run(f"DROP INDEX pl_sessions_by_age{on};\n")
        error = await lacking(dsn)
        assert "index pl_sessions_by_age" in str(error)
        server_site.run(error.ddl)
        await provisioned(dsn, schema=SchemaPolicy.VERIFY)
        assert "secret" not in f"{error!r} {error.ddl}"
    finally:
        drop_user(server_site, user)


async def test_a_user_who_may_not_make_views_works_without(
    server_site: ServerSite, caplog: pytest.LogCaptureFixture
) -> None:
    if server_site.kind == "postgres":
        pytest.skip("who may make tables may make views here")
    user = f"nv{next(_users)}"
    dsn = as_user(server_site, user, "SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, INDEX, DROP")
    try:
        with caplog.at_level(logging.WARNING, "power_loop"):
            await provisioned(dsn)
        assert caplog.text.count("power-loop ddl --missing") == 1
        await provisioned(dsn, schema=SchemaPolicy.VERIFY)
        ddl = await missing_ddl(dsn)
        assert ddl.count("VIEW") == len(VIEWS)
        server_site.run(ddl)
        assert await missing_ddl(server_site.dsn) == ""
    finally:
        drop_user(server_site, user)


async def test_a_schema_of_its_own_is_another_place(server_site: ServerSite) -> None:
    if server_site.kind != "postgres":
        pytest.skip("a schema is a database here")
    server_site.run("CREATE SCHEMA first;\nCREATE SCHEMA second;\n")
    for name in ("first", "second"):
        dsn = f"{server_site.dsn}?schema={name}"
        await lacking(dsn)
        await provisioned(dsn)
        assert server_site.rows(f"SELECT COUNT(*) FROM {name}.pl_sessions") == [(1,)]
    assert server_site.shape() == {}


async def test_a_schema_that_is_not_there_or_may_not_be_used_is_refused_at_once(server_site: ServerSite) -> None:
    if server_site.kind != "postgres":
        pytest.skip("there a database is the schema")
    server_site.run("CREATE SCHEMA closed")
    user = f"pl_plain_{next(_users)}"
    plain = as_user(server_site, user, "SELECT")
    try:
        for dsn in (f"{server_site.dsn}?schema=nowhere", f"{plain}?schema=closed"):
            with pytest.raises(StoreRefusedError):
                await asyncio.wait_for(open_store(dsn), 60)
    finally:
        drop_user(server_site, user)
