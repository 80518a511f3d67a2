"""Schemas of strangers and values of models are bounded: refused or reported, never a crash and never endless work."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from power_loop.contracts.json_schema import SchemaError, Validator, compile_schema, drop_added_nulls, to_strict_subset
from power_loop.contracts.json_schema.check import MAX_NESTED_CHECKS, MAX_PROBLEMS
from power_loop.contracts.json_schema.compile import MAX_SCHEMA_VALUES
from power_loop.contracts.json_schema.values import MAX_DEPTH


def _nested(depth: int, *, wrap: str) -> Any:
    schema: Any = {"type": "string"}
    for _ in range(depth):
        schema = {"properties": {"a": schema}} if wrap == "properties" else {wrap: [schema]}
    return schema


def _deep_list(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


_CONTAINS_ITSELF: dict[str, Any] = {"type": "object"}
_CONTAINS_ITSELF["properties"] = {"a": _CONTAINS_ITSELF}


@pytest.mark.parametrize(
    ("schema", "path", "reason"),
    [
        ({"$ref": "#"}, "$", "leads back to $ without consuming"),
        ({"allOf": [{"$ref": "#"}]}, "$.allOf[0]", "without consuming"),
        ({"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/b"}]}, "b": {"not": {"$ref": "#/$defs/a"}}}}, None, "without"),
        ({"$ref": "https://example.com/schema.json"}, "$['$ref']", "only places in the same schema"),
        ({"$ref": "file:///etc/passwd"}, "$['$ref']", "only places in the same schema"),
        ({"$ref": "#/$defs/missing"}, "$['$ref']", "points to nothing"),
        ({"$ref": "#anchor"}, "$['$ref']", "is not '#' and not '#/...'"),
        ({"$ref": "#/$defs/%ff"}, "$['$ref']", "points to nothing"),
        ({"$dynamicRef": "#x"}, "$['$dynamicRef']", "not supported"),
        (_CONTAINS_ITSELF, "$", "contains itself"),
        (_nested(100_000, wrap="properties"), "$", "nested deeper"),
        (_nested(MAX_DEPTH, wrap="allOf"), "$", "nested deeper"),
        ({"enum": list(range(MAX_SCHEMA_VALUES))}, None, "more than"),
        ({"properties": {str(at): True for at in range(MAX_SCHEMA_VALUES)}}, None, "more than"),
        ({"const": {1}}, "$.const", "must be JSON"),
        ({"const": float("nan")}, "$.const", "not a JSON number"),
        ({"minimum": 10**5_000}, "$.minimum", "too large"),
        ({1: True}, "$", "must be a string"),
        ({"pattern": "(?<=a)b"}, "$.pattern", "look-behind"),
        ({"multipleOf": 0}, "$.multipleOf", "above 0"),
        ([], "$", "must be an object or a boolean"),
    ],
)  # fmt: skip
def test_a_schema_that_cannot_be_used_is_refused_with_its_place(schema: Any, path: str | None, reason: str) -> None:
    with pytest.raises(SchemaError) as caught:
        compile_schema(schema)
    [problem] = caught.value.problems
    assert reason in problem.message
    assert path in (None, problem.path)
    assert len(str(caught.value)) < 1_000


def test_all_problems_of_a_schema_come_at_once() -> None:
    schema = {
        "type": "strnig",
        "required": "name",
        "minLength": -1,
        "properties": {"a": {"enum": "x"}, "b": 3, "c": {"uniqueItems": "yes", "items": {"pattern": "["}}},
        "anyOf": [],
        "dependentRequired": {"a": "b"},
    }
    with pytest.raises(SchemaError) as caught:
        compile_schema(schema)
    assert {problem.path for problem in caught.value.problems} == {
        *("$.type", "$.required", "$.minLength", "$.properties.a.enum", "$.properties.b"),
        *("$.properties.c.uniqueItems", "$.properties.c.items.pattern", "$.anyOf", "$.dependentRequired"),
    }
    with pytest.raises(SchemaError) as caught:
        compile_schema({"properties": {str(at): {"type": "x"} for at in range(500)}})
    assert len(caught.value.problems) == MAX_PROBLEMS


def _only_limit(validator: Validator, value: Any) -> str:
    problems = validator.problems(value)
    assert [(problem.path, problem.keyword) for problem in problems] == [("$", "limit")]
    return problems[0].message


def test_a_value_that_is_nested_too_deeply_is_not_valid() -> None:
    tree = compile_schema({"items": {"$ref": "#"}})
    assert tree.problems(_deep_list(MAX_NESTED_CHECKS // 2)) == ()
    assert "too deeply" in _only_limit(tree, _deep_list(100_000))
    assert "too deeply" in _only_limit(compile_schema({"uniqueItems": True}), [_deep_list(5_000), 1])
    assert "too deeply" in _only_limit(compile_schema({"const": [[1]]}), _deep_list(5_000))


def test_a_value_that_contains_itself_is_not_valid() -> None:
    value: list[Any] = []
    value.append(value)
    assert "too deeply" in _only_limit(compile_schema({"items": {"$ref": "#"}}), value)
    assert "too deeply" in _only_limit(compile_schema({"uniqueItems": True}), [value, value])


def test_a_check_deep_in_the_stack_reports_instead_of_raising() -> None:
    tree = compile_schema({"items": {"$ref": "#"}})

    def down(frames: int) -> Any:
        return down(frames - 1) if frames else tree.problems(_deep_list(60))

    used = len(_frames())
    problems = down(sys.getrecursionlimit() - used - 60)
    assert [problem.keyword for problem in problems] == ["limit"]


def _frames() -> list[Any]:
    frames, frame = [], sys._getframe()
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    return frames


def test_schemas_that_multiply_the_work_run_out_of_steps() -> None:
    # Each level applies the next one twice: 2**20 checks of the same value.
    definitions: dict[str, Any] = {
        f"l{level}": {"anyOf": [{"$ref": f"#/$defs/l{level + 1}"}, {"$ref": f"#/$defs/l{level + 1}"}]}
        for level in range(20)
    }
    definitions["l20"] = {"type": "string", "minLength": 9}
    validator = compile_schema({"$ref": "#/$defs/l0", "$defs": definitions})
    assert "too large" in _only_limit(validator, "short")


def test_a_large_array_is_checked_and_a_huge_one_reported() -> None:
    numbers = compile_schema({"items": {"type": "integer"}, "uniqueItems": True})
    assert numbers.problems(list(range(100_000))) == ()
    assert "too large" in _only_limit(numbers, list(range(600_000)))


def test_a_huge_enum_is_one_lookup() -> None:
    validator = compile_schema({"enum": [f"value {at}" for at in range(40_000)]})
    assert validator.problems("value 39999") == ()
    [problem] = validator.problems("value")
    assert "40000 in all" in problem.message
    assert len(problem.message) < 600


@pytest.mark.parametrize("divisor", [1e-300, 5e-324, 0.1, 1e300])
@pytest.mark.parametrize("value", [1e308, -1e308, 10**400, 5e-324, float("inf"), float("nan"), 3])
def test_dividing_extreme_numbers_ends(divisor: float, value: float) -> None:
    assert len(compile_schema({"multipleOf": divisor}).problems(value)) in (0, 1)


def test_nan_meets_no_bound() -> None:
    for keyword in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"):
        assert [problem.keyword for problem in compile_schema({keyword: 1}).problems(float("nan"))] == [keyword]


def test_the_strict_form_of_a_hostile_schema_is_bounded_too() -> None:
    wide = {"type": "object", "properties": {f"p{at}": {"type": "string"} for at in range(6_000)}}
    assert to_strict_subset(wide) is None
    tree = {"type": "object", "properties": {"a": {"$ref": "#"}}}
    value: dict[str, Any] = {}
    for _ in range(50_000):
        value = {"a": value}
    assert drop_added_nulls(value, tree) is value
