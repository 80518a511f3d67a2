"""The HTTP connection: the same answer however its bytes are cut, and nothing that a hostile peer says is believed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from power_loop.contracts.errors import LLMConnectionError, LLMProtocolError, LLMTimeoutError
from power_loop.runtime.llm.failures import ProviderFault
from power_loop.runtime.llm.http1 import HttpConnection


class MemoryTransport(asyncio.Transport):
    """Keeps what is written; the test plays the peer."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self.written = b""
        self.is_paused = False
        self._protocol = protocol
        self._is_closing = False

    def write(self, data: Any) -> None:
        self.written += data

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def is_closing(self) -> bool:
        return self._is_closing

    def abort(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    close = abort


def opened(idle_s: float = 60.0) -> tuple[HttpConnection, MemoryTransport]:
    connection = HttpConnection(idle_s)
    transport = MemoryTransport(connection)
    connection.connection_made(transport)
    return connection, transport


async def exchange(
    answer: bytes, sizes: list[int] | None = None, *, ends: bool = True
) -> tuple[int, dict[str, str], bytes, bool]:
    """What an answer is read as, when it comes in pieces of these sizes and the peer then closes."""
    connection, transport = opened()

    async def speak() -> None:
        at = 0
        for size in sizes or [len(answer)]:
            if transport.is_closing() or at >= len(answer) > 0:
                break
            connection.data_received(answer[at : at + size])
            at += size
            await asyncio.sleep(0)
        if answer[at:] and not transport.is_closing():
            connection.data_received(answer[at:])
        await asyncio.sleep(0)
        if ends:
            transport.close()

    peer = asyncio.ensure_future(speak())
    try:
        await connection.send(b"POST / HTTP/1.1\r\n\r\n", b"")
        body = b""
        while piece := await connection.read():
            body += piece
        status, headers = connection.status, dict(connection.headers)
    finally:
        await peer
    return status, headers, body, connection.is_open


def run(*args: Any, **options: Any) -> Any:
    """What an exchange gives, or the kind of error that its fault becomes."""

    async def inner() -> Any:
        try:
            return await exchange(*args, **options)
        except ProviderFault as fault:
            return fault.kind

    return asyncio.run(inner())


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "status", "body", "stays_open"),
    [
        (OK + b"Content-Length: 5\r\n\r\nhello", 200, b"hello", True),
        (OK + b"content-length:5\r\n\r\nhello", 200, b"hello", True),
        (OK + b"Content-Length: 5, 5\r\n\r\nhello", 200, b"hello", True),
        (OK + b"Content-Length: 0\r\n\r\n", 200, b"", True),
        (OK + b"Content-Length: 5\r\nConnection: close\r\n\r\nhello", 200, b"hello", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, b"hello", False),
        (b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 5\r\n\r\nhello", 200, b"hello", True),
        (OK + b"\r\nuntil the end", 200, b"until the end", False),
        (CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", 200, b"hello", True),
        (CHUNKED + b"5;a=b\r\nhello\r\nA \r\n0123456789\r\n0\r\nX-Trailer: 1\r\n\r\n", 200, b"hello0123456789", True),
        (CHUNKED + b"00005\r\nhello\r\n000\r\n\r\n", 200, b"hello", True),
        (OK + b"Transfer-Encoding: Chunked\r\nContent-Length: 3\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 200, b"hello", False),
        (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n"
            + OK
            + b"Content-Length: 1\r\n\r\nx",
            200,
            b"x",
            True,
        ),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", True),
        (b"HTTP/1.1 429\r\nContent-Length: 2\r\n\r\n{}", 429, b"{}", True),
        # More than was announced: it is not read, and nothing follows on this connection.
        (OK + b"Content-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\n\r\n", 200, b"hello", False),
        (CHUNKED + b"0\r\n\r\nmore", 200, b"", False),
    ],
)
def test_an_answer_is_read_however_it_is_cut(answer: bytes, status: int, body: bytes, stays_open: bool) -> None:
    for sizes in (None, [1] * len(answer), [7] * (len(answer) // 7)):
        found = run(answer, sizes, ends=not stays_open)
        assert (found[0], found[2], found[3]) == (status, body, stays_open)


def test_headers_are_found_by_small_names_and_joined() -> None:
    _, headers, _, _ = run(OK + b"X-Request-ID:  r1 \r\nSet-Cookie: a\r\nset-cookie: \xe9\r\nContent-Length: 0\r\n\r\n")
    assert headers == {"x-request-id": "r1", "set-cookie": "a, é", "content-length": "0"}


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"<html>",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 999 Odd\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        OK + b"no colon\r\n\r\n",
        OK + b": no name\r\n\r\n",
        OK + b"A : blank before the colon\r\n\r\n",
        OK + b"A: 1\r\n folded\r\n\r\n",
        OK + b"A: " + b"x" * 70_000,
        OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        OK + b"Content-Length: -5\r\n\r\n",
        OK + b"Content-Length: +5\r\n\r\nhello",
        OK + b"Content-Length: 0x5\r\n\r\nhello",
        OK + "Content-Length: ٥\r\n\r\nhello".encode(),
        OK + b"Content-Length: 99999999999999999999\r\n\r\n",
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        CHUNKED + b"-5\r\nhello\r\n",
        CHUNKED + b"0x5\r\nhello\r\n",
        CHUNKED + b"5_0\r\nhello\r\n",
        CHUNKED + b" 5\r\nhello\r\n",
        CHUNKED + b"g\r\nhello\r\n",
        CHUNKED + b"\r\nhello\r\n",
        CHUNKED + b"5\r\nhello!\r\n",
        CHUNKED + b"5\r\nhelloXX0\r\n\r\n",
        CHUNKED + b"f" * 20 + b"\r\n",
        CHUNKED + b"5;" + b"x" * 5000,
    ],
)
def test_an_answer_that_breaks_the_rules_is_refused(answer: bytes) -> None:
    for sizes in (None, [1] * len(answer)) if len(answer) < 6000 else (None,):
        assert run(answer, sizes) is LLMProtocolError


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        OK + b"Content-Length: 5\r\n\r\nhell",
        CHUNKED,
        CHUNKED + b"5\r\nhel",
        CHUNKED + b"5\r\nhello",
        CHUNKED + b"5\r\nhello\r\n",
        CHUNKED + b"5\r\nhello\r\n0\r\n",
    ],
)
def test_an_answer_that_ends_too_early_is_cut(answer: bytes) -> None:
    assert run(answer) is LLMConnectionError


CHUNKS = st.lists(st.binary(min_size=1, max_size=40), max_size=8)


@settings(max_examples=100, deadline=None)
@given(CHUNKS, st.lists(st.integers(1, 30), max_size=40), st.booleans())
def test_a_chunked_body_is_what_was_sent(chunks: list[bytes], sizes: list[int], upper: bool) -> None:
    template = b"%X\r\n%b\r\n" if upper else b"%x;x=1\r\n%b\r\n"
    answer = CHUNKED + b"".join(template % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    assert run(answer, sizes, ends=False)[2:] == (b"".join(chunks), True)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60), st.lists(st.integers(1, 9), max_size=10), st.sampled_from([b"", OK, CHUNKED]))
def test_any_bytes_are_an_answer_or_a_fault(noise: bytes, sizes: list[int], before: bytes) -> None:
    whole, cut = run(before + noise), run(before + noise, sizes)
    assert whole == cut
    assert isinstance(whole, tuple) or whole in (LLMProtocolError, LLMConnectionError)


# --- the life of a connection ---


async def test_one_request_follows_the_other_on_a_connection() -> None:
    connection, transport = opened()
    for number in range(3):
        sending = asyncio.ensure_future(connection.send(b"POST %d\r\n\r\n" % number, b"body"))
        await asyncio.sleep(0)
        assert transport.written.endswith(b"POST %d\r\n\r\nbody" % number)
        connection.data_received(OK + b"Content-Length: 1\r\n\r\n%d" % number)
        await sending
        assert await connection.read() == b"%d" % number
        assert await connection.read() == b""
        assert connection.is_open


async def test_a_peer_that_speaks_without_being_asked_is_not_asked_again() -> None:
    connection, transport = opened()
    connection.data_received(OK + b"Content-Length: 0\r\n\r\n")
    assert not connection.is_open
    assert transport.is_closing()


async def test_a_peer_that_closes_before_it_is_asked_is_a_cut_connection() -> None:
    connection, transport = opened()
    transport.close()
    for _ in range(2):
        with pytest.raises(ProviderFault, match="before the request was sent"):
            await connection.send(b"POST / HTTP/1.1\r\n\r\n", b"")
        await asyncio.sleep(0)
    assert not connection.is_open
    assert transport.written == b""


async def test_silence_is_a_timeout_and_closes_the_connection() -> None:
    connection, transport = opened(0.01)
    with pytest.raises(ProviderFault) as caught:
        await connection.send(b"POST / HTTP/1.1\r\n\r\n", b"")
    assert caught.value.kind is LLMTimeoutError
    assert transport.is_closing()


async def test_what_was_heard_before_a_failure_is_still_read() -> None:
    connection, _ = opened()
    sending = asyncio.ensure_future(connection.send(b"POST / HTTP/1.1\r\n\r\n", b""))
    await asyncio.sleep(0)
    connection.data_received(CHUNKED + b"5\r\nhello\r\n")
    await sending
    connection.data_received(b"zzz\r\n")
    assert await connection.read() == b"hello"
    with pytest.raises(ProviderFault):
        await connection.read()
    with pytest.raises(ProviderFault):
        await connection.read()


async def test_a_peer_that_sends_faster_than_we_read_has_to_wait() -> None:
    connection, transport = opened()
    sending = asyncio.ensure_future(connection.send(b"POST / HTTP/1.1\r\n\r\n", b""))
    await asyncio.sleep(0)
    connection.data_received(OK + b"Content-Length: 3000000\r\n\r\n")
    await sending
    connection.data_received(bytes(2_000_000))
    assert transport.is_paused
    assert len(await connection.read()) == 2_000_000
    assert not transport.is_paused
    connection.data_received(bytes(1_000_000))
    assert len(await connection.read()) == 1_000_000
    assert connection.is_over
