"""Every failure and every fault of delivery, through both wires and both carriers."""

from __future__ import annotations

from typing import Any

import pytest

from power_loop.contracts.errors import (
    LLMAuthError,
    LLMBillingError,
    LLMConflictError,
    LLMConnectionError,
    LLMContextOverflowError,
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
from power_loop.contracts.llm import StopReason
from tests.model_server import Failure, Fault, ModelServer, faults, say
from tests.model_server.harmless import HARMLESS, HARMLESS_ON_OPENAI

from .conftest import Ask, Way

TEXT = ("Hél", "lo ", "thére")

FAILURES: list[tuple[str, Failure, type[LLMError], bool]] = [
    ("rate_limited", faults.rate_limited(3), LLMRateLimitedError, True),
    ("rate_limited", faults.rate_limited(should_retry=False), LLMRateLimitedError, False),
    ("invalid_request", faults.invalid_request(), LLMInvalidRequestError, False),
    ("context_overflow", faults.context_overflow(), LLMContextOverflowError, False),
    ("low_balance", faults.low_balance(), LLMBillingError, False),
    ("unauthorized", faults.unauthorized(), LLMAuthError, False),
    ("payment_required", faults.payment_required(), LLMBillingError, False),
    ("forbidden", faults.forbidden(), LLMPermissionError, False),
    ("not_found", faults.not_found(), LLMNotFoundError, False),
    ("request_timeout", faults.request_timeout(), LLMTimeoutError, True),
    ("request_timeout", faults.request_timeout(should_retry=False), LLMTimeoutError, False),
    ("conflict", faults.conflict(), LLMConflictError, True),
    ("too_large", faults.too_large(), LLMTooLargeError, False),
    ("unprocessable", faults.unprocessable(), LLMInvalidRequestError, False),
    ("server_error", faults.server_error(), LLMServerError, True),
    ("server_error", faults.server_error(501, should_retry=False), LLMServerError, False),
    ("bad_gateway", faults.bad_gateway(), LLMServerError, True),
    ("unavailable", faults.unavailable("2"), LLMOverloadedError, True),
    ("gateway_timeout", faults.gateway_timeout(), LLMTimeoutError, True),
    ("overloaded", faults.overloaded(), LLMOverloadedError, True),
    ("huge_error_body", faults.huge_error_body(1 << 26), LLMServerError, True),
    ("compressed_bomb", faults.compressed_bomb(1 << 26), LLMServerError, True),
    ("closed_before_headers", faults.closed_before_headers(), LLMConnectionError, True),
    ("reset_before_headers", faults.reset_before_headers(), LLMConnectionError, True),
    ("closed_after_headers", faults.closed_after_headers(), LLMConnectionError, True),
    ("ok_with_html", faults.ok_with_html(), LLMProtocolError, True),
    ("ok_with_nothing", faults.ok_with_nothing(), LLMProtocolError, True),
    ("redirect", faults.redirect("http://203.0.113.1/steal"), LLMNotFoundError, False),
]
# These differ by wire or need more than a table.
OTHER_FAILURES = {"insufficient_quota", "ok_with_error_body", "hang"}


@pytest.mark.parametrize(
    ("failure", "error", "may_retry"), [row[1:] for row in FAILURES], ids=[f"{row[0]}-{row[3]}" for row in FAILURES]
)
async def test_a_failure_is_the_error_that_says_what_to_do(
    ask: Ask, way: Way, failure: Failure, error: type[LLMError], may_retry: bool
) -> None:
    async with ModelServer([failure, say("Fine.")]) as server:
        with pytest.raises(LLMError) as caught:
            await ask(way, server)
        # Nothing is left behind that hurts the next call.
        reply, _ = await ask(way, server)
    assert type(caught.value) is error
    assert caught.value.may_retry is may_retry
    assert caught.value.provider == way.wire
    assert caught.value.model == "test-model"
    assert "sk-test-secret" not in f"{caught.value} {caught.value!r}"
    assert len(str(caught.value)) < 1000
    assert reply.message.text == "Fine."
    assert len(server.requests) == 2


async def test_a_failure_names_status_code_request_and_wait(ask: Ask, way: Way) -> None:
    async with ModelServer([faults.rate_limited(7)]) as server:
        with pytest.raises(LLMRateLimitedError) as caught:
            await ask(way, server)
    error = caught.value
    assert (error.status, error.retry_after_s) == (429, 7.0)
    assert error.provider_code == ("rate_limit_exceeded" if way.wire == "openai" else "rate_limit_error")
    assert error.request_id is not None
    assert error.request_id.startswith("req_")


async def test_an_empty_account_at_openai_is_no_rate_limit(ask: Ask, openai_way: Way) -> None:
    async with ModelServer([faults.insufficient_quota()]) as server:
        with pytest.raises(LLMBillingError) as caught:
            await ask(openai_way, server)
    assert caught.value.may_retry is False


async def test_an_error_inside_http_200_is_an_error(ask: Ask, way: Way) -> None:
    async with ModelServer([faults.ok_with_error_body()]) as server:
        with pytest.raises(LLMError) as caught:
            await ask(way, server)
    assert type(caught.value) is (LLMServerError if way.wire == "openai" else LLMOverloadedError)
    assert "The model is overloaded." in str(caught.value)


async def test_silence_before_the_answer_is_a_timeout(ask: Ask, way: Way) -> None:
    async with ModelServer([faults.hang(), say("Fine.")]) as server:
        with pytest.raises(LLMTimeoutError, match=r"silent for 0\.3 s"):
            await ask(way, server, idle_timeout_s=0.3)
        await server.wait_until(lambda: server.requests[0].client_left)
        assert (await ask(way, server))[0].message.text == "Fine."


async def test_silence_within_the_answer_is_a_timeout(ask: Ask, way: Way) -> None:
    async with ModelServer([say(*TEXT, faults=(faults.hang_after(1),))]) as server:
        with pytest.raises(LLMTimeoutError, match=r"silent for 0\.3 s"):
            await ask(way, server, idle_timeout_s=0.3)


async def test_an_answer_that_never_ends_runs_into_its_time(ask: Ask, way: Way) -> None:
    async with ModelServer([say("x", faults=(faults.endless("more "),))]) as server:
        with pytest.raises(LLMTimeoutError, match=r"not done after 0\.5 s"):
            await ask(way, server, timeout_s=0.5, max_reply_bytes=1 << 40)


async def test_an_answer_that_never_ends_runs_into_its_size(ask: Ask, way: Way) -> None:
    async with ModelServer([say("x", faults=(faults.endless("more " * 1000),))]) as server:
        with pytest.raises(LLMProtocolError, match="max_reply_bytes"):
            await ask(way, server, max_reply_bytes=1 << 20)


async def test_a_redirect_names_where_it_leads_and_is_not_followed(ask: Ask, way: Way) -> None:
    async with ModelServer([]) as target, ModelServer([faults.redirect(target.url)]) as server:
        with pytest.raises(LLMNotFoundError, match=target.url):
            await ask(way, server)
    assert not target.requests


HARMFUL: list[tuple[str, Fault, type[LLMError]]] = [
    ("cut_after", faults.cut_after(1), LLMConnectionError),
    ("cut_after", faults.cut_after(3, reset=True), LLMConnectionError),
    ("cut_before_finish", faults.cut_before_finish(), LLMConnectionError),
    ("end_before_finish", faults.end_before_finish(), LLMConnectionError),
    ("cut_at_byte", faults.cut_at_byte(40), LLMConnectionError),
    ("cut_inside_utf8", faults.cut_inside_utf8(), LLMConnectionError),
    ("bad_json_line", faults.bad_json_line(), LLMProtocolError),
    ("data_is_no_object", faults.data_is_no_object(), LLMProtocolError),
    ("data_is_no_object", faults.data_is_no_object(value=[1]), LLMProtocolError),
    ("invalid_utf8", faults.invalid_utf8(), LLMProtocolError),
    ("error_event", faults.error_event(kind="overloaded_error"), LLMOverloadedError),
    ("error_event", faults.error_event(kind="rate_limit_error", end=False), LLMRateLimitedError),
]
OTHER_FAULTS = {"hang_after", "endless", "two_finish_reasons", "never_any_choice", "missing_data_prefix"}


@pytest.mark.parametrize("fault", [row[1] for row in HARMLESS], ids=[f"{n}-{row[0]}" for n, row in enumerate(HARMLESS)])
async def test_a_harmless_oddity_changes_nothing(ask: Ask, way: Way, fault: Fault) -> None:
    async with ModelServer([say(*TEXT, faults=(fault,))]) as server:
        reply, heard = await ask(way, server)
    assert reply.message.text == "Héllo thére"
    assert [delta.text for delta in heard] == list(TEXT)
    assert reply.stop is StopReason.END
    assert reply.message.origin is not None
    assert reply.message.origin.wire == way.wire


@pytest.mark.parametrize("fault", [row[1] for row in HARMLESS_ON_OPENAI], ids=[row[0] for row in HARMLESS_ON_OPENAI])
async def test_a_harmless_oddity_of_compatible_servers_changes_nothing(ask: Ask, openai_way: Way, fault: Fault) -> None:
    async with ModelServer([say(*TEXT, faults=(fault,))]) as server:
        reply, heard = await ask(openai_way, server)
    assert reply.message.text == "".join(delta.text for delta in heard) == "Héllo thére"
    assert reply.usage is not None


@pytest.mark.parametrize(
    ("fault", "error"), [row[1:] for row in HARMFUL], ids=[f"{n}-{row[0]}" for n, row in enumerate(HARMFUL)]
)
async def test_a_spoiled_answer_is_an_error_and_never_a_reply(
    ask: Ask, way: Way, fault: Fault, error: type[LLMError]
) -> None:
    async with ModelServer([say(*TEXT, faults=(fault,)), say("Fine.")]) as server:
        with pytest.raises(LLMError) as caught:
            await ask(way, server)
        reply, _ = await ask(way, server)
    assert type(caught.value) is error
    assert caught.value.may_retry
    assert reply.message.text == "Fine."


async def test_a_piece_that_lost_its_prefix_is_no_part_of_the_stream(ask: Ask, way: Way) -> None:
    async with ModelServer([say(*TEXT, faults=(faults.missing_data_prefix(),))]) as server:
        reply, _ = await ask(way, server)
    assert reply.message.text == "Hélthére"


async def test_of_two_finish_reasons_the_careful_one_counts(ask: Ask, way: Way) -> None:
    async with ModelServer([say(*TEXT, faults=(faults.two_finish_reasons("length"),))]) as server:
        reply, _ = await ask(way, server)
    assert reply.stop is StopReason.LENGTH


@pytest.mark.parametrize("whole", [False, True])
async def test_a_reply_without_any_choice_is_no_reply(ask: Ask, openai_way: Way, whole: bool) -> None:
    async with ModelServer([say(*TEXT, whole=whole, faults=(faults.never_any_choice(),))]) as server:
        with pytest.raises(LLMProtocolError, match="choice"):
            await ask(openai_way, server)


async def test_a_whole_reply_is_taken_where_a_stream_was_asked_for(ask: Ask, way: Way) -> None:
    async with ModelServer([say(*TEXT, whole=True)]) as server:
        reply, heard = await ask(way, server)
    assert reply.message.text == "".join(delta.text for delta in heard) == "Héllo thére"
    assert reply.usage is not None
    assert reply.id is not None


@pytest.mark.parametrize("offset", range(0, 2000, 61))
async def test_a_stream_that_is_cut_anywhere_is_whole_or_an_error(ask: Ask, lean_way: Way, offset: int) -> None:
    outcome: Any = None
    async with ModelServer([say(*TEXT, faults=(faults.cut_at_byte(offset),))]) as server:
        try:
            outcome = (await ask(lean_way, server))[0].message.text
        except LLMError as exc:
            outcome = exc.may_retry
    # Behind its finish nothing is missing from a reply.
    assert outcome in (True, "Héllo thére")


def test_every_failure_and_fault_of_the_server_has_its_test() -> None:
    tested: set[Any] = {row[0] for row in [*HARMLESS, *HARMLESS_ON_OPENAI]} | {row[0] for row in HARMFUL} | OTHER_FAULTS
    assert tested == faults.FAULTS.keys()
    assert {row[0] for row in FAILURES} | OTHER_FAILURES == faults.FAILURES.keys()
