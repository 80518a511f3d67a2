"""A system prompt is what was given, in order, and the same every time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from power_loop import SystemPrompt, ToolDefinition, tool
from power_loop.core.context.prompt import MAX_PROMPT_CHARS, MAX_SECTIONS
from power_loop.errors import InputError, ToolDefinitionError

TEXTS = st.text(max_size=30)
TITLES = st.text(st.characters(min_codepoint=32, max_codepoint=0x2000, exclude_categories=["Zl", "Zp", "Cc"])).filter(
    lambda title: title.strip() and len(title) <= 200
)


@tool(guidance="Use it for current prices.\nNever for prices of last year.")
def find_price(item: str) -> str:
    """Find a price."""
    return item


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def test_sections_stand_in_order_under_their_titles_and_nothing_is_said_that_was_not_given() -> None:
    prompt = SystemPrompt("You sell boats.").section("Rules", "Be brief.\n").section("Prices", "In kroner.")
    assert prompt.text([find_price]) == "You sell boats.\n\n# Rules\n\nBe brief.\n\n# Prices\n\nIn kroner."
    assert SystemPrompt().text([find_price]) == ""


def test_a_section_is_left_out_where_its_condition_is_false_or_it_is_empty() -> None:
    prompt = SystemPrompt().section("A", "a", when=False).section("B", "  \n").section("C", "c")
    assert str(prompt) == "# C\n\nc"


def test_the_tools_of_a_prompt_are_their_guidance_and_not_what_their_definitions_say() -> None:
    prompt = SystemPrompt("Hi.").tools("When to use which tool").section("End", "Bye.")
    assert prompt.text([add, find_price]) == (
        "Hi.\n\n# When to use which tool\n\n"
        "- `find_price`: Use it for current prices.\n  Never for prices of last year.\n\n# End\n\nBye."
    )
    assert prompt.text([add]) == str(prompt) == "Hi.\n\n# End\n\nBye."


@given(st.lists(st.tuples(TITLES, TEXTS, st.booleans()), max_size=5))
def test_a_prompt_is_the_same_text_however_often_it_is_built_and_builders_do_not_change(
    sections: list[tuple[str, str, bool]],
) -> None:
    def build() -> SystemPrompt:
        prompt = SystemPrompt("Opening.")
        for title, text, when in sections:
            longer = prompt.section(title, text, when=when)
            before = prompt.text()
            assert longer.text().startswith(before)
            assert prompt.text() == before
            prompt = longer
        return prompt.tools()

    first, second = build(), build()
    assert first == second
    assert hash(first) == hash(second)
    assert first.text([find_price]) == second.text([find_price])
    first.text([find_price]).encode("utf-8")


@pytest.mark.parametrize(
    ("make", "wanted"),
    [
        (lambda: SystemPrompt(lambda: "now"), "is a function"),  # type: ignore[arg-type]
        (lambda: SystemPrompt().section("A", 1), "the section 'A' is 1: give text"),  # type: ignore[arg-type]
        (lambda: SystemPrompt().section("", "a"), "is no heading"),
        (lambda: SystemPrompt().section("a\nb", "a"), "is no heading"),
        (lambda: SystemPrompt().tools(" "), "is no heading"),
        (lambda: SystemPrompt("x" * (MAX_PROMPT_CHARS + 1)).text(), "characters, and"),
    ],
)
def test_what_is_no_text_is_refused(make: Any, wanted: str) -> None:
    with pytest.raises(InputError) as refused:
        make()
    assert wanted in refused.value.message


def test_a_prompt_has_a_limit_of_sections() -> None:
    prompt = SystemPrompt()
    for number in range(MAX_SECTIONS):
        prompt = prompt.section(f"S{number}", "x")
    with pytest.raises(InputError):
        prompt.section("One more", "x")


@pytest.mark.parametrize("guidance", [1, "x" * 4_001])
def test_guidance_is_text_of_bounded_length(guidance: Any) -> None:
    with pytest.raises(ToolDefinitionError) as refused:
        tool(guidance=guidance)(lambda: None)
    assert any("guidance" in problem for problem in refused.value.problems)
    assert ToolDefinition("a", "b", {"type": "object"}).guidance is None
