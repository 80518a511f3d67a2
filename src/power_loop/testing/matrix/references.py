"""Names functions so that another process finds them: `module:function`."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

from power_loop.errors import ConfigError

#: A function, or its name as `module:function`.
Reference = str | Callable[..., Any]


def reference_to(value: Reference) -> str:
    """Return the name under which another process finds a function. Raises `config.invalid` if none does."""
    if isinstance(value, str):
        if ":" not in value:
            raise ConfigError(f"{value!r} names no function: give 'module:function'")
        return value
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not module or not name or "<" in name or module == "__main__":
        raise ConfigError(
            f"{value!r} cannot be found by another process, which a crash matrix starts many of: put it at the top of a"
            " module that can be imported, or give 'module:function'"
        )
    return f"{module}:{name}"


def find(reference: str) -> Any:
    """Return what a reference names. Raises `config.invalid`."""
    module, _, name = reference.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{reference!r} is not found: {error}") from error
    return found


def takes(function: Callable[..., Any], name: str) -> bool:
    """Tell whether a function takes a keyword argument of this name."""
    parameters = inspect.signature(function).parameters
    kinds = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return name in parameters and parameters[name].kind in kinds
