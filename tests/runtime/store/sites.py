"""Gives a schema test one fresh database of each kind, and a look at it that goes past the store."""

from __future__ import annotations

import contextlib
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from power_loop.runtime.store.sql.dialect import Dialect, SqliteDialect
from power_loop.runtime.store.sql.dialect_mysql import MysqlDialect
from power_loop.runtime.store.sql.dialect_postgres import PostgresDialect
from tests.servers import Server, find_server, shared_server
from tests.servers.address import Address

OLD_VERSIONS = Path(__file__).parent / "old_versions"
KINDS = ("sqlite", "postgres", "mysql", "mariadb")

#: What stands under a prefix: by name a table's columns, an index's columns, a view's columns.
Shape = dict[str, Any]


class SqliteSite:
    """Is a SQLite file in a folder of its own."""

    kind = "sqlite"
    dialect: Dialect = SqliteDialect()

    def __init__(self, folder: Path) -> None:
        self.path = folder / "site.db"
        self.dsn = str(self.path)

    @property
    def is_untouched(self) -> bool:
        return not self.path.exists()

    def run(self, script: str) -> None:
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            connection.executescript(script)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            return connection.execute(query).fetchall()

    def shape(self, prefix: str = "pl_") -> Shape:
        shape: Shape = {}
        for kind, name, sql in self.rows("SELECT type, name, sql FROM sqlite_master"):
            if not name.startswith(prefix):
                continue
            if kind == "index":
                shape[name] = re.sub(r"\s+", " ", sql)
            else:
                # (name, type, may not be NULL, default, place in the primary key), in whatever order they came.
                columns = sorted(row[1:] for row in self.rows(f"PRAGMA table_info({name})"))
                shape[name] = (kind, columns, "WITHOUT ROWID" in sql)
        return shape

    def client(self) -> list[str] | None:
        program = shutil.which("sqlite3")
        return None if program is None else [program, "-bail", str(self.path)]

    def wipe(self) -> None:
        for path in self.path.parent.glob("site.db*"):
            path.unlink()


class ServerSite:
    """Is a database on the run's server of a kind."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.kind = server.name
        self.dsn = server.new_database()
        self.dialect: Dialect = PostgresDialect() if server.name == "postgres" else MysqlDialect()

    @property
    def is_untouched(self) -> bool:
        return self.shape("") == {}

    @property
    def database(self) -> str:
        return Address.of(self.dsn)[1]

    def run(self, script: str) -> None:
        statements = [statement for statement in script.split(";\n") if statement.strip()]
        self.server.run(*statements, dsn=self.dsn)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        return self.server.run(query, dsn=self.dsn)

    def shape(self, prefix: str = "pl_") -> Shape:
        shape: Shape = {}
        schema = "current_schema()" if self.kind == "postgres" else "DATABASE()"
        columns = self.rows(
            "SELECT table_name, column_name, data_type, character_maximum_length, collation_name, is_nullable,"
            f" column_default FROM information_schema.columns WHERE table_schema = {schema} ORDER BY 1, 2"
        )
        for table, *column in columns:
            # How texts compare in a view's columns is the matter of the connection that made it.
            shape.setdefault(table, []).append(tuple(column[:2] if f"{prefix}v_" in table else column))
        if self.kind == "postgres":
            indexes = self.rows("SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = current_schema()")
        else:
            indexes = [
                (f"{table}/{name}", tuple(rest))
                for table, name, *rest in self.rows(
                    "SELECT table_name, index_name, non_unique, GROUP_CONCAT(column_name ORDER BY seq_in_index)"
                    " FROM information_schema.statistics WHERE table_schema = DATABASE() GROUP BY 1, 2, 3"
                )
            ]
        shape.update(indexes)
        return {name: what for name, what in shape.items() if name.startswith(prefix)}

    def client(self) -> list[str] | None:
        """Return the command of the kind's own client; the password goes by the environment."""
        address = self.server.address
        if self.kind == "postgres":
            psql = shutil.which("psql")
            return None if psql is None else [psql, "-qX", "-v", "ON_ERROR_STOP=1", self.dsn]
        name = "mariadb" if self.kind == "mariadb" else "mysql"
        program = shutil.which(name) or shutil.which("mysql")
        if program is None:
            return None
        options = [f"--host={address.host}", f"--port={address.port}", f"--user={address.user}", "--protocol=tcp"]
        return [program, *options, f"--password={address.password}", "--default-character-set=utf8mb4", self.database]

    def wipe(self) -> None:
        self.server.drop_tables(self.dsn, "")


Site = SqliteSite | ServerSite


@contextlib.contextmanager
def fresh_site(kind: str, folder: Path) -> Iterator[Site]:
    """Hand out a fresh database; skip the test where there is no server of the kind."""
    if kind == "sqlite":
        yield SqliteSite(folder)
        return
    found = find_server(kind)
    if found.missing is not None:
        pytest.skip(str(found))
    site = ServerSite(shared_server(kind))
    try:
        yield site
    finally:
        site.server.drop_database(site.dsn)


def old_version(site: Site, version: int) -> str:
    """Return the script that makes a database as an older power-loop left it, with sessions in every state."""
    name = {"sqlite": "sqlite", "postgres": "postgres"}.get(site.kind, "mysql")
    return (OLD_VERSIONS / f"v{version}_{name}.sql").read_text("utf-8")


def run_client(site: Site, script: str) -> None:
    """Run a script with the database's own client, as a person would."""
    command = site.client()
    if command is None:
        pytest.skip(f"there is no client of {site.kind} here")
    done = subprocess.run(command, input=script, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def as_user(site: ServerSite, user: str, rights: str) -> str:
    """Make a user with these rights on what there is, and return the DSN with which it comes."""
    if site.kind == "postgres":
        statements = [
            f"CREATE ROLE {user} LOGIN PASSWORD 'secret'",
            f"GRANT USAGE ON SCHEMA public TO {user}",
            f"GRANT {rights} ON ALL TABLES IN SCHEMA public TO {user}",
        ]
    else:
        statements = [
            f"CREATE USER '{user}'@'%' IDENTIFIED BY 'secret'",
            f"GRANT {rights} ON `{site.database}`.* TO '{user}'@'%'",
        ]
    site.server.run(*statements, dsn=site.dsn)
    address = site.server.address
    scheme = "postgresql" if site.kind == "postgres" else "mysql"
    return f"{scheme}://{user}:secret@{address.host}:{address.port}/{site.database}"


def drop_user(site: ServerSite, user: str) -> None:
    """Remove a user and its rights."""
    if site.kind == "postgres":
        site.server.run(f"DROP OWNED BY {user}", f"DROP ROLE {user}", dsn=site.dsn)
    else:
        site.server.run(f"DROP USER '{user}'@'%'", dsn=site.dsn)
