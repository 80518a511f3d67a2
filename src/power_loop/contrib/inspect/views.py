"""Reads from a loop's store what a view of the page shows, as bounded JSON values; the mark of a view tells cheaply
whether it has changed."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from power_loop import HookPoint, PendingCall, SendStatus, StatefulAgentLoop
from power_loop.contrib.event_values import json_value, shortened
from power_loop.errors import InputError, RunNotFoundError, SessionNotFoundError
from power_loop.records import SendRecord, SessionRecord
from power_loop.storage import OPEN_CALLS

Value = dict[str, Any]

#: The hook by which an attached inspector sees requests; it is not the application's.
OWN_HOOK = "inspector"
#: Messages of one page of the timeline.
PAGE_MESSAGES = 100
#: Sessions of one page of the list.
PAGE_SESSIONS = 50
#: And the most that a page of the list watches.
MAX_SESSIONS = 500
#: A text is cut to so many characters in the timeline, and to so many where it alone is shown.
MAX_CHARS, MAX_WHOLE_CHARS = 20_000, 400_000
# All texts of one answer together.
_MAX_ANSWER_CHARS = 3_000_000
# Where that much was said, further texts are shown so far, and so many items of further lists.
_LEAST_CHARS, _LEAST_ITEMS = 40, 20
_MAX_ITEMS = 500
_MAX_DEPTH = 24
_MAX_TREE, _MAX_WATCHED = 200, 40
_MAX_ROWS = 100


async def sessions_view(loop: StatefulAgentLoop, *, cursor: str | None, limit: int) -> Value:
    """Return a page of the sessions, newest first, each with where its last send stands."""
    page = await loop.list_sessions(cursor=cursor, limit=limit)
    store = await loop.get_store()
    listed = [_listed(one, await store.get_send(one.id)) for one in page.items]
    return bounded({"sessions": listed, "next_cursor": page.next_cursor})


async def overview(loop: StatefulAgentLoop, *, is_attached: bool) -> Value:
    """Return what goes on in the whole store: who holds leases, what nobody drives, which timers are due next."""
    store: Any = await loop.get_store()
    stalled = await store.find_stalled(older_than_ms=0, limit=_MAX_ROWS)
    timers = await store.list_timers(limit=_MAX_ROWS)
    return bounded(
        {
            "owners": json_value(await store.list_owners()),
            "stalled": json_value(stalled),
            "timers": json_value(timers.items),
            "runs": [_run_line(one) for one in await store.list_runs(limit=20)],
            "agent": _agent_of(loop) if is_attached else None,
        }
    )


async def session_view(
    loop: StatefulAgentLoop, session_id: str, *, after_seq: int | None = None, before_seq: int | None = None
) -> Value:
    """Return a session and a page of its log: its end, what stands behind `after_seq`, or what before `before_seq`."""
    store: Any = await loop.get_store()
    head = await store.get_session(session_id)
    end = head.next_seq if before_seq is None else min(before_seq, head.next_seq)
    after = max(end - 1 - PAGE_MESSAGES, 0)
    if after_seq is not None:
        after = max(after, after_seq)
    messages = await store.get_messages(session_id, after_seq=after, limit=max(end - 1 - after, 0))
    # A call goes on long after the message that asks for it.
    calls = [one for one in await store.get_calls(session_id) if end - 1 - PAGE_MESSAGES <= one.reply_seq < end]
    model_calls = await store.get_model_calls(session_id, before_seq=end, limit=PAGE_MESSAGES)
    indexes = {one.send_index for one in messages} | ({head.send_count} if head.send_count else set())
    sends = [await store.get_send(session_id, index=index) for index in sorted(indexes)]
    inbox = await store.get_inbox(session_id, limit=_MAX_ROWS)
    timers = await store.list_timers(session_id, limit=_MAX_ROWS)
    pending = [_pending(one) for one in (await loop.get_pending(session_id))[:_MAX_ROWS]]
    shown = bounded(
        {
            "session": json_value(head),
            "first_seq": after + 1,
            "messages": json_value(messages),
            "calls": json_value(calls),
            "model_calls": [
                {**json_value(one), "call": {**json_value(one.call), "segments": len(one.call.segments)}}
                for one in model_calls
                if one.reply_seq > after
            ],
            "sends": [json_value(one) for one in sends if one is not None],
            "folds": json_value((await store.get_folds(session_id))[-_MAX_ROWS:]),
            "inbox": json_value(inbox),
            "timers": json_value(timers.items),
            "stats": json_value(await store.get_stats(session_id)),
            "budget": json_value(await loop.get_budget(session_id)),
            "runs": [_run_line(one) for one in await store.list_runs(parent_session_id=session_id, limit=_MAX_ROWS)],
            "run": await _run_of(store, session_id),
        }
    )
    return {**shown, "pending": pending}


async def tree_view(loop: StatefulAgentLoop, session_id: str) -> Value:
    """Return the tree that a session stands in, from its top on, at most 200 sessions of it."""
    store: Any = await loop.get_store()
    head = await store.get_session(session_id)
    with contextlib.suppress(SessionNotFoundError):
        head = await store.get_session(head.root_id or session_id)
    nodes = [
        {**_listed(one, await store.get_send(one.id)), "stats": json_value(await store.get_stats(one.id))}
        async for one in _below(store, head, limit=_MAX_TREE)
    ]
    return bounded({"session_id": session_id, "nodes": nodes, "is_whole": len(nodes) < _MAX_TREE})


async def message_view(loop: StatefulAgentLoop, session_id: str, seq: int) -> Value:
    """Return one message, and the whole results of its calls, cut only where a browser could not show them."""
    store: Any = await loop.get_store()
    found = await store.get_messages(session_id, after_seq=seq - 1, limit=1)
    if not found or found[0].seq != seq:
        raise InputError(f"session {session_id!r:.80} has no message {seq}")
    result = found[0].message.tool_result
    whole = None if result is None else await loop.get_tool_result(session_id, result.call_id)
    return bounded({"message": json_value(found[0]), "whole": json_value(whole)}, max_chars=MAX_WHOLE_CHARS)


# ---- marks ----


async def mark_of_sessions(loop: StatefulAgentLoop, *, limit: int) -> object:
    """Return what changes with the list of sessions and what the overview shows of them."""
    page = await loop.list_sessions(limit=limit)
    return tuple(map(_mark, page.items))


async def mark_of_session(loop: StatefulAgentLoop, session_id: str) -> object:
    """Return what changes with a session, with what stands below it, and with the run that it is."""
    store: Any = await loop.get_store()
    head = await store.get_session(session_id)
    send = await store.get_send(session_id)
    calls = await store.get_calls(session_id, states=tuple(OPEN_CALLS))
    below = [_mark(one) async for one in _below(store, head, limit=_MAX_WATCHED)]
    runs = await store.list_runs(parent_session_id=session_id, limit=_MAX_ROWS)
    run: Any = None
    with contextlib.suppress(RunNotFoundError):
        run, steps, _ = await store.read_journal(session_id)
        run = (run.state, [(one.path, one.state, one.attempt) for one in steps])
    return (
        below,
        None if send is None else (send.index, send.status, send.attempts, send.rounds),
        [(one.call_id, one.state, one.attempt) for one in calls],
        [(one.session_id, one.state, one.updated_at_ms) for one in runs],
        run,
        len(await store.get_inbox(session_id, limit=_MAX_ROWS)),
    )


def _mark(head: SessionRecord) -> tuple[object, ...]:
    return (head.id, head.updated_at_ms, head.next_seq, head.send_count, head.version, head.owner, head.epoch)


# ---- parts ----


async def _below(store: Any, head: SessionRecord, *, limit: int) -> AsyncIterator[SessionRecord]:
    """Give a session and those below it, the nearest first, at most so many."""
    waiting, count = [head], 0
    while waiting and count < limit:
        one = waiting.pop(0)
        count += 1
        yield one
        waiting += await store.get_children(one.id)


def _listed(head: SessionRecord, send: SendRecord | None) -> Value:
    agent = head.agent or {}
    return {
        "id": head.id,
        "state": head.state.value,
        "status": "new" if send is None else send.status.value,
        "waits": send is not None and send.status is SendStatus.WAITING_FOR_INPUT,
        "owner": head.owner,
        "lease_until_ms": head.lease_until_ms,
        "created_at_ms": head.created_at_ms,
        "updated_at_ms": head.updated_at_ms,
        "messages": head.next_seq - 1,
        "send_count": head.send_count,
        "metadata": json_value(head.metadata),
        "agent": agent.get("name"),
        "parent_id": head.parent_id,
        "forked_from": head.forked_from,
        "forked_at_seq": head.forked_at_seq,
    }


def _pending(call: PendingCall) -> Value:
    """Return an open call; `is_whole` tells whether all of its arguments are there, which who allows it has to see."""
    text = json.dumps(json_value(call.arguments), ensure_ascii=False, indent=2)
    shown = bounded({**json_value(call), "arguments": text})
    return {**shown, "is_whole": shown["arguments"] == text}


def _run_line(run: Any) -> Value:
    names = ("session_id", "name", "state", "parent_session_id", "created_at_ms", "ended_at_ms")
    return {name: getattr(run, name) for name in names}


async def _run_of(store: Any, session_id: str) -> Value | None:
    try:
        run, steps, signals = await store.read_journal(session_id)
    except RunNotFoundError:
        return None
    return {**json_value(run), "steps": json_value(steps[:_MAX_ITEMS]), "signals": json_value(signals)}


def _agent_of(loop: StatefulAgentLoop) -> Value:
    """Return what a loop of this process is: its model, its tools, its hooks by point."""
    named = {point.value: [name for name in loop.hooks.names(point) if name != OWN_HOOK] for point in HookPoint}
    return {
        "model": f"{loop.llm.info.provider}/{loop.llm.info.model}",
        "tools": list(loop.tools.names),
        "hooks": {point: names for point, names in named.items() if names},
    }


def bounded(value: Value, *, max_chars: int = MAX_CHARS, max_all_chars: int = _MAX_ANSWER_CHARS) -> Value:
    """Return a JSON value whose texts, lists and depth are cut so that a browser can show it."""
    left = max_all_chars

    def of(one: Any, depth: int) -> Any:
        nonlocal left
        left -= _LEAST_CHARS
        if isinstance(one, str):
            text: str = shortened(one, max_chars if left > 0 else _LEAST_CHARS)
            left -= len(text)
            return text
        if isinstance(one, (dict, list)) and depth > _MAX_DEPTH:
            return "…"
        if isinstance(one, dict):
            return {of(name, depth): of(inner, depth + 1) for name, inner in list(one.items())[: most()]}
        if isinstance(one, list):
            shown = [of(inner, depth + 1) for inner in one[: most()]]
            return shown if len(shown) == len(one) else [*shown, f"… {len(one) - len(shown)} more"]
        return one

    def most() -> int:
        return _MAX_ITEMS if left > 0 else _LEAST_ITEMS

    cut: Value = of(value, 0)
    return cut
