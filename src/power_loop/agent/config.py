"""Is how a loop behaves where a send does not say otherwise."""

from __future__ import annotations

from dataclasses import dataclass, field

from power_loop.contracts.errors import ConfigError
from power_loop.contracts.llm import LLMRetryPolicy
from power_loop.core.turn.budget import SendLimits


@dataclass(frozen=True, slots=True)
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
        if not self.lease_ttl_s >= 0.3:
            raise ConfigError(f"lease_ttl_s is {self.lease_ttl_s!r}: give at least 0.3 seconds")
