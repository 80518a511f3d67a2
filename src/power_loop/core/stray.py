"""Tells what a stranger's code raises by itself from what is meant for everybody, and says it in words."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

#: What ends a process or a generator, whoever's code happens to run. Anything else is its raiser's own affair.
EXITS = (KeyboardInterrupt, SystemExit, GeneratorExit)

if sys.version_info < (3, 11):

    class _CountingTask(asyncio.Task[Any]):
        """Counts the cancellations that are asked of it, as every task does from Python 3.11 on."""

        _count = 0

        def cancel(self, msg: Any = None) -> bool:
            is_asked = super().cancel(msg)
            self._count += is_asked
            return is_asked

        def cancelling(self) -> int:
            return self._count

        def uncancel(self) -> int:
            self._count = max(self._count - 1, 0)
            return self._count


def counting_task(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Run work in a task that counts its cancellations."""
    loop = asyncio.get_running_loop()
    if sys.version_info < (3, 11):
        return _CountingTask(work, loop=loop)
    else:
        return loop.create_task(work)


def cancellations() -> int | None:
    """Return how many cancellations were asked of the running task and not taken back; None where nobody counts."""
    count = getattr(asyncio.current_task(), "cancelling", None)
    return None if count is None else int(count())


def is_stray(before: int | None) -> bool:
    """Tell whether nobody cancelled the running task since there were `before` cancellations."""
    return before is not None and (cancellations() or 0) <= before


def said(error: BaseException) -> str:
    """Return the kind of a stranger's exception and its words, if these can be had: it may not even be printable."""
    try:
        words = str(error)
    except Exception:
        words = "(it cannot be printed)"
    return f"{type(error).__name__}: {words}"


def take_back(task: asyncio.Task[Any]) -> None:
    """Take a cancellation that was seen to off a task's count, which timeouts and task groups look at."""
    uncancel = getattr(task, "uncancel", None)
    if uncancel is not None:
        uncancel()
