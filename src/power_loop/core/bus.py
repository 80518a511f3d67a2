"""Carries events from the loop to whoever listens, in one order, and lets no listener harm a run."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Iterable

from power_loop.contracts.clock import Clock, SystemClock
from power_loop.contracts.events import AgentEvent, EventPayload
from power_loop.core.event_queue import EventQueue
from power_loop.core.forked_child import renew_in_child
from power_loop.core.subscription import Subscriber, Subscription

__all__ = ["AgentEventBus", "EventQueue", "Subscriber", "Subscription"]

#: Events of subscribers that wait until the event that they answer is delivered; further ones are dropped before they
#: get a seq.
MAX_WAITING_EVENTS = 100_000
#: How long a closing bus waits for its background subscribers.
DRAIN_TIMEOUT_S = 10.0
#: And how long for those that it then cancels.
CANCEL_TIMEOUT_S = 1.0

_log = logging.getLogger("power_loop")

# A payload with its place, and who gets it.
_Emitted = tuple[EventPayload, str, int, int, tuple[str, ...], tuple[Subscription, ...]]


class AgentEventBus:
    """Hands each event to its subscribers in the order of `seq`, which has no gaps and grows over all threads.

    An event that nobody wants is not made at all. A subscriber that raises is counted and logged; it stops neither the
    run nor the others. Each thread delivers what it emits, one thread at a time: when `emit` returns, everybody has the
    event, and an inline subscriber may be called from any thread that emits, never from two at once. What a subscriber
    emits is delivered behind the event that it answers.
    """

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._clock: Clock = clock or SystemClock()
        # For the list of subscribers; never held while a subscriber is called.
        self._lock = threading.Lock()
        # Held by the thread that delivers. A subscriber, or a finalizer that runs in its midst, may come back to it.
        self._delivery = threading.RLock()
        self._seq = 0
        self._dropped = 0
        self._subscriptions: tuple[Subscription, ...] = ()
        self._routes: dict[type, tuple[Subscription, ...]] = {}
        self._waiting: deque[_Emitted] = deque()
        self._is_delivering = False
        renew_in_child(self, AgentEventBus._begin_anew)

    @property
    def is_listening(self) -> bool:
        """True while anybody is subscribed."""
        return bool(self._subscriptions)

    @property
    def dropped(self) -> int:
        """How many events were not delivered because subscribers emitted too many while one was delivered."""
        return self._dropped

    def wants(self, payload_type: type[EventPayload]) -> bool:
        """Tell whether anybody listens to events of this type, so that a payload is worth making."""
        route = self._routes.get(payload_type)
        return bool(self._route(payload_type) if route is None else route)

    def subscribe(
        self,
        callback: Subscriber,
        *,
        types: Iterable[type[EventPayload]] | None = None,
        session_id: str | None = None,
        with_children: bool = False,
        background: bool = False,
        max_queue: int = 1000,
        name: str | None = None,
    ) -> Subscription:
        """Call `callback(event)` for each event, of these payload types and this session only if given; `with_children`
        those of the sub-agents below that session too, which `event.agent_path` tells apart.

        Inline, the callback is sync, runs inside the turn and must be quick. With `background=True` it may be slow: it
        is served from a queue of at most `max_queue` events, a sync callback in a daemon thread of its own, an async
        one in a task of the event loop. A full queue drops its oldest event and counts it in `Subscription.dropped`.
        Raises `config.invalid`.
        """
        subscription = Subscription(
            callback,
            types=types,
            session_id=session_id,
            with_children=with_children,
            max_queue=max_queue if background else None,
            name=name,
            on_end=self._remove,
        )
        with self._lock:
            self._subscriptions = (*self._subscriptions, subscription)
            self._routes = {}
        return subscription

    def stream(
        self,
        *,
        session_id: str | None = None,
        types: Iterable[type[EventPayload]] | None = None,
        with_children: bool = False,
    ) -> EventQueue:
        """Return a queue of the events from here on, for which see `subscribe` and EventQueue."""
        queue = EventQueue(on_finish=lambda: subscription.unsubscribe())
        subscription = self.subscribe(
            queue.put, types=types, session_id=session_id, with_children=with_children, name="stream"
        )
        return queue

    def emit(
        self,
        payload: EventPayload,
        *,
        session_id: str,
        send_index: int = 0,
        round: int = 0,
        agent_path: tuple[str, ...] = (),
    ) -> None:
        """Stamp an event and deliver it; may be called from any thread, also by a subscriber. Never raises."""
        payload_type = payload.__class__
        route = self._routes.get(payload_type)
        if route is None:
            route = self._route(payload_type)
        if not route:
            return
        with self._delivery:
            if self._is_delivering:
                self._wait_to_deliver((payload, session_id, send_index, round, agent_path, route))
                return
            self._is_delivering = True
            try:
                if self._waiting:
                    self._deliver_what_waits()
                self._deliver(payload, session_id, send_index, round, agent_path, route)
                if self._waiting:
                    self._deliver_what_waits()
            finally:
                # KeyboardInterrupt and its like pass; what still waits is delivered before the next event.
                self._is_delivering = False

    async def drain(self, *, timeout_s: float = DRAIN_TIMEOUT_S) -> bool:
        """Wait until the background subscribers have served what they have; False if that took too long.

        A subscriber that calls this does not wait for itself.
        """
        others = [each for each in self._subscriptions if not each.is_caller()]
        serving = [asyncio.ensure_future(each.wait_until_idle()) for each in others]
        if not serving:
            return True
        try:
            _, late = await asyncio.wait(serving, timeout=timeout_s)
        finally:
            for one in serving:
                one.cancel()
        return not late

    async def aclose(self, *, timeout_s: float = DRAIN_TIMEOUT_S) -> None:
        """Let the background subscribers finish, at most `timeout_s` seconds, then end all subscriptions.

        An async subscriber that is not done by then is cancelled; a thread that a sync one blocks is let go.
        """
        if not await self.drain(timeout_s=timeout_s):
            _log.warning("event bus: background subscribers were still busy after %s s and are let go", timeout_s)
        ending = [task for one in self._subscriptions if (task := one.break_off()) is not None]
        if ending:
            await asyncio.wait(ending, timeout=CANCEL_TIMEOUT_S)

    def _begin_anew(self) -> None:
        """Leave to the parent, in a forked child, what its other threads were delivering."""
        self._lock = threading.Lock()
        self._delivery = threading.RLock()
        self._waiting.clear()
        self._is_delivering = False

    def _route(self, payload_type: type) -> tuple[Subscription, ...]:
        with self._lock:
            route = tuple(one for one in self._subscriptions if one.takes(payload_type))
            self._routes[payload_type] = route
            return route

    def _deliver(
        self,
        payload: EventPayload,
        session_id: str,
        send_index: int,
        round: int,
        agent_path: tuple[str, ...],
        route: tuple[Subscription, ...],
    ) -> None:
        clock = self._clock
        self._seq = seq = self._seq + 1
        event = AgentEvent(seq, clock.now_ms(), clock.monotonic_s(), session_id, send_index, round, payload, agent_path)
        for subscription in route:
            if subscription.session_id is None or subscription.hears(session_id, agent_path):
                subscription.deliver(event)

    def _deliver_what_waits(self) -> None:
        while self._waiting:
            self._deliver(*self._waiting.popleft())

    def _wait_to_deliver(self, emitted: _Emitted) -> None:
        if len(self._waiting) >= MAX_WAITING_EVENTS:
            self._dropped += 1
        else:
            self._waiting.append(emitted)

    def _remove(self, subscription: Subscription) -> None:
        with self._lock:
            self._subscriptions = tuple(one for one in self._subscriptions if one is not subscription)
            self._routes = {}
