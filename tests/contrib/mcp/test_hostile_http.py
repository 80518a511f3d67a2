"""Whatever an MCP server by HTTP answers, nothing goes where it should not, and who asked learns what became of it."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from power_loop.contrib.mcp import HttpMCPClient
from power_loop.errors import MCPConnectionError, MCPError
from tests.agent.parts import until, within_limit

try:
    httpx: Any = importlib.import_module("httpx2")
except ImportError:
    httpx = pytest.importorskip("httpx")

Write = asyncio.StreamWriter
Answer = Callable[[str, dict[str, str], dict[str, Any], Write], Awaitable[None]]


class HttpServer:
    """Is a server of a few lines: it shakes hands under session ids that count up, and leaves the rest to `answer`."""

    def __init__(self, answer: Answer, listen: Answer | None) -> None:
        self._answer = answer
        self._listen = listen
        self.sessions = 0
        self.paths: list[str] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: Write) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            method, path, _ = first.split()
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            self.paths.append(path)
            message = json.loads(body) if body else {}
            if message.get("method") == "initialize":
                self.sessions += 1
                result = {"protocolVersion": message["params"]["protocolVersion"], "capabilities": {"tools": {}}}
                say(writer, message["id"], result, more=f"mcp-session-id: s{self.sessions}\r\n")
            elif method == "GET" and self._listen is not None:
                await self._listen(path, headers, message, writer)
            elif method != "POST" or "id" not in message:
                writer.write(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            else:
                await self._answer(path, headers, message, writer)
            await writer.drain()
        writer.close()


def say(writer: Write, number: int, result: Any, *, more: str = "") -> None:
    body = json.dumps({"jsonrpc": "2.0", "id": number, "result": result}).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n{more}"
    writer.write(f"{head}connection: close\r\n\r\n".encode() + body)


@contextlib.asynccontextmanager
async def served(answer: Answer, listen: Answer | None = None) -> AsyncIterator[HttpServer]:
    made = HttpServer(answer, listen)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp"
    try:
        yield made
    finally:
        server.close()


async def test_all_who_ask_in_a_session_that_is_forgotten_are_asked_again() -> None:
    waiting: list[None] = []
    everybody = asyncio.Event()

    async def answer(path: str, headers: dict[str, str], message: dict[str, Any], writer: Write) -> None:
        if headers["mcp-session-id"] == "s2":
            say(writer, message["id"], {"content": [{"type": "text", "text": "done"}]})
            return
        waiting.append(None)
        if len(waiting) == 3:
            everybody.set()
        await everybody.wait()
        writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")

    async with served(answer) as server, httpx.AsyncClient() as http_client:
        async with HttpMCPClient(server.url, http_client=http_client) as client:
            asked = asyncio.gather(*(client.call_tool("act") for _ in range(3)))
            assert [one.content[0]["text"] for one in await within_limit(asked)] == ["done"] * 3
        assert server.sessions == 2


async def test_no_redirect_is_followed_whatever_the_applications_client_does() -> None:
    async def answer(path: str, headers: dict[str, str], message: dict[str, Any], writer: Write) -> None:
        head = b"HTTP/1.1 307 Temporary Redirect\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n"
        writer.write(head + b"connection: close\r\n\r\n")

    async with served(answer) as server, httpx.AsyncClient(follow_redirects=True) as http_client:
        async with HttpMCPClient(server.url, headers={"x-key": "secret"}, http_client=http_client) as client:
            with pytest.raises(MCPError, match="status 307"):
                await within_limit(client.call_tool("act"))
        assert set(server.paths) == {"/mcp"}


async def test_an_event_of_empty_lines_without_an_end_ends_the_connection_and_not_the_memory() -> None:
    sent = 0

    async def answer(path: str, headers: dict[str, str], message: dict[str, Any], writer: Write) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
        while sent < 10_000_000:
            writer.write(b"data:\n" * 10_000)
            sent += 10_000
            await writer.drain()

    async with served(answer) as server, HttpMCPClient(server.url, max_message_bytes=100_000) as client:
        with pytest.raises(MCPConnectionError, match="more than 100000 bytes"):
            await within_limit(client.call_tool("act"))


# ---- streams that break off ----

STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"


def event(message: dict[str, Any] | None, number: int, *, retry_ms: int = 0) -> bytes:
    data = "" if message is None else json.dumps({"jsonrpc": "2.0", **message})
    return f"id: {number}\nretry: {retry_ms}\ndata: {data}\n\n".encode()


def done(number: int) -> dict[str, Any]:
    return {"id": number, "result": {"content": [{"type": "text", "text": "done"}]}}


async def test_an_event_that_broke_off_is_asked_for_again_and_the_call_is_not() -> None:
    asked: list[int] = []
    taken_up: list[str] = []

    async def answer(path: str, headers: dict[str, str], message: dict[str, Any], writer: Write) -> None:
        asked.append(message["id"])
        writer.write(STREAM + event(None, 1) + event(done(asked[0]), 2)[:-5])

    async def listen(path: str, headers: dict[str, str], message: dict[str, Any], writer: Write) -> None:
        if "last-event-id" not in headers:
            writer.write(b"HTTP/1.1 405 Method Not Allowed\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            return
        taken_up.append(headers["last-event-id"])
        # At its second it gets no further, at the third it has come to the end.
        writer.write(STREAM + (event(done(asked[0]), 2) if len(taken_up) > 2 else b""))

    async with served(answer, listen) as server, HttpMCPClient(server.url) as client:
        result = await within_limit(client.call_tool("act"))
    assert (result.content[0]["text"], len(asked), taken_up) == ("done", 1, ["1"] * 3)


async def test_an_answer_that_never_goes_on_is_given_up_and_may_have_run() -> None:
    tries: list[str] = []

    async def answer(path: str, headers: dict[str, str], message: dict[str, Any], writer: Write) -> None:
        writer.write(STREAM + event(None, 7) + b"id: 8\x00\n\nid: " + b"9" * 5_000 + b"\n\n")

    async def listen(path: str, headers: dict[str, str], message: dict[str, Any], writer: Write) -> None:
        if "last-event-id" in headers:
            tries.append(headers["last-event-id"])
            writer.write(STREAM)

    async with served(answer, listen) as server, HttpMCPClient(server.url) as client:
        with pytest.raises(MCPConnectionError, match="its answer ended before the result came") as caught:
            await within_limit(client.call_tool("act"))
    assert caught.value.may_have_run
    assert tries == ["7"] * 5


async def test_what_a_server_says_by_itself_is_heard_after_its_stream_ended() -> None:
    streams: list[str] = []

    async def answer(path: str, headers: dict[str, str], message: dict[str, Any], writer: Write) -> None:
        say(writer, message["id"], {"tools": []})

    async def listen(path: str, headers: dict[str, str], message: dict[str, Any], writer: Write) -> None:
        streams.append(headers.get("last-event-id", ""))
        changed = event({"method": "notifications/tools/list_changed"}, len(streams))
        writer.write(STREAM + (changed if len(streams) < 4 else b""))

    async with served(answer, listen) as server, HttpMCPClient(server.url) as client:
        await until(lambda: len(streams) == 5)
        assert await client.list_tools() == []
    assert streams[:5] == ["", "1", "2", "3", "3"]


async def test_streams_that_end_without_news_are_opened_again_until_there_are_some(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A proxy ends what is quiet, so often as it is quiet."""
    monkeypatch.setattr("power_loop.contrib.mcp.http_channel._MAX_RETRY_S", 0.1)
    streams = 0
    heard = asyncio.Event()

    async def answer(path: str, headers: dict[str, str], message: dict[str, Any], writer: Write) -> None:
        say(writer, message["id"], {"tools": []})

    async def listen(path: str, headers: dict[str, str], message: dict[str, Any], writer: Write) -> None:
        nonlocal streams
        streams += 1
        changed = event({"method": "notifications/tools/list_changed"}, streams)
        writer.write(STREAM + (changed if streams == 8 else b"retry: 0\n"))

    async with served(answer, listen) as server, HttpMCPClient(server.url) as client:
        client.on_tools_changed = heard.set
        await within_limit(heard.wait())


async def test_a_stream_is_taken_up_after_a_pause_whatever_the_server_wants() -> None:
    asked_at_s: list[float] = []

    async def answer(path: str, headers: dict[str, str], message: dict[str, Any], writer: Write) -> None:
        say(writer, message["id"], {"tools": []})

    async def listen(path: str, headers: dict[str, str], message: dict[str, Any], writer: Write) -> None:
        asked_at_s.append(asyncio.get_running_loop().time())
        writer.write(STREAM + event({"method": "notifications/progress"}, len(asked_at_s), retry_ms=0))

    async with served(answer, listen) as server, HttpMCPClient(server.url):
        await until(lambda: len(asked_at_s) == 4)
    pauses_s = [later - earlier for earlier, later in itertools.pairwise(asked_at_s)]
    assert min(pauses_s) > 0.09


async def test_many_calls_run_side_by_side() -> None:
    waiting: list[int] = []
    everybody = asyncio.Event()

    async def answer(path: str, headers: dict[str, str], message: dict[str, Any], writer: Write) -> None:
        waiting.append(message["id"])
        if len(waiting) == 150:
            everybody.set()
        await everybody.wait()
        say(writer, message["id"], done(0)["result"])

    async with served(answer) as server, HttpMCPClient(server.url) as client:
        answers = await within_limit(asyncio.gather(*(client.call_tool("act") for _ in range(150))))
    assert len(answers) == 150
