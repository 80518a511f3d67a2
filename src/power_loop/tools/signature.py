"""Reads the signature of a handler: what a model may give it, how that is converted, and what takes the context."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from power_loop.contracts.tools import ToolContext
from power_loop.tools.context_hint import is_context_hint, names_around
from power_loop.tools.hints import HintReader, described
from power_loop.tools.shape import Convert, HintRefused, Shape

CLASS_METHOD = (
    "it is a class method, which has no class yet where it is decorated: leave the decorator off, and make a tool of"
    " the bound method, as in tool(YourClass.method)"
)


@dataclass(frozen=True, slots=True)
class Signature:
    """Is what a model may give to a handler.

    `schema` is of type object; `converts` holds the conversions of the parameters that need one; `problems` is
    everything that keeps the signature from being offered.
    """

    schema: Mapping[str, Any]
    converts: Mapping[str, Convert]
    context: str | None
    problems: tuple[str, ...]


def read_signature(handler: Callable[..., Any], documented: Mapping[str, str], *, is_method: bool) -> Signature:
    """Read a handler's signature; `documented` describes its parameters, `is_method` leaves out the first one.

    What a `functools.partial` has bound is not offered to the model.
    """
    names = names_around(handler)
    reader = HintReader({ToolContext.__name__: ToolContext, **names})
    bound = _bound_names(handler)
    parameters = list(inspect.signature(handler).parameters.values())[1 if is_method else 0 :]
    contexts: list[str] = []
    properties: dict[str, Any] = {}
    required: list[str] = []
    converts: dict[str, Convert] = {}
    problems: list[str] = []
    for parameter in parameters:
        if parameter.name in bound:
            continue
        if is_context_hint(parameter.annotation, names):
            contexts.append(parameter.name)
            continue
        try:
            shape = _read_parameter(parameter, reader)
        except HintRefused as refused:
            problems.append(f"its parameter {parameter.name!r}: {refused}")
            continue
        is_required = parameter.default is parameter.empty
        default = None if is_required else parameter.default
        properties[parameter.name] = described(shape, documented.get(parameter.name), default=default)
        if is_required:
            required.append(parameter.name)
        if shape.convert is not None:
            converts[parameter.name] = shape.convert
    if len(contexts) > 1:
        problems.append(f"its parameters {', '.join(map(repr, contexts))} all ask for the context: one is enough")
    whole: dict[str, Any] = {"type": "object", "properties": properties}
    if required:
        whole["required"] = required
    whole["additionalProperties"] = False
    schema = whole if problems else reader.finish(whole)
    return Signature(schema, converts, contexts[0] if contexts else None, tuple(problems))


def _read_parameter(parameter: inspect.Parameter, reader: HintReader) -> Shape:
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        raise HintRefused("it gathers arguments without names: name each parameter, or give an input_schema=")
    if parameter.annotation is parameter.empty:
        if parameter.name == "cls":
            raise HintRefused(CLASS_METHOD)
        raise HintRefused("it has no type hint, so no model can tell what to give")
    return reader.read(parameter.annotation)


def _bound_names(handler: Callable[..., Any]) -> frozenset[str]:
    bound: set[str] = set()
    while isinstance(handler, functools.partial):
        bound.update(handler.keywords)
        handler = handler.func
    return frozenset(bound)
