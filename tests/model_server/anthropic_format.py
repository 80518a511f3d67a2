"""An answer in the Anthropic Messages format: whole, and as the events of a stream."""

from __future__ import annotations

import json
from typing import Any

from .identity import Identity, IssuedThinking, Ledger
from .reply import Frame, encode_json
from .script import (
    FINISH_ON_ANTHROPIC,
    Answer,
    Failure,
    RawBlock,
    Reasoning,
    RedactedReasoning,
    Refusal,
    Text,
    ToolCall,
)

# What opens a content block in a stream, its deltas, the whole block.
Block = tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]


def anthropic_headers(identity_token: str) -> list[tuple[str, str]]:
    """The headers that the real endpoint adds to each response."""
    return [
        ("anthropic-organization-id", "00000000-0000-0000-0000-000000000000"),
        ("anthropic-ratelimit-requests-limit", "4000"),
        ("anthropic-ratelimit-requests-remaining", "3999"),
        ("anthropic-ratelimit-requests-reset", "2030-01-01T00:00:00Z"),
        ("anthropic-ratelimit-tokens-limit", "480000"),
        ("anthropic-ratelimit-tokens-remaining", "480000"),
        ("anthropic-ratelimit-tokens-reset", "2030-01-01T00:00:00Z"),
        ("request-id", "req_011" + identity_token),
    ]


def anthropic_frames(answer: Answer, identity: Identity, ledger: Ledger) -> list[Frame]:
    """The stream: message_start, ping, the blocks, message_delta with the cumulative usage, message_stop."""
    usage = anthropic_usage(identity)
    message: dict[str, Any] = _message(answer, identity, [], None)
    if usage is not None:
        message["usage"] = {**usage, "output_tokens": min(1, usage["output_tokens"])} if usage else {}
    frames = [_event("start", "message_start", {"message": message}), _event("other", "ping", {})]
    for index, (opening, deltas, _) in enumerate(_blocks(answer, identity, ledger)):
        frames.append(_event("other", "content_block_start", {"index": index, "content_block": opening}))
        if index == 0:
            frames.append(_event("other", "ping", {}))
        frames += [_event("delta", "content_block_delta", {"index": index, "delta": delta}) for delta in deltas]
        frames.append(_event("other", "content_block_stop", {"index": index}))
    closing: dict[str, Any] = {"delta": _end(answer)}
    if usage is not None:
        closing["usage"] = usage
    frames.append(_event("finish", "message_delta", closing))
    frames.append(_event("done", "message_stop", {}))
    return frames


def anthropic_whole(answer: Answer, identity: Identity, ledger: Ledger) -> bytes:
    """The reply to a request that did not ask for a stream."""
    content = [block for _, _, block in _blocks(answer, identity, ledger)]
    message = _message(answer, identity, content, _end(answer))
    usage = anthropic_usage(identity)
    if usage is not None:
        message["usage"] = usage
    return encode_json(message)


def anthropic_usage(identity: Identity) -> dict[str, Any] | None:
    """The usage object; `input_tokens` is the uncached part only."""
    raw, usage = identity.raw_usage(), identity.usage()
    if raw is not None or usage is None:
        return raw
    return {
        "input_tokens": usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens,
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cached_tokens,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write_tokens,
            "ephemeral_1h_input_tokens": 0,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
        "service_tier": "standard",
    }


def anthropic_error(failure: Failure, request_id: str) -> dict[str, Any]:
    """The error body."""
    error: dict[str, Any] = {"details": None, "type": failure.types[1], "message": failure.messages[1]}
    if failure.detail_code is not None:
        error["details"] = {"error_code": failure.detail_code}
    return {"type": "error", "error": error, "request_id": request_id}


def anthropic_models(models: tuple[str, ...]) -> bytes:
    """The list of models."""
    data = [
        {"type": "model", "id": name, "display_name": name, "created_at": "2025-01-01T00:00:00Z"} for name in models
    ]
    edges = {"first_id": models[0] if models else None, "last_id": models[-1] if models else None}
    return encode_json({"data": data, "has_more": False, **edges})


def _event(kind: str, event: str, fields: dict[str, Any]) -> Frame:
    return Frame(kind, {"type": event, **fields}, event=event)


def _message(
    answer: Answer, identity: Identity, content: list[dict[str, Any]], end: dict[str, Any] | None
) -> dict[str, Any]:
    ends = end or {"stop_reason": None, "stop_sequence": None, "stop_details": None}
    return {
        "model": identity.model,
        "id": identity.response_id(),
        "type": "message",
        "role": "assistant",
        "content": content,
        **ends,
    }


def _end(answer: Answer) -> dict[str, Any]:
    if answer.finish is not None:
        reason = FINISH_ON_ANTHROPIC.get(answer.finish, answer.finish)
    elif any(isinstance(part, Refusal) for part in answer.parts):
        reason = "refusal"
    else:
        reason = "tool_use" if answer.calls else "end_turn"
    details = dict(answer.stop_details) if answer.stop_details is not None else None
    return {"stop_reason": reason, "stop_sequence": answer.stop_sequence, "stop_details": details}


def _blocks(answer: Answer, identity: Identity, ledger: Ledger) -> list[Block]:
    """The content blocks; what was issued is entered in the ledger."""
    blocks: list[Block] = []
    thoughts: list[IssuedThinking] = []
    ordinal = 0
    for place, part in enumerate(answer.parts):
        if isinstance(part, (Text, Refusal)):
            whole = "".join(part.pieces)
            deltas = [{"type": "text_delta", "text": piece} for piece in part.pieces]
            blocks.append(({"type": "text", "text": ""}, deltas, {"type": "text", "text": whole}))
        elif isinstance(part, Reasoning):
            seal, pieces = identity.seal(part, place), part.pieces if part.shown else ()
            whole = "".join(pieces)
            thoughts.append(IssuedThinking("thinking", whole, seal, identity.model))
            deltas = [{"type": "thinking_delta", "thinking": piece} for piece in pieces]
            deltas.append({"type": "signature_delta", "signature": seal})
            opening = {"type": "thinking", "thinking": "", "signature": ""}
            blocks.append((opening, deltas, {"type": "thinking", "thinking": whole, "signature": seal}))
        elif isinstance(part, RedactedReasoning):
            seal = identity.seal(part, place)
            thoughts.append(IssuedThinking("redacted_thinking", seal, seal, identity.model))
            block = {"type": "redacted_thinking", "data": seal}
            blocks.append((block, [], block))
        elif isinstance(part, RawBlock):
            blocks.append((dict(part.block), [], dict(part.block)))
        else:
            call_id = identity.call_id(part, ordinal)
            ordinal += 1
            if call_id is not None:
                ledger.before_call[call_id] = tuple(thoughts)
            blocks.append(_call_block(part, call_id))
    for thought in thoughts:
        ledger.by_seal[thought.seal] = thought
    if answer.finish == "pause_turn" and blocks:
        ledger.paused.append(blocks[-1][2])
    return blocks


def _call_block(call: ToolCall, call_id: str | None) -> Block:
    head: dict[str, Any] = {"type": "tool_use"}
    if call_id is not None:
        head["id"] = call_id
    head["name"] = call.name
    deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in ("", *call.argument_pieces)]
    try:
        whole = json.loads(call.argument_text or "{}")
    except ValueError:
        # A whole reply cannot carry broken JSON: the API gives what it could read of it, here nothing.
        whole = {}
    return {**head, "input": {}}, deltas, {**head, "input": whole}
