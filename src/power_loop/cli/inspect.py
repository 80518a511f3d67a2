"""Shows the sessions of a store on a page of this machine, until it is stopped."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
import webbrowser
from typing import Any

from power_loop.cli.agents import add_app_option, application_loop, looking_loop
from power_loop.cli.output import EXIT_OK, add_json_option, say, say_json
from power_loop.cli.store_options import add_store_options
from power_loop.contrib.inspect import Inspector
from power_loop.errors import ConfigError

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add `inspect`."""
    parser = subparsers.add_parser(
        "inspect",
        help="show sessions on a page in your browser, as they change",
        description="Serves a page to the browser of this machine, and to no other: sessions and their turns as they"
        " happen, the prompt of each model call and how it differs from the one before, sub-agents and workflows as"
        " pictures, what everything costs, who holds what, and what waits for a person. It only looks, unless --write"
        " says otherwise. Whoever has the address that it prints sees all of that.",
        epilog="power-loop inspect app.db --write --app my_app:make_loop",
    )
    parser.add_argument("database", nargs="?", metavar="DSN", help="the database, as --dsn has it")
    add_store_options(parser, is_required=False)
    parser.add_argument(
        "--write",
        action="store_true",
        help="let the page fork sessions and cancel turns and, with --app, resume and answer",
    )
    add_app_option(parser, "drive what the page resumes with")
    parser.add_argument("--port", type=int, default=0, metavar="N", help="the port on 127.0.0.1 (a free one)")
    parser.add_argument("--open", action="store_true", help="open it in the browser")
    add_json_option(parser, "a JSON object with the address")
    parser.set_defaults(run=_run)


async def _run(given: argparse.Namespace) -> int:
    if given.database is not None:
        if given.dsn is not None:
            raise ConfigError("the database is named twice: leave out --dsn, or what stands without it")
        given.dsn = given.database
    stopped = asyncio.Event()
    async with await _loop_of(given) as loop:
        # A database that is not there is told before an address is.
        await loop.get_store()
        inspector = Inspector(loop, can_write=given.write, can_drive=given.app is not None, is_attached=bool(given.app))
        async with await inspector.start(given.port):
            _tell(given, inspector)
            _stop_on_signals(stopped)
            await stopped.wait()
    return EXIT_OK


async def _loop_of(given: argparse.Namespace) -> Any:
    if given.app is None:
        return looking_loop(given)
    return await application_loop(given)


def _tell(given: argparse.Namespace, inspector: Inspector) -> None:
    if given.json:
        say_json({"url": inspector.url})
    else:
        say(inspector.url)
        say("It is for this machine only, and holds the key. Ctrl-C ends it.")
    sys.stdout.flush()
    if given.open:
        # What stands on a command line can be seen by all users of a machine: this one opens once.
        webbrowser.open(inspector.make_link())


def _stop_on_signals(stopped: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    # An event loop of Windows takes none: there Ctrl-C cancels the command.
    with contextlib.suppress(NotImplementedError):
        for number in _SIGNALS:
            loop.add_signal_handler(number, stopped.set)
