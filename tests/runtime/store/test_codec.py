"""The codec: what goes in comes out, to the character; what is damaged is named and never half read."""

from __future__ import annotations

import json
import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from power_loop.contracts.errors import InputError, StoreCorruptError
from power_loop.contracts.messages import (
    AudioPart,
    FilePart,
    ImagePart,
    Message,
    OpaquePart,
    Origin,
    ReasoningPart,
    RefusalPart,
    Role,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from power_loop.contracts.states import CallState
from power_loop.runtime.store.codec import (
    decode_choice,
    decode_content,
    decode_json,
    decode_message,
    encode_content,
    encode_json,
    encode_message,
    is_same_json,
    member_text,
)

# Every character there is, those that databases refuse included.
_TEXT = st.text(alphabet=st.characters(exclude_categories=()), max_size=30) | st.sampled_from(
    ["", "\0", "\ud800", "\udc00\ud800", "😀", "\u2028", '"\\/', "\x7f\x1f", '{"type":"text"}', "é" * 100]
)
_MAYBE = st.none() | _TEXT
_CONTENT = st.one_of(
    st.builds(TextPart, _TEXT),
    st.builds(ImagePart, _TEXT, _MAYBE, _MAYBE, _MAYBE),
    st.builds(FilePart, _TEXT, _MAYBE, _MAYBE, _MAYBE, _MAYBE),
    st.builds(AudioPart, _TEXT, _TEXT),
)
_CONTENTS = st.lists(_CONTENT, max_size=4).map(tuple)
_PART = st.one_of(
    _CONTENT,
    st.builds(ReasoningPart, _TEXT, _MAYBE, _MAYBE),
    st.builds(ToolCallPart, _TEXT, _TEXT, _TEXT),
    st.builds(ToolResultPart, _TEXT, _CONTENTS, st.booleans()),
    st.builds(RefusalPart, _TEXT),
    st.builds(OpaquePart, _TEXT),
)
_MESSAGE = st.builds(
    Message, st.sampled_from(Role), st.lists(_PART, max_size=5).map(tuple), st.none() | st.builds(Origin, _TEXT, _TEXT)
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=12,
)


def _through_sqlite(text: str) -> str:
    with sqlite3.connect(":memory:") as connection:
        [(back,)] = connection.execute("SELECT ?", (text,)).fetchall()
    connection.close()
    assert isinstance(back, str)
    return back


@given(_MESSAGE)
def test_a_message_comes_back_as_it_was(message: Message) -> None:
    body = _through_sqlite(encode_message(message))
    assert decode_message(message.role.value, body, "message 1") == message
    # Other tools can read it: it is plain JSON.
    assert {part["type"] for part in json.loads(body)["parts"]} <= {
        "text", "image", "file", "audio", "reasoning", "tool_call", "tool_result", "refusal", "opaque",
    }  # fmt: skip


@given(_CONTENTS)
def test_content_comes_back_as_it_was(content: tuple[TextPart, ...]) -> None:
    assert decode_content(_through_sqlite(encode_content(content)), "result") == content


@given(st.dictionaries(_TEXT, _JSON, max_size=4))
def test_json_comes_back_as_it_was(value: dict[str, object]) -> None:
    text = _through_sqlite(encode_json(value, "metadata"))
    assert decode_json(text, "metadata") == value
    assert "\0" not in text


@given(st.dictionaries(_TEXT, _TEXT, max_size=4), st.sampled_from(["", "a", "n", "x y"]), _TEXT)
def test_a_member_is_found_in_the_text_of_every_mapping_that_has_it(
    value: dict[str, str], key: str, member: str
) -> None:
    value[key] = member
    found = member_text(key, member)
    assert found is None or found in encode_json(value, "metadata")


def test_raw_blocks_of_a_provider_are_kept_to_the_byte() -> None:
    raw = '{ "signature" : "a\\u00e9\\/é==" ,\n "n":1.0, "n":1e400}'
    message = Message(Role.ASSISTANT, (ReasoningPart("…", raw=raw), OpaquePart(raw)))
    back = decode_message("assistant", encode_message(message), "message 1")
    assert [part.raw for part in back.parts] == [raw, raw]  # type: ignore[union-attr]


def test_a_chinese_text_takes_three_bytes_a_character_and_not_six() -> None:
    assert len(encode_message(Message(Role.USER, (TextPart("中" * 1000),))).encode()) < 3100


def test_text_with_a_lone_surrogate_in_one_part_leaves_the_others_readable() -> None:
    message = Message(Role.ASSISTANT, (OpaquePart("\ud800"), TextPart("中")))
    body = encode_message(message)
    body.encode()
    assert "中" in body
    assert decode_message("assistant", body, "m") == message


@pytest.mark.parametrize(
    "body",
    [
        "",
        "null",
        "[]",
        "7",
        '"text"',
        "{}",
        '{"parts":null}',
        '{"parts":{}',
        '{"parts":[7]}',
        '{"parts":[{}]}',
        '{"parts":[{"type":"video"}]}',
        '{"parts":[{"type":["text"]}]}',
        '{"parts":[{"type":"text"}]}',
        '{"parts":[{"type":"text","text":7}]}',
        '{"parts":[{"type":"image","media_type":"a","data":7}]}',
        '{"parts":[{"type":"opaque","raw":{}}]}',
        '{"parts":[{"type":"tool_call","id":1,"name":"a","arguments":"{}"}]}',
        '{"parts":[{"type":"tool_result","call_id":"c","content":[{"type":"refusal","text":""}]}]}',
        '{"parts":[{"type":"tool_result","call_id":"c","content":7}]}',
        '{"parts":[],"origin":"openai"}',
        '{"parts":[],"origin":{"wire":"openai"}}',
        '{"parts":[]} x',
        '{"parts":[' * 3000,
        '{"parts":[{"type":"text","text":"cut',
        '{"parts":' + "9" * 5000 + "}",
    ],
)
def test_a_damaged_row_is_named(body: str) -> None:
    with pytest.raises(StoreCorruptError) as caught:
        decode_message("assistant", body, "message 7 of session 'sess_1'")
    assert caught.value.code == "store.corrupt"
    assert str(caught.value).startswith("message 7 of session 'sess_1' is damaged")


def test_an_unknown_role_or_state_is_named() -> None:
    with pytest.raises(StoreCorruptError):
        decode_message("system", '{"parts":[]}', "message 7")
    with pytest.raises(StoreCorruptError) as caught:
        decode_choice(CallState, "cooking", "call 'c1'")
    assert "call 'c1' is damaged: 'cooking'" in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"a":}', '{"a":1}{', "[" * 100_000])
def test_damaged_json_is_named(text: str) -> None:
    with pytest.raises(StoreCorruptError) as caught:
        decode_json(text, "options of send 1")
    assert "options of send 1 is damaged" in str(caught.value)


def test_what_is_no_json_is_refused_before_it_is_stored() -> None:
    deep: dict[str, object] = {}
    for _ in range(100_000):
        deep = {"d": deep}
    for bad in ({"a": {1, 2}}, {"a": float("nan")}, {("a",): 1}, deep):
        with pytest.raises(InputError) as caught:
            encode_json(bad, "metadata")  # type: ignore[arg-type]
        assert str(caught.value).startswith("metadata cannot be stored as JSON")


def test_values_are_compared_as_json() -> None:
    assert is_same_json({"a": 1, "b": [None]}, {"b": [None], "a": 1})
    assert not is_same_json(1, True)
    assert not is_same_json(1, 1.0)
    assert not is_same_json(0, False)
    assert not is_same_json([1, 2], [2, 1])
    assert is_same_json("é", "\u00e9")
