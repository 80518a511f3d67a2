"""What a provider is given of a schema: only what it takes, and never less than the shape of the reply."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import event, given, settings

from power_loop.contracts.json_schema import SchemaError, compile_schema, native_form
from power_loop.contracts.llm import OutputSchema
from tests.model_server import check_anthropic_request, check_openai_request

from .schemas import schemas

OPTIONAL = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}}, "required": ["a"]}


def anthropic_problems(schema: Any) -> list[str]:
    return check_anthropic_request(
        {
            "model": "m",
            "max_tokens": 9,
            "messages": [{"role": "user", "content": "x"}],
            "output_config": {"format": {"type": "json_schema", "schema": schema}},
        }
    )


def openai_problems(schema: Any, *, is_strict: bool) -> list[str]:
    definition = {"name": "x", "schema": schema, "strict": is_strict}
    return check_openai_request(
        {
            "model": "m",
            "messages": [{"role": "user", "content": "x"}],
            "response_format": {"type": "json_schema", "json_schema": definition},
        }
    )


def in_object(rule: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {"v": rule}, "required": ["v"]}


@settings(max_examples=300, deadline=None)
@given(schemas())
def test_whatever_the_schema_a_provider_takes_what_it_is_given(schema: dict[str, Any]) -> None:
    try:
        loose, openai, anthropic = (native_form(schema, "any"), native_form(schema, "openai"), None)
        anthropic = native_form(schema, "anthropic")
    except SchemaError:
        return
    assert loose is not None
    assert loose.schema == schema
    event(f"openai: {openai is not None}, anthropic: {anthropic is not None}")
    if openai is not None:
        assert openai_problems(openai.schema, is_strict=openai.is_strict) == []
    if anthropic is not None:
        assert anthropic_problems(anthropic.schema) == []
        compile_schema(anthropic.schema)


def test_anthropic_keeps_optional_properties_optional_where_openai_makes_them_null() -> None:
    anthropic, openai = native_form(OPTIONAL, "anthropic"), native_form(OPTIONAL, "openai")
    assert anthropic is not None
    assert openai is not None
    assert anthropic.schema == {**OPTIONAL, "additionalProperties": False}
    assert openai.schema["required"] == ["a", "b"]


@pytest.mark.parametrize(
    ("rule", "sent"),
    [
        ({"type": "integer", "minimum": 1}, {"type": "integer", "description": 'Must fit {"minimum": 1}'}),
        (
            {"type": "string", "minLength": 3, "description": "A name."},
            {"type": "string", "description": 'A name.\n\nMust fit {"minLength": 3}'},
        ),
        (
            {"type": "array", "items": {"type": "string"}, "minItems": 2, "uniqueItems": True},
            {
                "type": "array",
                "items": {"type": "string"},
                "description": 'Must fit {"minItems": 2, "uniqueItems": true}',
            },
        ),
        (
            {"type": "array", "items": {"type": "string"}, "minItems": 1},
            {"type": "array", "items": {"type": "string"}, "minItems": 1},
        ),
        ({"type": "string", "pattern": "^[a-z]+$"}, {"type": "string", "pattern": "^[a-z]+$"}),
        ({"type": "string", "pattern": "a{2}"}, {"type": "string", "description": 'Must fit {"pattern": "a{2}"}'}),
        ({"type": "string", "pattern": "(ab?){2}" * 99}, {"type": "string"}),
        ({"type": "string", "format": "uri"}, {"type": "string", "format": "uri"}),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, {"anyOf": [{"type": "integer"}, {"type": "number"}]}),
        ({"enum": ["a", "bcd"], "minLength": 2}, {"type": "string", "enum": ["bcd"]}),
    ],
)
def test_limits_that_anthropic_does_not_know_are_said_in_words(rule: dict[str, Any], sent: dict[str, Any]) -> None:
    form = native_form(in_object(rule), "anthropic")
    assert form is not None
    assert form.schema["properties"]["v"] == sent
    assert anthropic_problems(form.schema) == []


NODE = {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "items": {"type": "integer"}},
        {"type": "object", "additionalProperties": {"type": "integer"}},
        {"type": "object"},
        in_object({"not": {"type": "null"}}),
        in_object({"type": "array"}),
        in_object({"enum": [[1]]}),
        in_object({"$ref": "#"}),
        {**in_object({"$ref": "#/$defs/Node"}), "$defs": {"Node": NODE}},
        {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(25)}},
        {
            "type": "object",
            "properties": {f"p{n}": {"type": ["string", "null"]} for n in range(17)},
            "required": [f"p{n}" for n in range(17)],
        },
    ],
)
def test_what_anthropic_cannot_hold_a_reply_to_has_no_form(schema: dict[str, Any]) -> None:
    assert native_form(schema, "anthropic") is None


def test_a_definition_that_is_used_twice_is_no_recursion() -> None:
    point = in_object({"type": "integer"})
    schema = {
        "type": "object",
        "properties": {"from": {"$ref": "#/$defs/Point"}, "to": {"$ref": "#/$defs/Point"}},
        "$defs": {"Point": point},
    }
    form = native_form(schema, "anthropic")
    assert form is not None
    assert anthropic_problems(form.schema) == []


@pytest.mark.parametrize(
    ("schema", "is_sent"),
    [({"type": "object"}, True), ({"type": "array", "items": {"type": "integer"}}, False), ({"enum": [1]}, False)],
)
def test_openai_takes_any_schema_of_an_object_and_no_other(schema: dict[str, Any], is_sent: bool) -> None:
    form = native_form(schema, "openai")
    assert (form is not None) is is_sent
    if form is not None:
        assert not form.is_strict
        assert form.schema == schema


def test_a_schema_is_brought_into_a_dialect_once() -> None:
    output = OutputSchema(OPTIONAL)
    assert output.native_form("anthropic") is output.native_form("anthropic")
    assert output.native_form("openai") is not output.native_form("anthropic")
    array = OutputSchema({"type": "array", "items": {}})
    assert array.native_form("openai") is None
    assert array.memo
