"""Keeps a turn from waiting for itself: knows for the running task whose turns wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import ContextVar, copy_context
from typing import Any, TypeVar

T = TypeVar("T")

#: Whose turn waits: a desk, by its id, and a session.
Waiter = tuple[int, str]


class _Link:
    """Is whose turns wait for one task.

    A task that a hook or a handler starts on its own inherits the variable below, but nobody waits for it: so a link
    names its task.
    """

    __slots__ = ("task", "waiters")

    def __init__(self, task: asyncio.Task[Any] | None, waiters: frozenset[Waiter]) -> None:
        self.task = task
        self.waiters = waiters


_LINK: ContextVar[_Link | None] = ContextVar("power_loop_chain", default=None)


def waiters() -> frozenset[Waiter]:
    """Return whose turns wait for the running task."""
    link = _LINK.get()
    return link.waiters if link is not None and link.task is asyncio.current_task() else frozenset()


def add_waiter(waiter: Waiter) -> None:
    """Note that from here on a turn waits for the running task."""
    _LINK.set(_Link(asyncio.current_task(), waiters() | {waiter}))


def start(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Run work in a task of its own, for which the running one is going to wait."""
    loop, chain = asyncio.get_running_loop(), waiters()
    if not chain:
        return loop.create_task(work)
    link = _Link(None, chain)
    context = copy_context()
    context.run(_LINK.set, link)
    task: asyncio.Task[T] = context.run(loop.create_task, work)
    link.task = task
    return task
