"""The strict form of a schema obeys the provider's rules, and a reply in that form fits the schema again."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from power_loop.contracts.json_schema import (
    SchemaError,
    compile_schema,
    drop_added_nulls,
    native_form,
    to_strict_subset,
)

_NAMES = ("a", "b", "kind")
_STRICT_KEYWORDS = {
    *("type", "enum", "anyOf", "$ref", "$defs", "properties", "required", "additionalProperties", "items", "pattern"),
    *("format", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minItems", "maxItems"),
    *("title", "description"),
}


def _check_strict(form: Any, root: dict[str, Any]) -> None:
    """Raises where a provider would answer 400: the rules of OpenAI's guide to structured outputs."""
    assert set(form) <= _STRICT_KEYWORDS, form
    if "$ref" in form:
        assert set(form) == {"$ref"}
        assert form["$ref"] == "#" or form["$ref"].removeprefix("#/$defs/") in root["$defs"]
        return
    assert "type" in form or "anyOf" in form
    assert not ("type" in form and "anyOf" in form)
    if form.get("type") == "object":
        assert form["additionalProperties"] is False
        assert form["required"] == list(form["properties"])
    if form.get("type") == "array":
        assert "items" in form
    for inner in (*form.get("properties", {}).values(), *form.get("anyOf", ()), *form.get("$defs", {}).values()):
        _check_strict(inner, root)
    if "items" in form:
        _check_strict(form["items"], root)


# ---- schemas that have a strict form, with a value of each ----


@st.composite
def _scalars(draw: st.DrawFn) -> tuple[Any, Any]:
    """A schema and a value that it allows."""
    return draw(
        st.sampled_from(
            (
                ({"type": "string", "description": "words"}, "x"),
                ({"type": "string", "pattern": "^a+$", "minLength": 0}, "aa"),
                ({"type": "string", "format": "date"}, "2031-05-17"),
                ({"type": "integer", "minimum": 1, "maximum": 9}, 3),
                ({"type": ["number", "null"], "default": 4}, None),
                ({"type": ["number", "null"]}, 2.5),
                ({"type": "boolean"}, True),
                ({"type": "null"}, None),
                ({"enum": ["r", "w", 1]}, "w"),
                ({"enum": ["r", None]}, None),
                ({"const": "tag"}, "tag"),
                ({"type": "string", "enum": ["r", "w"], "minLength": 1}, "r"),
                ({"$ref": "#/$defs/point"}, {"x": 1}),
                ({"$ref": "#/$defs/point", "title": "Where"}, {"x": 1, "y": 2}),
                ({"allOf": [{"$ref": "#/$defs/point"}], "description": "as written by generators"}, {"x": 3}),
                ({"anyOf": [{"type": "string"}, {"$ref": "#/$defs/point"}]}, {"x": 1}),
                ({"oneOf": [{"type": "string"}, {"type": "integer"}]}, 7),
            )
        )
    )


@st.composite
def _objects(draw: st.DrawFn, inner: st.SearchStrategy[tuple[Any, Any]]) -> tuple[Any, Any]:
    members = draw(st.dictionaries(st.sampled_from(_NAMES), inner, min_size=1))
    required = draw(st.lists(st.sampled_from(sorted(members)), unique=True))
    schema: dict[str, Any] = {"type": "object", "properties": {name: one[0] for name, one in members.items()}}
    if required or draw(st.booleans()):
        schema["required"] = required
    if draw(st.booleans()):
        schema["additionalProperties"] = False
    given_names = [name for name in members if name in required or draw(st.booleans())]
    return schema, {name: members[name][1] for name in given_names}


@st.composite
def _arrays(draw: st.DrawFn, inner: st.SearchStrategy[tuple[Any, Any]]) -> tuple[Any, Any]:
    schema, value = draw(inner)
    return {"type": "array", "items": schema, "maxItems": 3}, [value] * draw(st.integers(0, 3))


_pairs = st.recursive(_scalars(), lambda inner: st.one_of(_objects(inner), _arrays(inner)), max_leaves=6)
_DEFS = {
    "point": {"type": "object", "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}}, "required": ["x"]}
}


def _with_nulls(value: Any, schema: Any) -> Any:
    """The value as a strict model writes it: with null for each property that it leaves out."""
    if "$ref" in schema:
        schema = _DEFS["point"]
    for keyword in ("allOf", "anyOf"):
        for branch in schema.get(keyword, ()):
            if branch.get("$ref") and isinstance(value, dict):
                return _with_nulls(value, branch)
    if isinstance(value, list):
        return [_with_nulls(item, schema["items"]) for item in value]
    if isinstance(value, dict):
        properties = schema["properties"]
        return {name: _with_nulls(value[name], properties[name]) if name in value else None for name in properties}
    return value


def _without_nulls(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    if isinstance(value, dict):
        return {name: _without_nulls(item) for name, item in value.items() if item is not None}
    return value


@settings(max_examples=300)
@given(_objects(_pairs))
def test_a_reply_in_the_strict_form_becomes_a_value_of_the_schema_again(pair: tuple[Any, Any]) -> None:
    schema, value = pair
    schema = {**schema, "$defs": _DEFS}
    original = compile_schema(schema)
    assert original.problems(value) == ()
    form = to_strict_subset(schema)
    assert form is not None
    _check_strict(form, form)
    assert len(json.dumps(form)) < 20_000
    reply = _with_nulls(value, schema)
    assert compile_schema(form).problems(reply) == ()
    back = drop_added_nulls(reply, schema)
    assert original.problems(back) == ()
    # A null that the schema itself allows may stay or go.
    assert _without_nulls(back) == _without_nulls(value)


@settings(max_examples=300)
@given(_objects(_pairs))
def test_every_value_of_a_schema_fits_what_anthropic_is_given_of_it(pair: tuple[Any, Any]) -> None:
    schema, value = pair
    form = native_form({**schema, "$defs": _DEFS}, "anthropic")
    # None for more optional properties than the provider takes.
    event(f"native: {form is not None}")
    assert form is not None or len(json.dumps(schema)) > 500
    assert form is None or compile_schema(form.schema).problems(value) == ()


_any_rules = st.recursive(
    st.sampled_from(
        (
            *({}, True, {"type": "string"}, {"type": ["integer", "null"]}, {"const": 1}, {"enum": [1, 1.5]}),
            *({"$ref": "#"}, {"type": "array"}, {"type": "object"}, {"minimum": 1}, {"type": "integer", "minimum": 2}),
        )
    ),
    lambda inner: st.one_of(
        st.fixed_dictionaries(
            {"type": st.just("object"), "properties": st.dictionaries(st.sampled_from(_NAMES), inner)},
            optional={
                "required": st.lists(st.sampled_from(_NAMES), unique=True),
                "additionalProperties": st.booleans(),
                "minProperties": st.integers(0, 1),
            },
        ),
        st.fixed_dictionaries({"type": st.just("array"), "items": inner}),
        st.builds(lambda branches: {"anyOf": branches}, st.lists(inner, min_size=1, max_size=2)),
        st.builds(lambda branches: {"oneOf": branches}, st.lists(inner, min_size=1, max_size=2)),
        st.builds(lambda branches: {"allOf": branches}, st.lists(inner, min_size=1, max_size=2)),
    ),
    max_leaves=6,
)
_replies = st.recursive(
    st.sampled_from((None, 0, 1, 1.5, 2, "x", True)),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.sampled_from(_NAMES), inner)),
    max_leaves=6,
)


@settings(max_examples=500)
@given(_any_rules, st.lists(_replies, min_size=1, max_size=8))
def test_a_schema_without_a_strict_form_gives_none_and_a_strict_value_never_breaks_the_schema(
    schema: Any, replies: list[Any]
) -> None:
    try:
        form = to_strict_subset(schema)
    except SchemaError:
        return
    event(f"strict: {form is not None}")
    if form is None:
        return
    _check_strict(form, form)
    strict, original = compile_schema(form), compile_schema(schema)
    for reply in replies:
        if not strict.problems(reply):
            event("a strict reply")
            assert original.problems(drop_added_nulls(reply, schema)) == ()


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"type": "object", "additionalProperties": {"type": "string"}},
        {"type": "object", "properties": {"a": {}}},
        {"type": "object", "properties": {"a": {"type": "array"}}},
        {"type": "object", "properties": {"a": {"not": {"type": "null"}}}},
        {"type": "object", "properties": {"a": {"type": "string", "minLength": 2}}},
        {"type": "object", "properties": {"a": {"type": "string", "pattern": "(?=a)"}}},
        {"type": "object", "properties": {"a": {"oneOf": [{"type": "integer"}, {"type": "number"}]}}},
        {"type": "object", "properties": {"a": {"enum": [[1]]}}},
        {"type": "object", "properties": {}, "required": ["b"], "additionalProperties": False},
        {"type": "array", "items": {"type": "string"}},
        {"anyOf": [{"type": "object", "properties": {"a": {"type": "string"}}}]},
        {"type": "object", "properties": {"a": {"enum": list(range(1_001))}}},
        True,
    ],
)
def test_what_the_subset_cannot_say_has_no_strict_form(schema: Any) -> None:
    assert to_strict_subset(schema) is None


def test_a_union_told_apart_by_a_tag_is_strict() -> None:
    def tagged(tag: str) -> dict[str, Any]:
        return {"type": "object", "properties": {"kind": {"const": tag}}, "required": ["kind"]}

    schema = {"type": "object", "properties": {"shape": {"oneOf": [tagged("circle"), tagged("box")]}}}
    form = to_strict_subset(schema)
    assert form is not None
    assert [branch.get("type") for branch in form["properties"]["shape"]["anyOf"]] == ["object", "object", "null"]


def test_a_recursive_schema_keeps_its_definitions() -> None:
    schema = {
        "$ref": "#/$defs/Node",
        "$defs": {
            "Node": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]},
                },
                "required": ["name"],
            }
        },
    }
    form = to_strict_subset(schema)
    assert form is not None
    _check_strict(form, form)
    reply = {"name": "a", "next": {"name": "b", "next": None}}
    assert compile_schema(form).problems(reply) == ()
    assert drop_added_nulls(reply, schema) == reply


def test_a_malformed_schema_is_refused_by_both() -> None:
    with pytest.raises(SchemaError):
        to_strict_subset({"type": "strnig"})
    with pytest.raises(SchemaError):
        drop_added_nulls({}, {"type": "strnig"})


def test_what_does_not_fit_is_left_for_the_validator_to_report() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}, "required": ["b"]}
    assert drop_added_nulls({"a": None, "b": None, "c": None}, schema) == {"b": None, "c": None}
    assert drop_added_nulls([None], schema) == [None]
