"""Is the agent of the matrix on a kernel that breaks a promise: one name a variant of tests/crash/mutants.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from power_loop import StatefulAgentLoop
from power_loop.runtime.store import sessions, store
from power_loop.timers import Clock
from tests.crash.full.agents import make_loop
from tests.crash.mutants import MUTANTS


def __getattr__(name: str) -> Callable[..., StatefulAgentLoop]:
    if name not in MUTANTS:
        raise AttributeError(name)

    def make(dsn: str, *, clock: Clock | None = None) -> StatefulAgentLoop:
        MUTANTS[name]()
        return make_loop(dsn, clock=clock)

    return make


class _Unfenced(sessions.Sessions):
    def __init__(self, render: Any) -> None:
        super().__init__(render)
        fence = "owner = ? AND epoch = ?"
        assert fence in self._release
        self._release = self._release.replace(fence, "? IS NOT NULL AND ? IS NOT NULL")


def releases_blindly(dsn: str, *, clock: Clock | None = None) -> StatefulAgentLoop:
    """Return the agent on a kernel in which a lease is given back by whoever had one; all else is fenced."""
    store.Sessions = _Unfenced  # type: ignore[misc]
    return make_loop(dsn, clock=clock)
