"""Serves a subscriber that may be slow from a bounded queue, so that no turn ever waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections import deque
from collections.abc import Awaitable, Callable

from power_loop.contracts.events import AgentEvent
from power_loop.core.forked_child import renew_in_child

#: A thread without work ends after this long, so that a forgotten subscription keeps none.
THREAD_LINGER_S = 2.0
#: An async subscriber that never really waits gives way to the event loop after this many events.
EVENTS_PER_TURN = 32


class BackgroundServer:
    """Is a queue of at most `max_queue` events and whoever serves it, in order, one at a time.

    A full queue drops its oldest event, because the end of a story tells more than its beginning, and counts it in
    `dropped`. `put` takes events from any thread and never waits.
    """

    def __init__(self, *, max_queue: int) -> None:
        self.dropped = 0
        self._max_queue = max_queue
        self._lock = threading.Lock()
        self._events: deque[AgentEvent] = deque()
        self._is_serving = False
        self._is_stopped = False
        self._waiters: list[asyncio.Future[None]] = []
        renew_in_child(self, BackgroundServer._begin_anew)

    def put(self, event: AgentEvent) -> None:
        """Queue an event."""
        with self._lock:
            if self._is_stopped:
                return
            if len(self._events) >= self._max_queue:
                self._events.popleft()
                self.dropped += 1
            self._events.append(event)
        self.serve()

    def serve(self) -> None:
        """See to it that somebody serves what is queued."""
        raise NotImplementedError

    def stop(self) -> None:
        """Take no more events and forget those that wait."""
        with self._lock:
            self._is_stopped = True
            self._events.clear()

    def is_caller(self) -> bool:
        """Tell whether it is the callback itself that runs this, which would wait for itself."""
        raise NotImplementedError

    def cancel(self) -> asyncio.Task[None] | None:
        """Break off the call that runs, if that can be done; return the task that ends with it here, if one does."""
        return None

    async def wait_until_idle(self) -> None:
        """Return as soon as everything that is queued was served."""
        idle = asyncio.get_running_loop().create_future()
        with self._lock:
            if not self._events and not self._is_serving:
                return
            self._waiters.append(idle)
        self.serve()
        await idle

    def _begin_anew(self) -> None:
        """Leave to the parent what is queued there and who serves it."""
        self._lock = threading.Lock()
        self._events.clear()
        self._waiters.clear()
        self._is_serving = False
        self._leave_server()

    def _leave_server(self) -> None:
        """Forget, in a forked child, who serves in the parent."""
        raise NotImplementedError

    def _next(self) -> AgentEvent | None:
        """Return the next event; where there is none, tell those who wait for that."""
        with self._lock:
            if self._events:
                self._is_serving = True
                return self._events.popleft()
            self._is_serving = False
            waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            resolve_from_any_thread(waiter)
        return None


class ThreadServer(BackgroundServer):
    """Serves a sync callback, which may block, in a daemon thread of its own."""

    def __init__(self, callback: Callable[[AgentEvent], None], *, max_queue: int, name: str) -> None:
        super().__init__(max_queue=max_queue)
        self._callback = callback
        self._name = name
        self._arrived = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None
        self._is_asleep = False

    def serve(self) -> None:
        """Wake the thread, or start one."""
        with self._lock:
            if not self._events:
                return
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=f"power-loop-{self._name}", daemon=True)
                self._thread.start()
            elif self._is_asleep:
                self._arrived.notify()

    def is_caller(self) -> bool:
        """Tell whether this runs in the server's own thread."""
        return self._thread is threading.current_thread()

    def stop(self) -> None:
        """Take no more events, forget those that wait, and let the thread end."""
        super().stop()
        with self._lock:
            self._arrived.notify_all()

    def _leave_server(self) -> None:
        self._arrived = threading.Condition(self._lock)
        self._thread = None
        self._is_asleep = False

    def _run(self) -> None:
        while True:
            event = self._next()
            if event is not None:
                self._callback(event)
            elif not self._has_more():
                return

    def _has_more(self) -> bool:
        """Sleep until an event comes; False after too long, when the thread is over."""
        with self._lock:
            self._is_asleep = True
            if not self._events and not self._is_stopped:
                self._arrived.wait(THREAD_LINGER_S)
            self._is_asleep = False
            if not self._events:
                self._thread = None
                return False
            return True


class TaskServer(BackgroundServer):
    """Serves an async callback in a task of the event loop, which lives only while there is something to serve.

    The loop is the one that ran at the subscription or, if none did or it is closed, the one that runs at an event.
    """

    def __init__(self, callback: Callable[[AgentEvent], Awaitable[None]], *, max_queue: int) -> None:
        super().__init__(max_queue=max_queue)
        self._callback = callback
        self._loop = running_loop()
        # A task would inherit the context (the tracing span, say) of whichever turn happened to emit first.
        self._context = contextvars.copy_context()
        self._task: asyncio.Task[None] | None = None
        self._has_task = False

    def serve(self) -> None:
        """Start the task if there is none."""
        running = running_loop()
        with self._lock:
            if self._loop is None or self._loop.is_closed():
                self._loop, self._has_task = running, False
            loop = self._loop
            if self._task is not None and self._task.done():
                # It was cancelled before its first step.
                self._has_task = False
            if loop is None or self._has_task or not self._events:
                return
            self._has_task, self._task = True, None
        if loop is running:
            self._start(loop)
            return
        try:
            loop.call_soon_threadsafe(self._start, loop)
        except RuntimeError:
            # The loop was closed since we looked: the events wait for the next one.
            with self._lock:
                self._has_task = False

    def _leave_server(self) -> None:
        self._loop = self._task = None
        self._has_task = False

    def is_caller(self) -> bool:
        """Tell whether this runs in the server's own task."""
        task = self._task
        return task is not None and running_loop() is task.get_loop() and asyncio.current_task() is task

    def cancel(self) -> asyncio.Task[None] | None:
        """Break off the call that runs, unless it is that call which asks for it."""
        with self._lock:
            task, loop = self._task, self._loop
        if task is None or loop is None or task.done():
            return None
        if loop is not running_loop():
            # A closed event loop has no tasks left.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(task.cancel)
            return None
        if self.is_caller():
            return None
        task.cancel()
        return task

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._task = self._context.run(loop.create_task, self._run())

    async def _run(self) -> None:
        served = 0
        try:
            while (event := self._next()) is not None:
                await self._callback(event)
                served += 1
                if served % EVENTS_PER_TURN == 0:
                    await asyncio.sleep(0)
        finally:
            with self._lock:
                self._has_task = self._is_serving = False
        # An event that came between the last look and the line above found a task that was over.
        self.serve()


def resolve_from_any_thread(future: asyncio.Future[None]) -> None:
    """Let whoever awaits `future` go on, also from outside of its event loop, and also if nobody waits any more."""
    loop = future.get_loop()
    if running_loop() is loop:
        _resolve(future)
        return
    # The loop may be closed between a wait that was given up and this line.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(_resolve, future)


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that runs in this thread, if one does."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
