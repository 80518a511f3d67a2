"""An answer in the Chat Completions format: whole, and as the chunks of a stream."""

from __future__ import annotations

from typing import Any

from .identity import Identity, token
from .reply import Frame, encode_json
from .script import FINISH_ON_OPENAI, Answer, Failure, RawBlock, Reasoning, Refusal, Text, ToolCall


def openai_headers(identity_token: str) -> list[tuple[str, str]]:
    """The headers that the real endpoint adds to each response."""
    return [
        ("openai-organization", "org-local"),
        ("openai-processing-ms", "7"),
        ("openai-version", "2020-10-01"),
        ("x-ratelimit-limit-requests", "10000"),
        ("x-ratelimit-limit-tokens", "2000000"),
        ("x-ratelimit-remaining-requests", "9999"),
        ("x-ratelimit-remaining-tokens", "1999000"),
        ("x-ratelimit-reset-requests", "6ms"),
        ("x-ratelimit-reset-tokens", "30ms"),
        ("x-request-id", "req_" + identity_token),
    ]


def openai_frames(answer: Answer, identity: Identity) -> list[Frame]:
    """The stream: role, one chunk a delta, the finish, usage when it was asked for, and `[DONE]`."""
    body = identity.request.body
    with_usage = bool((body.get("stream_options") or {}).get("include_usage"))
    head = {
        "id": identity.response_id(),
        "object": "chat.completion.chunk",
        "created": identity.created,
        "model": identity.model,
        "service_tier": "default",
        "system_fingerprint": "fp_" + token(10, identity.model).lower(),
    }
    tail = {"usage": None} if with_usage else {}

    def chunk(kind: str, delta: dict[str, Any], finish: str | None = None) -> Frame:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return Frame(kind, {**head, "choices": [choice], **tail})

    has_text = any(isinstance(part, Text) for part in answer.parts) or not answer.calls
    frames = [chunk("start", {"role": "assistant", "content": "" if has_text else None, "refusal": None})]
    ordinal = 0
    for part in answer.parts:
        if isinstance(part, Text):
            frames += [chunk("delta", {"content": piece}) for piece in part.pieces]
        elif isinstance(part, Reasoning):
            frames += [chunk("delta", {part.field: piece}) for piece in part.pieces]
        elif isinstance(part, Refusal):
            frames += [chunk("delta", {"refusal": piece}) for piece in part.pieces]
        elif isinstance(part, ToolCall):
            frames += [chunk("delta", {"tool_calls": [delta]}) for delta in _call_deltas(part, ordinal, identity)]
            ordinal += 1
    frames.append(chunk("finish", {}, _finish(answer)))
    usage = openai_usage(identity)
    if with_usage and usage is not None:
        frames.append(Frame("usage", {**head, "choices": [], "usage": usage}))
    frames.append(Frame("done", b"[DONE]"))
    return frames


def _call_deltas(call: ToolCall, ordinal: int, identity: Identity) -> list[dict[str, Any]]:
    place = {} if call.omit_index else {"index": ordinal if call.index is None else call.index}
    call_id = identity.call_id(call, ordinal)
    named_id = {} if call_id is None else {"id": call_id}
    deltas = [{**place, **named_id, "type": "function", "function": {"name": call.name, "arguments": ""}}]
    for piece in call.argument_pieces:
        function = {"name": call.name, "arguments": piece} if call.repeat_name else {"arguments": piece}
        deltas.append({**place, **(named_id if call.repeat_id else {}), "function": function})
    return deltas


def openai_whole(answer: Answer, identity: Identity) -> bytes:
    """The reply to a request that did not ask for a stream."""
    message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None, "annotations": []}
    tool_calls: list[dict[str, Any]] = []
    for part in answer.parts:
        if isinstance(part, Text):
            message["content"] = (message["content"] or "") + "".join(part.pieces)
        elif isinstance(part, Reasoning):
            message[part.field] = message.get(part.field, "") + "".join(part.pieces)
        elif isinstance(part, Refusal):
            message["refusal"] = (message["refusal"] or "") + "".join(part.pieces)
        elif isinstance(part, ToolCall):
            call_id = identity.call_id(part, len(tool_calls))
            call: dict[str, Any] = {} if call_id is None else {"id": call_id}
            call |= {"type": "function", "function": {"name": part.name, "arguments": part.argument_text}}
            tool_calls.append(call)
    if tool_calls:
        message["tool_calls"] = tool_calls
    elif message["content"] is None and message["refusal"] is None:
        message["content"] = ""
    whole = {
        "id": identity.response_id(),
        "object": "chat.completion",
        "created": identity.created,
        "model": identity.model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(answer)}],
        "service_tier": "default",
        "system_fingerprint": "fp_" + token(10, identity.model).lower(),
    }
    usage = openai_usage(identity)
    if usage is not None:
        whole["usage"] = usage
    return encode_json(whole)


def openai_usage(identity: Identity) -> dict[str, Any] | None:
    """The usage object; `prompt_tokens` includes what was cached."""
    raw, usage = identity.raw_usage(), identity.usage()
    if raw is not None or usage is None:
        return raw
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def openai_error(failure: Failure) -> dict[str, Any]:
    """The error body."""
    error = {"message": failure.messages[0], "type": failure.types[0], "param": failure.param, "code": failure.code}
    return {"error": error}


def openai_models(models: tuple[str, ...]) -> bytes:
    """The list of models."""
    data = [{"id": name, "object": "model", "created": 1700000000, "owned_by": "local"} for name in models]
    return encode_json({"object": "list", "data": data})


def _finish(answer: Answer) -> str:
    if any(isinstance(part, RawBlock) for part in answer.parts):
        raise ValueError("a raw block belongs to the Anthropic wire")
    if answer.finish is not None:
        return FINISH_ON_OPENAI.get(answer.finish, answer.finish)
    return "tool_calls" if answer.calls else "stop"
