"""Looks after the database itself: space, log, backup."""

from __future__ import annotations

import argparse
from typing import Any

from power_loop.cli.output import EXIT_FAILED, EXIT_OK, add_json_option, complain, say, say_json, waiting_for
from power_loop.cli.store_handle import store_of
from power_loop.cli.store_options import add_store_options


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add `vacuum`, `checkpoint` and `backup`."""
    vacuum = subparsers.add_parser(
        "vacuum",
        help="give the space of removed rows back to the disk",
        description="SQLite: writes the file anew, which takes as much free space again and holds writers up."
        " PostgreSQL: VACUUM (ANALYZE). MySQL, MariaDB: OPTIMIZE TABLE.",
    )
    add_store_options(vacuum)
    add_json_option(vacuum, "a JSON object")
    vacuum.set_defaults(run=_vacuum)

    checkpoint = subparsers.add_parser(
        "checkpoint",
        help="bring SQLite's write-ahead log into the file",
        description="Brings everything into the database file and empties the log. A server does that by itself.",
    )
    add_store_options(checkpoint)
    add_json_option(checkpoint, "a JSON object")
    checkpoint.set_defaults(run=_checkpoint)

    backup = subparsers.add_parser(
        "backup",
        help="copy a SQLite database while it is in use",
        description="Writes the database as it is at one moment into a file, looks it through, and names it when it is"
        " whole. Servers have programs of their own for that: pg_dump, mysqldump.",
        epilog="power-loop backup /backups/app-monday.db --dsn app.db",
    )
    add_store_options(backup)
    backup.add_argument("path", metavar="FILE", help="the file that is made")
    backup.add_argument("--overwrite", action="store_true", help="take the place of a file that is there")
    add_json_option(backup, "a JSON object")
    backup.set_defaults(run=_backup)


async def _vacuum(given: argparse.Namespace) -> int:
    async with store_of(given) as store, waiting_for("vacuuming"):
        done = await store.vacuum()
    if given.json:
        say_json(done)
        return EXIT_OK
    sizes = "" if done.bytes_before is None else f": {done.bytes_before} -> {done.bytes_after} bytes"
    say(f"vacuumed{sizes}")
    return EXIT_OK


async def _checkpoint(given: argparse.Namespace) -> int:
    async with store_of(given) as store:
        done = await store.checkpoint()
    if given.json:
        say_json(done)
        return EXIT_OK if done.is_complete else EXIT_FAILED
    if not done.is_complete:
        complain("somebody reads from the log still, so that a part of it stays: try again later")
        return EXIT_FAILED
    say("the log is empty")
    return EXIT_OK


async def _backup(given: argparse.Namespace) -> int:
    async with store_of(given) as store, waiting_for("backing up"):
        done = await store.backup(given.path, overwrite=given.overwrite)
    if given.json:
        say_json(done)
        return EXIT_OK
    say(f"{done.path}: {done.size_bytes} bytes, looked through")
    return EXIT_OK
