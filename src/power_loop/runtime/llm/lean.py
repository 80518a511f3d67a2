"""The lean carrier: one kept-alive connection a call, by the standard library alone."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Mapping
from functools import cache
from urllib.parse import quote, urlsplit

from power_loop.runtime.llm.carrier import Connections, Endpoint, Exchange
from power_loop.runtime.llm.deadline import Deadline
from power_loop.runtime.llm.failures import ProviderFault
from power_loop.runtime.llm.http1 import HttpConnection
from power_loop.runtime.llm.proxy import Proxy, proxy_of

# Longer than the pauses within a turn, shorter than the idle limit of common proxies (60 s).
_KEEP_ALIVE_S = 30.0
# Where a host has several addresses, the next one is tried beside the first after this long (RFC 8305).
_NEXT_ADDRESS_S = 0.25
# What may stand in a path as it is; everything else is escaped.
_PATH_CHARS = "/%:@!$&'()*+,;=~"


class LeanCarrier:
    """Carries by itself."""

    name = "lean"

    async def connect(self, endpoint: Endpoint) -> Connections:
        """Return connections for the running event loop."""
        return _LeanConnections(endpoint)


class _LeanConnections:
    """Is the open connections to one endpoint: those that rest, the youngest last, and those in use by exchanges.

    There is no limit to their number: how many calls there are at once is the caller's to decide.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        target = urlsplit(endpoint.url)
        self._endpoint = endpoint
        self._loop = asyncio.get_running_loop()
        self._host = target.hostname or ""
        self._port = target.port or (443 if target.scheme == "https" else 80)
        self._is_tls = target.scheme == "https"
        self._proxy = proxy_of(target, os.environ)
        self._head = self._request_head(quote(target.path, safe=_PATH_CHARS))
        self._resting: list[tuple[HttpConnection, float]] = []
        self._opening: set[asyncio.Task[HttpConnection]] = set()
        self._sweep: asyncio.TimerHandle | None = None
        self._is_closed = False

    async def post(self, body: bytes) -> Exchange:
        connection = await self._rested() or await self._opened()
        try:
            await connection.send(self._head + b"%d\r\n\r\n" % len(body), body)
        except BaseException:
            connection.abort()
            raise
        return _LeanExchange(self, connection)

    def give_back(self, connection: HttpConnection) -> None:
        """Take a connection back whose answer was read to its end, or close it."""
        if self._is_closed or not connection.is_open:
            connection.abort()
            return
        self._resting.append((connection, self._loop.time()))
        if self._sweep is None:
            self._sweep = self._loop.call_later(_KEEP_ALIVE_S, self._close_old)

    async def aclose(self) -> None:
        self._is_closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        for connection, _ in self._resting:
            connection.abort()
        self._resting.clear()
        for opening in self._opening:
            opening.cancel()
        if self._opening:
            await asyncio.wait(self._opening)
        # The sockets are closed by callbacks of the next rounds.
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    def abandon(self) -> None:
        transports = [connection.transport for connection, _ in self._resting]
        self._is_closed = True
        self._resting.clear()
        for transport in transports:
            # No callback of the loop will ever close the socket, and no public method of a transport can do without it.
            under = getattr(getattr(transport, "_ssl_protocol", None), "_transport", transport)
            finish = getattr(under, "_call_connection_lost", None)
            if finish is not None and getattr(under, "_sock", None) is not None:
                finish(None)

    # --- connections ---

    async def _rested(self) -> HttpConnection | None:
        """The youngest connection that is still good."""
        if not self._resting:
            return None
        # An end that the peer has sent may wait unread in the socket. Two rounds of the loop read it, so that a dead
        # connection is not taken for this request; both cost about a twentieth of a call.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        while self._resting:
            connection, _ = self._resting.pop()
            if connection.is_open:
                return connection
        return None

    def _close_old(self) -> None:
        """Close what has rested too long; look again when the next one will have."""
        self._sweep = None
        until_s = self._loop.time() - _KEEP_ALIVE_S
        while self._resting and (self._resting[0][1] <= until_s or not self._resting[0][0].is_open):
            self._resting.pop(0)[0].abort()
        if self._resting:
            self._sweep = self._loop.call_at(self._resting[0][1] + _KEEP_ALIVE_S, self._close_old)

    async def _opened(self) -> HttpConnection:
        """A new connection. If the caller is cancelled meanwhile it is still opened, within its time, for the next one.

        asyncio loses the socket of a race between addresses that is cancelled as it ends, so none is.
        """
        opening = self._loop.create_task(self._connect())
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(self._keep)
            raise

    def _keep(self, opening: asyncio.Task[HttpConnection]) -> None:
        if not opening.cancelled() and opening.exception() is None:
            self.give_back(opening.result())

    async def _connect(self) -> HttpConnection:
        limit_s = self._endpoint.connect_timeout_s
        try:
            with Deadline(limit_s):
                if self._proxy is None:
                    return await self._open(self._host, self._port, tls=_tls() if self._is_tls else None)
                if not self._is_tls:
                    return await self._open(self._proxy.host, self._proxy.port, tls=None)
                return await self._tunnel(self._proxy)
        except TimeoutError as exc:
            raise ProviderFault.timed_out(f"no connection within {limit_s:g} s") from exc
        except (OSError, UnicodeError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc) or type(exc).__name__
            raise ProviderFault.cut(f"the connection failed: {reason}") from exc

    async def _open(self, host: str, port: int, *, tls: ssl.SSLContext | None) -> HttpConnection:
        idle_s = self._endpoint.idle_timeout_s
        _, connection = await self._loop.create_connection(
            lambda: HttpConnection(idle_s), host, port, ssl=tls, happy_eyeballs_delay=_NEXT_ADDRESS_S
        )
        return connection

    async def _tunnel(self, proxy: Proxy) -> HttpConnection:
        """A connection through a proxy that sees nothing but where it leads."""
        outer = await self._open(proxy.host, proxy.port, tls=None)
        try:
            where = f"{_bracketed(self._host)}:{self._port}"
            head = f"CONNECT {where} HTTP/1.1\r\nHost: {where}\r\n{_proxy_header(proxy)}\r\n"
            await outer.send(head.encode("latin-1"), b"")
            if not 200 <= outer.status < 300:
                raise ProviderFault.cut(f"the proxy {proxy.host!r} answers {outer.status}: check the proxy settings")
            connection = HttpConnection(self._endpoint.idle_timeout_s)
            transport = await self._loop.start_tls(outer.hand_over(), connection, _tls(), server_hostname=self._host)
            if transport is None:
                raise ProviderFault.cut("the connection ended while it was being secured")
            connection.connection_made(transport)
        except BaseException:
            outer.abort()
            raise
        return connection

    def _request_head(self, path: str) -> bytes:
        """The head of every request, up to the length of its body."""
        default_port = 443 if self._is_tls else 80
        host = _bracketed(self._host) + (f":{self._port}" if self._port != default_port else "")
        headers = {
            "Host": host,
            "Content-Type": "application/json",
            "Accept": "text/event-stream, application/json",
            "Accept-Encoding": "identity",
        }
        given = dict(self._endpoint.headers)
        own = {name: value for name, value in headers.items() if name.lower() not in map(str.lower, given)}
        lines = "".join(f"{name}: {value}\r\n" for name, value in {**own, **given}.items())
        where = path
        if self._proxy is not None and not self._is_tls:
            where = f"http://{host}{path}"
            lines += _proxy_header(self._proxy)
        return f"POST {where} HTTP/1.1\r\n{lines}Content-Length: ".encode("latin-1")


class _LeanExchange:
    """Is the answer that one connection brings."""

    __slots__ = ("_connection", "_connections", "headers", "status")

    def __init__(self, connections: _LeanConnections, connection: HttpConnection) -> None:
        self._connections = connections
        self._connection = connection
        self.status = connection.status
        self.headers: Mapping[str, str] = connection.headers

    @property
    def is_over(self) -> bool:
        return self._connection.is_over

    async def read(self) -> bytes:
        return await self._connection.read()

    async def close(self) -> None:
        if self._connection.is_over:
            self._connections.give_back(self._connection)
        else:
            self._connection.abort()


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host.encode("idna").decode("ascii") if not host.isascii() else host


def _proxy_header(proxy: Proxy) -> str:
    return "" if proxy.authorization is None else f"Proxy-Authorization: {proxy.authorization}\r\n"


@cache
def _tls() -> ssl.SSLContext:
    """What the system trusts; reading that takes milliseconds, so it is done once, for the first secure connection."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
