"""The world outside of the demo: a bank that knows idempotency keys, and a bell that knows nothing.

Both keep their books in files beside the demo's database, so that they outlive a killed process as a real bank would.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class BankBooks:
    """Is what the bank has seen: how often it was asked, and which payments it made."""

    requests: int
    payments: tuple[tuple[str, str, int], ...]  # key, name, euros


class Bank:
    """Pays once a key, however often it is asked."""

    def __init__(self, path: Path = Path("bank.db")) -> None:
        self._path = path

    def pay(self, euros: int, name: str, *, key: str) -> int:
        """Pay, unless this key was paid before; return the number of the receipt."""
        with sqlite3.connect(self._path, isolation_level=None) as books:
            books.execute("begin immediate")
            books.execute("create table if not exists request (key text)")
            books.execute(
                "create table if not exists payment (number integer primary key, key text unique, name, euros)"
            )
            books.execute("insert into request values (?)", (key,))
            books.execute("insert or ignore into payment (key, name, euros) values (?, ?, ?)", (key, name, euros))
            (number,) = books.execute("select number from payment where key = ?", (key,)).fetchone()
            books.execute("commit")
        books.close()
        return int(number)

    def books(self) -> BankBooks:
        """Return everything that was asked and paid so far."""
        with sqlite3.connect(self._path) as books:
            (requests,) = books.execute("select count(*) from request").fetchone()
            payments = books.execute("select key, name, euros from payment order by number").fetchall()
        books.close()
        return BankBooks(int(requests), tuple(payments))


class Bell:
    """Rings; a line a pull is all that anybody could have heard."""

    def __init__(self, path: Path = Path("bell.txt")) -> None:
        self._path = path

    def ring(self, times: int) -> None:
        """Ring so many times."""
        with self._path.open("a", encoding="utf-8") as heard:
            heard.write(f"{times}\n")

    def heard(self) -> tuple[int, ...]:
        """Return how many times each pull rang."""
        return tuple(map(int, self._path.read_text("utf-8").split())) if self._path.exists() else ()
