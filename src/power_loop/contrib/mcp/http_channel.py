"""Is a client of an MCP server that is reached by streamable HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from power_loop.contrib.mcp.client import DEFAULT_TIMEOUT_S, MCPClient
from power_loop.contrib.mcp.json_lines import DEFAULT_MAX_MESSAGE_BYTES, object_of
from power_loop.errors import ConfigError, MCPConnectionError, MCPError, MissingExtraError

_SESSION = "mcp-session-id"
_LAST_EVENT = "last-event-id"
_VERSION = "mcp-protocol-version"
_ACCEPTED = "application/json, text/event-stream"
_EVENTS = "text/event-stream"
_CONNECT_S = 10.0
_WRITE_S = 60.0
# A farewell that is not heard ends with the server's own patience.
_FAREWELL_S = 2.0
# The libraries that the SDK of MCP brings, the newer one first; both have what is used here.
_LIBRARIES = ("httpx2", "httpx")
_SHOWN_CHARS = 500
# How long to wait before a stream is taken up again, where the server says nothing, too little or too much: one that
# wants it at once, and ends each stream behind an event, would have us ask without a pause.
_RETRY_S, _MIN_RETRY_S, _MAX_RETRY_S = 1.0, 0.1, 30.0
# So often in a row a stream is taken up without that anything new came.
_MAX_EMPTY_RESUMES = 5
_MAX_EVENT_ID_CHARS = 1_000
_NOT_FOUND = 404
_SERVER_ERROR = 500


class HttpMCPClient(MCPClient):
    """Speaks with an MCP server by streamable HTTP: `await HttpMCPClient("https://host/mcp").connect()`.

    `headers` go with each request to that address and nowhere else: redirects are not followed. `http_client` is an
    `httpx2.AsyncClient` (or `httpx.AsyncClient`) of the application's, for proxies, certificates, authorisation. A
    message of more than `max_message_bytes` ends the connection.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
        http_client: Any = None,
    ) -> None:
        """Take where the server is. Raises `config.invalid`."""
        address: Any = url
        if not isinstance(address, str) or not address.lower().startswith(("http://", "https://")):
            raise ConfigError(f"url is {url!r:.200}: give the http:// or https:// address of the server's endpoint")
        super().__init__(timeout_s=timeout_s)
        self._url = url
        self._headers = dict(headers or {})
        self._max_message_bytes = max_message_bytes
        self._http_client = http_client

    async def open_channel(self) -> _HttpChannel:
        """Return a channel; nothing is sent before the handshake. Raises `config.missing_extra`."""
        return _HttpChannel(
            _library(), self._url, self._headers, client=self._http_client, max_bytes=self._max_message_bytes
        )

    def note_version(self, channel: Any, version: str) -> None:
        """Name the version in each request from here on, and listen to what the server says by itself."""
        channel.begin(version)

    def __repr__(self) -> str:
        return f"HttpMCPClient({self._url!r})"


class _Cursor:
    """Is how far a stream of events was read: the id of its last event, and how long to wait before going on."""

    __slots__ = ("_coming_id", "last_id", "retry_s")

    def __init__(self) -> None:
        self.last_id = ""
        self.retry_s = _RETRY_S
        self._coming_id = ""

    def note(self, field: bytes, value: bytes) -> None:
        """Take a field of an event that is no data."""
        if (
            field == b"id"
            and len(value) <= _MAX_EVENT_ID_CHARS
            and value.isascii()
            and value.decode("ascii").isprintable()
        ):
            self._coming_id = value.decode("ascii")
        elif field == b"retry" and value.isdigit() and len(value) < 10:
            self.retry_s = min(max(int(value) / 1000, _MIN_RETRY_S), _MAX_RETRY_S)

    def end_event(self) -> None:
        """An event is whole: one that broke off is sent again."""
        self.last_id = self._coming_id


class _HttpChannel:
    """Is a channel of requests; what is answered to each is received in the order in which it comes."""

    def __init__(self, library: Any, url: str, headers: dict[str, str], *, client: Any, max_bytes: int) -> None:
        self._library = library
        self._url = url
        self._headers = {**headers, "accept-encoding": "identity"}
        self._max_bytes = max_bytes
        self._owns_client = client is None
        if client is None:
            timeout = library.Timeout(None, connect=_CONNECT_S, write=_WRITE_S, pool=_CONNECT_S)
            # Each call that runs has a connection of its own for as long as it runs.
            limits = library.Limits(max_connections=None)
            client = library.AsyncClient(timeout=timeout, limits=limits, follow_redirects=False)
        self._client = client
        self._received: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._listening: asyncio.Task[None] | None = None
        self._why = f"the MCP server at {url!r} was disconnected"

    def begin(self, version: str) -> None:
        """Take the version that was agreed upon, and listen."""
        self._headers[_VERSION] = version
        if _SESSION in self._headers:
            self._listening = asyncio.create_task(self._listen(), name="power-loop-mcp-listen")

    async def send(self, message: dict[str, Any]) -> None:
        """Post a message and take in what is answered to it, to the end. Raises `mcp.connection`, `mcp.failed`."""
        lib = self._library
        headers = {**self._headers, "accept": _ACCEPTED, "content-type": "application/json"}
        body = json.dumps(message).encode("ascii")
        number = message.get("id") if "method" in message else None
        cursor = _Cursor()
        why = "its answer ended before the result came"
        try:
            async with self._client.stream(
                "POST", self._url, content=body, headers=headers, follow_redirects=False
            ) as answer:
                if answer.status_code >= 300:
                    await self._refuse(answer, has_session=_SESSION in headers)
                if message.get("method") == "initialize" and _SESSION in answer.headers:
                    self._headers[_SESSION] = answer.headers[_SESSION]
                is_answered = await self._take(answer, message.get("id"), cursor)
        except (lib.ConnectError, lib.ConnectTimeout, lib.PoolTimeout, lib.UnsupportedProtocol) as error:
            raise MCPConnectionError(f"the MCP server at {self._url!r} cannot be reached: {error!r:.300}") from error
        except lib.HTTPError as error:
            is_answered, why = False, repr(error)
        if number is not None and not is_answered:
            await self._take_up(number, cursor, why)

    async def receive(self) -> dict[str, Any] | None:
        """Return the next message."""
        return await self._received.get()

    async def describe_end(self) -> str:
        """Say why it ended."""
        return self._why

    async def aclose(self) -> None:
        """Say goodbye and let go."""
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.wait({self._listening})
        if _SESSION in self._headers:
            goodbye = self._client.delete(self._url, headers=self._headers, follow_redirects=False)
            with contextlib.suppress(self._library.HTTPError, asyncio.TimeoutError):
                await asyncio.wait_for(goodbye, _FAREWELL_S)
        if self._owns_client:
            await self._client.aclose()
        self._received.put_nowait(None)

    async def _take_up(self, number: Any, cursor: _Cursor, why: str) -> None:
        """Go on with an answer that broke off, from its last event, until the response has come; nothing is asked
        again. Raises `mcp.connection` where the server offers no way on."""
        empty = 0
        while cursor.last_id and empty < _MAX_EMPTY_RESUMES:
            before = cursor.last_id
            await asyncio.sleep(cursor.retry_s)
            try:
                async with self._stream_from(cursor) as answer:
                    if answer.status_code != 200 or not _is_events(answer):
                        break
                    async for message in self._messages(answer, cursor):
                        self._received.put_nowait(message)
                        # A server may hold this stream open behind its answer.
                        if _answers(message, number):
                            return
            except self._library.HTTPError as error:
                why = repr(error)
            empty = 0 if cursor.last_id != before else empty + 1
        raise self._lost(why)

    async def _listen(self) -> None:
        """Take in what the server says by itself, where it offers that, as long as the channel is open."""
        cursor = _Cursor()
        empty = 0
        while True:
            is_heard = False
            with contextlib.suppress(self._library.HTTPError):
                async with self._stream_from(cursor) as answer:
                    if answer.status_code != 200 or not _is_events(answer):
                        return
                    with contextlib.suppress(MCPError):
                        async for message in self._messages(answer, cursor):
                            is_heard = True
                            self._received.put_nowait(message)
            empty = 0 if is_heard else empty + 1
            # A stream without news is ended by many a proxy: it is opened less often then, and never given up.
            await asyncio.sleep(cursor.retry_s if empty < _MAX_EMPTY_RESUMES else _MAX_RETRY_S)

    def _stream_from(self, cursor: _Cursor) -> Any:
        headers = {**self._headers, "accept": _EVENTS}
        if cursor.last_id:
            headers[_LAST_EVENT] = cursor.last_id
        return self._client.stream("GET", self._url, headers=headers, follow_redirects=False)

    async def _take(self, answer: Any, number: Any, cursor: _Cursor) -> bool:
        """Queue the messages of an answer; tell whether the response to `number` was among them."""
        is_answered = False
        try:
            async for message in self._messages(answer, cursor):
                self._received.put_nowait(message)
                is_answered = is_answered or _answers(message, number)
        except self._library.HTTPError:
            if not is_answered:
                raise
        return is_answered

    async def _messages(self, answer: Any, cursor: _Cursor) -> AsyncIterator[dict[str, Any]]:
        async for data in self._events(answer, cursor) if _is_events(answer) else self._whole(answer):
            message = object_of(data)
            if message is not None:
                yield message

    async def _whole(self, answer: Any) -> AsyncIterator[bytes]:
        body = bytearray()
        async for part in answer.aiter_raw():
            body += part
            if len(body) > self._max_bytes:
                raise self._too_long()
        if body:
            yield bytes(body)

    async def _events(self, answer: Any, cursor: _Cursor) -> AsyncIterator[bytes]:
        """Give the data of each event of a stream, and note how far it came."""
        # A line comes in many parts, which are put together once.
        rest, data, held = bytearray(), [], 0
        async for part in answer.aiter_raw():
            begun, newline, more = part.partition(b"\n")
            rest += begun
            lines: list[bytes] = []
            if newline:
                *lines, last = more.split(b"\n")
                lines.insert(0, bytes(rest))
                rest = bytearray(last)
            for line in lines:
                field, _, value = line.rstrip(b"\r").partition(b":")
                if field == b"data":
                    data.append(value.removeprefix(b" "))
                    # Lines without anything take memory too.
                    held += len(value) + 1
                elif not field and not value:
                    cursor.end_event()
                    if data:
                        yield b"\n".join(data)
                        data, held = [], 0
                elif field:
                    cursor.note(field, value.removeprefix(b" "))
            if held + len(rest) > self._max_bytes:
                raise self._too_long()

    async def _refuse(self, answer: Any, *, has_session: bool) -> None:
        body = b""
        async for part in answer.aiter_raw():
            body += part
            if len(body) > self._max_bytes:
                break
        status = answer.status_code
        if status == _NOT_FOUND and has_session:
            # It knows the session no more, so it did nothing: whoever asked may connect again and ask again.
            self._why = f"the MCP server at {self._url!r} has ended the session"
            self._headers.pop(_SESSION, None)
            raise MCPConnectionError(self._why)
        if status >= _SERVER_ERROR:
            raise self._lost(f"it answered with the status {status}")
        told = object_of(body) or {}
        error = told.get("error")
        said = error.get("message") if isinstance(error, dict) else body.decode("utf-8", "replace")
        raise MCPError(f"the MCP server at {self._url!r} answered with the status {status}: {said!s:.{_SHOWN_CHARS}}")

    def _lost(self, why: str) -> MCPConnectionError:
        return MCPConnectionError(f"the MCP server at {self._url!r} was lost: {why:.300}", may_have_run=True)

    def _too_long(self) -> MCPConnectionError:
        return MCPConnectionError(
            f"the MCP server at {self._url!r} sent a message of more than {self._max_bytes} bytes: give the client a"
            " larger max_message_bytes if that is meant",
            may_have_run=True,
        )


def _answers(message: dict[str, Any], number: Any) -> bool:
    return "method" not in message and message.get("id") == number


def _is_events(answer: Any) -> bool:
    return str(answer.headers.get("content-type", "")).partition(";")[0].strip().lower() == _EVENTS


def _library() -> Any:
    for name in _LIBRARIES:
        with contextlib.suppress(ImportError):
            return importlib.import_module(name)
    raise MissingExtraError("no HTTP library for MCP is installed: pip install 'power-loop[mcp]'", extra="mcp")
