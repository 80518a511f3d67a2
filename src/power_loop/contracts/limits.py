"""Says how much one send may take: model calls, tokens, tool calls, seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from power_loop.contracts.errors import ConfigError
from power_loop.contracts.frozen import frozen
from power_loop.contracts.numbers import is_number, is_whole


@frozen
class SendLimits:
    """Is what one send may take; None is no limit. Each limit has its own status, and the answer that was given is
    kept.

    `max_rounds` counts model calls (default 50); when they are used up the model is asked once more, without tools
    (`rounds_exceeded`). `max_tokens` counts prompt and completion tokens of all calls (`tokens_exceeded`).
    `max_tool_calls` counts tool calls; those beyond it do not run, and the model is asked once more without tools
    (`tool_calls_exceeded`). `max_seconds` is wall time of a turn (`time_exceeded`).
    """

    max_rounds: int | None = 50
    max_tokens: int | None = None
    max_tool_calls: int | None = None
    max_seconds: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name == "max_tool_calls" else 1
            if field.name == "max_seconds":
                valid = is_number(value, above=0)
                wanted = "a finite number of seconds above 0"
            else:
                valid = is_whole(value, least=least)
                wanted = f"a whole number of at least {least}"
            if value is not None and not valid:
                raise ConfigError(f"limit {field.name} is {value!r}: give {wanted}, or None for no limit")

    def within(self, other: SendLimits) -> SendLimits:
        """Return the smaller of the two limits, each by itself."""
        both = {field.name: (getattr(self, field.name), getattr(other, field.name)) for field in fields(self)}
        return SendLimits(**{name: _smaller(*pair) for name, pair in both.items()})

    def to_json(self) -> dict[str, Any]:
        """Return the limits as JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> SendLimits:
        """Return limits of what `to_json` gave; what a later version may have added is passed over."""
        names = {field.name for field in fields(cls)}
        return cls(**{name: limit for name, limit in value.items() if name in names})


def _smaller(one: Any, other: Any) -> Any:
    given = [limit for limit in (one, other) if limit is not None]
    return min(given) if given else None
