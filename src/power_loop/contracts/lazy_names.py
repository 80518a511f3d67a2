"""Lets a package hand on names of its rooms without importing them: each is imported when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazy_names(package: dict[str, Any], homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package whose `globals()` are given; `homes` names the module of each name.

    Who writes it as `if not TYPE_CHECKING` keeps type checkers strict: they read the imports that stand beside it.
    """

    def get(name: str) -> Any:
        home = homes.get(name)
        if home is None:
            raise AttributeError(f"module {package['__name__']!r} has no attribute {name!r}")
        value = package[name] = getattr(importlib.import_module(home), name)
        return value

    return get
