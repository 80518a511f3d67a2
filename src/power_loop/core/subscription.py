"""Is one subscriber's place at a bus: what it wants, how it is called, and what became of that."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable
from types import TracebackType
from typing import Any

from power_loop.contracts.errors import ConfigError
from power_loop.contracts.events import AgentEvent, EventPayload
from power_loop.core.background import BackgroundServer, TaskServer, ThreadServer

_log = logging.getLogger("power_loop")

Subscriber = Callable[[AgentEvent], None] | Callable[[AgentEvent], Awaitable[None]]


class Subscription:
    """Is one subscriber at a bus; ends with `unsubscribe()`, or as a context manager.

    `errors` counts the events at which the subscriber raised, `dropped` those that its full queue let go. `on_end` is
    called once, when it ends. Raises `config.invalid` for a callback that cannot be served as wanted.
    """

    __slots__ = (
        "_callback",
        "_on_end",
        "_server",
        "_types",
        "errors",
        "is_active",
        "name",
        "session_id",
        "with_children",
    )

    def __init__(
        self,
        callback: Subscriber,
        *,
        types: Iterable[type[EventPayload]] | None,
        session_id: str | None,
        with_children: bool,
        max_queue: int | None,
        name: str | None,
        on_end: Callable[[Subscription], None],
    ) -> None:
        self.name: str = name or getattr(callback, "__qualname__", "") or type(callback).__name__
        self.session_id = session_id
        self.with_children = with_children
        self.errors = 0
        self.is_active = True
        self._callback: Callable[[AgentEvent], Any] = callback
        self._types = None if types is None else _payload_types(types)
        self._on_end = on_end
        self._server = self._make_server(max_queue)

    @property
    def dropped(self) -> int:
        """How many events a full queue let go."""
        return 0 if self._server is None else self._server.dropped

    def unsubscribe(self) -> None:
        """End the subscription: no further call begins, and events in a background queue are forgotten."""
        if self.is_active:
            self.is_active = False
            self._on_end(self)
            if self._server is not None:
                self._server.stop()

    def __enter__(self) -> Subscription:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.unsubscribe()

    def takes(self, payload_type: type) -> bool:
        """Tell whether events of this payload type are wanted."""
        return self._types is None or issubclass(payload_type, self._types)

    def hears(self, session_id: str, agent_path: tuple[str, ...]) -> bool:
        """Tell whether events of this session are wanted where not all are."""
        wanted = self.session_id
        return wanted == session_id or (self.with_children and wanted in agent_path)

    def deliver(self, event: AgentEvent) -> None:
        """Call the subscriber, or queue the event for it. Raises nothing that is an `Exception`."""
        if not self.is_active:
            return
        try:
            if self._server is not None:
                self._server.put(event)
            elif (returned := self._callback(event)) is not None:
                _refuse(returned)
        # A subscriber that asks a cancelled task for its result must not look like a cancelled turn.
        except (Exception, asyncio.CancelledError) as error:
            self._count(error)

    def break_off(self) -> asyncio.Task[None] | None:
        """End the subscription and what an async subscriber is at; return the task that ends with it here, if any."""
        self.unsubscribe()
        return None if self._server is None else self._server.cancel()

    def is_caller(self) -> bool:
        """Tell whether it is the background subscriber itself that runs this."""
        return self._server is not None and self._server.is_caller()

    async def wait_until_idle(self) -> None:
        """Return once a background subscriber has served what is queued; at once for an inline one."""
        if self._server is not None:
            await self._server.wait_until_idle()

    def _make_server(self, max_queue: int | None) -> BackgroundServer | None:
        is_async = _is_async(self._callback)
        if max_queue is None:
            if is_async:
                raise ConfigError(
                    f"subscriber {self.name!r} is async: subscribe it with background=True, or give a sync one"
                )
            return None
        if max_queue < 1:
            raise ConfigError(f"max_queue is {max_queue!r}: a background subscriber needs room for 1 event or more")
        if is_async:
            return TaskServer(self._call_async, max_queue=max_queue)
        return ThreadServer(self._call_sync, max_queue=max_queue, name=self.name)

    def _call_sync(self, event: AgentEvent) -> None:
        try:
            returned = self._callback(event)
            if returned is not None:
                _refuse(returned)
        # The thread has no one above it to tell: whatever comes is counted, and the next event is served.
        except BaseException as error:
            self._count(error)

    async def _call_async(self, event: AgentEvent) -> None:
        try:
            await self._callback(event)
        except Exception as error:
            self._count(error)

    def _count(self, error: BaseException) -> None:
        self.errors += 1
        # A subscriber that fails at each delta would flood the log: its errors 1, 10, 100, ... are told.
        if str(self.errors).strip("0") == "1":
            _log.error("event subscriber %r raised (its error %d)", self.name, self.errors, exc_info=error)


def _refuse(returned: object) -> None:
    """Close a coroutine that a plain function handed back and that nobody would await."""
    if inspect.iscoroutine(returned):
        returned.close()
        raise TypeError("the subscriber returned a coroutine: subscribe an async function with background=True")


def _payload_types(types: Any) -> tuple[type[EventPayload], ...]:
    wanted = tuple(types) if isinstance(types, Iterable) else (types,)
    for one in wanted:
        if not (isinstance(one, type) and issubclass(one, EventPayload)):
            raise ConfigError(f"types holds {one!r}: give payload classes such as (TextDelta, SendFinished)")
    return wanted


def _is_async(callback: Any) -> bool:
    if not callable(callback):
        raise ConfigError(f"subscriber {callback!r} cannot be called: give a function of one event")
    return inspect.iscoroutinefunction(callback) or inspect.iscoroutinefunction(type(callback).__call__)
