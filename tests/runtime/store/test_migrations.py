"""Migrations: from every older version with its data, killed at every statement, by several processes at once."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from power_loop import StatefulAgentLoop, ToolContext, ToolRegistry, tool
from power_loop.contracts.errors import StoreNewerError, StoreSchemaError
from power_loop.contracts.states import SchemaPolicy, SendStatus
from power_loop.runtime.store.open import missing_ddl, open_store
from power_loop.runtime.store.sql.migrations import SCHEMA_VERSION, VERSIONS
from power_loop.runtime.store.sql.tables import TABLES
from power_loop.testing import ScriptedLLM
from power_loop.testing.conformance.parts import COMPLETED, accepted, claim, new_send, reply
from power_loop.tools import Waiting
from tests.runtime.store.processes import last_words, run_together, start
from tests.runtime.store.sites import KINDS, OLD_VERSIONS, Site, fresh_site, old_version, run_client

OLD = range(1, SCHEMA_VERSION)
# The sessions of an old database that go on and how many rows of their logs there are.
# How many statements lie between two deaths on the way from a version before the last one.
_EVERY = 5
_LOGS = {"sess_done": 6, "sess_effect": 2, "sess_midturn": 2, "sess_waiting": 3}
# Those of each version that are only looked at.
_OTHERS = {
    1: {"sess_closed": 0},
    2: {"sess_closed": 0, "sess_fork": 6},
    3: {"sess_closed": 0, "sess_fork": 6, "sess_folded": 4},
    4: {"sess_closed": 0, "sess_fork": 6, "sess_folded": 4, "sess_parent": 2, "sess_child": 2},
}


@pytest.fixture(params=KINDS)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    with fresh_site(request.param, tmp_path) as fresh:
        yield fresh


async def made(dsn: str) -> None:
    await (await open_store(dsn)).aclose()


async def new_shape(site: Site) -> dict[str, Any]:
    """Return what a fresh database looks like, made in the same place."""
    await made(site.dsn)
    shape = site.shape()
    site.wipe()
    return shape


def content(site: Site, version: int) -> dict[str, list[Any]]:
    """Return every row of a database, in the columns that a version has."""
    found = {}
    for table in TABLES:
        if table.since > version or table.name == "schema_migrations":
            continue
        columns = ", ".join(column.name for column in table.columns if column.since <= version)
        key = ", ".join(table.primary_key)
        found[table.name] = site.rows(f"SELECT {columns} FROM pl_{table.name} ORDER BY {key}")
    return found


def versions(site: Site) -> list[Any]:
    return [version for (version,) in site.rows("SELECT version FROM pl_schema_migrations ORDER BY version")]


def test_every_version_that_was_out_is_kept() -> None:
    assert sorted(VERSIONS) == list(range(1, SCHEMA_VERSION + 1))
    expected = {f"v{version}_{kind}.sql" for version in OLD for kind in ("sqlite", "postgres", "mysql")}
    assert {path.name for path in OLD_VERSIONS.iterdir()} == expected
    for table in TABLES:
        for part in (table, *table.columns, *table.indexes):
            assert part.since in VERSIONS, f"{table.name}: {part.name}"


@pytest.mark.parametrize("version", OLD)
async def test_an_older_database_becomes_what_a_fresh_one_is_and_keeps_its_rows(
    site: Site, version: int, caplog: pytest.LogCaptureFixture
) -> None:
    fresh = await new_shape(site)
    site.run(old_version(site, version))
    before = content(site, version)
    with caplog.at_level(logging.WARNING, "power_loop"):
        await made(site.dsn)
    assert len(re.findall(r"migrating the tables pl_\* from version", caplog.text)) == SCHEMA_VERSION - version
    assert site.shape() == fresh
    assert content(site, version) == before
    assert {table: len(rows) for table, rows in before.items()}["sessions"] == len(_LOGS | _OTHERS[version])
    assert versions(site) == list(range(version, SCHEMA_VERSION + 1))
    await (await open_store(site.dsn, schema=SchemaPolicy.VERIFY)).aclose()
    assert await missing_ddl(site.dsn) == ""


@pytest.mark.parametrize("version", OLD)
async def test_verify_prints_the_migration_and_changes_nothing(site: Site, version: int) -> None:
    fresh = await new_shape(site)
    site.run(old_version(site, version))
    old = site.shape()
    with pytest.raises(StoreSchemaError) as caught:
        await open_store(site.dsn, schema=SchemaPolicy.VERIFY)
    assert f"version {SCHEMA_VERSION} in pl_schema_migrations" in str(caught.value)
    assert "CREATE TABLE pl_sessions " not in caught.value.ddl
    assert site.shape() == old
    run_client(site, caught.value.ddl)
    assert site.shape() == fresh
    assert versions(site) == list(range(version, SCHEMA_VERSION + 1))
    await (await open_store(site.dsn, schema=SchemaPolicy.VERIFY)).aclose()


async def test_an_older_database_that_lacks_something_of_its_own_is_not_migrated(site: Site) -> None:
    site.run(old_version(site, 1) + "DROP TABLE pl_tool_results;\n")
    before = site.shape()
    with pytest.raises(StoreSchemaError, match="table pl_tool_results") as caught:
        await open_store(site.dsn)
    assert site.shape() == before
    site.run(caught.value.ddl)
    await (await open_store(site.dsn, schema=SchemaPolicy.VERIFY)).aclose()


@pytest.mark.parametrize("version", [0, *OLD])
async def test_a_kill_at_any_statement_is_mended_by_the_next_who_opens(site: Site, version: int) -> None:
    fresh = await new_shape(site)
    if version:
        site.run(old_version(site, version))
        before = content(site, version)
    old = site.shape()
    # Each death is one more open. Behind a statement it is as before the next one: SQLite shows that. The ways from
    # older versions pass the statements of the way from the last one, so that some of them are enough there.
    is_whole = version in (0, SCHEMA_VERSION - 1)
    points = ["ddl.before", "ddl.after"] if is_whole and "://" not in site.dsn else ["ddl.before"]
    every = 1 if is_whole else _EVERY
    said = await asyncio.to_thread(last_words, start("die_provisioning", site.dsn, every, *points))
    [deaths] = {said[point] for point in points}
    assert deaths > 20 // every
    assert site.shape() == fresh != old
    assert versions(site) == ([*range(version, SCHEMA_VERSION + 1)] if version else [SCHEMA_VERSION])
    if version:
        assert content(site, version) == before


@pytest.mark.parametrize("version", OLD)
async def test_processes_that_migrate_at_once_do_it_once(site: Site, version: int) -> None:
    fresh = await new_shape(site)
    site.run(old_version(site, version))
    await asyncio.to_thread(run_together, "boot", 4, site.dsn)
    assert site.shape() == fresh
    assert versions(site) == list(range(version, SCHEMA_VERSION + 1))
    assert site.rows("SELECT COUNT(*) FROM pl_sessions") == [(len(_LOGS | _OTHERS[version]) + 4,)]


async def test_a_process_of_an_older_version_ends_its_turn_and_begins_no_more(site: Site) -> None:
    store = await open_store(site.dsn)
    try:
        for session_id in ("sess_1", "sess_2"):
            await store.create_session(session_id, system_prompt=None, metadata={})
        held = await accepted(store, "sess_1")
        site.run(
            "INSERT INTO pl_schema_migrations (version, name, applied_at_ms)"
            f" VALUES ({SCHEMA_VERSION + 1}, 'from the future', 1);\n"
        )
        await store.append_reply(held.lease, reply(held, end=COMPLETED))
        for session_id in ("sess_1", "sess_2"):
            before = await store.read_view(session_id)
            with pytest.raises(StoreNewerError) as caught:
                await store.accept(claim(session_id), new_send())
            assert (caught.value.found, caught.value.known) == (SCHEMA_VERSION + 1, SCHEMA_VERSION)
            with pytest.raises(StoreNewerError):
                await store.take_up(claim(session_id))
            assert await store.read_view(session_id) == before
    finally:
        await store.aclose()


def old_tools(ran: list[str]) -> ToolRegistry:
    """Return the tools that the sessions of the old versions use."""

    @tool(effect="read")
    def look_up(word: str) -> str:
        """Look a word up."""
        ran.append(f"look_up {word}")
        return "a word"

    @tool(effect="read")
    def read_far(word: str, context: ToolContext) -> str:
        """Read something far away."""
        ran.append(f"read_far {word}")
        return "far"

    @tool
    def choose_seat() -> Waiting:
        """Let the traveller choose a seat."""
        return Waiting("Which seat?", answer_schema={"type": "string"})

    @tool
    def send_money(amount: int) -> str:
        """Send money."""
        ran.append(f"send_money {amount}")
        return "sent"

    return ToolRegistry([look_up, read_far, choose_seat, send_money])


@pytest.mark.parametrize("version", OLD)
async def test_sessions_of_an_older_version_go_on(site: Site, version: int) -> None:
    site.run(old_version(site, version))
    ran: list[str] = []
    llm = ScriptedLLM(["Read.", "Done with money.", "12A.", "More."])
    async with StatefulAgentLoop(llm=llm, dsn=site.dsn, tool_registry=old_tools(ran)) as loop:
        for session_id, count in (_LOGS | _OTHERS[version]).items():
            assert len(await loop.get_messages(session_id)) == count
        # Its process died in the middle of two reads: both run again.
        result = await loop.resume("sess_midturn")
        assert (result.status, result.final_text) == (SendStatus.COMPLETED, "Read.")
        assert sorted(ran) == ["look_up mid", "read_far turn"]
        # And in the middle of something that may not run twice.
        result = await loop.resume("sess_effect")
        assert (result.status, result.final_text) == (SendStatus.COMPLETED, "Done with money.")
        assert len(ran) == 2
        (call,) = await loop.get_pending("sess_waiting")
        result = await loop.submit_tool_result("sess_waiting", call.call_id, "12A")
        assert (result.status, result.final_text) == (SendStatus.COMPLETED, "12A.")
        # A request that was answered before the migration is answered from the log.
        result = await loop.send("And 言葉?", session_id="sess_done", request_id="req-1")
        assert result.final_text == "And 言葉 🎈 is a word."
        result = await loop.send("And more?", session_id="sess_done")
        assert result.final_text == "More."
        assert (await loop.get_session("sess_done")).metadata == {"user": "ada", "path": "C:\\tmp"}
    assert llm.steps_left == 0
