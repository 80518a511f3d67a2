"""Is how a loop behaves where a send does not say otherwise."""

from __future__ import annotations

import math
from dataclasses import field
from typing import Any

from power_loop.contracts.errors import ConfigError
from power_loop.contracts.frozen import frozen
from power_loop.contracts.llm import LLMRetryPolicy
from power_loop.core.turn.budget import SendLimits
from power_loop.core.turn.options import SendOptions, check_options

# A lease is renewed three times in its time, and a renewal has to come through a busy machine.
_MIN_LEASE_TTL_S = 0.3


@frozen
class LoopConfig:
    """Is a loop's configuration; every field may be left out.

    `limits` is what one send may take, `retry` when a failed model call is tried again. `max_output_tokens`,
    `temperature` and `reasoning_effort` go with every model call (None: the model's own). `max_parallel_tools` calls of
    one reply run at the same time (default 16). `max_output_repairs` is how often the model may mend an answer that
    does not fit `output_schema` (default 2). A turn's lease lasts `lease_ttl_s` seconds (default 30) and is renewed
    three times in that time. The windows of at most `max_cached_sessions` sessions are kept in memory (default 256).
    """

    limits: SendLimits = field(default_factory=SendLimits)
    retry: LLMRetryPolicy = field(default_factory=LLMRetryPolicy)
    max_output_tokens: int | None = None
    temperature: float | None = None
    reasoning_effort: str | None = None
    max_parallel_tools: int = 16
    max_output_repairs: int = 2
    lease_ttl_s: float = 30.0
    max_cached_sessions: int = 256

    def __post_init__(self) -> None:
        for name, least in (("max_parallel_tools", 1), ("max_output_repairs", 0), ("max_cached_sessions", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ConfigError(f"{name} is {value!r}: give a whole number of at least {least}")
        ttl_s: Any = self.lease_ttl_s
        if not isinstance(ttl_s, (int, float)) or not _MIN_LEASE_TTL_S <= ttl_s < math.inf:
            raise ConfigError(f"lease_ttl_s is {ttl_s!r}: give at least {_MIN_LEASE_TTL_S} seconds")
        for name, kind in (("limits", SendLimits), ("retry", LLMRetryPolicy)):
            if not isinstance(getattr(self, name), kind):
                raise ConfigError(f"{name} is {getattr(self, name)!r}: give a {kind.__name__}")
        check_options(self.send_defaults)

    @property
    def send_defaults(self) -> SendOptions:
        """What goes with every model call of a send that makes no choice of its own."""
        return SendOptions(
            max_output_tokens=self.max_output_tokens,
            temperature=self.temperature,
            reasoning_effort=self.reasoning_effort,
        )
