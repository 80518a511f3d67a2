"""Tells a model what time it is."""

from __future__ import annotations

from datetime import datetime, timezone, tzinfo
from typing import Annotated

from power_loop.contracts.clock import Clock, SystemClock
from power_loop.contracts.errors import ToolError
from power_loop.contracts.tools import ToolDefinition
from power_loop.tools.decorator import tool

_MAX_ZONE_CHARS = 64


def current_time_tool(clock: Clock | None = None) -> ToolDefinition:
    """Return `current_time`, which tells the time of `clock` (default: the system's)."""
    source = clock or SystemClock()

    @tool(effect="read")
    def current_time(
        zone: Annotated[str, "An IANA time zone, such as Europe/Berlin."] = "UTC",
    ) -> str:
        """Tell the date, the time and the day of the week."""
        moment = datetime.fromtimestamp(source.now_ms() / 1000, timezone.utc)
        return moment.astimezone(_zone(zone)).strftime(f"%A, %Y-%m-%d %H:%M:%S %z ({zone})")

    return current_time


def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return timezone.utc
    # It reads how this Python was built, which not every Python has beside it, and most calls need no zone.
    from zoneinfo import ZoneInfo

    try:
        if len(name) > _MAX_ZONE_CHARS:
            raise ValueError
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError) as error:
        raise ToolError(f"there is no time zone {name[:_MAX_ZONE_CHARS]!r} here: give one as 'Asia/Tokyo'") from error
