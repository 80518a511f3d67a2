"""What a Messages endpoint answers becomes one form, and its blocks of thinking stay what they were."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from power_loop.contracts.llm import LLMDelta, LLMResponse, StopReason, Usage
from power_loop.contracts.messages import OpaquePart, Origin, ReasoningPart, RefusalPart, TextPart, ToolCallPart
from power_loop.runtime.llm.anthropic import AnthropicReader
from power_loop.runtime.llm.failures import ProviderFault
from power_loop.runtime.llm.stream import Assembly

ORIGIN = Origin("anthropic", "m")
START = {
    "type": "message_start",
    "message": {"id": "msg_1", "model": "m-1", "usage": {"input_tokens": 7, "output_tokens": 1}},
}
STOP = {"type": "message_stop"}


def start(index: int, **block: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index: int, kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **fields}}


def end(word: str | None = "end_turn", usage: Any = None, **details: Any) -> dict[str, Any]:
    return {"type": "message_delta", "delta": {"stop_reason": word, **details}, "usage": usage}


def read(*events: Any) -> tuple[LLMResponse, list[LLMDelta]]:
    heard: list[LLMDelta] = []
    reader = AnthropicReader(Assembly(heard.append))
    for event in events:
        reader.read("", event if isinstance(event, str) else json.dumps(event))
    return reader.response(origin=ORIGIN, request_id="r1"), heard


def test_a_reply_is_read_block_by_block() -> None:
    response, heard = read(
        START,
        {"type": "ping"},
        start(0, type="thinking", thinking="", signature=""),
        delta(0, "thinking_delta", thinking="h"),
        delta(0, "thinking_delta", thinking="m"),
        delta(0, "signature_delta", signature="c2ln"),
        {"type": "content_block_stop", "index": 0},
        start(1, type="text", text=""),
        delta(1, "text_delta", text="Hi"),
        delta(1, "text_delta", text=" there"),
        start(2, type="tool_use", id="toolu_01aaaaaaa", name="add", input={}),
        delta(2, "input_json_delta", partial_json=""),
        delta(2, "input_json_delta", partial_json='{"a":'),
        delta(2, "input_json_delta", partial_json="1}"),
        end("tool_use", {"output_tokens": 5}),
        STOP,
    )
    thought = '{"type":"thinking","thinking":"hm","signature":"c2ln"}'
    assert response.message.parts == (
        ReasoningPart("hm", raw=thought),
        TextPart("Hi there"),
        ToolCallPart("toolu_01aaaaaaa", "add", '{"a":1}'),
    )
    assert (response.stop, response.usage) == (StopReason.TOOL_CALLS, Usage(7, 5))
    assert (response.id, response.request_id, response.model) == ("msg_1", "r1", "m-1")
    assert [(one.kind.value, one.text, one.index, one.name) for one in heard] == [
        ("reasoning", "h", 0, None),
        ("reasoning", "m", 0, None),
        ("text", "Hi", 0, None),
        ("text", " there", 0, None),
        ("tool_call", "", 0, "add"),
        ("tool_call", '{"a":', 0, None),
        ("tool_call", "1}", 0, None),
    ]


@given(st.lists(st.text(st.characters(codec=None), max_size=4), max_size=5), st.text(max_size=8))
def test_thinking_is_kept_exact_whatever_stands_in_it(pieces: list[str], signature: str) -> None:
    response, _ = read(
        start(0, type="thinking", thinking="", signature=""),
        *(delta(0, "thinking_delta", thinking=piece) for piece in pieces),
        delta(0, "signature_delta", signature=signature),
        end(),
    )
    part = response.message.parts[0]
    assert isinstance(part, ReasoningPart)
    assert part.raw is not None
    assert part.raw.isascii()
    # Halves of a character that were sent apart are one character in JSON.
    whole = json.loads(json.dumps("".join(pieces)))
    assert json.loads(part.raw) == {"type": "thinking", "thinking": whole, "signature": signature}


def test_thinking_that_is_not_shown_keeps_its_signature() -> None:
    response, heard = read(
        start(0, type="thinking", thinking="", signature=""),
        delta(0, "signature_delta", signature="c2"),
        delta(0, "signature_delta", signature="ln"),
        start(1, type="redacted_thinking", data="ZGF0YQ=="),
        start(2, type="text", text="Hi."),
        end(),
    )
    assert response.message.parts == (
        ReasoningPart("", raw='{"type":"thinking","thinking":"","signature":"c2ln"}'),
        ReasoningPart("", raw='{"type":"redacted_thinking","data":"ZGF0YQ=="}'),
        TextPart("Hi."),
    )
    assert [one.text for one in heard] == ["Hi."]


def test_a_block_that_is_not_known_is_kept_as_it_came() -> None:
    response, _ = read(
        start(0, type="server_tool_use", id="srvtoolu_1", name="web_search", input={}),
        delta(0, "input_json_delta", partial_json='{"query":'),
        delta(0, "input_json_delta", partial_json='"é"}'),
        start(1, type="web_search_tool_result", tool_use_id="srvtoolu_1", content=[{"url": "x"}]),
        end("pause_turn"),
    )
    search, found = response.message.parts
    assert isinstance(search, OpaquePart)
    assert isinstance(found, OpaquePart)
    assert json.loads(search.raw)["input"] == {"query": "é"}
    assert json.loads(found.raw)["content"] == [{"url": "x"}]
    assert response.stop is StopReason.PAUSE


@pytest.mark.parametrize(
    ("word", "stop"),
    [
        ("end_turn", StopReason.END),
        ("max_tokens", StopReason.LENGTH),
        ("stop_sequence", StopReason.STOP_SEQUENCE),
        ("refusal", StopReason.REFUSAL),
        ("pause_turn", StopReason.PAUSE),
        ("model_context_window_exceeded", StopReason.CONTEXT_FULL),
        ("tool_use", StopReason.END),
        ("a_new_word", StopReason.END),
    ],
)
def test_every_stop_reason_has_its_meaning(word: str, stop: StopReason) -> None:
    assert read(start(0, type="text", text="x"), end(word), STOP)[0].stop is stop


def test_a_call_that_was_cut_by_the_cap_stays_cut() -> None:
    response, _ = read(
        start(0, type="tool_use", id="toolu_01aaaaaaa", name="f", input={}),
        delta(0, "input_json_delta", partial_json='{"a'),
        end("max_tokens"),
    )
    assert response.stop is StopReason.LENGTH
    assert response.message.tool_calls[0].arguments == '{"a'


def test_a_call_without_parameters_has_empty_ones() -> None:
    response, _ = read(start(0, type="tool_use", id="toolu_01aaaaaaa", name="f", input={}), end("tool_use"))
    assert response.message.tool_calls[0].arguments == "{}"


def test_a_refusal_brings_its_explanation() -> None:
    details = {"category": "cyber", "explanation": "This was not allowed."}
    response, _ = read(start(0, type="text", text="I"), end("refusal", stop_details=details))
    assert response.message.parts == (TextPart("I"), RefusalPart("This was not allowed."))


@pytest.mark.parametrize("given_id", [None, "", "a.b", "x" * 60])
def test_an_id_that_cannot_be_used_is_replaced(given_id: Any) -> None:
    response, _ = read(start(0, type="tool_use", id=given_id, name="f", input={}), end("tool_use"))
    assert response.message.tool_calls[0].id.startswith("call_")


@pytest.mark.parametrize(
    ("first", "last", "usage"),
    [
        ({"input_tokens": 3, "output_tokens": 1}, {"output_tokens": 9}, Usage(3, 9)),
        (
            {"input_tokens": 3, "cache_read_input_tokens": 10, "cache_creation_input_tokens": 5, "output_tokens": 1},
            {"output_tokens": 9, "output_tokens_details": {"thinking_tokens": 4}},
            Usage(18, 9, cached_input_tokens=10, cache_write_tokens=5, reasoning_tokens=4),
        ),
        # The last event may restate the prompt; what it leaves out or sends as null stays.
        ({"input_tokens": 3, "output_tokens": 1}, {"input_tokens": 4, "output_tokens": 9}, Usage(4, 9)),
        ({"input_tokens": 3, "output_tokens": 1}, {"input_tokens": None, "output_tokens": 9}, Usage(3, 9)),
        (None, None, None),
        ({}, {"output_tokens": 9}, None),
        ({"input_tokens": -1, "output_tokens": 1}, {}, None),
    ],
)
def test_usage_adds_up_what_is_counted_apart(first: Any, last: Any, usage: Usage | None) -> None:
    begun = {"type": "message_start", "message": {"usage": first}}
    assert read(begun, start(0, type="text", text="x"), end(usage=last))[0].usage == usage


@pytest.mark.parametrize(
    "events",
    [
        ["{"],
        ["3"],
        [delta(0, "text_delta", text="x"), end()],
        [{"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}],
        [START, start(0, type="text", text="x")],
        [START, end(None), STOP],
    ],
)
def test_what_is_no_whole_reply_is_a_fault(events: list[Any]) -> None:
    with pytest.raises(ProviderFault):
        read(*events)


def test_a_whole_reply_is_read_as_a_stream_is() -> None:
    heard: list[LLMDelta] = []
    reader = AnthropicReader(Assembly(heard.append))
    reader.read_whole(
        {
            "id": "msg_1",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
                {"type": "text", "text": "Hi."},
                {"type": "tool_use", "id": "toolu_01aaaaaaa", "name": "add", "input": {"a": 1}},
            ],
            "stop_reason": "tool_use",
            "usage": {"input_tokens": 1, "output_tokens": 2},
        }
    )
    response = reader.response(origin=ORIGIN, request_id=None)
    assert response.message.parts == (
        ReasoningPart("hm", raw='{"type":"thinking","thinking":"hm","signature":"c2ln"}'),
        TextPart("Hi."),
        ToolCallPart("toolu_01aaaaaaa", "add", '{"a": 1}'),
    )
    assert response.usage == Usage(1, 2)
    assert [one.text for one in heard] == ["hm", "Hi.", '{"a": 1}']


def test_texts_of_two_blocks_do_not_mix() -> None:
    events = [start(0, type="text", text=""), start(1, type="text", text="")]
    for n in range(6):
        events += [delta(0, "text_delta", text=f"a{n}"), delta(1, "text_delta", text=f"b{n}")]
    response, _ = read(*events, end())
    assert response.message.parts == (TextPart("a0a1a2a3a4a5"), TextPart("b0b1b2b3b4b5"))


EVENTS = st.sampled_from(
    [
        START,
        STOP,
        start(0, type="text", text=""),
        start(1, type="thinking", thinking="", signature=""),
        start(2, type="tool_use", id="toolu_01aaaaaaa", name="f", input={}),
        start(2, type="tool_use"),
        start(3, type="odd"),
        delta(0, "text_delta", text="a"),
        delta(0, "input_json_delta", partial_json="{"),
        delta(1, "text_delta", text="a"),
        delta(1, "thinking_delta", thinking="a"),
        delta(2, "input_json_delta", partial_json="{"),
        delta(3, "input_json_delta", partial_json="{"),
        delta(9, "text_delta", text="a"),
        delta(0, "text_delta"),
        end(),
        end(None),
        end("max_tokens", {"output_tokens": "x"}),
        {"type": "content_block_delta"},
        {"type": "content_block_start", "index": "0"},
        {"type": None},
        {},
    ]
)


@given(st.lists(EVENTS, max_size=12))
def test_whatever_comes_is_a_reply_or_a_fault(events: list[dict[str, Any]]) -> None:
    try:
        response, _ = read(*events)
    except ProviderFault:
        return
    ids = [part.id for part in response.message.tool_calls]
    assert len(set(ids)) == len(ids)
