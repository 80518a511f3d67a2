"""The SDK carrier: the official clients hold the connections; messages and chunks never pass their models."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import AsyncIterator, Mapping
from contextvars import ContextVar
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from power_loop.contracts.errors import MissingExtraError
from power_loop.runtime.llm.carrier import Connections, Endpoint, Exchange
from power_loop.runtime.llm.failures import ProviderFault
from power_loop.runtime.llm.proxy import is_this_machine

# The SDKs' own switch for a response that is handed over as it streams.
_RAW_RESPONSE_HEADER = "X-Stainless-Raw-Response"
_CLIENTS = {"openai": "AsyncOpenAI", "anthropic": "AsyncAnthropic"}
# Old clients have no door for a prebuilt body: it is put into the request in their hook for prepared requests, which
# runs in our task.
_prebuilt: ContextVar[bytes] = ContextVar("power_loop_prebuilt_body")


class SdkCarrier:
    """Carries by the official client of the provider."""

    name = "sdk"

    async def connect(self, endpoint: Endpoint) -> Connections:
        """Return connections for the running event loop.

        The SDK's import takes half a second and each client reads the system's certificates: neither is the loop's to
        wait for.
        """
        return await asyncio.to_thread(_SdkConnections, endpoint)


class _ErrorResponse(Exception):  # noqa: N818 - a signal
    """Carries a response that is no success past the SDK, which would read all of its body, however long."""

    def __init__(self, response: Any, content: bytes) -> None:
        super().__init__(response.status_code)
        self.response = response
        self.content = content


# As much of an error body as is read.
_MAX_ERROR_BYTES = 64 * 1024


@cache
def _library(provider: str) -> ModuleType:
    """The SDK, imported with the first connection."""
    try:
        return import_module(provider)
    except ImportError as exc:
        raise MissingExtraError(
            f"carrier 'sdk' needs the package {provider!r}: pip install 'power-loop[{provider}]'", extra=provider
        ) from exc


def _http_library(library: ModuleType) -> ModuleType:
    """The HTTP library that an SDK stands on: it is not the same for all versions, and never imported by us."""
    client = next(one for one in library.DefaultAsyncHttpxClient.__mro__ if one.__name__ == "AsyncClient")
    return sys.modules[client.__module__.partition(".")[0]]


@cache
def _client_class(provider: str) -> tuple[type[Any], bool]:
    """The client's class, and whether its `post` takes a prebuilt body."""
    base: type[Any] = getattr(_library(provider), _CLIENTS[provider])
    if "content" in inspect.signature(base.post).parameters:
        return base, True

    class Client(base):  # type: ignore[misc]
        """Is the client with a body of our own in each request."""

        async def _prepare_request(self, request: Any) -> None:
            await super()._prepare_request(request)
            body = _prebuilt.get()
            # The HTTP library's own request of these bytes has the right kind of stream.
            model = self._client.build_request(request.method, request.url, content=body)
            request.stream = model.stream
            request.headers["Content-Length"] = str(len(body))

    return Client, False


class _SdkConnections:
    """Is one client of an SDK."""

    def __init__(self, endpoint: Endpoint) -> None:
        library = _library(endpoint.provider)
        client_class, self._takes_content = _client_class(endpoint.provider)
        self._endpoint = endpoint
        self._library = library
        self._http = _http_library(library)
        timeout = library.Timeout(
            endpoint.idle_timeout_s,
            connect=endpoint.connect_timeout_s,
        )
        # The key stands among the headers; the client only insists on having one.
        self._client = client_class(
            api_key="none",
            base_url=endpoint.url,
            max_retries=0,
            timeout=timeout,
            http_client=library.DefaultAsyncHttpxClient(
                follow_redirects=False,
                timeout=timeout,
                event_hooks={"response": [_catch_error]},
                mounts=_direct_routes(endpoint.url),
            ),
        )
        self._options = {
            "headers": {
                **_absent_headers(library),
                **dict(endpoint.headers),
                "Content-Type": "application/json",
                "Accept": "text/event-stream, application/json",
                "Accept-Encoding": "identity",
                _RAW_RESPONSE_HEADER: "stream",
            }
        }

    async def post(self, body: bytes) -> Exchange:
        try:
            if self._takes_content:
                answer = await self._client.post(
                    self._endpoint.url, cast_to=object, content=body, options=self._options
                )
            else:
                token = _prebuilt.set(body)
                try:
                    answer = await self._client.post(self._endpoint.url, cast_to=object, options=self._options)
                finally:
                    _prebuilt.reset(token)
        except Exception as exc:
            caught = exc if isinstance(exc, _ErrorResponse) else exc.__cause__
            if isinstance(caught, _ErrorResponse):
                return _ErrorExchange(caught)
            raise self.fault_of(exc) from exc
        return _SdkExchange(self, answer.http_response)

    def fault_of(self, exc: Exception) -> ProviderFault:
        """What an exception of the SDK, or of the HTTP library under it, means; others are raised as they are."""
        library, http = self._library, self._http
        # The SDK wraps what the library raised; while an answer streams, the library's own exceptions come through.
        cause = exc.__cause__ if isinstance(exc, library.APIConnectionError) and exc.__cause__ else exc
        if isinstance(cause, (http.ConnectTimeout, http.PoolTimeout)):
            return ProviderFault.timed_out(f"no connection within {self._endpoint.connect_timeout_s:g} s")
        if isinstance(cause, http.TimeoutException) or isinstance(exc, library.APITimeoutError):
            return ProviderFault.timed_out(f"silent for {self._endpoint.idle_timeout_s:g} s")
        if isinstance(exc, library.APIConnectionError) or isinstance(cause, (http.TransportError, OSError)):
            return ProviderFault.cut(f"the connection failed: {str(cause) or type(cause).__name__}")
        raise exc

    async def aclose(self) -> None:
        await self._client.close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    def abandon(self) -> None:
        # The client's sockets cannot be reached without its event loop; they close when they are collected.
        pass


def _direct_routes(url: str) -> dict[str, None]:
    """The routes that take no proxy, in the words of the HTTP library."""
    host = urlsplit(url).hostname or ""
    if not is_this_machine(host):
        return {}
    return {f"all://[{host}]" if ":" in host else f"all://{host}": None}


async def _catch_error(response: Any) -> None:
    if 200 <= response.status_code < 300:
        return
    content = b""
    try:
        async for chunk in response.aiter_raw():
            content += chunk
            if len(content) >= _MAX_ERROR_BYTES:
                break
    finally:
        await response.aclose()
    raise _ErrorResponse(response, content)


class _SdkExchange:
    """Is one streamed response of an SDK's HTTP library."""

    __slots__ = ("_chunks", "_connections", "_response", "headers", "is_over", "status")

    def __init__(self, connections: _SdkConnections, response: Any) -> None:
        self._connections = connections
        self._response = response
        self._chunks: AsyncIterator[bytes] = response.aiter_raw()
        self.status: int = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self.is_over = False

    async def read(self) -> bytes:
        try:
            async for chunk in self._chunks:
                if chunk:
                    return chunk
        except Exception as exc:
            raise self._connections.fault_of(exc) from exc
        self.is_over = True
        return b""

    async def close(self) -> None:
        await self._response.aclose()


class _ErrorExchange:
    """Is a response that was caught on its way into the SDK."""

    __slots__ = ("_content", "headers", "is_over", "status")

    def __init__(self, caught: _ErrorResponse) -> None:
        self._content = caught.content
        self.status: int = caught.response.status_code
        self.headers: Mapping[str, str] = caught.response.headers
        self.is_over = False

    async def read(self) -> bytes:
        content, self._content = self._content, b""
        self.is_over = True
        return content

    async def close(self) -> None:
        pass


def _absent_headers(library: ModuleType) -> dict[str, Any]:
    """Takes away the keys that the client adds of itself: ours stand among the endpoint's headers, or there is none."""
    return {"Authorization": library.Omit(), "X-Api-Key": library.Omit()} if hasattr(library, "Omit") else {}
