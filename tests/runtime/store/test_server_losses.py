"""What is lost with a connection or a server: nothing that was acknowledged, and nothing is there twice."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from power_loop.contracts.errors import (
    InvalidDsnError,
    MissingExtraError,
    PowerLoopError,
    StoreError,
    StoreReadOnlyError,
    StoreRefusedError,
    StoreUnavailableError,
)
from power_loop.runtime.store.open import open_store
from power_loop.runtime.store.sql import postgres, server_link
from power_loop.testing.conformance.folds import fold
from power_loop.testing.conformance.projections import end_with, row
from tests.conformance.parts import accepted, new_session, one_send
from tests.runtime.store.server_parts import (
    KINDS,
    connections_go_to,
    database_of,
    has,
    keys,
    make_table,
    opened,
    put,
    server_of,
    with_table,
)
from tests.servers import PrivateServer, Server, find_server
from tests.servers.proxy import Proxy

ROOT = Path(__file__).parents[3]
SECRET = "s3cr3t-p@ss/w:rd%"


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest) -> Server:
    return server_of(request.param)


@pytest.fixture
def dsn(server: Server) -> Iterator[str]:
    with with_table(server) as one:
        yield one


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy(server) as one:
        yield one


@pytest.fixture(params=KINDS)
def private(request: pytest.FixtureRequest) -> Iterator[PrivateServer]:
    kind = find_server(request.param)
    if kind.missing is not None or kind.given is not None:
        pytest.skip(str(kind))
    with kind.start() as one:
        yield one


class Counted:
    """Is a body that counts how often it ran, and the look for what it wrote."""

    def __init__(self, database: Any, key: str) -> None:
        self.runs = 0
        self.looks = 0
        self._put, self._has = put(database, key), has(database, key)

    async def body(self, tx: Any) -> int:
        self.runs += 1
        await self._put(tx)
        return self.runs

    async def landed(self, tx: Any) -> bool:
        self.looks += 1
        return await self._has(tx)


# TLS would hide from the proxy what it waits for.
PLAIN = "sslmode=disable"


# ---- a connection that is cut ----


async def test_a_connection_cut_before_the_server_has_the_commit_lets_the_body_run_again(
    server: Server, dsn: str, proxy: Proxy
) -> None:
    async with opened(proxy.dsn(dsn), PLAIN) as database:
        counted = Counted(database, "a")
        trap = proxy.cut_before(b"COMMIT")
        assert await database.write("put", counted.body, landed=counted.landed) == 2
        assert trap.happened.is_set()
        assert (counted.runs, counted.looks) == (2, 1)
        assert await keys(database) == ["a"]


async def test_a_commit_whose_answer_is_lost_is_found_and_not_made_again(
    server: Server, dsn: str, proxy: Proxy
) -> None:
    async with opened(proxy.dsn(dsn), PLAIN) as database:
        counted = Counted(database, "a")
        told: list[tuple[str, str]] = []
        database.on_point = lambda point, move: told.append((point, move))
        trap = proxy.cut_after(b"COMMIT")
        assert await database.write("put", counted.body, landed=counted.landed) == 1
        assert trap.happened.is_set()
        assert (counted.runs, counted.looks) == (1, 1)
        assert await keys(database) == ["a"]
        assert told == [("commit.before", "put"), ("commit.after", "put")]


async def test_without_a_look_the_body_runs_again(server: Server, dsn: str, proxy: Proxy) -> None:
    sql = "UPDATE n SET value = value + 1 WHERE id = 1"

    async def body(tx: Any) -> None:
        await tx.execute(sql)

    async with opened(proxy.dsn(dsn), PLAIN) as database:
        proxy.cut_after(b"COMMIT")
        await database.write("count", body)
    assert server.run("SELECT value FROM n WHERE id = 1", dsn=dsn)[0][0] == 2


async def test_a_commit_that_the_network_holds_back_is_waited_for(server: Server, dsn: str, proxy: Proxy) -> None:
    async with opened(proxy.dsn(dsn), PLAIN) as database:
        counted = Counted(database, "a")
        trap = proxy.hold(b"COMMIT")
        writing = asyncio.create_task(database.write("put", counted.body, landed=counted.landed))
        assert await asyncio.to_thread(trap.happened.wait, 30)
        trap.release()
        assert await writing == 1
        assert counted.looks == 0


@pytest.mark.parametrize("point", ["begin", "insert"])
async def test_a_connection_cut_in_the_middle_lets_the_body_run_again(
    server: Server, dsn: str, proxy: Proxy, point: str
) -> None:
    async with opened(proxy.dsn(dsn), PLAIN) as database:
        counted = Counted(database, "a")
        begin = b"BEGIN" if server.name == "postgres" else b"START TRANSACTION"
        trap = proxy.cut_before(begin if point == "begin" else b"INSERT")
        await database.write("put", counted.body, landed=counted.landed)
        assert trap.happened.is_set()
        assert await keys(database) == ["a"]
        proxy.cut()
        assert await keys(database) == ["a"]


async def test_moves_of_a_turn_survive_a_cut_at_every_commit(server: Server, dsn: str, proxy: Proxy) -> None:
    store = await open_store(f"{proxy.dsn(dsn)}?{PLAIN}")
    try:
        for number, cut in enumerate([proxy.cut_before, proxy.cut_after] * 2):
            trap = cut(b"COMMIT")
            session_id = await new_session(store, f"sess_{number}")
            assert trap.happened.is_set()
            for _ in range(2):
                trap = cut(b"COMMIT")
                await one_send(store, session_id)
                assert trap.happened.is_set()
            held = await accepted(store, session_id)
            trap = cut(b"COMMIT")
            folded = await store.append_fold(held.lease, fold(3, send_index=3, tool_state={"n": 1}), at_seq=6)
            assert trap.happened.is_set()
            assert await store.get_folds(session_id) == (folded,), "it is there once, and is what was told"
            trap = cut(b"COMMIT")
            await store.end_send(held.lease, 3, end_with(row(5, 5)))
            assert trap.happened.is_set()
            assert len((await store.read_view(session_id, projected=True)).projected) == 1
            assert len(await store.get_messages(session_id)) == 5
            assert (await store.get_session(session_id)).owner is None
    finally:
        await store.aclose()


async def test_a_network_that_swallows_everything_is_given_up_in_time(
    server: Server, dsn: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is swallowed is waited for a little longer than a server may work, which has time enough where it is busy.
    monkeypatch.setattr(server_link, "_SILENCE_S", 0.5)
    # With TLS where the server has it: there, whoever closes politely waits for an answer to that too, for 30 seconds.
    async with opened(
        proxy.dsn(dsn), "statement_timeout_s=5&lock_timeout_s=5&connect_timeout_s=5&retry_s=5"
    ) as database:
        await database.write("put", put(database, "a"))
        proxy.swallow()
        with pytest.raises(StoreUnavailableError):
            await asyncio.wait_for(database.write("put", put(database, "b")), 30)
        proxy.pass_again()
        await database.write("put", put(database, "c"))
        assert await keys(database) == ["a", "c"]


# ---- a server that dies ----


async def test_a_server_killed_under_writers_loses_nothing_and_doubles_nothing(private: PrivateServer) -> None:
    dsn = private.new_database()
    make_table(private, dsn)
    acknowledged: list[str] = []
    progress: asyncio.Queue[str] = asyncio.Queue()

    async with opened(dsn, "retry_s=120&pool_size=4") as database:

        async def write_on(writer: int) -> None:
            for number in range(1_000_000):
                if is_over.is_set():
                    return
                key = f"{writer}-{number:06}"
                await database.write("put", put(database, key), landed=has(database, key))
                acknowledged.append(key)
                progress.put_nowait(key)

        async def go_on() -> None:
            """Wait until more was acknowledged than before."""
            while not progress.empty():
                progress.get_nowait()
            for _ in range(20):
                await asyncio.wait_for(progress.get(), 60)

        is_over = asyncio.Event()
        writers = [asyncio.create_task(write_on(writer)) for writer in range(4)]
        for _ in range(3):
            await go_on()
            await asyncio.to_thread(private.kill)
            await asyncio.to_thread(private.restart)
        await go_on()
        is_over.set()
        await asyncio.gather(*writers)
        # A key that was written twice would have been refused.
        assert await keys(database) == sorted(acknowledged)


async def test_a_server_that_is_not_there_is_said_to_be_unavailable_and_used_when_it_is_back(
    private: PrivateServer,
) -> None:
    dsn = private.new_database()
    make_table(private, dsn)
    async with opened(dsn, "retry_s=0.3") as database:
        await database.write("put", put(database, "a"))
        private.shut_down()
        for call in (database.write("put", put(database, "b")), database.read(has(database, "b"))):
            with pytest.raises(StoreUnavailableError) as caught:
                await call
            assert caught.value.retryable
            assert private.address.password not in _everything(caught.value)
        private.restart()
        await database.write("put", put(database, "c"))
        assert await keys(database) == ["a", "c"]


async def test_a_server_that_turns_read_only_is_said_to_be(private: PrivateServer) -> None:
    dsn = private.new_database()
    make_table(private, dsn)
    on, off = "SET GLOBAL read_only = ON", "SET GLOBAL read_only = OFF"
    if private.name == "postgres":
        name = dsn.rpartition("/")[2]
        on = f'ALTER DATABASE "{name}" SET default_transaction_read_only = on'
        off = f'ALTER DATABASE "{name}" RESET default_transaction_read_only'
        user = "pl_plain"
        private.run(f"CREATE ROLE {user} LOGIN PASSWORD 'x'")
        private.run(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {user}", dsn=dsn)
    else:
        user = "pl_plain"
        private.run(f"CREATE USER {user} IDENTIFIED BY 'x'", f"GRANT SELECT, INSERT ON *.* TO {user}")
    plain = (
        f"{private.address.scheme}://{user}:x@{private.address.host}:{private.address.port}/{dsn.rpartition('/')[2]}"
    )
    async with opened(plain, "retry_s=0.3&max_lifetime_s=0.0001") as database:
        await database.write("put", put(database, "a"))
        private.run(on)
        with pytest.raises(StoreReadOnlyError):
            await database.write("put", put(database, "b"))
        assert await keys(database) == ["a"]
        private.run(off)
        await database.write("put", put(database, "c"))
        assert await keys(database) == ["a", "c"]


async def test_a_connection_that_the_server_ended_is_not_handed_out(server: Server, dsn: str) -> None:
    """Without a second try: what a server says when it hangs up on who was idle is not taken for an answer."""
    name = dsn.rpartition("/")[2]

    async with opened(dsn, "retry_s=0") as database:
        await database.write("one", put(database, "a"))
        assert database._thread is not None
        assert database._thread._server is not None
        [link] = database._thread._server.pool._idle
        # Who made the tables has left as well.
        assert await connections_go_to(server, dsn, 1)
        if server.name == "postgres":
            server.run(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        elif server.name == "mysql":
            [(ours,)] = server.run(f"SELECT id FROM information_schema.processlist WHERE db = '{name}'")
            server.run(f"KILL {ours}")
        else:
            # Nothing else is sent on the connection, so that it is idle for this second.
            await database.use(lambda _: link.execute("SET SESSION wait_timeout = 1", ()))
        for _ in range(1200):
            if not link.is_open:
                break
            await asyncio.sleep(0.05)
        else:
            pytest.fail("the connection counts as open although the server has gone")
        await database.write("put", put(database, "b"))


# ---- passwords ----


def _everything(error: BaseException) -> str:
    """Return all that an error could show, its causes and contexts with it."""
    shown, seen = [], set()
    queue: list[BaseException | None] = [error]
    while queue:
        one = queue.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        shown += [str(one), repr(one), repr(one.args), repr(vars(one)), "".join(traceback.format_exception(one))]
        queue += [one.__cause__, one.__context__]
    return "\n".join(shown)


@pytest.mark.parametrize(
    "case", ["password", "user", "host", "database", "port", "tls", "rootcert", "extra", "parameter", "closed"]
)
async def test_no_failure_shows_a_password(
    server: Server, dsn: str, case: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    address = server.address
    secret = _quoted(SECRET)
    name = dsn.rpartition("/")[2]
    where = f"{address.host}:{address.port}/{name}"
    who = f"{address.user}:{secret}"
    expected: type[PowerLoopError] = StoreRefusedError
    query = "retry_s=0.1&connect_timeout_s=5"
    if case == "user":
        who = f"nobody_here:{secret}"
    elif case == "host":
        where = f"no-such-host.invalid:{address.port}/{name}"
        monkeypatch.setattr(socket, "getaddrinfo", _not_known)
    elif case == "database":
        who = f"{address.user}:{_quoted(address.password)}"
        where = f"{address.host}:{address.port}/no_such_database"
    elif case == "port":
        where, expected = f"{address.host}:1/{name}", StoreUnavailableError
    elif case == "tls":
        query += "&sslmode=verify-full"
    elif case == "rootcert":
        query, expected = f"{query}&sslmode=verify-ca&sslrootcert=/no/such.pem", InvalidDsnError
    elif case == "extra":
        monkeypatch.setitem(sys.modules, "asyncpg" if server.name == "postgres" else "aiomysql", None)
        expected = MissingExtraError
    elif case == "parameter":
        query, expected = "pool_sise=3", InvalidDsnError
    elif case == "closed":
        expected = StoreError
        who = f"{address.user}:{_quoted(address.password)}"
    full = f"{address.scheme}://{who}@{where}?{query}"
    with pytest.raises(expected) as caught:
        await (_closed(full) if case == "closed" else open_store(full))
    shown = _everything(caught.value) + caplog.text
    for secret in (SECRET, "s3cr3t", address.password, _quoted(address.password)):
        assert secret not in shown
    assert caught.value.code.startswith(("store.", "config."))
    if case == "extra":
        assert "pip install 'power-loop[" in str(caught.value)


def _not_known(*asked: Any, **more: Any) -> NoReturn:
    """Answer as name servers do; one that is slow or not there would say something else."""
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


async def _closed(dsn: str) -> None:
    database = database_of(dsn)
    assert "p@ss" not in repr(database) + repr(vars(database)) + repr(database._dsn)
    await database.aclose()
    await database.write("put", put(database, "a"))


def _quoted(password: str) -> str:
    return password.replace("%", "%25").replace("@", "%40").replace("/", "%2F").replace(":", "%3A")


async def test_a_user_without_the_right_to_write_is_refused_by_name(server: Server, dsn: str) -> None:
    name = dsn.rpartition("/")[2]
    user = f"pl_reader_{os.getpid()}"
    if server.name == "postgres":
        server.run(f"CREATE ROLE {user} LOGIN PASSWORD 'x'")
        server.run(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {user}", dsn=dsn)
    else:
        server.run(f"CREATE USER {user} IDENTIFIED BY 'x'", f"GRANT SELECT ON `{name}`.* TO {user}")
    address = server.address
    try:
        async with opened(f"{address.scheme}://{user}:x@{address.host}:{address.port}/{name}") as database:
            assert await keys(database) == []
            with pytest.raises(StoreRefusedError):
                await database.write("put", put(database, "a"))
    finally:
        if server.name == "postgres":
            server.run(f"DROP OWNED BY {user}", f"DROP ROLE {user}", dsn=dsn)
        else:
            server.run(f"DROP USER {user}")


async def test_a_socket_is_a_way_to_a_server(private: PrivateServer) -> None:
    dsn = private.new_database()
    make_table(private, dsn)
    async with opened(f"{dsn}?host={private.address.socket}") as database:
        await database.write("put", put(database, "a"))
        assert await keys(database) == ["a"]


# ---- processes ----

_FORK = """
import asyncio, os, sys
from tests.runtime.store.server_parts import database_of, put, keys
database = database_of(sys.argv[1])
async def use(key):
    await database.write("put", put(database, key))
    return await keys(database)
asyncio.run(use("parent 1"))
child = os.fork()
if not child:
    asyncio.run(use("child 1"))
    asyncio.run(use("child 2"))
    asyncio.run(database.aclose())
    sys.exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
print(asyncio.run(use("parent 2")), flush=True)
assert database.counts.connections == 1, database.counts.connections
asyncio.run(database.aclose())
"""
_EXIT = """
import asyncio, sys
from power_loop.runtime.store.sql import server
from tests.runtime.store.server_parts import database_of, put
# A busy machine may need longer than the end of a process is put off for.
server._EXIT_WAIT_S = 60
database = database_of(sys.argv[1])
async def main():
    await database.open(create=True)
    for number in range(20):
        asyncio.ensure_future(database.write("put", put(database, f"k{number:02}")))
    # The writes begin, and nobody waits for them any more.
    await asyncio.sleep(0)
asyncio.run(main())
"""


def _run(script: str, dsn: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, dsn], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


async def test_a_forked_child_has_connections_of_its_own(server: Server, dsn: str) -> None:
    assert _run(_FORK, dsn) == "['child 1', 'child 2', 'parent 1', 'parent 2']\n"


async def test_the_end_of_the_process_commits_what_was_begun_and_leaves_no_connection(server: Server, dsn: str) -> None:
    _run(_EXIT, dsn)
    rows = server.run("SELECT COUNT(*) FROM t", dsn=dsn)
    assert rows[0][0] == 20
    assert await connections_go_to(server, dsn, 0)


@contextlib.asynccontextmanager
async def stopped(script: str, dsn: str) -> AsyncIterator[None]:
    """Have a process that stops itself stand still as long as the block lasts."""
    process = subprocess.Popen([sys.executable, "-c", script, dsn], cwd=ROOT)  # noqa: ASYNC220 - it is told by its pid
    try:
        _, status = await asyncio.to_thread(os.waitpid, process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        yield
    finally:
        process.send_signal(signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            process.wait()


async def test_a_process_stopped_in_a_transaction_does_not_hold_its_rows_for_ever(server: Server, dsn: str) -> None:
    """The server ends the transaction of a client that does not go on: with half of a lease that the kernel asks for,
    here sooner."""
    script = (
        "import asyncio, os, signal, sys, threading\n"
        "from power_loop.runtime.store.sql import mysql, postgres\n"
        "postgres.IDLE_IN_TRANSACTION_MS, mysql.IDLE_IN_TRANSACTION_S = 2_000, 2\n"
        "from tests.runtime.store.server_parts import database_of, put\n"
        "database = database_of(sys.argv[1])\n"
        "def stop(point, move):\n"
        "    os.kill(os.getpid(), signal.SIGSTOP)\n"
        "    threading.Event().wait()\n"
        "database.on_point = stop\n"
        "asyncio.run(database.write('put', put(database, 'a')))\n"
    )
    async with stopped(script, dsn), opened(dsn, "lock_timeout_s=5&retry_s=60") as database:
        assert await database.write("put", put(database, "a")) == "a"
        assert await keys(database) == ["a"]


async def test_a_process_stopped_in_the_middle_of_a_statement_does_not_hold_its_rows_for_ever(
    server: Server, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL takes a client for a busy one that has prepared a statement and does not run it: its own limit never
    comes. Who waits for its rows ends it by the same limit."""
    if server.name != "postgres":
        pytest.skip("MySQL and MariaDB limit how long they wait for a client, wherever it stands")
    script = (
        "import asyncio, os, signal, sys, threading\n"
        "import asyncpg\n"
        "from tests.runtime.store.server_parts import database_of\n"
        "database = database_of(sys.argv[1])\n"
        "prepare = asyncpg.Connection._get_statement\n"
        "async def prepare_and_stop(self, query, *args, **more):\n"
        "    prepared = await prepare(self, query, *args, **more)\n"
        "    if query.startswith('UPDATE'):\n"
        "        os.kill(os.getpid(), signal.SIGSTOP)\n"
        "        threading.Event().wait()\n"
        "    return prepared\n"
        "asyncpg.Connection._get_statement = prepare_and_stop\n"
        "async def body(tx):\n"
        "    await tx.execute(\"INSERT INTO t (id, body) VALUES ('a', $1)\", ('first',))\n"
        "    await tx.execute(\"UPDATE t SET body = $1 WHERE id = 'a'\", ('second',))\n"
        "asyncio.run(database.write('put', body))\n"
    )
    async with stopped(script, dsn):
        monkeypatch.setattr(postgres, "IDLE_IN_TRANSACTION_MS", 1_000)
        async with opened(dsn, "lock_timeout_s=0.5&retry_s=60") as database:
            assert await database.write("put", put(database, "a")) == "a"
            assert await keys(database) == ["a"]
