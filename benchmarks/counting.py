"""Counts what a program asks of SQLite: statements, transactions and rows, through the module it imports."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

CONTROL = ("BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT", "RELEASE", "PRAGMA")
WRITES = ("INSERT", "UPDATE", "DELETE", "REPLACE", "WITH")


@dataclass
class Counts:
    """What was asked. `transactions` are the writing ones: a SAVEPOINT inside a group commit counts as one."""

    statements: list[str] = field(default_factory=list)
    rows: int = 0

    @property
    def work(self) -> list[str]:
        """The statements that are neither transaction control nor settings."""
        return [one for one in self.statements if not one.startswith(CONTROL)]

    @property
    def commits(self) -> int:
        """COMMITs that SQLite carried out."""
        return sum(one.startswith(("COMMIT", "END")) for one in self.statements)

    @property
    def transactions(self) -> int:
        """Transaction bodies that wrote: between BEGIN or SAVEPOINT and the RELEASE or COMMIT that ends it."""
        bodies = 0
        wrote = False
        for one in self.statements:
            if one.startswith(WRITES):
                wrote = True
            elif one.startswith(("RELEASE", "COMMIT", "END")):
                bodies += wrote
                wrote = False
        return bodies

    def clear(self) -> None:
        """Begin anew."""
        self.statements.clear()
        self.rows = 0


@contextlib.contextmanager
def counted() -> Iterator[Counts]:
    """Every connection that is opened inside counts here."""
    counts = Counts()
    connect = sqlite3.connect

    class CountingCursor(sqlite3.Cursor):
        def fetchone(self) -> Any:
            row = super().fetchone()
            counts.rows += row is not None
            return row

        def fetchall(self) -> list[Any]:
            rows = super().fetchall()
            counts.rows += len(rows)
            return rows

        def fetchmany(self, *args: Any, **options: Any) -> list[Any]:
            rows = super().fetchmany(*args, **options)
            counts.rows += len(rows)
            return rows

        def __next__(self) -> Any:
            row = super().__next__()
            counts.rows += 1
            return row

    class CountingConnection(sqlite3.Connection):
        def cursor(self, factory: Any = CountingCursor) -> Any:
            return super().cursor(factory)

        def execute(self, *args: Any) -> Any:
            return self.cursor().execute(*args)

        def executemany(self, *args: Any) -> Any:
            return self.cursor().executemany(*args)

    def counting_connect(*args: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*args, **{"factory": CountingConnection, **options})
        connection.set_trace_callback(lambda sql: counts.statements.append(sql.lstrip().upper()))
        return connection

    sqlite3.connect = counting_connect  # type: ignore[assignment]
    try:
        yield counts
    finally:
        sqlite3.connect = connect
