"""One client connection: HTTP/1.1 with keep-alive, requests in, replies out, exact to the byte."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, cast

from .reply import Hang, Pause, Reply
from .request import Request
from .script import Conduct

if TYPE_CHECKING:
    from .server import ModelServer

MAX_HEAD_BYTES = 65536
# A stream hands the loop back now and then, so that a long one does not starve the other connections.
FRAMES_A_TURN = 64


class Connection(asyncio.Protocol):
    """Reads requests one after the other and writes their replies in order."""

    def __init__(self, server: ModelServer) -> None:
        """Belong to a server; the number is given when the client connects."""
        self.number = 0
        self._server = server
        self._transport: asyncio.Transport
        self._buffer = bytearray()
        self._wanted = 0
        self._task: asyncio.Task[None] | None = None
        self._request: Request | None = None
        self._room = asyncio.Event()
        self._room.set()
        self._lost = False

    # --- what the transport says ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._server.opened(self)

    def data_received(self, data: bytes) -> None:
        """Bytes of a request have arrived."""
        self._buffer += data
        if self._task is None and len(self._buffer) >= self._wanted:
            self._advance()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended, by whichever side."""
        self._lost = True
        self._room.set()
        if self._task is not None:
            if self._request is not None and not self._request.finished:
                self._request.client_left = True
            self._task.cancel()
        self._server.closed(self)

    def pause_writing(self) -> None:
        """The client reads slower than we write."""
        self._room.clear()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._room.set()

    def abort(self) -> None:
        """End the connection at once."""
        self._transport.abort()

    # --- requests ---

    def _advance(self) -> None:
        """Take the next whole request out of the buffer and answer it."""
        while self._task is None and self._buffer and not self._lost:
            taken = self._take()
            if taken is None:
                return
            head, body = taken
            quick = self._server.respond_at_once(head, body)
            if quick is not None:
                self._transport.write(quick)
                continue
            self._task = asyncio.get_running_loop().create_task(self._serve(head, body))

    def _take(self) -> tuple[bytes, bytes] | None:
        buffer = self._buffer
        end = buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(buffer) > MAX_HEAD_BYTES:
                self._transport.abort()
            return None
        head = bytes(buffer[: end + 2])
        lower = head.lower()
        start = end + 4
        at = lower.find(b"\r\ncontent-length:")
        if at < 0 and b"\r\ntransfer-encoding: chunked\r\n" in lower:
            return self._take_chunked(head, start)
        length = int(lower[at + 17 : lower.index(b"\r\n", at + 17)]) if at >= 0 else 0
        if len(buffer) < start + length:
            if b"\r\nexpect: 100-continue" in lower and not self._wanted:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._wanted = start + length
            return None
        self._wanted = 0
        body = bytes(memoryview(buffer)[start : start + length])
        del buffer[: start + length]
        return head, body

    def _take_chunked(self, head: bytes, start: int) -> tuple[bytes, bytes] | None:
        buffer, at, body = self._buffer, start, bytearray()
        while True:
            line_end = buffer.find(b"\r\n", at)
            if line_end < 0:
                return None
            size = int(bytes(buffer[at:line_end]).split(b";")[0], 16)
            at = line_end + 2
            if len(buffer) < at + size + 2:
                return None
            body += buffer[at : at + size]
            at += size + 2
            if not size:
                del buffer[:at]
                return head, bytes(body)

    # --- replies ---

    async def _serve(self, head: bytes, body: bytes) -> None:
        keep = False
        try:
            request = self._request = self._server.record(self, head, body)
            reply, conduct, gate = await self._server.decide(request)
            if conduct is Conduct.ANSWER:
                keep = await self._answer(request, reply)
                keep = keep and request.headers.get("connection", "").lower() != "close"
            elif conduct is Conduct.HANG:
                await self._server.hang(gate)
            elif conduct is Conduct.CLOSE_AFTER_HEADERS:
                self._write_head(reply, ("transfer-encoding", "chunked"))
            elif conduct is Conduct.RESET_BEFORE_HEADERS:
                self._reset()
        except Exception as exc:
            self._server.failed(exc)
        finally:
            self._task = self._request = None
            if not keep:
                self._transport.close()
            else:
                self._advance()

    async def _answer(self, request: Request, reply: Reply) -> bool:
        """Send a reply; True when the connection can take another request."""
        request.status = reply.status
        chunked = reply.frames is not None or not isinstance(reply.body, bytes)
        if chunked:
            self._write_head(reply, ("transfer-encoding", "chunked"))
        else:
            self._write_head(reply, ("content-length", str(len(cast(bytes, reply.body)))))
        for count, piece in enumerate(reply.pieces(), 1):
            if self._transport.is_closing():
                request.client_left = True
                return False
            if isinstance(piece, bytes):
                if piece:
                    self._transport.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
                if not self._room.is_set():
                    await self._room.wait()
                elif count % FRAMES_A_TURN == 0:
                    await asyncio.sleep(0)
            elif isinstance(piece, Hang):
                await self._server.hang(piece.gate)
            elif isinstance(piece, Pause):
                await asyncio.sleep(piece.seconds)
            else:
                if piece.reset:
                    self._reset()
                return False
        if chunked and not reply.final_chunk:
            return False
        if chunked:
            self._transport.write(b"0\r\n\r\n")
        self._server.finished(request)
        return True

    def _write_head(self, reply: Reply, framing: tuple[str, str]) -> None:
        try:
            phrase = HTTPStatus(reply.status).phrase
        except ValueError:
            phrase = "Overloaded" if reply.status == 529 else "Unknown"
        lines = [f"HTTP/1.1 {reply.status} {phrase}", f"date: {formatdate(usegmt=True)}"]
        lines += [f"{name}: {value}" for name, value in [*reply.headers, framing]]
        self._transport.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))

    def _reset(self) -> None:
        """Close so that the client's next read fails with a connection reset."""
        sock = self._transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()
