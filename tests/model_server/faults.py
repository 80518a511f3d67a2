"""Everything that goes wrong: failures that stand instead of an answer, and faults of an answer's delivery."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from email.utils import format_datetime
from typing import Any

from .reply import Cut, Fault, Frame, Hang, Pause, Piece, Reply, ScriptError, encode_json
from .request import Wire
from .script import FINISH_ON_ANTHROPIC, FINISH_ON_OPENAI, Conduct, Failure

FAILURES: dict[str, Callable[..., Failure]] = {}
FAULTS: dict[str, Callable[..., Fault]] = {}


def _failure(build: Callable[..., Failure]) -> Callable[..., Failure]:
    FAILURES[build.__name__] = build
    return build


def _fault(build: Callable[..., Fault]) -> Callable[..., Fault]:
    FAULTS[build.__name__] = build
    return build


# --- failures: what the client gets instead of an answer ---


def http_date(unix_seconds: float) -> str:
    """A time as the HTTP headers write it."""
    return format_datetime(datetime.fromtimestamp(unix_seconds, timezone.utc), usegmt=True)


@_failure
def rate_limited(
    retry_after: float | str | None = None,
    retry_after_ms: float | str | None = None,
    should_retry: bool | None = None,
) -> Failure:
    """429. `retry_after` is sent as written: seconds, an HTTP date (`http_date`), a huge, negative or garbage value."""
    headers = []
    if retry_after is not None:
        headers.append(("retry-after", str(retry_after)))
    if retry_after_ms is not None:
        headers.append(("retry-after-ms", str(retry_after_ms)))
    if should_retry is not None:
        headers.append(("x-should-retry", str(should_retry).lower()))
    return Failure(
        status=429,
        types=("tokens", "rate_limit_error"),
        messages=(
            "Rate limit reached for gpt-test on tokens per min (TPM): Limit 30000, Used 29000. Try again in 2s.",
            "This request would exceed your organization's rate limit of 40,000 input tokens per minute.",
        ),
        code="rate_limit_exceeded",
        headers=tuple(headers),
    )


@_failure
def insufficient_quota() -> Failure:
    """429 that no waiting mends."""
    text = "You exceeded your current quota, please check your plan and billing details."
    return Failure(429, ("insufficient_quota", "rate_limit_error"), (text, text), code="insufficient_quota")


@_failure
def invalid_request(message: str = "Invalid value for 'temperature'.", param: str | None = "temperature") -> Failure:
    """400 for a request that is wrong in itself."""
    kinds = ("invalid_request_error", "invalid_request_error")
    return Failure(400, kinds, (message, message), code="invalid_value", param=param)


@_failure
def context_overflow() -> Failure:
    """400 because the prompt does not fit the model's window."""
    return Failure(
        status=400,
        types=("invalid_request_error", "invalid_request_error"),
        messages=(
            (
                "This model's maximum context length is 128000 tokens. However, your messages resulted in 130000"
                " tokens. Please reduce the length of the messages."
            ),
            "prompt is too long: 210000 tokens > 200000 maximum",
        ),
        code="context_length_exceeded",
        param="messages",
    )


@_failure
def low_balance() -> Failure:
    """400 as Anthropic answers when the account is empty."""
    text = (
        "Your credit balance is too low to access the API. Please go to Plans & Billing to upgrade or purchase credits."
    )
    return Failure(400, ("invalid_request_error", "invalid_request_error"), (text, text))


@_failure
def unauthorized() -> Failure:
    """401."""
    texts = ("Incorrect API key provided: sk-test.", "invalid x-api-key")
    return Failure(401, ("invalid_request_error", "authentication_error"), texts, code="invalid_api_key")


@_failure
def payment_required() -> Failure:
    """402."""
    texts = ("Insufficient Balance", "Your organization's billing needs attention.")
    return Failure(402, ("unknown_error", "billing_error"), texts, code="invalid_request_error")


@_failure
def forbidden() -> Failure:
    """403."""
    texts = (
        "Country, region, or territory not supported",
        "Your API key does not have permission to use the specified resource.",
    )
    kinds = ("request_forbidden", "permission_error")
    return Failure(403, kinds, texts, code="unsupported_country_region_territory")


@_failure
def not_found() -> Failure:
    """404 for a model that does not exist."""
    texts = ("The model `gpt-none` does not exist or you do not have access to it.", "model: claude-none")
    return Failure(404, ("invalid_request_error", "not_found_error"), texts, code="model_not_found")


@_failure
def request_timeout(should_retry: bool | None = None) -> Failure:
    """408."""
    text = "Request timed out."
    headers = () if should_retry is None else (("x-should-retry", str(should_retry).lower()),)
    return Failure(408, ("timeout", "timeout_error"), (text, text), headers=headers)


@_failure
def conflict() -> Failure:
    """409."""
    text = "The resource is locked by another request."
    return Failure(409, ("conflict", "api_error"), (text, text))


@_failure
def too_large() -> Failure:
    """413."""
    text = "Request exceeds the maximum allowed number of bytes."
    return Failure(413, ("invalid_request_error", "request_too_large"), (text, text))


@_failure
def unprocessable() -> Failure:
    """422."""
    text = "Input validation error."
    return Failure(422, ("invalid_request_error", "invalid_request_error"), (text, text))


@_failure
def server_error(status: int = 500, should_retry: bool | None = None) -> Failure:
    """500, or another status of the 5xx family."""
    texts = ("The server had an error while processing your request. Sorry about that!", "Internal server error")
    headers = () if should_retry is None else (("x-should-retry", str(should_retry).lower()),)
    return Failure(status, ("server_error", "api_error"), texts, headers=headers)


@_failure
def bad_gateway() -> Failure:
    """502 with the HTML page of a proxy."""
    page = (
        b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body><h1>502 Bad Gateway</h1></body>\r\n</html>\r\n"
    )
    return Failure(502, body=page, content_type="text/html")


@_failure
def unavailable(retry_after: float | str | None = None) -> Failure:
    """503."""
    texts = ("The engine is currently overloaded, please try again later", "Service unavailable")
    headers = () if retry_after is None else (("retry-after", str(retry_after)),)
    return Failure(503, ("server_error", "api_error"), texts, headers=headers)


@_failure
def gateway_timeout() -> Failure:
    """504."""
    text = "Gateway timeout"
    return Failure(504, ("server_error", "timeout_error"), (text, text))


@_failure
def overloaded() -> Failure:
    """529."""
    text = "Overloaded"
    return Failure(529, ("server_error", "overloaded_error"), (text, text))


@_failure
def closed_before_headers() -> Failure:
    """The connection ends without a byte of a response."""
    return Failure(conduct=Conduct.CLOSE_BEFORE_HEADERS)


@_failure
def reset_before_headers() -> Failure:
    """The connection is reset without a byte of a response."""
    return Failure(conduct=Conduct.RESET_BEFORE_HEADERS)


@_failure
def closed_after_headers() -> Failure:
    """The headers of a good response, then the end of the connection."""
    return Failure(200, conduct=Conduct.CLOSE_AFTER_HEADERS, content_type="text/event-stream; charset=utf-8")


@_failure
def hang(gate: str = "") -> Failure:
    """No answer at all; the connection closes when the gate is released."""
    return Failure(conduct=Conduct.HANG, gate=gate)


@_failure
def ok_with_error_body(message: str = "The model is overloaded.", code: str | None = None) -> Failure:
    """HTTP 200 whose body says error."""
    return Failure(200, ("server_error", "overloaded_error"), (message, message), code=code)


@_failure
def ok_with_html() -> Failure:
    """HTTP 200 with the page of a captive portal."""
    return Failure(200, body=b"<!DOCTYPE html><html><body>Please log in.</body></html>", content_type="text/html")


@_failure
def ok_with_nothing() -> Failure:
    """HTTP 200 with an empty body."""
    return Failure(200, body=b"")


@_failure
def redirect(url: str, status: int = 307) -> Failure:
    """A redirect to another address."""
    return Failure(status, headers=(("location", url),), body=b"", content_type="text/plain")


@_failure
def huge_error_body(size: int = 1 << 30, status: int = 500) -> Failure:
    """An error whose body is this many bytes, made while it is sent."""

    def body() -> Iterator[bytes]:
        yield b'{"error":{"message":"'
        block, left = b"x" * 65536, size
        while left > 0:
            yield block[:left]
            left -= len(block)
        yield b'"}}'

    return Failure(status, body=body)


@_failure
def compressed_bomb(size: int = 1 << 30, status: int = 500) -> Failure:
    """A gzip body of about a thousandth of its unpacked size."""

    def body() -> Iterator[bytes]:
        packer = zlib.compressobj(9, zlib.DEFLATED, 31)
        yield packer.compress(b'{"error":{"message":"')
        block, left = b"x" * (1 << 20), size
        while left > 0:
            packed = packer.compress(block[:left])
            if packed:
                yield packed
            left -= len(block)
        yield packer.compress(b'"}}') + packer.flush()

    return Failure(status, headers=(("content-encoding", "gzip"),), body=body)


# --- faults: what happens to an answer on its way ---


@_fault
def cut_after(deltas: int, reset: bool = False) -> Fault:
    """The connection ends after so many content deltas."""

    def apply(reply: Reply) -> None:
        place = reply.place_after(deltas)
        reply.stream[place:] = [Frame("other", signal=Cut(reset))]

    return apply


@_fault
def cut_before_done() -> Fault:
    """Everything but `[DONE]` / `message_stop` arrives, then the connection ends."""

    def apply(reply: Reply) -> None:
        reply.frames = [frame for frame in reply.stream if frame.kind != "done"]
        reply.frames.append(Frame("other", signal=Cut()))

    return apply


@_fault
def cut_before_finish() -> Fault:
    """All content arrives, no finish and nothing after it, and the connection ends."""

    def apply(reply: Reply) -> None:
        reply.frames = [frame for frame in reply.stream if frame.kind not in ("finish", "usage", "done")]
        reply.frames.append(Frame("other", signal=Cut()))

    return apply


@_fault
def end_before_finish() -> Fault:
    """All content arrives, no finish and nothing after it, and the response ends as if it were whole."""

    def apply(reply: Reply) -> None:
        reply.frames = [frame for frame in reply.stream if frame.kind not in ("finish", "usage", "done")]

    return apply


@_fault
def no_final_chunk() -> Fault:
    """Every event arrives, but the connection closes without the chunk that ends the body."""

    def apply(reply: Reply) -> None:
        reply.final_chunk = False

    return apply


@_fault
def cut_at_byte(offset: int) -> Fault:
    """The body is cut after so many bytes; a negative offset counts from its end."""

    def filtered(flow: Iterator[Piece]) -> Iterator[Piece]:
        pieces = list(flow)
        total = sum(len(piece) for piece in pieces if isinstance(piece, bytes))
        left = offset if offset >= 0 else total + offset
        for piece in pieces:
            if isinstance(piece, bytes):
                if len(piece) > left:
                    yield piece[:left]
                    yield Cut()
                    return
                left -= len(piece)
            yield piece

    return lambda reply: reply.filters.append(filtered)


@_fault
def cut_inside_utf8() -> Fault:
    """The body is cut in the middle of its first character of several bytes."""

    def filtered(flow: Iterator[Piece]) -> Iterator[Piece]:
        for piece in flow:
            if isinstance(piece, bytes):
                for place, byte in enumerate(piece):
                    if byte >= 0xC0:
                        yield piece[: place + 1]
                        yield Cut()
                        return
            yield piece
        raise ScriptError("the answer has no character of several bytes to cut")

    return lambda reply: reply.filters.append(filtered)


@_fault
def rechunk(size: int) -> Fault:
    """The bytes arrive in chunks of this size, wherever that cuts lines and characters."""

    def filtered(flow: Iterator[Piece]) -> Iterator[Piece]:
        held = b""
        for piece in flow:
            if not isinstance(piece, bytes):
                if held:
                    yield held
                    held = b""
                yield piece
                continue
            held += piece
            while len(held) >= size:
                yield held[:size]
                held = held[size:]
        if held:
            yield held

    return lambda reply: reply.filters.append(filtered)


@_fault
def coalesced() -> Fault:
    """The whole body arrives as one chunk."""

    def filtered(flow: Iterator[Piece]) -> Iterator[Piece]:
        yield b"".join(piece for piece in flow if isinstance(piece, bytes))

    return lambda reply: reply.filters.append(filtered)


@_fault
def hang_after(deltas: int, gate: str = "") -> Fault:
    """The stream stops after so many content deltas until the gate is released, then goes on."""
    return lambda reply: reply.insert_after(deltas, Frame("other", signal=Hang(gate)))


@_fault
def drip(seconds: float) -> Fault:
    """So many seconds pass before each event."""

    def apply(reply: Reply) -> None:
        reply.frames = [one for frame in reply.stream for one in (Frame("other", signal=Pause(seconds)), frame)]

    return apply


@_fault
def delayed(seconds: float) -> Fault:
    """So many seconds pass before the first event."""
    return lambda reply: reply.stream.insert(0, Frame("other", signal=Pause(seconds)))


@_fault
def bom() -> Fault:
    """The stream opens with a byte order mark."""
    return lambda reply: reply.stream.insert(0, Frame("other", raw=b"\xef\xbb\xbf"))


@_fault
def line_ends(kind: str) -> Fault:
    """Lines end with `lf`, `crlf`, `cr`, or all three in turn (`mixed`)."""
    ends: dict[str, tuple[bytes, ...]] = {"lf": (b"\n",), "crlf": (b"\r\n",), "cr": (b"\r",)}
    # In this order no CR is followed by a lone LF, which would read as one end instead of two.
    ends["mixed"] = (b"\n", b"\n", b"\r", b"\r", b"\r\n", b"\r\n")

    def apply(reply: Reply) -> None:
        reply.require_stream()
        reply.line_ends = ends[kind]

    return apply


@_fault
def comments() -> Fault:
    """Comment lines stand between the events, as keep-alives do."""

    def apply(reply: Reply) -> None:
        reply.frames = [
            one for frame in reply.stream for one in (Frame("other", raw=b": OPENROUTER PROCESSING\n\n"), frame)
        ]

    return apply


@_fault
def ids_and_retry() -> Fault:
    """Events carry `id:` and `retry:` lines, and a field that no client knows."""

    def apply(reply: Reply) -> None:
        fields = [
            Frame("other", raw=b"id: %d\nretry: 3000\nflavour: plain\n" % place) for place in range(len(reply.stream))
        ]
        reply.frames = [one for pair in zip(fields, reply.stream, strict=True) for one in pair]

    return apply


@_fault
def no_space() -> Fault:
    """No space after the colons."""

    def apply(reply: Reply) -> None:
        reply.require_stream()
        reply.after_colon = b""

    return apply


@_fault
def multiline_data() -> Fault:
    """Each event's JSON is spread over several `data:` lines."""

    def apply(reply: Reply) -> None:
        reply.require_stream()
        reply.multiline = True

    return apply


@_fault
def bad_json_line(after: int = 1) -> Fault:
    """An event whose data is no JSON."""
    return lambda reply: reply.insert_after(after, _raw_data(reply, b'{"choices": [{"delta": {"content": "tor'))


@_fault
def data_is_no_object(after: int = 1, value: Any = 42) -> Fault:
    """An event whose data is JSON but no object."""
    return lambda reply: reply.insert_after(after, _raw_data(reply, json.dumps(value).encode()))


@_fault
def missing_data_prefix(after: int = 1) -> Fault:
    """The event after so many deltas has lost its `data:`, and is not part of the stream any more."""

    def apply(reply: Reply) -> None:
        frame = reply.stream[reply.place_after(after)]
        frame.raw = encode_json(frame.payload) + b"\n\n"

    return apply


@_fault
def invalid_utf8(after: int = 1) -> Fault:
    """An event with bytes that are no UTF-8 inside its text."""

    def apply(reply: Reply) -> None:
        frame = reply.stream[reply.place_after(after)]
        reply.insert_after(after, _raw_data(reply, encode_json(frame.payload)[:-2] + b"\xff\xfe}]}"))

    return apply


@_fault
def missing_done() -> Fault:
    """The response ends properly, without `[DONE]` / `message_stop`."""

    def apply(reply: Reply) -> None:
        reply.frames = [frame for frame in reply.stream if frame.kind != "done"]

    return apply


@_fault
def error_event(after: int = 1, kind: str = "", message: str = "", end: bool = True) -> Fault:
    """An error in the middle of a stream that began with HTTP 200; with `end` nothing follows it."""

    def apply(reply: Reply) -> None:
        place = reply.place_after(after)
        if reply.wire is Wire.ANTHROPIC:
            error = {"details": None, "type": kind or "overloaded_error", "message": message or "Overloaded"}
            frame = Frame("other", {"type": "error", "error": error, "request_id": "req_011fault"}, event="error")
        else:
            text = message or "The server had an error while processing your request. Sorry about that!"
            error = {"message": text, "type": kind or "server_error", "param": None, "code": None}
            frame = Frame("other", {"error": error})
        reply.stream[place : len(reply.stream) if end else place] = [frame]

    return apply


@_fault
def unknown_event(after: int = 1) -> Fault:
    """An event of a type that no client knows."""

    def apply(reply: Reply) -> None:
        if reply.wire is Wire.ANTHROPIC:
            frame = Frame("other", {"type": "weather_report", "sky": "clear"}, event="weather_report")
        else:
            frame = Frame("other", {"object": "weather.report", "sky": "clear", "choices": []})
        reply.insert_after(after, frame)

    return apply


@_fault
def unknown_delta(after: int = 1) -> Fault:
    """A delta of a type that no client knows, inside a block or choice that it does."""

    def apply(reply: Reply) -> None:
        if reply.wire is Wire.ANTHROPIC:
            payload = {"type": "content_block_delta", "index": 0, "delta": {"type": "scent_delta", "scent": "pine"}}
            frame = Frame("other", payload, event="content_block_delta")
        else:
            choice = {"index": 0, "delta": {"scent": "pine"}, "finish_reason": None}
            frame = Frame("other", {"id": "chatcmpl-x", "object": "chat.completion.chunk", "choices": [choice]})
        reply.insert_after(after, frame)

    return apply


@_fault
def ping(after: int = 1) -> Fault:
    """A keep-alive: Anthropic's ping event, a comment on the other wire."""

    def apply(reply: Reply) -> None:
        if reply.wire is Wire.ANTHROPIC:
            reply.insert_after(after, Frame("other", {"type": "ping"}, event="ping"))
        else:
            reply.insert_after(after, Frame("other", raw=b": keep-alive\n\n"))

    return apply


@_fault
def empty_choices(after: int = 1) -> Fault:
    """A chunk without choices in the middle, as filters of some servers send first; OpenAI wire only."""
    return lambda reply: reply.insert_after(after, _chunk_like(reply, choices=[]))


@_fault
def never_any_choice() -> Fault:
    """Every chunk, or the whole reply, has an empty list of choices; OpenAI wire only."""

    def apply(reply: Reply) -> None:
        _only_openai(reply)
        if reply.frames is None:
            _edit_body(reply, lambda body: body.update(choices=[]))
            return
        for frame in reply.frames:
            if isinstance(frame.payload, dict):
                frame.payload["choices"] = []

    return apply


@_fault
def null_fields() -> Fault:
    """Chunks carry `null` where they could leave a field out (content, tool_calls, usage); OpenAI wire only."""

    def apply(reply: Reply) -> None:
        _only_openai(reply)
        for frame in reply.stream:
            if isinstance(frame.payload, dict):
                frame.payload.setdefault("usage", None)
                for choice in frame.payload["choices"]:
                    choice["delta"] = {"content": None, "tool_calls": None, "refusal": None, **choice["delta"]}

    return apply


@_fault
def two_finish_reasons(second: str = "length") -> Fault:
    """The finish is sent twice, the second time with another word."""

    def apply(reply: Reply) -> None:
        place = next(place for place, frame in enumerate(reply.stream) if frame.kind == "finish")
        payload = json.loads(encode_json(reply.stream[place].payload))
        if reply.wire is Wire.ANTHROPIC:
            payload["delta"]["stop_reason"] = FINISH_ON_ANTHROPIC.get(second, second)
        else:
            payload["choices"][0]["finish_reason"] = FINISH_ON_OPENAI.get(second, second)
        reply.stream.insert(place + 1, Frame("finish", payload, event=reply.stream[place].event))

    return apply


@_fault
def usage_in_every_chunk() -> Fault:
    """Running usage in each chunk, as some servers report it; OpenAI wire only."""

    def apply(reply: Reply) -> None:
        _only_openai(reply)
        for count, frame in enumerate(reply.stream):
            if isinstance(frame.payload, dict) and not frame.payload.get("usage"):
                counts = {"prompt_tokens": 10, "completion_tokens": count, "total_tokens": 10 + count}
                frame.payload["usage"] = counts

    return apply


@_fault
def endless(text: str = "more ") -> Fault:
    """After the first delta the stream goes on for ever with deltas of this text."""

    def apply(reply: Reply) -> None:
        place = reply.place_after(1)
        if reply.wire is Wire.ANTHROPIC:
            payload = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
            frame = Frame("delta", payload, event="content_block_delta", endless=True)
        else:
            choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
            frame = Frame("delta", {**reply.stream[0].payload, "choices": [choice]}, endless=True)
        reply.stream[place:] = [frame]

    return apply


@_fault
def header(name: str, value: str) -> Fault:
    """A response header, added or replaced."""

    def apply(reply: Reply) -> None:
        reply.headers = [pair for pair in reply.headers if pair[0] != name.lower()] + [(name.lower(), value)]

    return apply


def _raw_data(reply: Reply, data: bytes) -> Frame:
    event = b"event: content_block_delta\n" if reply.wire is Wire.ANTHROPIC else b""
    return Frame("other", raw=event + b"data: " + data + b"\n\n")


def _only_openai(reply: Reply) -> None:
    if reply.wire is not Wire.OPENAI:
        raise ScriptError("this fault belongs to the OpenAI wire")


def _chunk_like(reply: Reply, **changes: Any) -> Frame:
    _only_openai(reply)
    return Frame("other", {**reply.stream[0].payload, **changes})


def _edit_body(reply: Reply, edit: Callable[[dict[str, Any]], None]) -> None:
    assert isinstance(reply.body, bytes)
    body = json.loads(reply.body)
    edit(body)
    reply.body = encode_json(body)
