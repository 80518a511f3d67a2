"""Every failure that comes in place of an answer, end to end: tried again, or a coded error; and the session lives."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from power_loop import LLMRetryPolicy, LoopConfig, SendStatus
from power_loop.errors import LLMError
from power_loop.events import SendFailed, SendFinished, StreamReset
from tests.agent.parts import pass_time
from tests.model_server import Failure, faults, say

from .stage import ANSWER_COST, SECRET, USAGE, Stages, Way, cost, paying, playing

#: By failure: what it is made of, the code of its error, and whether it is tried again.
FAILURES: list[tuple[str, Failure, str, bool]] = [
    ("rate_limited", faults.rate_limited(3), "llm.rate_limited", True),
    ("rate_limited", faults.rate_limited(should_retry=False), "llm.rate_limited", False),
    ("invalid_request", faults.invalid_request(), "llm.invalid_request", False),
    ("context_overflow", faults.context_overflow(), "llm.context_overflow", False),
    ("low_balance", faults.low_balance(), "llm.billing", False),
    ("unauthorized", faults.unauthorized(), "llm.auth", False),
    ("payment_required", faults.payment_required(), "llm.billing", False),
    ("forbidden", faults.forbidden(), "llm.permission", False),
    ("not_found", faults.not_found(), "llm.not_found", False),
    ("request_timeout", faults.request_timeout(), "llm.timeout", True),
    ("request_timeout", faults.request_timeout(should_retry=False), "llm.timeout", False),
    ("conflict", faults.conflict(), "llm.conflict", True),
    ("too_large", faults.too_large(), "llm.too_large", False),
    ("unprocessable", faults.unprocessable(), "llm.invalid_request", False),
    ("server_error", faults.server_error(), "llm.server", True),
    ("server_error", faults.server_error(501, should_retry=False), "llm.server", False),
    ("bad_gateway", faults.bad_gateway(), "llm.server", True),
    ("unavailable", faults.unavailable("2"), "llm.overloaded", True),
    ("gateway_timeout", faults.gateway_timeout(), "llm.timeout", True),
    ("overloaded", faults.overloaded(), "llm.overloaded", True),
    ("huge_error_body", faults.huge_error_body(1 << 24), "llm.server", True),
    ("compressed_bomb", faults.compressed_bomb(1 << 24), "llm.server", True),
    ("closed_before_headers", faults.closed_before_headers(), "llm.connection", True),
    ("reset_before_headers", faults.reset_before_headers(), "llm.connection", True),
    ("closed_after_headers", faults.closed_after_headers(), "llm.connection", True),
    ("ok_with_html", faults.ok_with_html(), "llm.protocol", True),
    ("ok_with_nothing", faults.ok_with_nothing(), "llm.protocol", True),
    ("redirect", faults.redirect("http://203.0.113.1/steal"), "llm.not_found", False),
]
# These differ by wire or need more than a table.
OTHERS = {"insufficient_quota", "ok_with_error_body", "hang"}

PASSING = [row for row in FAILURES if row[3]]
LASTING = [row for row in FAILURES if not row[3]]


def by_row(rows: list[Any], names: str) -> Any:
    """Run a test for each row of a table."""
    ids = [f"{number}-{row[0]}" for number, row in enumerate(rows)]
    return pytest.mark.parametrize(names, [row[1:3] for row in rows], ids=ids)


@by_row(PASSING, "failure, code")
@pytest.mark.promise("retry", "no-fault-bricks", "two-carriers")
async def test_a_failure_that_passes_is_tried_again(stages: Stages, way: Way, failure: Failure, code: str) -> None:
    script = (failure, paying(), failure, failure, say("Done.", usage=USAGE))
    async with playing(stages, way, *script) as stage:
        result = await stage.send("Pay Éva.")
        assert (result.status, result.final_text) == (SendStatus.COMPLETED, "Done.")
        assert stage.paid == ["éva"]
        assert stage.failures == [(code, True)] * 3
        assert len(stage.clock.slept) == 3
        assert stage.ears.of(StreamReset) == []
        # What failed cost nothing that anybody reported; each reply counts once.
        assert cost(result) == (2 * ANSWER_COST[0], 2 * ANSWER_COST[1])
        assert (result.rounds, result.tool_calls, result.usage.is_estimated) == (2, 1, False)
        assert await stage.roles() == ["user", "assistant", "tool", "assistant"]
        bodies = [request.raw for request in stage.server.requests]
        assert bodies[0] == bodies[1]
        assert bodies[2] == bodies[3] == bodies[4]


@by_row(PASSING, "failure, code")
@pytest.mark.promise("retry", "no-fault-bricks")
async def test_a_failure_that_does_not_pass_in_time_is_an_error_and_resume_tries_again(
    stages: Stages, way: Way, failure: Failure, code: str
) -> None:
    config = LoopConfig(retry=LLMRetryPolicy(max_attempts=2))
    script = (failure, failure, failure, say("Here I am.", usage=USAGE))
    async with playing(stages, way, *script, config=config) as stage:
        with pytest.raises(LLMError) as caught:
            await stage.send("Hello?")
        assert caught.value.code == code
        assert stage.failures == [(code, True), (code, False)]
        assert [one.code for one in stage.ears.of(SendFailed)] == [code]
        assert await stage.roles() == ["user"]
        result = await stage.resume()
        assert (result.status, result.final_text, cost(result)) == (SendStatus.COMPLETED, "Here I am.", ANSWER_COST)
        assert await stage.roles() == ["user", "assistant"]
        assert [type(one) for one in stage.ears.of(SendFinished)] == [SendFinished]


@by_row(LASTING, "failure, code")
@pytest.mark.promise("retry", "no-fault-bricks", "error-codes")
async def test_a_failure_that_lasts_is_an_error_at_once(stages: Stages, way: Way, failure: Failure, code: str) -> None:
    async with playing(stages, way, paying(), failure) as stage:
        with pytest.raises(LLMError) as caught:
            await stage.send("Pay Éva.")
        error = caught.value
        assert (error.code, error.provider, error.model) == (code, way.wire, "test-model")
        assert SECRET not in f"{error} {error!r}"
        assert stage.failures == [(code, False)]
        assert stage.clock.slept == []
        # What had happened by then stays, and a plain send goes on behind it.
        assert stage.paid == ["éva"]
        assert await stage.roles() == ["user", "assistant", "tool"]
        stats = await stage.loop.get_session_stats(stage.session_id)
        assert (stats.usage.input_tokens, stats.usage.output_tokens) == ANSWER_COST


async def test_an_empty_account_is_no_rate_limit(stages: Stages, way: Way) -> None:
    async with playing(stages, way, faults.insufficient_quota()) as stage:
        with pytest.raises(LLMError) as caught:
            await stage.send("Hello?")
        assert (caught.value.code, stage.clock.slept) == ("llm.billing", [])


async def test_an_error_inside_http_200_is_a_failure_like_any_other(stages: Stages, way: Way) -> None:
    async with playing(stages, way, faults.ok_with_error_body(), say("Hello.")) as stage:
        assert (await stage.send("Hello?")).final_text == "Hello."
        assert stage.failures == [("llm.server" if way.wire == "openai" else "llm.overloaded", True)]


async def test_silence_in_place_of_an_answer_is_a_timeout(stages: Stages, way: Way) -> None:
    async with playing(stages, way, faults.hang(), say("Hello."), idle_timeout_s=30) as stage:
        sending = asyncio.create_task(stage.send("Hello?"))
        await stage.server.wait_for_hang()
        pass_time(30)
        assert (await sending).final_text == "Hello."
        assert stage.failures == [("llm.timeout", True)]
        await stage.server.wait_until(lambda: stage.server.requests[0].client_left)


@pytest.mark.promise("no-fault-bricks")
async def test_a_prompt_that_is_too_long_is_made_smaller_until_it_fits(stages: Stages, way: Way) -> None:
    refusal = faults.context_overflow()
    history = [say(f"Answer {number}. " + "word " * 400) for number in range(8)]
    async with playing(stages, way, *history, refusal, say("Short enough.", usage=USAGE)) as stage:
        for number in range(8):
            await stage.send(f"Question {number}? " + "word " * 400)
        result = await stage.send("And the last?")
        assert (result.status, result.final_text) == (SendStatus.COMPLETED, "Short enough.")
        whole, smaller = stage.server.requests[-2:]
        assert len(smaller.raw) < len(whole.raw) / 1.5
        assert "And the last?" in smaller.raw.decode()
        assert stage.failures == [("llm.context_overflow", True)]
        # The log has everything; only the request was cut.
        assert await stage.roles() == ["user", "assistant"] * 9


def _http_date(seconds: float) -> str:
    return faults.http_date(time.time() + seconds)


WAITS: list[tuple[str, dict[str, Any], float, float]] = [
    ("seconds", {"retry_after": 7}, 7.0, 7.7),
    ("fraction", {"retry_after": "1.5"}, 1.5, 1.7),
    ("milliseconds", {"retry_after_ms": "2500"}, 2.5, 2.8),
    ("milliseconds go first", {"retry_after": 60, "retry_after_ms": 2500}, 2.5, 2.8),
    ("date", {"retry_after": 100.0}, 40.0, 110.0),
    ("zero", {"retry_after": 0}, 0.0, 0.5),
    ("none", {}, 0.0, 0.5),
    ("negative", {"retry_after": -5}, 0.0, 0.5),
    ("garbage", {"retry_after": "soon"}, 0.0, 0.5),
    ("not a number", {"retry_after": "nan"}, 0.0, 0.5),
    ("no end", {"retry_after": "inf"}, 0.0, 0.5),
]


@pytest.mark.parametrize(("form", "headers", "least_s", "most_s"), WAITS, ids=[row[0] for row in WAITS])
@pytest.mark.promise("retry")
async def test_the_wait_that_a_provider_asks_for_is_kept(
    stages: Stages, way: Way, form: str, headers: dict[str, Any], least_s: float, most_s: float
) -> None:
    if form == "date":
        headers = {"retry_after": _http_date(headers["retry_after"])}
    async with playing(stages, way, faults.rate_limited(**headers), say("Hello.")) as stage:
        assert (await stage.send("Hello?")).is_completed
        if way.wire == "openai" and most_s == 0.5 and form != "zero":
            # No header says how long, and this provider says it in words as well: "Try again in 2s".
            least_s, most_s = 2.0, 2.2
        [slept_s] = stage.clock.slept or [0.0]
        assert least_s <= slept_s <= most_s


@pytest.mark.parametrize("value", ["86400", "1e300", "date"])
@pytest.mark.promise("retry")
async def test_a_wait_that_nobody_would_wait_is_the_error_at_once(stages: Stages, way: Way, value: str) -> None:
    asked = _http_date(86_400) if value == "date" else value
    async with playing(stages, way, faults.rate_limited(retry_after=asked)) as stage:
        with pytest.raises(LLMError) as caught:
            await stage.send("Hello?")
        assert caught.value.code == "llm.rate_limited"
        assert stage.clock.slept == []


def test_every_failure_of_the_model_server_has_its_test() -> None:
    assert {row[0] for row in FAILURES} | OTHERS == faults.FAILURES.keys()
