"""Shows that a private server is a real one: it keeps what it acknowledged, can be killed, and leaves no trace."""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import PrivateServer, find_server, find_servers, shared, shared_server
from tests.servers.address import Address
from tests.servers.processes import family, is_alive, wait_until_gone
from tests.servers.proxy import Proxy

_ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(params=find_servers(), ids=lambda kind: kind.name, scope="module")
def server(request: pytest.FixtureRequest) -> Iterator[PrivateServer]:
    kind = request.param
    if kind.missing is not None or kind.given is not None:
        pytest.skip(f"{kind}: a private one is needed")
    with kind.start() as started:
        yield started


@pytest.fixture
def dsn(server: PrivateServer) -> Iterator[str]:
    with server.database() as made:
        server.run("CREATE TABLE kept (n int)", dsn=made)
        yield made


def test_a_row_that_was_committed_is_there_after_a_sigkill(server: PrivateServer, dsn: str) -> None:
    server.run("INSERT INTO kept VALUES (1)", dsn=dsn)
    everyone = family(server.pid)
    server.kill()
    assert not any(is_alive(pid) for pid in everyone)
    server.restart()
    assert server.run("SELECT n FROM kept", dsn=dsn) == [(1,)]


def test_a_restart_keeps_the_address_and_changes_the_process(server: PrivateServer, dsn: str) -> None:
    before = server.pid, server.address
    server.restart()
    assert server.pid != before[0]
    assert server.address == before[1]
    assert server.run("SELECT count(*) FROM kept", dsn=dsn) == [(0,)]


def test_a_stopped_server_answers_when_it_goes_on(server: PrivateServer, dsn: str) -> None:
    server.stop_process()
    try:
        with pytest.raises(Exception, match=r"(?i)timed out|^$"):
            server.run("SELECT 1", dsn=dsn, timeout_s=1.0)
    finally:
        server.cont()
    assert server.run("SELECT 1", dsn=dsn) == [(1,)]


def test_the_password_is_needed_and_may_have_any_character(server: PrivateServer, dsn: str) -> None:
    address, database = Address.of(server.dsn("some"))
    assert address.password == server.address.password == "p@ss/w:rd%"
    assert database == "some"
    wrong = Address(address.scheme, address.user, password="no", port=address.port)
    with pytest.raises(Exception, match=r"(?i)password|access denied"):
        server.recipe.run(wrong, server.recipe.main_database, "SELECT 1")


def test_each_database_is_another_one(server: PrivateServer) -> None:
    with server.database() as one, server.database() as other:
        server.run("CREATE TABLE here (n int)", dsn=one)
        server.run("CREATE TABLE here (n int)", dsn=other)
        server.run("INSERT INTO here VALUES (1)", dsn=one)
        assert server.run("SELECT * FROM here", dsn=other) == []


def test_the_tables_of_a_prefix_go_and_those_of_another_one_stay(server: PrivateServer, dsn: str) -> None:
    server.run("CREATE TABLE a_1 (n int)", "CREATE VIEW a_2 AS SELECT n FROM a_1", "CREATE TABLE axb (n int)", dsn=dsn)
    server.drop_tables(dsn, "a_")
    assert server.run("SELECT count(*) FROM axb", dsn=dsn) == [(0,)]
    with pytest.raises(Exception, match=r"a_1"):
        server.run("SELECT * FROM a_1", dsn=dsn)
    server.drop_tables(dsn, "a_")


def test_a_connection_cut_before_the_commit_leaves_nothing(server: PrivateServer, dsn: str) -> None:
    with Proxy(server) as proxy:
        trap = proxy.cut_before()
        assert not _commits(server, proxy.dsn(dsn))
        assert trap.happened.wait(60)
    assert server.run("SELECT * FROM kept", dsn=dsn) == []


def test_a_connection_cut_after_the_commit_leaves_the_row_and_no_answer(server: PrivateServer, dsn: str) -> None:
    with Proxy(server) as proxy:
        trap = proxy.cut_after()
        assert not _commits(server, proxy.dsn(dsn))
        assert trap.happened.wait(60)
    assert server.run("SELECT * FROM kept", dsn=dsn) == [(7,)]


def test_what_is_not_cut_passes_and_its_round_trips_are_counted(server: PrivateServer, dsn: str) -> None:
    with Proxy(server) as proxy:
        assert _commits(server, proxy.dsn(dsn))
        assert proxy.round_trips >= 3
    assert server.run("SELECT * FROM kept", dsn=dsn) == [(7,)]


def test_a_half_open_connection_never_answers(server: PrivateServer, dsn: str) -> None:
    with Proxy(server) as proxy:
        proxy.swallow()
        assert not _commits(server, proxy.dsn(dsn), timeout_s=1.0)
        proxy.pass_again()
        assert _commits(server, proxy.dsn(dsn))


def test_a_server_ends_with_the_process_that_started_it_and_leaves_no_folder(server: PrivateServer) -> None:
    code = (
        "import sys, tests.servers as s\n"
        f"server = s.find_server({server.name!r}).start()\n"
        "print(server.pid, server.folder, flush=True)\n"
        "sys.stdin.read()\n"
    )
    starter = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=_ROOT, text=True
    )
    with starter:
        assert starter.stdout is not None
        pid, folder = starter.stdout.readline().split()
        assert is_alive(int(pid))
        os.kill(starter.pid, signal.SIGKILL)
    wait_until_gone(int(pid))
    _wait_for_removal(Path(folder))


def test_the_shared_server_is_one_for_all_processes_of_a_run(server: PrivateServer) -> None:
    ours = shared_server(server.name)
    port = _in_a_process(
        "import sys; from tests.servers import shared\n"
        "shared.belong_to(sys.argv[1])\n"
        f"print(shared.shared_server({server.name!r}).address.port)\n",
        shared._current.name,
    )
    assert int(port) == ours.address.port
    assert ours.run("SELECT 1") == [(1,)]
    assert not ours.is_private


def test_a_server_that_is_given_is_used_as_what_it_is_and_never_killed(server: PrivateServer, dsn: str) -> None:
    said = _in_a_process(
        "from tests.servers import find_server, shared\n"
        f"kind = find_server({server.name!r})\n"
        "given = shared.shared_server(kind.name)\n"
        "with given.database() as dsn:\n"
        "    given.run('CREATE TABLE a (n int)', dsn=dsn)\n"
        "print(kind, given.address.port, given.is_private)\n",
        **{server.recipe.variable: dsn},
    )
    assert said.split() == [server.name, server.version, "(given)", str(server.address.port), "False"]


def test_a_given_server_that_does_not_answer_is_missing_and_its_password_is_not_told(server: PrivateServer) -> None:
    dsn = server.dsn("some").replace(str(server.address.port), "1")
    said = _in_a_process(
        "from tests.servers import find_servers; print(*find_servers())", **{server.recipe.variable: dsn}
    )
    assert f"the server of {server.recipe.variable} does not answer" in said
    assert "p@ss" not in said
    assert "p%40ss" not in said


async def test_a_server_with_tls_is_known_by_its_authority(server: PrivateServer) -> None:
    with find_server(server.name).start(has_tls=True) as secure:
        certificates = secure.certificates
        assert certificates is not None
        await _connect_with_tls(secure, certificates.authority)
        with pytest.raises(Exception) as caught:
            await _connect_with_tls(secure, certificates.stranger)
        assert "certificate verify failed" in f"{caught.value!r} {caught.value.__cause__!r}".lower()


async def _connect_with_tls(server: PrivateServer, authority: Path) -> None:
    context = ssl.create_default_context(cafile=str(authority))
    address = server.address
    if address.scheme == "postgresql":
        import asyncpg

        dsn = server.dsn(server.recipe.main_database)
        await (await asyncpg.connect(dsn, ssl=context)).close()
    else:
        import aiomysql

        connection = await aiomysql.connect(
            host=address.host, port=address.port, user=address.user, password=address.password, ssl=context
        )
        connection.close()


def _in_a_process(code: str, *arguments: str, **variables: str) -> str:
    """Run the code in a process of its own and return what it printed."""
    words = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(words, capture_output=True, cwd=_ROOT, text=True, env={**os.environ, **variables})
    assert done.returncode == 0, done.stderr
    return done.stdout


def _wait_for_removal(folder: Path) -> None:
    # The keeper is nobody's child, so that there is nothing to wait on: look, for a minute at most.
    end = time.monotonic() + 60
    while folder.exists():
        assert time.monotonic() < end, f"{folder} is still there"
        time.sleep(0.01)


def _commits(server: PrivateServer, dsn: str, *, timeout_s: float = 120.0) -> bool:
    """Insert a row in a transaction; tell whether the client learned that it was committed."""
    address, database = Address.of(dsn)
    try:
        server.recipe.run(address, database, "BEGIN", "INSERT INTO kept VALUES (7)", "COMMIT", timeout_s=timeout_s)
    except Exception:
        return False
    return True
