"""Reads the command line and runs a subcommand; its exit status tells a script how that went."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Sequence

from power_loop import PowerLoopError, __version__
from power_loop.cli import (
    archive,
    chat,
    completion,
    ddl,
    doctor,
    fork,
    inspect,
    mcp,
    migrate,
    prune,
    recover,
    replay,
    resume,
    sessions,
    show,
    timers,
    upkeep,
    work,
    workflow,
)
from power_loop.cli.output import EXIT_FAILED, EXIT_OK, complain, complain_of

#: The subcommands, as `power-loop --help` lists them. Each has `add_parser(subparsers)`, which sets `run`: a function
#: of the parsed arguments, async or not, that returns the exit status. Help and completion are made of this table.
COMMANDS = (
    chat,
    sessions,
    show,
    inspect,
    resume,
    replay,
    fork,
    archive,
    recover,
    timers,
    work,
    workflow,
    doctor,
    ddl,
    migrate,
    prune,
    upkeep,
    mcp,
    completion,
)

_EPILOG = """\
exit status: 0 done, 1 it failed or found something (standard error says what), 2 the command line is wrong or, of
doctor and recover, nothing could be looked at, 3 a workflow waits, 130 stopped by Ctrl-C"""
_INTERRUPTED = 128 + signal.SIGINT
_BROKEN_PIPE = 128 + 13


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command of `sys.argv`, or of `arguments`, and return its exit status."""
    _open_streams()
    given = make_parser().parse_args(arguments)
    try:
        outcome = given.run(given)
        status = asyncio.run(outcome) if asyncio.iscoroutine(outcome) else outcome
        sys.stdout.flush()
    except PowerLoopError as error:
        complain_of(error)
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
    except Exception as error:  # no user's mistake shows a traceback, and neither does ours
        complain(f"{type(error).__name__}: {error}; its traceback is in {_kept(error)}: report it, please")
        return EXIT_FAILED
    return status if isinstance(status, int) else EXIT_OK


def _open_streams() -> None:
    """Give a process that was started with a stream closed one that leads nowhere, so that no file takes its number.

    A stream whose encoding lacks a character shows its escape.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - it stays open
        elif mode == "w" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _kept(error: Exception) -> str:
    """Write the traceback of an error into a file that only this user reads, and return its path."""
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="power-loop-", suffix=".txt", delete=False, encoding="utf-8", errors="backslashreplace"
        ) as file:
            file.writelines(traceback.format_exception(type(error), error, error.__traceback__))
            return file.name
    except OSError as failed:
        return f"no file, because none can be written ({failed.strerror})"


def make_parser() -> argparse.ArgumentParser:
    """Return the one parser: `power-loop --help`, each command's help and the completion are made of it."""
    parser = argparse.ArgumentParser(
        prog="power-loop",
        description="Talks to agents, looks at their sessions, and looks after the databases that hold them.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"power-loop {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_parser(subparsers)
    parser.set_defaults(parser=parser)
    return parser
