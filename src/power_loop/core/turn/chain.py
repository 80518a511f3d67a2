"""Keeps a turn from waiting for itself: knows for the running task whose turns wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")

#: Whose turn waits: a desk, by its id, and a session.
Waiter = tuple[int, str]

# A task that a hook or a handler starts on its own inherits the variable, but nobody waits for it: so the value names
# the task that it is about.
_CHAIN: ContextVar[tuple[asyncio.Task[Any] | None, frozenset[Waiter]]] = ContextVar("power_loop_chain")


def waiters() -> frozenset[Waiter]:
    """Return whose turns wait for the running task."""
    task, chain = _CHAIN.get((None, frozenset()))
    return chain if task is not None and task is asyncio.current_task() else frozenset()


def add_waiter(waiter: Waiter) -> None:
    """Note that from here on a turn waits for the running task."""
    _CHAIN.set((asyncio.current_task(), waiters() | {waiter}))


def start(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Run work in a task of its own, for which the running one is going to wait."""
    return asyncio.get_running_loop().create_task(_in_chain(work, waiters()))


async def _in_chain(work: Coroutine[Any, Any, T], chain: frozenset[Waiter]) -> T:
    if chain:
        _CHAIN.set((asyncio.current_task(), chain))
    return await work
