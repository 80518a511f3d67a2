"""Is a small HTTP/1.1 server for pages of this machine: one request a connection, every size and wait of it limited.

The standard library's own is for threads, and this one has to serve from the event loop in which the agents run. It
takes the little that a browser sends to a page on loopback; everything else is refused.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit

#: A page on loopback: no other machine reaches it.
HOST = "127.0.0.1"

# A browser's head has about 1 KiB; an answer to a call may be longer.
_MAX_HEAD_BYTES = 16_384
_MAX_BODY_BYTES = 262_144
# A browser opens six at a time.
_MAX_CONNECTIONS = 64
_MAX_QUERY_FIELDS = 20
_HEAD_LIMIT_S = 20.0
# Who reads nothing for so long is gone.
_WRITE_LIMIT_S = 30.0
_REASONS = {200: "OK", 202: "Accepted", 204: "No Content", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden"}
_REASONS |= {404: "Not Found", 405: "Method Not Allowed", 409: "Conflict", 413: "Content Too Large", 415: "Unsupported"}
_REASONS |= {421: "Misdirected Request", 500: "Internal Server Error", 503: "Service Unavailable"}

_log = logging.getLogger("power_loop")


@dataclass(frozen=True)
class Request:
    """Is a request; the names of `headers` are in lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True)
class Response:
    """Is an answer: a `body`, or pieces that come as they come and end with their reader."""

    status: int = 200
    body: bytes = b""
    type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)
    pieces: AsyncIterator[bytes] | None = None


class RefusedRequest(Exception):  # noqa: N818  (it is an answer)
    """Ends a request with a status and a sentence."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


Handler = Callable[[Request], Awaitable[Response]]


class HttpServer:
    """Serves one handler on a port of loopback, until `aclose()`."""

    def __init__(self, handler: Handler, *, headers: Mapping[str, str] | None = None) -> None:
        """Give `headers` with each answer, with a refusal too."""
        self._handler = handler
        self._headers = dict(headers or {})
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()
        # Who has not said yet what is wanted, the oldest first.
        self._silent: dict[asyncio.Task[None], None] = {}
        self.port = 0

    async def start(self, port: int) -> None:
        """Listen on `port`, on a free one if that is 0. Raises OSError."""
        self._server = await asyncio.start_server(self._connected, HOST, port, limit=_MAX_HEAD_BYTES)
        self.port = self._server.sockets[0].getsockname()[1]

    async def aclose(self) -> None:
        """Listen no longer, and end what is being served."""
        if self._server is None:
            return
        self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            await self._serve(reader, writer, task)
            writer.close()
            # What was written last is still on its way.
            await asyncio.wait_for(writer.wait_closed(), _WRITE_LIMIT_S)
        except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError):
            pass  # whoever asked is gone
        except asyncio.CancelledError:
            pass  # the server closes, and asyncio would log the cancellation of this callback
        finally:
            # A closed transport waits for its reader for ever; who does not read is not waited for.
            writer.transport.abort()
            self._serving.discard(task)

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, task: asyncio.Task[None]
    ) -> None:
        try:
            if len(self._serving) > _MAX_CONNECTIONS:
                self._end_the_most_silent()
            self._silent[task] = None
            try:
                request = await asyncio.wait_for(_read(reader), _HEAD_LIMIT_S)
            finally:
                del self._silent[task]
            response = await self._handler(request)
        except RefusedRequest as refused:
            response = Response(refused.status, f"{refused}\n".encode())
        except Exception:  # a stranger's store or tool is behind the handler
            _log.exception("inspector: a request failed")
            response = Response(500, b"it failed; the log of the process says how\n")
        length = {} if response.pieces is not None else {"Content-Length": str(len(response.body))}
        kind = {"Content-Type": response.type, "Connection": "close"}
        head = {**self._headers, **kind, **length, **response.headers}
        lines = [f"HTTP/1.1 {response.status} {_REASONS.get(response.status, 'Other')}"]
        lines += [f"{name}: {value}" for name, value in head.items()]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        if response.pieces is None:
            writer.write(response.body)
            await asyncio.wait_for(writer.drain(), _WRITE_LIMIT_S)
            return
        try:
            await _pour(response.pieces, reader, writer)
        except (OSError, asyncio.TimeoutError):
            raise
        except Exception:  # a stranger's store is behind the pieces
            _log.exception("inspector: a stream failed")

    def _end_the_most_silent(self) -> None:
        """Make room: who connects and says nothing keeps nobody out. Raises RefusedRequest where all have spoken."""
        if not self._silent:
            raise RefusedRequest(503, "too many connections are open: close other pages of the inspector")
        next(iter(self._silent)).cancel()


async def _pour(pieces: AsyncIterator[bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Write pieces as they come, until there are no more or their reader has hung up."""

    async def write() -> None:
        async for piece in pieces:
            writer.write(piece)
            await asyncio.wait_for(writer.drain(), _WRITE_LIMIT_S)

    # A browser says nothing more: the end of what it says is that it is gone.
    ends = [asyncio.create_task(write()), asyncio.create_task(reader.read(1))]
    try:
        done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for one in done:
            one.result()
    finally:
        for one in ends:
            one.cancel()
        await asyncio.gather(*ends, return_exceptions=True)
        close = getattr(pieces, "aclose", None)
        if close is not None:
            await close()


async def _read(reader: asyncio.StreamReader) -> Request:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        raise RefusedRequest(413, "the head of the request is too long") from None
    first, *lines = head[:-4].decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise RefusedRequest(400, "this is no request")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        name = name.lower()
        # What could be read in two ways is refused: a folded line, a space before the colon, a header said twice.
        if not colon or not name or name != name.strip() or name in headers:
            raise RefusedRequest(400, "a header of the request is none, or is said twice")
        headers[name] = value.strip()
    if "transfer-encoding" in headers:
        raise RefusedRequest(400, "a body has to say its length")
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdecimal()):
        raise RefusedRequest(400, "the length of the body is no number")
    if len(length) > 9 or int(length) > _MAX_BODY_BYTES:
        raise RefusedRequest(413, "the body of the request is too long")
    try:
        parts = urlsplit(words[1])
        query = dict(parse_qsl(parts.query, keep_blank_values=True, max_num_fields=_MAX_QUERY_FIELDS))
    except ValueError:
        raise RefusedRequest(400, "the address cannot be read") from None
    return Request(words[0], parts.path, query, headers, await reader.readexactly(int(length)))
