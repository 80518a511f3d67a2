"""What is told of a value that does not fit: every problem at once, with its place and what was expected."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from power_loop.contracts.json_schema import Problem, SchemaError, compile_schema
from power_loop.contracts.json_schema.check import MAX_MESSAGE_CHARS, MAX_PROBLEMS
from power_loop.contracts.json_schema.problems import path_text
from tests.contracts.json_schema.schemas import schemas, values

_KEYWORDS = {
    *("type", "enum", "const", "minLength", "maxLength", "pattern", "minimum", "maximum", "exclusiveMinimum"),
    *("exclusiveMaximum", "multipleOf", "items", "contains", "maxContains", "minItems", "maxItems", "uniqueItems"),
    *("required", "additionalProperties", "propertyNames", "minProperties", "maxProperties", "dependentRequired"),
    *("anyOf", "oneOf", "not", "false"),
}
# Each sentence says what has to be so, or what cannot be.
_EXPECTATION = re.compile(
    r"must |the property .* is (not allowed; allowed: |required because )|the required property .* is missing"
    r"|this name is not allowed for a property: |nothing is allowed here|matches none of the \d+ alternatives: "
)


def _places(value: Any, steps: tuple[str | int, ...] = ()) -> Iterator[str]:
    yield path_text(steps)
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, item in inner:
        yield from _places(item, (*steps, step))


@settings(max_examples=150)
@given(schemas(), st.lists(values, min_size=4, max_size=8))
def test_every_problem_has_a_place_in_the_value_and_says_what_was_expected(schema: Any, drawn: list[Any]) -> None:
    try:
        validator = compile_schema(schema)
    except SchemaError:
        return
    for value in drawn:
        problems = validator.problems(value)
        places = set(_places(value))
        for problem in problems:
            assert problem.path in places
            assert problem.keyword in _KEYWORDS
            assert _EXPECTATION.match(problem.message), problem.message
            assert not problem.message.endswith(".")
            assert len(problem.message) <= MAX_MESSAGE_CHARS
        assert len(problems) <= MAX_PROBLEMS
        assert validator.problems(value) == problems


@given(st.dictionaries(st.text(max_size=12), st.booleans(), min_size=1, max_size=MAX_PROBLEMS))
def test_all_problems_come_at_once(flags: dict[str, bool]) -> None:
    schema = {"type": "object", "properties": {name: {"type": "integer"} for name in flags}, "required": list(flags)}
    value = {name: "text" for name, is_given in flags.items() if is_given}
    problems = compile_schema(schema).problems(value)
    assert {problem.path for problem in problems if problem.keyword == "type"} == {path_text((name,)) for name in value}
    assert sum(problem.keyword == "required" for problem in problems) == len(flags) - len(value)
    assert len(problems) == len(flags)


def test_the_number_of_problems_is_bounded() -> None:
    problems = compile_schema({"items": {"type": "string"}}).problems([0] * 1_000)
    assert len(problems) == MAX_PROBLEMS
    assert [problem.path for problem in problems[:2]] == ["$[0]", "$[1]"]


def test_the_problems_of_a_call_read_well() -> None:
    schema = {
        "type": "object",
        "properties": {
            "path": {"type": "string", "minLength": 1},
            "lines": {"type": "array", "items": {"type": "integer", "minimum": 1}},
            "mode": {"enum": ["read", "write"]},
            "odd name": {"type": ["integer", "null"]},
        },
        "required": ["path", "mode"],
        "additionalProperties": False,
    }
    problems = compile_schema(schema).problems({"path": "", "lines": [3, 0, "7"], "odd name": True, "pth": 1})
    assert problems == (
        Problem("$", 'the required property "mode" is missing', "required"),
        Problem("$.path", "must have at least 1 character, has 0", "minLength"),
        Problem("$.lines[1]", "must be at least 1, got the number 0", "minimum"),
        Problem("$.lines[2]", 'must be an integer, got the string "7"', "type"),
        Problem("$['odd name']", "must be an integer or null, got the boolean true", "type"),
        Problem(
            "$.pth",
            'the property "pth" is not allowed; allowed: "path", "lines", "mode", "odd name"',
            "additionalProperties",
        ),
    )


def test_a_tagged_alternative_is_explained_through_its_own_tag() -> None:
    shapes = {
        "anyOf": [
            {"type": "object", "properties": {"kind": {"const": "circle"}, "r": {"type": "number"}}, "required": ["r"]},
            {"type": "object", "properties": {"kind": {"const": "box"}, "w": {"type": "number"}}, "required": ["w"]},
        ]
    }
    [problem] = compile_schema(shapes).problems({"kind": "box", "w": "wide"})
    assert (problem.path, problem.keyword) == ("$.w", "type")


def test_alternatives_that_are_all_ruled_out_by_their_type_are_named() -> None:
    [problem] = compile_schema({"anyOf": [{"type": "string"}, {"type": "null"}]}).problems(3)
    assert problem.message == "must be a string or null, got the number 3"


def test_each_alternative_gives_its_reason_when_none_stands_out() -> None:
    schema = {"anyOf": [{"type": "string", "minLength": 3}, {"type": "string", "pattern": "^x"}]}
    [problem] = compile_schema(schema).problems("ab")
    assert problem.message == (
        "matches none of the 2 alternatives: (1) must have at least 3 characters, has 2;"
        ' (2) must match the pattern "^x", got the string "ab"'
    )


@pytest.mark.parametrize(
    "value",
    ["x" * 10_000, "\ud800\0" * 50, {"k" * 5_000: 1}, [["y" * 3_000]], 10**5_000],
    ids=["long text", "no text", "long name", "deep text", "long number"],
)
def test_hostile_values_are_shown_shortened_and_printable(value: Any) -> None:
    schema = {"anyOf": [{"const": "a"}, {"type": "object", "additionalProperties": False}, {"items": {"enum": ["b"]}}]}
    for problem in compile_schema(schema).problems(value):
        assert len(problem.message) <= MAX_MESSAGE_CHARS
        assert len(problem.path) < 200
        problem.message.encode()
        problem.path.encode()


def test_a_value_that_is_no_json_is_a_problem_and_no_crash() -> None:
    [problem] = compile_schema({"properties": {"a": {"type": "string"}}}).problems({"a": {1, 2}})
    assert problem.message == "must be a string, got a Python set, which is not JSON"
