"""Lists the sessions of a store."""

from __future__ import annotations

import argparse
import time
from typing import Any

from power_loop import SendStatus, SessionState
from power_loop.cli.output import EXIT_OK, add_json_option, paint, say, say_json
from power_loop.cli.printable import one_line, plain, printable
from power_loop.cli.store_handle import store_of
from power_loop.cli.store_options import add_store_options
from power_loop.errors import ConfigError
from power_loop.records import SendRecord, SessionRecord

_MAX_PAGE = 100
_COLOURS = {
    SendStatus.COMPLETED: "green",
    SendStatus.WAITING_FOR_INPUT: "yellow",
    SendStatus.RUNNING: "blue",
    SendStatus.FAILED: "red",
}


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add `sessions`."""
    parser = subparsers.add_parser(
        "sessions",
        help="list the sessions, newest first",
        description="Lists sessions with the status of their last send, newest first.",
        epilog="power-loop sessions --metadata user=ada --dsn app.db",
    )
    add_store_options(parser)
    parser.add_argument(
        "--state", choices=[one.value for one in SessionState], help="only those that are open or closed"
    )
    parser.add_argument(
        "--metadata",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="only those with this metadata; repeatable",
    )
    parser.add_argument("--parent", metavar="SESSION", help="the sessions that this one made for its sub-agents")
    parser.add_argument("--limit", type=_count, default=20, metavar="N", help="at most so many (20)")
    add_json_option(parser, "a JSON object a line")
    parser.set_defaults(run=_run)


async def _run(given: argparse.Namespace) -> int:
    metadata = dict(map(_pair, given.metadata)) or None
    state = None if given.state is None else SessionState(given.state)
    left, cursor = given.limit, None
    is_first = True
    async with store_of(given) as store:
        while left > 0:
            page = await store.list_sessions(
                state=state, metadata=metadata, parent_id=given.parent, cursor=cursor, limit=min(left, _MAX_PAGE)
            )
            for session in page.items:
                send = await store.get_send(session.id)
                if given.json:
                    say_json({**plain(session), "status": None if send is None else send.status.value})
                else:
                    if is_first:
                        say(paint(f"{'changed':<18}{'status':<19}{'sends':>5} {'msgs':>6}  session", "bold"))
                    say(_line(session, send))
                is_first = False
            left -= len(page.items)
            cursor = page.next_cursor
            if cursor is None:
                break
    if is_first and not given.json:
        say("no sessions")
    return EXIT_OK


def _line(session: SessionRecord, send: SendRecord | None) -> str:
    status = "new" if send is None else send.status.value
    if session.state is SessionState.CLOSED:
        status = "closed"
    shown = paint(f"{status:<19}", _COLOURS.get(send.status, "dim") if send is not None else "dim")
    notes = [f"{name}={one_line(str(value), 30)}" for name, value in list(session.metadata.items())[:3]]
    if session.forked_from is not None:
        notes.append(f"forked from {session.forked_from} at {session.forked_at_seq}")
    if session.parent_id is not None:
        notes.append(f"below {session.parent_id}")
    tail = "  " + paint(printable(", ".join(notes)), "dim") if notes else ""
    return (
        f"{at_minute(session.updated_at_ms):<18}{shown}{session.send_count:>5} {session.next_seq - 1:>6}"
        f"  {printable(session.id)}{tail}"
    )


def at_minute(at_ms: int) -> str:
    """Return a time as text, in UTC."""
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(at_ms / 1000))


def _pair(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not name or not sign:
        raise ConfigError(f"--metadata is {text!r}: give NAME=VALUE")
    return name, value


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no count: give a whole number of at least 1")
    return int(text)
