"""Keeps what the handles of one open database share within a process: who this process is, whose turn it is, tool
threads."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from power_loop.contracts.errors import InputError
from power_loop.contracts.ports import SessionStore
from power_loop.core.background import resolve_from_any_thread
from power_loop.core.turn.chain import add_waiter, drop_waiter, is_awaited_by
from power_loop.core.turn.scope import StopCause, TurnScope
from power_loop.core.turn.threads import ThreadPool
from power_loop.core.turn.watcher import Watcher

_KEY = "core.turn.desk"
_LOCK = threading.Lock()


@dataclass(slots=True)
class _Queue:
    """Is the line of turns of one session in one event loop."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0


class Desk:
    """Lets one turn of a session run at a time, in order of arrival, and finds the running one to stop it.

    `owner` is the name under which this process takes leases.
    """

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.pid = os.getpid()
        self.threads = ThreadPool()
        self._queues: dict[tuple[int, str], _Queue] = {}
        # Whose turn it is or will be, in whichever event loop.
        self._present: dict[str, dict[TurnScope, asyncio.AbstractEventLoop]] = {}
        # Which of them holds the session's lease.
        self._running: dict[str, TurnScope] = {}
        # Who waits, in whichever event loop, for a turn of this process to end.
        self._ending: dict[str, set[asyncio.Future[None]]] = {}
        self._watchers: dict[int, Watcher] = {}
        # Leases that were taken for turns which are about to begin, with who had held them.
        self._taken: dict[str, str | None] = {}
        # How many event loops are about to take a session's lease.
        self._claims: dict[str, int] = {}
        self._lock = threading.Lock()

    @classmethod
    def of(cls, store: SessionStore, new_owner: Callable[[], str]) -> Desk:
        """Return the desk of an open database; a forked child gets one of its own."""
        desk: Any = store.memo.get(_KEY)
        if desk is None or desk.pid != os.getpid():
            with _LOCK:
                desk = store.memo.get(_KEY)
                if desk is None or desk.pid != os.getpid():
                    desk = store.memo[_KEY] = cls(new_owner())
        found: Desk = desk
        return found

    @contextlib.asynccontextmanager
    async def turn(self, session_id: str, scope: TurnScope, *, is_stoppable: bool = True) -> AsyncIterator[None]:
        """Wait for the session's turn in this event loop and hold it; `cancel` stops it from here on, if it may.

        Raises `input.invalid` inside that very turn, which would wait for itself.
        """
        waiter = (id(self), session_id)
        if await scope.interruptible(is_awaited_by(waiter)):
            raise InputError(
                f"session {session_id!r} was given something to do by a hook or a tool of its own turn that has not"
                " returned, so that the turn would wait for itself: start a task for it and return, or use another"
                " session"
            )
        token = add_waiter(waiter)
        loop = asyncio.get_running_loop()
        key = (id(loop), session_id)
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = _Queue()
        queue.waiting += 1
        if is_stoppable:
            with self._lock:
                self._present.setdefault(session_id, {})[scope] = loop
        try:
            if queue.waiting == 1:
                await queue.lock.acquire()
            else:
                await scope.interruptible(queue.lock.acquire())
            try:
                yield
            finally:
                queue.lock.release()
        finally:
            queue.waiting -= 1
            if not queue.waiting:
                del self._queues[key]
            if is_stoppable:
                self._leave(session_id, scope)
            drop_waiter(token)

    @contextlib.contextmanager
    def in_line(self, session_id: str, scope: TurnScope) -> Iterator[None]:
        """Let `cancel` stop somebody who waits for what has to come before."""
        with self._lock:
            self._present.setdefault(session_id, {})[scope] = asyncio.get_running_loop()
        try:
            yield
        finally:
            self._leave(session_id, scope)

    def _leave(self, session_id: str, scope: TurnScope) -> None:
        with self._lock:
            present = self._present[session_id]
            del present[scope]
            if not present:
                del self._present[session_id]

    def begin(self, session_id: str, scope: TurnScope) -> None:
        """Note that a turn holds the session's lease."""
        self._running[session_id] = scope

    def end(self, session_id: str, scope: TurnScope) -> None:
        """Note that it does not any more."""
        with self._lock:
            if self._running.get(session_id) is scope:
                del self._running[session_id]
            ending = tuple(self._ending.get(session_id, ()))
        for future in ending:
            resolve_from_any_thread(future)

    @contextlib.contextmanager
    def ending(self, session_id: str) -> Iterator[asyncio.Future[None]]:
        """Give what is done as soon as a turn of this process on the session ends."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        with self._lock:
            self._ending.setdefault(session_id, set()).add(future)
        try:
            yield future
        finally:
            with self._lock:
                waiting = self._ending[session_id]
                waiting.discard(future)
                if not waiting:
                    del self._ending[session_id]

    def is_taken(self, session_id: str) -> bool:
        """Tell whether this process has a turn of the session, running or in line."""
        with self._lock:
            return session_id in self._running or session_id in self._present

    def is_running(self, session_id: str) -> bool:
        """Tell whether a turn of this process holds the session's lease."""
        return session_id in self._running

    def watcher(self) -> Watcher:
        """Return the watcher of the running event loop."""
        loop = asyncio.get_running_loop()
        found = self._watchers.get(id(loop))
        if found is None or not found.is_of(loop):
            # Those of event loops that are closed go with them.
            self._watchers = {key: one for key, one in self._watchers.items() if not one.is_over}
            found = self._watchers[id(loop)] = Watcher()
        return found

    @contextlib.contextmanager
    def claiming(self, session_id: str) -> Iterator[None]:
        """Note that a lease is being asked for: it may be this process's before its turn is."""
        with self._lock:
            self._claims[session_id] = self._claims.get(session_id, 0) + 1
        try:
            yield
        finally:
            with self._lock:
                self._claims[session_id] -= 1
                if not self._claims[session_id]:
                    del self._claims[session_id]

    def note_taken(self, session_id: str, previous_owner: str | None) -> None:
        """Note that this process took a lease for a turn that is about to begin."""
        self._taken[session_id] = previous_owner

    def forget_taken(self, session_id: str) -> tuple[str | None] | None:
        """Return who had held a lease before it was taken for a turn; None if it was not, or the turn has begun."""
        with self._lock:
            return (self._taken.pop(session_id),) if session_id in self._taken else None

    def is_left_over(self, session_id: str) -> bool:
        """Tell whoever claims a lease that this process holds already whether nobody uses it."""
        with self._lock:
            return session_id not in self._running and self._claims[session_id] == 1

    def cancel(self, session_id: str, reason: str) -> bool:
        """Stop the session's turns, those that wait in line too, from any thread; False if this process has none."""
        with self._lock:
            present = tuple(self._present.get(session_id, {}).items())
        has_any = False
        for scope, loop in present:
            # An event loop that is closed runs no turn any more.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(scope.stop, StopCause.CANCELLED, reason)
                has_any = True
        return has_any
