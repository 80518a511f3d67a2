"""Conditions are data that is compared: nothing is evaluated, nothing is raised."""

from __future__ import annotations

from typing import Any

import pytest

from power_loop.workflow.build import condition_of
from power_loop.workflow.conditions import BINARY, UNARY, holds
from tests.workflow.test_refs import Names

VALUES: list[Any] = [None, True, False, 0, 1, 1.0, "", "a", "ab", [], [1], {}, {"a": 1}, [[1], "a"]]


@pytest.mark.parametrize(
    ("value", "op", "other", "expected"),
    [
        (1, "eq", 1.0, True),
        (1, "eq", True, False),
        ([1, {"a": None}], "eq", [1.0, {"a": None}], True),
        ([True], "eq", [1], False),
        (None, "eq", None, True),
        ("1", "ne", 1, True),
        (2, "gt", 1, True),
        ("b", "gt", "a", True),
        ("b", "gt", 1, False),
        (None, "lt", 1, False),
        (True, "ge", 0, False),
        ("a", "in", ["a", "b"], True),
        (True, "in", [1], False),
        ("a", "not_in", None, True),
        (["x", 2], "contains", 2, True),
        ("tea", "contains", "e", True),
        ({"k": 1}, "contains", "k", True),
        (3, "contains", 3, False),
        ("tea", "starts_with", "t", True),
        ("tea", "ends_with", 1, False),
        ("tea", "eq", "{{same}}", True),
        ("tea", "in", ["{{same}}"], True),
    ],
)
def test_a_value_is_compared_as_json(value: Any, op: str, other: Any, expected: bool) -> None:
    condition = condition_of({"ref": "x.y", "op": op, "value": other})
    assert holds(condition, Names(x={"y": value}, same="tea")) is expected


@pytest.mark.parametrize(
    ("op", "true_of"),
    [
        ("exists", [value for value in VALUES if value is not None]),
        ("missing", [None]),
        ("is_true", [True]),
        ("is_false", [False]),
        ("is_empty", [None, "", [], {}]),
    ],
)
def test_a_test_needs_no_value(op: str, true_of: list[Any]) -> None:
    condition = condition_of({"ref": "x", "op": op})
    held = [value for value in VALUES if holds(condition, Names(x=value))]
    assert [repr(value) for value in held] == [repr(value) for value in true_of]


def test_conditions_combine() -> None:
    names = Names(x=1)
    one, two = {"ref": "x", "op": "eq", "value": 1}, {"ref": "x", "op": "eq", "value": 2}
    for data, expected in [
        ({"all": [one, two]}, False),
        ({"all": []}, True),
        ({"any": [two, one]}, True),
        ({"any": []}, False),
        ({"not": two}, True),
        ({"not": {"all": [one, {"not": {"any": [two]}}]}}, False),
    ]:
        assert holds(condition_of(data), names) is expected


def test_no_operator_raises_whatever_it_is_given() -> None:
    for value in VALUES:
        for test in UNARY.values():
            assert test(value) in (True, False)
        for other in VALUES:
            for compare in BINARY.values():
                assert compare(value, other) in (True, False)


def test_what_a_value_lacks_is_null() -> None:
    assert holds(condition_of({"ref": "x.y.z", "op": "missing"}), Names(x={"a": 1}))
    assert holds(condition_of({"ref": "x", "op": "eq", "value": "{{x.nothing}}"}), Names(x=None))
