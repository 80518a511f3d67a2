"""Writes events to Python's logging, one line each."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from power_loop import AgentEvent, AgentEventBus
from power_loop.contrib.event_values import event_value, shortened
from power_loop.contrib.sinks import DEFAULT_MAX_QUEUE, Sink
from power_loop.events import (
    BudgetExceeded,
    EventPayload,
    FoldFailed,
    HookFailed,
    LeaseTaken,
    LiveStateFailed,
    LLMCallFailed,
    MemoryFailed,
    ProjectionFailed,
    Redaction,
    SendFailed,
    SendFinished,
    SendStarted,
    TranscriptRepaired,
)

DEFAULT_LOGGER = "power_loop.events"
# A line of a log is for looking at; the whole is in the store.
DEFAULT_MAX_CHARS = 200

#: The levels of events; what is not here is told at DEBUG.
LEVELS: Mapping[type[EventPayload], int] = {
    SendFailed: logging.ERROR,
    HookFailed: logging.ERROR,
    LLMCallFailed: logging.WARNING,
    FoldFailed: logging.WARNING,
    MemoryFailed: logging.WARNING,
    LiveStateFailed: logging.WARNING,
    ProjectionFailed: logging.WARNING,
    TranscriptRepaired: logging.WARNING,
    BudgetExceeded: logging.WARNING,
    LeaseTaken: logging.WARNING,
    SendStarted: logging.INFO,
    SendFinished: logging.INFO,
}


class LoggingSink(Sink):
    """Is the sink that `attach_logging_sink` returns."""

    def __init__(
        self,
        bus: AgentEventBus,
        logger: logging.Logger,
        *,
        levels: Mapping[type[EventPayload], int],
        redaction: Redaction,
        max_chars: int,
        **more: Any,
    ) -> None:
        """Take the events of `bus`; `attach_logging_sink` says what the rest is."""
        self._logger = logger
        self._levels = levels
        self._redaction = redaction
        self._max_chars = max_chars
        super().__init__(bus, name=f"logging:{logger.name}", **more)

    def take(self, event: AgentEvent) -> None:
        """Log one event, if its level is wanted."""
        level = self._levels.get(type(event.payload), logging.DEBUG)
        if not self._logger.isEnabledFor(level):
            return
        value = shortened(self._redaction.value(event_value(event)), self._max_chars)
        # As JSON, no text of a model's can end the line or begin another one.
        told = json.dumps(value["payload"], ensure_ascii=True, default=str)
        place = f"{event.session_id} send={event.send_index} round={event.round}"
        self._logger.log(level, "%s %s %s", event.type, place, told, extra={"power_loop_event": value})


def attach_logging_sink(
    bus: AgentEventBus,
    logger: logging.Logger | str = DEFAULT_LOGGER,
    *,
    levels: Mapping[type[EventPayload], int] | None = None,
    types: Iterable[type[EventPayload]] | None = None,
    session_id: str | None = None,
    deltas: bool = False,
    max_chars: int = DEFAULT_MAX_CHARS,
    redaction: Redaction | None = None,
    max_queue: int = DEFAULT_MAX_QUEUE,
) -> LoggingSink:
    """Log each event of `bus` as one line, from a thread beside the run.

    Failures are warnings and errors, the beginnings and ends of turns INFO, everything else DEBUG; `levels` says
    otherwise for types of payloads. A formatter finds the whole event as `record.power_loop_event`. `redaction`,
    `deltas`, `types` and `session_id` are those of `attach_jsonl_sink`. Raises `config.invalid`.
    """
    return LoggingSink(
        bus,
        logging.getLogger(logger) if isinstance(logger, str) else logger,
        levels={**LEVELS, **(levels or {})},
        redaction=redaction or Redaction(),
        max_chars=max_chars,
        types=types,
        session_id=session_id,
        with_deltas=deltas,
        max_queue=max_queue,
    )
