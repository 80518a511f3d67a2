"""Works for a store: drives what is left in inboxes, and what dead processes left, with the application's own loop."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
from typing import Any

from power_loop import PowerLoopError, TimerRunner, Worker
from power_loop.cli.agents import add_app_option, application_loop
from power_loop.cli.output import EXIT_OK, add_json_option, complain_of
from power_loop.cli.recover import EXIT_ERROR, tell
from power_loop.cli.store_options import add_store_options
from power_loop.records import Recovered

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add `work`."""
    parser = subparsers.add_parser(
        "work",
        help="drive the sessions in which inputs wait, until it is told to end",
        description="Drives sessions in which inputs wait that enqueue() and others left, and those whose process"
        " died. Start as many on as many machines as you like: of each session the lease decides which of them drives"
        " it. On SIGTERM and Ctrl-C it claims nothing more and ends when its turns rest; those that take longer than"
        " --grace are handed back as they stand, and so are all of them on a second signal.",
        epilog="exit status: 0 it ended as it was told to, 2 it could not work",
    )
    add_store_options(parser)
    add_app_option(parser, "drive them with", is_required=True)
    parser.add_argument(
        "--concurrency", metavar="N", type=int, default=8, help="so many sessions at the same time (default: 8)"
    )
    parser.add_argument(
        "--poll",
        metavar="SECONDS",
        type=float,
        default=1.0,
        help="look so often while nothing is to be done (default: 1; ten times less often where the database tells of"
        " work, as PostgreSQL does)",
    )
    parser.add_argument(
        "--grace", metavar="SECONDS", type=float, default=30.0, help="what turns have to come to rest (default: 30)"
    )
    parser.add_argument(
        "--timers", action="store_true", help="also deliver timers that are due; any number of workers may do so"
    )
    parser.add_argument("--until-idle", action="store_true", help="end when there is nothing left to do")
    add_json_option(parser, "a JSON object a turn")
    parser.set_defaults(run=_run)


async def _run(given: argparse.Namespace) -> int:
    def report(turn: Recovered) -> None:
        tell(turn, is_json=given.json)

    try:
        async with await application_loop(given) as loop:
            worker = Worker(loop, concurrency=given.concurrency, poll_s=given.poll, grace_s=given.grace, on_turn=report)
            _stop_on_signals(worker)
            runner = TimerRunner(loop, drives=False) if given.timers else contextlib.nullcontext()
            async with runner:
                await worker.run(until_idle=given.until_idle)
    except PowerLoopError as error:
        complain_of(error)
        return EXIT_ERROR
    return EXIT_OK


def _stop_on_signals(worker: Worker) -> None:
    loop, count = asyncio.get_running_loop(), 0

    def stop() -> None:
        nonlocal count
        count += 1
        worker.stop(at_once=count > 1)

    # An event loop of Windows takes none: there Ctrl-C cancels the command.
    with contextlib.suppress(NotImplementedError):
        for number in _SIGNALS:
            loop.add_signal_handler(number, stop)
