"""Checks a transcript against what every provider demands of one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from power_loop.contracts.messages import (
    AudioPart,
    FilePart,
    ImagePart,
    Message,
    OpaquePart,
    ReasoningPart,
    RefusalPart,
    Role,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)

_PORTABLE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
_PARTS: dict[Role, tuple[type, ...]] = {
    Role.USER: (TextPart, ImagePart, FilePart, AudioPart),
    Role.ASSISTANT: (TextPart, ReasoningPart, ToolCallPart, RefusalPart, OpaquePart),
    Role.TOOL: (ToolResultPart,),
}


def check(messages: Sequence[Message]) -> list[str]:
    """Return every rule that a transcript breaks, in words; none means that any provider takes it.

    It reads the rules one by one from the finished transcript, and shares nothing with what makes transcripts.
    """
    problems = [f"message {place}: {problem}" for place, one in enumerate(messages) for problem in _of_one(one)]
    if messages and messages[0].role is not Role.USER:
        problems.append("message 0: the first message is not a user's")
    problems += _of_pairs(messages)
    return problems


def _of_one(message: Message) -> Iterator[str]:
    if not message.parts:
        yield "it is empty"
    for part in message.parts:
        if not isinstance(part, _PARTS[message.role]):
            yield f"a {message.role.value} message holds a {type(part).__name__}"
        if isinstance(part, (TextPart, RefusalPart)) and not part.text.strip():
            yield "a text is empty"
        if isinstance(part, ToolCallPart):
            if not 1 <= len(part.id) <= 40 or not set(part.id) <= _PORTABLE:
                yield f"no provider takes the call id {part.id!r}"
            if not 1 <= len(part.name) <= 64 or not set(part.name) <= _PORTABLE:
                yield f"no provider takes the tool name {part.name!r}"
        if isinstance(part, ToolResultPart):
            if not part.content:
                yield "a result is empty"
            if any(isinstance(one, TextPart) and not one.text.strip() for one in part.content):
                yield "a text in a result is empty"
    if message.role is Role.ASSISTANT and message.parts:
        if all(isinstance(part, ReasoningPart) for part in message.parts):
            yield "a reply holds reasoning only"
        for part in reversed(message.parts):
            if not isinstance(part, ReasoningPart):
                break
            if part.raw is not None:
                yield "a reply ends with a block of reasoning"
    if message.role is Role.TOOL and len(message.parts) != 1:
        yield "a tool message does not hold exactly one result"


def _of_pairs(messages: Sequence[Message]) -> Iterator[str]:
    seen: set[str] = set()
    expected: list[str] = []
    for place, message in enumerate(messages):
        if message.role is Role.TOOL:
            for part in message.parts:
                if isinstance(part, ToolResultPart):
                    if not expected or part.call_id != expected[0]:
                        yield f"message {place}: it answers {part.call_id!r} where {expected[:1]} is to be answered"
                    else:
                        expected.pop(0)
            continue
        if expected:
            yield f"message {place}: it stands before the answers to {expected}"
        expected = [part.id for part in message.parts if isinstance(part, ToolCallPart)]
        for call_id in expected:
            if call_id in seen:
                yield f"message {place}: the call id {call_id!r} is used twice"
            seen.add(call_id)
    if expected:
        yield f"the transcript ends before the answers to {expected}"
