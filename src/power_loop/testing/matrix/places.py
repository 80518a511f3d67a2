"""Gives each history a database: a file of its own, or a session in a server's database that all of them share."""

from __future__ import annotations

import shutil
from pathlib import Path

_FILES = ("app.db", "app.db-wal", "app.db-shm")


class SqlitePlace:
    """Gives each history a file of its own, copied from one that has the tables."""

    scheme = "sqlite"

    def __init__(self, folder: Path, *, name: str = "sqlite", parameters: str = "") -> None:
        self.name = name
        self.template = folder / "template.db"
        self._parameters = parameters

    @property
    def first_dsn(self) -> str:
        """The database that is to get its tables first."""
        return str(self.template)

    def prepare(self, folder: Path) -> str:
        """Return the DSN of a copy."""
        shutil.copyfile(self.template, folder / "app.db")
        return f"{folder / 'app.db'}{self._parameters}"

    def impatient(self, dsn: str) -> str:
        """Return the same database for a process that does not wait for one that was stopped while it writes."""
        return f"{dsn}{'&' if '?' in dsn else '?'}busy_timeout_s=0.05"

    def clear(self, folder: Path) -> None:
        """Remove the copy."""
        for name in _FILES:
            (folder / name).unlink(missing_ok=True)


class ServerPlace:
    """Gives each history the same database; sessions keep them apart."""

    def __init__(self, dsn: str, *, name: str = "") -> None:
        self.scheme = dsn.partition(":")[0]
        self.name = name or self.scheme
        self.dsn = self.first_dsn = dsn

    def prepare(self, folder: Path) -> str:
        """Return the DSN."""
        return self.dsn

    def impatient(self, dsn: str) -> str:
        """Return the same; the server itself ends the transaction of a process that was stopped in it."""
        return dsn

    def clear(self, folder: Path) -> None:
        """Leave the session where it is: what others do with theirs does not see it."""


def place_of(backend: str | None, folder: Path) -> SqlitePlace | ServerPlace:
    """Return the place that a DSN names; None, `sqlite` and every file name stand for files of our own."""
    if backend is None or "://" not in backend or backend.startswith("sqlite:"):
        return SqlitePlace(folder)
    return ServerPlace(backend)
