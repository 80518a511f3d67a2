"""Lets a script without an event loop use a handle: its calls run in an event loop of the handle's own thread."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from power_loop.contracts.errors import InputError

T = TypeVar("T")
P = ParamSpec("P")


class RunsSync(Protocol):
    """Is a handle whose methods have blocking twins."""

    def run_sync(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what `work` returns."""
        ...


H = TypeVar("H", bound=RunsSync)


def twin(method: Callable[Concatenate[H, P], Coroutine[Any, Any, T]]) -> Callable[Concatenate[H, P], T]:
    """Return the blocking twin of an async method: the same parameters, the same result, the same errors."""

    @wraps(method)
    def run(handle: H, /, *args: P.args, **options: P.kwargs) -> T:
        return handle.run_sync(method(handle, *args, **options))

    run.__name__ = f"{method.__name__}_sync"
    run.__qualname__ = f"{method.__qualname__}_sync"
    run.__doc__ = f"Do what `{method.__name__}` does, and return when it is done."
    return run


def refuse_to_block(work: Coroutine[Any, Any, Any]) -> None:
    """Raise `input.invalid` in a thread whose event loop a wait for `work` would block."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    work.close()
    raise InputError("a *_sync method was called inside a running event loop, which it would block: await its twin")


class SyncRunner:
    """Is an event loop in a daemon thread; ends with `close()` or with its last reference.

    In a forked child its thread does not run: `is_here` tells, and ending it does nothing there.
    """

    __slots__ = ("__weakref__", "_end", "_loop", "_pid")

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        thread = threading.Thread(target=_serve, args=(self._loop,), name="power-loop-sync", daemon=True)
        thread.start()
        self._pid = os.getpid()
        self._end = weakref.finalize(self, _end, self._loop, thread, self._pid)

    @property
    def is_here(self) -> bool:
        """True in the process that it was made in."""
        return self._pid == os.getpid()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what `work` returns."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            # Ctrl-C ends the turn too; when the future has an error of its own this changes nothing.
            future.cancel()
            raise

    def close(self) -> None:
        """End the thread; what still runs in it is cancelled and brought to rest."""
        self._end()


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


def _end(loop: asyncio.AbstractEventLoop, thread: threading.Thread, pid: int) -> None:
    if pid != os.getpid():
        # The child has the parent's descriptors: a word to this event loop would be heard there.
        return
    if not loop.is_closed():
        loop.call_soon_threadsafe(loop.stop)
    if thread is not threading.current_thread():
        thread.join(timeout=10.0)
