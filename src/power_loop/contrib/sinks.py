"""Holds what all sinks have in common: they are served beside the run, and count what they lose."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType

from power_loop import AgentEvent, AgentEventBus
from power_loop.events import EventPayload, ReasoningDelta, Subscription, TextDelta, ToolCallDelta

#: The pieces of what streams: many, and void once the message that they made is there.
DELTAS = (TextDelta, ReasoningDelta, ToolCallDelta)
# A burst of a busy loop; about 10 MB of events with ordinary texts.
DEFAULT_MAX_QUEUE = 10_000


class Sink:
    """Is where the events of a bus go, in a thread beside the run: it may be slow or fail, and never holds up a turn.

    `loop.aclose()`, or `await bus.drain()`, waits until it has what was announced; `close()` ends it. It is a context
    manager.
    """

    def __init__(
        self,
        bus: AgentEventBus,
        *,
        name: str,
        types: Iterable[type[EventPayload]] | None,
        session_id: str | None,
        max_queue: int,
        with_deltas: bool = False,
    ) -> None:
        """Take the events of `bus`. Raises `config.invalid`."""
        self._subscription: Subscription = bus.subscribe(
            self.take,
            # They are left out here, so that they push nothing else out of the queue.
            types=types if with_deltas or types is not None else _all_but_deltas(),
            session_id=session_id,
            with_children=session_id is not None,
            background=True,
            max_queue=max_queue,
            name=name,
        )

    @property
    def dropped(self) -> int:
        """How many events were lost because the sink was slower than they came."""
        return self._subscription.dropped

    @property
    def errors(self) -> int:
        """How many events were lost because the sink failed at them; the log of `power_loop` says how."""
        return self._subscription.errors

    def close(self) -> None:
        """End it: what is still queued is forgotten."""
        self._subscription.unsubscribe()

    def __enter__(self) -> Sink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def take(self, event: AgentEvent) -> None:
        """Take one event; whatever it raises is counted."""
        raise NotImplementedError


def _all_but_deltas() -> tuple[type[EventPayload], ...]:
    kinds: list[type[EventPayload]] = EventPayload.__subclasses__()
    return tuple(kind for kind in kinds if kind not in DELTAS)
