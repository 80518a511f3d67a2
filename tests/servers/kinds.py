"""Lists the kinds of server that power-loop runs on: where each comes from here, or why it is not here."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.servers import programs
from tests.servers.address import Address
from tests.servers.mysql import Mariadb, Mysql
from tests.servers.postgres import Postgres
from tests.servers.server import PrivateServer, Server

# Read when this is imported: the tests take our variables out of the environment before the first of them runs.
_GIVEN = {name: os.environ.get(name) for name in (Postgres.variable, Mysql.variable)}


@dataclass(frozen=True)
class ServerKind:
    """Is `postgres`, `mysql` or `mariadb`, with a way to it or the reason why there is none."""

    name: str
    recipe: Postgres | Mysql
    # The DSN of a server that was given to us: it is used and never killed.
    given: str | None = None
    # Why the kind is not here, and what brings it; None: it is here.
    missing: str | None = None
    # True: scripts/install_databases.sh tried to bring it, and wrote down why it could not.
    is_excused: bool = False

    @property
    def version(self) -> str:
        """Return the version of the program or of the given server."""
        return self.recipe.version

    def start(self, folder: Path | None = None, *, note: Path | None = None, has_tls: bool = False) -> PrivateServer:
        """Start a server that is ours alone, in a folder that any user may pass through (default: a fresh one).

        The folder goes when the server is stopped or this process ends, and the file `note` with it. With `has_tls` it
        has certificates of its own (`server.certificates`), and takes connections with and without TLS.
        """
        if self.missing is not None:
            raise RuntimeError(f"{self.name} is not here: {self.missing}")
        if self.given is not None:
            raise RuntimeError(f"{self.name} was given as {self.recipe.variable}: such a server is not ours to start")
        return PrivateServer(self.recipe, folder, note=note, has_tls=has_tls)

    def __str__(self) -> str:
        if self.missing is not None:
            return f"{self.name}: not here: {self.missing}"
        return f"{self.name} {self.version} ({'given' if self.given else 'private'})"


@cache
def find_servers() -> list[ServerKind]:
    """Return every kind, in one order; those that are not here say why."""
    mysqlds = programs.mysqlds()
    kinds = [
        _kind(Postgres(*(programs.postgres() or ()))),
        _kind(Mysql(*mysqlds.get("mysql", ()))),
        _kind(Mariadb(*mysqlds.get("mariadb", ()))),
    ]
    for dsn in filter(None, _GIVEN.values()):
        given = _given(dsn)
        kinds = [given if kind.name == given.name else kind for kind in kinds]
    return kinds


def find_server(name: str) -> ServerKind:
    """Return one kind by its name."""
    return next(kind for kind in find_servers() if kind.name == name)


def given_server(kind: ServerKind) -> Server:
    """Return the server that was given to us."""
    assert kind.given is not None
    return Server(kind.recipe, Address.of(kind.given)[0])


def _kind(recipe: Postgres | Mysql) -> ServerKind:
    if recipe.version:
        return ServerKind(recipe.name, recipe)
    note = programs.CACHE / f"{recipe.name}.missing"
    reason = note.read_text().strip() if note.exists() else f"no {recipe.looked_for}"
    return ServerKind(recipe.name, recipe, missing=f"{reason}; {_mend(recipe)}", is_excused=note.exists())


def _mend(recipe: Postgres | Mysql) -> str:
    return f"scripts/install_databases.sh brings it, {recipe.variable} names another"


def _given(dsn: str) -> ServerKind:
    """Ask the given server what it is: a MySQL DSN may lead to a MariaDB."""
    address, database = Address.of(dsn)
    recipe: Postgres | Mysql = Postgres() if address.scheme == "postgresql" else Mysql()
    try:
        version = str(recipe.run(address, database, recipe.version_query(), timeout_s=30.0)[0][0])
    except Exception as error:
        return ServerKind(recipe.name, recipe, missing=f"the server of {recipe.variable} does not answer: {error!r}")
    if "MariaDB" in version:
        recipe = Mariadb()
    recipe.version = version.split()[0]
    return ServerKind(recipe.name, recipe, given=dsn)
