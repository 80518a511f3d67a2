"""Says whether a failed model call is tried again, and after how long."""

from __future__ import annotations

from collections.abc import Callable

from power_loop.contracts.errors import LLMError
from power_loop.contracts.llm import LLMRetryPolicy


def retry_delay_s(
    error: LLMError, policy: LLMRetryPolicy, *, attempt: int, elapsed_s: float, random: Callable[[], float]
) -> float | None:
    """Return the seconds to wait after `attempt` (counted from 1) failed; None if the call is not tried again.

    The wait has full jitter (`random` gives 0.0 to 1.0), is never under what the provider asked for, and never reaches
    past the policy's `total_s`.
    """
    if not error.may_retry or attempt >= policy.max_attempts:
        return None
    cap_s = min(policy.max_delay_s, policy.base_delay_s * 2.0 ** (attempt - 1))
    delay_s = random() * cap_s
    if error.retry_after_s is not None:
        if error.retry_after_s > policy.max_retry_after_s:
            return None
        # Everybody was told the same moment; a little jitter behind it spreads those who come back.
        delay_s = max(delay_s, error.retry_after_s + random() * min(cap_s, error.retry_after_s * 0.1))
    return delay_s if elapsed_s + delay_s <= policy.total_s else None
