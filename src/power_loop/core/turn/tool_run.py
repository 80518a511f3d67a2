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
from power_loop.contracts.tools import Waiting
from power_loop.core.context import texts
from power_loop.core.turn.threads import ThreadPool
from power_loop.tools.output import Output, error_output, output_of

# How long an async handler that was cancelled may take to clean up before the turn goes on without it.
GRACE_S = 0.05


@frozen
class Outcome:
    """Is how a call ended: its state, what it gave, and the exception that it raised if it did."""

    state: CallState
    output: Output | None = None
    waiting: Waiting | None = None
    error: BaseException | None = None


class HandlerRun:
    """Is one run of one handler in a task of its own, which `stop` and its time limit can end."""

    __slots__ = ("_is_async", "_keywords", "_token", "cause", "handler", "name", "task", "threads", "timeout_s")

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
    ) -> None:
        self.handler = handler
        self.name = name
        self.timeout_s = timeout_s
        self.threads = threads
        self.cause: str | None = None
        self._keywords = keywords
        self._is_async = is_async
        self._token = token
        self.task: asyncio.Task[Outcome] = asyncio.get_running_loop().create_task(self._run())

    def stop(self, cause: str = "stopped") -> None:
        """Cancel the handler; the first cause stays."""
        if self.cause is None and not self.task.done():
            self.cause = cause
            self._token.cancel(cause)
            self.task.cancel()

    async def _run(self) -> Outcome:
        timer = None
        if self.timeout_s is not None:
            timer = asyncio.get_running_loop().call_later(max(self.timeout_s, 0.0), self.stop, "timeout")
        try:
            given = await self._call()
        except asyncio.CancelledError as error:
            return self._cancelled(error)
        except ToolError as error:
            return Outcome(CallState.FAILED, error_output(error.message), error=error)
        except BaseException as error:  # a stranger's code: whatever it raises becomes its outcome
            if self._is_async and isinstance(error, (KeyboardInterrupt, GeneratorExit)):
                raise
            return Outcome(CallState.FAILED, error_output(texts.crashed(self.name, error)), error=error)
        finally:
            if timer is not None:
                timer.cancel()
        output = output_of(given)
        if isinstance(output, Waiting):
            return Outcome(CallState.WAITING, waiting=output)
        return Outcome(CallState.FAILED if output.is_error else CallState.SUCCEEDED, output)

    async def _call(self) -> Any:
        keywords = self._keywords()
        if self._is_async:
            return await self.handler(**keywords)
        given = await self.threads.run(functools.partial(self.handler, **keywords))
        # A plain function may still hand out something to wait for.
        return await given if inspect.isawaitable(given) else given

    def _cancelled(self, error: asyncio.CancelledError) -> Outcome:
        if self.cause == "timeout":
            text = texts.timed_out(self.name, self.timeout_s or 0.0, may_still_run=not self._is_async)
            return Outcome(CallState.FAILED, error_output(text), error=TimeoutError(text))
        if self.cause is None:
            return Outcome(CallState.FAILED, error_output(texts.crashed(self.name, error)), error=error)
        return Outcome(CallState.ABORTED, error_output(texts.cancelled_while_running(may_still_run=not self._is_async)))


async def collect(runs: list[HandlerRun], *, grace_s: float = GRACE_S) -> dict[HandlerRun, Outcome]:
    """Stop runs and return how each ended; a handler that ignores its cancellation is left behind as aborted."""
    for run in runs:
        run.stop()
    tasks = [run.task for run in runs if not run.task.done()]
    if tasks:
        await asyncio.wait(tasks, timeout=grace_s)
    left_behind = Outcome(CallState.ABORTED, error_output(texts.cancelled_while_running(may_still_run=True)))
    return {run: run.task.result() if run.task.done() and not run.task.cancelled() else left_behind for run in runs}
