"""The zero-latency endpoint of the benchmarks: prebuilt bytes, and only the ends of a request looked at.

What it answers is written in the last user text of the request, by markers:

- none: a short text;
- `[[rounds=N]]`: one tool call after the other until N results have come back, then a short text;
- `[[calls=K]]`: K tool calls in one reply, then a short text;
- `[[deltas=D]]`: a text of D deltas;
- `[[tool=NAME]]` beside rounds or calls: the tool to call (`echo` otherwise), with `{"value": <number of the call>}`.

It checks nothing: a benchmark is no test.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from itertools import count
from typing import Any

# As far as the markers may stand from the end of the body: tools and options that follow the messages come before that.
TAIL_BYTES = 65536
HEAD_BYTES = 2048
MARKER = re.compile(rb"\[\[(\w+)=(\w+)\]\]")
STREAM = re.compile(rb'"stream":\s?true')
USER = re.compile(rb'"role":\s?"user"')
RESULT = re.compile(rb'"role":\s?"tool"|"type":\s?"tool_result"')
MODEL = "bench-model"
WORDS = ("The ", "answer ", "is ", "ready.")


class BenchResponder:
    """Answers raw requests with raw responses; one lives as long as its server."""

    def __init__(self) -> None:
        """Start counting the ids."""
        self._numbers = count(1)

    def respond(self, head: bytes, body: bytes) -> bytes | None:
        """The whole HTTP response, or None for a request that is no question to a model."""
        if head.startswith(b"POST /v1/chat/completions"):
            anthropic = False
        elif head.startswith(b"POST /v1/messages"):
            anthropic = True
        else:
            return None
        size = len(body)
        streaming = STREAM.search(body, 0, HEAD_BYTES) or STREAM.search(body, max(0, size - TAIL_BYTES))
        plan = _plan(body, size)
        template = _anthropic_response(plan, bool(streaming)) if anthropic else _openai_response(plan, bool(streaming))
        # Every place of a number takes the same one: it makes the ids of this reply its own.
        return template.replace(b"000000000000", b"%012d" % next(self._numbers))


# kind (text, calls), how many deltas or calls, the tool, the number of the first call
Plan = tuple[str, int, str, int]


def _plan(body: bytes, size: int) -> Plan:
    start = max(0, size - TAIL_BYTES)
    last = body.rfind(b"[[", start)
    if last < 0:
        return ("text", len(WORDS), "", 0)
    results = len(RESULT.findall(body, last))
    # Another user text after the markers that brings no results: they belong to an earlier turn.
    if len(USER.findall(body, last)) > results:
        return ("text", len(WORDS), "", 0)
    message = body.rfind(b'"role"', start, last)
    markers = dict(MARKER.findall(body, max(message, start)))
    tool = markers.get(b"tool", b"echo").decode()
    if b"rounds" in markers and results < int(markers[b"rounds"]):
        return ("calls", 1, tool, results)
    if b"calls" in markers and not results:
        return ("calls", int(markers[b"calls"]), tool, 0)
    return ("text", int(markers.get(b"deltas", len(WORDS))), "", 0)


def _http(body: bytes | list[bytes], anthropic: bool) -> bytes:
    request_id = b"request-id" if anthropic else b"x-request-id"
    head = b"HTTP/1.1 200 OK\r\n" + request_id + b": req_000000000000\r\n"
    if isinstance(body, bytes):
        return head + b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    head += b"content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in body) + b"0\r\n\r\n"


def _words(deltas: int) -> list[str]:
    return list(WORDS) if deltas == len(WORDS) else [f"word{n % 100} " for n in range(deltas)]


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


@lru_cache(maxsize=256)
def _openai_response(plan: Plan, streaming: bool) -> bytes:
    kind, amount, tool, first = plan
    usage = {"prompt_tokens": 100, "completion_tokens": amount, "total_tokens": 100 + amount}
    head = {"id": "chatcmpl-000000000000", "created": 1700000000, "model": MODEL}
    calls: list[dict[str, Any]] = [
        {
            "id": f"call_000000000000_{n}",
            "type": "function",
            "function": {"name": tool, "arguments": _json({"value": first + n})},
        }
        for n in range(amount if kind == "calls" else 0)
    ]
    finish = "tool_calls" if calls else "stop"
    words = _words(amount)
    if not streaming:
        message: dict[str, Any] = {"role": "assistant", "content": None if calls else "".join(words)}
        if calls:
            message["tool_calls"] = calls
        choice = {"index": 0, "message": message, "finish_reason": finish}
        whole = {**head, "object": "chat.completion", "choices": [choice], "usage": usage}
        return _http(_json(whole).encode(), False)

    def chunk(delta: dict[str, Any], reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        payload = {**head, "object": "chat.completion.chunk", "choices": [choice], "usage": None}
        return f"data: {_json(payload)}\n\n".encode()

    chunks = [chunk({"role": "assistant", "content": None if calls else ""})]
    if calls:
        for index, call in enumerate(calls):
            arguments = call["function"]["arguments"]
            opening = {**call, "index": index, "function": {"name": tool, "arguments": ""}}
            chunks.append(chunk({"tool_calls": [opening]}))
            chunks.append(chunk({"tool_calls": [{"index": index, "function": {"arguments": arguments}}]}))
    else:
        chunks += [chunk({"content": word}) for word in words]
    chunks.append(chunk({}, finish))
    last = {**head, "object": "chat.completion.chunk", "choices": [], "usage": usage}
    chunks += [f"data: {_json(last)}\n\n".encode(), b"data: [DONE]\n\n"]
    return _http(chunks, False)


@lru_cache(maxsize=256)
def _anthropic_response(plan: Plan, streaming: bool) -> bytes:
    kind, amount, tool, first = plan
    usage = {"input_tokens": 100, "output_tokens": amount}
    calls: list[dict[str, Any]] = [
        {"type": "tool_use", "id": f"toolu_000000000000_{n}", "name": tool, "input": {"value": first + n}}
        for n in range(amount if kind == "calls" else 0)
    ]
    words = _words(amount)
    blocks: list[dict[str, Any]] = calls or [{"type": "text", "text": "".join(words)}]
    message = {"id": "msg_000000000000", "type": "message", "role": "assistant", "model": MODEL}
    end = {"stop_reason": "tool_use" if calls else "end_turn", "stop_sequence": None}
    if not streaming:
        return _http(_json({**message, "content": blocks, **end, "usage": usage}).encode(), True)

    def event(name: str, **fields: Any) -> bytes:
        return f"event: {name}\ndata: {_json({'type': name, **fields})}\n\n".encode()

    empty: dict[str, Any] = {
        **message,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {**usage, "output_tokens": 1},
    }
    events = [event("message_start", message=empty), event("ping")]
    for index, block in enumerate(blocks):
        if calls:
            opening: dict[str, Any] = {**block, "input": {}}
            deltas = [{"type": "input_json_delta", "partial_json": _json(block["input"])}]
        else:
            opening = {"type": "text", "text": ""}
            deltas = [{"type": "text_delta", "text": word} for word in words]
        events.append(event("content_block_start", index=index, content_block=opening))
        events += [event("content_block_delta", index=index, delta=delta) for delta in deltas]
        events.append(event("content_block_stop", index=index))
    events += [event("message_delta", delta=end, usage=usage), event("message_stop")]
    return _http(events, True)
