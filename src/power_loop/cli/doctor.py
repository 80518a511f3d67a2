"""Looks through a store: what waits, what is unknown, what is damaged; mends what can be mended if it is told to."""

from __future__ import annotations

import argparse
from typing import Any

from power_loop import PowerLoopError, SchemaPolicy, open_store
from power_loop.cli.output import EXIT_OK, add_json_option, complain_of, paint, say, say_json
from power_loop.cli.printable import plain, printable
from power_loop.cli.store_options import add_store_options, dsn_of
from power_loop.records import Finding, FindingKind

EXIT_FOUND = 1
EXIT_ERROR = 2

_COLOURS = {
    FindingKind.PENDING: "dim",
    FindingKind.UNKNOWN: "yellow",
    FindingKind.STALLED: "yellow",
    FindingKind.ORPHANED: "red",
    FindingKind.INCONSISTENT: "red",
}
_WIDTHS = (14, 24)


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add `doctor`."""
    parser = subparsers.add_parser(
        "doctor",
        help="look for what waits, is unknown or is damaged",
        description="Looks through every session, one snapshot each, and changes nothing without --repair. A repair"
        " recomputes counters, removes rows that belong to nothing, and marks what was left behind; the messages of a"
        " log are never touched, nor is a session whose turn runs.",
        epilog="exit status: 0 nothing is wrong (what waits or is unknown is no damage), 1 something is, also if it was"
        " mended, 2 it could not be looked at",
    )
    add_store_options(parser)
    parser.add_argument("--session", metavar="ID", help="look at this session only")
    parser.add_argument("--repair", action="store_true", help="mend what can be mended without inventing facts")
    add_json_option(parser, "a JSON object a line")
    parser.set_defaults(run=_run)


async def _run(given: argparse.Namespace) -> int:
    try:
        # A look makes no tables.
        store = await open_store(dsn_of(given), table_prefix=given.table_prefix, schema=SchemaPolicy.VERIFY)
        try:
            return await _look(store, given)
        finally:
            await store.aclose()
    except PowerLoopError as error:
        complain_of(error)
        return EXIT_ERROR


async def _look(store: Any, given: argparse.Namespace) -> int:
    counts: dict[FindingKind, int] = {}
    mended = problems = 0
    async for finding in store.diagnose(given.session, repair=given.repair):
        if not counts and not given.json:
            say(paint(f"{'':<{_WIDTHS[0]}}{'check':<{_WIDTHS[1]}}session", "bold"))
        counts[finding.kind] = counts.get(finding.kind, 0) + 1
        problems += finding.is_problem
        mended += finding.is_repaired
        _tell(finding, is_json=given.json, repairs=given.repair)
    if not given.json:
        parts = [f"{count} {kind.value}" for kind, count in counts.items()]
        say(", ".join(parts) + (f"; {mended} mended" if given.repair else "") if parts else "nothing found")
    return EXIT_FOUND if problems else EXIT_OK


def _tell(finding: Finding, *, is_json: bool, repairs: bool) -> None:
    if is_json:
        say_json({**plain(finding), "is_problem": finding.is_problem})
        return
    kind = paint(f"{finding.kind.value:<{_WIDTHS[0]}}", _COLOURS[finding.kind])
    say(f"{kind}{finding.check:<{_WIDTHS[1]}}{printable(finding.session_id)}")
    indent = " " * _WIDTHS[0]
    say(f"{indent}{printable(finding.message)}")
    if finding.is_repaired:
        say(indent + paint(f"mended: {printable(finding.repair or '')}", "green"))
    elif finding.repair is not None:
        why = "not mended, because its turn runs or it has changed meanwhile" if repairs else "--repair"
        say(indent + paint(f"{why}: {printable(finding.repair)}", "dim"))
