"""Nobody but the person who has the token reads or changes anything through the inspector, whatever is sent to it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from power_loop import StatefulAgentLoop
from power_loop.contrib.inspect import Inspector, attach_inspector
from power_loop.contrib.inspect.door import Door
from power_loop.contrib.inspect.http_server import HOST, HttpServer, Request, Response
from power_loop.errors import ConfigError

from .conftest import Visit
from .visitor import LIMIT_S

READS = ("/api/about", "/api/overview", "/api/sessions", "/api/session", "/api/tree", "/api/message", "/api/prompt")
WRITES = ("/api/fork", "/api/cancel", "/api/resume", "/api/signal")


async def test_it_listens_on_loopback_only(loop: StatefulAgentLoop, visit: Visit) -> None:
    visitor = await visit(loop)
    host, port = visitor.host.split(":")
    assert host == "127.0.0.1"
    # Who listens on every address of the machine is met under this one, too.
    with socket.socket() as client:
        assert client.connect_ex(("127.0.0.2", int(port))) != 0


@pytest.mark.parametrize("path", [*READS, "/api/live", *WRITES])
async def test_without_the_cookie_nothing_is_told(path: str, loop: StatefulAgentLoop, visit: Visit) -> None:
    visitor = await visit(loop, can_write=True, can_drive=True)
    method = "POST" if path in WRITES else "GET"
    for cookie in (None, "", "power_loop_inspect_1=x", f"{visitor.cookie}x", f"x{visitor.cookie}"):
        answer = await visitor.ask(method, path, {} if method == "POST" else None, Cookie=cookie)
        assert (answer.status, "session" in answer.value) == (401, False)


async def test_a_wrong_token_gives_no_cookie(loop: StatefulAgentLoop, visit: Visit) -> None:
    visitor = await visit(loop)
    tokens: list[Any] = ["", "x", visitor.token[:-1], None, 3, ["x"], "\ud800"]
    for token in tokens:
        answer = await visitor.ask("POST", "/api/enter", {"token": token}, Cookie=None)
        assert (answer.status, "set-cookie" in answer.headers) == (401, False)
    assert (
        "HttpOnly" in (given := await visitor.ask("POST", "/api/enter", {"token": visitor.token})).headers["set-cookie"]
    )
    assert "SameSite=Strict; Path=/api/" in given.headers["set-cookie"]


async def test_a_link_opens_once_and_the_last_one_only(loop: StatefulAgentLoop, visit: Visit) -> None:
    visitor = await visit(loop)
    links = [visitor.inspector.make_link() for _ in range(2)]
    tokens = [link.partition("/#token=")[2] for link in links]
    statuses = [
        (await visitor.ask("POST", "/api/enter", {"token": token}, Cookie=None)).status
        for token in (tokens[0], tokens[1], tokens[1], visitor.token)
    ]
    assert statuses == [401, 204, 401, 204]


async def test_another_name_of_this_machine_is_refused(loop: StatefulAgentLoop, visit: Visit) -> None:
    """A site whose name is made to lead to 127.0.0.1 (DNS rebinding) sends its own name as the host."""
    visitor = await visit(loop)
    port = visitor.host.split(":")[1]
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{port}.evil.example", "", None):
        for path in ("/", "/api/sessions", "/inspector.js"):
            assert (await visitor.ask("GET", path, Host=host)).status == 421
    assert (await visitor.ask("GET", "/api/sessions", Host=f"localhost:{port}")).status == 200


@pytest.mark.parametrize("path", ["/api/enter", *WRITES])
async def test_no_other_page_can_change_anything(path: str, loop: StatefulAgentLoop, visit: Visit) -> None:
    visitor = await visit(loop, can_write=True, can_drive=True)
    port = int(visitor.host.split(":")[1])
    session_id = await loop.new_session()
    asked = {"session_id": session_id, "token": visitor.token}
    for origin in ("http://evil.example", "null", None, f"https://127.0.0.1:{port}", f"http://127.0.0.1:{port + 1}"):
        assert (await visitor.ask("POST", path, asked, Origin=origin)).status == 403
    assert (await visitor.ask("POST", path, asked, Sec_Fetch_Site="cross-site")).status == 403
    # A form of another page cannot send JSON.
    for kind in ("text/plain", "application/x-www-form-urlencoded", None):
        assert (await visitor.ask("POST", path, asked, Content_Type=kind)).status == 415
    assert (await visitor.ask("GET", path)).status == 405
    assert len((await loop.list_sessions()).items) == 1


async def test_it_only_looks_unless_it_was_told_otherwise(loop: StatefulAgentLoop, visit: Visit) -> None:
    session_id = await loop.new_session()
    await loop.send("Hello?", session_id=session_id)
    looks, forks, drives = await visit(loop), await visit(loop, can_write=True), await visit(loop, can_drive=True)
    for path in WRITES:
        for visitor in (looks, drives):
            assert (await visitor.ask("POST", path, {"session_id": session_id})).status == 403
    assert (await forks.ask("POST", "/api/resume", {"session_id": session_id})).status == 403
    made = await forks.ask("POST", "/api/fork", {"session_id": session_id, "at": 2})
    assert (await loop.get_session(made.value["session_id"])).forked_from == session_id


async def test_every_answer_says_that_nothing_is_markup_and_nothing_comes_from_elsewhere(
    loop: StatefulAgentLoop, visit: Visit
) -> None:
    visitor = await visit(loop)
    for path in ("/", "/inspector.js", "/inspector.css", "/icon.svg", "/api/sessions", "/nowhere", "/api/session"):
        answer = await visitor.ask("GET", path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "require-trusted-types-for 'script'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert b"://" not in answer.body.replace(b"http://www.w3.org/2000/svg", b""), "it names an address elsewhere"


BAD = {
    "no request": (b"hello\r\n\r\n", 400),
    "another protocol": (b"GET / FTP/1.0\r\n\r\n", 400),
    "no header": (b"GET / HTTP/1.1\r\nHost\r\n\r\n", 400),
    "a space before the colon": (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400),
    "a folded header": (b"GET / HTTP/1.1\r\nHost: x\r\n y: z\r\n\r\n", 400),
    "two hosts": (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
    "a body in chunks": (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    "a negative length": (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
    "a length of other digits": ("POST / HTTP/1.1\r\nContent-Length: ٣\r\n\r\n".encode(), 400),
    "a huge length": (b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n", 413),
    "a long head": (b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", 413),
    "a broken address": (b"GET http://[ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "many fields": (b"GET /?" + b"a=1&" * 100 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 400),
}


@pytest.mark.parametrize("name", BAD)
async def test_what_is_no_request_is_refused(name: str, loop: StatefulAgentLoop, visit: Visit) -> None:
    visitor = await visit(loop)
    request, status = BAD[name]
    answer = await visitor.raw(request)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer[:200]
    assert b"Content-Security-Policy: default-src 'none'" in answer
    assert await visitor.read("sessions") == {"sessions": [], "next_cursor": None}


@pytest.mark.usefixtures("patient")
async def test_wrong_questions_get_a_sentence(loop: StatefulAgentLoop, visit: Visit) -> None:
    visitor = await visit(loop, can_write=True, can_drive=True)
    for path, status in {
        "/api/session?session=no": 404,
        "/api/session": 404,
        "/api/session?session=no&after=x": 400,
        "/api/sessions?limit=-1": 400,
        "/api/sessions?cursor=%00": 404,
        "/api/prompt?session=no&call=1": 404,
        "/../../../etc/passwd": 404,
        "/page/index.html": 404,
    }.items():
        answer = await visitor.ask("GET", path)
        assert (answer.status, bool(answer.value["error"])) == (status, True), (path, answer)
    asked = [
        {},
        {"session_id": 3},
        {"session_id": "no"},
        {"session_id": "\ud800"},
        {"session_id": "no", "answers": [1]},
    ]
    for body in asked:
        assert (await visitor.ask("POST", "/api/resume", body)).status in (400, 409)
    assert (await visitor.ask("POST", "/api/resume", [1])).status == 400
    assert (await visitor.ask("POST", "/api/fork", {"session_id": "no", "at": "x"})).status == 409


async def test_a_port_that_is_taken_is_told(loop: StatefulAgentLoop) -> None:
    async with await attach_inspector(loop) as one:
        port = int(one.url.split(":")[2].partition("/")[0])
        for taken in (port, 70_000):
            with pytest.raises(ConfigError, match="cannot be served"):
                await Inspector(loop).start(taken)


async def test_closing_ends_what_is_open(loop: StatefulAgentLoop, visit: Visit) -> None:
    visitor = await visit(loop, is_attached=True)
    events = visitor.events()
    assert await anext(events) == ("changed", None)
    assert loop.event_bus.is_listening
    assert loop.hooks.names("llm.before") != ()
    await visitor.inspector.aclose()
    with pytest.raises((EOFError, ConnectionError)):
        await _to_the_end(events)
    assert not loop.event_bus.is_listening
    assert loop.hooks.names("llm.before") == ()


@pytest.mark.parametrize("is_stream", [False, True], ids=["a body", "a stream"])
async def test_who_does_not_read_is_not_waited_for(is_stream: bool) -> None:
    """A browser that was stopped, or a hostile program, takes in nothing of what it is sent."""
    # More than the systems of both sides hold: most of it cannot be sent.
    much = b"x" * 32_000_000

    async def pieces() -> AsyncIterator[bytes]:
        yield much

    async def answer(request: Request) -> Response:
        return Response(pieces=pieces()) if is_stream else Response(body=much)

    server = HttpServer(answer)
    await server.start(0)
    with socket.socket() as deaf:
        deaf.connect((HOST, server.port))
        deaf.sendall(b"GET / HTTP/1.1\r\n\r\n")
        deaf.setblocking(False)
        assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(deaf, 1), LIMIT_S) == b"H"
        await asyncio.wait_for(server.aclose(), LIMIT_S)


async def test_who_says_nothing_keeps_nobody_out(loop: StatefulAgentLoop, visit: Visit) -> None:
    visitor = await visit(loop)
    silent = [await asyncio.open_connection(*visitor.host.split(":")) for _ in range(100)]
    try:
        for _, writer in silent:
            writer.write(b"GET / HT")
        assert (await visitor.read("sessions"))["sessions"] == []
        # Those that waited the longest made room.
        assert await asyncio.wait_for(silent[0][0].read(), LIMIT_S) == b""
    finally:
        for _, writer in silent:
            writer.close()


def test_on_the_port_that_browsers_leave_out_it_has_its_name_too() -> None:
    door = Door()
    for port, host in ((80, "127.0.0.1"), (80, "localhost"), (80, "127.0.0.1:80"), (8080, "127.0.0.1:8080")):
        door.port = port
        asked = Request("POST", "/", {}, {"host": host, "origin": f"http://{host}", "content-type": "application/json"})
        door.check_name(asked)
        door.check_origin(asked)


async def _to_the_end(events: AsyncIterator[Any]) -> None:
    async for _ in events:
        pass
