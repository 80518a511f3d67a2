"""Shows a session as a transcript that can be read, or one of its model calls."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from power_loop import SendStatus
from power_loop.cli.agents import looking_loop
from power_loop.cli.output import EXIT_OK, add_json_option, paint, say, say_json
from power_loop.cli.printable import one_line, plain, printable
from power_loop.cli.sessions import at_minute
from power_loop.cli.store_options import add_store_options
from power_loop.cli.transcript import lines_of, message_value, money, pending_line, tokens
from power_loop.records import CallRecord, MessageRecord, ModelCallRecord, SendRecord, SessionRecord, SessionStats

# Model calls and messages of one read.
_PAGE = 500


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add `show`."""
    parser = subparsers.add_parser(
        "show",
        help="show a session as a transcript, or one call of it",
        description="Shows what was said and done in a session, send by send, with what it took. Of a model call it"
        " shows what it was sent, segment by segment, and what of that is the same as in the call before.",
        epilog="power-loop show sess_1 --call 4 --dsn app.db",
    )
    add_store_options(parser)
    parser.add_argument("session_id", metavar="SESSION", help="the session's id")
    parser.add_argument("--call", type=int, metavar="SEQ", help="show the model call whose reply has this number")
    parser.add_argument("--last", type=int, metavar="N", help="show the last N messages only")
    parser.add_argument("--full", action="store_true", help="cut no text short")
    add_json_option(parser, "a JSON object")
    parser.set_defaults(run=_run)


async def _run(given: argparse.Namespace) -> int:
    async with looking_loop(given) as loop:
        store = await loop.get_store()
        session = await store.get_session(given.session_id)
        if given.call is not None:
            explained = await loop.explain(given.session_id, given.call)
            found = await store.get_messages(given.session_id, after_seq=explained.call - 1, limit=1)
            if given.json:
                say_json({**plain(explained), "reply": [message_value(one) for one in found]})
                return EXIT_OK
            say(printable(str(explained)))
            for record in found:
                _say_message(record, {}, {}, is_whole=given.full)
            return EXIT_OK
        after = 0 if given.last is None else max(session.next_seq - 1 - given.last, 0)
        messages = await store.get_messages(given.session_id, after_seq=after)
        calls = await _model_calls(store, given.session_id, after)
        ledger = {one.call_id: one for one in await store.get_calls(given.session_id)}
        stats = await store.get_stats(given.session_id)
        sends = await _sends(store, given.session_id, messages)
        pending = await loop.get_pending(given.session_id)
        inbox = await store.get_inbox(given.session_id)
    if given.json:
        say_json(
            {
                "session": plain(session),
                "sends": [plain(one) for one in sends.values()],
                "messages": [message_value(one) for one in messages],
                "model_calls": [plain(one) for one in calls.values()],
                "tool_calls": [plain(one) for one in ledger.values()],
                "pending": [plain(one) for one in pending],
                "waiting_inputs": len(inbox),
                "stats": plain(stats),
            }
        )
        return EXIT_OK
    _say_head(session)
    _say_messages(messages, sends, calls, ledger, is_whole=given.full)
    if pending:
        say()
    for one in pending:
        say(pending_line(one))
    if inbox:
        say(f"{len(inbox)} inputs wait in the inbox")
    _say_stats(stats)
    return EXIT_OK


async def _model_calls(store: Any, session_id: str, after_seq: int) -> dict[int, ModelCallRecord]:
    """Return the model calls behind a seq, by the seq of their reply, in order."""
    found: list[ModelCallRecord] = []
    before: int | None = None
    while page := await store.get_model_calls(session_id, before_seq=before, limit=_PAGE):
        found += [one for one in page if one.reply_seq > after_seq]
        before = page[-1].reply_seq
        if before <= after_seq:
            break
    return {one.reply_seq: one for one in reversed(found)}


async def _sends(store: Any, session_id: str, messages: tuple[MessageRecord, ...]) -> dict[int, SendRecord]:
    found = {}
    for index in sorted({record.send_index for record in messages}):
        send = await store.get_send(session_id, index=index)
        if send is not None:
            found[index] = send
    return found


def _say_head(session: SessionRecord) -> None:
    say(paint(f"session {printable(session.id)}", "bold") + f"  {session.state.value}")
    say(f"  made {at_minute(session.created_at_ms)}, changed {at_minute(session.updated_at_ms)} (UTC)")
    if session.forked_from is not None:
        say(f"  a fork of {printable(session.forked_from)} at {session.forked_at_seq}")
    if session.parent_id is not None:
        say(f"  of a sub-agent of {printable(session.parent_id)}, send {session.parent_send}")
    if session.owner is not None:
        say(f"  held by {one_line(session.owner)}")
    if session.metadata:
        say("  " + one_line(", ".join(f"{name}={value}" for name, value in session.metadata.items()), 200))
    if session.system_prompt:
        say(f"  prompt: {one_line(session.system_prompt, 200)}")


def _say_messages(
    messages: tuple[MessageRecord, ...],
    sends: Mapping[int, SendRecord],
    calls: Mapping[int, ModelCallRecord],
    ledger: Mapping[str, CallRecord],
    *,
    is_whole: bool,
) -> None:
    index = 0
    for record in messages:
        if record.send_index != index:
            index = record.send_index
            say()
            say(_send_line(index, sends.get(index)))
        _say_message(record, calls, ledger, is_whole=is_whole)


def _say_message(
    record: MessageRecord, calls: Mapping[int, ModelCallRecord], ledger: Mapping[str, CallRecord], *, is_whole: bool
) -> None:
    for line in lines_of(record, call=calls.get(record.seq), ledger=ledger, is_whole=is_whole):
        say(line)


def _send_line(index: int, send: SendRecord | None) -> str:
    if send is None:
        return paint(f"── send {index}", "bold")
    reason = (send.result or {}).get("reason")
    why = f": {one_line(str(reason), 200)}" if reason else ""
    colour = "dim" if send.status is SendStatus.COMPLETED else "yellow"
    return (
        paint(f"── send {index}", "bold")
        + "  "
        + paint(f"{send.status.value}{why}, {at_minute(send.started_at_ms)}, {tokens(send.usage)}", colour)
    )


def _say_stats(stats: SessionStats) -> None:
    say()
    children = f", {stats.children} sessions of sub-agents" if stats.children else ""
    counts = f"{stats.sends} sends, {stats.messages} messages, {stats.model_calls} model calls"
    counts += f", {stats.tool_calls} tool calls{children}"
    say(f"{counts}: {tokens(stats.usage)}, {money(stats.cost)}")
