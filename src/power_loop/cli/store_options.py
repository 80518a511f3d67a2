"""Holds the options that say which database a command is about."""

from __future__ import annotations

import argparse
import os

from power_loop.errors import ConfigError

#: Where the DSN is looked for without `--dsn`: what stands on a command line can be seen by all users of a machine.
DSN_VARIABLE = "POWER_LOOP_DSN"


def add_store_options(parser: argparse.ArgumentParser, *, is_required: bool = True) -> None:
    """Give a subcommand `--dsn` and `--table-prefix`; `is_required` tells whether it can do nothing without a DSN."""
    given = os.environ.get(DSN_VARIABLE)
    parser.add_argument(
        "--dsn",
        required=is_required and not given,
        # Not as the default of the option, which `--help` would print with its password.
        default=None,
        help=f"the database: app.db, postgresql://…, mysql://…; without it ${DSN_VARIABLE}, which other users of the"
        " machine cannot read",
    )
    parser.add_argument(
        "--table-prefix", default="pl_", metavar="PREFIX", help="what the tables' names begin with (pl_)"
    )


def dsn_of(given: argparse.Namespace) -> str:
    """Return the DSN of the command line or of the environment."""
    dsn = os.environ.get(DSN_VARIABLE) if given.dsn is None else given.dsn
    if dsn is None:
        raise ConfigError(f"no database is named: give --dsn, or set {DSN_VARIABLE}")
    return str(dsn)
