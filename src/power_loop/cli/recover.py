"""Recovers what dead processes left: reports it, or drives it with the application's own loop."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from power_loop import PowerLoopError
from power_loop.cli.agents import add_app_option, application_loop, looking_loop
from power_loop.cli.output import EXIT_OK, add_json_option, complain_of, paint, say, say_json
from power_loop.cli.store_options import add_store_options
from power_loop.errors import ConfigError
from power_loop.records import Found, Recovered

EXIT_FOUND = 1
EXIT_ERROR = 2

_COLOURS = {Found.DEAD_TURN: "red", Found.WAITING_INPUT: "yellow", Found.LEFT_LEASE: "dim"}
_WIDTHS = (16, 22)


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add `recover`."""
    parser = subparsers.add_parser(
        "recover",
        help="find the sessions that dead processes left, and drive them",
        description="Finds sessions whose process died in the middle of a turn, and those whose inputs wait while"
        " nobody drives them. Without --app they are listed and nothing is changed. With --app each goes on as"
        " resume() would let it, in as many workers at once as one likes: of each session the lease decides who drives"
        " it.",
        epilog="exit status: 0 nothing is left, 1 something is, or could not be driven to its end, 2 it could not be"
        " looked at",
    )
    add_store_options(parser)
    add_app_option(parser, "drive them with")
    parser.add_argument("--every", metavar="SECONDS", type=float, help="with --app: go on for ever, with such a pause")
    parser.add_argument("--older-than", metavar="SECONDS", type=float, default=0.0, help="leave alone what is newer")
    parser.add_argument("--limit", metavar="N", type=int, default=100, help="sessions of one pass (default: 100)")
    parser.add_argument("--dry-run", action="store_true", help="with --app: list what would be driven")
    add_json_option(parser, "a JSON object a line")
    parser.set_defaults(run=_run)


async def _run(given: argparse.Namespace) -> int:
    try:
        if given.every is not None and (given.app is None or given.dry_run):
            raise ConfigError("--every drives what it finds for ever: give --app, and no --dry-run")
        loop = looking_loop(given) if given.app is None else await application_loop(given)
    except PowerLoopError as error:
        complain_of(error)
        return EXIT_ERROR
    drives = given.app is not None and not given.dry_run
    options = {"limit": given.limit, "older_than_s": given.older_than}
    left = 0
    try:
        if drives and given.every is not None:
            async for report in loop.recover_forever(every_s=given.every, **options):
                tell(report, is_json=given.json)
            return EXIT_OK
        for nth, report in enumerate(await loop.recover(drive=drives, **options)):
            if not nth and not given.json:
                say(paint(f"{'':<{_WIDTHS[0]}}{'status':<{_WIDTHS[1]}}session", "bold"))
            tell(report, is_json=given.json)
            left += not report.was_driven or report.error is not None
    except PowerLoopError as error:
        complain_of(error)
        return EXIT_ERROR
    finally:
        await loop.aclose()
    if not given.json and not left:
        say("nothing is left")
    return EXIT_FOUND if left else EXIT_OK


def tell(report: Recovered, *, is_json: bool) -> None:
    """Write what became of a session, as a line."""
    if is_json:
        say_json(report)
        return
    status = None if report.status is None else report.status.value
    found = paint(f"{report.found.value:<{_WIDTHS[0]}}", _COLOURS[report.found])
    more = f"  {report.waiting_inputs} waiting" if report.waiting_inputs else ""
    more += f"  {report.error}" if report.error else ""
    say(f"{found}{status or '-':<{_WIDTHS[1]}}{report.session_id}{more}")
    # Who watches a command that goes on for long sees each line as it comes.
    sys.stdout.flush()
