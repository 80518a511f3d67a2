"""Tells what happens in a crash test: an input, what the model says to it step by step, and which tools have effects.

A model here answers by what stands in the request and by nothing else, so a process that takes a turn over is told the
same as the one that died would have been.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from power_loop import Answer, Approve, Give, LLMResponse, Message, Role, ToolCallPart, Usage

SESSION = "s"
GREETING, GREETING_ANSWER = "Hello.", "Hello to you."
FOLLOW_UP, FOLLOW_UP_ANSWER = "And then?", "Then seven."

#: The sessions of a process that carries a story out in several at once.
CROWD = tuple(f"crowd_{number}" for number in range(6))

OUTPUT_TOKENS = 7
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
    first attempt fails and it goes on with another.
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
    waits_for_renewal: bool = False
    lease_ttl_s: float = 30.0


def _call(*wanted: str) -> Call:
    return Call(tuple((name, id_) for name, _, id_ in (one.partition(":") for one in wanted)))


def _one_after_the_other(*labels: str) -> tuple[str, ...]:
    return tuple(f"{stage} {label}" for label in labels for stage in ("effect", "finish"))


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
        Story("failure", "Try with the wrong key.", (Say("It works now."),), has_wrong_key=True),
        Story("unreadable", "Read it first.", (Say("I have read it."),), cannot_read=True),
        Story("slow", "Take your time.", (Say("Done at last."),), waits_for_renewal=True, lease_ttl_s=0.3),
    )
}
_BY_TEXT: dict[str, tuple[Reply, ...]] = {
    GREETING: (Say(GREETING_ANSWER),),
    FOLLOW_UP: (Say(FOLLOW_UP_ANSWER),),
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
    at = max(at for at, message in enumerate(messages) if message.role is Role.USER and message.text in _BY_TEXT)
    since = messages[at + 1 :]
    replies = _BY_TEXT[messages[at].text]
    step = sum(message.role is Role.ASSISTANT for message in since)
    usage = Usage(_TOKENS_A_MESSAGE * len(messages), OUTPUT_TOKENS)
    reply = replies[min(step, len(replies) - 1)]
    if isinstance(reply, Call):
        parts = [ToolCallPart(f"call_{len(messages)}_{id_}", name, f'{{"id":"{id_}"}}') for name, id_ in reply.wanted]
        return LLMResponse.of_calls(*parts, usage=usage)
    if isinstance(reply, Say):
        return LLMResponse.of_text(reply.text, usage=usage)
    return LLMResponse.of_text(report([_result_of(message) for message in since]), usage=usage)


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
