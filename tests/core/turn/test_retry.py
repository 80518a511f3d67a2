"""When a failed model call is tried again, and after how long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from power_loop.contracts import errors
from power_loop.contracts.llm import LLMRetryPolicy
from power_loop.core.turn.retry import retry_delay_s

FINAL = [
    errors.LLMAuthError,
    errors.LLMBillingError,
    errors.LLMPermissionError,
    errors.LLMNotFoundError,
    errors.LLMInvalidRequestError,
    errors.LLMTooLargeError,
    errors.LLMContextOverflowError,
]
PASSING = [
    errors.LLMRateLimitedError,
    errors.LLMTimeoutError,
    errors.LLMConflictError,
    errors.LLMOverloadedError,
    errors.LLMServerError,
    errors.LLMConnectionError,
    errors.LLMProtocolError,
]
POLICY = LLMRetryPolicy()


@pytest.mark.parametrize("kind", FINAL)
def test_what_would_fail_again_is_not_tried_again(kind: type[errors.LLMError]) -> None:
    assert retry_delay_s(kind("no"), POLICY, attempt=1, elapsed_s=0, random=lambda: 0.5) is None


@pytest.mark.parametrize("kind", PASSING)
def test_what_may_pass_is_tried_again(kind: type[errors.LLMError]) -> None:
    assert retry_delay_s(kind("no"), POLICY, attempt=1, elapsed_s=0, random=lambda: 0.5) == 0.25


def test_the_providers_own_word_goes_over_the_kind_of_failure() -> None:
    no = errors.LLMServerError("no", may_retry=False)
    yes = errors.LLMInvalidRequestError("no", may_retry=True)
    assert retry_delay_s(no, POLICY, attempt=1, elapsed_s=0, random=lambda: 0.5) is None
    assert retry_delay_s(yes, POLICY, attempt=1, elapsed_s=0, random=lambda: 0.5) is not None


@given(
    attempt=st.integers(1, 10),
    elapsed_s=st.floats(0, 1000),
    asked_s=st.none() | st.floats(0, 500),
    luck=st.floats(0, 1, exclude_max=True),
)
def test_a_wait_is_never_under_what_was_asked_and_never_past_the_limits(
    attempt: int, elapsed_s: float, asked_s: float | None, luck: float
) -> None:
    error = errors.LLMRateLimitedError("slow down", retry_after_s=asked_s)
    delay_s = retry_delay_s(error, POLICY, attempt=attempt, elapsed_s=elapsed_s, random=lambda: luck)
    if delay_s is None:
        is_over = attempt >= POLICY.max_attempts or (asked_s or 0) > POLICY.max_retry_after_s
        assert is_over or elapsed_s + max(POLICY.max_delay_s, asked_s or 0) + 20 > POLICY.total_s
        return
    assert delay_s >= (asked_s or 0)
    assert elapsed_s + delay_s <= POLICY.total_s
    assert delay_s <= max(POLICY.max_delay_s, (asked_s or 0) * 1.1)
