"""Holds what differs between databases: types, placeholders, DDL, and how to look at what is there."""

from __future__ import annotations

import re
from typing import Protocol

from power_loop.contracts.errors import InvalidTablePrefixError
from power_loop.runtime.store.sql.tables import TABLES, Column, Index, Kind, Table

# With the longest name behind it a table or an index stays under PostgreSQL's 63 bytes, where names are cut silently.
_PREFIX = re.compile(r"[a-z_][a-z0-9_]{0,23}")


_SQLITE_TYPES = {Kind.KEY: "TEXT", Kind.TEXT: "TEXT", Kind.JSON: "TEXT", Kind.INTEGER: "INTEGER"}


class Dialect(Protocol):
    """Writes for one kind of database what the rooms of the store say once."""

    @property
    def columns_query(self) -> str:
        """The query that gives (table, column) for each column of the tables whose names begin with the parameter."""
        ...

    @property
    def indexes_query(self) -> str:
        """The query that gives the name of every index whose name begins with the parameter."""
        ...

    def placeholders(self, sql: str) -> str:
        """Return a statement with every `?` as the driver wants it."""
        ...

    def contains(self, column: str) -> str:
        """Return the condition that a text column contains the one parameter, byte for byte."""
        ...

    def create_table(self, table: Table, name: str) -> str:
        """Return the statement that makes a table."""
        ...

    def create_index(self, index: Index, name: str, table_name: str) -> str:
        """Return the statement that makes an index."""
        ...

    def add_column(self, column: Column, table_name: str) -> str:
        """Return the statement that gives an existing table a column."""
        ...


class SqliteDialect:
    """Speaks SQLite from version 3.31 on."""

    # The left side of a pragma function's join is written out, because SQLite before 3.36 plans it the wrong way round.
    columns_query = (
        "SELECT t.name, c.name FROM sqlite_master t, pragma_table_info(t.name) c"
        " WHERE t.type = 'table' AND t.name GLOB ? || '*'"
    )
    indexes_query = "SELECT name FROM sqlite_master WHERE type = 'index' AND name GLOB ? || '*'"

    def placeholders(self, sql: str) -> str:
        """Return it as it is: `?` is SQLite's own."""
        return sql

    def contains(self, column: str) -> str:
        """Return a condition without LIKE, which has wildcards and folds case."""
        return f"instr({column}, ?) > 0"

    def create_table(self, table: Table, name: str) -> str:
        """Return the statement that makes a table."""
        lines = [self._column(column) for column in table.columns]
        lines.append(f"PRIMARY KEY ({', '.join(table.primary_key)})")
        clustered = " WITHOUT ROWID" if table.is_clustered else ""
        return f"CREATE TABLE {name} (\n  " + ",\n  ".join(lines) + f"\n){clustered}"

    def create_index(self, index: Index, name: str, table_name: str) -> str:
        """Return the statement that makes an index."""
        unique = "UNIQUE " if index.is_unique else ""
        where = f" WHERE {index.where}" if index.where else ""
        return f"CREATE {unique}INDEX {name} ON {table_name} ({', '.join(index.columns)}){where}"

    def add_column(self, column: Column, table_name: str) -> str:
        """Return the statement that gives an existing table a column; what may not be NULL begins as nothing or 0."""
        default = "" if column.is_nullable else " DEFAULT 0" if column.kind is Kind.INTEGER else " DEFAULT ''"
        return f"ALTER TABLE {table_name} ADD COLUMN {self._column(column)}{default}"

    def _column(self, column: Column) -> str:
        return f"{column.name} {_SQLITE_TYPES[column.kind]}" + ("" if column.is_nullable else " NOT NULL")


class Renderer:
    """Turns a statement as the rooms write it, `... FROM {messages} WHERE seq > ?`, into a database's own."""

    def __init__(self, dialect: Dialect, prefix: str) -> None:
        if not _is_prefix(prefix):
            raise InvalidTablePrefixError(
                f"table prefix {prefix!r} is not usable: give 1 to 24 characters of a-z, 0-9 and _, beginning with a"
                " letter or _"
            )
        self.dialect = dialect
        self.prefix = prefix
        self._names = {table.name: prefix + table.name for table in TABLES}

    def __call__(self, sql: str) -> str:
        """Return the statement to run."""
        return self.dialect.placeholders(sql.format_map(self._names))


def _is_prefix(value: object) -> bool:
    return isinstance(value, str) and _PREFIX.fullmatch(value) is not None
