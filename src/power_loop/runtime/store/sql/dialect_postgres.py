"""Speaks PostgreSQL, from version 12 on."""

from __future__ import annotations

from collections.abc import Sequence

from power_loop.runtime.store.sql.dialect import FullText, JsonItems, index_ddl, not_null, table_ddl
from power_loop.runtime.store.sql.marks import POSTGRES_TEXT, pieces
from power_loop.runtime.store.sql.tables import Column, Index, Kind, Table

# Keys compare and sort by their bytes, whatever the database's own collation makes of text.
_TYPES = {Kind.KEY: 'TEXT COLLATE "C"', Kind.TEXT: "TEXT", Kind.JSON: "TEXT", Kind.INTEGER: "BIGINT"}

# The pause between two questions for the lock of a schema, in seconds.
_LOCK_PAUSE_S = 0.1


class PostgresDialect:
    """Writes PostgreSQL's own. Names are looked for in its `search_path`, as in every other statement."""

    columns_query = (
        "SELECT c.relname::text, a.attname::text, format_type(a.atttypid, NULL)"
        " FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid"
        " WHERE c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped AND pg_table_is_visible(c.oid)"
        " AND starts_with(c.relname::text, $1)"
    )
    indexes_query = (
        "SELECT c.relname::text FROM pg_class c WHERE c.relkind IN ('i', 'I') AND pg_table_is_visible(c.oid)"
        " AND starts_with(c.relname::text, $1)"
    )
    views_query = (
        "SELECT c.relname::text FROM pg_class c WHERE c.relkind = 'v' AND pg_table_is_visible(c.oid)"
        " AND starts_with(c.relname::text, $1)"
    )
    backup_tool = "pg_dump"
    text = POSTGRES_TEXT
    is_ddl_atomic = True
    for_update = " FOR UPDATE"
    skip_locked = " FOR UPDATE SKIP LOCKED"
    notify: str | None = "SELECT pg_notify(?, ?)"
    now_ms = "(EXTRACT(EPOCH FROM clock_timestamp()) * 1000)::bigint"

    def placeholders(self, sql: str) -> str:
        """Return a statement with `$1`, `$2` and so on; an operator with a question mark is written with two."""
        first, *others = pieces(sql, POSTGRES_TEXT, has_doubled=True)
        return first + "".join(f"${number}{piece}" for number, piece in enumerate(others, 1))

    def byte_length(self, column: str) -> str:
        """Return the expression for the length in bytes."""
        return f"OCTET_LENGTH({column})"

    def contains(self, column: str) -> str:
        """Return a condition without LIKE, which has wildcards."""
        return f"strpos({column}, ?) > 0"

    def vacuum(self, tables: Sequence[str]) -> tuple[str, ...]:
        """Return statements that also tell the planner what is there; `FULL` would lock readers out."""
        return ("SET statement_timeout = 0", *[f"VACUUM (ANALYZE) {name}" for name in tables])

    def schema_lock(self, prefix: str) -> tuple[str, ...]:
        """Return an advisory lock that the end of the transaction gives back: it works behind a pooler too.

        It is asked for again and again, because a statement that waits may not wait for long.
        """
        # Where no schema is there or may be used, it is NULL, and no lock of that name is ever given.
        key = f"hashtextextended(COALESCE(current_schema(), '') || '.{prefix}', 0)"
        wait = f"(SELECT 0 FROM pg_sleep({_LOCK_PAUSE_S}))"
        ask = f"SELECT CASE WHEN pg_try_advisory_xact_lock({key}) THEN 1 ELSE {wait} END"
        return "SET LOCAL lock_timeout = 0", ask

    def schema_unlock(self, prefix: str) -> None:
        """Return nothing."""

    def create_table(self, table: Table, name: str) -> str:
        """Return the statement that makes a table."""
        return table_ddl(table, name, self._column)

    has_full_text = True

    def full_text(self, index: Index, name: str, table_name: str) -> FullText | None:
        """Return how the index finds rows: by the very expression that it is made on."""
        words, query = _words_of(f"m.{index.columns[0]}"), "to_tsquery('simple', ?)"
        return FullText(
            f"SELECT {{columns}} FROM {table_name} m WHERE m.namespace = ? AND {words} @@ {query}"
            f" ORDER BY ts_rank({words}, {query}) DESC, m.created_at_ms DESC, m.{index.text_key} DESC LIMIT ?",
            lambda namespace, terms, limit: (namespace, " | ".join(terms), " | ".join(terms), limit),
        )

    def create_index(self, index: Index, name: str, table_name: str) -> str:
        """Return the statement that makes an index."""
        if index.text_key is None:
            return index_ddl(index, name, table_name)
        return f"CREATE INDEX {name} ON {table_name} USING gin ({_words_of(index.columns[0])})"

    def add_column(self, column: Column, table_name: str) -> str:
        """Return the statement that gives an existing table a column."""
        return f"ALTER TABLE {table_name} ADD COLUMN {self._column(column)}"

    def create_view(self, name: str, query: str, *, is_there: bool) -> tuple[str, ...]:
        """Return the statements that make a view; one with other columns cannot be replaced, so it is dropped first."""
        create = f"CREATE VIEW {name} AS\n{query}"
        return (f"DROP VIEW {name}", create) if is_there else (create,)

    def time_of(self, column: str) -> str:
        """Return the expression for a time in UTC."""
        return f"(to_timestamp({column} / 1000.0) AT TIME ZONE 'UTC')"

    def day_of(self, column: str) -> str:
        """Return the expression for the day."""
        return f"to_char({self.time_of(column)}, 'YYYY-MM-DD')"

    def as_integer(self, expression: str) -> str:
        """Return a cast: a sum of 64-bit integers is a numeric."""
        return f"CAST({expression} AS BIGINT)"

    def json_items(self, column: str, key: str) -> JsonItems:
        """Return how a view looks at the objects of a list."""
        items = f"json_array_elements(({_whole(column)})::json -> '{key}')"
        return JsonItems(
            f"JOIN LATERAL {items} WITH ORDINALITY item(value, number) ON TRUE",
            "(item.number - 1)",
            type="(item.value ->> 'type')",
            text="COALESCE(item.value ->> 'text', item.value -> 'content' -> 0 ->> 'text')",
        )

    def _column(self, column: Column) -> str:
        return f"{column.name} {_TYPES[column.kind]}{not_null(column)}"


def _words_of(column: str) -> str:
    return f"to_tsvector('simple', {column})"


def _whole(column: str) -> str:
    """Return JSON with other characters in the place of halves of surrogate pairs, which one reads in no database.

    What a provider sent may have them, as `\\ud800`; a doubled backslash is put out of the way meanwhile.
    """
    shown = rf"replace(replace(replace({column}, '\\', chr(1)), '\ud', '\u0'), chr(1), '\\')"
    return rf"CASE WHEN strpos({column}, '\ud') > 0 THEN {shown} ELSE {column} END"
