"""Failed model calls: what is tried again, when, how it is told, and what is not."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from power_loop import CancellationToken, LLMRetryPolicy, LoopConfig, SendStatus
from power_loop.errors import (
    ConfigError,
    LLMAuthError,
    LLMBillingError,
    LLMConflictError,
    LLMConnectionError,
    LLMError,
    LLMInvalidRequestError,
    LLMNotFoundError,
    LLMOverloadedError,
    LLMPermissionError,
    LLMProtocolError,
    LLMRateLimitedError,
    LLMServerError,
    LLMTimeoutError,
    LLMTooLargeError,
)
from power_loop.events import LLMCallFailed, LLMCallFinished, LLMCallStarted, SendFailed, StreamReset
from power_loop.testing import FrozenClock

from .conftest import MakeLoop
from .parts import Ears, said, within_limit

RETRIED = [
    LLMRateLimitedError,
    LLMTimeoutError,
    LLMConflictError,
    LLMOverloadedError,
    LLMServerError,
    LLMConnectionError,
    LLMProtocolError,
]
NOT_RETRIED = [
    LLMInvalidRequestError,
    LLMAuthError,
    LLMBillingError,
    LLMPermissionError,
    LLMNotFoundError,
    LLMTooLargeError,
]


@pytest.mark.promise("retry")
@pytest.mark.parametrize("kind", RETRIED)
async def test_a_failure_that_may_pass_is_tried_again_with_one_event_an_attempt(
    make_loop: MakeLoop, kind: type[LLMError]
) -> None:
    loop = make_loop(kind("1"), kind("2"), "Hello.", clock=FrozenClock(skips_sleep=True))
    ears = Ears(loop)
    sid = await loop.new_session()
    result = await loop.send("a", session_id=sid)
    assert (result.status, result.final_text, result.rounds) == (SendStatus.COMPLETED, "Hello.", 1)
    assert [one.attempt for one in ears.of(LLMCallStarted)] == [1, 2, 3]
    assert [(one.attempt, one.code, one.message) for one in ears.of(LLMCallFailed)] == [
        (1, kind.code, "1"),
        (2, kind.code, "2"),
    ]
    [finished] = ears.of(LLMCallFinished)
    assert finished.attempt == 3
    assert ears.of(StreamReset) == [], "nothing had streamed"
    assert len(loop.llm.requests) == 3
    assert loop.llm.requests[0].messages == loop.llm.requests[2].messages
    assert said(await loop.get_messages(sid)) == [("user", "a"), ("assistant", "Hello.")]


@pytest.mark.promise("retry")
@pytest.mark.parametrize("kind", NOT_RETRIED)
async def test_a_failure_that_will_not_pass_is_raised_at_once(make_loop: MakeLoop, kind: type[LLMError]) -> None:
    clock = FrozenClock(skips_sleep=True)
    loop = make_loop(kind("no"), "Hello.", clock=clock)
    ears = Ears(loop)
    sid = await loop.new_session()
    with pytest.raises(kind):
        await loop.send("a", session_id=sid)
    assert len(loop.llm.requests) == 1
    assert clock.slept == []
    [failed] = ears.of(LLMCallFailed)
    assert (failed.code, failed.retry_in_s) == (kind.code, None)
    assert [one.code for one in ears.of(SendFailed)] == [kind.code]
    assert (await loop.resume(sid)).final_text == "Hello.", "whoever mends the cause resumes"


async def test_a_providers_own_word_goes_over_the_kind_of_failure(make_loop: MakeLoop) -> None:
    loop = make_loop(
        LLMInvalidRequestError("passing", may_retry=True),
        LLMServerError("for good", may_retry=False),
        clock=FrozenClock(skips_sleep=True),
    )
    sid = await loop.new_session()
    with pytest.raises(LLMServerError):
        await loop.send("a", session_id=sid)
    assert len(loop.llm.requests) == 2


async def test_attempts_are_bounded_and_the_last_failure_is_raised(make_loop: MakeLoop) -> None:
    failures = [LLMServerError(str(n)) for n in range(1, 10)]
    loop = make_loop(
        *failures, clock=FrozenClock(skips_sleep=True), config=LoopConfig(retry=LLMRetryPolicy(max_attempts=3))
    )
    ears = Ears(loop)
    sid = await loop.new_session()
    with pytest.raises(LLMServerError, match="3"):
        await loop.send("a", session_id=sid)
    told = ears.of(LLMCallFailed)
    assert [one.attempt for one in told] == [1, 2, 3]
    assert [one.retry_in_s is None for one in told] == [False, False, True]


async def test_waits_are_bounded_have_jitter_and_are_the_announced_ones(make_loop: MakeLoop) -> None:
    policy = LLMRetryPolicy(max_attempts=8, base_delay_s=1.0, max_delay_s=10.0)
    waits: list[list[float]] = []
    for seed in range(5):
        clock = FrozenClock(seed=seed, skips_sleep=True)
        loop = make_loop(*[LLMServerError("x")] * 7, "Hello.", clock=clock, config=LoopConfig(retry=policy))
        ears = Ears(loop)
        sid = await loop.new_session()
        await loop.send("a", session_id=sid)
        assert [one.retry_in_s for one in ears.of(LLMCallFailed)] == clock.slept
        waits.append(clock.slept)
    for row in waits:
        for n, wait_s in enumerate(row):
            assert 0 <= wait_s <= min(10.0, 2.0**n)
    assert len({tuple(row) for row in waits}) == 5, "no two clients come back at the same moments"


async def test_what_the_provider_asks_to_wait_is_waited(make_loop: MakeLoop) -> None:
    clock = FrozenClock(skips_sleep=True)
    loop = make_loop(LLMRateLimitedError("x", retry_after_s=30.0), "Hello.", clock=clock)
    sid = await loop.new_session()
    await loop.send("a", session_id=sid)
    [wait_s] = clock.slept
    assert 30.0 <= wait_s <= 33.1


async def test_a_wait_that_is_too_long_is_no_wait_but_the_error(make_loop: MakeLoop) -> None:
    clock = FrozenClock(skips_sleep=True)
    loop = make_loop(LLMRateLimitedError("x", retry_after_s=3_600.0), clock=clock)
    sid = await loop.new_session()
    with pytest.raises(LLMRateLimitedError) as caught:
        await loop.send("a", session_id=sid)
    assert caught.value.retry_after_s == 3_600.0
    assert clock.slept == []


async def test_all_attempts_share_one_budget_of_time(make_loop: MakeLoop) -> None:
    clock = FrozenClock(skips_sleep=True)
    policy = LLMRetryPolicy(max_attempts=100, total_s=100.0)
    failures = [LLMRateLimitedError("x", retry_after_s=40.0) for _ in range(10)]
    loop = make_loop(*failures, clock=clock, config=LoopConfig(retry=policy))
    sid = await loop.new_session()
    with pytest.raises(LLMRateLimitedError):
        await loop.send("a", session_id=sid)
    assert len(clock.slept) == 2
    assert sum(clock.slept) <= 100.0


async def test_each_reply_has_a_budget_of_its_own(make_loop: MakeLoop) -> None:
    policy = LLMRetryPolicy(max_attempts=2)
    loop = make_loop(
        LLMServerError("x"),
        "One.",
        LLMServerError("x"),
        "Two.",
        clock=FrozenClock(skips_sleep=True),
        config=LoopConfig(retry=policy),
    )
    sid = await loop.new_session()
    assert (await loop.send("a", session_id=sid)).final_text == "One."
    assert (await loop.send("b", session_id=sid)).final_text == "Two."


async def test_retries_can_be_turned_off(make_loop: MakeLoop) -> None:
    config = LoopConfig(retry=LLMRetryPolicy(max_attempts=1))
    loop = make_loop(LLMServerError("x"), clock=FrozenClock(skips_sleep=True), config=config)
    sid = await loop.new_session()
    with pytest.raises(LLMServerError):
        await loop.send("a", session_id=sid)
    assert len(loop.llm.requests) == 1


async def test_a_send_is_cancelled_in_the_wait_for_another_attempt(make_loop: MakeLoop) -> None:
    clock = FrozenClock()
    loop = make_loop(LLMServerError("x"), "Fine.", clock=clock)
    sid = await loop.new_session()
    token = CancellationToken()
    turn = asyncio.create_task(loop.send("a", session_id=sid, cancellation=token))
    await within_limit(clock.until_asleep())
    token.cancel("enough")
    result = await within_limit(turn)
    assert (result.status, result.reason) == (SendStatus.CANCELLED, "enough")
    assert (await loop.send("b", session_id=sid)).final_text == "Fine."


async def test_a_model_that_answers_its_cancellation_with_an_error_is_cancelled_all_the_same(
    make_loop: MakeLoop,
) -> None:
    entered = asyncio.Event()

    async def stubborn(request: Any) -> Any:
        entered.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise LLMAuthError("the connection is gone") from None

    loop = make_loop(stubborn, "Fine.")
    sid = await loop.new_session()
    turn = asyncio.create_task(loop.send("a", session_id=sid))
    await within_limit(entered.wait())
    await loop.cancel(sid)
    assert (await within_limit(turn)).status is SendStatus.CANCELLED
    assert (await loop.send("b", session_id=sid)).final_text == "Fine."


@pytest.mark.promise("retry")
async def test_the_time_of_all_attempts_bounds_an_attempt_that_hangs(make_loop: MakeLoop) -> None:
    ends: list[str] = []

    async def hang(request: object) -> str:
        try:
            await asyncio.Event().wait()
        finally:
            ends.append("cancelled")
        return "never"

    policy = LLMRetryPolicy(total_s=0.05, base_delay_s=0)
    loop = make_loop(hang, "Hello.", config=LoopConfig(retry=policy))
    ears = Ears(loop)
    sid = await loop.new_session()
    with pytest.raises(LLMTimeoutError, match=r"0\.05 s that LLMRetryPolicy\(total_s=\.\.\.\)") as caught:
        await within_limit(loop.send("a", session_id=sid))
    assert caught.value.retryable
    assert ends == ["cancelled"]
    assert [(one.attempt, one.code, one.retry_in_s) for one in ears.of(LLMCallFailed)] == [(1, "llm.timeout", None)]
    assert (await loop.resume(sid)).final_text == "Hello."


async def test_an_attempt_that_swallows_its_cancellation_does_not_look_like_a_cancelled_turn(
    make_loop: MakeLoop,
) -> None:
    async def swallow(request: object) -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ValueError("odd") from None
        return "never"

    loop = make_loop(swallow, "Hello.", config=LoopConfig(retry=LLMRetryPolicy(total_s=0.05)))
    sid = await loop.new_session()
    with pytest.raises(LLMTimeoutError):
        await within_limit(loop.send("a", session_id=sid))
    assert (await loop.resume(sid)).final_text == "Hello."


async def test_an_attempt_gets_the_time_that_the_ones_before_it_left(make_loop: MakeLoop) -> None:
    clock = FrozenClock(skips_sleep=True)

    async def fail_late(request: object) -> str:
        clock.advance(59.95)
        raise LLMServerError("late")

    async def hang(request: object) -> str:
        await asyncio.Event().wait()
        return "never"

    policy = LLMRetryPolicy(total_s=60, base_delay_s=0)
    loop = make_loop(fail_late, hang, clock=clock, config=LoopConfig(retry=policy))
    sid = await loop.new_session()
    with pytest.raises(LLMTimeoutError, match="within the 60 s"):
        await within_limit(loop.send("a", session_id=sid))
    assert len(loop.llm.requests) == 2


async def test_without_a_bound_no_timer_is_set(make_loop: MakeLoop) -> None:
    loop = make_loop("Hello.", config=LoopConfig(retry=LLMRetryPolicy(total_s=math.inf, max_delay_s=math.inf)))
    assert (await loop.send("a", session_id=await loop.new_session())).final_text == "Hello."


@pytest.mark.parametrize(
    "options",
    [
        {"max_attempts": 0},
        {"max_attempts": 1.5},
        {"max_attempts": True},
        {"max_attempts": None},
        {"base_delay_s": -1},
        {"base_delay_s": math.nan},
        {"max_delay_s": "1"},
        {"max_retry_after_s": None},
        {"total_s": 0},
        {"total_s": True},
        {"total_s": math.nan},
    ],
    ids=repr,
)
@pytest.mark.promise("bad-input")
def test_a_policy_that_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    [name] = options
    with pytest.raises(ConfigError, match=name):
        LLMRetryPolicy(**options)
