"""A connection to a server that does not come about is let go of at once, whichever end gives it up, and when."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import struct
import threading
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from power_loop.contracts.errors import StoreError
from power_loop.runtime.store.dsn import parse_dsn
from power_loop.runtime.store.open import _driver
from power_loop.runtime.store.server_dsn import ServerDsn
from power_loop.runtime.store.sql.database import Counts
from power_loop.runtime.store.sql.server_link import DriverError
from power_loop.runtime.store.sql.server_loop import ServerLoop, aborting_on_failure
from tests.runtime.store.server_parts import database_of
from tests.servers.certificates import make_certificates

SCHEMES = ("postgresql", "mysql")
STEPS = ("accept", "agree to TLS", "speak TLS", "refuse the login")

# What MySQL says first: protocol 4.1 with TLS and plugins, https://dev.mysql.com/doc/dev/mysql-server/latest/
_GREETING = (
    b"\x0a8.0.40\x00" + b"\x01\0\0\0" + b"12345678\0" + struct.pack("<HBHH", 0x8A08, 45, 2, 0x8) + b"\x15" + b"\0" * 10
    + b"123456789012\0" + b"caching_sha2_password\0"
)  # fmt: skip
_NO = b"\xff" + struct.pack("<H", 1045) + b"#28000no"
_ERROR = b"SFATAL\0VFATAL\0C28P01\0Mno\0\0"


class Door:
    """Is a server that takes one step after the other with each client, and after the last one nothing more."""

    def __init__(
        self, scheme: str, last: str, *, hangs_up: bool, context: ssl.SSLContext, within_s: float = 0.3
    ) -> None:
        self._scheme, self._last, self._hangs_up, self._context = scheme, last, hangs_up, context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.dsn = f"{scheme}://u:p@127.0.0.1:{self.port}/d?sslmode=require&retry_s=0&connect_timeout_s={within_s}"
        #: How many clients came whose end of the connection is still open.
        self.open_count = 0
        self.changed = threading.Condition()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def all_have_left(self) -> bool:
        with self.changed:
            return self.changed.wait_for(lambda: not self.open_count, 60)

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                with self.changed:
                    self.open_count += 1
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        # The connection below TLS stays here, to see its end.
        raw = client.dup()
        with raw, client, suppress(OSError), self._stepping(client):
            if not self._hangs_up:
                raw.settimeout(60)
                while raw.recv(1 << 16):
                    pass
        with self.changed:
            self.open_count -= 1
            self.changed.notify_all()

    @contextmanager
    def _stepping(self, client: socket.socket) -> Iterator[None]:
        is_postgres = self._scheme == "postgresql"
        if self._last == "accept":
            yield
            return
        if is_postgres:
            client.recv(8)
            client.sendall(b"S")
        else:
            client.sendall(_packet(0, _GREETING))
            client.recv(36)
        if self._last == "agree to TLS":
            yield
            return
        with self._context.wrap_socket(client, server_side=True) as secured:
            if self._last == "refuse the login":
                secured.recv(1 << 16)
                secured.sendall(b"E" + struct.pack("!I", len(_ERROR) + 4) + _ERROR if is_postgres else _packet(3, _NO))
            yield


def _packet(number: int, payload: bytes) -> bytes:
    return struct.pack("<I", len(payload))[:3] + bytes([number]) + payload


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    folder: Path = tmp_path_factory.mktemp("door") / "certificates"
    made.load_cert_chain(*make_certificates(folder, "u").server)
    return made


@contextmanager
def nothing_is_left(door: Door) -> Iterator[None]:
    """Fail if a connection is still open behind the block, be it one that nobody knows of any more."""
    with warnings.catch_warnings():
        # What another test has left is not this one's.
        warnings.simplefilter("ignore")
        gc.collect()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
        gc.collect()
    door.close()
    assert [str(warning.message) for warning in caught] == []
    assert door.all_have_left()


@pytest.mark.parametrize("hangs_up", [False, True], ids=["falls silent", "hangs up"])
@pytest.mark.parametrize("last", STEPS)
@pytest.mark.parametrize("scheme", SCHEMES)
async def test_a_connection_that_fails_at_any_step_is_let_go_of_at_once(
    scheme: str, last: str, hangs_up: bool, context: ssl.SSLContext
) -> None:
    door = Door(scheme, last, hangs_up=hangs_up, context=context)
    with nothing_is_left(door):
        database = database_of(door.dsn)
        try:
            with pytest.raises(StoreError):
                await database.open(create=True)
            assert await asyncio.to_thread(door.all_have_left)
        finally:
            await database.aclose()


class _Watched:
    """Runs a coroutine, and calls `act` where it waits for the so-manieth time."""

    def __init__(self, coroutine: Any, waits: int, act: Callable[[], None]) -> None:
        self._coroutine, self._waits, self._act = coroutine, waits, act

    def __await__(self) -> Generator[Any, Any, None]:
        step, given = self._coroutine.send, None
        while True:
            try:
                awaited = step(given)
            except StopIteration:
                return
            self._waits -= 1
            if not self._waits:
                self._act()
            step, given = self._coroutine.send, None
            try:
                yield awaited
            except BaseException as error:
                step, given = self._coroutine.throw, error


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_connection_that_is_given_up_wherever_it_waits_is_let_go_of(scheme: str, context: ssl.SSLContext) -> None:
    # It ends where it is refused or given up: on a busy machine each of many steps may take some time.
    door = Door(scheme, "refuse the login", hangs_up=False, context=context, within_s=60)
    dsn = parse_dsn(door.dsn)
    assert isinstance(dsn, ServerDsn)
    driver = _driver(dsn)
    loop = ServerLoop()
    cancelled: list[int] = []

    async def connect(waits: int) -> None:
        """Connect, and be cancelled where that waits for the so-manieth time."""
        task = asyncio.current_task()
        assert task is not None

        def cancel() -> None:
            cancelled.append(waits)
            loop.call_soon(task.cancel)

        with aborting_on_failure():
            await _Watched(driver.connect(Counts(), lambda reading: None), waits, cancel)

    async def give_up_everywhere() -> None:
        waits = 0
        while len(cancelled) == waits:
            waits += 1
            # On Python 3.10 and 3.11, what a driver waits for may be there when it is cancelled; then it goes on.
            with pytest.raises((asyncio.CancelledError, DriverError)):
                await loop.create_task(connect(waits))

    with nothing_is_left(door):
        try:
            loop.run_until_complete(give_up_everywhere())
        finally:
            loop.close()
    assert len(cancelled) >= 3
