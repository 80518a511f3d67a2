"""Whatever a handler returns becomes content that every model and every store takes."""

from __future__ import annotations

import json
from collections import UserDict
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from power_loop.contracts.messages import AudioPart, FilePart, ImagePart, TextPart
from power_loop.contracts.states import WaitKind
from power_loop.contracts.tools import ToolResult, Waiting
from power_loop.tools.output import MAX_OUTPUT_CHARS, NO_OUTPUT, Output, error_output, output_of

_IMAGE = ImagePart.from_bytes(b"png")


@dataclass
class Weather:
    city: str
    degrees: float


def _text(returned: Any) -> str:
    output = output_of(returned)
    assert isinstance(output, Output)
    [part] = output.content
    assert isinstance(part, TextPart)
    assert not output.is_error
    return part.text


@pytest.mark.parametrize(
    ("returned", "text"),
    [
        ("plain text", "plain text"),
        (3, "3"),
        (2.5, "2.5"),
        (True, "true"),
        (float("nan"), "NaN"),
        ({"a": [1, None], "ä": "☃"}, '{"a": [1, null], "ä": "☃"}'),
        (["a", "b"], '["a", "b"]'),
        ((), "[]"),
        ({}, "{}"),
        (Weather("Rome", 30.5), '{"city": "Rome", "degrees": 30.5}'),
        (b"bytes", "bytes"),
        ("\ud800 and \0", "\ufffd and \ufffd"),
        ({"k\0": "\ud83d"}, '{"k\\u0000": "\ufffd"}'),
        ("  leading stays\n", "  leading stays\n"),
    ],
)
def test_text_and_json_become_one_text(returned: Any, text: str) -> None:
    assert _text(returned) == text


@pytest.mark.parametrize("returned", [None, "", " \n", TextPart(""), [TextPart(" ")], ToolResult(""), ToolResult(())])
def test_nothing_is_said_to_be_nothing(returned: Any) -> None:
    output = output_of(returned)
    assert output == Output((TextPart(NO_OUTPUT),))


@pytest.mark.parametrize(
    ("returned", "content"),
    [
        (_IMAGE, (_IMAGE,)),
        ([TextPart("look:"), _IMAGE], (TextPart("look:"), _IMAGE)),
        (("look:", _IMAGE, "", {"w": 3}), (TextPart("look:"), _IMAGE, TextPart('{"w": 3}'))),
        ([FilePart(file_id="f"), AudioPart("eA==")], (FilePart(file_id="f"), AudioPart("eA=="))),
        (ToolResult((_IMAGE, TextPart("done"))), (_IMAGE, TextPart("done"))),
        (ToolResult("done"), (TextPart("done"),)),
    ],
)
def test_content_parts_stay_content_parts(returned: Any, content: tuple[Any, ...]) -> None:
    assert output_of(returned) == Output(content)


def test_an_error_result_is_an_error() -> None:
    assert output_of(ToolResult("no such file", is_error=True)) == Output((TextPart("no such file"),), is_error=True)
    assert error_output("boom") == Output((TextPart("boom"),), is_error=True)
    assert error_output("") == Output((TextPart(NO_OUTPUT),), is_error=True)


def test_waiting_stays_waiting() -> None:
    waiting = Waiting("Which one?", WaitKind.INPUT)
    assert output_of(waiting) is waiting


def test_a_result_of_a_list_is_that_of_a_tuple() -> None:
    assert ToolResult([_IMAGE, TextPart("done")]) == ToolResult((_IMAGE, TextPart("done")))


@pytest.mark.parametrize("returned", [object(), {"a": {1j}}, [_IMAGE, object()], ToolResult(object()), b"\xff"])  # type: ignore[arg-type]
def test_what_cannot_be_shown_is_an_error_that_says_so(returned: Any) -> None:
    output = output_of(returned)
    assert isinstance(output, Output)
    assert output.is_error
    [part] = output.content
    assert isinstance(part, TextPart)
    assert part.text.startswith("the tool ran, but what it returned cannot be shown: ")


def test_an_object_that_raises_when_it_is_read_is_an_error_too() -> None:
    class Lazy(UserDict[str, int]):
        def items(self) -> Any:
            raise OSError("the connection is gone")

    output = output_of(Lazy())
    assert isinstance(output, Output)
    assert output.is_error
    assert "reading it raised OSError: the connection is gone" in output.content[0].text  # type: ignore[union-attr]


def test_a_text_beyond_all_measure_keeps_its_ends() -> None:
    text = _text("a" * MAX_OUTPUT_CHARS + "z")
    assert len(text) <= MAX_OUTPUT_CHARS
    assert (text[0], text[-1]) == ("a", "z")
    assert "of 10,000,001 characters were too many to be kept" in text
    assert _text(TextPart("b" * (MAX_OUTPUT_CHARS + 1))).count("were too many to be kept") == 1
    whole = TextPart("c" * MAX_OUTPUT_CHARS)
    assert output_of(whole) == Output((whole,))


_returned = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters()), st.binary(), st.just(_IMAGE)
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(st.one_of(st.text(st.characters(), max_size=3), st.integers(), st.none()), inner, max_size=3),
    ),
    max_leaves=8,
)


@given(_returned)
def test_every_return_gives_content_that_utf_8_holds(returned: Any) -> None:
    output = output_of(returned)
    assert isinstance(output, Output)
    assert output.content
    for part in output.content:
        if isinstance(part, TextPart):
            assert part.text.strip()
            assert "\0" not in part.text
            part.text.encode()


@given(st.recursive(st.integers(), lambda inner: st.dictionaries(st.text("ab"), inner, min_size=1, max_size=3)))
def test_json_is_read_back_by_whoever_gets_it(value: Any) -> None:
    assert json.loads(_text(value)) == value


@pytest.mark.parametrize(
    "returned",
    [
        ImagePart(data="%%%not base64%%%"),
        ["look:", ImagePart(data="aGk=", media_type="image/bmp")],
        ToolResult((TextPart("look:"), ImagePart())),
        FilePart(url="ftp://x"),
        AudioPart(""),
    ],
)
def test_a_part_that_no_provider_takes_is_told_to_the_model_as_an_error(returned: Any) -> None:
    output = output_of(returned)
    assert isinstance(output, Output)
    assert output.is_error
    [part] = output.content
    assert isinstance(part, TextPart)
    assert "Part" in part.text or "media type" in part.text
