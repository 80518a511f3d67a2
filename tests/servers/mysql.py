"""Knows how a private MySQL or MariaDB is made, started and spoken to."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

from tests.servers import programs
from tests.servers.address import Address
from tests.servers.certificates import Certificates


class Mysql:
    """Is MySQL 8: how it is made, and its words for what every database can do."""

    name = "mysql"
    scheme = "mysql"
    variable = "POWER_LOOP_TEST_MYSQL_DSN"
    package = "mysql-server"
    looked_for = "mysqld that is not MariaDB's in .databases, PATH, /usr/sbin, /usr/local"
    polite = signal.SIGTERM
    main_database = ""
    own_schema = "DATABASE()"

    def __init__(self, program: Path | None = None, version: str = "") -> None:
        self.program, self.version = program, version

    @property
    def uid(self) -> int:
        """Return the user that the server runs as: ours, root too."""
        return os.getuid()

    def prepare(self, data: Path, address: Address) -> None:
        """Make the data of a server without users; `command` makes ours."""
        words = [*self._basics(data), "--initialize-insecure"]
        self._must(words)

    def command(self, folder: Path, address: Address, certificates: Certificates | None) -> list[str]:
        """Return the command of a server on the folder's data; what it says is on the disk is on the disk."""
        users = folder / "users.sql"
        users.write_text("".join(f"{statement};\n" for statement in self._users(address)))
        return [
            *self._basics(folder / "data"),
            f"--port={address.port}",
            f"--bind-address={address.host}",
            f"--socket={address.socket}",
            f"--pid-file={folder / 'run' / 'pid'}",
            f"--init-file={users}",
            f"--tmpdir={folder / 'run'}",
            "--skip-name-resolve",
            "--skip-log-bin",
            "--performance-schema=OFF",
            "--max-connections=300",
            "--innodb-buffer-pool-size=64M",
            "--innodb-flush-log-at-trx-commit=1",
            *self._own_options(),
            *_tls_options(certificates),
        ]

    def socket(self, folder: Path, port: int) -> Path:
        """Return the socket's file."""
        return folder / "run" / "socket"

    def run(self, address: Address, database: str, *statements: str, timeout_s: float = 120.0) -> list[tuple[Any, ...]]:
        """Run the statements, each on its own, and return the rows of the last one."""
        import pymysql

        connection = pymysql.connect(
            host=address.host,
            port=address.port,
            user=address.user,
            password=address.password,
            database=database or None,
            autocommit=True,
            # On this machine in the clear, so that a proxy can read along.
            ssl_disabled=address.host == "127.0.0.1",
            connect_timeout=max(1, int(timeout_s)),
            read_timeout=timeout_s,
            write_timeout=timeout_s,
        )
        with connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall())

    def create(self, database: str) -> str:
        """Return the statement that makes a database."""
        return f"CREATE DATABASE `{database}`"

    def drop(self, database: str) -> str:
        """Return the statement that removes a database, whoever is connected to it."""
        return f"DROP DATABASE IF EXISTS `{database}`"

    def version_query(self) -> str:
        """Return the question for the version."""
        return "SELECT version()"

    @property
    def _server(self) -> Path:
        assert self.program is not None
        return self.program

    @property
    def _is_unpacked(self) -> bool:
        return programs.CACHE in self._server.parents

    def _basics(self, data: Path) -> list[str]:
        words = [*programs.launch(self._server), "--no-defaults", f"--datadir={data}"]
        if os.getuid() == 0:
            words.append("--user=root")
        if self._is_unpacked:
            root = self._server.parents[2]
            words += [f"--basedir={root / 'usr'}", f"--lc-messages-dir={root / 'usr/share/mysql'}"]
        return words

    def _own_options(self) -> list[str]:
        return ["--mysqlx=OFF", "--secure-file-priv="]

    def _users(self, address: Address) -> list[str]:
        """Return the statements that make our user, over TCP and over the socket; they run at every start."""
        password = address.password.replace("\\", "\\\\").replace("'", "''")
        return [
            statement
            for host in ("%", "localhost")
            for statement in (
                f"CREATE USER IF NOT EXISTS '{address.user}'@'{host}' IDENTIFIED BY '{password}'",
                f"GRANT ALL PRIVILEGES ON *.* TO '{address.user}'@'{host}' WITH GRANT OPTION",
            )
        ]

    def _must(self, words: list[str]) -> None:
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{words[0]} failed: {done.stdout}{done.stderr}")


def _tls_options(certificates: Certificates | None) -> list[str]:
    if certificates is None:
        return []
    certificate, key = certificates.server
    return [f"--ssl-ca={certificates.authority}", f"--ssl-cert={certificate}", f"--ssl-key={key}"]


class Mariadb(Mysql):
    """Is MariaDB, where it is not what MySQL is."""

    name = "mariadb"
    package = "mariadb-server"
    looked_for = "mariadbd or MariaDB's mysqld in PATH, /usr/sbin, /usr/local"

    def prepare(self, data: Path, address: Address) -> None:
        """Make the data of a server without users of ours; `command` makes them."""
        installer = self._installer()
        words = [str(installer), "--no-defaults", f"--datadir={data}", "--skip-test-db"]
        if os.getuid() == 0:
            words.append("--user=root")
        if self._is_unpacked:
            words.append(f"--basedir={self._server.parents[2] / 'usr'}")
        self._must([*words, "--auth-root-authentication-method=normal"])

    def _installer(self) -> Path:
        folders = (self._server.parent, self._server.parent.parent / "bin", Path("/usr/bin"), Path("/usr/local/bin"))
        for folder in folders:
            for name in ("mariadb-install-db", "mysql_install_db"):
                if (folder / name).exists():
                    return folder / name
        raise RuntimeError(f"mariadb-install-db is not beside {self._server}: its package is incomplete")

    def _own_options(self) -> list[str]:
        return []
