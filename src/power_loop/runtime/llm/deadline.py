"""Ends what a task is doing once its time is over, and tells that end from a cancellation by others."""

from __future__ import annotations

import asyncio
import sys
from types import TracebackType
from typing import Any

# Before Python 3.11 tasks do not count their cancellations: one by others in the very same instant is taken for ours.
_COUNTS_CANCELS = sys.version_info >= (3, 11)


class Deadline:
    """Raises `TimeoutError` out of its block after so many seconds, as `asyncio.timeout` does from Python 3.11 on.

    A plain context manager, because one is made for every model call.
    """

    __slots__ = ("_cancelling", "_handle", "_has_passed", "_seconds", "_task")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._has_passed = False

    def __enter__(self) -> Deadline:
        task: Any = asyncio.current_task()
        assert task is not None, "model calls run in tasks"
        self._task = task
        self._cancelling = task.cancelling() if _COUNTS_CANCELS else 0
        self._handle = asyncio.get_running_loop().call_later(self._seconds, self._pass)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._handle.cancel()
        if not self._has_passed:
            return
        others = self._task.uncancel() - self._cancelling if _COUNTS_CANCELS else 0
        if others <= 0 and kind is not None and issubclass(kind, asyncio.CancelledError):
            raise TimeoutError from exc

    def _pass(self) -> None:
        self._has_passed = True
        self._task.cancel()
