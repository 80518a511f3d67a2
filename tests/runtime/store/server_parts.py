"""Gives tests a bare database on a server, with a table of its own, behind the port."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import pytest

from power_loop.runtime.store.dsn import parse_dsn
from power_loop.runtime.store.open import _driver
from power_loop.runtime.store.server_dsn import ServerDsn
from power_loop.runtime.store.sql import dialect_mysql, dialect_postgres
from power_loop.runtime.store.sql.server import ServerDatabase
from power_loop.runtime.store.sql.tables import Kind
from tests.servers import Server, find_server, shared_server

TYPES = (dialect_mysql._TYPES, dialect_postgres._TYPES)
KINDS = ("postgres", "mysql", "mariadb")
#: How long a connection may take to leave, in seconds: on a busy machine that takes some, and no minute.
_LEAVE_S = 60.0


def server_of(name: str) -> Server:
    """Return the shared server of a kind; the test is skipped where there is none."""
    kind = find_server(name)
    if kind.missing is not None:
        pytest.skip(str(kind))
    return shared_server(name)


def database_of(dsn: str) -> ServerDatabase:
    parsed = parse_dsn(dsn)
    assert isinstance(parsed, ServerDsn)
    return ServerDatabase(parsed, _driver(parsed))


@contextlib.asynccontextmanager
async def opened(dsn: str, query: str = "") -> AsyncIterator[ServerDatabase]:
    database = database_of(f"{dsn}{'&' if '?' in dsn else '?'}{query}" if query else dsn)
    try:
        await database.open(create=True)
        yield database
    finally:
        await database.aclose()


def make_table(server: Server, dsn: str) -> None:
    """Make a table `t` with a key and a text, of the types that the store's tables have, with 20 rows in `n`."""
    key, text, integer = (TYPES[server.name == "postgres"][kind] for kind in (Kind.KEY, Kind.TEXT, Kind.INTEGER))
    tail = " ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin" if server.name != "postgres" else ""
    server.run(
        f"CREATE TABLE t (id {key} NOT NULL, body {text}, PRIMARY KEY (id)){tail}",
        f"CREATE TABLE n (id {integer} NOT NULL, value {integer} NOT NULL, PRIMARY KEY (id)){tail}",
        f"INSERT INTO n (id, value) VALUES {', '.join(f'({number}, 0)' for number in range(20))}",
        dsn=dsn,
    )


@contextlib.contextmanager
def with_table(server: Server) -> Iterator[str]:
    """Hand out the DSN of a fresh database that has the tables."""
    with server.database() as dsn:
        make_table(server, dsn)
        yield dsn


def put(database: ServerDatabase, key: str, text: str = "") -> Callable[[Any], Coroutine[Any, Any, str]]:
    """Return a body that puts a row."""
    sql = database.dialect.placeholders("INSERT INTO t (id, body) VALUES (?, ?)")

    async def body(tx: Any) -> str:
        await tx.execute(sql, (key, text))
        return key

    return body


def has(database: ServerDatabase, key: str) -> Callable[[Any], Coroutine[Any, Any, bool]]:
    """Return a look, with a lock, whether a row is there."""
    sql = database.dialect.placeholders("SELECT body FROM t WHERE id = ?" + database.dialect.for_update)

    async def landed(tx: Any) -> bool:
        return bool(await tx.query(sql, (key,)))

    return landed


async def keys(database: ServerDatabase) -> list[str]:
    async def body(tx: Any) -> list[str]:
        return [key for (key,) in await tx.query("SELECT id FROM t ORDER BY id")]

    return await database.read(body)


def connections(server: Server, dsn: str) -> int:
    """Count those who are connected to a database."""
    name = dsn.partition("?")[0].rpartition("/")[2]
    if server.name == "postgres":
        query = f"SELECT COUNT(*) FROM pg_stat_activity WHERE datname = '{name}'"
    else:
        query = f"SELECT COUNT(*) FROM information_schema.processlist WHERE db = '{name}'"
    return int(server.run(query)[0][0])


async def connections_go_to(server: Server, dsn: str, count: int) -> bool:
    """Wait until so many are connected to a database: a server takes its time to notice who has left. False if it is
    not so in time."""
    until_s = time.monotonic() + _LEAVE_S
    while connections(server, dsn) != count:
        if time.monotonic() > until_s:
            return False
        await asyncio.sleep(0.02)
    return True


def open_transactions(server: Server, dsn: str) -> int:
    """Count transactions on a database that were begun and are not over."""
    name = dsn.partition("?")[0].rpartition("/")[2]
    if server.name == "postgres":
        query = f"SELECT COUNT(*) FROM pg_stat_activity WHERE datname = '{name}' AND state LIKE 'idle in transaction%'"
    else:
        query = (
            "SELECT COUNT(*) FROM information_schema.innodb_trx x JOIN information_schema.processlist p"
            f" ON p.id = x.trx_mysql_thread_id WHERE p.db = '{name}'"
        )
    return int(server.run(query)[0][0])
