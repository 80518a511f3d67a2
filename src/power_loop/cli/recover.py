"""Recovers what dead processes left: reports it, or drives it with the application's own loop."""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from power_loop import (
    ConfigError,
    Emit,
    Found,
    LLMRequest,
    LLMResponse,
    ModelInfo,
    PowerLoopError,
    Recovered,
    SchemaPolicy,
    StatefulAgentLoop,
)
from power_loop.cli.output import EXIT_OK, complain, paint, say
from power_loop.cli.store_options import add_store_options, dsn_of

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
        " nobody drives them. Without --drive they are listed and nothing is changed. With --drive each goes on as"
        " resume() would let it, in as many workers at once as one likes: of each session the lease decides who drives"
        " it.",
        epilog="exit status: 0 nothing is left, 1 something is, or could not be driven to its end, 2 it could not be"
        " looked at",
    )
    add_store_options(parser)
    parser.add_argument(
        "--drive",
        metavar="MODULE:CALLABLE",
        help="drive them with the StatefulAgentLoop that this callable returns; it is given the DSN if it takes one",
    )
    parser.add_argument(
        "--every", metavar="SECONDS", type=float, help="with --drive: go on for ever, with such a pause"
    )
    parser.add_argument("--older-than", metavar="SECONDS", type=float, default=0.0, help="leave alone what is newer")
    parser.add_argument("--limit", metavar="N", type=int, default=100, help="sessions of one pass (default: 100)")
    parser.add_argument("--dry-run", action="store_true", help="with --drive: list what would be driven")
    parser.add_argument("--json", action="store_true", help="print a JSON object a line instead of a table")
    parser.set_defaults(run=_run)


async def _run(given: argparse.Namespace) -> int:
    try:
        loop = await _loop(given)
    except PowerLoopError as error:
        complain(error.message, code=error.code)
        return EXIT_ERROR
    drives = given.drive is not None and not given.dry_run
    options = {"limit": given.limit, "older_than_s": given.older_than}
    left = 0
    try:
        if drives and given.every is not None:
            async for report in loop.recover_forever(every_s=given.every, **options):
                _tell(report, is_json=given.json)
            return EXIT_OK
        for nth, report in enumerate(await loop.recover(drive=drives, **options)):
            if not nth and not given.json:
                say(paint(f"{'':<{_WIDTHS[0]}}{'status':<{_WIDTHS[1]}}session", "bold"))
            _tell(report, is_json=given.json)
            left += not report.was_driven or report.error is not None
    except PowerLoopError as error:
        complain(error.message, code=error.code)
        return EXIT_ERROR
    finally:
        await loop.aclose()
    if not given.json and not left:
        say("nothing is left")
    return EXIT_FOUND if left else EXIT_OK


async def _loop(given: argparse.Namespace) -> StatefulAgentLoop:
    """Return the application's loop, or one that only looks."""
    if given.drive is None:
        # A look makes no tables.
        return StatefulAgentLoop(
            llm=_NoModel(), dsn=dsn_of(given), table_prefix=given.table_prefix, schema=SchemaPolicy.VERIFY
        )
    make = _named(given.drive)
    takes_dsn = bool(inspect.signature(make).parameters)
    made = make(dsn_of(given)) if takes_dsn else make()
    if inspect.isawaitable(made):
        made = await made
    if not isinstance(made, StatefulAgentLoop):
        raise ConfigError(f"{given.drive} returned {made!r:.200}: it has to return a StatefulAgentLoop")
    return made


def _named(name: str) -> Any:
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise ConfigError(f"--drive is {name!r}: give MODULE:CALLABLE, such as my_app.agents:make_loop")
    # As `python -m` does: what stands in the folder one is in can be named.
    sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"--drive {name!r} cannot be imported: {error}") from error
    if not callable(found):
        raise ConfigError(f"--drive {name!r} is {found!r:.200}: give something that can be called")
    return found


def _tell(report: Recovered, *, is_json: bool) -> None:
    status = None if report.status is None else report.status.value
    if is_json:
        members = {**asdict(report), "found": report.found.value, "status": status}
        sys.stdout.write(json.dumps(members) + "\n")
        sys.stdout.flush()
        return
    found = paint(f"{report.found.value:<{_WIDTHS[0]}}", _COLOURS[report.found])
    more = f"  {report.waiting_inputs} waiting" if report.waiting_inputs else ""
    more += f"  {report.error}" if report.error else ""
    say(f"{found}{status or '-':<{_WIDTHS[1]}}{report.session_id}{more}")


class _NoModel:
    """Stands where a model belongs and none is asked."""

    info = ModelInfo("none", "none")

    async def generate(self, request: LLMRequest, emit: Emit) -> LLMResponse:
        """Refuse."""
        raise ConfigError("this loop only looks: it has no model")
