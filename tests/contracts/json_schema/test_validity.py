"""What is valid, against `jsonschema` as the oracle, and the differences that are wanted.

They agree on every keyword that `json_schema` checks. Wanted differences, each with its own test below: numbers are
divided as they are written in decimal; `$` in a pattern is the end of the text and `\\d` is ASCII, as in ECMA-262; the
draft-7 form of `items` is read; references to other documents and cycles are refused when the schema is compiled; what
is too large or too deep to check is not valid.
"""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from power_loop.contracts.json_schema import SchemaError, compile_schema
from tests.contracts.json_schema.schemas import schemas, values


@settings(max_examples=400)
@given(schemas(), st.lists(values, min_size=1, max_size=6))
def test_a_value_is_valid_exactly_where_the_oracle_says_so(schema: dict[str, Any], drawn: list[Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(schema)
    oracle = jsonschema.Draft202012Validator(schema)
    refused: SchemaError | None = None
    try:
        validator = compile_schema(schema)
    except SchemaError as error:
        refused = error
    if refused is not None:
        # All that the checker refuses of these schemas is a cycle, in which the oracle is lost for some value.
        assert all("without consuming" in problem.message for problem in refused.problems)
        event("a cycle")
        return
    for value in drawn:
        expected = oracle.is_valid(value)
        event(f"valid: {expected}")
        assert (not validator.problems(value)) == expected, value


@pytest.mark.parametrize(
    ("schema", "valid", "invalid"),
    [
        ({"type": "integer"}, [1, 1.0, -0.0, 10**30], [1.5, True, "1", None]),
        ({"type": "number"}, [1, 1.5], [False, "1"]),
        ({"type": ["string", "null"]}, ["", None], [0, [], {}]),
        ({"enum": [1, "a", None, [1, {"a": 2}]]}, [1, 1.0, "a", None, [1.0, {"a": 2}]], [True, "b", [1, {"a": 3}], []]),
        ({"const": False}, [False], [0, None, ""]),
        ({"const": {"a": [True]}}, [{"a": [True]}], [{"a": [1]}, {}]),
        ({"minLength": 2, "maxLength": 2}, ["ab", "😀😀", 1], ["a", "abc", "😀"]),
        ({"minimum": 0, "exclusiveMaximum": 1}, [0, 0.5, "x"], [-1, 1, 1.0]),
        ({"multipleOf": 3}, [0, 3, -6, 9.0, "x"], [1, 3.5]),
        ({"uniqueItems": True}, [[1, True, "1", [1]], []], [[1, 1.0], [{"a": 1, "b": 2}, {"b": 2, "a": 1}]]),
        ({"prefixItems": [{"type": "integer"}], "items": False}, [[], [1]], [["a"], [1, 2]]),
        ({"contains": {"const": 1}, "minContains": 0, "maxContains": 1}, [[], [1], [2]], [[1, 1]]),
        ({"propertyNames": {"maxLength": 1}}, [{"a": 1}], [{"ab": 1}]),
        ({"patternProperties": {"^x_": {"type": "integer"}}, "additionalProperties": False}, [{"x_a": 1}], [{"y": 1}]),
        ({"dependentRequired": {"a": ["b"]}}, [{"a": 1, "b": 1}, {"b": 1}], [{"a": 1}]),
        ({"if": {"required": ["a"]}, "then": {"required": ["b"]}, "else": False}, [{"a": 1, "b": 1}], [{"a": 1}, {}]),
        ({"oneOf": [{"minimum": 2}, {"maximum": 4}]}, [1, 5], [3]),
        ({"not": {"type": "object"}}, [1], [{}]),
        (False, [], [None, {}, 1]),
        (True, [None, {}, 1], []),
    ],
)
def test_each_keyword_tells_valid_from_invalid(schema: Any, valid: list[Any], invalid: list[Any]) -> None:
    validator = compile_schema(schema)
    assert [value for value in valid if validator.problems(value)] == []
    assert [value for value in invalid if not validator.problems(value)] == []


def test_a_recursive_schema_follows_the_value_down() -> None:
    tree = {
        "$ref": "#/$defs/node",
        "$defs": {
            "node": {
                "type": "object",
                "properties": {"value": {"type": "integer"}, "children": {"type": "array", "items": {"$ref": "#"}}},
                "required": ["value"],
            }
        },
    }
    validator = compile_schema(tree)
    assert validator.problems({"value": 1, "children": [{"value": 2, "children": []}]}) == ()
    [problem] = validator.problems({"value": 1, "children": [{"value": 2, "children": [{"value": "3"}]}]})
    assert problem.path == "$.children[0].children[0].value"


def test_a_reference_may_be_escaped_and_may_have_siblings() -> None:
    schema = {"$ref": "#/$defs/a~1b%20c", "minimum": 3, "$defs": {"a/b c": {"type": "integer"}}}
    validator = compile_schema(schema)
    assert validator.problems(3) == ()
    assert [problem.keyword for problem in validator.problems(2)] == ["minimum"]
    assert [problem.keyword for problem in validator.problems("x")] == ["type"]


def test_numbers_are_divided_as_they_are_written() -> None:
    cents = compile_schema({"multipleOf": 0.01})
    assert cents.problems(19.99) == ()
    assert cents.problems(4.35) == ()
    assert cents.problems(10**30) == ()
    assert [problem.keyword for problem in cents.problems(19.999)] == ["multipleOf"]


def test_patterns_are_those_of_ecma_262() -> None:
    assert compile_schema({"pattern": "^a$"}).problems("a\n")
    assert compile_schema({"pattern": "^\\d$"}).problems("٣")
    assert compile_schema({"pattern": "^\\p{Lu}+$"}).problems("ÄB") == ()


def test_the_draft_7_form_of_items_is_read() -> None:
    validator = compile_schema({"items": [{"type": "integer"}, {"type": "string"}], "additionalItems": False})
    assert validator.problems([1, "a"]) == ()
    assert [problem.path for problem in validator.problems(["a", 1, 2])] == ["$[0]", "$[1]", "$"]


def test_annotations_are_not_checked() -> None:
    schema = {"type": "string", "format": "date", "deprecated": True, "default": 3, "x-anything": {"type": "wrong"}}
    assert compile_schema(schema).problems("no date") == ()


def test_changing_a_schema_after_it_was_compiled_changes_nothing() -> None:
    schema: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "string"}}}
    validator = compile_schema(schema)
    schema["properties"]["a"]["type"] = "integer"
    schema["required"] = ["b"]
    assert validator.problems({"a": "text"}) == ()
    assert validator.schema == {"type": "object", "properties": {"a": {"type": "string"}}}
