"""Serves a loop and its sessions as an MCP server, so that a client of the protocol can use the agent as a tool."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from power_loop import Approve, Deny, Give, PendingCall, PowerLoopError, StatefulAgentLoop, StatefulResult, __version__
from power_loop.contrib.event_values import json_value
from power_loop.contrib.mcp.client import PROTOCOL_VERSION
from power_loop.contrib.mcp.json_lines import JsonLines
from power_loop.contrib.mcp.json_rpc import INVALID_PARAMS, METHOD_NOT_FOUND, Caller, Params, Peer
from power_loop.errors import InputError, MCPConnectionError, MCPError
from power_loop.events import AgentFinished, AgentStarted, ToolCallFinished, ToolCallStarted

_VERSIONS = ("2024-11-05", "2025-03-26", "2025-06-18", PROTOCOL_VERSION)
_MAX_PAGE = 100
_CHUNK_BYTES = 65_536
_INSTRUCTIONS = (
    "An agent with durable sessions. Make a session with new_session, give it work with send, and read what it did"
    " with get_messages. Where send returns the status waiting_for_input, a call of the agent's waits: answer it with"
    " answer."
)
_STRING = {"type": "string"}
_SESSION = {"session_id": {**_STRING, "description": "The id of a session, such as new_session returns."}}


def _schema(properties: Mapping[str, Any], required: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(required),
        "additionalProperties": False,
    }


_READS = {"readOnlyHint": True, "openWorldHint": False}
_TOOLS: tuple[dict[str, Any], ...] = (
    {
        "name": "new_session",
        "description": "Make a session and return its id.",
        "inputSchema": _schema({"title": {**_STRING, "description": "What it is about, for list_sessions."}}),
        "annotations": {"readOnlyHint": False, "destructiveHint": False},
    },
    {
        "name": "send",
        "description": "Give a session an input, let the agent work, and return its answer and how it ended. Repeated"
        " with the same request_id, it returns what was recorded and does nothing again.",
        "inputSchema": _schema(
            {
                **_SESSION,
                "text": {**_STRING, "description": "The input."},
                "request_id": {**_STRING, "description": "A name for this input, to repeat it safely."},
            },
            ("session_id", "text"),
        ),
        "annotations": {"readOnlyHint": False, "openWorldHint": True},
    },
    {
        "name": "list_sessions",
        "description": "List sessions, the newest first.",
        "inputSchema": _schema(
            {"limit": {"type": "integer", "minimum": 1, "maximum": _MAX_PAGE}, "cursor": {**_STRING}}
        ),
        "annotations": _READS,
    },
    {
        "name": "get_messages",
        "description": "Return messages of a session in order, those after after_seq.",
        "inputSchema": _schema(
            {
                **_SESSION,
                "after_seq": {"type": "integer", "minimum": 0},
                "limit": {"type": "integer", "minimum": 1, "maximum": _MAX_PAGE},
            },
            ("session_id",),
        ),
        "annotations": _READS,
    },
    {
        "name": "get_pending",
        "description": "List the calls of a session that wait for an answer.",
        "inputSchema": _schema(_SESSION, ("session_id",)),
        "annotations": _READS,
    },
    {
        "name": "answer",
        "description": "Answer a call that waits, and let the agent go on: approve it, deny it with a reason, or give"
        " its result as value.",
        "inputSchema": _schema(
            {
                **_SESSION,
                "call_id": {**_STRING, "description": "The id of the call, as send and get_pending return it."},
                "decision": {"enum": ["approve", "deny", "give"]},
                "reason": {**_STRING, "description": "For deny: why, for the agent."},
                "value": {"description": "For give: the result."},
            },
            ("session_id", "call_id", "decision"),
        ),
        "annotations": {"readOnlyHint": False, "openWorldHint": True},
    },
)


class AgentMCPServer:
    """Answers the requests of MCP clients with a loop: `answer` is what a `Peer` is given."""

    def __init__(self, loop: StatefulAgentLoop, *, name: str = "power-loop") -> None:
        self._loop = loop
        self._name = name
        self._methods: dict[str, Callable[[Params, Caller], Awaitable[Any]]] = {
            "initialize": self._initialize,
            "tools/list": self._list_tools,
            "tools/call": self._call,
        }
        self._tools: dict[str, Callable[[Mapping[str, Any], Caller], Awaitable[Any]]] = {
            "new_session": self._new_session,
            "send": self._send,
            "list_sessions": self._list_sessions,
            "get_messages": self._get_messages,
            "get_pending": self._get_pending,
            "answer": self._answer_call,
        }

    async def answer(self, method: str, params: Params, caller: Caller) -> Any:
        """Return the result of a request. Raises `mcp.failed`, which is the client's to read."""
        known = self._methods.get(method)
        if known is None:
            raise MCPError(f"{method!r:.100} is nothing that this server does", rpc_code=METHOD_NOT_FOUND)
        return await known(params, caller)

    async def _initialize(self, params: Params, caller: Caller) -> Any:
        asked = params.get("protocolVersion")
        return {
            "protocolVersion": asked if asked in _VERSIONS else PROTOCOL_VERSION,
            "capabilities": {"tools": {"listChanged": False}},
            "serverInfo": {"name": self._name, "version": __version__},
            "instructions": _INSTRUCTIONS,
        }

    async def _list_tools(self, params: Params, caller: Caller) -> Any:
        return {"tools": list(_TOOLS)}

    async def _call(self, params: Params, caller: Caller) -> Any:
        name, arguments = params.get("name"), params.get("arguments", {})
        definition = next((one for one in _TOOLS if one["name"] == name), None)
        if definition is None or not isinstance(arguments, dict):
            raise MCPError(f"there is no tool {name!r:.100} with such arguments", rpc_code=INVALID_PARAMS)
        try:
            _check(definition["inputSchema"], arguments)
            value = await self._tools[definition["name"]](arguments, caller)
        except PowerLoopError as error:
            text = json.dumps({"error": error.code, "message": error.message})
            return {"content": [{"type": "text", "text": text}], "isError": True}
        return {
            "content": [{"type": "text", "text": json.dumps(value, ensure_ascii=False)}],
            "structuredContent": value,
            "isError": False,
        }

    # ---- the tools ----

    async def _new_session(self, given: Mapping[str, Any], caller: Caller) -> Any:
        title = given.get("title")
        return {"session_id": await self._loop.new_session(metadata=None if title is None else {"title": title})}

    async def _send(self, given: Mapping[str, Any], caller: Caller) -> Any:
        sid = given["session_id"]
        stream = self._loop.stream(given["text"], session_id=sid, request_id=given.get("request_id"))
        async with stream as events:
            async for event in events:
                match event.payload:
                    case ToolCallStarted(name=name):
                        await caller.tell(f"{name} runs")
                    case ToolCallFinished(name=name, state=state):
                        await caller.tell(f"{name}: {state}")
                    case AgentStarted(name=name) | AgentFinished(name=name):
                        await caller.tell(f"{event.payload.type} {name}")
                    case _:
                        pass
        return _outcome(events.result)

    async def _list_sessions(self, given: Mapping[str, Any], caller: Caller) -> Any:
        page = await self._loop.list_sessions(cursor=given.get("cursor"), limit=given.get("limit", 20))
        return {
            "sessions": [
                {
                    "session_id": one.id,
                    "state": one.state.value,
                    "sends": one.send_count,
                    "title": one.metadata.get("title"),
                    "created_at_ms": one.created_at_ms,
                }
                for one in page.items
            ],
            "cursor": page.next_cursor,
        }

    async def _get_messages(self, given: Mapping[str, Any], caller: Caller) -> Any:
        records = await self._loop.get_messages(
            given["session_id"], after_seq=given.get("after_seq", 0), limit=given.get("limit", _MAX_PAGE)
        )
        return {
            "messages": [
                {"seq": one.seq, "role": one.message.role.value, "parts": json_value(one.message.parts)}
                for one in records
            ]
        }

    async def _get_pending(self, given: Mapping[str, Any], caller: Caller) -> Any:
        return {"pending": [_pending(one) for one in await self._loop.get_pending(given["session_id"])]}

    async def _answer_call(self, given: Mapping[str, Any], caller: Caller) -> Any:
        decision = given["decision"]
        if decision == "give" and "value" not in given:
            raise InputError("decision is 'give' and there is no value: give the call's result as value")
        answer = (
            Approve()
            if decision == "approve"
            else Deny(given.get("reason", ""))
            if decision == "deny"
            else Give(given["value"])
        )
        return _outcome(await self._loop.resume(given["session_id"], answers={given["call_id"]: answer}))


async def serve_stdio(
    loop: StatefulAgentLoop | Callable[[], Awaitable[StatefulAgentLoop]], *, name: str = "power-loop"
) -> None:
    """Serve a client over this process's standard input and output, until it goes away.

    While it serves, what anything else of this process prints goes to standard error: standard output is the protocol.
    A function that makes the loop is called when that is so already; what it made is closed at the end.
    """
    channel = _OwnStdio()
    try:
        served = loop if isinstance(loop, StatefulAgentLoop) else await loop()
        try:
            peer = Peer(channel, answer=AgentMCPServer(served, name=name).answer)
            try:
                await peer.wait_closed()
            finally:
                await peer.aclose()
        finally:
            if served is not loop:
                await served.aclose()
    finally:
        await channel.aclose()


class _OwnStdio:
    """Is this process's standard input and output as a channel. A thread reads, because input may be any file."""

    def __init__(self) -> None:
        sys.stdout.flush()
        self._out = os.dup(1)
        os.dup2(2, 1)
        self._loop = asyncio.get_running_loop()
        self._lines = JsonLines()
        self._read: deque[dict[str, Any]] = deque()
        self._chunks: asyncio.Queue[bytes] = asyncio.Queue()
        self._writing = asyncio.Lock()
        threading.Thread(target=self._read_on, name="power-loop-mcp-stdin", daemon=True).start()

    async def send(self, message: dict[str, Any]) -> None:
        # Whoever is cancelled: a line that has begun is written to its end before another one begins.
        await asyncio.shield(self._send(memoryview(json.dumps(message).encode("ascii") + b"\n")))

    async def _send(self, data: memoryview) -> None:
        async with self._writing:
            try:
                await asyncio.to_thread(self._write, data)
            except OSError as error:
                raise MCPConnectionError(f"the client reads no more: {error}") from error

    async def receive(self) -> dict[str, Any] | None:
        while not self._read:
            data = await self._chunks.get()
            if not data:
                return None
            self._read.extend(self._lines.feed(data))
        return self._read.popleft()

    async def describe_end(self) -> str:
        return "the client has gone"

    async def aclose(self) -> None:
        if self._out >= 0:
            os.dup2(self._out, 1)
            os.close(self._out)
            self._out = -1

    def _write(self, data: memoryview) -> None:
        while data:
            data = data[os.write(self._out, data) :]

    def _read_on(self) -> None:
        data = b"?"
        while data:
            try:
                data = os.read(0, _CHUNK_BYTES)
            except OSError:
                data = b""
            try:
                self._loop.call_soon_threadsafe(self._chunks.put_nowait, data)
            except RuntimeError:
                # The event loop is closed: nobody listens.
                return


def _check(schema: Mapping[str, Any], arguments: Mapping[str, Any]) -> None:
    """Refuse arguments that a tool's handler could not read; what they mean is checked by the loop."""
    properties: Mapping[str, Any] = schema["properties"]
    problems = [f"{name!r} is missing" for name in schema["required"] if name not in arguments]
    for name, value in arguments.items():
        rule = properties.get(name)
        if rule is None:
            problems.append(f"{name!r:.100} is not known")
        elif rule.get("type") == "string" and not isinstance(value, str):
            problems.append(f"{name!r} is no text")
        elif rule.get("type") == "integer" and not _is_within(rule, value):
            problems.append(f"{name!r} is no whole number within its bounds")
        elif "enum" in rule and value not in rule["enum"]:
            problems.append(f"{name!r} is none of {rule['enum']}")
    if problems:
        raise InputError(f"the arguments do not fit: {'; '.join(problems)}")


def _is_within(rule: Mapping[str, Any], value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int):
        return False
    return bool(rule.get("minimum", value) <= value <= rule.get("maximum", value))


def _outcome(result: StatefulResult) -> dict[str, Any]:
    told: dict[str, Any] = {
        "session_id": result.session_id,
        "status": result.status.value,
        "final_text": result.final_text,
        "send_index": result.send_index,
        "is_replayed": result.is_replayed,
        "tokens": result.usage.total_tokens,
        "pending": [_pending(call) for call in result.pending],
    }
    return told if result.reason is None else {**told, "reason": result.reason}


def _pending(call: PendingCall) -> dict[str, Any]:
    return {
        "call_id": call.call_id,
        "name": call.name,
        "arguments": json_value(call.arguments),
        "state": call.state,
        "wait_kind": None if call.wait_kind is None else call.wait_kind.value,
        "prompt": call.prompt,
        "answer_schema": json_value(call.answer_schema),
    }
