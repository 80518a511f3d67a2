"""The lean carrier: HTTP by aiohttp, with nothing of it that a model call does not need."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import cache
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

from power_loop.contracts.errors import MissingExtraError
from power_loop.runtime.llm.carrier import Connections, Endpoint, Exchange
from power_loop.runtime.llm.failures import ProviderFault

# Longer than the pauses within a turn, shorter than the idle limit of common proxies (60 s).
_KEEP_ALIVE_S = 30.0
_READ_BUFFER_BYTES = 256 * 1024


class LeanCarrier:
    """Carries by aiohttp."""

    name = "lean"

    def connect(self, endpoint: Endpoint) -> Connections:
        """Return connections for the running event loop."""
        return _LeanConnections(endpoint)


@cache
def _library() -> SimpleNamespace:
    """The parts of aiohttp that are used, imported with the first connection."""
    try:
        # Loaded by aiohttp anyway; alone it would be a tenth of our own start.
        from urllib import request as urllib_request

        import aiohttp
        import yarl
        from multidict import CIMultiDict
    except ImportError as exc:
        raise MissingExtraError("carrier 'lean' needs aiohttp: pip install 'power-loop[http]'", extra="http") from exc

    class Body(aiohttp.payload.Payload):
        """Is a request body that is written as it is; aiohttp's own warns of every body over a megabyte."""

        def __init__(self, body: bytes) -> None:
            super().__init__(body, content_type="application/json")
            self._size = len(body)

        def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
            text: str = self._value.decode(encoding, errors)
            return text

        async def write(self, writer: Any) -> None:
            await writer.write(self._value)

        async def write_with_length(self, writer: Any, content_length: int | None) -> None:
            await writer.write(self._value if content_length is None else self._value[:content_length])

    return SimpleNamespace(aiohttp=aiohttp, url=yarl.URL, headers=CIMultiDict, body=Body, proxies=urllib_request)


class _LeanConnections:
    """Is one session of aiohttp: the kept-alive connections of an endpoint."""

    def __init__(self, endpoint: Endpoint) -> None:
        library = _library()
        aiohttp = library.aiohttp
        self._endpoint = endpoint
        self._aiohttp = aiohttp
        self._body = library.body
        self._url = library.url(endpoint.url)
        self._headers = library.headers(
            {
                **dict(endpoint.headers),
                "Content-Type": "application/json",
                "Accept": "text/event-stream, application/json",
                "Accept-Encoding": "identity",
            }
        )
        self._proxy = _proxy_of(endpoint.url, library.proxies)
        # The caller keeps the time of the whole exchange.
        self._timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=endpoint.connect_timeout_s, sock_read=endpoint.idle_timeout_s
        )
        # How many connections there may be is the caller's to decide, by how many calls it makes at once.
        self._connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_S)
        self._session = aiohttp.ClientSession(
            connector=self._connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            read_bufsize=_READ_BUFFER_BYTES,
            timeout=self._timeout,
        )

    async def post(self, body: bytes) -> Exchange:
        # An end that a server has sent may wait unread in the socket. Two rounds of the loop read it, so that a dead
        # connection is not taken for this request; they cost a tenth of a call that takes 0.2 ms.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        try:
            response = await self._session.post(
                self._url,
                data=self._body(body),
                headers=self._headers,
                allow_redirects=False,
                proxy=self._proxy,
            )
        except Exception as exc:
            raise self.fault_of(exc) from exc
        return _LeanExchange(self, response)

    def fault_of(self, exc: Exception) -> ProviderFault:
        """What an exception of aiohttp means to a model call; others are raised as they are."""
        aiohttp = self._aiohttp
        if isinstance(exc, asyncio.TimeoutError):
            if "connect" in str(exc).lower():
                return ProviderFault.timed_out(f"no connection within {self._endpoint.connect_timeout_s:g} s")
            return ProviderFault.timed_out(f"silent for {self._endpoint.idle_timeout_s:g} s")
        if isinstance(exc, (aiohttp.ClientResponseError, aiohttp.http.HttpProcessingError)):
            return ProviderFault.broken(f"the answer is no HTTP: {exc}")
        if isinstance(exc, (aiohttp.ClientError, OSError)):
            return ProviderFault.cut(f"the connection failed: {exc or type(exc).__name__}")
        raise exc

    async def aclose(self) -> None:
        await self._session.close()
        # The transports are closed by callbacks of the next rounds.
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    def abandon(self) -> None:
        transports = [
            protocol.transport
            for waiting in getattr(self._connector, "_conns", {}).values()
            for protocol, *_ in waiting
            if protocol.transport is not None
        ]
        self._session.detach()
        # Without its loop the connector has nothing to wait for: one step is all of its closing.
        closing = self._connector.close().__await__()
        next(closing, None)
        for transport in transports:
            # No callback of the loop will ever close the socket, and the transport has no public way that needs none.
            finish = getattr(transport, "_call_connection_lost", None)
            if finish is not None and getattr(transport, "_sock", None) is not None:
                finish(None)


class _LeanExchange:
    """Is one response of aiohttp."""

    __slots__ = ("_connections", "_content", "_response", "headers", "status")

    def __init__(self, connections: _LeanConnections, response: Any) -> None:
        self._connections = connections
        self._response = response
        self._content = response.content
        self.status: int = response.status
        self.headers: Mapping[str, str] = response.headers

    @property
    def is_over(self) -> bool:
        return bool(self._content.at_eof())

    async def read(self) -> bytes:
        try:
            chunk: bytes = await self._content.readany()
        except Exception as exc:
            raise self._connections.fault_of(exc) from exc
        return chunk

    async def close(self) -> None:
        # Closes the connection, unless the answer was read to its end: then it has gone back to the others already.
        self._response.close()


def _proxy_of(url: str, library: Any) -> str | None:
    """The proxy that the environment names for an address."""
    parts = urlsplit(url)
    proxies: dict[str, str] = library.getproxies()
    if not proxies or library.proxy_bypass(parts.netloc):
        return None
    return proxies.get(parts.scheme) or proxies.get("all")
