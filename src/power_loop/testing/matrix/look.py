"""Looks at a session through the public reads, and says it in a form in which two runs of one scenario are the same."""

from __future__ import annotations

import json
from typing import Any

from power_loop import PowerLoopError, SessionNotFoundError, StatefulAgentLoop, StatefulResult
from power_loop.testing.matrix.outside import calls_of, digest_of, tokens_of

#: What was seen of a session, as JSON.
Seen = dict[str, Any]


async def look_at(loop: StatefulAgentLoop, session_id: str) -> Seen:
    """Return what the store holds of a session."""
    try:
        session = await loop.get_session(session_id)
    except SessionNotFoundError:
        return {"exists": False, "log": [], "calls": [], "sends": []}
    store = await loop.get_store()
    stats = await loop.get_session_stats(session_id)
    sends = []
    for index in range(1, session.send_count + 1):
        send = await store.get_send(session_id, index=index)
        sends.append(
            None
            if send is None
            else {"request_id": send.request_id, "status": send.status.value, "usage": tokens_of(send.usage)}
        )
    return {
        "exists": True,
        "owner": session.owner,
        "epoch": session.epoch,
        "updated_at_ms": session.updated_at_ms,
        "next_seq": session.next_seq,
        "log": [_entry(record) for record in await loop.get_messages(session_id)],
        "calls": [_call(call) for call in await store.get_calls(session_id)],
        "sends": sends,
        "usage": tokens_of(stats.usage),
        "model_calls": stats.model_calls,
        "folds": [_fold(record) for record in await loop.get_folds(session_id)],
        "inbox": [record.position for record in await loop.get_inbox(session_id)],
    }


def _entry(record: Any) -> dict[str, Any]:
    message, result = record.message, record.message.tool_result
    entry = {"seq": record.seq, "role": message.role.value, "text": message.text, "digest": digest_of(message)}
    if result is not None:
        texts = [getattr(part, "text", type(part).__name__) for part in result.content]
        entry |= {"answers": result.call_id, "text": "".join(texts), "is_error": result.is_error}
    entry["calls"] = [[part.id, part.name, part.arguments] for part in calls_of(message)]
    return entry


def _call(call: Any) -> dict[str, Any]:
    return {
        "id": call.call_id,
        "name": call.name,
        "arguments": call.arguments,
        "effect": call.effect.value,
        "state": call.state.value,
        "attempt": call.attempt,
        "key": call.idempotency_key,
        "is_answered": call.result_seq is not None,
    }


def _fold(record: Any) -> dict[str, Any]:
    return {
        "from_seq": record.from_seq,
        "to_seq": record.to_seq,
        "usage": tokens_of(record.usage),
        "model_calls": record.model_calls,
    }


def outcome_of(value: Any) -> Any:
    """Return what an act gave, as JSON."""
    if isinstance(value, StatefulResult):
        return {"status": value.status.value, "final_text": value.final_text, "output": value.output}
    return json.loads(json.dumps(value, default=repr))


def error_of(error: BaseException) -> dict[str, Any]:
    """Return an error as JSON."""
    if isinstance(error, PowerLoopError):
        return {"error": error.code, "message": error.message}
    return {"error": type(error).__name__, "message": str(error)}


def canonical(seen: Seen, *, hide: frozenset[str] = frozenset()) -> Any:
    """Return a session without what differs between two runs: ids by their place, results in the order of their calls.

    What the calls in `hide` gave, and what the model said once it had heard of that, is left out.
    """
    places = {call["id"]: f"call {at}" for at, call in enumerate(seen["calls"], 1)}
    order = {call["id"]: at for at, call in enumerate(seen["calls"])}
    log: list[dict[str, Any]] = []
    group: list[dict[str, Any]] = []
    is_hidden = False
    for entry in [*seen["log"], None]:
        if entry is not None and entry["role"] == "tool":
            group.append(entry)
            continue
        for answer in sorted(group, key=lambda one: order.get(one["answers"], 0)):
            hidden = answer["answers"] in hide
            is_hidden |= hidden
            said = None if hidden else [answer["text"], answer["is_error"]]
            log.append({"answers": places.get(answer["answers"]), "said": said})
        group = []
        if entry is not None:
            text = None if is_hidden and entry["role"] == "assistant" else entry["text"]
            asked = [[places.get(call[0]), *call[1:]] for call in entry["calls"]]
            log.append({"role": entry["role"], "text": text, "calls": asked})
    calls = [
        {
            "name": call["name"],
            "arguments": call["arguments"],
            "state": None if call["id"] in hide else call["state"],
        }
        for call in seen["calls"]
    ]
    sends = [
        send and [send["request_id"], send["status"], None if is_hidden else send["usage"]] for send in seen["sends"]
    ]
    counts = None if is_hidden else [seen.get("usage"), seen.get("model_calls")]
    folds = None if is_hidden else [[fold["from_seq"], fold["to_seq"]] for fold in seen.get("folds", ())]
    return {"log": log, "calls": calls, "sends": sends, "counts": counts, "folds": folds}
