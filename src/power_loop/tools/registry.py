"""Holds the tools that a loop offers to its model."""

from __future__ import annotations

import contextlib
import difflib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ParamSpec, TypeVar, Union, overload

from power_loop.contracts.errors import ConfigError, ToolDefinitionError
from power_loop.contracts.llm import ToolSpec
from power_loop.contracts.tools import ToolDefinition, ToolResource
from power_loop.tools.decorator import tool
from power_loop.tools.definition_checks import MAX_NAME_CHARS
from power_loop.tools.function_tool import FunctionTool
from power_loop.tools.prepared import PreparedTool, prepare

P = ParamSpec("P")
R = TypeVar("R")

#: What can be registered.
ToolLike = ToolDefinition | Callable[..., Any]
#: What is accepted where a registry is expected.
ToolsLike = Union["ToolRegistry", ToolLike, Iterable[ToolLike], None]

# An application has a handful of tool sets; beyond this many they are made anew, which costs microseconds.
_MAX_REMEMBERED_SUBSETS = 64
# Names that an error message or a model is shown.
_MAX_SHOWN_NAMES = 30
_MAX_CLOSE_NAMES = 3


class ToolRegistry:
    """Holds tools by name, in the order in which they were registered; safe to share between loops, tasks and threads.

    A reader sees the tools as they were at one moment: registering replaces the set as a whole and never changes one
    that is in use.
    """

    __slots__ = ("_lock", "_tools")

    def __init__(self, tools: Iterable[ToolLike] = ()) -> None:
        """Take definitions and plain functions. Raises `tool.invalid_definition`."""
        self._lock = threading.Lock()
        self._tools = _ToolSet({})
        for one in tools:
            self.register(one)

    @classmethod
    def of(cls, value: ToolsLike) -> ToolRegistry:
        """Return `value` if it is a registry, else a registry of the tool or tools that it is; None means none.

        Raises `config.invalid` for anything else, `tool.invalid_definition` for a tool that cannot be offered.
        """
        if isinstance(value, cls):
            return value
        if value is None:
            return cls()
        if isinstance(value, ToolDefinition):
            return cls((value,))
        if isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping)):
            return cls(value)
        if callable(value):
            return cls((value,))
        raise ConfigError(
            f"tools {value!r} is a {type(value).__name__}:"
            " give a ToolRegistry, or a list of ToolDefinitions and functions"
        )

    def register(self, definition: ToolLike, /, *, replace: bool = False) -> ToolDefinition:
        """Add a definition, or the tool that `tool` makes of a function, and return the definition.

        A name that is taken already is refused unless `replace` is set; then the tool keeps its place in the order.
        Raises `tool.invalid_definition`.
        """
        prepared = prepare(_definition_of(definition))
        name = prepared.definition.name
        with self._lock:
            known = self._tools.by_name.get(name)
            if known is not None and known is not prepared and not replace:
                problem = "its name is taken by another tool of this registry: give it another name, or replace=True"
                raise ToolDefinitionError(f"the tool {name!r} cannot be registered: {problem}", problems=[problem])
            if known is not prepared:
                self._tools = _ToolSet({**self._tools.by_name, name: prepared})
        return prepared.definition

    @overload
    def tool(self, function: Callable[P, R], /) -> FunctionTool[P, R]: ...

    @overload
    def tool(
        self, function: None = None, /, *, replace: bool = False, **options: Any
    ) -> Callable[[Callable[P, R]], FunctionTool[P, R]]: ...

    def tool(self, function: Any = None, /, *, replace: bool = False, **options: Any) -> Any:
        """Make a tool of a function and register it, as `@registry.tool` or `@registry.tool(effect="read", ...)`.

        `options` are those of `tool`. Raises `tool.invalid_definition`.
        """

        def make(handler: Callable[..., Any]) -> FunctionTool[..., Any]:
            made: FunctionTool[..., Any] = tool(**options)(handler) if options else tool(handler)
            self.register(made, replace=replace)
            return made

        return make if function is None else make(function)

    def unregister(self, name: str) -> ToolDefinition:
        """Take a tool out and return its definition. Raises `config.invalid` if there is none of this name."""
        with self._lock:
            rest = dict(self._tools.by_name)
            prepared = rest.pop(name, None)
            if prepared is None:
                raise ConfigError(self.unknown_name_text(name))
            self._tools = _ToolSet(rest)
        return prepared.definition

    def get(self, name: str) -> ToolDefinition | None:
        """Return the definition of exactly this name, or None."""
        prepared = self._tools.by_name.get(name)
        return None if prepared is None else prepared.definition

    def prepared(self, name: str) -> PreparedTool | None:
        """Return the tool of exactly this name, ready to be called, or None."""
        return self._tools.by_name.get(name)

    @property
    def resources(self) -> tuple[ToolResource, ...]:
        """What the tools hold beyond their calls, each once."""
        held = [one.definition.resource for one in self._tools.by_name.values()]
        return tuple({id(one): one for one in held if one is not None}.values())

    async def end_session(self, session_id: str, on_error: Callable[[str, Exception], None]) -> None:
        """Let go of what the tools hold for a session; what a resource raises goes to `on_error`, with the name of what
        raised it, and keeps none of the others from it."""
        for one in self.resources:
            try:
                await one.end_session(session_id)
            except Exception as error:  # noqa: PERF203 - a stranger's code, each of which has to be told
                on_error(f"{type(one).__name__}.end_session", error)

    async def aclose(self) -> None:
        """Let go of what the tools hold beyond their calls. A loop does this with a registry that it made itself, of a
        list of tools; a registry that it was given stays the caller's to close."""
        async with contextlib.AsyncExitStack() as stack:
            for one in self.resources:
                stack.push_async_callback(one.aclose)

    @property
    def names(self) -> tuple[str, ...]:
        """The names in order."""
        return tuple(self._tools.by_name)

    def specs(self) -> tuple[ToolSpec, ...]:
        """Return what a model is told of the tools, in order.

        It is the same tuple until the registry changes, and the same spec for as long as its tool stays.
        """
        return self._tools.specs

    def subset(self, names: Iterable[str]) -> ToolRegistry:
        """Return a registry of some of the tools, in this registry's order, which later changes do not reach.

        Asking again for the same names gives the same specs. Raises `config.invalid` with every name that is not
        registered.
        """
        if isinstance(names, str):
            raise ConfigError(f"tool names {names!r} is one text: give a list of names")
        tools = self._tools
        wanted = frozenset(names)
        unknown = [name for name in wanted if name not in tools.by_name]
        if unknown:
            raise ConfigError("; ".join(self.unknown_name_text(name) for name in sorted(unknown, key=str)))
        part = ToolRegistry()
        part._tools = tools.subset(wanted)
        return part

    def with_added(self, definitions: Iterable[ToolDefinition]) -> ToolRegistry:
        """Return a registry of these tools and of those of `definitions` whose names are free, which come last; later
        changes do not reach it.

        Asking again for the same gives the same specs. Raises `tool.invalid_definition`.
        """
        tools = self._tools
        added = [one for one in definitions if one.name not in tools.by_name]
        if not added:
            return self
        whole = ToolRegistry()
        whole._tools = tools.with_added(tuple(map(prepare, added)))
        return whole

    def unknown_name_text(self, name: object) -> str:
        """Return the sentence that says that there is no such tool, with the names that come close."""
        names = self.names
        wanted = str(name)[:MAX_NAME_CHARS]
        if not names:
            return f"there is no tool {wanted!r}: no tools are registered"
        close = difflib.get_close_matches(wanted, names, _MAX_CLOSE_NAMES)
        if close:
            return f"there is no tool {wanted!r}: did you mean {' or '.join(map(repr, close))}?"
        listed = ", ".join(names[:_MAX_SHOWN_NAMES]) + (", …" if len(names) > _MAX_SHOWN_NAMES else "")
        return f"there is no tool {wanted!r}: the tools are {listed}"

    def __iter__(self) -> Iterator[ToolDefinition]:
        return iter([prepared.definition for prepared in self._tools.by_name.values()])

    def __len__(self) -> int:
        return len(self._tools.by_name)

    def __contains__(self, name: object) -> bool:
        return name in self._tools.by_name

    def __repr__(self) -> str:
        return f"ToolRegistry({', '.join(self.names)})"


class _ToolSet:
    """Is the tools of a registry at one moment; it never changes."""

    __slots__ = ("_subsets", "_with_added", "by_name", "specs")

    def __init__(self, by_name: dict[str, PreparedTool]) -> None:
        self.by_name = by_name
        self.specs = tuple(prepared.spec for prepared in by_name.values())
        self._subsets: dict[frozenset[str], _ToolSet] = {}
        self._with_added: dict[tuple[PreparedTool, ...], _ToolSet] = {}

    def with_added(self, added: tuple[PreparedTool, ...]) -> _ToolSet:
        known = self._with_added.get(added)
        if known is None:
            known = _ToolSet({**self.by_name, **{prepared.definition.name: prepared for prepared in added}})
            if len(self._with_added) < _MAX_REMEMBERED_SUBSETS:
                self._with_added[added] = known
        return known

    def subset(self, names: frozenset[str]) -> _ToolSet:
        if len(names) == len(self.by_name):
            return self
        known = self._subsets.get(names)
        if known is None:
            known = _ToolSet({name: prepared for name, prepared in self.by_name.items() if name in names})
            if len(self._subsets) < _MAX_REMEMBERED_SUBSETS:
                self._subsets[names] = known
        return known


def _definition_of(value: ToolLike) -> ToolDefinition:
    if isinstance(value, ToolDefinition):
        return value
    if not callable(value):
        raise ToolDefinitionError(
            f"{value!r} cannot be registered as a tool: give a ToolDefinition or a function",
            problems=[f"it is a {type(value).__name__}"],
        )
    return tool(value)
