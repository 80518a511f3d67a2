"""Reads a word that means one of a few choices, and says which ones there are where it means none."""

from __future__ import annotations

from enum import Enum
from typing import TypeVar

from power_loop.contracts.errors import ConfigError, InputError

E = TypeVar("E", bound=Enum)


def choice_of(kind: type[E], word: object, name: str, *, error: type[ConfigError | InputError] = ConfigError) -> E:
    """Return the choice that a word means, which may be the choice itself. Raises `config.invalid`, or what `error`
    says, naming `name` and the words that there are."""
    try:
        return kind(word)
    except ValueError as cause:
        known = ", ".join(repr(one.value) for one in kind)
        raise error(f"{name} is {word!r:.200}: give one of {known}") from cause


def choice_problem(kind: type[Enum], word: object, name: str) -> str:
    """Return what `choice_of` says of a word; empty if it means a choice."""
    try:
        choice_of(kind, word, name)
    except ConfigError as error:
        return error.message
    return ""
