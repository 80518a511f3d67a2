"""What the kernel tells a model is bounded, whatever strangers put into it, and names what happened."""

from __future__ import annotations

import pytest

from power_loop.contracts.json_schema import compile_schema
from power_loop.contracts.llm import OutputSchema
from power_loop.contracts.messages import TextPart
from power_loop.core.context import texts

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a", "b"]}


class Unprintable(Exception):  # noqa: N818
    def __str__(self) -> str:
        raise RuntimeError("no words")


def test_invalid_arguments_names_every_problem_with_its_place() -> None:
    problems = compile_schema(SCHEMA).problems({"a": "one"})
    text = texts.invalid_arguments("add", problems)
    assert text.startswith("'add' was not run")
    assert len(problems) == 2
    for problem in problems:
        assert f"- at {problem.path}: {problem.message}" in text


def test_a_flood_of_problems_is_cut_and_counted() -> None:
    items = {"type": "array", "items": {"type": "integer"}}
    problem = compile_schema(items).problems(["x"])[0]
    text = texts.repair_request([problem] * 100)
    assert text.count("- at ") == texts.MAX_PROBLEMS
    assert f"- and {100 - texts.MAX_PROBLEMS} more" in text


@pytest.mark.parametrize(
    "say",
    [
        lambda text: texts.crashed("add", ValueError(text)),
        lambda text: texts.denied("add", text),
        texts.unknown_tool,
    ],
)
def test_a_strangers_text_is_told_and_bounded(say: object) -> None:
    assert callable(say)
    assert "no such file" in say("no such file")
    long = say("x" * 10**6)
    assert len(long) < 2 * texts.MAX_QUOTED_CHARS
    assert "1000000 characters" in long


def test_a_crash_tells_the_kind_and_the_words_of_the_exception_and_nothing_of_the_code() -> None:
    with pytest.raises(KeyError) as caught:
        {}["missing"]
    assert texts.crashed("add", caught.value) == "'add' failed: KeyError: 'missing'"
    assert texts.crashed("add", ValueError()) == "'add' failed: ValueError"
    assert texts.crashed("add", Unprintable()) == "'add' failed: Unprintable"


def test_a_denial_without_a_reason_is_still_a_sentence() -> None:
    assert texts.denied("pay", "too much") == "'pay' was not run, because it was not allowed: too much"
    assert texts.denied("pay", " ") == "'pay' was not run, because it was not allowed."


def test_a_call_that_may_have_had_its_effect_never_sounds_as_if_it_had_not() -> None:
    for text in (
        texts.unknown_outcome("pay"),
        texts.MISSING_RESULT,
        texts.timed_out("pay", 120.0, may_still_run=True),
        texts.timed_out("pay", 0.5, may_still_run=False),
        texts.cancelled_while_running(may_still_run=True),
        texts.cancelled_while_running(may_still_run=False),
    ):
        assert "may" in text
        assert "no effect" not in text
    assert "120 seconds" in texts.timed_out("pay", 120.0, may_still_run=True)
    assert "0.5 seconds" in texts.timed_out("pay", 0.5, may_still_run=False)
    for text in (texts.CANCELLED_CALL, texts.had_no_effect("pay")):
        assert "effect" in text


def test_a_schema_is_asked_for_in_words_that_are_made_once() -> None:
    schema = OutputSchema({"type": "object", "title": "名前"}, description="The plan.")
    text = texts.prompted_schema(schema)
    assert '{"type":"object","title":"名前"}' in text
    assert "The plan." in text
    assert texts.prompted_schema(schema) is text


def test_left_out_counts() -> None:
    assert texts.left_out(1).startswith("The oldest message of")
    assert texts.left_out(12).startswith("The oldest 12 messages of")


def test_content_is_one_text() -> None:
    assert texts.content("x") == (TextPart("x"),)
