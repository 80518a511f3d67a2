"""Keeps a turn from waiting for itself: knows for the running task whose turns wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import ContextVar, Token, copy_context
from typing import Any, TypeVar

from power_loop.core.stray import counting_task

T = TypeVar("T")

#: Whose turn waits: a desk or a handle, by its id, and a session.
Waiter = tuple[int, str]


class _Link:
    """Is whose turns wait for one task.

    The tasks that it starts inherit the variable below. A `is_shared` link holds for them too: a hook or a handler that
    has not returned may be waiting for whatever it started, in a `gather` or a `wait_for`. One that has returned waits
    for nobody.
    """

    __slots__ = ("is_shared", "task", "waiters")

    def __init__(self, task: asyncio.Task[Any] | None, waiters: frozenset[Waiter], *, is_shared: bool) -> None:
        self.task = task
        self.waiters = waiters
        self.is_shared = is_shared


#: What `lend` gives, for `end_loan`.
Loan = tuple[_Link, Token[_Link | None]]

_LINK: ContextVar[_Link | None] = ContextVar("power_loop_chain", default=None)


def waiters() -> frozenset[Waiter]:
    """Return whose turns wait for the running task, or may be waiting for it."""
    link = _LINK.get()
    if link is None or link.task is None:
        return frozenset()
    is_awaited = link.task is asyncio.current_task() or (link.is_shared and not link.task.done())
    return link.waiters if is_awaited else frozenset()


def add_waiter(waiter: Waiter) -> None:
    """Note that from here on a turn waits for the running task."""
    _LINK.set(_Link(asyncio.current_task(), waiters() | {waiter}, is_shared=False))


def lend() -> Loan | None:
    """Note that a stranger's code is about to run in this task, and may wait for tasks that it starts."""
    link = _LINK.get()
    if link is None:
        return None
    lent = _Link(asyncio.current_task(), waiters(), is_shared=True)
    return lent, _LINK.set(lent)


def end_loan(loan: Loan | None) -> None:
    """Note that the stranger's code has returned."""
    if loan is not None:
        link, token = loan
        link.is_shared = False
        _LINK.reset(token)


def start(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Run work in a task of its own, for which the running one is going to wait."""
    chain = waiters()
    if not chain:
        return counting_task(work)
    link = _Link(None, chain, is_shared=True)
    context = copy_context()
    context.run(_LINK.set, link)
    task: asyncio.Task[T] = context.run(counting_task, work)
    link.task = task
    return task
