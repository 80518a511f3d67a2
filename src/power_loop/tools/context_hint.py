"""Finds the parameters of a handler that ask for the context of the call, or for the transaction that commits it."""

from __future__ import annotations

import contextlib
import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any

from power_loop.contracts.tools import ToolContext, ToolTransaction


def context_parameter(handler: Callable[..., Any], takes_context: str | None) -> str | None:
    """Return the parameter that receives the context: the named one, else the first that is annotated `ToolContext`."""
    return takes_context if takes_context is not None else _first_of(handler, ToolContext)


def transaction_parameter(handler: Callable[..., Any], takes_transaction: str | None) -> str | None:
    """Return the parameter that receives the transaction: the named one, else the first annotated `ToolTransaction`."""
    return takes_transaction if takes_transaction is not None else _first_of(handler, ToolTransaction)


def _first_of(handler: Callable[..., Any], kind: type) -> str | None:
    names = names_around(handler)
    parameters = inspect.signature(handler).parameters.values()
    return next((parameter.name for parameter in parameters if is_hint_of(kind, parameter.annotation, names)), None)


def is_hint_of(kind: type, hint: Any, names: Mapping[str, Any]) -> bool:
    """Tell whether a type hint, written out or as text, means `kind` or that it may be left out.

    In a text the name alone will do, because it is often imported for type checkers only, unless `names` says that it
    means something else.
    """
    if isinstance(hint, str):
        words = hint.replace(" ", "").removesuffix("|None")
        if words.endswith("]"):
            words = words[:-1].removeprefix("typing.").removeprefix("Optional[")
        return words.rpartition(".")[2] == kind.__name__ and names.get(words, kind) is kind
    return hint is kind or (type(None) in typing.get_args(hint) and kind in typing.get_args(hint))


def names_around(handler: Callable[..., Any]) -> dict[str, Any]:
    """Return what names in a handler's hints may mean: its module's, and those it uses of the functions around it."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    function = inspect.unwrap(handler)
    if not inspect.isroutine(function):
        # An object that can be called: its class tells where its hints stand.
        function = type(function).__call__
    function = getattr(function, "__func__", function)
    if not inspect.isfunction(function):
        return {}
    names = dict(function.__globals__)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        # A name that is only set further down has no contents yet.
        with contextlib.suppress(ValueError):
            names[name] = cell.cell_contents
    return names
