"""The checker of transcripts finds each broken rule, so that a test which relies on it can fail."""

from __future__ import annotations

import pytest

from power_loop.contracts.messages import (
    ImagePart,
    Message,
    ReasoningPart,
    Role,
    TextPart,
    ToolCallPart,
    tool_message,
    user_message,
)
from power_loop.core.context.rules import check

HI = user_message("hi")
ASK = Message(Role.ASSISTANT, (ToolCallPart("c1", "add", "{}"), ToolCallPart("c2", "add", "{}")))
ONE, TWO = (tool_message(call_id, (TextPart("3"),)) for call_id in ("c1", "c2"))


def assistant(*parts: object) -> Message:
    return Message(Role.ASSISTANT, parts)  # type: ignore[arg-type]


def test_a_right_transcript_breaks_no_rule() -> None:
    assert check([]) == []
    assert check([HI, ASK, ONE, TWO, assistant(TextPart("3 and 3.")), HI]) == []


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ([assistant(TextPart("hi"))], "first message"),
        ([HI, Message(Role.USER, ())], "it is empty"),
        ([HI, user_message("hi"), Message(Role.USER, (TextPart(" "),))], "a text is empty"),
        ([HI, assistant(ReasoningPart("hm"))], "reasoning only"),
        ([HI, assistant(TextPart("hi"), ReasoningPart("hm", "{}"))], "ends with a block of reasoning"),
        ([HI, assistant(ImagePart(data="aGk="))], "holds a ImagePart"),
        ([HI, assistant(ToolCallPart("", "add", "{}")), tool_message("", (TextPart("3"),))], "call id ''"),
        ([HI, assistant(ToolCallPart("c1", "fs.read", "{}")), ONE], "tool name 'fs.read'"),
        ([HI, ASK, TWO, ONE], "answers 'c2' where ['c1']"),
        ([HI, ASK, ONE], "ends before the answers to ['c2']"),
        ([HI, ASK, ONE, HI, TWO], "stands before the answers to ['c2']"),
        ([HI, ASK, ONE, TWO, TWO], "answers 'c2' where []"),
        ([HI, ONE], "answers 'c1' where []"),
        ([HI, ASK, ONE, TWO, ASK, ONE, TWO], "'c1' is used twice"),
        ([HI, ASK, ONE, tool_message("c2", ())], "a result is empty"),
        ([HI, ASK, ONE, tool_message("c2", (TextPart(""),))], "a text in a result is empty"),
        ([HI, Message(Role.TOOL, ())], "exactly one result"),
    ],
)
def test_each_broken_rule_is_named(messages: list[Message], problem: str) -> None:
    assert any(problem in found for found in check(messages)), check(messages)
