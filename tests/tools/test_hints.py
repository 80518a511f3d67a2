"""A type hint becomes a schema, and a JSON value that fits the schema becomes a value of the hinted type."""
# ruff: noqa: UP007, UP045 - both spellings of a union are read

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json
import pathlib
import sys
import typing
import uuid
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, NewType, Optional, TypedDict, Union

import pytest
from hypothesis import given
from hypothesis import strategies as st

from power_loop.contracts.errors import ToolDefinitionError
from power_loop.tools.decorator import tool
from power_loop.tools.function_tool import FunctionTool
from power_loop.tools.json_form import json_form
from power_loop.tools.prepared import prepare

UTC = datetime.timezone.utc


class Color(enum.Enum):
    """The color of a thing."""

    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@dataclasses.dataclass(frozen=True)
class Point:
    """A place on the plane.

    Args:
        x: How far right.
    """

    x: int
    y: float = 0.5
    label: str = dataclasses.field(default="", metadata={"description": "Its name."})


@dataclasses.dataclass
class Tree:
    """A tree of names."""

    name: str
    children: list[Tree] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Positive:
    value: int

    def __post_init__(self) -> None:
        if self.value <= 0:
            raise ValueError("the value is not positive")


class Span(NamedTuple):
    start: datetime.date
    days: int = 1


class Options(TypedDict, total=False):
    """How it is done."""

    at: datetime.datetime
    tags: list[str]


class Job(Options):
    name: str


UserId = NewType("UserId", int)


@dataclasses.dataclass
class MinLen:
    min_length: int


@dataclasses.dataclass
class Interval:
    ge: float | None = None
    lt: float | None = None


def _tool_of(hint: Any) -> FunctionTool[..., Any]:
    def handler(value: Any) -> Any:
        """Take a value."""
        return value

    handler.__annotations__["value"] = hint
    return tool(handler)


def _schema_of(hint: Any) -> Any:
    schema = _tool_of(hint).input_schema
    inner = dict(schema["properties"]["value"])
    return {**inner, "$defs": schema["$defs"]} if "$defs" in schema else inner


def _round_trip(hint: Any, value: Any) -> Any:
    prepared = prepare(_tool_of(hint))
    parsed = prepared.parse(json.dumps({"value": json_form(value)}))
    assert parsed.problems == ()
    assert parsed.arguments is not None
    return prepared.call_arguments(parsed.arguments)["value"]


@pytest.mark.parametrize(
    ("hint", "schema"),
    [
        (str, {"type": "string"}),
        (int, {"type": "integer"}),
        (float, {"type": "number"}),
        (bool, {"type": "boolean"}),
        (Any, {}),
        (None, {"type": "null"}),
        (UserId, {"type": "integer"}),
        (list, {"type": "array"}),
        (list[int], {"type": "array", "items": {"type": "integer"}}),
        (Sequence[str], {"type": "array", "items": {"type": "string"}}),
        (set[str], {"type": "array", "items": {"type": "string"}, "uniqueItems": True}),
        (tuple[int, ...], {"type": "array", "items": {"type": "integer"}}),
        (tuple, {"type": "array"}),
        (tuple[()], {"type": "array", "minItems": 0, "maxItems": 0}),
        (tuple[int, int], {"type": "array", "minItems": 2, "maxItems": 2, "items": {"type": "integer"}}),
        (
            tuple[int, str],
            {"type": "array", "minItems": 2, "maxItems": 2, "prefixItems": [{"type": "integer"}, {"type": "string"}]},
        ),
        (dict, {"type": "object"}),
        (dict[str, Any], {"type": "object"}),
        (Mapping[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
        (dict[Literal["a"], Any], {"type": "object", "propertyNames": {"type": "string", "enum": ["a"]}}),
        (Optional[int], {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        (int | str, {"anyOf": [{"type": "integer"}, {"type": "string"}]}),
        (Literal["a", 1, None], {"enum": ["a", 1, None]}),
        (Level, {"type": "integer", "enum": [1, 2]}),
        (Color, {"type": "string", "enum": ["red", "blue"], "description": "The color of a thing."}),
        (datetime.date, {"type": "string", "format": "date"}),
        (uuid.UUID, {"type": "string", "format": "uuid"}),
        (pathlib.Path, {"type": "string"}),
        (Annotated[int, Interval(ge=1, lt=9)], {"type": "integer", "minimum": 1, "exclusiveMaximum": 9}),
        (Annotated[Color, "Its paint."], {"type": "string", "enum": ["red", "blue"], "description": "Its paint."}),
        (Annotated[str | None, MinLen(2)], {"anyOf": [{"type": "string"}, {"type": "null"}], "minLength": 2}),
        (Annotated[list[int], MinLen(1)], {"type": "array", "items": {"type": "integer"}, "minItems": 1}),
        (Annotated[str, {"pattern": "^a"}], {"type": "string", "pattern": "^a"}),
        (list["int"], {"type": "array", "items": {"type": "integer"}}),
    ],
)  # fmt: skip
def test_a_hint_has_its_schema(hint: Any, schema: dict[str, Any]) -> None:
    assert _schema_of(hint) == schema


def test_a_dataclass_is_a_closed_object_with_what_it_says_of_its_fields() -> None:
    assert _schema_of(Point) == {
        "type": "object",
        "description": "A place on the plane.",
        "properties": {
            "x": {"type": "integer", "description": "How far right."},
            "y": {"type": "number", "default": 0.5},
            "label": {"type": "string", "description": "Its name.", "default": ""},
        },
        "required": ["x"],
        "additionalProperties": False,
    }


def test_a_typed_dict_says_which_of_its_keys_are_required() -> None:
    schema = _schema_of(Job)
    assert set(schema["properties"]) == {"at", "tags", "name"}
    assert schema["required"] == ["name"]


def test_a_recursive_class_stands_under_defs() -> None:
    schema = _schema_of(Tree)
    assert schema["$ref"] == "#/$defs/Tree"
    assert schema["$defs"]["Tree"]["properties"]["children"]["items"] == {"$ref": "#/$defs/Tree"}


def test_a_class_that_is_used_twice_stands_once() -> None:
    schema = _schema_of(tuple[Point, Point | None])
    assert schema["prefixItems"] == [
        {"$ref": "#/$defs/Point"},
        {"anyOf": [{"$ref": "#/$defs/Point"}, {"type": "null"}]},
    ]
    assert list(schema["$defs"]) == ["Point"]


_aware = st.datetimes(timezones=st.sampled_from((UTC, datetime.timezone(datetime.timedelta(hours=5)))))
_points = st.builds(Point, st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=5))
_trees = st.recursive(
    st.builds(Tree, st.text(max_size=3)),
    lambda inner: st.builds(Tree, st.text(max_size=3), st.lists(inner, max_size=3)),
)
_names = st.text(max_size=4)


def _hinted(hint: Any, values: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, Any]]:
    return st.tuples(st.just(hint), values)


@given(
    st.one_of(
        _hinted(datetime.datetime, st.one_of(st.datetimes(), _aware)),
        _hinted(datetime.date, st.dates()),
        _hinted(datetime.time, st.times()),
        _hinted(uuid.UUID, st.uuids()),
        _hinted(decimal.Decimal, st.decimals(allow_nan=False, allow_infinity=False)),
        _hinted(pathlib.Path, st.lists(st.text("ab.", min_size=1), min_size=1).map(lambda parts: pathlib.Path(*parts))),
        _hinted(Color, st.sampled_from(Color)),
        _hinted(Level, st.sampled_from(Level)),
        _hinted(Literal["a", 1, True, None], st.sampled_from(("a", 1, True, None))),
        _hinted(Point, _points),
        _hinted(Tree, _trees),
        _hinted(Span, st.builds(Span, st.dates(), st.integers())),
        _hinted(Job, st.fixed_dictionaries({"name": _names}, optional={"at": _aware, "tags": st.lists(_names)})),
        _hinted(set[int], st.sets(st.integers())),
        _hinted(frozenset[Color], st.frozensets(st.sampled_from(Color))),
        _hinted(tuple[int, Color, Point | None], st.tuples(st.integers(), st.sampled_from(Color), _points)),
        _hinted(dict[str, list[datetime.date]], st.dictionaries(_names, st.lists(st.dates(), max_size=3), max_size=3)),
        _hinted(dict[Literal["a", "b"], Level], st.dictionaries(st.sampled_from("ab"), st.sampled_from(Level))),
        _hinted(Union[Point, Tree, int, None], st.one_of(_points, _trees, st.integers(), st.none())),
        _hinted(list[uuid.UUID | int | str], st.lists(st.one_of(st.uuids(), st.integers()))),
    )
)
def test_a_value_of_the_hinted_type_comes_back_from_json(pair: tuple[Any, Any]) -> None:
    hint, value = pair
    back = _round_trip(hint, value)
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize(
    ("hint", "text", "value"),
    [
        (int, "3.0", 3),
        (float, "3", 3.0),
        (Union[int, float], "3.0", 3.0),
        (Union[float, int], "3", 3),
        (Union[dict[str, int], Point], '{"x": 1}', {"x": 1}),
        (Union[Point, dict[str, int]], '{"x": 1}', Point(1)),
        (Union[datetime.date, str], '"soon"', "soon"),
        (datetime.datetime, '"2031-05-17 14:30"', datetime.datetime(2031, 5, 17, 14, 30)),
        (datetime.datetime, '"2031-05-17"', datetime.datetime(2031, 5, 17)),
        (datetime.datetime, '"2031-05-17t14:30:05.5z"', datetime.datetime(2031, 5, 17, 14, 30, 5, 500000, UTC)),
        (datetime.time, '"14:30+0200"', datetime.time(14, 30, tzinfo=datetime.timezone(datetime.timedelta(hours=2)))),
        (decimal.Decimal, '"19.99"', decimal.Decimal("19.99")),
        (Literal[1, True], "1", 1),
        (Literal[1, True], "true", True),
    ],
)  # fmt: skip
def test_json_comes_back_in_the_type_that_fits_best(hint: Any, text: str, value: Any) -> None:
    prepared = prepare(_tool_of(hint))
    parsed = prepared.parse(f'{{"value": {text}}}')
    assert parsed.arguments is not None, parsed.problems
    back = prepared.call_arguments(parsed.arguments)["value"]
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize(
    ("hint", "value", "path", "reason"),
    [
        (datetime.date, "2031-02-31", "$.value", "is not a date"),
        (datetime.datetime, "tomorrow", "$.value", "write it as '2031-05-17T14:30:00Z'"),
        (datetime.time, "25:00", "$.value", "is not a time"),
        (list[uuid.UUID], ["x"], "$.value[0]", "is not a UUID"),
        (dict[str, tuple[int, datetime.date]], {"a b": [1, "?"]}, "$.value['a b'][1]", "is not a date"),
        (list[Positive], [{"value": 1}, {"value": -1}], "$.value[1]", "does not take it: the value is not positive"),
        (Span, {"start": "x"}, "$.value.start", "is not a date"),
        (Union[datetime.date, uuid.UUID], "x", "$.value", "is not a"),
        (float, 10**400, "$.value", "too large"),
        (set[Any], [[1]], "$.value", "cannot be put into a set"),
    ],
)  # fmt: skip
def test_what_fits_the_schema_but_not_the_type_is_a_problem_with_its_place(
    hint: Any, value: Any, path: str, reason: str
) -> None:
    prepared = prepare(_tool_of(hint))
    [problem] = prepared.problems({"value": value})
    assert problem.path == path
    assert reason in problem.message


@pytest.mark.parametrize(
    ("hint", "reason"),
    [
        (bytes, "use str, with base64 text"),
        (object(), "has no JSON form"),
        (dict[int, str], "a JSON object has text keys, not int"),
        (set[list[int]], "not hashable"),
        (typing.TypeVar("T"), "type variable"),
        ("Missing", "names 'Missing', which is not defined"),
        ("list[", "cannot be read"),
        (enum.Flag("Mode", "R W"), "a Flag, whose members combine"),
        (enum.Enum("Empty", ()), "no values"),
        (enum.Enum("Odd", {"A": (1, 2)}), "not a JSON string, number"),
        (Annotated[decimal.Decimal, Interval(ge=0)], "bounds a number"),
        (Annotated[int, MinLen(1)], "bounds a size"),
        (dataclasses.make_dataclass("Lonely", [("of", "Nowhere")]), "Nowhere"),
        (dataclasses.make_dataclass("Init", [("a", int), ("b", dataclasses.InitVar[int])]), "takes 'b'"),
    ],
)  # fmt: skip
def test_a_hint_without_a_json_form_is_refused_with_the_reason(hint: Any, reason: str) -> None:
    with pytest.raises(ToolDefinitionError) as caught:
        _tool_of(hint)
    [problem] = caught.value.problems
    assert problem.startswith("its parameter 'value': ")
    assert reason in problem


@pytest.mark.skipif(sys.version_info < (3, 12), reason="type statements are younger")
def test_a_recursive_alias_is_read() -> None:
    names: dict[str, Any] = {}
    exec("type Json = dict[str, Json] | list[Json] | str | int | None", names)
    assert _round_trip(names["Json"], {"a": [1, {"b": None}]}) == {"a": [1, {"b": None}]}
    [problem] = prepare(_tool_of(names["Json"])).problems({"value": {"a": [1.5]}})
    assert problem.path.startswith("$.value")
