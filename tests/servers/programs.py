"""Finds the database programs of this machine, and says what was looked for where one is not here."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

# Where scripts/install_databases.sh puts what is not a package of this machine, and where prepared data is kept.
CACHE = Path(__file__).resolve().parents[2] / ".databases"

_POSTGRES = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/local/pgsql*/bin",
    "/opt/homebrew/opt/postgresql*/bin",
)
_MYSQL = ("/usr/sbin", "/usr/libexec", "/usr/local/mysql*/bin", "/usr/local/sbin", "/opt/homebrew/opt/m*/bin")


@cache
def postgres() -> tuple[Path, str] | None:
    """Return the folder of the newest PostgreSQL that has both a server and initdb, and its version."""
    found = []
    for server in _candidates(("postgres",), _POSTGRES):
        folder = server.resolve().parent
        if (folder / "initdb").exists():
            found.append((_version(server), folder))
    best = max(found, key=lambda one: _numbers(one[0]), default=None)
    return best and (best[1], best[0])


@cache
def mysqlds() -> dict[str, tuple[Path, str]]:
    """Return the server program and version of `mysql` and of `mariadb`, where they are here.

    `mysqld` may be a link to MariaDB: the program itself says which one it is.
    """
    found: dict[str, tuple[Path, str]] = {}
    own = sorted(CACHE.glob("m*/usr/sbin/mysqld"))
    for server in (*own, *_candidates(("mysqld", "mariadbd"), _MYSQL)):
        printed = _version(server)
        kind = "mariadb" if "MariaDB" in printed else "mysql"
        if printed and kind not in found:
            found[kind] = (server.resolve(), printed)
    return found


def launch(program: Path) -> list[str]:
    """Return the words that start a program: one that was unpacked brings its own libraries, and their loader."""
    if CACHE not in program.parents:
        return [str(program)]
    libraries = program.parents[2] / "usr/lib"
    folders = ":".join(map(str, libraries.glob("*-linux-gnu*")))
    return [*(f"{loader}" for loader in libraries.glob("*/ld-linux*.so.*")), "--library-path", folders, str(program)]


def _candidates(names: tuple[str, ...], folders: tuple[str, ...]) -> Iterator[Path]:
    for name in names:
        on_path = shutil.which(name)
        if on_path is not None:
            yield Path(on_path)
        for pattern in folders:
            yield from (path for path in sorted(Path("/").glob(f"{pattern[1:]}/{name}")) if os.access(path, os.X_OK))


def _version(program: Path) -> str:
    """Return what the program says of itself, from the version number on; nothing if it does not run."""
    words = [*launch(program), "--version"]
    try:
        printed = subprocess.run(words, capture_output=True, text=True, timeout=120).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
    number = re.search(r"\d+\.\d+[\w.+~:-]*", printed)
    return number[0] if number else ""


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]
