"""Is a database server that tests use: ours alone, with a life that they may end, or one that others use too."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

from tests.servers import processes
from tests.servers.address import Address
from tests.servers.certificates import Certificates, make_certificates
from tests.servers.folders import copy_prepared, fresh, give

USER, PASSWORD = "pl", "p@ss/w:rd%"

# Below the ports that a system gives to outgoing connections, so that ours is still free after the server was killed.
_PORTS = range(20_000, 32_000)
# A server that was killed replays its log first; on a machine under load that takes seconds, never minutes.
_READY_S = 120.0
_ASK_EVERY_S = 0.02
_ROOT = Path(__file__).resolve().parents[2]


class Recipe(Protocol):
    """Is what one kind of server does in its own way."""

    name: str
    scheme: str
    version: str
    variable: str
    polite: signal.Signals
    main_database: str
    own_schema: str

    @property
    def uid(self) -> int: ...
    def prepare(self, data: Path, address: Address) -> None: ...
    def command(self, folder: Path, address: Address, certificates: Certificates | None) -> list[str]: ...
    def socket(self, folder: Path, port: int) -> Path: ...
    def run(self, address: Address, database: str, *statements: str, timeout_s: float = ...) -> list[Any]: ...
    def create(self, database: str) -> str: ...
    def drop(self, database: str) -> str: ...
    def version_query(self) -> str: ...


class Pipes(NamedTuple):
    """Is the way to a keeper and back."""

    stdin: IO[str]
    stdout: IO[str]


class Server:
    """Is a server that answers at an address; tests make and remove databases on it."""

    is_private = False  # True: ours alone, so that a test may kill, stop and restart it

    def __init__(self, recipe: Recipe, address: Address) -> None:
        self.recipe, self.address = recipe, address
        self.version = recipe.version
        self._names = (f"pl_{os.getpid()}_{random.getrandbits(24):06x}_{n}" for n in itertools.count())

    @property
    def name(self) -> str:
        """Return `postgres`, `mysql` or `mariadb`."""
        return self.recipe.name

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self.version} at {self.address.host}:{self.address.port}>"

    def dsn(self, database: str, **changes: Any) -> str:
        """Return the DSN of a database here; `port=` goes through a proxy, `query=` adds parameters."""
        return self.address.dsn(database, **changes)

    def new_database(self) -> str:
        """Make an empty database and return its DSN."""
        name = next(self._names)
        self.run(self.recipe.create(name))
        return self.dsn(name)

    def drop_database(self, dsn: str) -> None:
        """Remove the database of a DSN, whoever is connected to it."""
        self.run(self.recipe.drop(Address.of(dsn)[1]))

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """Hand out the DSN of a database that is there as long as the block runs."""
        dsn = self.new_database()
        try:
            yield dsn
        finally:
            self.drop_database(dsn)

    def drop_tables(self, dsn: str, prefix: str) -> None:
        """Remove every table and view of the database whose name begins so."""
        found = self.run(
            "SELECT table_type, table_name FROM information_schema.tables"
            f" WHERE table_schema = {self.recipe.own_schema} AND substr(table_name, 1, {len(prefix)}) = '{prefix}'",
            dsn=dsn,
        )
        for kind in ("VIEW", "TABLE"):
            names = [name for table_type, name in found if table_type.endswith(kind)]
            if names:
                self.run(f"DROP {kind} {', '.join(names)} CASCADE", dsn=dsn)

    def run(self, *statements: str, dsn: str | None = None, timeout_s: float = 120.0) -> list[tuple[Any, ...]]:
        """Run statements with the plain driver, each on its own, and return the rows of the last one."""
        database = self.recipe.main_database if dsn is None else Address.of(dsn)[1]
        return self.recipe.run(self.address, database, *statements, timeout_s=timeout_s)


class PrivateServer(Server):
    """Is a server of our own, in a folder that goes with it; a context manager, or `stop()`.

    It ends with the process that started it, however that ends.
    """

    is_private = True

    def __init__(
        self, recipe: Recipe, folder: Path | None = None, *, note: Path | None = None, has_tls: bool = False
    ) -> None:
        self.folder = folder or fresh(recipe.name)
        (self.folder / "needed").touch(0o600)
        # A file elsewhere that goes together with the folder.
        self._note = note
        super().__init__(recipe, Address(recipe.scheme, USER, password=PASSWORD))
        self.pid = 0
        self._needed = need(self.folder)
        try:
            copy_prepared(_prepared_name(recipe), self.folder / "data", lambda data: recipe.prepare(data, self.address))
            (self.folder / "run").mkdir()
            self.certificates = make_certificates(self.folder / "tls", USER) if has_tls else None
            for part in ("data", "run", *(["tls"] if has_tls else [])):
                give(self.folder / part, recipe.uid)
            self.address = self._free_address()
            self._keeper: Pipes | None = self._start_keeper()
        except BaseException:
            os.close(self._needed)
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        try:
            self.restart()
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> PrivateServer:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    @property
    def is_running(self) -> bool:
        """Tell whether its main process lives."""
        return bool(self.pid) and processes.is_alive(self.pid)

    @property
    def log(self) -> str:
        """Return what the server said so far."""
        return (self.folder / "log").read_text(errors="replace")

    def kill(self) -> None:
        """Kill every process of it with SIGKILL, at one instant, and wait until they are gone."""
        processes.kill_family(self.pid)

    def shut_down(self) -> None:
        """End it as an administrator would who restarts it: it hangs up on its clients and closes its files."""
        processes.send(self.recipe.polite, self.pid)
        processes.wait_until_gone(self.pid)

    def restart(self) -> None:
        """Start it, after it was ended in whatever way, and wait until it accepts connections."""
        if self.is_running:
            self.shut_down()
        if self._keeper is None:
            raise RuntimeError(f"{self!r} was stopped for good")
        self._keeper.stdin.write("start\n")
        self._keeper.stdin.flush()
        self.pid = int(self._keeper.stdout.readline())
        self._wait_until_ready()

    def stop_process(self) -> None:
        """Halt every process of it where it stands: connections stay open, and nothing answers."""
        processes.send(signal.SIGSTOP, *processes.family(self.pid))

    def cont(self) -> None:
        """Let it go on after `stop_process`."""
        processes.send(signal.SIGCONT, *processes.family(self.pid))

    def stop(self) -> None:
        """End it for good and leave nothing of it behind."""
        self.leave(until_gone=True)

    def leave(self, *, until_gone: bool = False) -> None:
        """Say that this process needs it no more: it ends, unless another process joined it."""
        if self._keeper is None:
            return
        os.close(self._needed)
        keeper, self._keeper = self._keeper, None
        keeper.stdin.close()
        if until_gone:
            keeper.stdout.read()  # ends when the keeper does, which is after the folder has gone
        keeper.stdout.close()

    @staticmethod
    def address_in(folder: Path, recipe: Recipe, port: int) -> Address:
        """Return the address of a server that lives in the folder."""
        return Address(recipe.scheme, USER, password=PASSWORD, port=port, socket=recipe.socket(folder, port))

    def _start_keeper(self) -> Pipes:
        words = [
            str(self.folder),
            str(self._note or self.folder),
            str(self.recipe.uid),
            *self.recipe.command(self.folder, self.address, self.certificates),
        ]
        keeper = subprocess.Popen(
            [sys.executable, "-S", "-m", "tests.servers.keeper", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=_ROOT,
            text=True,
        )
        # It has forked: what goes on is nobody's child, and this one is over.
        if keeper.wait():
            raise RuntimeError(f"the keeper of {self!r} did not start; see its standard error")
        assert keeper.stdin is not None
        assert keeper.stdout is not None
        return Pipes(keeper.stdin, keeper.stdout)

    def _free_address(self) -> Address:
        for port in random.sample(_PORTS, 1000):
            with socket.socket() as one:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    one.bind((self.address.host, port))
                except OSError:
                    continue
            return self.address_in(self.folder, self.recipe, port)
        raise RuntimeError(f"no port of 1,000 in {_PORTS} is free")

    def _wait_until_ready(self) -> None:
        end = time.monotonic() + _READY_S
        while (error := self._ask_version()) is not None:
            if not self.is_running:
                raise RuntimeError(f"{self!r} ended at its start; it said: {self.log[-2000:]}") from error
            if time.monotonic() > end:
                raise TimeoutError(f"{self!r} does not answer; it said: {self.log[-2000:]}") from error
            time.sleep(_ASK_EVERY_S)

    def _ask_version(self) -> Exception | None:
        """Ask the server its version; return why it did not answer."""
        try:
            rows = self.run(self.recipe.version_query(), timeout_s=20.0)
        except Exception as error:
            return error
        self.version = str(rows[0][0]).split()[0]
        return None


def need(folder: Path) -> int:
    """Say that this process needs the server of the folder, until the returned file is closed or the process ends.

    Raises FileNotFoundError if the server has gone.
    """
    # A lock of the process, not of the open file: a fork of it that lives on does not keep the server.
    file = os.open(folder / "needed", os.O_RDWR)
    fcntl.lockf(file, fcntl.LOCK_SH)
    return file


def _prepared_name(recipe: Recipe) -> str:
    return f"{recipe.name}-{recipe.version}-{recipe.uid}".replace("/", "_")
