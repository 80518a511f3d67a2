"""Says where a database server answers and as whom, in every way that a DSN can say it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit


@dataclass(frozen=True)
class Address:
    """Is a server's address and the user that the tests are on it."""

    scheme: str
    user: str
    password: str
    host: str = "127.0.0.1"
    port: int = 0
    # The socket's file on MySQL, the folder of the socket on PostgreSQL; None on a server that was given to us.
    socket: Path | None = None
    # What a given DSN says behind its question mark.
    query: str = ""

    @classmethod
    def of(cls, dsn: str) -> tuple[Address, str]:
        """Read a DSN; return its address and its database."""
        parts = urlsplit(dsn)
        scheme = "postgresql" if parts.scheme.startswith("postgres") else "mysql"
        address = cls(
            scheme,
            unquote(parts.username or "root"),
            password=unquote(parts.password or ""),
            host=parts.hostname or "127.0.0.1",
            port=parts.port or (5432 if scheme == "postgresql" else 3306),
            query=parts.query,
        )
        return address, unquote(parts.path.lstrip("/"))

    def dsn(self, database: str, *, port: int | None = None, password: str | None = None, query: str = "") -> str:
        """Return the DSN over TCP; with the port of a proxy, another password, or parameters of its own."""
        who = f"{quote(self.user, safe='')}:{quote(self.password if password is None else password, safe='')}"
        tail = "&".join(part for part in (self.query, query) if part)
        return f"{self.scheme}://{who}@{self.host}:{port or self.port}/{quote(database)}{'?' if tail else ''}{tail}"
