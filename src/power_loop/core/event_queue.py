"""Brings a bus's events to an `async for`, which may be slower than they come."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

from power_loop.contracts.events import AgentEvent
from power_loop.core.background import resolve_from_any_thread


class EventQueue(AsyncIterator[AgentEvent]):
    """Yields events to one `async for`, in order, until `finish()`.

    It never holds up the emitter: what the consumer has not taken yet is kept (`waiting` counts it). The consumer is
    woken once for all that came since it fell asleep. `on_finish` is called at `finish()`.
    """

    __slots__ = ("_events", "_is_finished", "_on_finish", "_waiter")

    def __init__(self, *, on_finish: Callable[[], None] | None = None) -> None:
        self._events: deque[AgentEvent] = deque()
        self._is_finished = False
        self._on_finish = on_finish
        self._waiter: asyncio.Future[None] | None = None

    @property
    def waiting(self) -> int:
        """How many events the consumer has not taken yet."""
        return len(self._events)

    def put(self, event: AgentEvent) -> None:
        """Add an event, from any thread; is the callback to subscribe. After `finish()` it does nothing."""
        if self._is_finished:
            return
        self._events.append(event)
        waiter = self._waiter
        if waiter is not None:
            resolve_from_any_thread(waiter)

    def finish(self) -> None:
        """Take no more events; the consumer gets those that wait, then its loop ends."""
        self._is_finished = True
        if self._on_finish is not None:
            self._on_finish()
        waiter = self._waiter
        if waiter is not None:
            resolve_from_any_thread(waiter)

    def __aiter__(self) -> EventQueue:
        return self

    async def __anext__(self) -> AgentEvent:
        events = self._events
        while not events:
            if self._is_finished:
                raise StopAsyncIteration
            await self._wait()
        return events.popleft()

    async def _wait(self) -> None:
        if self._waiter is not None:
            raise RuntimeError("an EventQueue has one consumer: a second one would take events from the first")
        self._waiter = waiter = asyncio.get_running_loop().create_future()
        try:
            # Another thread may have put an event between the look before and the line above.
            if not self._events and not self._is_finished:
                await waiter
        finally:
            self._waiter = None
