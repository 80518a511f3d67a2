"""Keeps a turn from waiting for itself: knows for the running task whose turns wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import ContextVar, Token, copy_context
from typing import Any, TypeVar

from power_loop.core.background import resolve_from_any_thread
from power_loop.core.stray import counting_task

T = TypeVar("T")

#: How long a task waits to see whether the hook or the handler that started it returns, or waits for it.
SUSPENSE_S = 2.0

#: Whose turn waits: a desk or a handle, by its id, and a session.
Waiter = tuple[int, str]


class _Link:
    """Is what a task does that others wait for: a turn (its `waiter`), a hook or a handler of one.

    `before` is the link whose task started this one's; `is_sure` tells that it waits for it. Where it is not, as with
    what a hook or a handler starts by itself, nobody can see whether it waits, in a `gather` or a `wait_for`, until it
    returns: then `is_open` ends, and `leaving` learns of it.
    """

    __slots__ = ("before", "is_open", "is_sure", "leaving", "task", "waiter")

    def __init__(
        self, task: asyncio.Task[Any] | None, before: _Link | None, *, is_open: bool, waiter: Waiter | None = None
    ) -> None:
        self.task = task
        self.before = before
        self.is_sure = before is not None and before.task is asyncio.current_task()
        self.is_open = is_open
        self.waiter = waiter
        self.leaving: list[asyncio.Future[None]] = []

    def may_wait(self) -> bool:
        """Tell whether the task may be waiting for one that it started."""
        return self.is_open and self.task is not None and not self.task.done()

    def end(self, _: object = None) -> None:
        """Wait for no other task any more."""
        self.is_open = False
        for future in tuple(self.leaving):
            resolve_from_any_thread(future)


#: What `lend` gives, for `end_loan`.
Loan = tuple[_Link, Token[_Link | None]]

_LINK: ContextVar[_Link | None] = ContextVar("power_loop_chain", default=None)


async def is_awaited_by(waiter: Waiter) -> bool:
    """Tell whether this one waits for the running task.

    A hook or a handler that may be waiting for it is given `SUSPENSE_S` to return.
    """
    suspects = _suspects(waiter)
    if not suspects:
        return suspects is not None
    returned: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    suspects[0].leaving.append(returned)
    try:
        # It may have returned, in another thread, before anybody listened.
        if suspects[0].may_wait():
            await asyncio.wait((returned,), timeout=SUSPENSE_S)
        return _suspects(waiter) is not None
    finally:
        suspects[0].leaving.remove(returned)


def _suspects(waiter: Waiter) -> list[_Link] | None:
    """Return the links between the running task and `waiter` that may be waiting, none if all of them are; None if it
    does not wait for the running task."""
    link = _LINK.get()
    suspects: list[_Link] = []
    after: _Link | None = None
    is_sure = link is not None and link.task is asyncio.current_task()
    while link is not None:
        if not is_sure:
            if not link.may_wait():
                if after is not None:
                    after.before = None  # it never waits again, and is not kept
                return None
            suspects.append(link)
        if link.waiter == waiter:
            return suspects
        after, is_sure, link = link, link.is_sure, link.before
    return None


def add_waiter(waiter: Waiter) -> Token[_Link | None]:
    """Note that from here on a turn waits for the running task, for `drop_waiter`."""
    return _LINK.set(_Link(asyncio.current_task(), _LINK.get(), is_open=False, waiter=waiter))


def drop_waiter(token: Token[_Link | None]) -> None:
    """Note that the turn does not wait any more."""
    _LINK.reset(token)


def lend() -> Loan | None:
    """Note that a stranger's code is about to run in this task, and may wait for tasks that it starts."""
    before = _LINK.get()
    if before is None:
        return None
    link = _Link(asyncio.current_task(), before, is_open=True)
    return link, _LINK.set(link)


def end_loan(loan: Loan | None) -> None:
    """Note that the stranger's code has returned."""
    if loan is not None:
        link, token = loan
        link.end()
        _LINK.reset(token)


def start(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Run work in a task of its own, for which the running one is going to wait."""
    before = _LINK.get()
    if before is None:
        return counting_task(work)
    link = _Link(None, before, is_open=True)
    context = copy_context()
    context.run(_LINK.set, link)
    task: asyncio.Task[T] = context.run(counting_task, work)
    link.task = task
    task.add_done_callback(link.end)
    return task
