"""Carries sessions out of a database and into another one, as archives."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from pathlib import Path
from typing import Any

from power_loop.cli.output import EXIT_OK, add_json_option, say, say_json, waiting_for
from power_loop.cli.store_handle import store_of
from power_loop.cli.store_options import add_store_options
from power_loop.errors import ConfigError
from power_loop.records import OnConflict

_STREAM = "-"


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add `export` and `import`."""
    out = subparsers.add_parser(
        "export",
        help="write a session into an archive",
        description="Writes a session as lines of JSON: one consistent snapshot, the same bytes whatever the database."
        " A lease, unused approvals and waiting inputs stay behind.",
        epilog="power-loop export sess_1 --dsn app.db --output sess_1.jsonl",
    )
    add_store_options(out)
    out.add_argument("session_id", metavar="SESSION", help="the session's id")
    out.add_argument("--output", "-o", default=_STREAM, metavar="FILE", help="where to; standard output without it")
    out.add_argument("--include-inbox", action="store_true", help="take the inputs along that wait in the inbox")
    add_json_option(out, "a JSON object about the file of --output")
    out.set_defaults(run=_export)

    into = subparsers.add_parser(
        "import",
        help="write the session of an archive into the database",
        description="Writes the session of an archive, all of it or nothing; nothing runs by it. An archive that does"
        " not fit together is refused before anything is written.",
        epilog="power-loop import sess_1.jsonl --dsn postgresql://… --on-conflict rename",
    )
    add_store_options(into)
    into.add_argument("archive", metavar="FILE", help="the archive; - is standard input")
    into.add_argument("--session-id", metavar="SESSION", help="the id that it gets; that of the archive without it")
    into.add_argument(
        "--on-conflict",
        choices=[one.value for one in OnConflict],
        default=OnConflict.RAISE.value,
        help="what happens where there is a session of that id (raise)",
    )
    add_json_option(into, "a JSON object")
    into.set_defaults(run=_import)


async def _export(given: argparse.Namespace) -> int:
    async with store_of(given) as store, waiting_for("exporting"):
        archive = await store.export_session(given.session_id, include_inbox=given.include_inbox)
    if given.output == _STREAM:
        sys.stdout.buffer.write(archive)
        return EXIT_OK
    _write(given.output, archive)
    rows = archive.count(bytes([10])) - 1
    if given.json:
        say_json({"session_id": given.session_id, "rows": rows, "size_bytes": len(archive), "path": given.output})
    else:
        say(f"{given.session_id}: {rows} rows, {len(archive)} bytes -> {given.output}")
    return EXIT_OK


async def _import(given: argparse.Namespace) -> int:
    archive = _read(given.archive)
    async with store_of(given, may_create=True) as store, waiting_for("importing"):
        session_id = await store.import_session(archive, session_id=given.session_id, on_conflict=given.on_conflict)
    if given.json:
        say_json({"session_id": session_id})
    else:
        say(session_id)
    return EXIT_OK


def _read(name: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if name == _STREAM else Path(name).read_bytes()
    except OSError as error:
        raise ConfigError(f"archive {name!r} cannot be read: {error.strerror}") from error


def _write(name: str, archive: bytes) -> None:
    """Write a file that has its name when it is whole."""
    part = Path(f"{name}.{secrets.token_hex(4)}.part")
    try:
        part.write_bytes(archive)
        os.replace(part, name)
    except OSError as error:
        raise ConfigError(f"archive {name!r} cannot be written: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)
