"""Reads the signature of a handler: what a model may give it, how that is converted, and what the kernel gives it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from power_loop.contracts.tools import ToolContext, ToolTransaction
from power_loop.tools.context_hint import is_hint_of, names_around
from power_loop.tools.hints import HintReader, described
from power_loop.tools.shape import Convert, HintRefused, Shape

CLASS_METHOD = (
    "it is a class method, which has no class yet where it is decorated: leave the decorator off, and make a tool of"
    " the bound method, as in tool(YourClass.method)"
)


@dataclass(frozen=True, slots=True)
class Signature:
    """Is what a model may give to a handler.

    `schema` is of type object; `converts` holds the conversions of the parameters that need one; `context` and
    `transaction` name what takes these; `problems` is everything that keeps the signature from being offered.
    """

    schema: Mapping[str, Any]
    converts: Mapping[str, Convert]
    context: str | None
    problems: tuple[str, ...]
    transaction: str | None = None


def read_signature(handler: Callable[..., Any], documented: Mapping[str, str], *, is_method: bool) -> Signature:
    """Read a handler's signature; `documented` describes its parameters, `is_method` leaves out the first one.

    What a `functools.partial` has bound is not offered to the model.
    """
    names = names_around(handler)
    reader = HintReader({kind.__name__: kind for kind in (ToolContext, ToolTransaction)} | names)
    bound = _bound_names(handler)
    parameters = list(inspect.signature(handler).parameters.values())[1 if is_method else 0 :]
    given: dict[type, list[str]] = {ToolContext: [], ToolTransaction: []}
    properties: dict[str, Any] = {}
    required: list[str] = []
    converts: dict[str, Convert] = {}
    problems: list[str] = []
    for parameter in parameters:
        if parameter.name in bound:
            continue
        kind = next((kind for kind in given if is_hint_of(kind, parameter.annotation, names)), None)
        if kind is not None:
            given[kind].append(parameter.name)
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
    for kind, takers in given.items():
        if len(takers) > 1:
            what = "context" if kind is ToolContext else "transaction"
            problems.append(f"its parameters {', '.join(map(repr, takers))} all ask for the {what}: one is enough")
    whole: dict[str, Any] = {"type": "object", "properties": properties}
    if required:
        whole["required"] = required
    whole["additionalProperties"] = False
    schema = whole if problems else reader.finish(whole)
    context, transaction = (takers[0] if takers else None for takers in given.values())
    return Signature(schema, converts, context, tuple(problems), transaction)


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
