"""Translates what went wrong at a provider, in whatever words, into the one tree of errors; nothing else does."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import field
from email.utils import parsedate_to_datetime
from typing import Any

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
from power_loop.contracts.frozen import frozen

# An error message is for a person and a log line; what is longer is a page of HTML or an attack.
_MAX_MESSAGE_CHARS = 500

# What is shorter is a placeholder for endpoints that want some key, and stands in ordinary words.
_MIN_SECRET_CHARS = 8

_BY_STATUS: dict[int, type[LLMError]] = {
    400: LLMInvalidRequestError,
    401: LLMAuthError,
    402: LLMBillingError,
    403: LLMPermissionError,
    404: LLMNotFoundError,
    405: LLMNotFoundError,
    408: LLMTimeoutError,
    409: LLMConflictError,
    410: LLMNotFoundError,
    413: LLMTooLargeError,
    422: LLMInvalidRequestError,
    424: LLMServerError,
    425: LLMConflictError,
    429: LLMRateLimitedError,
    499: LLMConnectionError,
    503: LLMOverloadedError,
    504: LLMTimeoutError,
    529: LLMOverloadedError,
}

# The provider's own word, type or code, where it says more than the status; and the only thing there is inside a
# stream.
_BY_WORD: dict[str, type[LLMError]] = {
    "context_length_exceeded": LLMContextOverflowError,
    "exceed_context_size_error": LLMContextOverflowError,
    "insufficient_quota": LLMBillingError,
    "billing_error": LLMBillingError,
    "billing_hard_limit_reached": LLMBillingError,
    "insufficient_credits": LLMBillingError,
    "authentication_error": LLMAuthError,
    "invalid_api_key": LLMAuthError,
    "permission_error": LLMPermissionError,
    "not_found_error": LLMNotFoundError,
    "model_not_found": LLMNotFoundError,
    "request_too_large": LLMTooLargeError,
    "rate_limit_error": LLMRateLimitedError,
    "rate_limit_exceeded": LLMRateLimitedError,
    "timeout_error": LLMTimeoutError,
    "timeout": LLMTimeoutError,
    "overloaded_error": LLMOverloadedError,
    "overloaded": LLMOverloadedError,
    "engine_overloaded_error": LLMOverloadedError,
    "server_error": LLMServerError,
    "internal_server_error": LLMServerError,
    "api_error": LLMServerError,
    "invalid_request_error": LLMInvalidRequestError,
}
# Words that hold whatever the status is; the others speak only where the status is silent (200, inside a stream).
_DECISIVE_WORDS = frozenset(
    {
        "context_length_exceeded",
        "exceed_context_size_error",
        "insufficient_quota",
        "billing_error",
        "billing_hard_limit_reached",
        "insufficient_credits",
        "overloaded_error",
        "request_too_large",
    }
)
# How endpoints without a code of their own say that the prompt is too long: Anthropic, OpenAI, vLLM, llama.cpp, SGLang,
# TGI, Gemini.
_OVERFLOW = re.compile(
    r"prompt is too long|maximum context length|context[ _-]?(?:length|window|size)[^.]{0,60}exceed"
    r"|exceeds?[^.]{0,60}context[ _-]?(?:length|window|size)|longer than the model's context|input is too long"
    r"|input length and `?max_tokens`? exceed|reduce the length of the (?:messages|prompt)"
    r"|`inputs` tokens \+ `max_new_tokens`"
    r"|input token count[^.]{0,60}exceeds",
    re.IGNORECASE,
)
_BILLING = re.compile(
    r"credit balance is too low|insufficient (?:balance|credits?|funds)|exceeded your current quota", re.I
)
# "Try again in 20s", "... in 1m2.5s", "retry after 350ms", "retryDelay": "7s".
_WAIT_HINT = re.compile(
    r"(?:try again|retry|please wait)[a-z ]{0,20}?\s(?:in|after|for)\s+"
    r"((?:\d{1,9}(?:\.\d{1,9})?\s?(?:ms|milliseconds?|h|hours?|m|min(?:ute)?s?|s|sec(?:ond)?s?)\s?){1,4})",
    re.IGNORECASE,
)
_RETRY_DELAY = re.compile(r'"retryDelay"\s*:\s*"(\d+(?:\.\d+)?)s"')
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|millisecond|h|m|s)", re.IGNORECASE)
_UNIT_S = {"ms": 0.001, "millisecond": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}

_ADVICE: dict[type[LLMError], str] = {
    LLMAuthError: "check the API key (POWER_LOOP_API_KEY or api_key)",
    LLMBillingError: "add credit or raise the limit of the account; waiting does not help",
    LLMPermissionError: "use a key or an account that may use this model, or another model",
    LLMNotFoundError: "check model and base_url",
    LLMInvalidRequestError: "the request has to change before it is sent again",
    LLMTooLargeError: "send less: fewer or smaller images and files",
    LLMContextOverflowError: "shorten the conversation, or set context_window_tokens to the model's real window",
    LLMRateLimitedError: "wait, then try again",
    LLMTimeoutError: "try again, or raise the timeouts of the config",
    LLMConflictError: "try again",
    LLMOverloadedError: "try again later",
    LLMServerError: "try again",
    LLMConnectionError: "try again; if it stays so, check base_url and the network",
    LLMProtocolError: "check that base_url and provider belong together",
}


class ProviderFault(Exception):  # noqa: N818 - a signal inside this room
    """Says what a reader found in an answer; the service makes the error of it."""

    def __init__(self, kind: type[LLMError], reason: str, *, body: Mapping[str, Any] | None = None) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason
        self.body = body

    @classmethod
    def broken(cls, reason: str) -> ProviderFault:
        """The answer is not in the wire format."""
        return cls(LLMProtocolError, reason)

    @classmethod
    def cut(cls, reason: str) -> ProviderFault:
        """The answer ended before it was whole."""
        return cls(LLMConnectionError, reason)

    @classmethod
    def timed_out(cls, reason: str) -> ProviderFault:
        """The answer did not come in time."""
        return cls(LLMTimeoutError, reason)

    @classmethod
    def reported(cls, body: Mapping[str, Any]) -> ProviderFault:
        """The endpoint reports an error of its own."""
        return cls(LLMServerError, "", body=body)


@frozen
class Culprit:
    """Is who failed, for the errors: never the key itself, which is taken out of every text."""

    provider: str
    model: str
    secret: str | None = field(default=None, repr=False)

    def error_of_fault(self, fault: ProviderFault, *, status: int | None, request_id: str | None) -> LLMError:
        """Return the error of a fault that a reader or a carrier found; HTTP had not failed."""
        if fault.body is not None:
            return self.error_of_body(200, {}, fault.body, request_id=request_id)
        return fault.kind(
            self._message(fault.kind, self._clean(fault.reason)),
            provider=self.provider,
            model=self.model,
            status=status,
            request_id=request_id,
        )

    def error_of_response(
        self, status: int, headers: Mapping[str, str], content: bytes, *, now_s: float, request_id: str | None
    ) -> LLMError:
        """Return the error of a response whose status is none of success. `headers` has lower-case names."""
        try:
            body = json.loads(content)
        except (ValueError, RecursionError):
            body = None
        if isinstance(body, list) and body and isinstance(body[0], dict):
            body = body[0]
        text = content[: 4 * _MAX_MESSAGE_CHARS].decode("utf-8", "replace")
        if not isinstance(body, dict):
            body = {"error": {"message": _without_markup(text)}}
        return self.error_of_body(status, headers, body, now_s=now_s, request_id=request_id, text=text)

    def error_of_body(
        self,
        status: int,
        headers: Mapping[str, str],
        body: Mapping[str, Any],
        *,
        request_id: str | None,
        now_s: float = 0.0,
        text: str = "",
    ) -> LLMError:
        """Return the error that a body reports, with the status and the headers that came with it."""
        said, words = _parts_of(body)
        # Behind an HTTP success, a number in the body is the status that was meant.
        meant = (_status_in(body) or status) if status == 200 else status
        kind = _kind_of(meant, words, said)
        location = headers.get("location")
        if 300 <= status < 400:
            said = f"it redirects to {location!r}, which is not followed" if location else "it redirects"
        word = next(iter(words), None) or (str(meant) if meant != status else None)
        may_retry = {"true": True, "false": False}.get(headers.get("x-should-retry", "").strip().lower())
        if kind in (LLMBillingError, LLMContextOverflowError):
            # The same request fails again, whatever a proxy says.
            may_retry = False
        label = " ".join(dict.fromkeys(str(one) for one in (meant if meant != 200 else None, word) if one))
        reason = ": ".join(filter(None, (label, self._clean(said)))) or "no reason given"
        return kind(
            self._message(kind, reason),
            provider=self.provider,
            model=self.model,
            status=status,
            provider_code=word,
            request_id=request_id,
            retry_after_s=retry_after_s(headers, f"{said} {text}", now_s=now_s),
            may_retry=may_retry,
        )

    def _message(self, kind: type[LLMError], reason: str) -> str:
        return f"{self.provider} model {self.model!r} failed ({kind.code}): {reason} - {_ADVICE[kind]}"

    def _clean(self, text: str) -> str:
        if self.secret and len(self.secret) >= _MIN_SECRET_CHARS:
            text = text.replace(self.secret, "***")
        text = " ".join(text.split())
        return text if len(text) <= _MAX_MESSAGE_CHARS else text[:_MAX_MESSAGE_CHARS] + "…"


def retry_after_s(headers: Mapping[str, str], text: str, *, now_s: float) -> float | None:
    """Return the wait that a provider asks for, in seconds: by header in any of its forms, else by its words.

    `now_s` is the wall clock in epoch seconds, for a date that comes without the provider's own. What is garbage or
    past is None or 0.
    """
    milliseconds = _seconds(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000
    given = headers.get("retry-after", "").strip()
    seconds = _seconds(given)
    if seconds is not None:
        return seconds
    until = _date_s(given)
    if until is not None:
        # The provider's clock is the one that its date was read from.
        sent = _date_s(headers.get("date", ""))
        return max(0.0, until - (now_s if sent is None else sent))
    delay = _RETRY_DELAY.search(text)
    if delay:
        return float(delay[1])
    hint = _WAIT_HINT.search(text)
    if hint:
        return sum(float(amount) * _UNIT_S[unit.lower()] for amount, unit in _SPAN.findall(hint[1]))
    return None


def _seconds(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _date_s(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, IndexError, OverflowError):
        return None


def _parts_of(body: Mapping[str, Any]) -> tuple[str, list[str]]:
    """What an error body says, and its code and type words, the most telling first."""
    error = body.get("error", body)
    if isinstance(error, str):
        error = {"message": error, **body}
    if not isinstance(error, Mapping):
        error = body
    said = next(
        (error[name] for name in ("message", "detail", "error", "msg") if isinstance(error.get(name), str)),
        None,
    )
    if said is None:
        said = json.dumps(error.get("detail", error), ensure_ascii=False, default=str)
    details = error.get("details")
    candidates = [
        details.get("error_code") if isinstance(details, Mapping) else None,
        error.get("code"),
        error.get("type"),
        error.get("status"),
    ]
    words = [word for word in candidates if isinstance(word, str) and word and len(word) < 100]
    return said, words


def _status_in(body: Mapping[str, Any]) -> int | None:
    """The HTTP status that the body of an error names, as a gateway does that has begun its answer with a success."""
    error = body.get("error")
    for source in (error, body):
        if isinstance(source, Mapping):
            for name in ("code", "status", "status_code"):
                value = source.get(name)
                if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) == 3:
                    value = int(value)
                if type(value) is int and 400 <= value < 600:
                    return value
    return None


def _kind_of(status: int, words: list[str], said: str) -> type[LLMError]:
    decisive = next((word for word in words if word in _DECISIVE_WORDS), None)
    if decisive is not None:
        return _BY_WORD[decisive]
    is_failure_of_request = status in (200, 400, 413, 422) or status >= 500
    if is_failure_of_request and _OVERFLOW.search(said):
        return LLMContextOverflowError
    if status in (200, 400, 403, 429) and _BILLING.search(said):
        return LLMBillingError
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status == 200:
        return next((_BY_WORD[word] for word in words if word in _BY_WORD), LLMServerError)
    if status >= 500:
        return LLMServerError
    if 300 <= status < 400:
        return LLMNotFoundError
    return LLMInvalidRequestError if 400 <= status < 500 else LLMProtocolError


def _without_markup(text: str) -> str:
    return re.sub(r"<[^>]*>", " ", text) if text.lstrip().startswith("<") else text
