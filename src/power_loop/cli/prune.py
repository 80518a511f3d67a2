"""Removes what a database needs no longer."""

from __future__ import annotations

import argparse
import re
from typing import Any

from power_loop.cli.output import EXIT_OK, add_json_option, say, say_json, waiting_for
from power_loop.cli.printable import plain
from power_loop.cli.store_handle import store_of
from power_loop.cli.store_options import add_store_options
from power_loop.errors import ConfigError
from power_loop.records import Pruned

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_AGE = re.compile(r"(\d+(?:\.\d+)?)([smhd])")


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add `prune`."""
    parser = subparsers.add_parser(
        "prune",
        help="remove what is old",
        description="Removes closed sessions, whole tool results, delivered inputs, ended timers, or memories that"
        " are older than so long, or the messages that a fold stands for, a few at a time, and never"
        " of a session whose turn runs. It may be stopped and run again. `vacuum` gives the space back to the disk.",
        epilog="power-loop prune results --older-than 30d --dsn app.db",
    )
    add_store_options(parser)
    parser.add_argument(
        "what",
        choices=("sessions", "results", "inbox", "timers", "compacted", "memories"),
        help="closed sessions, whole results beside the log, inputs that left an inbox, timers that ended,"
        " messages behind a fold, what is remembered beyond sessions",
    )
    parser.add_argument(
        "--older-than", type=_age, metavar="AGE", help="90s, 15m, 12h, 30d; not for `compacted`, where a fold says what"
    )
    parser.add_argument("--include-open", action="store_true", help="sessions: also those that were not closed")
    parser.add_argument("--session", metavar="SESSION", help="results, inbox, timers, compacted: of this session only")
    add_json_option(parser, "a JSON object")
    parser.set_defaults(run=_run)


async def _run(given: argparse.Namespace) -> int:
    _check(given)
    async with store_of(given) as store, waiting_for(f"pruning {given.what}") as tell:

        def told(so_far: Pruned) -> None:
            sessions = f"{so_far.sessions} sessions, " if given.what == "sessions" else ""
            tell(f"{sessions}{so_far.rows} rows removed")

        gone: Pruned
        if given.what == "sessions":
            gone = await store.prune_sessions(
                older_than_s=given.older_than, include_open=given.include_open, on_progress=told
            )
        elif given.what == "results":
            gone = await store.prune_tool_results(given.session, older_than_s=given.older_than, on_progress=told)
        elif given.what == "inbox":
            gone = await store.prune_inbox(given.session, older_than_s=given.older_than, on_progress=told)
        elif given.what == "timers":
            gone = await store.prune_timers(given.session, older_than_s=given.older_than, on_progress=told)
        elif given.what == "memories":
            gone = Pruned(rows=await store.memories.prune(older_than_s=given.older_than))
        else:
            gone = await store.prune_compacted_messages(given.session, on_progress=told)
    if given.json:
        say_json({"what": given.what, **plain(gone)})
        return EXIT_OK
    kept = f", {gone.skipped} sessions stay (a turn runs, or a fork shares their log)" if gone.skipped else ""
    sessions = f"{gone.sessions} sessions, " if given.what == "sessions" else ""
    freed = f" with {gone.freed_bytes} bytes" if gone.freed_bytes else ""
    say(f"{given.what}: {sessions}{gone.rows} rows{freed} removed{kept}")
    return EXIT_OK


def _check(given: argparse.Namespace) -> None:
    """Refuse an option that says nothing of what is pruned, so that no more goes than was meant."""
    if given.what == "compacted" and given.older_than is not None:
        raise ConfigError("prune compacted: a fold says which messages go, whatever their age: leave out --older-than")
    if given.what != "compacted" and given.older_than is None:
        raise ConfigError(f"prune {given.what}: say how old what goes has to be, such as --older-than 30d")
    if given.session is not None and given.what not in ("results", "inbox", "timers", "compacted"):
        raise ConfigError(f"prune {given.what} goes by age only, and not by session: leave out --session")
    if given.include_open and given.what != "sessions":
        raise ConfigError(f"prune {given.what}: --include-open is for sessions: leave it out")


def _age(text: str) -> float:
    found = _AGE.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no age: give a number and s, m, h or d, such as 30d")
    return float(found[1]) * _UNITS[found[2]]
