"""A whole agent on a database server, and what a DSN of one can say."""

from __future__ import annotations

import asyncio
import gc
import logging
from typing import Any

import pytest

from power_loop import SendStatus, StatefulAgentLoop, tool
from power_loop.contracts.errors import StoreRefusedError
from power_loop.runtime.store import open as opening
from power_loop.runtime.store.open import open_store
from power_loop.runtime.store.sessions import Sessions
from power_loop.testing import ScriptedLLM, call
from tests.conformance.parts import accepted, new_session, one_send
from tests.runtime.store.parts import OwnThreads
from tests.runtime.store.server_parts import KINDS, connections, connections_go_to, database_of, server_of
from tests.servers import Server

# As long as one may be.
_NAME = "my+agents".ljust(63, "x")


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest) -> Server:
    return server_of(request.param)


@tool
def add(a: int, b: int) -> str:
    """Add two numbers."""
    return str(a + b)


async def test_a_turn_with_tools_goes_to_its_end_and_another_loop_goes_on(server: Server) -> None:
    with server.database() as dsn:
        llm = ScriptedLLM([call("add", {"a": 1, "b": 2}), "Three."])
        async with StatefulAgentLoop(llm=llm, dsn=dsn) as loop:
            session_id = await loop.new_session()
            result = await loop.send("What is 1 + 2?", session_id=session_id, tools=[add])
            assert (result.status, result.final_text) == (SendStatus.COMPLETED, "Three.")
        async with StatefulAgentLoop(llm=ScriptedLLM(["Still three."]), dsn=dsn) as loop:
            assert (await loop.send("Again?", session_id=session_id)).final_text == "Still three."
            assert len(await loop.get_messages(session_id)) == 6


async def test_handles_of_many_event_loops_share_one_pool(server: Server, own_threads: OwnThreads) -> None:
    with server.database() as dsn:
        dsn += "?pool_size=3"
        keeper = await open_store(dsn)

        def serve(number: int) -> None:
            async def main() -> None:
                store = await open_store(dsn)
                await one_send(store, await new_session(store, f"sess_{number}"))
                await store.aclose()

            asyncio.run(main())

        await asyncio.gather(*(asyncio.to_thread(serve, number) for number in range(12)))
        # One more asks.
        assert connections(server, dsn) <= 3 + 1
        assert len(own_threads()) == 1
        assert len((await keeper.list_sessions()).items) == 12
        await keeper.aclose()
        assert await connections_go_to(server, dsn, 0)


async def test_a_forgotten_handle_lets_the_database_go(
    server: Server, own_threads: OwnThreads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "LINGER_S", 0.0)
    with server.database() as dsn:
        store = await open_store(dsn)
        await new_session(store)
        threads = own_threads()
        assert threads
        del store
        gc.collect()
        for thread in threads:
            await asyncio.to_thread(thread.join, 60)
        assert own_threads() == []
        assert await connections_go_to(server, dsn, 0)


async def test_a_pooler_is_served_without_prepared_statements_and_with_settings_of_each_transaction() -> None:
    server = server_of("postgres")
    with server.database() as dsn:
        server.run("CREATE SCHEMA agents", dsn=dsn)
        store = await open_store(f"{dsn}?statement_cache_size=0&schema=agents&lock_timeout_s=3")
        await one_send(store, await new_session(store))
        assert (await store.get_session("sess_1")).send_count == 1
        database = store._rooms.database

        async def settings(tx) -> object:
            names = ("lock_timeout", "search_path", "transaction_isolation")
            return [(await tx.query(f"SELECT current_setting('{name}')"))[0][0] for name in names]

        assert await database.write("look", settings) == ["3s", "agents", "read committed"]
        await store.aclose()
        assert server.run("SELECT COUNT(*) FROM agents.pl_sessions", dsn=dsn)[0][0] == 1


async def test_a_connection_has_the_settings_that_the_store_relies_on(server: Server) -> None:
    with server.database() as dsn:
        database = database_of(f"{dsn}?application_name={_NAME}&statement_timeout_s=7&lock_timeout_s=3")

        async def one(tx, query: str) -> object:
            return (await tx.query(query))[0][0]

        async def look(tx) -> list[object]:
            if server.name == "postgres":
                names = ("application_name", "statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout",
                         "transaction_isolation")  # fmt: skip
                return [await one(tx, f"SELECT current_setting('{name}')") for name in names]
            isolation = "@@tx_isolation" if server.name == "mariadb" else "@@transaction_isolation"
            names = ["@@innodb_lock_wait_timeout", isolation, "@@time_zone", "@@character_set_connection"]
            names.append("@@idle_transaction_timeout" if server.name == "mariadb" else "@@wait_timeout")
            return [await one(tx, f"SELECT {name}") for name in names]

        found = await database.write("look", look)
        await database.aclose()
    if server.name == "postgres":
        assert found == [_NAME, "7s", "3s", "15s", "read committed"]
    else:
        assert found == [3, "READ-COMMITTED", "+00:00", "utf8mb4", 15]


async def test_encryption_is_insisted_on_or_left(server: Server) -> None:
    has_tls = server.name == "mysql"
    with server.database() as dsn:
        for mode, works in (("disable", True), ("prefer", True), ("require", has_tls), ("verify-full", False)):
            database = database_of(f"{dsn}?sslmode={mode}&retry_s=0.1")
            try:
                if works:
                    assert await database.open(create=True)
                else:
                    with pytest.raises(StoreRefusedError, match=r"certificate|encrypt|SSL"):
                        await database.open(create=True)
            finally:
                await database.aclose()


async def test_a_server_that_may_lose_what_it_acknowledged_is_warned_of_once(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    if server.name != "postgres":
        pytest.skip("there the setting is the whole server's, which other tests use")
    with server.database() as dsn:
        name = dsn.rpartition("/")[2]
        server.run(f'ALTER DATABASE "{name}" SET synchronous_commit = off')
        with caplog.at_level(logging.WARNING, "power_loop"):
            database = database_of(f"{dsn}?max_lifetime_s=0.00001")
            for _ in range(3):
                await database.open(create=True)
            await database.aclose()
    [warning] = [record.getMessage() for record in caplog.records if name in record.getMessage()]
    assert "synchronous_commit=off" in warning


async def test_a_session_that_is_given_back_while_its_closing_is_refused_is_closed(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with server.database() as dsn:
        store = await open_store(dsn)
        session_id = await new_session(store)
        await accepted(store, session_id)
        close = Sessions.close

        class Late:
            """Is a transaction behind whose first statement somebody else commits."""

            def __init__(self, tx: Any) -> None:
                self.tx, self.is_first = tx, True

            async def execute(self, *statement: Any) -> Any:
                changed = await self.tx.execute(*statement)
                if self.is_first:
                    self.is_first = False
                    server.run("UPDATE pl_sessions SET owner = NULL, lease_until_ms = 0", dsn=dsn)
                return changed

            def __getattr__(self, name: str) -> Any:
                return getattr(self.tx, name)

        async def late(self: Sessions, tx: Any, *args: Any, **options: Any) -> Any:
            return await close(self, Late(tx), *args, **options)

        monkeypatch.setattr(Sessions, "close", late)
        try:
            assert await store.close_session(session_id) is True
            assert await store.close_session(session_id) is False
        finally:
            await store.aclose()
