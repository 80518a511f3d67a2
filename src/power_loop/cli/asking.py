"""Asks a person at the terminal what a waiting tool call needs to know."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from power_loop import Answer, Approve, Deny, Give, PendingCall
from power_loop.cli.keyboard import Keyboard
from power_loop.cli.output import paint, say
from power_loop.cli.printable import printable
from power_loop.cli.transcript import called
from power_loop.records import WaitKind

# Who allows a call has to see all of it: a longer one is allowed with its arguments in view elsewhere.
_MAX_SHOWN_CHARS = 20_000


async def ask_about(keyboard: Keyboard, pending: Sequence[PendingCall]) -> dict[str, Answer]:
    """Return the answers to waiting calls that a person gave, by call id; a call without one goes on waiting."""
    answers: dict[str, Answer] = {}
    for one in pending:
        keyboard.forget_typed()
        answer = await _ask(keyboard, one)
        if answer is not None:
            answers[one.call_id] = answer
    return answers


async def _ask(keyboard: Keyboard, pending: PendingCall) -> Answer | None:
    arguments = json.dumps(dict(pending.arguments), ensure_ascii=False, indent=2)
    say(called(pending.name, arguments[:_MAX_SHOWN_CHARS], is_whole=True))
    if pending.prompt:
        say(printable(pending.prompt))
    if pending.wait_kind is WaitKind.APPROVAL:
        return await _approval(keyboard, is_whole=len(arguments) <= _MAX_SHOWN_CHARS)
    if pending.wait_kind is WaitKind.OUTCOME:
        return await _outcome(keyboard)
    return await _value(keyboard, pending)


async def _approval(keyboard: Keyboard, *, is_whole: bool) -> Answer | None:
    if not is_whole:
        say(paint("its arguments are too long to be shown here, so that it can be refused only", "yellow"))
    while True:
        given = await keyboard.line(paint("allow it? [y]es, [n]o and why, [l]ater: ", "yellow"))
        word, _, reason = (given or "l").strip().partition(" ")
        if word.lower() in ("y", "yes") and is_whole:
            return Approve()
        if word.lower() in ("n", "no"):
            return Deny(reason.strip())
        if word.lower() in ("l", "later"):
            return None


async def _outcome(keyboard: Keyboard) -> Answer | None:
    while True:
        given = await keyboard.line(paint("did it happen? [y]es and what came of it, [n]o, [l]ater: ", "yellow"))
        word, _, rest = (given or "l").strip().partition(" ")
        if word.lower() in ("y", "yes"):
            return Give(rest.strip() or "done")
        if word.lower() in ("n", "no"):
            return Deny(rest.strip())
        if word.lower() in ("l", "later"):
            return None


async def _value(keyboard: Keyboard, pending: PendingCall) -> Answer | None:
    if pending.data:
        say(printable(json.dumps(dict(pending.data), ensure_ascii=False, indent=2)))
    given = await keyboard.line(paint("answer (nothing: later): ", "yellow"))
    if given is None or not given.strip():
        return None
    return Give(value_of(given, pending.answer_schema))


def value_of(text: str, schema: Any = None) -> Any:
    """Return what a typed answer means: JSON where it is some and the schema does not want text, the text otherwise."""
    if isinstance(schema, Mapping) and schema.get("type") == "string":
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text
