"""Tells a model what time it is."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Annotated

from power_loop.contracts.clock import Clock, SystemClock
from power_loop.contracts.errors import TimeZoneMissingError, ToolError
from power_loop.contracts.schedules import zone_of
from power_loop.contracts.tools import ToolDefinition
from power_loop.tools.decorator import tool


def current_time_tool(clock: Clock | None = None) -> ToolDefinition:
    """Return `current_time`, which tells the time of `clock` (default: the system's)."""
    source = clock or SystemClock()

    @tool(effect="read")
    def current_time(
        zone: Annotated[str, "An IANA time zone, such as Europe/Berlin."] = "UTC",
    ) -> str:
        """Tell the date, the time and the day of the week."""
        moment = datetime.fromtimestamp(source.now_ms() / 1000, timezone.utc)
        try:
            return moment.astimezone(zone_of(zone)).strftime(f"%A, %Y-%m-%d %H:%M:%S %z ({zone})")
        except TimeZoneMissingError as error:
            raise ToolError(error.message) from error

    return current_time
