"""Runs one tool call's handler, whatever it does, to exactly one outcome."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable
from typing import Any

from power_loop.contracts.cancellation import CancellationToken
from power_loop.contracts.errors import ToolError
from power_loop.contracts.frozen import frozen
from power_loop.contracts.states import CallState
from power_loop.contracts.tools import InTransaction, ToolBody, ToolTransaction, Waiting
from power_loop.core.context import texts
from power_loop.core.turn.chain import start
from power_loop.core.turn.threads import NeverBegan, ThreadPool
from power_loop.tools.output import Output, error_output, output_of

# How long an async handler that was cancelled may take to clean up before the turn goes on without it.
GRACE_S = 0.05


@frozen
class Outcome:
    """Is how a call ended: its state, what it gave, and the exception that it raised if it did.

    With a `body` it is not over: that runs in the transaction which settles the call. `is_cut` marks one whose handler
    was at work when its time was over, so that nobody knows how far it came.
    """

    state: CallState
    output: Output | None = None
    waiting: Waiting | None = None
    error: BaseException | None = None
    body: ToolBody | None = None
    is_cut: bool = False


def in_transaction(handler: Callable[..., Any], parameter: str) -> Callable[..., Any]:
    """Return a handler that leaves the work of one which takes a transaction to the transaction of its call."""

    async def leave(**keywords: Any) -> InTransaction:
        async def body(tx: ToolTransaction) -> Any:
            return await handler(**keywords, **{parameter: tx})

        return InTransaction(body)

    return leave


class HandlerRun:
    """Is one run of one handler in a task of its own. `ended` gets its outcome, within moments once it was stopped.

    A handler that ignores its cancellation is left behind: what it does after that has no outcome. One that is held, by
    a sub-agent which comes to rest, is waited for.
    """

    __slots__ = (
        "_has_begun",
        "_is_async",
        "_is_held",
        "_keywords",
        "_loop",
        "_point",
        "_task",
        "_token",
        "cause",
        "ended",
        "handler",
        "name",
        "threads",
        "timeout_s",
    )

    def __init__(
        self,
        handler: Callable[..., Any],
        keywords: Callable[[], dict[str, Any]],
        *,
        name: str,
        is_async: bool,
        timeout_s: float | None,
        token: CancellationToken,
        threads: ThreadPool,
        point: Callable[[str, str], None] | None = None,
        is_held: Callable[[], bool] = lambda: False,
    ) -> None:
        self.handler = handler
        self.name = name
        self.timeout_s = timeout_s
        self.threads = threads
        self.cause: str | None = None
        self._keywords = keywords
        self._has_begun = False
        self._point = point
        self._is_held = is_held
        self._is_async = is_async
        self._token = token
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[Outcome] = self._loop.create_future()
        self._task: asyncio.Task[None] = start(self._run())
        self._task.add_done_callback(self._leave)

    def stop(self, cause: str = "stopped") -> None:
        """Cancel the handler; the first cause stays."""
        if self.cause is None and not self.ended.done():
            self.cause = cause
            self._token.cancel(cause)
            self._task.cancel()
            self._loop.call_later(GRACE_S, self._leave)

    def _leave(self, task: asyncio.Task[None] | None = None) -> None:
        """Settle a run that did not come to its own end: it was cancelled before its first step, or goes on."""
        if task is None and self._is_held():
            self._loop.call_later(GRACE_S, self._leave)
        elif not self.ended.done():
            self._end(self._cancelled(asyncio.CancelledError(), may_still_run=task is None))

    def _end(self, outcome: Outcome) -> None:
        if not self.ended.done():
            self.ended.set_result(outcome)

    async def _run(self) -> None:
        timer = None
        if self.timeout_s is not None:
            timer = self._loop.call_later(max(self.timeout_s, 0.0), self.stop, "timeout")
        try:
            given = await self._call()
        except asyncio.CancelledError as error:
            return self._end(self._cancelled(error, may_still_run=not self._is_async))
        except ToolError as error:
            return self._end(Outcome(CallState.FAILED, error_output(error.message), error=error))
        except BaseException as error:  # a stranger's code: whatever it raises becomes its outcome
            if self._is_async and isinstance(error, (KeyboardInterrupt, GeneratorExit)):
                raise
            return self._end(Outcome(CallState.FAILED, error_output(texts.crashed(self.name, error)), error=error))
        finally:
            if timer is not None:
                timer.cancel()
        if isinstance(given, InTransaction):
            return self._end(Outcome(CallState.SUCCEEDED, body=given.body))
        output = output_of(given)
        if isinstance(output, Waiting):
            return self._end(Outcome(CallState.WAITING, waiting=output))
        return self._end(Outcome(CallState.FAILED if output.is_error else CallState.SUCCEEDED, output))

    async def _call(self) -> Any:
        keywords = self._keywords()
        self._has_begun = True
        if self._point is not None:
            self._point("effect.before", self.name)
        given = await self._given(keywords)
        if self._point is not None:
            self._point("effect.after", self.name)
        return given

    async def _given(self, keywords: dict[str, Any]) -> Any:
        if self._is_async:
            return await self.handler(**keywords)
        try:
            given = await self.threads.run(functools.partial(self.handler, **keywords))
        except NeverBegan:
            self._has_begun = False
            raise
        # A plain function may still hand out something to wait for.
        return await given if inspect.isawaitable(given) else given

    def _cancelled(self, error: asyncio.CancelledError, *, may_still_run: bool) -> Outcome:
        if self.cause == "timeout":
            timeout_s = self.timeout_s or 0.0
            if self._has_begun:
                text = texts.timed_out(self.name, timeout_s, may_still_run=may_still_run)
            else:
                text = texts.never_began(self.name, timeout_s)
            return Outcome(CallState.FAILED, error_output(text), error=TimeoutError(text), is_cut=self._has_begun)
        if self.cause is None:
            return Outcome(CallState.FAILED, error_output(texts.crashed(self.name, error)), error=error)
        if not self._has_begun:
            return Outcome(CallState.ABORTED, error_output(texts.CANCELLED_CALL))
        return Outcome(CallState.ABORTED, error_output(texts.cancelled_while_running(may_still_run=may_still_run)))


async def collect(runs: list[HandlerRun]) -> dict[HandlerRun, Outcome]:
    """Stop runs and return how each ended."""
    for run in runs:
        run.stop()
    if runs:
        await asyncio.wait([run.ended for run in runs])
    return {run: run.ended.result() for run in runs}
