"""Tells what happens in a crash test: an input, what the model says to it step by step, and which tools have effects.

A model here answers by what stands in the request and by nothing else, so a process that takes a turn over is told the
same as the one that died would have been.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from power_loop import Answer, Approve, Give, LLMResponse, Message, Usage
from power_loop.messages import Role, ToolCallPart

SESSION = "s"
GREETING, GREETING_ANSWER = "Hello.", "Hello to you."
REFUND, BOOK, WIRE, RETRY = "Refund it.", "Book it.", "Wire it.", "Try it, and again if need be."
HINT, QUEUE = "Hear me out.", "Wait for me."
SERVE = "Let the server run."
HAND_OUT, WORK = "Let two do it side by side.", {"a": "Charge a.", "b": "Save b."}
#: What a session is woken with: by its own note once, and twice by a timer of the application.
ALARM, WAKE, TICK = "Wake me.", "A wake-up that you scheduled is due. Your note: Charge it.", "Tick."
#: What the agents of a workflow are told.
PLAN, CHARGE_IT, SAVE_IT = "Plan it.", "See to it: charge", "See to it: save"
FOLLOW_UP, FOLLOW_UP_ANSWER = "And then?", "Then seven."

#: The sessions of a process that carries a story out in several at once.
CROWD = tuple(f"crowd_{number}" for number in range(6))

OUTPUT_TOKENS = 7
# What the first message of a folded conversation says: how many messages it covers, and the summary of the model here.
_FOLD = re.compile(r"Its first (?P<covered>\d+) messages.*Replies: (?P<replies>\d+)\.", re.DOTALL)
_TOKENS_A_MESSAGE = 10


@dataclass(frozen=True, slots=True)
class Say:
    """Is a reply of text."""

    text: str


@dataclass(frozen=True, slots=True)
class Report:
    """Is a reply of text that repeats every result which the model was shown since the input."""


@dataclass(frozen=True, slots=True)
class Call:
    """Is a reply that calls tools, each given as (name, id)."""

    wanted: tuple[tuple[str, str], ...]


Reply = Say | Report | Call


@dataclass(frozen=True, slots=True)
class Story:
    """Is one send: its input, the model's replies in order, and how the application acts.

    `stages` fixes the order in which calls of one reply have their effects and finish (`effect charge:a`,
    `finish charge:a`), each finish behind the commit of the one before. `answers` are those to waiting calls, by tool;
    `mistake` is a wrong one that is tried first. Where the process that begins it `has_wrong_key` or `cannot_read`, its
    first attempt fails and it goes on with another. One that `is_folded` fills the window of its model, so that there
    is one fold before it ends; once one ends that `is_projected`, it is shown as its projection. One that `is_budgeted`
    is paid for from a budget that has more than it takes.
    """

    name: str
    text: str
    replies: tuple[Reply, ...]
    stages: tuple[str, ...] = ()
    answers: Mapping[str, Answer] = field(default_factory=dict)
    mistake: Mapping[str, Answer] = field(default_factory=dict)
    output_schema: Mapping[str, Any] | None = None
    is_streamed: bool = False
    is_cancelled: bool = False
    has_wrong_key: bool = False
    cannot_read: bool = False
    is_folded: bool = False
    is_projected: bool = False
    is_budgeted: bool = False
    waits_for_renewal: bool = False


def _call(*wanted: str) -> Call:
    return Call(tuple((name, id_) for name, _, id_ in (one.partition(":") for one in wanted)))


def _one_after_the_other(*labels: str) -> tuple[str, ...]:
    return tuple(f"{stage} {label}" for label in labels for stage in ("effect", "finish"))


# How many tokens the model takes, of which a fifth is for its reply, and what all but fills that in two replies.
WINDOW_TOKENS, REPLY_TOKENS = 7_500, 1_500
FILLING = (Say("One thinks. " * 1_000), Say("One thinks more. " * 600))
_NUMBER = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}

STORIES = {
    story.name: story
    for story in (
        Story("plain", "How are you?", (Say("Well, thank you."),)),
        Story("stream", "Say it slowly.", (Say("One two three four."),), is_streamed=True),
        Story(
            "tool_round",
            "Pay once, save safely, look.",
            (_call("charge:a", "save:b", "look:c"), Report()),
            stages=_one_after_the_other("look:c", "charge:a", "save:b"),
        ),
        # All effects are there before the first result is stored, and results come in another order than the calls.
        Story(
            "batch",
            "Do four things at once.",
            (_call("charge:a", "save:b", "pay:c", "look:d"), Report()),
            stages=(
                *("effect pay:c", "effect charge:a", "effect look:d", "effect save:b"),
                *("finish save:b", "finish look:d", "finish charge:a", "finish pay:c"),
            ),
        ),
        # A tool that runs alone is started by a transaction of its own, and so is one behind it.
        Story(
            "alone",
            "Seal it, then count.",
            (_call("save:a", "seal:b", "count:c"), Report()),
            stages=_one_after_the_other("save:a", "seal:b", "count:c"),
        ),
        Story(
            "two_rounds",
            "First this, then that.",
            (_call("charge:a", "count:b"), _call("save:c", "count:d"), Report()),
            stages=(
                *_one_after_the_other("charge:a", "count:b"),
                *_one_after_the_other("save:c", "count:d"),
            ),
        ),
        Story(
            "structured",
            "Which number?",
            (Say('{"n": "seven"}'), Say('{"n": 7}')),
            output_schema=_NUMBER,
        ),
        Story(
            "human",
            "Ask me, then transfer.",
            (_call("look:a", "transfer:b", "colour:c"), Report()),
            stages=_one_after_the_other("look:a"),
            answers={"transfer": Approve(), "colour": Give("blue")},
            mistake={"colour": Give(7)},
        ),
        Story(
            "cancel",
            "Do it, but I will change my mind.",
            (_call("look:a", "stick:b"), Report()),
            stages=("effect look:a", "finish look:a", "effect stick:b"),
            is_cancelled=True,
        ),
        # The second reply fills the window: the first one is folded before the third is asked for.
        Story("fold", "Think it over.", (*FILLING, Say('{"n": 7}')), output_schema=_NUMBER, is_folded=True),
        Story(
            "projection",
            "Charge it, and be short about it.",
            (_call("charge:a", "look:b"), Report()),
            stages=_one_after_the_other("charge:a", "look:b"),
            is_projected=True,
        ),
        Story(
            "budget",
            "Charge it, and mind the money.",
            (_call("charge:a", "look:b"), Report()),
            stages=_one_after_the_other("charge:a", "look:b"),
            is_budgeted=True,
        ),
        Story("failure", "Try with the wrong key.", (Say("It works now."),), has_wrong_key=True),
        Story("unreadable", "Read it first.", (Say("I have read it."),), cannot_read=True),
        Story("slow", "Take your time.", (Say("Done at last."),), waits_for_renewal=True),
    )
}
_BY_TEXT: dict[str, tuple[Reply, ...]] = {
    GREETING: (Say(GREETING_ANSWER),),
    FOLLOW_UP: (Say(FOLLOW_UP_ANSWER),),
    REFUND: (_call("refund:a"), Report()),
    BOOK: (_call("book:a", "look:b"), Report()),
    WIRE: (_call("wire:a"), Report()),
    RETRY: (_call("retry:a"), Report()),
    HINT: (_call("hint:a", "charge:b"), Report()),
    QUEUE: (_call("queue:a"), Report()),
    SERVE: (_call("background_run:a"), _call("background_check:a"), Report()),
    HAND_OUT: (_call("spawn_agent:a", "spawn_agent:b"), Report()),
    ALARM: (_call("schedule_wakeup:a"), Say("I will.")),
    WAKE: (_call("charge:w"), Report()),
    TICK: (_call("save:t"), Report()),
    PLAN: (Say('{"parts": ["charge", "save"]}'),),
    CHARGE_IT: (_call("charge:a"), Say("It is charged.")),
    SAVE_IT: (_call("save:b"), Report()),
    WORK["a"]: (_call("charge:a"), Report()),
    WORK["b"]: (_call("save:b"), Report()),
    **{story.text: story.replies for story in STORIES.values()},
}

#: The effect of each tool; `colour` waits for a person and has none.
EFFECTS = {
    "look": "read",
    "colour": "read",
    "save": "idempotent",
    "charge": "once",
    "pay": "once",
    "seal": "once",
    "count": "once",
    "transfer": "once",
    "stick": "once",
}


def result_text(name: str, id_: str) -> str:
    """Return what a tool gives."""
    return f"{name}:{id_} done"


def reply_to(messages: Sequence[Message]) -> LLMResponse:
    """Return what the model says to a transcript."""
    told = [at for at, message in enumerate(messages) if message.role is Role.USER and message.text in _BY_TEXT]
    if not told:
        return _summary_of(messages[0].text)
    at = told[-1]
    since = messages[at + 1 :]
    replies = _BY_TEXT[messages[at].text]
    step = sum(message.role is Role.ASSISTANT for message in since)
    length = len(messages)
    if fold := _FOLD.search(messages[0].text):
        inputs = next(at for at, message in enumerate(messages[1:]) if message.role is Role.ASSISTANT)
        length += int(fold["covered"]) - 1 - inputs
        if at <= inputs:
            step += int(fold["replies"])
    usage = Usage(_TOKENS_A_MESSAGE * length, OUTPUT_TOKENS)
    reply = replies[min(step, len(replies) - 1)]
    if isinstance(reply, Call):
        parts = [ToolCallPart(f"call_{length}_{id_}", name, _arguments(name, id_)) for name, id_ in reply.wanted]
        return LLMResponse.of_calls(*parts, usage=usage)
    if isinstance(reply, Say):
        return LLMResponse.of_text(reply.text, usage=usage)
    return LLMResponse.of_text(report([_result_of(message) for message in since]), usage=usage)


def _arguments(name: str, id_: str) -> str:
    """Return the arguments of a call; a command in the background goes on until it is ended."""
    if name == "spawn_agent":
        return json.dumps({"agent": "clerk", "input": WORK[id_]})
    if name == "schedule_wakeup":
        return json.dumps({"note": "Charge it.", "at": "2026-01-01T09:00"})
    if name == "background_run":
        return json.dumps({"command": f"echo {id_} >>jobs; exec sleep 600"})
    return json.dumps({"job": "job_1"} if name == "background_check" else {"id": id_})


def _summary_of(record: str) -> LLMResponse:
    """Return the summary of a record, which may come in pieces: how many of the replies that fill a window it has."""
    replies = sum(reply.text[:20] in record for reply in FILLING)
    return LLMResponse.of_text(f"Replies: {replies}.", usage=Usage(_TOKENS_A_MESSAGE, OUTPUT_TOKENS))


def report(results: Sequence[str | None]) -> str:
    """Return the text of a `Report` on results, in the order in which the model is shown them."""
    return "Results: " + "; ".join(result for result in results if result is not None)


def tokens_of_reply(messages: int) -> tuple[int, int]:
    """Return the input and output tokens of a reply to so many messages."""
    return _TOKENS_A_MESSAGE * messages, OUTPUT_TOKENS


def _result_of(message: Message) -> str | None:
    result = message.tool_result
    if result is None:
        return None
    return "".join(getattr(part, "text", "") for part in result.content)
