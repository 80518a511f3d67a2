"""Makes the tools of an MCP server tools of a registry, as they were when they were accepted."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from typing import Any

from power_loop import Effect, ToolContext, ToolDefinition, ToolRegistry, ToolResult
from power_loop.contrib.mcp.content import tool_result
from power_loop.contrib.mcp.names import portable_names
from power_loop.contrib.mcp.source import MCPResult, MCPTool, MCPToolSource
from power_loop.errors import ConfigError, MCPConnectionError, MCPError, MCPToolChangedError, ToolError
from power_loop.tools import choice_of

#: It goes with every model call.
MAX_DESCRIPTION_CHARS = 4_000
_DEFAULT_TIMEOUT_S = 120.0
# Characters that a person who approves a tool does not see, and a model does.
_UNSEEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\U000e0000-\U000e0fff]"
)


class MCPRegistration:
    """Is the tools of one server in one registry.

    `names` leads from each name in the registry to the server's own, `pins` from each of the server's to the
    fingerprint of what it said of the tool; kept by the application and given back next time, they flag what was
    changed in between. `changed` is the names in the registry of tools that the server says something else of than when
    they were accepted: calls of these are refused.
    """

    def __init__(
        self,
        source: MCPToolSource,
        registry: ToolRegistry,
        tools: Mapping[str, MCPTool],
        *,
        pins: Mapping[str, str],
        effects: Mapping[str, Effect],
    ) -> None:
        """Take what is registered by the names in the registry; for `register_mcp_tools` only."""
        self._source = source
        self._registry = registry
        self._tools = dict(tools)
        self._effects = dict(effects)
        # The last announcement of other tools, as long as nobody has looked at them since.
        self._news: object | None = None
        self.names: Mapping[str, str] = {name: tool.name for name, tool in tools.items()}
        self.pins: Mapping[str, str] = {tool.name: tool.fingerprint for tool in tools.values()}
        self.changed: frozenset[str] = frozenset(
            name for name, tool in tools.items() if pins.get(tool.name, tool.fingerprint) != tool.fingerprint
        )

    async def refresh(self) -> frozenset[str]:
        """Look at what the server says of its tools, and return `changed`. Raises `mcp.connection`, `mcp.failed`."""
        news = self._news
        told = {tool.name: tool.fingerprint for tool in await _listed(self._source)}
        self.changed |= {name for name, own in self.names.items() if told.get(own) != self.pins[own]}
        if self._news is news:
            self._news = None
        return self.changed

    def unregister(self) -> None:
        """Take the tools out of the registry."""
        for name in self.names:
            if name in self._registry:
                self._registry.unregister(name)

    def note_changes(self) -> None:
        """Have the next call look at what the server says of its tools; may be called from any thread."""
        self._news = object()

    async def call(self, name: str, arguments: dict[str, Any], context: ToolContext | None) -> ToolResult:
        """Call a tool by its name in the registry. Raises `tool.failed`, whose text is for the model."""
        tool = self._tools[name]
        try:
            if self._news is not None:
                await self.refresh()
            if name in self.changed:
                raise MCPToolChangedError(
                    f"the MCP server has changed what it says of the tool {tool.name!r}: it is not called until a"
                    " person has looked at it and the application registers it again"
                )
            try:
                return tool_result(await self._called(tool, arguments, context))
            except MCPConnectionError as error:
                # What may have run runs again only where that changes nothing.
                if not error.may_have_run or self._effects[name] is Effect.ONCE:
                    raise
            return tool_result(await self._called(tool, arguments, context))
        except MCPConnectionError as error:
            raise ToolError(_lost(tool.name, error)) from error
        except MCPError as error:
            raise ToolError(error.message) from error

    async def _called(self, tool: MCPTool, arguments: dict[str, Any], context: ToolContext | None) -> MCPResult:
        more: dict[str, Any] = {}
        if context is not None and "on_progress" in _parameters(self._source.call_tool):
            more["on_progress"] = _progress_of(context)
        return MCPResult.of(await self._source.call_tool(tool.name, arguments, **more))


async def register_mcp_tools(
    registry: ToolRegistry,
    client: MCPToolSource,
    *,
    prefix: str = "",
    only: Iterable[str] | None = None,
    trusts_annotations: bool = False,
    effects: Mapping[str, Effect | str] | None = None,
    requires_approval: bool = False,
    timeout_s: float | None = _DEFAULT_TIMEOUT_S,
    pins: Mapping[str, str] | None = None,
) -> MCPRegistration:
    """Register the tools of an MCP server; `fs.` as a `prefix` makes `fs_read` of its `read`.

    `only` chooses tools by the server's names. A tool has the effect `once` unless `effects` says otherwise by the
    server's name of it, or the server is trusted to (`trusts_annotations`: `readOnlyHint` makes it `read`,
    `idempotentHint` `idempotent`). `pins` are those of an earlier registration (see MCPRegistration).
    `requires_approval` and `timeout_s` are those of ToolDefinition.

    Raises `mcp.connection`, `mcp.failed`, `config.invalid`, `tool.invalid_definition` with every problem of a tool that
    cannot be offered, or whose name the registry has; nothing is registered then.
    """
    if not isinstance(prefix, str):
        raise ConfigError(f"prefix is {prefix!r:.100}: give a text such as 'fs.'")
    told = await _listed(client)
    wanted = None if only is None else set(only)
    if wanted is not None and (missing := wanted - {tool.name for tool in told}):
        raise ConfigError(f"only names {sorted(missing)!r:.500}, which the server does not offer")
    chosen = {tool.name: tool for tool in told if wanted is None or tool.name in wanted}
    if unknown := set(effects or {}) - set(chosen):
        raise ConfigError(f"effects names {sorted(unknown)!r:.500}, which the server does not offer")
    names = portable_names(chosen, prefix=prefix)
    kinds = {
        names[own]: choice_of(Effect, effects[own], f"the effect of {own!r}")
        if effects and own in effects
        else _effect(tool, is_trusted=trusts_annotations)
        for own, tool in chosen.items()
    }
    tools = {names[own]: tool for own, tool in chosen.items()}
    made = MCPRegistration(client, registry, tools, pins=pins or {}, effects=kinds)
    definitions = [
        _definition(made, name, tool, effect=kinds[name], requires_approval=requires_approval, timeout_s=timeout_s)
        for name, tool in tools.items()
    ]
    # All of them or none: a second registry finds what is wrong before the first one is touched.
    ToolRegistry([*registry, *definitions])
    for definition in definitions:
        registry.register(definition)
    if hasattr(client, "on_tools_changed"):
        client.on_tools_changed = _both(client.on_tools_changed, made.note_changes)
    return made


def _definition(
    made: MCPRegistration, name: str, tool: MCPTool, *, effect: Effect, requires_approval: bool, timeout_s: float | None
) -> ToolDefinition:
    async def call(mcp_context: ToolContext, **arguments: Any) -> ToolResult:
        return await made.call(name, arguments, mcp_context)

    description = _UNSEEN.sub("", tool.description).strip() or f"The tool {tool.name} of an MCP server."
    return ToolDefinition(
        name,
        description[:MAX_DESCRIPTION_CHARS],
        {"type": "object", **tool.input_schema},
        call,
        effect=effect,
        requires_approval=requires_approval,
        timeout_s=timeout_s,
        takes_context="mcp_context",
    )


def _effect(tool: MCPTool, *, is_trusted: bool) -> Effect:
    if is_trusted and tool.annotations.get("readOnlyHint") is True:
        return Effect.READ
    if is_trusted and tool.annotations.get("idempotentHint") is True:
        return Effect.IDEMPOTENT
    return Effect.ONCE


async def _listed(source: MCPToolSource) -> list[MCPTool]:
    told = await source.list_tools()
    tools: Any = getattr(told, "tools", None)
    if tools is None:
        tools = told.get("tools") if isinstance(told, Mapping) else told
    return [MCPTool.of(one) for one in tools]


def _lost(name: str, error: MCPConnectionError) -> str:
    if error.may_have_run:
        return (
            f"The connection to the MCP server was lost while {name!r} ran ({error.message}). It may have had its"
            " effect, or not: find out before you call it again."
        )
    return f"The MCP server cannot be reached, and {name!r} did not run: {error.message}"


def _progress_of(context: ToolContext) -> Any:
    def on_progress(done: float, total: float | None, message: str | None) -> None:
        fraction = None if total is None or not total > 0 else min(max(done / total, 0.0), 1.0)
        context.progress(message or f"{done:g}" + ("" if total is None else f" of {total:g}"), fraction=fraction)

    return on_progress


def _parameters(function: Any) -> Iterable[str]:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return ()


def _both(first: Any, second: Any) -> Any:
    if first is None:
        return second

    def call_both() -> None:
        first()
        second()

    return call_both
