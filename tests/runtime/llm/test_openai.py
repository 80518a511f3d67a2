"""What Chat Completions endpoints answer, in all their dialects, becomes one form."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from power_loop.contracts.llm import LLMDelta, LLMResponse, StopReason, Usage
from power_loop.contracts.messages import Origin, ReasoningPart, RefusalPart, TextPart, ToolCallPart
from power_loop.runtime.llm.failures import ProviderFault
from power_loop.runtime.llm.openai import OpenAIReader
from power_loop.runtime.llm.stream import Assembly

ORIGIN = Origin("openai", "m")


def delta(finish: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"id": "c1", "model": "m-1", "choices": [{"index": 0, "delta": fields, "finish_reason": finish}]}


def call(arguments: Any = "", **fields: Any) -> dict[str, Any]:
    name = fields.pop("name", None)
    function = {"arguments": arguments} if name is None else {"name": name, "arguments": arguments}
    return delta(tool_calls=[{**fields, "function": function}])


def read(*events: Any, sent: bytes = b"") -> tuple[LLMResponse, list[LLMDelta]]:
    heard: list[LLMDelta] = []
    reader = OpenAIReader(Assembly(heard.append, sent))
    for event in events:
        reader.read("", event if isinstance(event, str) else json.dumps(event))
    return reader.response(origin=ORIGIN, request_id="r1"), heard


def calls_of(*events: Any) -> list[tuple[str, str]]:
    response, _ = read(*events, delta("tool_calls"))
    assert response.stop is StopReason.TOOL_CALLS
    ids = [part.id for part in response.message.tool_calls]
    assert len(set(ids)) == len(ids)
    assert all(ids)
    return [(part.name, part.arguments) for part in response.message.tool_calls]


def test_a_reply_is_read_field_by_field() -> None:
    response, heard = read(
        delta(role="assistant", content=""),
        delta(reasoning_content="h"),
        delta(reasoning_content="m"),
        delta(content="Hi"),
        delta(content=" there"),
        call(name="add", index=0, id="call_123456789"),
        call('{"a":', index=0),
        call("1}", index=0),
        delta("tool_calls"),
        {"id": "c1", "choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}},
        "[DONE]",
    )
    assert response.message.parts == (
        ReasoningPart("hm", field="reasoning_content"),
        TextPart("Hi there"),
        ToolCallPart("call_123456789", "add", '{"a":1}'),
    )
    assert response.message.origin == ORIGIN
    assert (response.stop, response.usage) == (StopReason.TOOL_CALLS, Usage(7, 3))
    assert (response.id, response.request_id, response.model) == ("c1", "r1", "m-1")
    assert [(one.kind.value, one.text, one.index, one.name) for one in heard] == [
        ("reasoning", "h", 0, None),
        ("reasoning", "m", 0, None),
        ("text", "Hi", 0, None),
        ("text", " there", 0, None),
        ("tool_call", "", 0, "add"),
        ("tool_call", '{"a":', 0, None),
        ("tool_call", "1}", 0, None),
    ]


@pytest.mark.parametrize(
    ("word", "stop"),
    [
        ("stop", StopReason.END),
        ("length", StopReason.LENGTH),
        ("content_filter", StopReason.CONTENT_FILTER),
        ("function_call", StopReason.END),
        ("tool_calls", StopReason.END),
        ("eos", StopReason.END),
    ],
)
def test_every_finish_word_has_its_meaning(word: str, stop: StopReason) -> None:
    assert read(delta(content="x"), delta(word))[0].stop is stop


@pytest.mark.parametrize("word", ["stop", "tool_calls", "function_call", "eos"])
def test_calls_are_calls_whatever_the_finish_word(word: str) -> None:
    assert read(call(name="f", index=0, id="call_aaaaaaaaa"), delta(word))[0].stop is StopReason.TOOL_CALLS


@pytest.mark.parametrize("words", [("length",), ("tool_calls", "length"), ("length", "tool_calls"), ("length", "stop")])
def test_a_reply_that_was_cut_by_its_cap_stays_cut(words: tuple[str, ...]) -> None:
    response, _ = read(call('{"a', name="f", index=0, id="call_aaaaaaaaa"), *map(delta, words))
    assert response.stop is StopReason.LENGTH
    assert response.message.tool_calls[0].arguments == '{"a'


def test_a_refusal_is_a_part_and_a_reason() -> None:
    response, heard = read(delta(refusal="I "), delta(refusal="won't."), delta("stop"))
    assert response.message.parts == (RefusalPart("I won't."),)
    assert response.stop is StopReason.REFUSAL
    assert len(heard) == 2


@pytest.mark.parametrize(
    "events",
    [
        # As OpenAI sends them.
        [
            call(name="f", index=0, id="call_aaaaaaaaa"),
            call("{}", index=0),
            call(name="g", index=1, id="call_bbbbbbbbb"),
            call("[1]", index=1),
        ],
        # Mixed up.
        [
            call(name="f", index=0, id="call_aaaaaaaaa"),
            call(name="g", index=1, id="call_bbbbbbbbb"),
            call("[1", index=1),
            call("{}", index=0),
            call("]", index=1),
        ],
        # Numbers that jump.
        [
            call("{}", name="f", index=3, id="call_aaaaaaaaa"),
            call("[1]", name="g", index=9, id="call_bbbbbbbbb"),
        ],
        # Each whole and all with number 0.
        [
            call("{}", name="f", index=0, id="call_aaaaaaaaa"),
            call("[1]", name="g", index=0, id="call_bbbbbbbbb"),
        ],
        # The name and the id in each piece.
        [
            call("{", name="f", index=0, id="call_aaaaaaaaa"),
            call("}", name="f", index=0, id="call_aaaaaaaaa"),
            call("[", name="g", index=1, id="call_bbbbbbbbb"),
            call("1]", name="g", index=1, id="call_bbbbbbbbb"),
        ],
        # No numbers, but ids.
        [
            call("{", name="f", id="call_aaaaaaaaa"),
            call("[", name="g", id="call_bbbbbbbbb"),
            call("}", id="call_aaaaaaaaa"),
            call("1]", id="call_bbbbbbbbb"),
        ],
        # Neither numbers nor ids.
        [call(name="f"), call("{"), call("}"), call(name="g"), call("[1]")],
        [call("{", name="f"), call("}", name="f"), call("[", name="g"), call("1]", name="g")],
        # No ids, or empty ones.
        [call("{}", name="f", index=0), call("[1]", name="g", index=1)],
        [call("{}", name="f", index=0, id=""), call("[1]", name="g", index=1, id=None)],
        # The same id twice.
        [call("{}", name="f", index=0, id="call_aaaaaaaaa"), call("[1]", name="g", index=1, id="call_aaaaaaaaa")],
        # The name after the number.
        [call(index=0, id="call_aaaaaaaaa"), call("{}", name="f", index=0), call("[1]", name="g", index=1)],
        # An object where a text belongs.
        [call({}, name="f", index=0), call("[1]", name="g", index=1)],
    ],
)
def test_calls_are_told_apart_in_every_dialect(events: list[Any]) -> None:
    assert calls_of(*events) == [("f", "{}"), ("g", "[1]")]


def test_the_function_call_of_old_servers_is_a_call() -> None:
    events = [
        delta(function_call={"name": "f", "arguments": ""}),
        delta(function_call={"arguments": '{"a":1}'}),
    ]
    assert calls_of(*events) == [("f", '{"a":1}')]


@pytest.mark.parametrize(
    "given_id", ["x" * 41, "a b c d e f", "'; drop table--", "call_0", "0", "functions.f:0", "é" * 10]
)
def test_an_id_that_cannot_be_used_everywhere_is_replaced(given_id: str) -> None:
    response, _ = read(call("{}", name="f", index=0, id=given_id), delta("stop"))
    assert response.message.tool_calls[0].id.startswith("call_")
    assert response.message.tool_calls[0].id != given_id


def test_an_id_that_stands_in_the_conversation_is_replaced() -> None:
    event = call("{}", name="f", index=0, id="call_aaaaaaaaa")
    response, _ = read(event, delta("stop"), sent=b'{"tool_call_id":"call_aaaaaaaaa"}')
    assert response.message.tool_calls[0].id != "call_aaaaaaaaa"


@pytest.mark.parametrize("given_id", ["call_KsGzST5jBgWkSii6MVizXF16", "toolu_01bkmU1kQCV1qNSAK1VVbGVi", "D681PevKs"])
def test_an_id_that_can_be_used_is_kept(given_id: str) -> None:
    response, _ = read(call("{}", name="f", index=0, id=given_id), delta("stop"))
    assert response.message.tool_calls[0].id == given_id


def test_arguments_are_kept_as_they_came_and_missing_ones_are_empty() -> None:
    assert calls_of(call('{"a": NaN', name="f", index=0), call(name="g", index=1)) == [("f", '{"a": NaN'), ("g", "{}")]


@pytest.mark.parametrize(
    ("counts", "usage"),
    [
        ({"prompt_tokens": 10, "completion_tokens": 5}, Usage(10, 5)),
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "prompt_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 1},
                "completion_tokens_details": {"reasoning_tokens": 4},
            },
            Usage(10, 5, cached_input_tokens=8, cache_write_tokens=1, reasoning_tokens=4),
        ),
        (
            {"prompt_tokens": 10, "completion_tokens": 5, "prompt_cache_hit_tokens": 3},
            Usage(10, 5, cached_input_tokens=3),
        ),
        ({"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": None}, Usage(10, 5)),
        ({"prompt_tokens": -1, "completion_tokens": 5}, None),
        ({"prompt_tokens": "10", "completion_tokens": 5}, None),
        ({"prompt_tokens": 10}, None),
        ({}, None),
        (None, None),
        ([], None),
    ],
)
def test_usage_is_read_as_it_is_counted_or_not_at_all(counts: Any, usage: Usage | None) -> None:
    assert read(delta(content="x"), delta("stop"), {"choices": [], "usage": counts})[0].usage == usage


def test_of_running_usage_the_last_counts() -> None:
    running = [{**delta(content="x"), "usage": {"prompt_tokens": 9, "completion_tokens": n}} for n in range(3)]
    assert read(*running, delta("stop"))[0].usage == Usage(9, 2)


@pytest.mark.parametrize(
    "events",
    [
        ["{"],
        ["3"],
        ["[" * 100_000],
        [{"choices": []}],
        [{"choices": None}],
        [delta(tool_calls=[{"index": 0, "function": {"arguments": "{}"}}]), delta("stop")],
    ],
)
def test_what_is_no_chat_completion_is_a_fault(events: list[Any]) -> None:
    with pytest.raises(ProviderFault):
        read(*events)


@pytest.mark.parametrize("word", ["error", "insufficient_system_resource"])
def test_a_finish_that_reports_a_failure_is_one(word: str) -> None:
    with pytest.raises(ProviderFault):
        read(delta(content="x"), delta(word))


def test_content_in_parts_is_text() -> None:
    events = [delta(content=[{"type": "text", "text": "a"}, {"type": "x"}, 3]), delta("stop")]
    assert read(*events)[0].message.text == "a"


def test_a_message_in_place_of_a_delta_is_read() -> None:
    event = {"choices": [{"message": {"content": "whole"}, "finish_reason": "stop"}]}
    assert read(event)[0].message.text == "whole"


@pytest.mark.parametrize("last", [{"delta": {}}, {"delta": None}, {}])
def test_a_whole_message_behind_its_pieces_is_not_said_twice(last: dict[str, Any]) -> None:
    message = {"role": "assistant", "content": "hi", "tool_calls": [{"id": "call_123456789", "function": {}}]}
    choice = {"index": 0, **last, "message": message, "finish_reason": "stop"}
    response, heard = read(delta(content="h"), delta(content="i"), {"choices": [choice]})
    assert response.message.text == "hi"
    assert not response.message.tool_calls
    assert "".join(one.text for one in heard) == "hi"
    response, _ = read({"choices": [{**choice, "message": {"content": "hi"}}]})
    assert response.message.text == "hi"


@pytest.mark.parametrize(
    ("pieces", "told"),
    [
        (("a\ud83d", "\ude00b"), ["a", "😀b"]),
        (("\ud83d", "\ude00"), ["😀"]),
        (("\ud83d", "x", "\ude00"), ["\ufffdx", "\ufffd"]),
        (("\ud83d", "\ud83d", "\ude00"), ["\ufffd", "😀"]),
        (("x\ud83d",), ["x", "\ufffd"]),
    ],
)
def test_what_is_told_of_a_character_in_halves_is_what_is_kept(pieces: tuple[str, ...], told: list[str]) -> None:
    response, heard = read(*[delta(content=piece) for piece in pieces], delta("stop"))
    assert [one.text for one in heard] == told
    assert response.message.text == "".join(told)
    response, heard = read(call(name="f", index=0), *[call(piece, index=0) for piece in pieces], delta("tool_calls"))
    assert [one.text for one in heard] == ["", *told]
    assert response.message.tool_calls[0].arguments == "".join(told)


@given(st.lists(st.text(st.sampled_from("a\0\ud83d\ude00é😀"), min_size=1, max_size=3), max_size=6))
def test_the_pieces_that_are_told_are_together_the_text_that_is_kept(pieces: list[str]) -> None:
    response, heard = read(*[delta(content=piece) for piece in pieces], delta("stop"))
    assert "".join(one.text for one in heard) == response.message.text
    assert all(one.text.encode() for one in heard)


def test_text_that_no_database_takes_is_cleaned_and_halves_of_a_character_meet() -> None:
    response, heard = read(
        *(json.dumps(delta(content=text)) for text in ("a\0", "\ud83d", "\ude00")),
        delta("stop"),
    )
    assert response.message.text == "a\ufffd😀"
    "".join(one.text for one in heard).encode()


def test_more_parts_than_any_reply_has_are_a_fault() -> None:
    with pytest.raises(ProviderFault, match="parts"):
        read(*(call("{}", name="f", index=n) for n in range(5000)))


def test_a_hundred_thousand_tiny_pieces_are_one_text() -> None:
    pieces = [call(name="f", index=0, id="call_aaaaaaaaa"), *(call("x", index=0) for _ in range(100_000))]
    assert len(calls_of(*pieces)[0][1]) == 100_000


DELTAS = st.fixed_dictionaries(
    {},
    optional={
        "content": st.none() | st.text(max_size=3) | st.integers(),
        "reasoning": st.none() | st.text(max_size=3),
        "refusal": st.none() | st.text(max_size=3),
        "tool_calls": st.none()
        | st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "index": st.none() | st.integers(-1, 2) | st.text(max_size=1),
                    "id": st.none() | st.sampled_from(["", "a", "call_aaaaaaaaa"]) | st.integers(),
                    "function": st.none()
                    | st.fixed_dictionaries(
                        {},
                        optional={
                            "name": st.none() | st.sampled_from(["", "f", "g"]) | st.integers(),
                            "arguments": st.none() | st.sampled_from(["", "{", "}", "{}"]) | st.integers(),
                        },
                    ),
                },
            )
            | st.integers(),
            max_size=2,
        ),
    },
)


@given(st.lists(DELTAS, max_size=6), st.sampled_from(["stop", "length", "x", None]))
def test_whatever_comes_is_a_reply_or_a_fault(deltas: list[dict[str, Any]], word: str | None) -> None:
    try:
        response, heard = read(*(delta(**fields) for fields in deltas), delta(word))
    except ProviderFault:
        return
    assert word is not None
    ids = [part.id for part in response.message.tool_calls]
    assert len(set(ids)) == len(ids)
    said = "".join(one.text for one in heard if one.kind.value == "text")
    assert sorted(said) == sorted(
        "".join(p.text for p in response.message.parts if isinstance(p, (TextPart, RefusalPart)))
    )
