"""Lists timers, cancels one, and delivers those that are due with the application's own loop."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from typing import Any

from power_loop import TimerRunner
from power_loop.cli.agents import add_app_option, application_loop
from power_loop.cli.output import EXIT_OK, add_json_option, paint, say, say_json
from power_loop.cli.printable import one_line, printable
from power_loop.cli.sessions import at_minute
from power_loop.cli.store_handle import store_of
from power_loop.cli.store_options import add_store_options
from power_loop.events import TimerFired
from power_loop.timers import TimerRecord

_PAGE = 200
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add `timers`."""
    parser = subparsers.add_parser(
        "timers",
        help="list timers, cancel one, or deliver those that are due",
        description="Lists the timers that are armed, those that come first first; or ends one; or delivers them, with"
        " the application's own loop, which drives the sessions that they wake. As many as one likes may do so on one"
        " database: each firing is delivered once. On SIGTERM and Ctrl-C it delivers no more and ends when the turns"
        " that it drives rest; a second signal ends it at once, and what it drove is left to recovery.",
        epilog="power-loop timers run --app my_app.agents:make_loop --dsn app.db",
    )
    add_store_options(parser)
    parser.add_argument("action", choices=("list", "cancel", "run"), nargs="?", default="list", help="list")
    parser.add_argument("--timer", metavar="TIMER", help="cancel: its id, such as tmr_7k2m")
    parser.add_argument("--session", metavar="SESSION", help="list: of this session only")
    parser.add_argument("--all", action="store_true", help="list: also those that have ended")
    add_app_option(parser, "run: deliver with")
    parser.add_argument("--once", action="store_true", help="run: deliver what is due at this moment, and end")
    add_json_option(parser, "a JSON object a line")
    parser.set_defaults(run=_run, parser_of_timers=parser)


async def _run(given: argparse.Namespace) -> int:
    _check(given)
    if given.action == "run":
        return await _deliver(given)
    if given.action == "cancel":
        async with store_of(given) as store:
            was_armed = await store.cancel_timer(given.timer)
        if given.json:
            say_json({"id": given.timer, "was_armed": was_armed})
        else:
            say(f"{printable(given.timer)}: {'cancelled' if was_armed else 'it had ended before'}")
        return EXIT_OK
    async with store_of(given) as store:
        found = [timer async for timer in _all(store, given)]
    found.sort(key=lambda timer: (not timer.is_armed, timer.due_at_ms or timer.ended_at_ms or 0, timer.id))
    if given.json:
        for timer in found:
            say_json(timer)
        return EXIT_OK
    if not found:
        say("no timers")
        return EXIT_OK
    say(paint(f"{'due (UTC)':<18}{'state':<16}{'timer':<24}session", "bold"))
    for timer in found:
        say(_line(timer))
    return EXIT_OK


async def _deliver(given: argparse.Namespace) -> int:
    async with await application_loop(given) as loop:

        def tell(event: Any) -> None:
            if isinstance(event.payload, TimerFired):
                if given.json:
                    say_json({"session_id": event.session_id, "at_ms": event.at_ms, "timer_id": event.payload.timer_id})
                else:
                    say(f"{at_minute(event.at_ms):<18}{event.payload.timer_id:<24}{printable(event.session_id)}")

        loop.event_bus.subscribe(tell)
        if given.once:
            runner = TimerRunner(loop, recover_every_s=None)
            await runner.fire_due()
            await runner.drained()
            return EXIT_OK
        runner = TimerRunner(loop)
        _stop_on_signals(runner)
        await runner.run()
    return EXIT_OK


def _stop_on_signals(runner: TimerRunner) -> None:
    loop = asyncio.get_running_loop()

    def stop() -> None:
        runner.stop()
        # A turn may take for ever: the next one ends the process as it stands, and others go on with what it drove.
        # Taken from the event loop first, Ctrl-C would for a moment be an exception.
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)

    # Not every system has handlers of signals in its event loops: there Ctrl-C ends it in the middle.
    with contextlib.suppress(NotImplementedError):
        for number in _SIGNALS:
            loop.add_signal_handler(number, stop)


async def _all(store: Any, given: argparse.Namespace) -> AsyncIterator[TimerRecord]:
    cursor: str | None = None
    while True:
        page = await store.list_timers(given.session, include_ended=given.all, cursor=cursor, limit=_PAGE)
        for timer in page.items:
            yield timer
        cursor = page.next_cursor
        if cursor is None:
            return


def _line(timer: TimerRecord) -> str:
    due = "-" if timer.due_at_ms is None else at_minute(timer.due_at_ms)
    state = paint(f"{timer.state.value:<16}", "green" if timer.is_armed else "dim")
    more = f"  {one_line(timer.name, 40)}" if timer.name else ""
    failed = f"  failed {timer.failures} times: {one_line(timer.last_error or '')}" if timer.failures else ""
    return f"{due:<18}{state}{printable(timer.id):<24}{printable(timer.session_id)}{more}{paint(failed, 'red')}"


def _check(given: argparse.Namespace) -> None:
    """Refuse an option that says nothing of what is done."""
    wanted = {"cancel": "timer", "run": "app"}
    for action, name in wanted.items():
        if (given.action == action) != (getattr(given, name) is not None):
            needs = f"timers {action} needs --{name}" if given.action == action else f"--{name} is for timers {action}"
            given.parser_of_timers.error(needs)
    if given.action != "list" and (given.session or given.all):
        given.parser_of_timers.error("--session and --all are for timers list")
    if given.action != "run" and given.once:
        given.parser_of_timers.error("--once is for timers run")
