"""Prints the statements that make the tables, or those that a database lacks."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from power_loop.cli.output import EXIT_OK, add_json_option, say_json
from power_loop.cli.store_options import add_store_options, dsn_of
from power_loop.storage import missing_ddl, schema_ddl


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add `ddl`."""
    parser = subparsers.add_parser(
        "ddl",
        help="print the SQL that makes the tables",
        description="Prints the statements that make all tables and views, for a person or a tool to run. Nothing is"
        " connected to: of the DSN only the kind of database matters, so that `postgresql://` is enough.",
        epilog="power-loop ddl --dsn postgresql:// | psql app",
    )
    add_store_options(parser)
    parser.add_argument(
        "--missing",
        action="store_true",
        help="connect, and print only what this database lacks: nothing if it lacks nothing; it is not changed",
    )
    add_json_option(parser, "a JSON object")
    parser.set_defaults(run=_run)


async def _run(given: argparse.Namespace) -> int:
    dsn, prefix = dsn_of(given), given.table_prefix
    sql = await missing_ddl(dsn, table_prefix=prefix) if given.missing else schema_ddl(dsn, table_prefix=prefix)
    if given.json:
        say_json({"sql": sql})
    else:
        sys.stdout.write(sql)
    return EXIT_OK
