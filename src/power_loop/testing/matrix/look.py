"""Looks at a session, its timers and all below it by the public reads, and says it so that two runs are the same."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from power_loop import PowerLoopError, StatefulAgentLoop, StatefulResult
from power_loop.budgets import Amounts
from power_loop.errors import RunNotFoundError, SessionNotFoundError
from power_loop.testing.matrix.outside import calls_of, digest_of, tokens_of
from power_loop.timers import TimerRecord

# A scenario that makes more timers than this in a session is not looked at to its end.
_MAX_TIMERS = 1_000
#: What was seen of a session, as JSON.
Seen = dict[str, Any]


async def look_at(loop: StatefulAgentLoop, session_id: str) -> Seen:
    """Return what the store holds of a session, and of every one below it."""
    try:
        session = await loop.get_session(session_id)
    except SessionNotFoundError:
        return {"id": session_id, "exists": False, "log": [], "calls": [], "sends": [], "below": [], "timers": []}
    store = await loop.get_store()
    timers = await loop.list_timers(session_id, include_ended=True, limit=_MAX_TIMERS)
    stats = await loop.get_session_stats(session_id)
    calls = await store.get_calls(session_id)
    sends: list[dict[str, Any] | None] = []
    for index in range(1, session.send_count + 1):
        send = await store.get_send(session_id, index=index)
        if send is None:
            sends.append(None)
            continue
        seen = {"request_id": send.request_id, "status": send.status.value, "usage": tokens_of(send.usage)}
        sends.append(seen | {"budget": await _budget_of(loop, send, ran=sum(one.send_index == index for one in calls))})
    return {
        "id": session_id,
        "name": session.metadata.get("agent"),
        "exists": True,
        "owner": session.owner,
        "epoch": session.epoch,
        "updated_at_ms": session.updated_at_ms,
        "next_seq": session.next_seq,
        "log": [_entry(record) for record in await loop.get_messages(session_id)],
        "calls": [_call(call) for call in calls],
        "sends": sends,
        # Of itself: what stands below it is looked at by itself.
        "usage": [a - b for a, b in zip(tokens_of(stats.usage), tokens_of(stats.children_usage), strict=True)],
        "usage_below": tokens_of(stats.children_usage),
        "model_calls": stats.model_calls,
        "folds": [_fold(record) for record in await loop.get_folds(session_id)],
        "inbox": [record.position for record in await loop.get_inbox(session_id)],
        # Not by their ages, because a clock may jump between two of them.
        "timers": [_timer(timer) for timer in sorted(timers.items, key=lambda one: (one.message.text, one.id))],
        **await _run_of(store, session_id),
        "below": [await look_at(loop, child.id) for child in await store.get_children(session_id)],
    }


async def _run_of(store: Any, session_id: str) -> dict[str, Any]:
    """Return the run of a workflow that a session stands for with its steps, and its signals; nothing of any other."""
    try:
        run, steps, signals = await store.read_journal(session_id)
    except RunNotFoundError:
        return {}
    told = {
        "name": run.name,
        "state": run.state,
        "output": run.output,
        "error": None if run.error is None else run.error.get("code"),
        "steps": [
            {
                "path": step.path,
                "kind": step.kind,
                "state": step.state,
                "attempt": step.attempt,
                "session": step.child_session_id,
                "output": step.output,
                "error": None if step.error is None else step.error.get("code"),
                "nth": step.ended_nth,
            }
            for step in steps
        ],
    }
    return {"run": told, "signals": [[signal.name, signal.value, signal.taken_by] for signal in signals]}


def _timer(timer: TimerRecord) -> dict[str, Any]:
    return {
        "id": timer.id,
        "text": timer.message.text,
        "state": timer.state.value,
        "number": timer.number,
        "delivered": timer.delivered,
        "missed": timer.missed,
        "vetoed": timer.vetoed,
    }


async def _budget_of(loop: StatefulAgentLoop, send: Any, *, ran: int) -> dict[str, list[int]] | None:
    """Return what a send's own budget paid and what is due for it and all that it set going; None without one."""
    found = await loop.get_budget(send.session_id, send_index=send.index)
    if found is None or (found.key.session_id, found.key.send_index) != (send.session_id, send.index):
        return None
    store = await loop.get_store()
    due = Amounts(send.usage.total_tokens, send.cost_nanos or 0, ran)
    due += Amounts(send.dropped_usage.total_tokens, send.dropped_cost_nanos or 0, 0)
    for one in await store.get_children_spending(send.session_id, send.index):
        due += Amounts(one.usage.total_tokens, one.cost_nanos or 0, one.tool_calls)
    told = {"spent": found.spent, "due": due, "lost": found.lost, "reserved": found.reserved}
    return {name: [amounts.tokens, amounts.cost_nanos, amounts.tool_calls] for name, amounts in told.items()}


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


def by_place(seen: Seen, place: str = "") -> dict[str, Seen]:
    """Return a session and all below it by places that two runs have in common; its own is "".

    A session below is named after the call that gave it its first work, the workflow that it runs, or the step that it
    works on; or else after its agent and that work.
    """
    found = {place: seen}
    calls = {call["key"]: f"call {at}" for at, call in enumerate(seen["calls"], 1)}
    steps = {step["session"]: f"step {step['path']}" for step in _steps(seen)}
    for below in seen["below"]:
        work = next((entry["text"] for entry in below["log"]), "")
        own = calls.get(work_of(below) or "") or steps.get(below["id"])
        if own is None and below.get("run"):
            own = f"workflow {below['run']['name']!r}"
        at, count = f"{place}/{own or _name_of(below, work)}", 1
        while at in found:
            count += 1
            at = f"{place}/{own or _name_of(below, work)}, session {count} of it"
        found |= by_place(below, at)
    return found


def _name_of(seen: Seen, work: str) -> str:
    return f"{seen.get('name') or 'session'} {work!r:.60}"


def _steps(seen: Seen) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = (seen.get("run") or {}).get("steps", [])
    return steps


def speechless(seen: Seen) -> set[str]:
    """Return the sessions of a tree in which no model speaks: those of workflows and of their tool steps."""
    found = set()
    for one in by_place(seen).values():
        if one.get("run"):
            found.add(one["id"])
            found |= {step["session"] for step in _steps(one) if step["kind"] == "tool" and step["session"]}
    return found


def steps_of(seen: Seen, sessions: Iterable[str]) -> frozenset[str]:
    """Return the steps of a run whose work was done in some sessions."""
    wanted = set(sessions)
    return frozenset(step["path"] for step in _steps(seen) if step["session"] in wanted)


def work_of(seen: Seen) -> str | None:
    """Return the key of the call that gave a session its first work; None of one that was given none."""
    first = seen["sends"][0] if seen["sends"] else None
    return None if first is None else first["request_id"]


class Hidden(NamedTuple):
    """Is what is left out of a session because nobody can know it: what `calls` gave and what was said behind them,
    what `steps` came to and what their run made of it, and the `inputs` that it was given."""

    calls: frozenset[str] = frozenset()
    steps: frozenset[str] = frozenset()
    inputs: bool = False


NOTHING_HIDDEN = Hidden()


def canonical(seen: Seen, hidden: Hidden = NOTHING_HIDDEN, *, is_below: bool = False) -> Any:
    """Return a session without what differs between two runs: ids by their place, results in the order of their calls.

    What is `hidden` is left out. The requests of a session that `is_below` another one are named after that one's
    calls, and so are left out too.
    """
    names = {below["id"]: place for place, below in by_place(seen).items() if place}
    names |= {timer["id"]: f"timer {at}" for at, timer in enumerate(seen.get("timers", ()), 1)}

    def plain(text: str) -> str:
        for id_, place in names.items():
            text = text.replace(id_, place)
        return text

    places = {call["id"]: f"call {at}" for at, call in enumerate(seen["calls"], 1)}
    order = {call["id"]: at for at, call in enumerate(seen["calls"])}
    log: list[dict[str, Any]] = []
    group: list[dict[str, Any]] = []
    is_hidden = bool(hidden.steps)
    for entry in [*seen["log"], None]:
        if entry is not None and entry["role"] == "tool":
            group.append(entry)
            continue
        for answer in sorted(group, key=lambda one: order.get(one["answers"], 0)):
            is_left_out = answer["answers"] in hidden.calls
            is_hidden |= is_left_out
            said = None if is_left_out else [plain(answer["text"]), answer["is_error"]]
            log.append({"answers": places.get(answer["answers"]), "said": said})
        group = []
        if entry is not None:
            is_left_out = {"user": hidden.inputs, "assistant": is_hidden}.get(entry["role"], False)
            text = None if is_left_out else plain(entry["text"])
            asked = [[places.get(id_), name, plain(arguments)] for id_, name, arguments in entry["calls"]]
            log.append({"role": entry["role"], "text": text, "calls": asked})
    calls = [
        {
            "name": call["name"],
            "arguments": plain(call["arguments"]),
            "state": None if call["id"] in hidden.calls else call["state"],
        }
        for call in seen["calls"]
    ]
    sends = [
        send
        and [
            None if is_below else plain(send["request_id"] or ""),
            None if hidden.steps else send["status"],
            None if is_hidden else send["usage"],
        ]
        for send in seen["sends"]
    ]
    counts = None if is_hidden else [seen.get("usage"), seen.get("model_calls")]
    folds = None if is_hidden else [[fold["from_seq"], fold["to_seq"]] for fold in seen.get("folds", ())]
    timers = [[one[part] for part in _OF_A_TIMER] for one in seen.get("timers", ())]
    return {
        "log": log,
        "calls": calls,
        "sends": sends,
        "counts": counts,
        "folds": folds,
        "timers": sorted(timers),
        "run": None if hidden.steps else _canonical_run(seen),
        "signals": seen.get("signals"),
    }


def _canonical_run(seen: Seen) -> Any:
    """Return a run without the sessions of its leaves."""
    run = seen.get("run")
    if run is None:
        return None
    steps = [[step[part] for part in _OF_A_STEP] for step in sorted(_steps(seen), key=lambda one: str(one["path"]))]
    return [run["name"], run["state"], run["output"], run["error"], steps]


_OF_A_TIMER = ("text", "state", "number", "delivered", "missed", "vetoed")
_OF_A_STEP = ("path", "kind", "state", "attempt", "output", "error")
