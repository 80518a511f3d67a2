"""Is a client of one MCP server: it connects, connects again where nothing is repeated by that, and asks."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, TypeVar

from power_loop import __version__
from power_loop.contrib.mcp.json_rpc import Channel, Peer
from power_loop.contrib.mcp.source import MCPResult, MCPTool, OnProgress
from power_loop.errors import MCPConnectionError, MCPError

#: The newest version of the protocol that begins with a handshake; what a server answers may be an older one.
PROTOCOL_VERSION = "2025-11-25"
_KNOWN_VERSIONS = ("2024-11-05", "2025-03-26", "2025-06-18", PROTOCOL_VERSION)
DEFAULT_TIMEOUT_S = 60.0
_CHANGED = "notifications/tools/list_changed"

T = TypeVar("T")
C = TypeVar("C", bound="MCPClient")


class MCPClient:
    """Is what `StdioMCPClient` and `HttpMCPClient` have in common. It belongs to the event loop in which it was
    connected, and may be asked from any.

    A server that is lost is connected to again by the next request. A request that was under way then is not repeated:
    it fails with `mcp.connection`, whose `may_have_run` says so. `timeout_s` is how long an answer may take that is
    none to a tool call: these have the time that their tool has.
    """

    #: How many tools, resources or prompts are taken of a server that never stops to list.
    MAX_LISTED = 10_000

    def __init__(self, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._peer: Peer | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connecting: asyncio.Lock | None = None
        self._is_closed = False
        #: What the server said of itself: `protocolVersion`, `serverInfo`, `capabilities`, `instructions`.
        self.server: Mapping[str, Any] = {}
        #: Is called when the server announces other tools, and when it was connected to again.
        self.on_tools_changed: Callable[[], None] | None = None

    async def connect(self: C) -> C:
        """Connect, and return the client. Raises `mcp.connection`, `mcp.failed`, `config.missing_extra`."""
        self._loop = asyncio.get_running_loop()
        self._connecting = asyncio.Lock()
        self._is_closed = False
        await self._connected()
        return self

    async def aclose(self) -> None:
        """Disconnect. Of a server that was started nothing is alive any more."""
        await self._here(self._aclose)

    async def __aenter__(self: C) -> C:
        return await self.connect() if self._peer is None else self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def list_tools(self) -> list[MCPTool]:
        """Return the server's tools. Raises `mcp.connection`, `mcp.failed`."""
        return [MCPTool.of(one) for one in await self._list("tools")]

    async def call_tool(
        self, name: str, arguments: Mapping[str, Any] | None = None, *, on_progress: OnProgress | None = None
    ) -> MCPResult:
        """Call a tool, once at most, and return what it gave; cancelled, the server is told.

        Raises `mcp.connection`, `mcp.failed` where the server does not say that the tool failed but that the call does
        not work.
        """
        params = {"name": name, "arguments": dict(arguments or {})}
        return MCPResult.of(await self._ask("tools/call", params, timeout_s=None, on_progress=on_progress))

    async def list_resources(self) -> list[dict[str, Any]]:
        """Return the server's resources as the protocol has them. Raises `mcp.connection`, `mcp.failed`."""
        return await self._list("resources")

    async def read_resource(self, uri: str) -> list[dict[str, Any]]:
        """Return the contents of a resource. Raises `mcp.connection`, `mcp.failed`."""
        return _objects(await self._ask("resources/read", {"uri": uri}), "contents")

    async def list_prompts(self) -> list[dict[str, Any]]:
        """Return the server's prompts as the protocol has them. Raises `mcp.connection`, `mcp.failed`."""
        return await self._list("prompts")

    async def get_prompt(self, name: str, arguments: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        """Return the messages of a prompt. Raises `mcp.connection`, `mcp.failed`."""
        return _objects(await self._ask("prompts/get", {"name": name, "arguments": dict(arguments or {})}), "messages")

    async def open_channel(self) -> Channel:
        """Return a new connection. Raises `mcp.connection`, `config.missing_extra`."""
        raise NotImplementedError

    def note_version(self, channel: Channel, version: str) -> None:
        """Tell a channel which version was agreed upon."""

    # ---- inside ----

    async def _list(self, kind: str) -> list[dict[str, Any]]:
        if kind not in self._capabilities():
            return []
        found: list[dict[str, Any]] = []
        cursor: Any = None
        taken = 0
        while taken <= self.MAX_LISTED:
            page = await self._ask(f"{kind}/list", {} if cursor is None else {"cursor": cursor})
            found += (listed := _objects(page, kind))
            # Pages without anything have to come to an end as well.
            taken += max(len(listed), 1)
            before, cursor = cursor, page.get("nextCursor")
            if not isinstance(cursor, str) or cursor == before:
                return found
        raise MCPError(f"the server lists more than {self.MAX_LISTED} {kind}")

    def _capabilities(self) -> Mapping[str, Any]:
        told = self.server.get("capabilities")
        return told if isinstance(told, dict) else {}

    async def _ask(
        self, method: str, params: Mapping[str, Any], *, timeout_s: float | None = -1.0, on_progress: Any = None
    ) -> Any:
        limit_s = self._timeout_s if timeout_s == -1.0 else timeout_s

        async def ask() -> Any:
            peer = await self._connected()
            try:
                return await peer.request(method, params, timeout_s=limit_s, on_progress=on_progress)
            except MCPConnectionError as error:
                if error.may_have_run:
                    raise
            # The request was not taken: the connection was dead, or the server knows it no more.
            await peer.aclose()
            peer = await self._connected()
            return await peer.request(method, params, timeout_s=limit_s, on_progress=on_progress)

        return await self._here(ask)

    async def _here(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do something in the event loop to which the connection belongs."""
        loop = self._loop
        if loop is None:
            raise MCPConnectionError("the client is not connected: await client.connect() first")
        if loop is asyncio.get_running_loop():
            return await work()
        if loop.is_closed():
            raise MCPConnectionError("the event loop in which the client was connected is closed: connect() again")

        async def there() -> T:
            return await work()

        future: concurrent.futures.Future[T] = asyncio.run_coroutine_threadsafe(there(), loop)
        return await asyncio.wrap_future(future)

    async def _connected(self) -> Peer:
        lock = self._connecting
        if lock is None or self._is_closed:
            raise MCPConnectionError("the client is closed: await client.connect() to use it again")
        async with lock:
            peer = self._peer
            if peer is not None and peer.is_open:
                return peer
            if peer is not None:
                await peer.aclose()
            self._peer = None
            self._peer = await self._shake_hands()
            if peer is not None:
                self._tell_changed()
            return self._peer

    async def _shake_hands(self) -> Peer:
        channel = await self.open_channel()
        peer = Peer(channel, notice=self._notice)
        try:
            params = {
                "protocolVersion": PROTOCOL_VERSION,
                "capabilities": {},
                "clientInfo": {"name": "power-loop", "version": __version__},
            }
            told = await peer.request("initialize", params, timeout_s=self._timeout_s)
            version = told.get("protocolVersion") if isinstance(told, dict) else None
            if version not in _KNOWN_VERSIONS:
                raise MCPError(
                    f"the server speaks version {version!r:.50} of the protocol: power-loop speaks"
                    f" {', '.join(_KNOWN_VERSIONS)}"
                )
            self.note_version(channel, version)
            await peer.notify("notifications/initialized")
        except MCPConnectionError as error:
            await peer.aclose()
            # Nothing but a handshake can have run.
            raise MCPConnectionError(error.message) from error
        except BaseException:
            await peer.aclose()
            raise
        self.server = told
        return peer

    async def _aclose(self) -> None:
        self._is_closed = True
        lock = self._connecting
        if lock is None:
            return
        async with lock:
            peer, self._peer = self._peer, None
            if peer is not None:
                await peer.aclose()

    def _notice(self, method: str, params: Mapping[str, Any]) -> None:
        if method == _CHANGED:
            self._tell_changed()

    def _tell_changed(self) -> None:
        if self.on_tools_changed is not None:
            self.on_tools_changed()


def _objects(page: Any, name: str) -> list[dict[str, Any]]:
    found = page.get(name) if isinstance(page, dict) else None
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise MCPError(f"the server's answer holds no {name}: {page!r:.200}")
    return found
