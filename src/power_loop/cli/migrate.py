"""Brings the tables of an older version up to date, and says what that takes before it does it."""

from __future__ import annotations

import argparse
import re
import sys
from typing import Any

from power_loop import SchemaPolicy, open_store
from power_loop.cli.output import EXIT_FAILED, EXIT_OK, add_json_option, complain, say, say_json, waiting_for
from power_loop.cli.store_options import add_store_options, dsn_of
from power_loop.errors import ConfigError
from power_loop.storage import missing_ddl, schema_ddl

# The head of a statement that makes something, which names it.
_MAKES = re.compile(
    r"^\s*(?:CREATE (?:OR REPLACE )?(?:UNIQUE |FULLTEXT |VIRTUAL )?(?P<kind>TABLE|INDEX|VIEW)"
    r"|ALTER TABLE (?P<table>\S+) ADD COLUMN)(?: IF NOT EXISTS)? (?P<name>\S+)",
    re.IGNORECASE | re.MULTILINE,
)


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add `migrate`."""
    parser = subparsers.add_parser(
        "migrate",
        help="bring the tables of an older version up to date",
        description="Says what the tables lack, and makes it. A process that is killed over it leaves what the next one"
        " goes on with; others that open the database wait meanwhile. No row is changed or lost. An agent that opens a"
        " store does the same by itself; this is for those who want to see it, and do it at a time of their own.",
        epilog="power-loop migrate --dry-run --dsn app.db",
    )
    add_store_options(parser)
    parser.add_argument("--dry-run", action="store_true", help="print the statements, and change nothing")
    parser.add_argument("--create", action="store_true", help="make all tables where there are none")
    add_json_option(parser, "a JSON object")
    parser.set_defaults(run=_run)


async def _run(given: argparse.Namespace) -> int:
    dsn, prefix = dsn_of(given), given.table_prefix
    sql = await missing_ddl(dsn, table_prefix=prefix)
    is_new = sql == schema_ddl(dsn, table_prefix=prefix)
    if is_new and not given.create:
        raise ConfigError(
            f"there are no tables {prefix}* in this database: is it the right one? --create makes all of them"
        )
    made = [_made(found) for found in _MAKES.finditer(sql)]
    if given.dry_run:
        if given.json:
            say_json({"is_done": False, "lacking": made, "sql": sql})
        else:
            sys.stdout.write(sql or "nothing is lacking\n")
        return EXIT_OK
    if not given.json:
        for one in made:
            say(f"lacking: {one}")
    async with waiting_for("migrating"):
        store = await open_store(dsn, table_prefix=prefix, schema=SchemaPolicy.AUTO_CREATE)
        await store.aclose()
        left = [_made(found) for found in _MAKES.finditer(await missing_ddl(dsn, table_prefix=prefix))]
    if given.json:
        say_json({"is_done": not left, "made": [one for one in made if one not in left], "lacking": left})
    elif not left:
        say(f"made: {len(made)}" if made else "nothing is lacking")
    if left:
        complain(
            f"{', '.join(left)} could not be made: run what `power-loop ddl --missing` prints as a user who may make it"
        )
    return EXIT_FAILED if left else EXIT_OK


def _made(found: re.Match[str]) -> str:
    name = found["name"].strip('"`(')
    return f"{found['kind'].lower()} {name}" if found["kind"] else f"column {found['table']}.{name}"
