"""Runs blocking tool handlers in daemon threads of their own, so that a stuck one holds up nothing but itself."""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
import weakref
from collections.abc import Callable
from typing import Any

MAX_THREADS = 64
# A thread that has had nothing to do for so long ends.
IDLE_S = 10.0


class NeverBegan(asyncio.CancelledError):
    """Says that a wait was cancelled while its function had not begun: it is not run any more."""


class _Job:
    """Is a function on its way to a thread; either the thread takes it, or the one who waits takes it back."""

    __slots__ = ("_claim", "context", "function", "future", "loop")

    def __init__(self, function: Callable[[], Any], loop: asyncio.AbstractEventLoop) -> None:
        self.function = function
        self.loop = loop
        self.future: asyncio.Future[Any] = loop.create_future()
        self.context = contextvars.copy_context()
        self._claim = threading.Lock()

    def claim(self) -> bool:
        """Take the job, once and for all; False if the other side was first."""
        return self._claim.acquire(blocking=False)


class ThreadPool:
    """Grows to at most `MAX_THREADS` threads as blocking handlers come, and shrinks when they are gone.

    Its threads end with it. The standard executor joins its threads at interpreter exit, so one handler that never
    returns would keep the process alive.
    """

    __slots__ = ("__weakref__", "_workers")

    def __init__(self) -> None:
        self._workers = _Workers()
        # The end of the process ends daemon threads by itself.
        weakref.finalize(self, self._workers.end).atexit = False

    @property
    def threads(self) -> int:
        """How many threads there are."""
        return self._workers.threads

    @property
    def idle(self) -> int:
        """How many of them have nothing to do."""
        return self._workers.idle

    async def run(self, function: Callable[[], Any]) -> Any:
        """Return what `function` returns in a thread.

        Cancelling the wait does not end a function that runs; one that has not begun never does: `NeverBegan`.
        """
        job = _Job(function, asyncio.get_running_loop())
        self._workers.take(job)
        try:
            return await job.future
        except asyncio.CancelledError as error:
            if job.claim():
                raise NeverBegan(*error.args) from error
            raise


class _Workers:
    """Is what the threads of a pool share; they do not hold the pool itself, whose end is theirs."""

    __slots__ = ("_backlog", "_jobs", "_lock", "idle", "threads")

    def __init__(self) -> None:
        # None is the end.
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self.threads = 0
        # Threads that no job counts on, and jobs that count on no thread.
        self.idle = 0
        self._backlog = 0

    def take(self, job: _Job) -> None:
        """Have a job run by a thread that is idle, or a new one, or the next that has time."""
        starts = False
        with self._lock:
            if self.idle:
                self.idle -= 1
            elif self.threads < MAX_THREADS:
                self.threads += 1
                starts = True
            else:
                self._backlog += 1
        self._jobs.put(job)
        if starts:
            threading.Thread(target=self._work, name="power-loop-tool", daemon=True).start()

    def end(self) -> None:
        """Let every thread go that has nothing to do. A finalizer can run anywhere, so that it takes no lock."""
        self._jobs.put(None)

    def _work(self) -> None:
        while True:
            try:
                job = self._jobs.get(timeout=IDLE_S)
            except queue.Empty:
                with self._lock:
                    if self.idle:
                        self.idle -= 1
                        self.threads -= 1
                        return
                continue  # a job counts on this thread and is on its way
            if job is None:
                self._jobs.put(None)  # for the next thread
                return
            if job.claim():
                _run(job)
            del job
            with self._lock:
                if self._backlog:
                    self._backlog -= 1
                else:
                    self.idle += 1


def _run(job: _Job) -> None:
    result: Any = None
    error: BaseException | None = None
    try:
        result = job.context.run(job.function)
    except BaseException as caught:
        error = caught
    try:
        job.loop.call_soon_threadsafe(_settle, job.future, result, error)
    except RuntimeError:  # the event loop is closed: nobody waits any more
        return


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    elif isinstance(error, StopIteration):
        # A future refuses it, because it would end the awaiting coroutine as if by return.
        future.set_exception(RuntimeError(f"the handler raised {error!r}"))
    else:
        future.set_exception(error)
