"""Is what `@tool` makes of a function: a definition that plain code may go on calling."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any, Generic, ParamSpec, TypeVar

from power_loop.contracts.frozen import frozen
from power_loop.contracts.tools import ToolDefinition
from power_loop.tools.shape import Convert

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)


@frozen
class FunctionTool(ToolDefinition, Generic[P, R_co]):
    """Is a tool whose schema comes from its handler's type hints.

    Calling it calls the handler as it was written, without schema or conversion, so tests and plain code lose nothing.
    In a class body it stands for a method: `instance.name` is the tool of that instance. `converts` brings an argument
    from JSON to the hinted type, by parameter; a parameter that is not named there takes its JSON value.
    """

    converts: Mapping[str, Convert] = field(default_factory=dict, repr=False)
    is_method: bool = False

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Call the handler with Python values."""
        result: R_co = self.__wrapped__(*args, **kwargs)
        return result

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        if self.handler is None:
            raise TypeError(f"the tool {self.name!r} has no handler: the application brings its results")
        return self.handler

    def __get__(self, instance: object, owner: type | None = None) -> FunctionTool[..., R_co]:
        if instance is None or not self.is_method:
            return self
        bound = self.__wrapped__.__get__(instance, owner)
        return dataclasses.replace(self, handler=bound, is_method=False, memo={})
