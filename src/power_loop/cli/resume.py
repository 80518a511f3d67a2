"""Goes on with a session's last send: after its process died, after a failure, or with answers to what waits."""

from __future__ import annotations

import argparse
from typing import Any

from power_loop import Answer, Approve, Deny, Give, SendStatus
from power_loop.cli.agents import add_agent_options, agent_of
from power_loop.cli.asking import value_of
from power_loop.cli.output import EXIT_FAILED, EXIT_OK, add_json_option, say
from power_loop.cli.store_options import add_store_options
from power_loop.cli.transcript import pending_line
from power_loop.cli.turn_view import TurnView, ends_well
from power_loop.errors import ConfigError


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add `resume`."""
    parser = subparsers.add_parser(
        "resume",
        help="go on with the last send of a session",
        description="Drives the last send of a session on, with answers to its waiting calls if they are given; one"
        " that rests gives its recorded result. What waits without an answer is listed.",
        epilog="power-loop resume sess_1 --app my_app:make_loop --approve call_1 --dsn app.db",
    )
    add_store_options(parser)
    add_agent_options(parser)
    parser.add_argument("session_id", metavar="SESSION", help="the session's id")
    parser.add_argument("--approve", action="append", default=[], metavar="CALL", help="let a call run; repeatable")
    parser.add_argument(
        "--deny", action="append", default=[], metavar="CALL[=WHY]", help="refuse a call, and say why; repeatable"
    )
    parser.add_argument(
        "--give", action="append", default=[], metavar="CALL=VALUE", help="bring a result, JSON or text; repeatable"
    )
    parser.add_argument("--abort", action="store_true", help="end the send without running its open calls")
    add_json_option(parser, "a JSON object a line, the last of which is the result")
    parser.set_defaults(run=_run)


async def _run(given: argparse.Namespace) -> int:
    answers = _answers(given)
    if answers and given.abort:
        raise ConfigError("--abort ends the send without its open calls: leave out the answers, or --abort")
    view = TurnView(is_json=given.json)
    async with await agent_of(given) as loop:
        loop.event_bus.subscribe(view.hear, session_id=given.session_id)
        if given.abort:
            result = await loop.abort_pending(given.session_id)
        else:
            result = await loop.resume(given.session_id, answers=answers)
        view.end(result)
        if not given.json:
            for one in result.pending:
                say(pending_line(one))
    return EXIT_OK if ends_well(result) or (given.abort and result.status is SendStatus.ABORTED) else EXIT_FAILED


def _answers(given: argparse.Namespace) -> dict[str, Answer]:
    answers: dict[str, Answer] = {call_id: Approve() for call_id in given.approve}
    for text in given.deny:
        call_id, _, reason = text.partition("=")
        answers[call_id] = Deny(reason)
    for text in given.give:
        call_id, sign, value = text.partition("=")
        if not sign:
            raise ConfigError(f"--give is {text!r:.200}: give CALL=VALUE")
        answers[call_id] = Give(value_of(value))
    return answers
