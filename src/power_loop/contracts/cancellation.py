"""One token that says stop, from whichever thread or event it comes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

# A threading.Event cannot call back, so a watched one is looked at this often; well under the promised 100 ms.
_POLL_S = 0.02


class CancellationToken:
    """Asks the turn that holds it to end; may be cancelled from any thread, any number of times.

    `CancellationToken.from_event(event)` follows an `asyncio.Event` or a `threading.Event` that the application already
    has.
    """

    __slots__ = ("_callbacks", "_event", "_lock", "_reason")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reason: str | None = None
        self._callbacks: dict[object, Callable[[], None]] = {}
        self._event: asyncio.Event | threading.Event | None = None

    @classmethod
    def from_event(cls, event: asyncio.Event | threading.Event) -> CancellationToken:
        """Return a token that counts as cancelled once `event` is set."""
        token = cls()
        token._event = event
        return token

    @property
    def is_cancelled(self) -> bool:
        """True once cancel() was called or the followed event was set."""
        return self._reason is not None or (self._event is not None and self._event.is_set())

    @property
    def reason(self) -> str:
        """The word given to cancel(), or `"cancelled"`."""
        return self._reason or "cancelled"

    def cancel(self, reason: str = "cancelled") -> None:
        """Cancel; the first reason stays."""
        with self._lock:
            if self._reason is not None:
                return
            self._reason = reason
            callbacks = list(self._callbacks.values())
            self._callbacks.clear()
        for callback in callbacks:
            callback()

    def watch(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` once, in the running event loop, as soon as the token is cancelled; return what ends the
        watch."""
        loop = asyncio.get_running_loop()

        def call_in_loop() -> None:
            # The loop may be closed between a cancel in another thread and this line.
            if not loop.is_closed():
                loop.call_soon_threadsafe(callback)

        key = object()
        with self._lock:
            already = self.is_cancelled
            if not already:
                self._callbacks[key] = call_in_loop
        if already:
            loop.call_soon(callback)
            return lambda: None
        stop_following = self._follow(loop) if self._event is not None else None

        def unwatch() -> None:
            with self._lock:
                self._callbacks.pop(key, None)
            if stop_following is not None:
                stop_following()

        return unwatch

    async def wait(self) -> None:
        """Return once the token is cancelled."""
        done = asyncio.Event()
        unwatch = self.watch(done.set)
        try:
            await done.wait()
        finally:
            unwatch()

    def _follow(self, loop: asyncio.AbstractEventLoop) -> Callable[[], None]:
        event = self._event
        if isinstance(event, asyncio.Event):
            waiter = loop.create_task(event.wait())
            waiter.add_done_callback(lambda task: None if task.cancelled() else self.cancel())

            def stop_waiting() -> None:
                waiter.cancel()

            return stop_waiting
        handle: asyncio.TimerHandle

        def look() -> None:
            nonlocal handle
            if self.is_cancelled:
                self.cancel()
            else:
                handle = loop.call_later(_POLL_S, look)

        handle = loop.call_later(_POLL_S, look)
        return lambda: handle.cancel()
