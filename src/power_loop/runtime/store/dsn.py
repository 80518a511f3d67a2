"""Reads DSNs: which database, and how it is opened."""

from __future__ import annotations

import difflib
import math
import os
import re
from typing import NoReturn
from urllib.parse import unquote

from power_loop.contracts.errors import InvalidDsnError
from power_loop.contracts.frozen import frozen
from power_loop.runtime.store.server_dsn import SERVER_SCHEMES, ServerDsn, parse_server_dsn

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")
_SCHEMES = ("sqlite", *SERVER_SCHEMES)
_MEMORY = ":memory:"
_SYNCHRONOUS = ("off", "normal", "full", "extra")
_PARAMETERS = ("synchronous", "busy_timeout_s")
_MAX_BUSY_TIMEOUT_S = 3600.0
_SEPARATORS = tuple(filter(None, (os.sep, os.altsep)))
_FILES = "app.db, /data/app.db, sqlite:///app.db, sqlite:////data/app.db or :memory:"
_FORMS = f"{_FILES}, or postgresql://user:password@host/database or mysql://user:password@host/database"


@frozen
class SqliteDsn:
    """Is a SQLite database: a file's path as it was given, or None for one in memory.

    `synchronous` is SQLite's own setting: with `full` what was acknowledged survives a power cut. `busy_timeout_s` is
    how long a write waits for other processes' writes, in seconds.
    """

    path: str | None
    synchronous: str = "full"
    busy_timeout_s: float = 10.0


def parse_dsn(dsn: str | os.PathLike[str]) -> SqliteDsn | ServerDsn:
    """Return what a DSN names. Raises `store.invalid_dsn`, whose message never holds a password."""
    if isinstance(dsn, os.PathLike):
        return SqliteDsn(_checked_path(os.fspath(dsn), repr(dsn)))
    if not isinstance(dsn, str):
        raise InvalidDsnError(f"dsn is a {type(dsn).__name__}: give a file name or a URL, such as {_FORMS}")
    text, _, query = dsn.partition("?")
    if text == _MEMORY:
        return _sqlite(None, query)
    found = _SCHEME.match(text)
    if found is None:
        if "//" in text and ":" in text:
            # Not shown, because it may be a URL with a password in it.
            raise InvalidDsnError(f"dsn looks like a URL but names no database as one does: give {_FORMS}")
        return _sqlite(_checked_path(text, repr(text)), query)
    scheme, rest = found[1].lower(), text[found.end() :]
    if scheme in SERVER_SCHEMES and rest.startswith("//"):
        return parse_server_dsn(scheme, dsn[found.end() :])
    if scheme != "sqlite" or not rest.startswith("//"):
        _refuse(scheme, rest)
    # Between // and the next / a URL has a host, which may carry a password.
    host, slash, path = rest[2:].partition("/")
    if host or not slash:
        raise InvalidDsnError(
            "a SQLite DSN has three slashes before a relative path and four before an absolute one:"
            " sqlite:///app.db, sqlite:////data/app.db"
        )
    path = unquote(path)
    if path == _MEMORY:
        return _sqlite(None, query)
    return _sqlite(_checked_path(path, repr(text)), query)


def _refuse(scheme: str, rest: str) -> NoReturn:
    if scheme in SERVER_SCHEMES:
        raise InvalidDsnError(f"a DSN of a server has two slashes: {scheme}://user:password@host/database")
    if scheme == "sqlite":
        raise InvalidDsnError(f"a SQLite DSN begins with sqlite:/// : give {_FILES}")
    if scheme == "file":
        raise InvalidDsnError(f"SQLite's file: URIs are not taken, because they can switch locking off: give {_FILES}")
    close = difflib.get_close_matches(scheme, _SCHEMES, n=1)
    hint = f"did you mean {close[0]}://? Otherwise " if close else ""
    raise InvalidDsnError(
        f"unknown database {scheme!r} in dsn: {hint}give {_FORMS}; a file whose name has a colon is written ./{scheme}:"
    )


def _checked_path(path: str, shown: str) -> str:
    if not isinstance(path, str):
        raise InvalidDsnError(f"dsn {shown} is a path of bytes: give text")
    if not path.strip():
        raise InvalidDsnError(f"dsn is empty: give {_FORMS}")
    if "\0" in path:
        raise InvalidDsnError(f"dsn {shown} has a NUL character, which no path can have")
    try:
        os.fsencode(path)
    except UnicodeEncodeError as error:
        raise InvalidDsnError(f"dsn {shown} has characters that no path can have") from error
    if path.endswith(_SEPARATORS):
        raise InvalidDsnError(f"dsn {shown} names a directory: give the file in it, such as {path}app.db")
    return path


def _sqlite(path: str | None, query: str) -> SqliteDsn:
    """Return the DSN of a database with its parameters, all of which are checked."""
    found: dict[str, str] = {}
    for pair in query.split("&") if query else ():
        name, has_value, value = pair.partition("=")
        if name not in _PARAMETERS:
            close = difflib.get_close_matches(name, _PARAMETERS, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {' and '.join(_PARAMETERS)}"
            raise InvalidDsnError(f"unknown parameter {name!r} in dsn: {hint}")
        if not has_value or name in found:
            raise InvalidDsnError(
                f"parameter {name!r} in dsn stands there {'twice' if name in found else 'without a value'}"
            )
        found[name] = unquote(value)
    synchronous = found.get("synchronous", "full").lower()
    if synchronous not in _SYNCHRONOUS:
        raise InvalidDsnError(f"synchronous={synchronous!r} in dsn: give one of {', '.join(_SYNCHRONOUS)}")
    if "busy_timeout_s" not in found:
        return SqliteDsn(path, synchronous)
    try:
        seconds = float(found["busy_timeout_s"])
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= _MAX_BUSY_TIMEOUT_S:
        raise InvalidDsnError(
            f"busy_timeout_s={found['busy_timeout_s']!r} in dsn: give seconds from 0 to {_MAX_BUSY_TIMEOUT_S:.0f}"
        )
    return SqliteDsn(path, synchronous, seconds)
