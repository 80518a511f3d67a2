"""The one table from what providers say to our errors."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from power_loop.contracts.errors import (
    LLMAuthError,
    LLMBillingError,
    LLMConflictError,
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
)
from power_loop.runtime.llm.failures import Culprit, ProviderFault, retry_after_s

CULPRIT = Culprit("openai", "gpt-test", "sk-very-secret-key")
NOW_S = 1_800_000_000.0


def error_of(status: int, body: Any, headers: dict[str, str] | None = None) -> LLMError:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return CULPRIT.error_of_response(status, headers or {}, content, now_s=NOW_S, request_id="req_1")


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        # The codes of OpenAI.
        (400, {"error": {"message": "no", "code": "context_length_exceeded"}}, LLMContextOverflowError),
        (429, {"error": {"message": "no", "type": "insufficient_quota"}}, LLMBillingError),
        (429, {"error": {"message": "no", "code": "rate_limit_exceeded"}}, LLMRateLimitedError),
        (401, {"error": {"message": "no", "code": "invalid_api_key"}}, LLMAuthError),
        # Anthropic.
        (
            400,
            {"type": "error", "error": {"type": "x", "message": "prompt is too long: 9 > 1"}},
            LLMContextOverflowError,
        ),
        (400, {"type": "error", "error": {"type": "x", "message": "Your credit balance is too low"}}, LLMBillingError),
        (
            400,
            {"error": {"message": "input length and `max_tokens` exceed context limit: 9 + 1 > 8"}},
            LLMContextOverflowError,
        ),
        (500, {"error": {"type": "overloaded_error", "message": "Overloaded"}}, LLMOverloadedError),
        (429, {"error": {"type": "x", "message": "no", "details": {"error_code": "billing_error"}}}, LLMBillingError),
        # llama.cpp.
        (
            400,
            {
                "error": {
                    "code": 400,
                    "message": "the request exceeds the available context size",
                    "type": "exceed_context_size_error",
                }
            },
            LLMContextOverflowError,
        ),
        (
            500,
            {"error": {"code": 500, "message": "context size exceeded", "type": "server_error"}},
            LLMContextOverflowError,
        ),
        (503, {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}, LLMOverloadedError),
        # vLLM and those like it: flat, or with the words only.
        (
            400,
            {"object": "error", "message": "This model's maximum context length is 8 tokens.", "code": 400},
            LLMContextOverflowError,
        ),
        (
            422,
            {"error": "`inputs` tokens + `max_new_tokens` must be <= 4096", "error_type": "validation"},
            LLMContextOverflowError,
        ),
        (400, {"detail": [{"loc": ["body"], "msg": "field required"}]}, LLMInvalidRequestError),
        (404, {"detail": "Not Found"}, LLMNotFoundError),
        # Gemini's endpoint answers a list.
        (403, [{"error": {"code": 403, "status": "PERMISSION_DENIED", "message": "no"}}], LLMPermissionError),
        (400, [{"error": {"message": "The input token count (9) exceeds the maximum (8)."}}], LLMContextOverflowError),
        # Not JSON, or no object, or nothing.
        (502, b"<html><body><h1>502 Bad Gateway</h1></body></html>", LLMServerError),
        (504, b"", LLMTimeoutError),
        (500, b"null", LLMServerError),
        (418, b"[1]", LLMInvalidRequestError),
        (302, b"", LLMNotFoundError),
        (101, b"", LLMProtocolError),
    ],
)
def test_a_response_is_the_error_that_its_server_means(status: int, body: Any, kind: type[LLMError]) -> None:
    assert type(error_of(status, body)) is kind


@pytest.mark.parametrize(
    ("headers", "text", "seconds"),
    [
        ({"retry-after": "7"}, "", 7.0),
        ({"retry-after": "0.25"}, "", 0.25),
        ({"retry-after-ms": "120", "retry-after": "9"}, "", 0.12),
        ({"retry-after": "-3"}, "", None),
        ({"retry-after": "soon"}, "", None),
        ({"retry-after": ""}, "", None),
        ({"retry-after": "nan"}, "", None),
        ({"retry-after": "1e999"}, "", None),
        ({"retry-after": "1000000000"}, "", 1e9),
        # A date counts from the server's own clock where it tells it, else from ours.
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT", "date": "Wed, 21 Oct 2026 07:28:00 GMT"}, "", 30.0),
        ({"retry-after": "Fri, 15 Jan 2027 08:00:10 GMT"}, "", 10.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, "", 0.0),
        ({}, "Please try again in 20s.", 20.0),
        ({}, "Try again in 350ms. Visit ...", 0.35),
        ({}, "try again in 1m2.5s", 62.5),
        ({}, "Please retry after 3 seconds", 3.0),
        ({}, "Please wait for 2 minutes", 120.0),
        ({}, '{"retryDelay": "7.5s"}', 7.5),
        ({"retry-after": "soon"}, "Try again in 2s.", 2.0),
        ({}, "Rate limit reached: Limit 30000, Used 29000.", None),
    ],
)
def test_every_way_to_ask_for_a_wait_is_read(headers: dict[str, str], text: str, seconds: float | None) -> None:
    found = retry_after_s(headers, text, now_s=NOW_S)
    assert found == (pytest.approx(seconds) if seconds is not None else None)


def test_the_word_of_the_provider_goes_over_the_class() -> None:
    body = {"error": {"message": "no"}}
    assert error_of(429, body).may_retry is True
    assert error_of(429, body, {"x-should-retry": "false"}).may_retry is False
    assert error_of(400, body, {"x-should-retry": "true"}).may_retry is True


@pytest.mark.parametrize("code", ["insufficient_quota", "context_length_exceeded"])
def test_what_no_waiting_mends_is_not_tried_again_whatever_a_proxy_says(code: str) -> None:
    error = error_of(429, {"error": {"message": "no", "code": code}}, {"x-should-retry": "true"})
    assert error.may_retry is False


def test_a_key_that_the_provider_repeats_is_taken_out() -> None:
    error = error_of(401, {"error": {"message": "Incorrect API key provided: sk-very-secret-key. Sorry."}})
    assert "sk-very-secret-key" not in str(error)
    assert "***" in str(error)


def test_the_key_is_in_no_repr() -> None:
    assert "secret" not in repr(CULPRIT)


def test_the_message_says_what_failed_why_and_what_to_do() -> None:
    error = error_of(404, {"error": {"message": "The model does not exist", "code": "model_not_found"}})
    assert str(error) == (
        "openai model 'gpt-test' failed (llm.not_found): 404 model_not_found: The model does not exist"
        " - check model and base_url"
    )
    assert (error.status, error.provider_code, error.request_id) == (404, "model_not_found", "req_1")


def test_a_page_of_markup_is_cut_to_its_words() -> None:
    error = error_of(502, b"<html>\r\n<title>502 Bad Gateway</title>" + b"<p>sorry</p>" * 1000)
    assert "<" not in str(error)
    assert len(str(error)) < 700


def test_a_fault_inside_a_reply_is_an_error_with_the_exchange_it_belongs_to() -> None:
    fault = ProviderFault.reported({"type": "error", "error": {"type": "rate_limit_error", "message": "slow down"}})
    error = CULPRIT.error_of_fault(fault, status=200, request_id="req_2")
    assert type(error) is LLMRateLimitedError
    assert error.request_id == "req_2"


@pytest.mark.parametrize(
    ("body", "kind", "code"),
    [
        ({"error": {"code": 401, "message": "No auth credentials found"}}, LLMAuthError, "401"),
        ({"error": {"code": "402", "message": "Insufficient credits"}}, LLMBillingError, "402"),
        ({"error": {"code": 403, "message": "Moderation"}}, LLMPermissionError, "403"),
        ({"error": {"code": 404, "message": "No endpoints found"}}, LLMNotFoundError, "404"),
        ({"error": {"code": 400, "message": "bad"}}, LLMInvalidRequestError, "400"),
        ({"error": {"code": 400, "message": "prompt is too long"}}, LLMContextOverflowError, "400"),
        ({"error": {"code": 429, "message": "Provider returned error"}}, LLMRateLimitedError, "429"),
        ({"error": {"code": 502, "message": "Provider returned error"}}, LLMServerError, "502"),
        ({"error": "overloaded", "status_code": 503}, LLMOverloadedError, "503"),
        (
            {"error": {"code": 400, "type": "rate_limit_error", "message": "x"}},
            LLMInvalidRequestError,
            "rate_limit_error",
        ),
        # Numbers of a provider's own are no status.
        ({"error": {"code": 1301, "message": "bad"}}, LLMServerError, None),
        ({"error": {"code": 200, "message": "bad"}}, LLMServerError, None),
        ({"error": {"code": True, "message": "bad"}}, LLMServerError, None),
    ],
)
def test_behind_a_success_a_number_in_the_body_decides_like_a_status(
    body: dict[str, Any], kind: type[LLMError], code: str | None
) -> None:
    error = CULPRIT.error_of_fault(ProviderFault.reported(body), status=200, request_id=None)
    assert type(error) is kind
    assert error.provider_code == code
    # Behind a failure the status itself does.
    assert type(error_of(409, {"error": {"code": 401, "message": "x"}})) is LLMConflictError


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"error": {"code": 401, "message": "No auth"}}, "(llm.auth): 401: No auth - "),
        ({"error": {"message": "No auth"}}, "(llm.server): No auth - "),
        ({"error": {"message": ""}}, "(llm.server): no reason given - "),
        ({"error": {"message": " ", "type": "overloaded_error"}}, "(llm.overloaded): overloaded_error - "),
    ],
)
def test_a_message_has_no_empty_label(body: dict[str, Any], reason: str) -> None:
    assert reason in str(CULPRIT.error_of_fault(ProviderFault.reported(body), status=200, request_id=None))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "message", "type", "code", "details", "detail", "x"]), inner, max_size=4
        )
    ),
    max_leaves=10,
)


@given(
    st.integers(300, 599),
    JSON | st.binary(max_size=50),
    st.dictionaries(st.sampled_from(["retry-after", "date"]), st.text()),
)
def test_any_body_at_all_is_some_error_of_the_tree(status: int, body: Any, headers: dict[str, str]) -> None:
    error = error_of(status, body, headers)
    assert isinstance(error, LLMError)
    assert "gpt-test" in str(error)
    assert error.retry_after_s is None or error.retry_after_s >= 0
