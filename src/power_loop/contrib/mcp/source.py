"""Says what register_mcp_tools asks of a client of MCP, whichever it is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from power_loop.errors import MCPError

#: Is told how far a call is: what is done, of how much (None: nobody knows), and a sentence or none.
OnProgress = Callable[[float, float | None, str | None], None]


class MCPTool:
    """Is one tool as a server offers it; `annotations` are the server's own claims, which nobody has checked."""

    __slots__ = ("annotations", "description", "input_schema", "name")

    def __init__(
        self, name: str, description: str, input_schema: Mapping[str, Any], annotations: Mapping[str, Any] | None = None
    ) -> None:
        self.name = name
        self.description = description
        self.input_schema = input_schema
        self.annotations: Mapping[str, Any] = annotations or {}

    @classmethod
    def of(cls, value: Any) -> MCPTool:
        """Return the tool that a JSON object, or an object of the official SDK, describes. Raises `mcp.failed`."""
        if isinstance(value, cls):
            return value
        told = plain(value)
        name, schema = told.get("name"), told.get("inputSchema")
        if not isinstance(name, str) or not isinstance(schema, dict):
            raise MCPError(f"the server lists a tool without a name or a schema: {told!r:.200}")
        description, annotations = told.get("description") or told.get("title") or "", told.get("annotations")
        return cls(name, str(description), schema, annotations if isinstance(annotations, dict) else None)

    @property
    def fingerprint(self) -> str:
        """Is the same as long as what the server says of the tool is the same."""
        told = [self.name, self.description, self.input_schema, self.annotations]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode("ascii")).hexdigest()

    def __repr__(self) -> str:
        return f"MCPTool({self.name!r})"


class MCPResult:
    """Is what a call gave: blocks of content in the JSON of the protocol, and whether they say that it failed."""

    __slots__ = ("content", "is_error", "structured")

    def __init__(self, content: Sequence[Mapping[str, Any]], *, structured: Any = None, is_error: bool = False) -> None:
        self.content = content
        self.structured = structured
        self.is_error = is_error

    @classmethod
    def of(cls, value: Any) -> MCPResult:
        """Return the result that a JSON object, or an object of the official SDK, describes. Raises `mcp.failed`."""
        if isinstance(value, cls):
            return value
        told = plain(value)
        content = told.get("content", [])
        if not isinstance(content, list) or not all(isinstance(block, dict) for block in content):
            raise MCPError(f"the server's result has no blocks of content: {told!r:.200}")
        structured, is_error = told.get("structuredContent"), told.get("isError") is True
        return cls(content, structured=structured, is_error=is_error)


class MCPToolSource(Protocol):
    """Is any client of MCP: our own ones, a `ClientSession` of the official SDK, or a few lines of yours.

    What it returns may be records of this module, JSON objects of the protocol, or objects of the official SDK. Where
    it has `on_tools_changed`, a function is put there that it calls when the server announces other tools.
    """

    async def list_tools(self) -> Any:
        """Return the server's tools, all of them, as a sequence or as an object with `tools`."""
        ...

    async def call_tool(self, name: str, arguments: dict[str, Any], /) -> Any:
        """Call a tool by the server's own name for it. Clients that take `on_progress` are given it."""
        ...


def plain(value: Any) -> dict[str, Any]:
    """Return a JSON object as a dict, an object of the official SDK as the JSON object that it stands for."""
    if isinstance(value, Mapping):
        return dict(value)
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        return dict(dump(mode="json", by_alias=True, exclude_none=True))
    raise MCPError(f"an object of the protocol is {value!r:.200}: it is neither JSON nor of the official SDK")
