"""Knows how a private PostgreSQL is made, started and spoken to."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from tests.servers.address import Address
from tests.servers.certificates import Certificates
from tests.servers.folders import give, server_user


class Postgres:
    """Is PostgreSQL: how it is made, and its words for what every database can do."""

    name = "postgres"
    scheme = "postgresql"
    variable = "POWER_LOOP_TEST_PG_DSN"
    package = "postgresql"
    looked_for = "postgres and initdb in PATH, /usr/lib/postgresql/*/bin"
    # Ends the sessions of the clients and closes the files; SIGTERM would wait for the clients.
    polite = signal.SIGINT
    main_database = "postgres"
    own_schema = "current_schema()"

    def __init__(self, folder: Path | None = None, version: str = "") -> None:
        self.folder, self.version = folder, version

    @property
    def uid(self) -> int:
        """Return the user that the server runs as: it refuses root."""
        return server_user()

    def prepare(self, data: Path, address: Address) -> None:
        """Make the data of a server that has one superuser; every connection over TCP needs its password."""
        secret = data.parent / "secret"
        secret.write_text(address.password)
        give(data.parent, self.uid)
        as_user = {} if self.uid == server_user() and self.uid == _own_uid() else {"user": self.uid, "group": self.uid}
        done = subprocess.run(
            [str(self._program("initdb")), "-D", str(data), "-U", address.user, "--pwfile", str(secret), "--no-sync",
             "--auth-local=trust", "--auth-host=scram-sha-256", "--encoding=UTF8", *self._collation()],
            capture_output=True, text=True, cwd=data.parent, **as_user, extra_groups=[] if as_user else None,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"initdb failed: {done.stdout}{done.stderr}")

    def command(self, folder: Path, address: Address, certificates: Certificates | None) -> list[str]:
        """Return the command of a server on the folder's data; what it says is on the disk is on the disk."""
        settings = {
            "listen_addresses": address.host,
            "unix_socket_directories": str(address.socket),
            "max_connections": "300",
            "shared_buffers": "64MB",
            "fsync": "on",
            "synchronous_commit": "on",
            "full_page_writes": "on",
            "log_line_prefix": "%m [%p] ",
        }
        if certificates is not None:
            settings["ssl"] = "on"
            settings["ssl_ca_file"] = str(certificates.authority)
            settings["ssl_cert_file"], settings["ssl_key_file"] = map(str, certificates.server)
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [str(self._program("postgres")), "-D", str(folder / "data"), "-p", str(address.port), *options]

    def socket(self, folder: Path, port: int) -> Path:
        """Return the folder of the socket, which is what a client is told."""
        return folder / "run"

    def run(self, address: Address, database: str, *statements: str, timeout_s: float = 120.0) -> list[tuple[Any, ...]]:
        """Run the statements, each on its own, and return the rows of the last one."""

        async def work() -> list[tuple[Any, ...]]:
            import asyncpg

            connection = await asyncpg.connect(address.dsn(database), timeout=timeout_s, command_timeout=timeout_s)
            try:
                rows: list[Any] = []
                for statement in statements:
                    rows = await connection.fetch(statement)
                return [tuple(row) for row in rows]
            finally:
                await connection.close(timeout=timeout_s)

        return _in_a_loop(work())

    def create(self, database: str) -> str:
        """Return the statement that makes a database."""
        return f'CREATE DATABASE "{database}"'

    def drop(self, database: str) -> str:
        """Return the statement that removes a database, whoever is connected to it."""
        return f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)'

    def version_query(self) -> str:
        """Return the question for the version."""
        return "SELECT current_setting('server_version')"

    def _program(self, name: str) -> Path:
        assert self.folder is not None
        return self.folder / name

    def _collation(self) -> list[str]:
        # Texts sort as people sort them, as on the servers that people have: what has to sort by bytes must say so.
        if int(self.version.split(".")[0]) >= 15 and self._has_icu():
            return ["--locale=C", "--locale-provider=icu", "--icu-locale=en-US"]
        return ["--locale=C"]

    def _has_icu(self) -> bool:
        config = self._program("pg_config")
        if not config.exists():
            return False
        return "with-icu" in subprocess.run([config, "--configure"], capture_output=True, text=True).stdout


def _own_uid() -> int:
    import os

    return os.getuid()


def _in_a_loop(work: Coroutine[Any, Any, list[tuple[Any, ...]]]) -> list[tuple[Any, ...]]:
    """Run the coroutine on a thread of its own: the caller may stand in a running event loop."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append((asyncio.run(work), None))
        except BaseException as error:  # handed to the caller's thread, whatever it is
            outcome.append((None, error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    rows, error = outcome[0]
    if error is not None:
        raise error
    return rows
