"""Gives all processes of one test run the same server of a kind: it comes with the first and goes with the last."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
import uuid
from pathlib import Path

from tests.servers.kinds import find_server, given_server
from tests.servers.server import PrivateServer, Server, need


class Run:
    """Is this process's way to the servers of one test run, whose name all its processes know."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._servers: dict[str, Server] = {}
        self._databases: dict[str, str] = {}
        self._left: contextlib.ExitStack = contextlib.ExitStack()

    def server(self, name: str) -> Server:
        """Return the run's `postgres`, `mysql` or `mariadb`: for databases of one's own; it must not be killed."""
        if name not in self._servers:
            kind = find_server(name)
            self._servers[name] = given_server(kind) if kind.given else self._join(name)
        return self._servers[name]

    def database(self, name: str) -> str:
        """Return the DSN of a database on that server that is this process's own."""
        if name not in self._databases:
            server = self.server(name)
            self._databases[name] = dsn = server.new_database()
            self._left.callback(server.drop_database, dsn)
        return self._databases[name]

    def leave(self) -> None:
        """Say that this process needs the servers no more; its end says the same."""
        self._servers.clear()
        self._databases.clear()
        self._left.close()

    def _join(self, name: str) -> Server:
        note = Path(tempfile.gettempdir()) / f"pl-run-{os.getuid()}-{self.name}-{name}"
        with note.open("a+") as file:
            # Held while the server starts, so that the others wait for it.
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            written = file.read()
            joined = self._found(name, json.loads(written)) if written else None
            if joined is None:
                started = find_server(name).start(note=note)
                self._left.callback(started.leave)
                file.truncate(0)
                json.dump({"folder": str(started.folder), "port": started.address.port}, file)
                joined = started
        return Server(joined.recipe, joined.address)

    def _found(self, name: str, written: dict[str, object]) -> Server | None:
        """Join the server that another process started, unless it went before we could say that we need it."""
        folder = Path(str(written["folder"]))
        try:
            needed = need(folder)
        except FileNotFoundError:
            return None
        if not (folder / "needed").exists():
            os.close(needed)
            return None
        self._left.callback(os.close, needed)
        recipe = find_server(name).recipe
        return Server(recipe, PrivateServer.address_in(folder, recipe, int(str(written["port"]))))


# The run of this process, until the test runner tells which one it belongs to.
_current = Run(uuid.uuid4().hex[:8])


def belong_to(run: str) -> None:
    """Say which run this process is a part of."""
    _current.name = run


def shared_server(name: str) -> Server:
    """Return the server of this kind that all tests of the run share: make databases on it, and never kill it."""
    return _current.server(name)


def shared_database(name: str) -> str:
    """Return the DSN of a database there that only this process uses: isolate tests in it by a table prefix."""
    return _current.database(name)


def leave() -> None:
    """Let go of the shared servers."""
    _current.leave()
