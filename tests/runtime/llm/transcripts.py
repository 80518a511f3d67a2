"""Arbitrary valid conversations, for the properties of the wires."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from power_loop.contracts.messages import (
    AudioPart,
    FilePart,
    ImagePart,
    Message,
    OpaquePart,
    Origin,
    Part,
    ReasoningPart,
    RefusalPart,
    Role,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    tool_message,
)

TEXTS = st.text(st.characters(codec=None), max_size=12) | st.sampled_from(
    ["", " ", "\n", "\0", "\ud800", "Hé 💡", "Error: no"]
)
MEDIA = st.sampled_from(
    [
        ImagePart(data="aGk=", detail="low"),
        ImagePart(url="https://example.com/a.png"),
        ImagePart(url="data:image/gif;base64,aGk="),
        FilePart(data="aGk=", filename="a.pdf"),
        FilePart(data="aGk=", media_type="text/plain"),
        FilePart(file_id="file-1"),
        FilePart(url="https://example.com/a.pdf"),
        AudioPart("aGk="),
    ]
)
CONTENT = st.lists(TEXTS.map(TextPart) | MEDIA, min_size=1, max_size=3).map(tuple)
NAMES = st.sampled_from(["add", "get_weather", "functions.search", "", "naïve tool", "x" * 100])
ARGUMENTS = (
    st.sampled_from(
        ["{}", '{"a": 1}', '{"a": "\\ud800"}', '{"a": NaN}', '{"a":1,"a":2}', "[1]", "", "{", "null", ' {"a": {}} ']
    )
    | TEXTS
)


@st.composite
def conversations(draw: st.DrawFn, wire: str = "openai", model: str = "m") -> list[Message]:
    """A conversation in which every call is answered once, directly after; it ends with a user or a result."""
    origins = st.sampled_from([Origin(wire, model), Origin(wire, "other"), Origin("custom", model), None])
    messages: list[Message] = [Message(Role.USER, (TextPart("Hello."), *draw(CONTENT)))]
    calls_made = 0
    for _ in range(draw(st.integers(0, 4))):
        parts: list[Part] = []
        if draw(st.booleans()):
            parts.append(draw(reasoning(wire)))
        if draw(st.booleans()):
            parts.append(draw(TEXTS.map(TextPart) | TEXTS.map(RefusalPart)))
        calls = []
        for _ in range(draw(st.integers(0, 3))):
            calls_made += 1
            calls.append(ToolCallPart(f"call_{calls_made:012d}", draw(NAMES), draw(ARGUMENTS)))
        messages.append(Message(Role.ASSISTANT, (*parts, *calls), draw(origins)))
        messages += [
            tool_message(call.id, draw(CONTENT | st.just(())), is_error=draw(st.booleans()))
            for call in draw(st.permutations(calls))
        ]
        if not calls or draw(st.booleans()):
            messages.append(Message(Role.USER, (TextPart("Go on."), *draw(CONTENT))))
    return messages


def reasoning(wire: str) -> st.SearchStrategy[Part]:
    """Reasoning as the wire brings it."""
    if wire == "openai":
        return st.builds(ReasoningPart, TEXTS, field=st.sampled_from(["reasoning", "reasoning_content", None]))
    blocks: list[dict[str, Any]] = [
        {"type": "thinking", "thinking": "hm é", "signature": "c2ln"},
        {"type": "thinking", "thinking": "", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "ZGF0YQ=="},
    ]
    opaque = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}
    return st.sampled_from([ReasoningPart("hm", raw=json.dumps(block)) for block in blocks]) | st.just(
        OpaquePart(json.dumps(opaque))
    )


def results_of(messages: list[Message]) -> list[ToolResultPart]:
    """The results in a conversation, in order."""
    return [message.tool_result for message in messages if message.tool_result is not None]
