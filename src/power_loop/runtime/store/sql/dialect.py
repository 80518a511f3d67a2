"""Holds what differs between databases: types, placeholders, DDL, and how to look at what is there."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from power_loop.contracts.errors import InvalidTablePrefixError
from power_loop.contracts.frozen import frozen
from power_loop.runtime.store.sql.marks import SQLITE_TEXT
from power_loop.runtime.store.sql.tables import TABLES, Column, Index, Kind, Table

# With the longest name behind it a table or an index stays under PostgreSQL's 63 bytes, where names are cut silently.
# SQLite keeps `sqlite_` for itself.
_PREFIX = re.compile(r"(?!sqlite_)[a-z_][a-z0-9_]{0,23}")


# Tells an index of words from other tables, by the statement that made it.
_IS_FULL_TEXT = "{0} LIKE 'CREATE VIRTUAL TABLE % USING fts5(%'"
_SQLITE_TYPES = {Kind.KEY: "TEXT", Kind.TEXT: "TEXT", Kind.JSON: "TEXT", Kind.INTEGER: "INTEGER"}


@frozen
class JsonItems:
    """Is a look at the objects of a JSON list: what is joined, and the expressions for an object's number, from 0 on,
    for its type, and for its text, or that of the first object in its `content`; NULL where it has neither."""

    join: str
    number: str
    type: str
    text: str


@frozen
class FullText:
    """Is how rows are found by their words: the `query` with `{columns}` of the table as `m`, and its parameters for a
    namespace, terms that are nothing but letters, and a limit.

    Where the index does not do that by itself, `add` enters a row's number and terms, and `remove` takes them out.
    There, `sizes` is its table with the number of each row and how many terms it has (`id`, `sz`), `phrase` the query
    that tells whether it has a phrase under a number, and `rebuild` makes it anew from the rows.
    """

    query: str
    params: Callable[[str, Sequence[str], int], Sequence[Any]]
    add: str | None = None
    remove: str | None = None
    sizes: str = ""
    phrase: str = ""
    rebuild: str | None = None


class Dialect(Protocol):
    """Writes for one kind of database what the rooms of the store say once."""

    @property
    def columns_query(self) -> str:
        """The query that gives (table, column, type) for the tables whose names begin with the parameter."""
        ...

    @property
    def indexes_query(self) -> str:
        """The query that gives the name of every index whose name begins with the parameter."""
        ...

    @property
    def views_query(self) -> str:
        """The query that gives the name of every view whose name begins with the parameter."""
        ...

    @property
    def is_ddl_atomic(self) -> bool:
        """True if statements that make tables belong to the transaction; else each is committed by itself."""
        ...

    @property
    def for_update(self) -> str:
        """What makes a SELECT lock the rows that it finds, so that it waits for whoever is writing them."""
        ...

    @property
    def skip_locked(self) -> str:
        """What makes a SELECT lock the rows that it finds, and pass over those that somebody else is writing."""
        ...

    @property
    def notify(self) -> str | None:
        """The query that tells who listens on the first parameter the second one, at COMMIT; None where nobody can."""
        ...

    @property
    def backup_tool(self) -> str:
        """The program that backs such a database up, for messages."""
        ...

    @property
    def text(self) -> str:
        """The pattern of what in a statement is text, a name or a comment."""
        ...

    def placeholders(self, sql: str) -> str:
        """Return a statement with every `?` as the driver wants it."""
        ...

    def byte_length(self, column: str) -> str:
        """Return the expression for the length of a text column in bytes."""
        ...

    def contains(self, column: str) -> str:
        """Return the condition that a text column contains the one parameter, byte for byte."""
        ...

    def vacuum(self, tables: Sequence[str]) -> tuple[str, ...]:
        """Return the statements, none of them in a transaction, that give the space of removed rows back, behind those
        that let them take their time."""
        ...

    def schema_lock(self, prefix: str) -> tuple[str, ...]:
        """Return what makes the others wait who want to make the tables of a prefix.

        The last statement is a query, asked again until it answers 1. Nothing where a transaction that writes has the
        database for itself.
        """
        ...

    def schema_unlock(self, prefix: str) -> str | None:
        """Return the query that lets the others go on; None where the end of the transaction does."""
        ...

    def create_table(self, table: Table, name: str) -> str:
        """Return the statement that makes a table."""
        ...

    def create_index(self, index: Index, name: str, table_name: str) -> str:
        """Return the statement that makes an index."""
        ...

    @property
    def has_full_text(self) -> bool:
        """True if rows can be found by their words."""
        ...

    def full_text(self, index: Index, name: str, table_name: str) -> FullText | None:
        """Return how rows of a table with a namespace are found by their words; None where they cannot be."""
        ...

    def add_column(self, column: Column, table_name: str) -> str:
        """Return the statement that gives an existing table a column."""
        ...

    def create_view(self, name: str, query: str, *, is_there: bool) -> tuple[str, ...]:
        """Return the statements that make a view, or that change the one that is there."""
        ...

    @property
    def now_ms(self) -> str:
        """The expression for the database's time in epoch milliseconds, for a view."""
        ...

    def time_of(self, column: str) -> str:
        """Return the expression that shows epoch milliseconds to a person, in UTC."""
        ...

    def day_of(self, column: str) -> str:
        """Return the expression for the day of epoch milliseconds in UTC, as `2026-01-31`."""
        ...

    def as_integer(self, expression: str) -> str:
        """Return an expression as an integer, where a database makes a sum of integers something else."""
        ...

    def json_items(self, column: str, key: str) -> JsonItems:
        """Return how a view looks at each object in the list under `key` of a JSON column."""
        ...


class SqliteDialect:
    """Speaks SQLite from version 3.31 on."""

    # The left side of a pragma function's join is written out, because SQLite before 3.36 plans it the wrong way round.
    columns_query = (
        "SELECT t.name, c.name, c.type FROM sqlite_master t, pragma_table_info(t.name) c"
        f" WHERE t.type = 'table' AND NOT ({_IS_FULL_TEXT.format('t.sql')}) AND t.name GLOB ? || '*'"
    )
    indexes_query = (
        f"SELECT name FROM sqlite_master WHERE (type = 'index' OR ({_IS_FULL_TEXT.format('sql')}))"
        " AND name GLOB ? || '*'"
    )
    views_query = "SELECT name FROM sqlite_master WHERE type = 'view' AND name GLOB ? || '*'"

    backup_tool = "power-loop backup"
    text = SQLITE_TEXT
    is_ddl_atomic = True
    # One transaction writes at a time.
    for_update = ""
    skip_locked = ""
    notify: str | None = None

    def __init__(self, *, has_full_text: bool | None = None) -> None:
        self._has_full_text = has_full_text

    @property
    def has_full_text(self) -> bool:
        """True if SQLite was built with FTS5."""
        if self._has_full_text is None:
            self._has_full_text = _has_fts5()
        return self._has_full_text

    def full_text(self, index: Index, name: str, table_name: str) -> FullText | None:
        """Return how the index finds rows: it is a table of words beside the rows, which stand where they are."""
        if not self.has_full_text:
            return None
        [column] = index.columns
        return FullText(
            f"SELECT {{columns}} FROM {name}"
            f" JOIN {table_name} m ON m.namespace = ? AND m.{index.text_key} = {name}.rowid WHERE {name} MATCH ?"
            f" ORDER BY bm25({name}), m.created_at_ms DESC, m.{index.text_key} DESC LIMIT ?",
            lambda namespace, terms, limit: (namespace, " OR ".join(terms), limit),
            f"INSERT INTO {name} (rowid, {column}) VALUES (?, ?)",
            f"INSERT INTO {name} ({name}, rowid, {column}) VALUES ('delete', ?, ?)",
            f"{name}_docsize",
            f"SELECT 1 FROM {name} WHERE {name} MATCH ? AND rowid = ?",
            f"INSERT INTO {name} ({name}) VALUES ('rebuild')",
        )

    def placeholders(self, sql: str) -> str:
        """Return it as it is: `?` is SQLite's own."""
        return sql

    def byte_length(self, column: str) -> str:
        """Return an expression with a cast, because the length of text is counted in characters."""
        return f"LENGTH(CAST({column} AS BLOB))"

    def contains(self, column: str) -> str:
        """Return a condition without LIKE, which has wildcards and folds case."""
        return f"instr({column}, ?) > 0"

    def vacuum(self, tables: Sequence[str]) -> tuple[str, ...]:
        """Return the one statement: it sees to the whole file."""
        return ("VACUUM",)

    def schema_lock(self, prefix: str) -> tuple[str, ...]:
        """Return nothing."""
        return ()

    def schema_unlock(self, prefix: str) -> None:
        """Return nothing."""

    def create_table(self, table: Table, name: str) -> str:
        """Return the statement that makes a table."""
        return table_ddl(table, name, self._column, tail=" WITHOUT ROWID" if table.is_clustered else "")

    def create_index(self, index: Index, name: str, table_name: str) -> str:
        """Return the statement that makes an index; of words, a table of FTS5."""
        if index.text_key is None:
            return index_ddl(index, name, table_name)
        [column] = index.columns
        options = f"content='{table_name}', content_rowid='{index.text_key}', tokenize='ascii'"
        return f"CREATE VIRTUAL TABLE {name} USING fts5({column}, {options})"

    def add_column(self, column: Column, table_name: str) -> str:
        """Return the statement that gives an existing table a column."""
        return f"ALTER TABLE {table_name} ADD COLUMN {self._column(column)}"

    def _column(self, column: Column) -> str:
        return f"{column.name} {_SQLITE_TYPES[column.kind]}{not_null(column)}"

    def create_view(self, name: str, query: str, *, is_there: bool) -> tuple[str, ...]:
        """Return the statements that make a view, or that change the one that is there."""
        create = f"CREATE VIEW {name} AS\n{query}"
        return (f"DROP VIEW {name}", create) if is_there else (create,)

    # Versions before 3.42 have no time with parts of a second but as a day's fraction, which is not exact.
    now_ms = "(CAST(strftime('%s', 'now') AS INTEGER) * 1000)"

    def time_of(self, column: str) -> str:
        """Return the expression for a text such as `2026-01-31 12:00:00.250`."""
        seconds = f"strftime('%Y-%m-%d %H:%M:%S', {column} / 1000, 'unixepoch')"
        return f"({seconds} || '.' || substr('00' || ({column} % 1000), -3))"

    def day_of(self, column: str) -> str:
        """Return the expression for the day."""
        return f"strftime('%Y-%m-%d', {column} / 1000, 'unixepoch')"

    def as_integer(self, expression: str) -> str:
        """Return it as it is."""
        return expression

    def json_items(self, column: str, key: str) -> JsonItems:
        """Return how a view looks at the objects of a list; SQLite may have been built without these functions."""
        return JsonItems(
            f"JOIN json_each({column}, '$.{key}') item",
            "item.key",
            type="json_extract(item.value, '$.type')",
            text="COALESCE(json_extract(item.value, '$.text'), json_extract(item.value, '$.content[0].text'))",
        )


def _has_fts5() -> bool:
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        try:
            connection.execute("CREATE VIRTUAL TABLE probe USING fts5(words)")
        except sqlite3.OperationalError:
            return False
    return True


def table_ddl(table: Table, name: str, define: Callable[[Column], str], *, tail: str = "") -> str:
    """Return the statement that makes a table of what `define` makes of its columns."""
    lines = [*map(define, table.columns), f"PRIMARY KEY ({', '.join(table.primary_key)})"]
    return f"CREATE TABLE {name} (\n  " + ",\n  ".join(lines) + f"\n){tail}"


def index_ddl(index: Index, name: str, table_name: str, *, is_narrowed: bool = True) -> str:
    """Return the statement that makes an index, which may leave out what its `where` does."""
    unique = "UNIQUE " if index.is_unique else ""
    where = f" WHERE {index.where}" if index.where and is_narrowed else ""
    return f"CREATE {unique}INDEX {name} ON {table_name} ({', '.join(index.columns)}){where}"


def not_null(column: Column, *, empty: str = "''") -> str:
    """Return what a definition says about a column that may not be NULL; `empty` is how a default of no text looks."""
    if column.is_nullable:
        return ""
    if column.since == 1:
        return " NOT NULL"
    return f" NOT NULL DEFAULT {0 if column.kind is Kind.INTEGER else empty}"


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
