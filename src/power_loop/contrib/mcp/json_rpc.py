"""Speaks JSON-RPC over a channel, from either end: requests with their answers, progress and cancellation."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, Protocol

from power_loop import PowerLoopError
from power_loop.contrib.mcp.source import OnProgress
from power_loop.errors import MCPConnectionError, MCPError

METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
#: How long somebody who goes away waits for what is still to be said.
_LAST_WORD_S = 1.0
# Requests of the other side that are worked on at once.
MAX_SERVED = 1_000

Params = Mapping[str, Any]
Answer = Callable[[str, Params, "Caller"], Awaitable[Any]]
Notice = Callable[[str, Params], None]

_log = logging.getLogger("power_loop")


class Channel(Protocol):
    """Is what carries messages; one task at a time receives."""

    async def send(self, message: dict[str, Any]) -> None:
        """Carry a message over. Raises `mcp.connection`."""
        ...

    async def receive(self) -> dict[str, Any] | None:
        """Return the next message, None at the end of all of them."""
        ...

    async def aclose(self) -> None:
        """Let go of everything."""
        ...

    async def describe_end(self) -> str:
        """Say, as far as it is known, why there are no more messages."""
        ...


class Caller:
    """Is who asked for what is being answered: it may be told how far that is."""

    def __init__(self, peer: Peer, params: Params) -> None:
        meta = params.get("_meta")
        self._token = meta.get("progressToken") if isinstance(meta, Mapping) else None
        self._peer = peer
        self._done = 0

    async def tell(self, message: str) -> None:
        """Tell it, if it wants to know. Raises `mcp.connection`."""
        if self._token is not None:
            self._done += 1
            params = {"progressToken": self._token, "progress": self._done, "message": message}
            await self._peer.notify("notifications/progress", params)


class Peer:
    """Is our end of a connection. One task of its own receives; when the channel ends, every request fails."""

    def __init__(self, channel: Channel, *, answer: Answer | None = None, notice: Notice | None = None) -> None:
        self._channel = channel
        self._answer = answer
        self._notice = notice
        self._ids = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._progress: dict[int, OnProgress] = {}
        self._served: dict[Any, asyncio.Task[None]] = {}
        self._end: MCPConnectionError | None = None
        self._task = asyncio.create_task(self._receive(), name="power-loop-mcp")

    @property
    def is_open(self) -> bool:
        """True until the channel has ended."""
        return self._end is None

    async def request(
        self,
        method: str,
        params: Params | None = None,
        *,
        timeout_s: float | None = None,
        on_progress: OnProgress | None = None,
    ) -> Any:
        """Ask, and return the result. Whoever is cancelled here, or waits too long, cancels the request.

        Raises `mcp.failed` for an error of the other side, `mcp.connection` when it is lost.
        """
        if self._end is not None:
            raise MCPConnectionError(self._end.message)
        number = next(self._ids)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._asked[number] = future
        given = dict(params or {})
        if on_progress is not None:
            self._progress[number] = on_progress
            given["_meta"] = {"progressToken": number}

        async def ask() -> Any:
            await self._channel.send({"jsonrpc": "2.0", "id": number, "method": method, "params": given})
            return await future

        try:
            return await asyncio.wait_for(ask(), timeout_s)
        except asyncio.TimeoutError:
            await self._cancel(number, "timeout")
            raise MCPError(f"the server did not answer {method!r} within {timeout_s} seconds") from None
        except asyncio.CancelledError:
            await self._cancel(number, "cancelled")
            raise
        finally:
            self._asked.pop(number, None)
            self._progress.pop(number, None)
            if future.done() and not future.cancelled():
                future.exception()

    async def notify(self, method: str, params: Params | None = None) -> None:
        """Tell, without an answer. Raises `mcp.connection`."""
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
        await self._channel.send(message if params is None else {**message, "params": dict(params)})

    async def wait_closed(self) -> None:
        """Return when the other side is gone and nothing of its requests is worked on; what it asked last has a moment
        to be answered."""
        await asyncio.wait({self._task})
        if self._served:
            await asyncio.wait(list(self._served.values()), timeout=_LAST_WORD_S)
        await self._end_served()

    async def aclose(self) -> None:
        """End it from this side."""
        self._task.cancel()
        try:
            await asyncio.wait({self._task})
            await self._end_served()
        finally:
            await self._channel.aclose()

    async def _cancel(self, number: int, reason: str) -> None:
        if self._end is None:
            told = self.notify("notifications/cancelled", {"requestId": number, "reason": reason})
            with contextlib.suppress(MCPError, asyncio.TimeoutError):
                await asyncio.shield(asyncio.wait_for(told, _LAST_WORD_S))

    async def _receive(self) -> None:
        why = "the connection to the server was closed"
        try:
            while (message := await self._channel.receive()) is not None:
                self._take(message)
            why = await self._channel.describe_end()
        except PowerLoopError as error:
            why = error.message
        finally:
            self._end = MCPConnectionError(why)
            for future in self._asked.values():
                if not future.done():
                    future.set_exception(MCPConnectionError(why, may_have_run=True))

    def _take(self, message: dict[str, Any]) -> None:
        """Do what a message says; one that makes no sense is passed over."""
        method, number = message.get("method"), message.get("id")
        params = message.get("params")
        known = params if isinstance(params, dict) else {}
        if isinstance(method, str) and isinstance(number, (str, int)):
            self._serve(number, method, known)
        elif isinstance(method, str):
            self._hear(method, known)
        elif isinstance(number, int) and not isinstance(number, bool):
            self._settle(number, message)

    def _settle(self, number: int, message: dict[str, Any]) -> None:
        # The second answer to a request finds nobody who waits.
        future = self._asked.get(number)
        if future is None or future.done():
            return
        error = message.get("error")
        if isinstance(error, dict):
            code = error.get("code")
            rpc_code = code if isinstance(code, int) else None
            future.set_exception(
                MCPError(f"the server answered with an error: {error.get('message')!s:.2000}", rpc_code=rpc_code)
            )
        elif "result" in message:
            future.set_result(message["result"])
        else:
            future.set_exception(MCPError("the server's answer has neither a result nor an error"))

    def _hear(self, method: str, params: Params) -> None:
        if method == "notifications/progress":
            token, done = params.get("progressToken"), params.get("progress")
            listener = self._progress.get(token) if isinstance(token, int) else None
            if listener is not None and isinstance(done, (int, float)):
                total, text = params.get("total"), params.get("message")
                with _outlived("what listens to the progress of an MCP call"):
                    known = float(total) if isinstance(total, (int, float)) else None
                    listener(float(done), known, text if isinstance(text, str) else None)
        elif method == "notifications/cancelled":
            number = params.get("requestId")
            task = self._served.get(number) if isinstance(number, (str, int)) else None
            if task is not None:
                task.cancel()
        elif self._notice is not None:
            with _outlived("what listens to an MCP server"):
                self._notice(method, params)

    def _serve(self, number: str | int, method: str, params: Params) -> None:
        if number in self._served or len(self._served) >= MAX_SERVED:
            return
        task = asyncio.create_task(self._answered(number, method, params))
        self._served[number] = task
        task.add_done_callback(lambda _: self._served.pop(number, None))

    async def _answered(self, number: str | int, method: str, params: Params) -> None:
        try:
            if method == "ping":
                answer: dict[str, Any] = {"result": {}}
            elif self._answer is None:
                raise MCPError(f"{method!r} is nothing that this side does", rpc_code=METHOD_NOT_FOUND)
            else:
                answer = {"result": await self._answer(method, params, Caller(self, params))}
        except MCPError as error:
            answer = {"error": {"code": error.rpc_code or INTERNAL_ERROR, "message": error.message}}
        except Exception:  # a request without an answer is waited for without an end
            _log.exception("a request of %r failed", method)
            answer = {"error": {"code": INTERNAL_ERROR, "message": "the request failed: the server's log says why"}}
        with contextlib.suppress(MCPError):
            await self._channel.send({"jsonrpc": "2.0", "id": number, **answer})

    async def _end_served(self) -> None:
        tasks = list(self._served.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


@contextlib.contextmanager
def _outlived(what: str) -> Iterator[None]:
    """Keep what a listener raises, which may be an application's own, from ending the connection."""
    try:
        yield
    except Exception:
        _log.exception("%s failed", what)
