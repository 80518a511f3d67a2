"""Reads the command line and runs a subcommand; its exit status tells a script how that went."""

from __future__ import annotations

import argparse
import asyncio
import inspect
import os
import signal
import sys
from collections.abc import Sequence

from power_loop import PowerLoopError, __version__
from power_loop.cli import archive, ddl, doctor, fork, prune, recover, upkeep
from power_loop.cli.output import EXIT_FAILED, EXIT_OK, complain

#: The subcommands, as `power-loop --help` lists them. Each has `add_parser(subparsers)`, which sets `run`: a function
#: of the parsed arguments, async or not, that returns the exit status.
COMMANDS = (ddl, doctor, recover, archive, fork, prune, upkeep)

_EPILOG = """\
exit status: 0 done, 1 it failed or found something (standard error says what), 2 the command line is wrong,
130 stopped by Ctrl-C"""
_INTERRUPTED = 128 + signal.SIGINT
_BROKEN_PIPE = 128 + 13


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command of `sys.argv`, or of `arguments`, and return its exit status."""
    _open_streams()
    given = _parser().parse_args(arguments)
    try:
        outcome = given.run(given)
        status = asyncio.run(outcome) if inspect.iscoroutine(outcome) else outcome
        sys.stdout.flush()
    except PowerLoopError as error:
        complain(error.message, code=error.code)
        return EXIT_FAILED
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # Who reads has seen enough; what is left in the buffer goes nowhere, also at the interpreter's end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    except OSError as error:
        # What the store does is translated where it is done: this is the output, such as a full disk's.
        complain(f"the output cannot be written: {error.strerror or error}")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    return status if isinstance(status, int) else EXIT_OK


def _open_streams() -> None:
    """Give a process that was started with a stream closed one that leads nowhere, so that no file takes its number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - it stays open


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="power-loop",
        description="Looks after the databases of power-loop.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"power-loop {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_parser(subparsers)
    return parser
