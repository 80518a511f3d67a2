"""Renders the DDL for a database of any kind, for those who make tables themselves."""

from __future__ import annotations

import os

from power_loop.runtime.store.dsn import parse_dsn
from power_loop.runtime.store.sql.dialect import Dialect, SqliteDialect
from power_loop.runtime.store.sql.dialect_mysql import MysqlDialect
from power_loop.runtime.store.sql.dialect_postgres import PostgresDialect
from power_loop.runtime.store.sql.provision import complete_ddl

_DIALECTS: dict[str, type[Dialect]] = {
    "postgresql": PostgresDialect,
    "postgres": PostgresDialect,
    "mysql": MysqlDialect,
    "mariadb": MysqlDialect,
}


def schema_ddl(dsn: str | os.PathLike[str], *, table_prefix: str = "pl_") -> str:
    """Return the script that makes all tables and views in a database of the DSN's kind, without connecting.

    Of a server's DSN its scheme is enough. Raises `store.invalid_dsn`, `store.invalid_table_prefix`.
    """
    scheme, separator, _ = os.fspath(dsn).partition("://")
    dialect = _DIALECTS.get(scheme.lower()) if separator else None
    if dialect is None:
        parse_dsn(dsn)
        dialect = SqliteDialect
    return complete_ddl(dialect(), table_prefix)
