"""Makes a tool of a function: its name, its docstring and its type hints are what a model is told."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar, overload

from power_loop.contracts.live import LiveState
from power_loop.contracts.states import Effect, OnUnknown
from power_loop.contracts.tools import (
    DEFAULT_RESULT_CHARS,
    DEFAULT_TIMEOUT_S,
    ToolDefinition,
    ToolKey,
    ToolProbe,
    ToolProject,
)
from power_loop.tools.context_hint import context_parameter, transaction_parameter
from power_loop.tools.definition_checks import definition_error, examine
from power_loop.tools.docstring import Docstring, read_docstring
from power_loop.tools.function_tool import FunctionTool
from power_loop.tools.prepared import prepare
from power_loop.tools.signature import CLASS_METHOD, Signature, read_signature

P = ParamSpec("P")
R = TypeVar("R")
D = TypeVar("D", bound=ToolDefinition)


@overload
def tool(function: D, /) -> D: ...


@overload
def tool(function: Callable[P, R], /) -> FunctionTool[P, R]: ...


@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    input_schema: Mapping[str, Any] | None = None,
    effect: Effect | str = Effect.ONCE,
    timeout_s: float | None = DEFAULT_TIMEOUT_S,
    parallel: bool = True,
    requires_approval: bool = False,
    max_result_chars: int = DEFAULT_RESULT_CHARS,
    probe: ToolProbe | None = None,
    on_unknown: OnUnknown | str | None = None,
    key: ToolKey | None = None,
    live: LiveState | None = None,
    project: ToolProject | None = None,
    guidance: str | None = None,
) -> Callable[[Callable[P, R]], FunctionTool[P, R]]: ...


def tool(
    function: ToolDefinition | Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    input_schema: Mapping[str, Any] | None = None,
    effect: Effect | str = Effect.ONCE,
    timeout_s: float | None = DEFAULT_TIMEOUT_S,
    parallel: bool = True,
    requires_approval: bool = False,
    max_result_chars: int = DEFAULT_RESULT_CHARS,
    probe: ToolProbe | None = None,
    on_unknown: OnUnknown | str | None = None,
    key: ToolKey | None = None,
    live: LiveState | None = None,
    project: ToolProject | None = None,
    guidance: str | None = None,
) -> Any:
    """Make a tool of a function, as `@tool` or `@tool(effect="read", ...)`.

    The name is the function's, the description its docstring up to the first section; the schema comes from its type
    hints, its defaults and what the docstring says of each parameter. A parameter annotated `ToolContext` receives the
    context; one annotated `ToolTransaction` receives the transaction that commits the call, and makes the tool's effect
    `transactional`. The handler gets values of the hinted types: a dataclass where one is hinted. With an
    `input_schema` it gets plain JSON values. The other options are those of `ToolDefinition`. The result is a
    definition that can still be called like the function; what is a tool already is returned as it is. Raises
    `tool.invalid_definition` with every problem at once.
    """

    def make(handler: Callable[..., Any]) -> FunctionTool[..., Any]:
        handler = _plain(handler)
        documented = _docstring_of(handler)
        is_method = _is_method(handler)
        signature = _signature_of(handler, input_schema, documented=documented, is_method=is_method)
        definition: FunctionTool[..., Any] = FunctionTool(
            name=_name_of(handler) if name is None else name,
            description=documented.prose if description is None else description,
            input_schema=signature.schema,
            handler=handler,
            effect=_effect_of(effect, signature),  # type: ignore[arg-type]  # its word will do
            timeout_s=timeout_s,
            parallel=parallel,
            requires_approval=requires_approval,
            max_result_chars=max_result_chars,
            takes_context=signature.context,
            probe=probe,
            on_unknown=on_unknown,  # type: ignore[arg-type]  # its word will do
            key=key,
            live=live,
            project=project,
            guidance=guidance,
            takes_transaction=signature.transaction,
            converts=signature.converts,
            is_method=is_method,
        )
        _check(definition, signature)
        return definition

    if isinstance(function, ToolDefinition):
        return function
    return make if function is None else make(function)


def _effect_of(effect: Effect | str, signature: Signature) -> Effect | str:
    """Return the effect of a tool: what is committed with its result happens once and is never unknown."""
    return Effect.TRANSACTIONAL if signature.transaction is not None and effect == Effect.ONCE else effect


def _plain(handler: Any) -> Callable[..., Any]:
    """Return the function of a static method; refuse what has another way to become a tool."""
    if isinstance(handler, ToolDefinition):
        raise definition_error(
            handler.name, ["it is a tool already: change its options with dataclasses.replace(tool, ...)"]
        )
    if isinstance(handler, classmethod):
        raise definition_error(_name_of(handler.__func__), [CLASS_METHOD])
    return handler.__func__ if isinstance(handler, staticmethod) else handler


def _check(definition: FunctionTool[..., Any], signature: Signature) -> None:
    if not signature.problems and not definition.is_method:
        prepare(definition)
        return
    # A method is checked when it has its object; a handler whose signature is refused has no schema to be held against.
    plain = dataclasses.replace(definition, effect=Effect.ONCE) if signature.transaction is not None else definition
    rest, _ = examine(dataclasses.replace(plain, handler=None, takes_context=None, takes_transaction=None, memo={}))
    problems = [*signature.problems, *rest]
    if problems:
        raise definition_error(definition.name, problems)


def _signature_of(
    handler: Callable[..., Any], input_schema: Mapping[str, Any] | None, *, documented: Docstring, is_method: bool
) -> Signature:
    try:
        inspect.signature(handler)
    except (TypeError, ValueError):
        # What is no function with a signature is refused when the definition is checked.
        return Signature(input_schema or {"type": "object"}, {}, None, ())
    if input_schema is not None:
        transaction = transaction_parameter(handler, None)
        return Signature(input_schema, {}, context_parameter(handler, None), (), transaction)
    return read_signature(handler, documented.parameters, is_method=is_method)


def _is_method(handler: Any) -> bool:
    """Tell whether a function stands in a class body, where its first parameter is an object that no model gives."""
    if not inspect.isfunction(handler):
        return False
    first = next(iter(inspect.signature(handler).parameters.values()), None)
    return first is not None and first.name == "self" and first.annotation is first.empty


def _named_part(handler: Any) -> Any:
    """Return what carries the name: the function inside of a partial, the class of an object that can be called."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    return handler if hasattr(handler, "__name__") else type(handler)


def _name_of(handler: Any) -> str:
    return str(_named_part(handler).__name__)


def _docstring_of(handler: Any) -> Docstring:
    part = _named_part(handler)
    text = inspect.getdoc(part)
    if inspect.isclass(part):
        text = inspect.getdoc(part.__call__) or text
    return read_docstring(text)
