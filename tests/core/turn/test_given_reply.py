"""What a user's own model gives as a reply is taken, or refused in words that name what is wrong with it."""

from __future__ import annotations

from typing import Any

import pytest

from power_loop.contracts.errors import LLMProtocolError
from power_loop.contracts.llm import LLMResponse, StopReason, Usage
from power_loop.contracts.messages import (
    Message,
    OpaquePart,
    ReasoningPart,
    Role,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from power_loop.core.turn.given_reply import MAX_TOKENS, read_reply


def reply(*parts: Any, **fields: Any) -> Any:
    return LLMResponse(Message(Role.ASSISTANT, parts), **fields)


def read(given: Any) -> LLMResponse:
    return read_reply(given, giver="the model service", model="m")


def test_a_right_reply_is_the_same_object() -> None:
    given = reply(TextPart("x"), ToolCallPart("", "add", "{}"), usage=Usage(1, 2), id="r", stop=StopReason.TOOL_CALLS)
    assert read(given) is given


def test_what_means_the_same_is_taken() -> None:
    given = read(reply(TextPart("x"), stop="length"))
    assert given.stop is StopReason.LENGTH
    listed = read(LLMResponse(Message(Role.ASSISTANT, [TextPart("x")])))  # type: ignore[arg-type]
    assert listed.message.parts == (TextPart("x"),)


WRONG: list[tuple[Any, str]] = [
    (None, "gave None"),
    ("hello", "gave 'hello'"),
    (Message(Role.ASSISTANT, (TextPart("x"),)), "a reply is an LLMResponse"),
    (LLMResponse("x"), "message 'x'"),  # type: ignore[arg-type]
    (LLMResponse(Message(Role.USER, (TextPart("x"),))), "of the assistant"),
    (LLMResponse(Message(Role.ASSISTANT, None)), "parts None"),  # type: ignore[arg-type]
    (LLMResponse(Message(Role.ASSISTANT, "x")), "parts 'x'"),  # type: ignore[arg-type]
    (reply("x"), "part 'x'"),
    (reply(TextPart("y"), {"type": "text"}), "part {'type': 'text'}"),
    (reply(ToolResultPart("c", ())), "part ToolResultPart"),
    (reply(ToolCallPart(5, "add", "{}")), "id 5"),  # type: ignore[arg-type]
    (reply(ToolCallPart(None, "add", "{}")), "id None"),  # type: ignore[arg-type]
    (reply(OpaquePart({})), "raw {}"),  # type: ignore[arg-type]
    (reply(ReasoningPart("x", 5)), "raw 5"),  # type: ignore[arg-type]
    (reply(stop="banana"), "stop 'banana'"),
    (reply(stop=None), "stop None"),
    (reply(stop=[]), "stop []"),
    (reply(usage={"input": 1}), "usage {'input': 1}"),
    (reply(usage=Usage(-5, 5)), "input_tokens -5"),
    (reply(usage=Usage(5, None)), "output_tokens None"),  # type: ignore[arg-type]
    (reply(usage=Usage(5, 5, 1.5)), "cached_input_tokens 1.5"),  # type: ignore[arg-type]
    (reply(usage=Usage(True, 5)), "input_tokens True"),
    (reply(usage=Usage(MAX_TOKENS + 1)), "input_tokens"),
    (reply(id=5), "id 5"),
    (reply(request_id=b"r"), "request_id b'r'"),
    (reply(model=["m"]), "model ['m']"),
]


@pytest.mark.parametrize(("given", "words"), WRONG, ids=[words for _, words in WRONG])
def test_what_is_wrong_is_named(given: Any, words: str) -> None:
    with pytest.raises(LLMProtocolError) as caught:
        read(given)
    assert caught.value.message.startswith("the model service gave ")
    assert words in caught.value.message
    assert not caught.value.may_retry
    assert len(caught.value.message) < 500
