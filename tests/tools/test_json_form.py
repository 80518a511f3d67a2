"""Any Python value has one JSON form, or a reason why it has none."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json
import pathlib
import types
import uuid
from collections import OrderedDict, UserDict
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from power_loop.tools.json_form import MAX_VALUES, NoJsonForm, json_form


class Mode(str, enum.Enum):
    FAST = "fast"


class Size(enum.IntEnum):
    BIG = 3


class Shape(enum.Enum):
    BOX = (1, 2)


class Text(str):
    def __str__(self) -> str:
        return "something else"


class Pair(NamedTuple):
    left: int
    right: Any = None


@dataclasses.dataclass
class Node:
    name: str
    next: Node | None = None


_plain = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=4), inner, max_size=4)),
    max_leaves=10,
)


@given(_plain)
def test_plain_json_is_its_own_form(value: Any) -> None:
    form = json_form(value)
    assert form == value
    assert json.loads(json.dumps(form, allow_nan=False)) == value


@pytest.mark.parametrize(
    ("value", "form"),
    [
        ((1, [2, (3,)]), [1, [2, [3]]]),
        ({1: "a", None: "b", 1.5: "c", Mode.FAST: "d"}, {"1": "a", "null": "b", "1.5": "c", "fast": "d"}),
        ({True: "a", (1, 2): "b"}, {"true": "a", "[1, 2]": "b"}),
        ([float("nan"), float("inf"), float("-inf")], ["NaN", "Infinity", "-Infinity"]),
        ({3, 1, 2}, [1, 2, 3]),
        (frozenset({"b", "a"}), ["a", "b"]),
        ({"a", None, 2.5}, [None, 2.5, "a"]),
        ([Mode.FAST, Size.BIG, Shape.BOX], ["fast", 3, [1, 2]]),
        (Text("text"), "text"),
        (Node("a", Node("b")), {"name": "a", "next": {"name": "b", "next": None}}),
        (Pair(1, Pair(2)), {"left": 1, "right": {"left": 2, "right": None}}),
        (datetime.datetime(2031, 5, 17, 14, 30, tzinfo=datetime.timezone.utc), "2031-05-17T14:30:00+00:00"),
        ([datetime.date(2031, 5, 17), datetime.time(14, 30)], ["2031-05-17", "14:30:00"]),
        (datetime.timedelta(days=1, hours=2), "1 day, 2:00:00"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        ([pathlib.PurePosixPath("/a/b"), decimal.Decimal("1.10")], ["/a/b", "1.10"]),
        ([b"text", bytearray("ä".encode())], ["text", "ä"]),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (UserDict(a=1), {"a": 1}),
        (types.MappingProxyType({"a": 1}), {"a": 1}),
        ({}.keys(), []),
        (10**4_000, 10**4_000),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_richer_values_become_the_json_that_means_them(value: Any, form: Any) -> None:
    assert json_form(value) == form
    json.dumps(json_form(value), allow_nan=False)


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


_CYCLE: dict[str, Any] = {}
_CYCLE["self"] = _CYCLE


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (object(), "type 'object' has no JSON form"),
        ({"a": [1, object()]}, r"type 'object' at \$.a\[1\] has no"),
        ({"a": {("k", len): 1}}, r"at \$.a\[1\] has no JSON form"),
        ((number for number in [1]), "type 'generator'"),
        (Node, "type 'type'"),
        (3j, "type 'complex'"),
        (b"\xff\xfe", "the 2 bytes are no UTF-8 text"),
        ({"raw": b"\xff"}, r"the 1 bytes at \$.raw"),
        ({1: "a", "1": "b"}, "two keys of the object are both '1'"),
        ([10**5_000], r"the integer at \$\[0\] has more than 4,200 digits"),
        (_nested(101), "nested deeper than 100 levels"),
        (_nested(100_000), "nested deeper than 100 levels"),
        (_CYCLE, "or contains itself"),
        ([0] * MAX_VALUES, "more than 1,000,000 values"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_has_no_json_form_says_why_and_where(value: Any, reason: str) -> None:
    with pytest.raises(NoJsonForm, match=reason):
        json_form(value)


def test_the_depth_that_is_read_is_the_depth_that_is_written() -> None:
    assert json_form(_nested(100)) == _nested(100)
