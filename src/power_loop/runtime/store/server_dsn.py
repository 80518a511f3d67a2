"""Reads the DSNs of database servers: where one answers, as whom one comes, and how its connections are kept."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from power_loop.contracts.errors import InvalidDsnError
from power_loop.contracts.frozen import frozen

#: What a DSN may begin with, and the kind of server that it means.
SERVER_SCHEMES = {"postgresql": "postgresql", "postgres": "postgresql", "mysql": "mysql", "mariadb": "mysql"}

#: How a connection is encrypted, in libpq's words.
SSL_MODES = ("disable", "prefer", "require", "verify-ca", "verify-full")

_PORTS = {"postgresql": 5432, "mysql": 3306}
_MAX_SECONDS = 86_400.0
_MAX_POOL = 1000
# PostgreSQL cuts a longer name; on MySQL all that a driver tells of itself has 255 bytes.
_MAX_NAME_BYTES = 63
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_SCHEMA = re.compile(r"[A-Za-z_][A-Za-z0-9_$]{0,62}")


@frozen
class ServerDsn:
    """Is a database on a server.

    `kind` is `postgresql` or `mysql`, which is MariaDB too. `socket` is a path where the server is on this machine: the
    socket's folder on PostgreSQL, its file on MySQL. Durations are in seconds.
    """

    kind: str
    host: str
    port: int
    database: str
    user: str | None = None
    password: str | None = dataclasses.field(default=None, repr=False)
    socket: str | None = None
    #: Connections at most, for this process.
    pool_size: int = 10
    #: How long a transaction waits for one of them.
    acquire_timeout_s: float = 30.0
    connect_timeout_s: float = 10.0
    #: How long one statement may take.
    statement_timeout_s: float = 30.0
    #: How long a statement waits for rows that another transaction holds.
    lock_timeout_s: float = 10.0
    #: How long a transaction is tried again where the connection is lost or others are in its way.
    retry_s: float = 15.0
    #: How long a connection that nobody uses stays open.
    max_idle_s: float = 300.0
    #: How old a connection becomes before another one takes its place.
    max_lifetime_s: float = 3600.0
    sslmode: str = "prefer"
    sslrootcert: str | None = None
    sslcert: str | None = None
    sslkey: str | None = None
    #: How the server lists who is connected.
    application_name: str = "power-loop"
    #: PostgreSQL: prepared statements a connection keeps; 0 behind a pooler that shares connections by transaction.
    statement_cache_size: int = 512
    #: PostgreSQL: the schema that has the tables; None is the user's own `search_path`.
    schema: str | None = None

    @property
    def name(self) -> str:
        """How messages call it: without the password."""
        who = "" if self.user is None else f"{self.user}@"
        where = self.socket or (f"[{self.host}]" if ":" in self.host else self.host)
        port = "" if self.socket is not None and self.kind == "mysql" else f":{self.port}"
        return f"{self.kind}://{who}{where}{port}/{self.database}"

    @property
    def answer_within_s(self) -> float:
        """How long a server that works leaves a statement without an answer."""
        return max(self.statement_timeout_s, self.lock_timeout_s)


def parse_server_dsn(scheme: str, rest: str) -> ServerDsn:
    """Return what stands behind `scheme:`, from its `//` on. Raises `store.invalid_dsn`.

    No message shows what stands before the `?`: where a password is not encoded, any part of it may be the password.
    """
    kind = SERVER_SCHEMES[scheme]
    location, _, query = rest[2:].partition("?")
    who, at, location = location.rpartition("@")
    if not at and "@" in query:
        raise _invalid(scheme, "has an @ behind its ?: where user or password have one of / ? # @ : %, write it as %2F")
    where, _, database = location.partition("/")
    if "/" in who or "/" in database:
        raise _invalid(scheme, "has a / too many: where user or password have one, write it as %2F")
    found = _parameters(kind, query)
    database = _decoded(scheme, database)
    if not database:
        raise _invalid(scheme, f"names no database: write it as {scheme}://user:password@host/database")
    user, colon, password = who.partition(":")
    socket = found.pop("host", None) or found.pop("unix_socket", None)
    host, port = _host_and_port(scheme, where, _PORTS[kind])
    if "sslcert" in found or "sslkey" in found:
        if found.get("sslmode", "prefer") in ("disable", "prefer"):
            raise InvalidDsnError("sslcert in dsn is used only with sslmode=require, verify-ca or verify-full: add one")
        if "sslcert" not in found:
            raise InvalidDsnError("sslkey in dsn belongs to a certificate: give it as sslcert as well")
    return ServerDsn(
        kind,
        host,
        port,
        database,
        user=_decoded(scheme, user) or None,
        password=_decoded(scheme, password) if colon else None,
        socket=socket,
        **found,
    )


def _invalid(scheme: str, what: str) -> InvalidDsnError:
    return InvalidDsnError(f"this {scheme} DSN (not shown: it may hold a password) {what}")


def _decoded(scheme: str, text: str) -> str:
    if _BROKEN_ESCAPE.search(text):
        raise _invalid(scheme, "has a % that begins no escape: write it as %25")
    # No error of a codec is met here, because it would hold the whole of the text.
    text = unquote(text, errors="surrogateescape")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise _invalid(scheme, "has escapes that are no UTF-8, or half of a surrogate pair")
    if "\0" in text:
        raise _invalid(scheme, "has a NUL character")
    return text


def _host_and_port(scheme: str, where: str, default: int) -> tuple[str, int]:
    host, colon, port = where, "", ""
    if where.startswith("["):
        host, bracket, tail = where[1:].partition("]")
        if not bracket or (tail and not tail.startswith(":")):
            raise _invalid(scheme, "has a host in brackets that does not end as one: write it as [::1]:5432")
        colon, port = tail[:1], tail[1:]
    elif where.count(":") <= 1:
        host, colon, port = where.partition(":")
    else:
        raise _invalid(scheme, "has more than one : in its host: write an IPv6 address in brackets, as [::1]")
    if "," in host:
        raise _invalid(scheme, "names several hosts: give one, or a name that leads to the one that writes")
    host = _decoded(scheme, host) or "localhost"
    if not colon or not port:
        return host, default
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise _invalid(scheme, "has no number from 1 to 65535 as its port: where a password has a :, @ or /, encode it")
    return host, int(port)


# ---- parameters ----


def _parameters(kind: str, query: str) -> dict[str, Any]:
    """Return the checked parameters by the names of the fields."""
    known = _KNOWN[kind]
    found: dict[str, Any] = {}
    for pair in query.split("&") if query else ():
        name, has_value, value = pair.partition("=")
        if name not in known:
            other = next((one for one in _KNOWN if one != kind and name in _KNOWN[one]), None)
            close = difflib.get_close_matches(name, known, n=1)
            hint = (
                f"only {other} has that"
                if other
                else f"did you mean {close[0]!r}?"
                if close
                else f"there are {', '.join(sorted(known))}"
            )
            raise InvalidDsnError(f"unknown parameter {name!r:.80} in {kind} dsn: {hint}")
        if not has_value or not value or name in found:
            raise InvalidDsnError(
                f"parameter {name!r} in dsn stands there {'twice' if name in found else 'without a value'}"
            )
        found[name] = known[name](name, unquote(value))
    if "host" in found and "unix_socket" in found:
        raise InvalidDsnError("parameters 'host' and 'unix_socket' in dsn both name a socket: give one of them")
    return found


def _seconds(name: str, value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= _MAX_SECONDS:
        raise InvalidDsnError(f"{name}={value!r:.80} in dsn: give seconds above 0, up to {_MAX_SECONDS:.0f}")
    return seconds


def _seconds_or_none(name: str, value: str) -> float:
    return 0.0 if value in ("0", "0.0") else _seconds(name, value)


def _count(low: int, high: int) -> Callable[[str, str], int]:
    def read(name: str, value: str) -> int:
        if not (value.isascii() and value.isdigit() and low <= int(value) <= high):
            raise InvalidDsnError(f"{name}={value!r:.80} in dsn: give a number from {low} to {high}")
        return int(value)

    return read


def _ssl_mode(name: str, value: str) -> str:
    if value not in SSL_MODES:
        raise InvalidDsnError(f"{name}={value!r:.80} in dsn: give one of {', '.join(SSL_MODES)}")
    return value


def _text(name: str, value: str) -> str:
    if "\0" in value or not value.isprintable():
        raise InvalidDsnError(f"{name}={value!r:.80} in dsn: give text that can be printed")
    return value


def _application_name(name: str, value: str) -> str:
    if len(value.encode(errors="replace")) > _MAX_NAME_BYTES:
        raise InvalidDsnError(f"{name}={value!r:.80} in dsn: give {_MAX_NAME_BYTES} bytes at most")
    return _text(name, value)


def _socket(name: str, value: str) -> str:
    if not value.startswith("/"):
        raise InvalidDsnError(f"{name}={value!r:.80} in dsn: as a parameter it is the path of a socket, from / on")
    return _text(name, value)


def _schema(name: str, value: str) -> str:
    if not _SCHEMA.fullmatch(value):
        raise InvalidDsnError(f"{name}={value!r:.80} in dsn: give the plain name of one schema")
    return value


_COMMON: dict[str, Callable[[str, str], Any]] = {
    "pool_size": _count(1, _MAX_POOL),
    "acquire_timeout_s": _seconds,
    "connect_timeout_s": _seconds,
    "statement_timeout_s": _seconds,
    "lock_timeout_s": _seconds,
    "retry_s": _seconds_or_none,
    "max_idle_s": _seconds,
    "max_lifetime_s": _seconds,
    "sslmode": _ssl_mode,
    "sslrootcert": _text,
    "sslcert": _text,
    "sslkey": _text,
    "application_name": _application_name,
    "host": _socket,
}
_KNOWN: dict[str, dict[str, Callable[[str, str], Any]]] = {
    "postgresql": {**_COMMON, "statement_cache_size": _count(0, 100_000), "schema": _schema},
    "mysql": {**_COMMON, "unix_socket": _socket},
}
