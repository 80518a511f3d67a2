"""The template of text deltas: what it reads is what a JSON parser reads, and what it does not know it leaves alone."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from power_loop.runtime.llm.template import TextTemplate


def chunk(text: str, **more: Any) -> dict[str, Any]:
    return {"id": "c1", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}], **more}


def put(event: Any, text: str) -> None:
    event["choices"][0]["delta"]["content"] = text


def taught(event: dict[str, Any], **layout: Any) -> TextTemplate:
    template = TextTemplate("content")
    data = json.dumps(event, **layout)
    template.learn(data, json.loads(data), put)
    return template


TEXTS = st.text(st.characters(codec=None), max_size=20)


@given(TEXTS, TEXTS, st.booleans(), st.sampled_from([None, (",", ":")]))
def test_the_text_of_a_known_form_is_read_as_the_parser_reads_it(
    first: str, second: str, ascii_only: bool, separators: tuple[str, str] | None
) -> None:
    template = taught(chunk(first or "x"), ensure_ascii=ascii_only, separators=separators)
    data = json.dumps(chunk(second), ensure_ascii=ascii_only, separators=separators)
    assert template.read(data) == second


@given(
    st.sampled_from(
        [
            chunk("a", id="c2"),
            chunk("a", usage={"prompt_tokens": 1}),
            {"id": "c1", "choices": []},
            {"id": "c1", "choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}]},
            {"id": "c1", "choices": [{"index": 0, "delta": {"content": ["a"]}, "finish_reason": None}]},
            {"id": "c1", "choices": [{"index": 0, "delta": {"content": 'a","x":"y'}, "finish_reason": None}, 1]},
        ]
    )
)
def test_an_event_that_differs_elsewhere_is_left_to_the_parser(event: dict[str, Any]) -> None:
    assert taught(chunk("x")).read(json.dumps(event)) is None


def test_a_cut_or_spoiled_event_is_left_to_the_parser() -> None:
    data = json.dumps(chunk("hello"))
    template = taught(chunk("x"))
    assert template.read(data) == "hello"
    for end in range(len(data)):
        assert template.read(data[:end]) is None
    assert template.read(data.replace("hello", 'he"llo')) is None
    assert template.read(data.replace("hello", "he\nllo")) is None
    assert template.read(data.replace("hello", "\\")) is None


def test_a_key_that_stands_elsewhere_first_is_not_taken_for_the_text() -> None:
    event = {"note": {"content": "fixed"}, **chunk("x")}
    assert taught(event).read(json.dumps(event)) is None


def test_streams_whose_events_all_differ_are_given_up_on() -> None:
    template = TextTemplate("content")
    for number in range(10):
        data = json.dumps(chunk("x", pad=number))
        template.learn(data, json.loads(data), put)
    assert template.read(json.dumps(chunk("y", pad=9))) is None
    assert template.read(json.dumps(chunk("y", pad=3))) == "y"
