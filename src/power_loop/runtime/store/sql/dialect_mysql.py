"""Speaks MySQL from version 8.0.17 on and MariaDB from 10.6 on, both with the same statements."""

from __future__ import annotations

from collections.abc import Sequence

from power_loop.runtime.store.sql.dialect import FullText, JsonItems, index_ddl, not_null, table_ddl
from power_loop.runtime.store.sql.marks import MYSQL_TEXT
from power_loop.runtime.store.sql.tables import Column, Index, Kind, Table

# Keys compare by their bytes. The usual `utf8mb4_bin` does not: it takes 'a' and 'a ' for the same. Each server has a
# collation that does, under its own name, and reads only the comment that is meant for it; two such keys of 255
# characters stay under InnoDB's 3072 bytes.
_TYPES = {
    Kind.KEY: "VARCHAR(255) /*!80017 COLLATE utf8mb4_0900_bin */ /*M!100200 COLLATE utf8mb4_nopad_bin */",
    Kind.TEXT: "LONGTEXT",
    Kind.JSON: "LONGTEXT",
    Kind.INTEGER: "BIGINT",
}
_TABLE = "ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
# How long one question for the lock of a schema waits, in seconds.
_LOCK_WAIT_S = 5


class MysqlDialect:
    """Writes what both servers understand."""

    columns_query = (
        "SELECT c.table_name, c.column_name, c.data_type FROM information_schema.columns c"
        " JOIN information_schema.tables t ON t.table_schema = c.table_schema AND t.table_name = c.table_name"
        " WHERE c.table_schema = DATABASE() AND t.table_type = 'BASE TABLE' AND INSTR(c.table_name, ?) = 1"
    )
    indexes_query = (
        "SELECT DISTINCT index_name FROM information_schema.statistics"
        " WHERE table_schema = DATABASE() AND INSTR(index_name, ?) = 1"
    )
    views_query = (
        "SELECT table_name FROM information_schema.views WHERE table_schema = DATABASE() AND INSTR(table_name, ?) = 1"
    )
    backup_tool = "mysqldump or mariadb-dump"
    text = MYSQL_TEXT
    is_ddl_atomic = False
    for_update = " FOR UPDATE"
    skip_locked = " FOR UPDATE SKIP LOCKED"
    notify: str | None = None
    now_ms = "CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED)"

    def placeholders(self, sql: str) -> str:
        """Return it as it is: values are written into the text, whatever marks them."""
        return sql

    def byte_length(self, column: str) -> str:
        """Return the expression for the length in bytes."""
        return f"OCTET_LENGTH({column})"

    def contains(self, column: str) -> str:
        """Return a condition without LIKE, which has wildcards; long texts compare by their characters' codes."""
        return f"INSTR({column}, ?) > 0"

    def vacuum(self, tables: Sequence[str]) -> tuple[str, ...]:
        """Return statements that write each table anew, while others read and write it. Each server has a limit of its
        own, and reads only the comment that is meant for it."""
        limit = "/*!80017 max_execution_time */ /*M!100200 max_statement_time */"
        return (f"SET SESSION {limit} = 0", *[f"OPTIMIZE TABLE {name}" for name in tables])

    def schema_lock(self, prefix: str) -> tuple[str, ...]:
        """Return a named lock; names are the whole server's and have 64 characters at most."""
        return (f"SELECT GET_LOCK({_lock_name(prefix)}, {_LOCK_WAIT_S})",)

    def schema_unlock(self, prefix: str) -> str | None:
        """Return the query that gives the lock back."""
        return f"SELECT RELEASE_LOCK({_lock_name(prefix)})"

    def create_table(self, table: Table, name: str) -> str:
        """Return the statement that makes a table."""
        return table_ddl(table, name, self._column, tail=f" {_TABLE}")

    has_full_text = True

    def full_text(self, index: Index, name: str, table_name: str) -> FullText | None:
        """Return how the index finds rows; in boolean mode, where no word is too frequent to be looked for."""
        match = f"MATCH(m.{index.columns[0]}) AGAINST (? IN BOOLEAN MODE)"
        return FullText(
            f"SELECT {{columns}} FROM {table_name} m WHERE m.namespace = ? AND {match}"
            f" ORDER BY {match} DESC, m.created_at_ms DESC, m.{index.text_key} DESC LIMIT ?",
            lambda namespace, terms, limit: (namespace, " ".join(terms), " ".join(terms), limit),
        )

    def create_index(self, index: Index, name: str, table_name: str) -> str:
        """Return the statement that makes an index, over all rows: NULLs are never the same here."""
        if index.text_key is not None:
            return f"CREATE FULLTEXT INDEX {name} ON {table_name} ({', '.join(index.columns)})"
        return index_ddl(index, name, table_name, is_narrowed=False)

    def add_column(self, column: Column, table_name: str) -> str:
        """Return the statement that gives an existing table a column."""
        return f"ALTER TABLE {table_name} ADD COLUMN {self._column(column)}"

    def create_view(self, name: str, query: str, *, is_there: bool) -> tuple[str, ...]:
        """Return the statement that makes a view, or that changes the one that is there."""
        return (f"CREATE OR REPLACE VIEW {name} AS\n{query}",)

    def time_of(self, column: str) -> str:
        """Return the expression for a time in UTC, whatever the time zone of who looks."""
        return f"(TIMESTAMP('1970-01-01 00:00:00.000') + INTERVAL {column} * 1000 MICROSECOND)"

    def day_of(self, column: str) -> str:
        """Return the expression for the day."""
        return f"DATE_FORMAT({self.time_of(column)}, '%Y-%m-%d')"

    def as_integer(self, expression: str) -> str:
        """Return a cast: a sum of integers is a decimal."""
        return f"CAST({expression} AS SIGNED)"

    def json_items(self, column: str, key: str) -> JsonItems:
        """Return how a view looks at the objects of a list."""
        # Else MariaDB takes the database's character set, which may have no more than 256 characters.
        utf8 = "/*M!100600 CHARACTER SET utf8mb4 */"
        columns = (
            f"number FOR ORDINALITY, type VARCHAR(64) PATH '$.type', text LONGTEXT {utf8} PATH '$.text',"
            f" content LONGTEXT {utf8} PATH '$.content[0].text'"
        )
        return JsonItems(
            f"JOIN JSON_TABLE({_whole(column)}, '$.{key}[*]' COLUMNS ({columns})) item",
            "(item.number - 1)",
            type="item.type",
            text="COALESCE(item.text, item.content)",
        )

    def _column(self, column: Column) -> str:
        # Of a long text a default has to be an expression.
        not_null_words = not_null(column, empty="('')")
        return f"{column.name} {_TYPES[column.kind]}{not_null_words}"


def _lock_name(prefix: str) -> str:
    # MySQL 9 has no SHA1 any more.
    return f"CONCAT('pl:', LEFT(SHA2(CONCAT(DATABASE(), ':{prefix}'), 256), 40))"


def _whole(column: str) -> str:
    """Return JSON with other characters in the place of halves of surrogate pairs, which one reads in no database.

    What a provider sent may have them, as `\\ud800`; a doubled backslash is put out of the way meanwhile.
    """
    mark = "CHAR(1 USING utf8mb4)"
    shown = rf"REPLACE(REPLACE(REPLACE({column}, '\\\\', {mark}), '\\ud', '\\u0'), {mark}, '\\\\')"
    return rf"CASE WHEN INSTR({column}, '\\ud') > 0 THEN {shown} ELSE {column} END"
