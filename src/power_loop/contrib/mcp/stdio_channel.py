"""Is a client of an MCP server that is a program of its own, spoken with over its standard input and output."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from power_loop.contrib.mcp.client import DEFAULT_TIMEOUT_S, MCPClient
from power_loop.contrib.mcp.json_lines import DEFAULT_MAX_MESSAGE_BYTES, JsonLines
from power_loop.errors import ConfigError, MCPConnectionError, ProcessError
from power_loop.sandbox import PipedProcess

#: What a server gets of this process's environment: nothing that could be a secret.
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TERM", "TMPDIR", "USER", "LOGNAME", "SHELL")
# What an error shows of what a server wrote before it ended.
_SHOWN_CHARS = 1_000
# One that reads no more is about to end, and is waited for so long.
_END_S = 10.0
# A server that was told to end by the end of its input has this long for it.
_GRACE_S = 2.0


class StdioMCPClient(MCPClient):
    """Starts an MCP server and speaks with it: `client = await StdioMCPClient("npx", ["-y", "a-server"]).connect()`.

    `env` are variables that the server gets beside `INHERITED`, `folder` is where it runs (default: this process's own
    folder). The server and all that it starts end with `aclose()`,
    or with this process. What it prints that is no message of the protocol is passed over; a message of more than
    `max_message_bytes` ends the connection.
    """

    def __init__(
        self,
        command: str,
        args: Sequence[str] = (),
        *,
        env: Mapping[str, str] | None = None,
        folder: str | os.PathLike[str] | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
    ) -> None:
        """Take what is to be started. Raises `config.invalid`."""
        words: list[Any] = [command, *args]
        if isinstance(args, str) or not all(isinstance(word, str) and "\0" not in word for word in words):
            raise ConfigError(f"command and args are {words!r:.200}: give a text and a list of texts")
        super().__init__(timeout_s=timeout_s)
        self._argv = (command, *args)
        self._env = {**{name: os.environ[name] for name in INHERITED if name in os.environ}, **(env or {})}
        self._folder = None if folder is None else os.fspath(folder)
        self._max_message_bytes = max_message_bytes

    async def open_channel(self) -> _StdioChannel:
        """Start the server. Raises `mcp.connection`."""
        try:
            process = await PipedProcess.start(self._argv, env=self._env, folder=self._folder or os.getcwd())
        except ProcessError as error:
            raise MCPConnectionError(f"the MCP server {self._argv[0]!r} was not started: {error.message}") from error
        return _StdioChannel(process, self._argv[0], max_bytes=self._max_message_bytes)

    def __repr__(self) -> str:
        return f"StdioMCPClient({self._argv[0]!r})"


class _StdioChannel:
    """Is a channel of lines."""

    def __init__(self, process: PipedProcess, name: str, *, max_bytes: int) -> None:
        self._process = process
        self._name = name
        self._max_bytes = max_bytes
        self._lines = JsonLines(max_bytes=max_bytes)
        self._read: deque[dict[str, Any]] = deque()
        self._is_over = asyncio.Event()
        self._why = ""

    async def send(self, message: dict[str, Any]) -> None:
        """Write a line."""
        try:
            await self._process.write(json.dumps(message).encode("ascii") + b"\n")
        except ProcessError as error:
            # Why it ended says more than that it reads no more.
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._is_over.wait(), _END_S)
            why = self._why or f"the MCP server {self._name!r} reads no more: {error.message}"
            raise MCPConnectionError(why) from error

    async def receive(self) -> dict[str, Any] | None:
        """Return the next message."""
        while not self._read:
            data = await self._process.read()
            if not data:
                return None
            self._read.extend(self._lines.feed(data))
            if self._lines.too_long:
                raise MCPConnectionError(
                    f"the MCP server {self._name!r} sent a message of more than {self._max_bytes} bytes: give the"
                    " client a larger max_message_bytes if that is meant"
                )
        return self._read.popleft()

    async def describe_end(self) -> str:
        """Say how the server ended, and what it wrote last."""
        self._why = await self._describe_end()
        self._is_over.set()
        return self._why

    async def aclose(self) -> None:
        """End the server."""
        with contextlib.suppress(ProcessError):
            await self._process.stop(grace_s=_GRACE_S)
        self._is_over.set()

    async def _describe_end(self) -> str:
        try:
            status = await self._process.stop(grace_s=_GRACE_S)
            # What it wrote last is there once it has ended.
            said = (await self._process.error_text()).strip()[-_SHOWN_CHARS:]
        except ProcessError as error:
            await self.aclose()
            return f"the MCP server {self._name!r} did not start: {error.message}"
        noise = f", and {self._lines.passed_over} lines that are no messages" if self._lines.passed_over else ""
        return f"the MCP server {self._name!r} ended with status {status}{noise}" + (f": {said}" if said else "")
