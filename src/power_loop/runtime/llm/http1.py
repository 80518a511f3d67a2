"""One HTTP/1.1 connection as a client: a request out, the head and the body of its answer in, nothing else."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import cast

from power_loop.runtime.llm.failures import ProviderFault

_MAX_HEAD_BYTES = 64 * 1024
# A line of a chunked body: a size in hexadecimal, maybe an extension that nobody uses.
_MAX_LINE_BYTES = 4096
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?")
_HEX_MARKS = (b"x", b"X")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: .*)?", re.DOTALL)
# Above this much unread body the peer is left waiting, below half of it the peer goes on.
_BUFFER_BYTES = 1024 * 1024
# A body up to this size travels in one piece with its head.
_JOINED_BYTES = 64 * 1024

_HEAD, _SIZED, _CHUNK_HEAD, _CHUNK, _CHUNK_END, _TRAILER, _UNTIL_CLOSED, _OVER = range(8)


class HttpConnection(asyncio.Protocol):
    """Is one connection. A request is sent when the answer to the one before was read to its end.

    States: `_HEAD` waits for or reads a head; the body is `_SIZED`, chunked (`_CHUNK_HEAD` to `_TRAILER`) or lasts
    `_UNTIL_CLOSED`; `_OVER` is the state between an answer and the next request. `idle_s` bounds each silence.
    """

    def __init__(self, idle_s: float) -> None:
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self._loop = asyncio.get_running_loop()
        self._idle_s = idle_s
        self._transport: asyncio.Transport | None = None
        self._state = _OVER
        self._rest = b""
        self._left = 0
        self._pieces: list[bytes] = []
        self._buffered = 0
        self._is_paused = False
        self._keeps_alive = False
        self._failure: ProviderFault | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._heard_at_s = 0.0
        self._silence: asyncio.TimerHandle | None = None

    # --- what the client does ---

    @property
    def is_open(self) -> bool:
        """Whether another request can be sent."""
        transport = self._transport
        return transport is not None and self._state == _OVER and self._keeps_alive and not transport.is_closing()

    @property
    def is_over(self) -> bool:
        """Whether the body has come to its proper end and all of it was read."""
        return self._state == _OVER and not self._pieces

    async def send(self, head: bytes, body: bytes) -> None:
        """Send a request and return once the head of its answer is here: `status` and `headers` are its own then."""
        transport = self._transport
        if transport is None or transport.is_closing():
            raise ProviderFault.cut("the connection ended before the request was sent")
        assert self._state == _OVER, "the answer before was not read to its end"
        self._state = _HEAD
        self._keeps_alive = False
        self._heard_at_s = self._loop.time()
        self._silence = self._loop.call_later(self._idle_s, self._check_silence)
        if len(body) <= _JOINED_BYTES:
            transport.write(head + body)
        else:
            transport.write(head)
            transport.write(body)
        while self._state == _HEAD:
            await self._more()

    async def read(self) -> bytes:
        """Return what has come of the body, b"" at its proper end."""
        while not self._pieces:
            if self._state == _OVER:
                return b""
            await self._more()
        pieces = self._pieces
        self._pieces = []
        self._buffered = 0
        if self._is_paused:
            self._is_paused = False
            self._resume()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def abort(self) -> None:
        """Close at once, whatever is under way."""
        self._stop_watch()
        if self._transport is not None:
            self._transport.abort()

    @property
    def transport(self) -> asyncio.Transport | None:
        """What the bytes go through, None once it is closed."""
        return self._transport

    def hand_over(self) -> asyncio.Transport:
        """Return the transport for another protocol, as after a CONNECT, and have no more to do with it."""
        assert self._transport is not None
        self._stop_watch()
        self._state = _OVER
        return self._transport

    async def _more(self) -> None:
        """Wait until something has come."""
        if self._failure is not None:
            raise self._failure
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _resume(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._heard_at_s = self._loop.time()
            self._transport.resume_reading()

    # --- what the transport says ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is open."""
        # Other event loops have transports of their own classes.
        self._transport = cast(asyncio.Transport, transport)
        self._keeps_alive = True

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        self._heard_at_s = self._loop.time()
        if self._state == _OVER:
            # Nothing was asked: what comes now belongs to no answer of ours.
            self._keeps_alive = False
            self.abort()
            return
        if self._rest:
            data = self._rest + data
            self._rest = b""
        try:
            self._parse(data)
        except ProviderFault as fault:
            self._fail(fault)
            self.abort()
            return
        if self._buffered > _BUFFER_BYTES and not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()
        self._wake()

    def resume_writing(self) -> None:
        """The peer takes more of the request, so it is not silent."""
        self._heard_at_s = self._loop.time()

    def eof_received(self) -> bool:
        """The peer sends no more; the transport closes itself."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed, by whichever side."""
        if self._state == _UNTIL_CLOSED and exc is None:
            self._end()
        elif self._state != _OVER:
            where = "before the answer" if self._state == _HEAD else "within the answer"
            self._fail(ProviderFault.cut(f"the connection ended {where}" + (f": {exc}" if exc else "")))
        self._stop_watch()
        self._transport = None
        self._wake()

    # --- the parser ---

    def _parse(self, data: bytes) -> None:
        """Take bytes apart; what is incomplete is kept for the next ones."""
        at, size = 0, len(data)
        while True:
            state = self._state
            if state in (_CHUNK, _SIZED):
                taken = min(self._left, size - at)
                if not taken and self._left:
                    return
                if taken:
                    self._add(data[at : at + taken])
                    at += taken
                    self._left -= taken
                if self._left:
                    return
                if state == _SIZED:
                    self._end()
                else:
                    self._state = _CHUNK_END
            elif state == _CHUNK_HEAD:
                at = self._take_chunks(data, at)
                end = data.find(b"\r\n", at)
                if end < 0:
                    self._keep(data, at, _MAX_LINE_BYTES)
                    return
                match = _CHUNK_SIZE.fullmatch(data, at, end)
                if match is None:
                    raise ProviderFault.broken(f"a chunk has the size {data[at : min(end, at + 40)]!r}")
                at = end + 2
                self._left = int(match[1], 16)
                self._state = _CHUNK if self._left else _TRAILER
            elif state == _CHUNK_END:
                if size - at < 2:
                    self._keep(data, at, _MAX_LINE_BYTES)
                    return
                if data[at : at + 2] != b"\r\n":
                    raise ProviderFault.broken("a chunk is longer than it says")
                at += 2
                self._state = _CHUNK_HEAD
            elif state == _TRAILER:
                end = data.find(b"\r\n", at)
                if end < 0:
                    self._keep(data, at, _MAX_LINE_BYTES)
                    return
                is_last = end == at
                at = end + 2
                if is_last:
                    self._end()
            elif state == _HEAD:
                end = data.find(b"\r\n\r\n", at)
                if end < 0:
                    if not b"HTTP/1.".startswith(data[at : at + 7]) and not data.startswith(b"HTTP/1.", at):
                        raise ProviderFault.broken(f"the answer is no HTTP/1.1: {data[at : at + 40]!r}")
                    self._keep(data, at, _MAX_HEAD_BYTES)
                    return
                self._read_head(data[at:end])
                at = end + 4
            elif state == _UNTIL_CLOSED:
                if at < size:
                    self._add(data[at:])
                return
            else:
                if at < size:
                    # More than was announced: nothing after it can be trusted.
                    self._keeps_alive = False
                    self.abort()
                return

    def _take_chunks(self, data: bytes, at: int) -> int:
        """Take the chunks that are whole and plain, as nearly all are; return where the first other one begins."""
        size = len(data)
        while True:
            end = data.find(b"\r\n", at)
            line = data[at:end]
            # Digits and letters only, so that int() reads no sign, no blank and no underscore; and no 0x.
            if end < 0 or not line.isalnum() or line[1:2] in _HEX_MARKS:
                return at
            try:
                length = int(line, 16)
            except ValueError:
                return at
            stop = end + 2 + length
            if not length or stop + 2 > size or data[stop : stop + 2] != b"\r\n":
                return at
            self._pieces.append(data[end + 2 : stop])
            self._buffered += length
            at = stop + 2

    def _keep(self, data: bytes, at: int, limit: int) -> None:
        if len(data) - at > limit:
            raise ProviderFault.broken(f"a line or the head of the answer is longer than {limit} bytes")
        self._rest = data[at:]

    def _read_head(self, head: bytes) -> None:
        first, *lines = head.split(b"\r\n")
        match = _STATUS_LINE.fullmatch(first)
        if match is None:
            raise ProviderFault.broken(f"the answer is no HTTP/1.1: {first[:40]!r}")
        status = int(match[2])
        headers: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.partition(b":")
            if not colon or not name or name != name.strip():
                raise ProviderFault.broken(f"a header of the answer is {line[:40]!r}")
            key = name.decode("latin-1").lower()
            text = value.strip().decode("latin-1")
            headers[key] = f"{headers[key]}, {text}" if key in headers else text
        if status < 200:
            if status == 101:
                raise ProviderFault.broken("the answer changes the protocol, which was not asked for")
            # A hint that the answer is on its way.
            return
        self.status, self.headers = status, headers
        connection = headers.get("connection", "").lower()
        self._keeps_alive = "close" not in connection and (match[1] == b"1" or "keep-alive" in connection)
        self._begin_body(status, headers)

    def _begin_body(self, status: int, headers: Mapping[str, str]) -> None:
        coding = headers.get("transfer-encoding")
        length = headers.get("content-length")
        if status in (204, 304):
            self._end()
        elif coding is not None:
            if coding.lower() != "chunked":
                raise ProviderFault.broken(f"the body comes in the coding {coding[:40]!r}, which was not asked for")
            # A length beside it is a way to smuggle: the chunks count, and the connection is not used again.
            self._keeps_alive = self._keeps_alive and length is None
            self._state = _CHUNK_HEAD
        elif length is not None:
            # The same length may be said twice.
            lengths = {one.strip() for one in length.split(",")}
            only = lengths.pop()
            if lengths or not only.isascii() or not only.isdecimal() or len(only) > 15:
                raise ProviderFault.broken(f"the body has the length {length[:40]!r}")
            self._left = int(only)
            self._state = _SIZED
        else:
            self._keeps_alive = False
            self._state = _UNTIL_CLOSED

    def _add(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._buffered += len(piece)

    def _end(self) -> None:
        self._state = _OVER
        self._stop_watch()

    def _fail(self, fault: ProviderFault) -> None:
        if self._failure is None:
            self._failure = fault
        self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # --- silence ---

    def _check_silence(self) -> None:
        """Fail if nothing has come for too long, else look again when that could be so: no timer is set per chunk."""
        left_s = self._heard_at_s + self._idle_s - self._loop.time()
        if self._is_paused:
            # It is we who do not read.
            left_s = self._idle_s
        if left_s > 0:
            self._silence = self._loop.call_later(left_s, self._check_silence)
            return
        self._fail(ProviderFault.timed_out(f"silent for {self._idle_s:g} s"))
        self.abort()

    def _stop_watch(self) -> None:
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None
