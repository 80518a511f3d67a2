"""Writes results to standard output and complaints to standard error, in colours only where a person looks."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any, TextIO

from power_loop import PowerLoopError
from power_loop.cli.printable import plain, printable
from power_loop.errors import StoreSchemaError

EXIT_OK = 0
#: It failed, or it found something.
EXIT_FAILED = 1

# A person who waits longer than this is told what for, and sees that it goes on.
_PATIENCE_S = 0.5

_COLOURS = {"red": "31", "green": "32", "yellow": "33", "blue": "34", "bold": "1", "dim": "2"}


def add_json_option(parser: argparse.ArgumentParser, shape: str = "a JSON value") -> None:
    """Give a subcommand `--json`; `shape` says what is printed with it."""
    parser.add_argument("--json", action="store_true", help=f"instead of text, print {shape}")


def say(text: str = "") -> None:
    """Write a line to standard output. What a stranger wrote of it has to be `printable`."""
    sys.stdout.write(f"{text}\n")


def say_json(value: Any) -> None:
    """Write a JSON value, or a record as one, in a line of ASCII to standard output."""
    sys.stdout.write(json.dumps(plain(value)) + "\n")
    sys.stdout.flush()


def complain(text: str, *, code: str | None = None) -> None:
    """Write a line to standard error: what failed and, in brackets, its code."""
    text = " ".join(printable(text).split("\n"))
    mark = paint("error:", "red", sys.stderr)
    tail = "" if code is None else paint(f" [{code}]", "dim", sys.stderr)
    sys.stderr.write(f"power-loop: {mark} {text}{tail}\n")


def complain_of(error: PowerLoopError) -> None:
    """Write to standard error what failed; of tables that are missing, by which commands they come."""
    advice = ""
    if isinstance(error, StoreSchemaError):
        advice = " (`power-loop ddl --missing` prints them, `power-loop migrate --create` runs them)"
    complain(error.message + advice, code=error.code)


def paint(text: str, colour: str, stream: TextIO | None = None) -> str:
    """Return text in a colour of `_COLOURS`, if the stream is a terminal that shows it."""
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if has_colours(stream or sys.stdout) else text


@contextlib.asynccontextmanager
async def waiting_for(what: str) -> AsyncIterator[Callable[[str], None]]:
    """Show on a terminal, in one line of standard error that is gone at the end, how long an operation takes already.

    What it gives takes the words for how far the operation is.
    """
    far = ""

    def tell(so_far: str) -> None:
        nonlocal far
        far = so_far

    async def show() -> None:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        while True:
            await asyncio.sleep(_PATIENCE_S)
            sys.stderr.write(f"\r\x1b[K{what}, {loop.time() - began_s:.0f} s{far and f': {far}'}")
            sys.stderr.flush()

    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield tell
        return
    shown = asyncio.create_task(show())
    try:
        yield tell
    finally:
        shown.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await shown
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()


def has_colours(stream: TextIO) -> bool:
    """Tell whether a person looks at a stream who wants colours."""
    # https://no-color.org
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
