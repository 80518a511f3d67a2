"""From a definition and a model's argument text to what the handler is given, or to every problem."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import uuid
from typing import Any

import pytest

from power_loop.contracts.errors import ToolDefinitionError, ToolError
from power_loop.contracts.states import Effect
from power_loop.contracts.tools import ToolContext, ToolDefinition
from power_loop.tools.decorator import tool
from power_loop.tools.prepared import PreparedTool, is_async_handler, prepare
from tests.tools.calls import CallContext

_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "path": {"type": "string"},
        "limit": {"type": "integer", "minimum": 1},
        "note": {"type": ["string", "null"]},
    },
    "required": ["path"],
    "additionalProperties": False,
}


def _read(path: str, limit: int = 10, note: str | None = None) -> str:
    return f"{path}:{limit}"


_READ = ToolDefinition("read", "Read a file.", _SCHEMA, _read)


def _problems(definition: ToolDefinition) -> tuple[str, ...]:
    with pytest.raises(ToolDefinitionError) as caught:
        prepare(definition)
    return caught.value.problems


def test_acceptable_arguments_are_parsed() -> None:
    parsed = prepare(_READ).parse('{"path": "a.txt", "limit": 3}')
    assert (parsed.arguments, parsed.problems) == ({"path": "a.txt", "limit": 3}, ())


@pytest.mark.parametrize("text", ["", "  \n", "{}"])
def test_no_text_means_no_arguments(text: str) -> None:
    @tool
    def ping(count: int = 1) -> str:
        """Ping."""
        return "pong" * count

    assert prepare(ping).parse(text).arguments == {}


@pytest.mark.promise("arguments-checked")
@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("{", [("$", "json")]),
        ('{"path": NaN}', [("$", "json")]),
        ('{"path": "ls", "path": "rm"}', [("$", "json")]),
        ("[" * 10_000, [("$", "json")]),
        ('"path"', [("$", "type")]),
        ('{"limit": 0, "more": 1}', [("$", "required"), ("$.limit", "minimum"), ("$.more", "additionalProperties")]),
    ],
)
def test_every_problem_of_a_call_is_named(text: str, problems: list[tuple[str, str]]) -> None:
    parsed = prepare(_READ).parse(text)
    assert parsed.arguments is None
    assert [(problem.path, problem.keyword) for problem in parsed.problems] == problems


def test_a_null_for_an_optional_argument_that_takes_none_means_that_it_was_left_out() -> None:
    prepared = prepare(_READ)
    assert prepared.parse('{"path": "a", "limit": null, "note": null}').arguments == {"path": "a", "note": None}
    [problem] = prepared.parse('{"path": null, "limit": null}').problems
    assert problem.path == "$.path"


def test_ten_megabytes_of_arguments_are_a_problem_and_no_crash() -> None:
    [problem] = prepare(_READ).parse('{"path": "' + "x" * 10_000_000 + '"}').problems
    assert "at most" in problem.message


@pytest.mark.promise("arguments-checked")
def test_every_conversion_that_fails_is_named_before_the_handler_runs() -> None:
    @dataclasses.dataclass
    class Even:
        value: int

        def __post_init__(self) -> None:
            if self.value % 2:
                raise ValueError(f"{self.value} is odd")

    def take(first: Even, second: Even, third: Even) -> int:
        """Take even numbers."""
        return first.value

    take.__annotations__.update(first=Even, second=Even, third=Even)
    prepared = prepare(tool(take))
    parsed = prepared.parse('{"first": {"value": 1}, "second": {"value": 2}, "third": {"value": 3}}')
    assert [problem.path for problem in parsed.problems] == ["$.first", "$.third"]
    with pytest.raises(ToolError, match=r"1 is odd; .*3 is odd"):
        prepared.call_arguments({"first": {"value": 1}, "third": {"value": 3}})


@tool
def book(order: uuid.UUID, at: datetime.datetime, seats: int, order_note: str = "") -> str:
    """Book seats."""
    return f"{order} {at} {seats}"


@pytest.mark.promise("arguments-checked")
def test_conversions_that_fail_are_named_together_with_what_does_not_fit_the_schema() -> None:
    text = '{"order": "no uuid", "at": "yesterday", "seats": "two", "order_note": 5, "more": 1}'
    problems = prepare(book).parse(text).problems
    assert {problem.path for problem in problems} == {"$.order", "$.at", "$.seats", "$.order_note", "$.more"}
    assert len(problems) == 5


def test_an_argument_that_does_not_fit_its_schema_is_named_once_and_not_converted() -> None:
    problems = prepare(book).parse('{"order": 5, "at": "2030-01-01T00:00:00", "seats": 2}').problems
    assert [problem.path for problem in problems] == ["$.order"]
    missing = prepare(book).parse('{"order": "no uuid"}').problems
    assert sorted(problem.path for problem in missing) == ["$", "$", "$.order"]


def test_a_check_that_was_cut_short_converts_nothing_that_it_did_not_see() -> None:
    def take(numbers: list[int], order: uuid.UUID) -> str:
        """Take."""
        return "taken"

    take.__annotations__.update(numbers=list[int], order=uuid.UUID)
    wrong = ", ".join(['"x"'] * 200)
    problems = prepare(tool(take)).parse(f'{{"numbers": [{wrong}], "order": 5}}').problems
    assert len(problems) == 50


def test_call_arguments_leaves_what_it_is_given_alone() -> None:
    @dataclasses.dataclass
    class Box:
        items: list[int]

    def put(box: Box) -> None:
        """Put."""

    put.__annotations__["box"] = Box
    arguments = {"box": {"items": [1]}}
    assert prepare(tool(put)).call_arguments(arguments) == {"box": Box([1])}
    assert arguments == {"box": {"items": [1]}}


def test_the_context_goes_to_the_parameter_that_asks_for_it() -> None:
    def by_hint(path: str, context: ToolContext) -> None: ...

    def by_name(path: str, whatever: object) -> None: ...

    schema = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}
    context = CallContext()
    hinted = prepare(ToolDefinition("a", "d", schema, by_hint))
    named = prepare(ToolDefinition("b", "d", schema, by_name, takes_context="whatever"))
    assert hinted.call_arguments({"path": "x"}, context) == {"path": "x", "context": context}
    assert named.call_arguments({"path": "x"}, context) == {"path": "x", "whatever": context}
    # A model that learns the name cannot bring a context of its own.
    assert [problem.path for problem in hinted.parse('{"path": "x", "context": {}}').problems] == ["$.context"]


def test_an_open_schema_gives_the_handler_only_what_it_can_take() -> None:
    def take(path: str, *rest: str) -> None: ...

    def take_any(path: str, **more: Any) -> None: ...

    schema = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}
    text = '{"path": "a", "other": 1, "rest": 2}'
    closed = prepare(ToolDefinition("take", "d", schema, take)).parse(text)
    assert [problem.path for problem in closed.problems] == ["$.other", "$.rest"]
    assert closed.problems[0].message == 'the property "other" is not allowed; allowed: "path"'
    opened = prepare(ToolDefinition("take_any", "d", schema, take_any)).parse(text)
    assert opened.arguments == {"path": "a", "other": 1, "rest": 2}
    external = prepare(ToolDefinition("external", "d", schema)).parse(text)
    assert external.arguments == {"path": "a", "other": 1, "rest": 2}


def test_the_spec_is_a_copy_with_clean_text() -> None:
    schema: dict[str, Any] = {"type": "object", "properties": {}}
    prepared = prepare(ToolDefinition("x", "say \ud83d\x00", schema))
    schema["properties"]["late"] = {"type": "string"}
    assert prepared.spec.input_schema == {"type": "object", "properties": {}}
    assert prepared.spec.description == "say \ufffd\ufffd"


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ({"name": "fs.read"}, ["holds '.', but model providers take", "such as 'fs_read'"]),
        ({"name": "bash\u200b"}, ["'\\u200b'", "such as 'bash'"]),
        ({"name": ""}, ["is empty", "such as 'tool'"]),
        ({"name": "x" * 65}, ["is 65 characters long"]),
        ({"name": 3}, ["'int', not text"]),
        ({"description": " \n"}, ["no description"]),
        ({"description": None}, ["no description"]),
        ({"effect": "reed"}, ["effect 'reed'"]),
        ({"timeout_s": 0}, ["timeout_s 0"]),
        ({"timeout_s": float("nan")}, ["timeout_s nan"]),
        ({"timeout_s": True}, ["timeout_s True"]),
        ({"max_result_chars": 0}, ["max_result_chars 0"]),
        ({"max_result_chars": 1.5}, ["max_result_chars 1.5"]),
        ({"parallel": 1}, ["parallel 1"]),
        ({"requires_approval": None}, ["requires_approval None"]),
        ({"probe": lambda: None}, ["cannot be called with one argument"]),
        ({"input_schema": []}, ["'list', not a JSON Schema object"]),
        ({"input_schema": {}}, ["has the type None, not 'object'", "needs 'path'"]),
        ({"input_schema": {"type": "string"}, "handler": None}, ["not 'object'"]),
        ({"input_schema": {"type": "object", "anyOf": [{}]}, "handler": None}, ["has anyOf at the top"]),
        ({"input_schema": {"type": "object", "properties": {"a b": {}}}, "handler": None}, ["its property 'a b'"]),
        ({"input_schema": {"type": "object", "minProperties": -1}, "handler": None}, ["at $.minProperties: must be"]),
        ({"input_schema": {"type": "object", "title": "\ud800"}, "handler": None}, ["lone surrogate"]),
        ({"input_schema": {"type": "object", "default": {1}}, "handler": None}, ["must be JSON"]),
        ({"handler": None, "takes_context": "ctx"}, ["no handler to give it to"]),
        ({"handler": 3}, ["cannot be called"]),
        ({"handler": lambda path: None}, ["no parameter 'limit'", "no parameter 'note'"]),
        ({"handler": lambda path, limit, note: None}, ["needs 'limit'", "needs 'note'"]),
        ({"handler": lambda path, /, limit=1, note=None: None}, ["by position only"]),
        ({"takes_context": "ctx"}, ["no parameter 'ctx'"]),
        ({"takes_context": "note"}, ["also a property"]),
        ({"handler": dict.get}, ["'self'|signature|by position only"]),
    ],
)  # fmt: skip
def test_a_definition_that_cannot_be_offered_is_refused_with_the_reason(
    changes: dict[str, Any], reasons: list[str]
) -> None:
    text = "\n".join(_problems(dataclasses.replace(_READ, **{"memo": {}, **changes})))
    for reason in reasons:
        assert any(alternative in text for alternative in reason.split("|")), text


def test_all_reasons_come_at_once() -> None:
    bad = ToolDefinition("a b", "", {"type": "array"}, lambda x: x, timeout_s=-1, effect="never")
    assert len(_problems(bad)) == 6


def test_preparation_is_done_once_for_a_definition_and_anew_for_a_copy() -> None:
    prepared = prepare(_READ)
    assert prepare(_READ) is prepared
    copy = dataclasses.replace(_READ, effect=Effect.READ)
    assert prepare(copy) is not prepared
    assert prepare(copy).definition is copy
    assert prepare(copy) is prepare(copy)


class _AsyncCall:
    async def __call__(self) -> None: ...

    async def method(self) -> None: ...


async def _async(value: int = 1) -> None: ...


@pytest.mark.parametrize(
    ("handler", "is_async"),
    [
        (_async, True),
        (functools.partial(functools.partial(_async), 3), True),
        (_AsyncCall(), True),
        (_AsyncCall().method, True),
        (_read, False),
        (functools.partial(_read, "x"), False),
        (len, False),
    ],
)
def test_an_async_handler_is_known_before_it_is_called(handler: Any, is_async: bool) -> None:
    assert is_async_handler(handler) is is_async


def test_a_tool_without_a_handler_is_ready_for_a_result_from_outside() -> None:
    prepared = PreparedTool(ToolDefinition("ask", "Ask someone.", {"type": "object"}))
    assert prepared.is_async is False
    assert prepared.parse("{}").arguments == {}
