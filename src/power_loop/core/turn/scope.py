"""Lets a turn be stopped from anywhere, at once where it waits for a stranger and never inside a durable move."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Any, TypeVar

from power_loop.contracts.cancellation import CancellationToken
from power_loop.contracts.states import SendStatus
from power_loop.core.stray import EXITS, cancellations, is_stray, said, take_back
from power_loop.core.turn.chain import end_loan, lend

T = TypeVar("T")

_LOG = logging.getLogger("power_loop")
#: How long a hook that is told of what has happened may take once its turn is stopped: time to write it down somewhere.
PATIENCE_S = 0.5


class StopCause(Enum):
    """Is why a turn was told to stop."""

    CANCELLED = "cancelled"
    OUT_OF_TIME = "out of time"
    LEASE_LOST = "lease lost"


class TurnStopped(Exception):  # noqa: N818  (a signal of the loop to itself, not an error)
    """Says inside a turn that its scope was stopped."""


class TookTooLong(Exception):  # noqa: N818  (what becomes of it is the caller's word)
    """Says that a stranger's work was cancelled because its own time was over."""


class StrayExit(Exception):  # noqa: N818  (named after what it stands for)
    """Stands for what a stranger's code raised that is no `Exception`: a `CancelledError` although nobody had cancelled
    it, the panic of a native extension."""


class TurnScope:
    """Is the stop switch of one turn, which runs in a task that nobody else cancels.

    `stop` interrupts what the turn awaits through `interruptible` at once, and what it awaits `patiently` after a
    moment; everything else is carried to its end, and the turn sees `cause` when it looks next. `token` is what tools
    are given.
    """

    __slots__ = (
        "_inside",
        "_is_cancelled",
        "_is_left",
        "_on_stop",
        "_undo",
        "cause",
        "is_background",
        "is_handed_back",
        "reason",
        "token",
    )

    def __init__(self, *, is_background: bool = False) -> None:
        self.cause: StopCause | None = None
        self.reason = ""
        # Nobody waits for a turn in the background: at the end of its event loop it is left as it is, to be recovered.
        self.is_background = is_background
        self._is_left = False
        # What it ends with is no fault of the turn's: whoever takes it up counts no death.
        self.is_handed_back = False
        self.token = CancellationToken()
        self._inside: asyncio.Task[Any] | None = None
        self._is_cancelled = False
        self._on_stop: Callable[[], None] | None = None
        self._undo: list[Callable[[], Any]] = []

    @property
    def is_left(self) -> bool:
        """True once its turn is to be left as it is, for others to go on with."""
        return self._is_left

    @property
    def status(self) -> SendStatus | None:
        """The status with which a stopped turn ends."""
        if self.cause is None:
            return None
        return SendStatus.TIME_EXCEEDED if self.cause is StopCause.OUT_OF_TIME else SendStatus.CANCELLED

    def stop(self, cause: StopCause, reason: str = "") -> None:
        """Stop the turn; the first cause stays. Called in the turn's event loop."""
        if self.cause is not None:
            return
        self.cause = cause
        self.reason = reason or cause.value
        if self._inside is not None:
            self._is_cancelled = True
            self._inside.cancel()
        if self._on_stop is not None:
            self._on_stop()
        self.token.cancel(self.reason)

    def leave(self, reason: str) -> None:
        """Stop the turn where it stands: its send runs on for whoever takes it up. The first cause stays."""
        if self.cause is None:
            self.is_background = self._is_left = True
            self.stop(StopCause.CANCELLED, reason)

    def follow(self, token: CancellationToken) -> None:
        """Stop when `token` is cancelled; at once if it is already."""
        if token.is_cancelled:
            self.stop(StopCause.CANCELLED, token.reason)
            return
        self._undo.append(token.watch(lambda: self.stop(StopCause.CANCELLED, token.reason)))

    def stop_after(self, seconds: float) -> None:
        """Stop, out of time, after so many seconds."""
        timer = asyncio.get_running_loop().call_later(seconds, self.stop, StopCause.OUT_OF_TIME)
        self._undo.append(timer.cancel)

    def check(self) -> None:
        """Raise `TurnStopped` if the scope was stopped."""
        if self.cause is not None:
            raise TurnStopped

    def close(self) -> None:
        """Follow nobody any more."""
        for undo in self._undo:
            undo()
        self._undo.clear()

    async def interruptible(self, work: Awaitable[T], *, within_s: float = math.inf) -> T:
        """Await a stranger's work. Raises `TurnStopped` at once when the scope is or was stopped, `TookTooLong` when
        `within_s` seconds are over, and `StrayExit` for what the stranger raises that is no `Exception`."""
        if self.cause is not None:
            if asyncio.iscoroutine(work):
                work.close()
            raise TurnStopped
        task = self._inside = asyncio.current_task()
        limit = None if within_s == math.inf or task is None else _Limit(task, within_s)
        before, loan = cancellations(), lend()
        try:
            return await work
        except asyncio.CancelledError as error:
            if self.cause is None:
                if limit is not None and limit.is_over:
                    raise TookTooLong from None
                if is_stray(before):
                    raise StrayExit(said(error)) from error
                # The event loop is being shut down: that ends the turn like any other cancellation.
                self.stop_quietly()
            raise TurnStopped from None
        except EXITS:
            raise
        except BaseException as error:
            if self.cause is not None:
                # Whatever a stranger makes of its cancellation, the turn was stopped.
                raise TurnStopped from error
            if limit is not None and limit.is_over:
                raise TookTooLong from error
            if isinstance(error, Exception):
                raise
            raise StrayExit(said(error)) from error
        finally:
            end_loan(loan)
            if limit is not None:
                limit.close()
            self._inside = None
            if self._is_cancelled and task is not None:
                self._is_cancelled = False
                take_back(task)

    async def patiently(self, work: Awaitable[T], *, within_s: float = math.inf) -> T:
        """Await what a stranger does about something that has happened, which no stop undoes.

        It has `within_s` seconds, and once the scope is or was stopped `PATIENCE_S` more at most; then it is cancelled,
        and `TimeoutError` raised in its place.
        """
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        timers: list[asyncio.TimerHandle] = []
        is_late = False

        def give_up() -> None:
            nonlocal is_late
            is_late = True
            task.cancel()

        def begin() -> None:
            timers.append(loop.call_later(PATIENCE_S, give_up))

        if within_s < math.inf:
            timers.append(loop.call_later(within_s, give_up))
        before, loan = cancellations(), lend()
        if self.cause is None:
            self._on_stop = begin
        else:
            begin()
        try:
            return await work
        except asyncio.CancelledError:
            if is_late:
                if self.cause is None:
                    raise TimeoutError(f"this was cancelled because it took longer than {within_s:g} s") from None
                raise TimeoutError(
                    f"the turn was stopped, and this was cancelled because it took longer than {PATIENCE_S:g} s then"
                ) from None
            if is_stray(before):
                raise
            self._on_stop = None
            self.stop_quietly()
            raise TimeoutError("the event loop is shutting down, which cancelled this") from None
        finally:
            end_loan(loan)
            self._on_stop = None
            for timer in timers:
                timer.cancel()
            if is_late:
                take_back(task)

    def stop_quietly(self) -> None:
        """Note that the turn's own task was cancelled, without cancelling it again."""
        self._inside = None
        self._is_left = self.is_background
        self.stop(StopCause.CANCELLED, "the event loop is shutting down")

    def check_left(self) -> None:
        """Raise `CancelledError` in a turn that is left as it is."""
        if self._is_left:
            raise asyncio.CancelledError


class _Limit:
    """Cancels a task after so many seconds, unless it is closed before."""

    __slots__ = ("_task", "_timer", "is_over")

    def __init__(self, task: asyncio.Task[Any], seconds: float) -> None:
        self.is_over = False
        self._task = task
        self._timer = asyncio.get_running_loop().call_later(seconds, self._end)

    def close(self) -> None:
        """Leave the task alone, and take back what was asked of it."""
        self._timer.cancel()
        if self.is_over:
            take_back(self._task)

    def _end(self) -> None:
        self.is_over = True
        self._task.cancel()


async def uninterrupted(work: Awaitable[T]) -> T:
    """Carry `work` to its end even if the awaiting task is cancelled meanwhile, then raise that cancellation."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as error:  # noqa: PERF203 - a few rounds at most
            cancelled = error
    if cancelled is not None:
        if not task.cancelled() and task.exception() is not None:
            _LOG.debug("a durable move failed while its caller was cancelled", exc_info=task.exception())
        raise cancelled
    return task.result()
