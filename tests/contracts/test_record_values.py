"""Records survive the way through JSON, and what is no record is refused whatever it is."""

from __future__ import annotations

import json
import typing
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from power_loop import (
    AudioPart,
    FilePart,
    ImagePart,
    LLMRequest,
    LLMResponse,
    Message,
    SendStatus,
    StatefulResult,
    StopReason,
    TextPart,
    ToolSpec,
    Usage,
)
from power_loop.contracts import events
from power_loop.contracts.record_values import InvalidValueError, record_of, value_of
from power_loop.contracts.results import PendingCall
from power_loop.contracts.states import WaitKind
from power_loop.llm import ModelInfo, OutputSchema
from power_loop.messages import OpaquePart, Origin, ReasoningPart, RefusalPart, Role, ToolCallPart, ToolResultPart

PARTS = (
    TextPart("Hello."),
    ImagePart("image/png", "iVBORw0KGgo="),
    FilePart(url="https://example.org/a.pdf"),
    AudioPart("UklGRg=="),
    ReasoningPart("Hm.", '{"a":1}'),
    ToolCallPart("c1", "add", '{"a":1}'),
    ToolResultPart("c1", (TextPart("1"), ImagePart(data="iVBORw0KGgo=")), True),
    RefusalPart("No."),
    OpaquePart("{}"),
)
REQUEST = LLMRequest(
    (Message(Role.USER, PARTS[:1]), Message(Role.ASSISTANT, PARTS, Origin("openai", "m"))),
    system="Be kind.",
    tools=(ToolSpec("add", "Adds.", {"type": "object", "properties": {"a": {"type": "number"}}}),),
    output_schema=OutputSchema({"type": "object"}),
    max_output_tokens=10,
    temperature=0.5,
    parallel_tool_calls=False,
    extra={"seed": 1, "nested": [1, {"a": None}]},
)
RESULT = StatefulResult(
    "sess_1",
    2,
    SendStatus.WAITING_FOR_INPUT,
    "Text",
    output={"a": [1]},
    pending=(PendingCall("c1", "ask", {"q": 1}, "waiting", WaitKind.INPUT, "Well?"),),
    usage=Usage(1, 2, is_estimated=True),
    cost=Decimal("0.125"),
)
RECORDS = (
    REQUEST,
    LLMResponse(Message(Role.ASSISTANT, PARTS[:1]), StopReason.LENGTH, Usage(3, 4), "id", "req", "m"),
    ModelInfo("openai", "m", schema_dialect="openai", has_images=False),
    RESULT,
    events.SendFinished(RESULT),
    events.MessageAppended(3, REQUEST.messages[1]),
)
EVENTS = [one for one in vars(events).values() if isinstance(one, type) and issubclass(one, events.EventPayload)]
# What members of ours are called, and others.
NAMES = st.sampled_from(["is_a", "role", "parts", "text", "messages", "stop", "message", "usage"]) | st.text(max_size=3)
# Any JSON at all, and JSON that looks like ours.
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(NAMES, inside, max_size=4),
    max_leaves=8,
)


@pytest.mark.parametrize("record", RECORDS, ids=lambda one: type(one).__name__)
def test_a_record_comes_back_as_it_went(record: Any) -> None:
    assert record_of(type(record), json.loads(json.dumps(value_of(record)))) == record


@pytest.mark.parametrize("kind", EVENTS)
def test_every_event_can_travel(kind: Any) -> None:
    # Whatever its fields are: that they can be read and written is known when the class is looked at.
    with pytest.raises(InvalidValueError):
        record_of(kind, {"no such field": 1})
    for name, hint in typing.get_type_hints(kind).items():
        if hint in (str, int) and name in kind.__shape__.names:
            with pytest.raises(InvalidValueError, match=name):
                record_of(kind, {name: []})


def test_what_is_left_out_has_its_default() -> None:
    value = value_of(LLMRequest((Message(Role.USER, (TextPart("a"),)),)))
    assert value == {"messages": [{"role": "user", "parts": [{"is_a": "TextPart", "text": "a"}]}]}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (1, "an object was expected"),
        ({}, "cannot be made"),
        ({"messages": {}}, "messages is dict: an array"),
        ({"messages": [{"role": "root", "parts": []}]}, "role is str: one of"),
        ({"messages": [{"role": "user", "parts": [{"is_a": "Popen"}]}]}, "parts.0. is none of"),
        ({"messages": [{"role": "user", "parts": [{"is_a": ["TextPart"]}]}]}, "is none of"),
        ({"messages": [], "temperature": "hot"}, "temperature is str: a finite number"),
        ({"messages": [], "max_output_tokens": 2**70}, "a whole number of 64 bits"),
        ({"messages": [], "max_output_tokens": True}, "a whole number of 64 bits"),
        ({"messages": [], "memo": {}}, "has no 'memo'"),
        ({"messages": [], "extra": [1]}, "extra is list: an object"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(value: Any, reason: str) -> None:
    with pytest.raises(InvalidValueError, match=reason):
        record_of(LLMRequest, value)


@given(JSON)
def test_whatever_json_is_read_makes_a_record_or_is_refused(value: Any) -> None:
    for kind in (LLMRequest, LLMResponse, Message, StatefulResult, Usage):
        try:
            record = record_of(kind, value)
        except InvalidValueError:
            continue
        assert record_of(kind, json.loads(json.dumps(value_of(record)))) == record
