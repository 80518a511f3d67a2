"""Replays a recorded session with today's agent, and tells where that asks its model something else."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from power_loop.cli.agents import add_agent_options, agent_of
from power_loop.cli.output import EXIT_FAILED, EXIT_OK, add_json_option, paint, say, say_json, waiting_for
from power_loop.cli.printable import plain, printable
from power_loop.cli.store_options import add_store_options
from power_loop.errors import ConfigError


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add `replay`."""
    parser = subparsers.add_parser(
        "replay",
        help="run recorded answers with today's code, up to the first call that differs",
        description="Drives a session, or an archive of one, again with today's code: no model is asked, no tool runs,"
        " nothing is changed. It stops at the first model call that is asked something else than was recorded, and says"
        " what.",
        epilog="exit status: 0 all of it is asked the same, 1 something differs, or it could not be replayed",
    )
    add_store_options(parser, is_required=False)
    add_agent_options(parser)
    parser.add_argument("session_id", nargs="?", metavar="SESSION", help="the session's id")
    parser.add_argument("--archive", type=Path, metavar="FILE", help="an archive of `power-loop export` in its place")
    parser.add_argument("--upto", type=int, metavar="SEQ", help="end at the call whose reply has this number")
    add_json_option(parser, "a JSON object")
    parser.set_defaults(run=_run)


async def _run(given: argparse.Namespace) -> int:
    session = _session(given)
    async with await agent_of(given) as loop, waiting_for("replaying"):
        found = await loop.replay(session, upto=given.upto)
    if given.json:
        value = plain(found)
        del value["requests"]
        say_json({**value, "is_same": found.is_same})
    else:
        for line in printable(str(found)).splitlines():
            say(line if line.startswith("session ") else paint(line, "red" if not line.startswith("not ") else "dim"))
    return EXIT_OK if found.is_same else EXIT_FAILED


def _session(given: argparse.Namespace) -> str | bytes:
    if (given.session_id is None) == (given.archive is None):
        raise ConfigError("give a SESSION, or an archive with --archive FILE")
    if given.archive is None:
        return str(given.session_id)
    if given.dsn is None:
        # Nothing of it is opened: an archive holds all that is needed.
        given.dsn = ":memory:"
    try:
        archive: bytes = given.archive.read_bytes()
    except OSError as error:
        raise ConfigError(f"archive {str(given.archive)!r} cannot be read: {error.strerror}") from error
    return archive
