"""JSON text from a model: read as `json` reads it, or refused with the place of the trouble."""

from __future__ import annotations

import json
import re
from math import inf
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from power_loop.contracts.json_schema import InvalidJson, loads_strict
from power_loop.contracts.json_schema.text import MAX_JSON_CHARS, MAX_NUMBER_CHARS
from power_loop.contracts.json_schema.values import MAX_DEPTH

_any_json = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(st.characters(), max_size=20),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=6), inner, max_size=4)),
    max_leaves=12,
)


@given(_any_json, st.booleans(), st.sampled_from((None, 2)))
def test_every_json_value_is_read_back(value: Any, is_ascii: bool, indent: int | None) -> None:
    text = json.dumps(value, ensure_ascii=is_ascii, indent=indent)
    assert loads_strict(text) == value
    if is_ascii:
        assert loads_strict(text.encode()) == value


_PIECES = (
    *('{"a":', '"b"', ",", "}", "[", "]", "1", "-", ".5", "e9", "1e999", "NaN", "-Infinity", "null", "true", " ", "\n"),
    *('"a"', ":", "{", '"', "\\", "\\u", "d800", "9" * 401, "\ufeff", "\0", "'", "//"),
)


@settings(max_examples=600)
@given(st.lists(st.sampled_from(_PIECES), max_size=14).map("".join))
def test_any_text_is_read_as_json_reads_it_or_refused_at_a_place(text: str) -> None:
    refused: InvalidJson | None = None
    try:
        assert loads_strict(text) == json.loads(text)
    except InvalidJson as error:
        refused = error
    if refused is not None:
        assert 0 <= refused.position <= len(text)
        assert re.search(r"line \d+, column \d+", str(refused))
        # What Python reads and prudence forbids.
        is_prudence = re.search("repeated|is not JSON|too large for a number|too long", str(refused))
        assert is_prudence or not _is_json(text)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(
    ("text", "position", "reason"),
    [
        ('{"n": NaN}', 6, "NaN is not JSON"),
        ("[1, -Infinity]", 4, "-Infinity is not JSON"),
        ('{"text": "NaN", "n": 1e999}', 21, "1e999 is too large"),
        ('{"cmd": "ls", "cmd": "rm -rf /"}', 14, 'the name "cmd" is repeated'),
        ('{"a": {"x": 1, "\\u0078": 2}}', 15, 'the name "x" is repeated'),
        ("[" + "1" * (MAX_NUMBER_CHARS + 1) + "]", 1, "is too long"),
        ('{"a": 1 2}', 8, "at line 1, column 9"),
        ('{"a": 1', 7, "at line 1, column 8"),
        ("{'a': 1}", 1, "at line 1, column 2"),
        ('{"a": 1} {"b": 2}', 9, "extra data"),
        ("", 0, "at line 1, column 1"),
        ("[1,\n 2,\n x]", 9, "at line 3, column 2"),
        ("[" * 100_000, MAX_DEPTH, "nested deeper than"),
        ('{"a":' * 100_000, 5 * MAX_DEPTH, "nested deeper than"),
    ],
)
def test_what_is_refused_is_refused_with_its_place_and_reason(text: str, position: int, reason: str) -> None:
    with pytest.raises(InvalidJson) as caught:
        loads_strict(text)
    assert reason in str(caught.value)
    assert caught.value.position == position
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("text", ["[" * MAX_DEPTH + "]" * MAX_DEPTH, '"' + "[" * 1_000 + '"', '["\\"[[", "]{{{"]' * 1])
def test_brackets_count_where_they_nest_only(text: str) -> None:
    assert loads_strict(text) == json.loads(text)


def test_many_brackets_beside_each_other_are_no_depth() -> None:
    text = "[" + ",".join(['{"a": ["[[["]}'] * 1_000) + "]"
    assert len(loads_strict(text)) == 1_000


def test_a_text_that_is_too_long_is_refused_before_it_is_read() -> None:
    with pytest.raises(InvalidJson, match="at most 10 are accepted"):
        loads_strict('"0123456789"', max_chars=10)
    with pytest.raises(InvalidJson, match="longer than 10"):
        loads_strict(b'"' + b"x" * 60 + b'"', max_chars=10)
    assert MAX_JSON_CHARS >= 1_000_000


def test_bytes_have_to_be_utf_8() -> None:
    with pytest.raises(InvalidJson, match="UTF-8 at byte 1") as caught:
        loads_strict(b'"\xff"')
    assert caught.value.position == 1


def test_lone_surrogates_are_kept_for_the_message_to_clean() -> None:
    assert loads_strict('"\\ud800"') == "\ud800"


def test_finite_numbers_keep_their_python_kind() -> None:
    assert [type(one) for one in loads_strict("[1, 1.0, 1e3, 1E-400]")] == [int, float, float, float]
    assert loads_strict("1e308") < inf
