"""`@tool` makes a definition of a function that plain code can still call."""

from __future__ import annotations

import asyncio
import functools
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import pytest

import power_loop.contracts.tools as contracts
from power_loop.contracts.errors import ToolDefinitionError
from power_loop.contracts.states import Effect
from power_loop.contracts.tools import DEFAULT_RESULT_CHARS, DEFAULT_TIMEOUT_S, ToolDefinition
from power_loop.tools.decorator import tool
from power_loop.tools.function_tool import FunctionTool
from power_loop.tools.prepared import prepare
from power_loop.tools.registry import ToolRegistry
from tests.tools.calls import CallContext, call

if TYPE_CHECKING:
    from power_loop.contracts.tools import ToolContext


@dataclass
class Place:
    city: str
    zone: int = 1


@tool
def weather(place: Place, unit: Literal["C", "F"] = "C", days: Optional[int] = None) -> str:  # noqa: UP045
    """Tell the weather.

    It is always sunny.

    Args:
        place: Where.
        unit: Celsius or Fahrenheit.
    """
    return f"{place.city}, zone {place.zone}: 30 {unit}, {days}"


@pytest.mark.promise("tool-from-hints")
def test_a_bare_decorator_takes_everything_from_the_function() -> None:
    assert isinstance(weather, ToolDefinition)
    assert weather.name == "weather"
    assert weather.description == "Tell the weather.\n\nIt is always sunny."
    assert weather.input_schema == {
        "type": "object",
        "properties": {
            "place": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "zone": {"type": "integer", "default": 1}},
                "required": ["city"],
                "additionalProperties": False,
                "description": "Where.",
            },
            "unit": {
                "type": "string",
                "enum": ["C", "F"],
                "description": "Celsius or Fahrenheit.",
                "default": "C",
            },
            "days": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        },
        "required": ["place"],
        "additionalProperties": False,
    }
    assert (weather.effect, weather.timeout_s) == (Effect.ONCE, DEFAULT_TIMEOUT_S)
    assert (weather.parallel, weather.requires_approval) == (True, False)
    assert weather.max_result_chars == DEFAULT_RESULT_CHARS


def test_the_function_stays_callable_by_plain_code() -> None:
    assert weather(Place("Rome"), unit="F") == "Rome, zone 1: 30 F, None"
    assert list(inspect.signature(weather).parameters) == ["place", "unit", "days"]


@pytest.mark.promise("tool-from-hints")
def test_the_handler_gets_values_of_the_hinted_types() -> None:
    assert call(weather, '{"place": {"city": "Rome"}, "days": null}') == "Rome, zone 1: 30 C, None"


def test_options_say_what_the_function_does_not() -> None:
    async def probe(key: str) -> None: ...

    @tool(
        name="look",
        description="Look at it.",
        effect="read",
        timeout_s=None,
        parallel=False,
        requires_approval=True,
        max_result_chars=10,
        probe=probe,
    )
    async def look_at(thing: Annotated[str, "What to look at."]) -> str:
        return f"looking at {thing}"

    assert (look_at.name, look_at.description, look_at.effect) == ("look", "Look at it.", Effect.READ)
    assert (look_at.timeout_s, look_at.parallel, look_at.requires_approval) == (None, False, True)
    assert (look_at.max_result_chars, look_at.probe) == (10, probe)
    assert look_at.input_schema["properties"]["thing"]["description"] == "What to look at."
    assert asyncio.run(look_at("it")) == "looking at it"
    assert call(look_at, '{"thing": "it"}') == "looking at it"


def test_a_parameter_annotated_tool_context_receives_the_context_and_is_hidden_from_the_model() -> None:
    @tool
    def whoami(greeting: str, ctx: ToolContext) -> str:
        """Say who asks."""
        return f"{greeting} {ctx.session_id}"

    @tool
    def maybe(*, ctx: Optional[contracts.ToolContext] = None) -> str:  # noqa: UP045
        """Say who asks."""
        return ctx.session_id if ctx else "nobody"

    assert whoami.takes_context == "ctx"
    assert list(whoami.input_schema["properties"]) == ["greeting"]
    assert call(whoami, '{"greeting": "hello"}') == "hello sess_1"
    assert whoami("hello", CallContext()) == "hello sess_1"
    assert call(maybe, "") == "sess_1"
    assert maybe() == "nobody"


def test_another_class_named_tool_context_is_an_argument() -> None:
    @dataclass
    class ToolContext:
        tool: str

    @tool
    def describe(ctx: ToolContext) -> str:
        """Describe a tool."""
        return ctx.tool + ToolContext.__name__

    assert describe.takes_context is None
    assert call(describe, '{"ctx": {"tool": "hammer"}}') == "hammerToolContext"


def test_hints_may_name_what_the_function_uses_of_the_functions_around_it() -> None:
    @dataclass
    class Local:
        value: int

    @tool
    def double(local: Local) -> int:
        """Double it."""
        return Local(local.value * 2).value

    assert call(double, '{"local": {"value": 4}}') == 8


class Shelf:
    def __init__(self, books: list[str]) -> None:
        self.books = books

    @tool(effect="read")
    def find(self, word: str) -> list[str]:
        """Find books."""
        return [book for book in self.books if word in book]

    async def count(self, ctx: ToolContext) -> int:
        """Count books."""
        return len(self.books)

    @staticmethod
    @tool
    def motto() -> str:
        """Say the motto."""
        return "read"

    @classmethod
    def make(cls, count: int) -> int:
        """Make a shelf."""
        return len(cls(["x"] * count).books)


def test_a_decorated_method_is_the_tool_of_its_instance() -> None:
    first, second = Shelf(["red", "blue"]), Shelf(["green"])
    assert call(first.find, '{"word": "e"}') == ["red", "blue"]
    assert call(second.find, '{"word": "r"}') == ["green"]
    assert list(first.find.input_schema["properties"]) == ["word"]
    assert first.find("red") == ["red"]
    assert Shelf.find(first, "red") == ["red"]
    assert first.motto is Shelf.motto
    assert call(Shelf.motto, "{}") == "read"


def test_a_method_without_its_object_says_how_it_is_offered() -> None:
    with pytest.raises(ToolDefinitionError, match="register it from an instance"):
        prepare(Shelf.find)


def test_bound_methods_partials_and_objects_that_can_be_called_are_tools() -> None:
    class Adder:
        """Is not the description."""

        def __call__(self, amount: int) -> int:
            """Add."""
            return amount + 1

    def move(piece: str, to: str, *, speed: int = 1) -> str:
        """Move a piece."""
        return f"{piece} to {to} at {speed}"

    assert call(tool(Shelf(["a"]).count), "") == 1
    assert call(tool(Shelf.make), '{"count": 3}') == 3
    adder = tool(name="add")(Adder())
    assert (adder.description, call(adder, '{"amount": 2}')) == ("Add.", 3)
    part = tool(functools.partial(functools.partial(move, "king"), to="e4"))
    assert part.name == "move"
    assert list(part.input_schema["properties"]) == ["speed"]
    assert call(part, '{"speed": 9}') == "king to e4 at 9"


def test_a_wrapped_function_keeps_its_hints() -> None:
    def logged(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return wrapper

    @tool
    @logged
    def halve(value: int) -> float:
        """Halve it."""
        return value / 2

    assert call(halve, '{"value": 3}') == 1.5


def test_a_schema_of_its_own_gives_plain_json_values() -> None:
    schema = {"type": "object", "properties": {"place": {"type": "object"}}, "required": ["place"]}

    @tool(input_schema=schema)
    def visit(place: Place, ctx: ToolContext) -> str:
        """Visit a place."""
        return f"{place!r} {ctx.call_id}"

    assert visit.input_schema is schema
    assert call(visit, '{"place": {"city": 1}}') == "{'city': 1} call_1"


@pytest.mark.parametrize("is_bare", [True, False])
def test_every_problem_is_named_at_once(is_bare: bool) -> None:
    def bad(untyped, data: bytes, *rest: int, **more: int):
        pass

    wrong_options: Any = {"name": "fs.read", "timeout_s": -1, "max_result_chars": 0, "probe": lambda: None}
    with pytest.raises(ToolDefinitionError) as caught:
        tool(**({} if is_bare else wrong_options))(bad)
    text = "\n".join(caught.value.problems)
    expected = [
        "'untyped': it has no type hint",
        "'data': bytes",
        "'rest': it gathers",
        "'more': it gathers",
        "no descr",
    ]
    if not is_bare:
        expected += ["such as 'fs_read'", "timeout_s -1", "max_result_chars 0", "its probe"]
    assert [part for part in expected if part not in text] == []
    assert len(caught.value.problems) == len(expected)
    assert caught.value.code == "tool.invalid_definition"
    assert str(caught.value).startswith(f"the tool {'bad' if is_bare else 'fs.read'!r} cannot be offered")


@pytest.mark.parametrize(
    ("handler", "reason"),
    [
        (lambda value: value, "'<lambda>' holds '<', '>'"),
        (3, "cannot be called"),
        (classmethod(len), r"'len' .* class method.*tool\(YourClass.method\)"),
        (print, "signature of its handler cannot be read|'args': it gathers arguments without names"),
    ],
)
def test_what_is_no_tool_is_refused(handler: Any, reason: str) -> None:
    with pytest.raises(ToolDefinitionError, match=reason):
        tool(handler)


def test_a_class_method_says_how_it_becomes_a_tool_and_its_bound_method_is_one() -> None:
    def make(cls, count: int) -> str:
        """Make."""
        return "made"

    with pytest.raises(ToolDefinitionError, match="bound method, as in"):
        tool(make)
    assert call(tool(Shelf.make), '{"count": 3}') == 3


def test_a_static_method_is_a_tool_in_either_order() -> None:
    class Desk:
        @tool
        @staticmethod
        async def ring(times: int) -> str:
            """Ring."""
            return "ring" * times

    assert prepare(Desk.ring).is_async
    assert call(Desk.ring, '{"times": 2}') == "ringring"
    assert Desk().ring is Desk.ring


def test_a_tool_that_is_one_already_stays_what_it_is() -> None:
    assert tool(weather) is weather
    plain = ToolDefinition("ask", "Ask.", {"type": "object"})
    assert tool(plain) is plain  # type: ignore[comparison-overlap, type-var]
    with pytest.raises(ToolDefinitionError, match=r"dataclasses\.replace"):
        tool(effect="read")(weather)
    registry = ToolRegistry()
    assert registry.tool(weather) is weather
    assert registry.names == ("weather",)


@pytest.mark.parametrize("effect", list(Effect))
def test_a_definition_takes_the_word_of_its_effect(effect: Effect) -> None:
    made = ToolDefinition("ask", "Ask.", {"type": "object"}, lambda: "", effect=effect.value)
    assert made.effect is effect
    assert prepare(made).definition is made


def test_a_generator_is_refused_because_its_result_has_no_end() -> None:
    async def stream(count: int) -> Any:
        """Stream numbers."""
        yield count

    with pytest.raises(ToolDefinitionError, match="progress"):
        tool(stream)


def test_two_contexts_are_refused() -> None:
    def greedy(first: ToolContext, second: ToolContext) -> None:
        """Take two."""

    with pytest.raises(ToolDefinitionError, match="'first', 'second' all ask"):
        tool(greedy)


def test_an_unknown_effect_is_refused_with_the_choices() -> None:
    with pytest.raises(ToolDefinitionError, match=r"'maybe' is none of Effect\.READ, Effect\.IDEMPOTENT, Effect\.ONCE"):
        tool(effect="maybe")(weather.handler)


def test_a_tool_is_compiled_once() -> None:
    assert prepare(weather) is prepare(weather)
    bound = FunctionTool(name="x", description="d", input_schema={"type": "object"})
    assert prepare(bound) is prepare(bound)
