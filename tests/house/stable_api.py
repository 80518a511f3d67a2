"""Describes the public names, a line each, to be held by a baseline: `python -m tests.house.stable_api` prints it."""

from __future__ import annotations

import dataclasses
import inspect
import operator
import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import power_loop

BASELINE = Path(__file__).with_name("stable_api.txt")


def described() -> list[str]:
    """Return a line a name, and one a member of each: its parameters, fields, or value."""
    lines: list[str] = []
    for name in power_loop.STABLE_API:
        lines += _describe(name, operator.attrgetter(name)(power_loop))
    return lines


def _describe(name: str, value: Any) -> Iterator[str]:
    if not isinstance(value, type):
        yield f"{name}{_parameters(value)}" if inspect.isfunction(value) else name
        return
    if issubclass(value, Enum):
        yield name
        yield from (f"{name}.{member.name} = {member.value!r}" for member in value)
        return
    yield f"{name}{_constructor(value)}"
    for key, member in sorted(_members(value).items()):
        plain = getattr(member, "__func__", member)
        if inspect.isfunction(plain):
            yield f"{name}.{key}{_parameters(plain)}"
        elif isinstance(member, property):
            yield f"{name}.{key}"


def _constructor(value: type) -> str:
    if dataclasses.is_dataclass(value):
        fields = [field for field in dataclasses.fields(value) if field.init]
        return f"({', '.join(field.name + ('' if _is_required(field) else '=') for field in fields)})"
    is_made_by_users = not issubclass(value, BaseException) and not getattr(value, "_is_protocol", False)
    if "__init__" in vars(value) and is_made_by_users:
        return _parameters(value.__init__)
    return ""


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _members(value: type) -> dict[str, Any]:
    """Return what our own classes of a class's ancestry define in public."""
    members: dict[str, Any] = {}
    for ancestor in reversed(value.__mro__):
        if ancestor.__module__.startswith("power_loop"):
            members.update({key: member for key, member in vars(ancestor).items() if not key.startswith("_")})
    return members


def _parameters(function: Any) -> str:
    """Return a function's parameters without hints and with `=` for those that have a default."""
    words: list[str] = []
    has_star = False
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not has_star:
            words.append("*")
            has_star = True
        if parameter.kind is parameter.VAR_POSITIONAL:
            has_star = True
        star = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        words.append(f"{star}{parameter.name}{'' if parameter.default is parameter.empty else '='}")
    return f"({', '.join(word for word in words if word not in ('self', 'cls'))})"


if __name__ == "__main__":
    sys.stdout.write("\n".join(described()) + "\n")
