"""Patterns match what `re` matches, and take bounded time whatever the pattern and the text."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from power_loop.contracts.json_schema import compile_schema
from power_loop.contracts.json_schema.check import MAX_STEPS
from power_loop.contracts.json_schema.pattern import MAX_REMEMBERED, OutOfSteps, Pattern, StepBudget
from power_loop.contracts.json_schema.pattern_syntax import MAX_PATTERN_CHARS, MAX_PATTERN_GROUPS, PatternError


def _search(source: str, text: str) -> bool:
    return Pattern(source).search(text, StepBudget(MAX_STEPS))


_atoms = st.sampled_from(
    ("a", "b", "c", ".", "[ab]", "[^a]", "[a-c]", "[^b-c1]", "\\d", "\\w", "\\W", "\\s", "1", " ", "\\.", "é")
)
_places = st.sampled_from(("^", "$", "\\b", "\\B"))
_repeats = st.sampled_from(("", "", "", "*", "+", "?", "*?", "+?", "??", "{2}", "{0,1}", "{1,}", "{1,3}?", "{0}"))


def _grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    group = st.builds("({}{}){}".format, st.sampled_from(("", "?:")), inner, _repeats)
    return st.one_of(
        st.builds("{}{}".format, inner, inner),
        st.builds("{}|{}".format, inner, inner),
        group,
    )


_plain = st.recursive(st.one_of(st.builds("{}{}".format, _atoms, _repeats), _places), _grown, max_leaves=6)
_looking = st.builds("(?{}{}){}".format, st.sampled_from("=!"), _plain, _plain)
_patterns = st.one_of(_plain, st.builds("{}{}".format, _plain, _looking), _looking)
# Not empty, because `re` finds no `\\B` there, which ECMA-262 does.
_texts = st.text("abc1 é_.", min_size=1, max_size=7)


@settings(max_examples=800)
@given(_patterns, st.lists(_texts, min_size=1, max_size=4))
def test_a_pattern_matches_what_re_matches(source: str, texts: list[str]) -> None:
    pattern = Pattern(source)
    oracle = re.compile(source, re.ASCII)
    for text in texts:
        assert pattern.search(text, StepBudget(MAX_STEPS)) == (oracle.search(text) is not None), text


@settings(max_examples=300)
@given(st.text("ab1()[]{}|*+?^$\\.,-dwbBpuxk<=!:P", max_size=14))
def test_any_text_is_a_pattern_or_refused_with_a_place(source: str) -> None:
    refused: PatternError | None = None
    try:
        assert Pattern(source).search("ab1", StepBudget(MAX_STEPS)) in (True, False)
    except PatternError as error:
        refused = error
    if refused is not None:
        assert refused.source == source
        assert 0 <= refused.position <= len(source)
        assert str(refused).endswith(f"(at character {refused.position})")


@pytest.mark.parametrize(
    ("source", "matching", "other"),
    [
        ("^a$", ["a"], ["a\n", "b", ""]),
        ("^.$", ["a", "😀"], ["\n", "\r", "\u2028", "ab"]),
        (r"^\u0041\x42\u{43}\cJ$", ["ABC\n"], ["abc\n"]),
        (r"^\ud83d\ude00$", ["😀"], ["\ud83d"]),
        (r"^\p{Lu}\P{Lu}\p{Letter}$", ["Äbc"], ["äbc", "ABC"]),
        (r"^[\p{L}_\d-]+$", ["ä_9-"], ["a b"]),
        (r"^(?<year>\d{4})-(?P<month>\d\d)\Z", ["2031-05"], ["2031-5", "2031-05\n"]),
        (r"^(?=.*\d)(?=.*[a-z]).{6,}$", ["abcde1"], ["abcdef", "123456", "a1"]),
        (r"^(?!tmp_)\w+$", ["temp_a"], ["tmp_a"]),
        (r"^[a-z0-9]+(-[a-z0-9]+)*$", ["a-b-c9"], ["a--b", "-a", ""]),
        (r"^a{2,3}$", ["aa", "aaa"], ["a", "aaaa"]),
        (r"^x{,3}$", ["x{,3}"], ["xx"]),
        (r"[\b]", ["\b"], ["b"]),
        (r"^\s$", ["\ufeff", "\u00a0"], ["a"]),
        ("", ["", "a"], []),
    ],
)
def test_the_dialect_is_ecma_262(source: str, matching: list[str], other: list[str]) -> None:
    assert [text for text in matching if not _search(source, text)] == []
    assert [text for text in other if _search(source, text)] == []


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (r"(a)\1", "back-references"),
        (r"(?P<x>a)(?P=x)", "back-references"),
        (r"(?<=a)b", "look-behind"),
        (r"(?=a(?=b))", "inside a look-ahead"),
        (r"(?i)a", "inline flags"),
        (r"a++", "cannot be repeated"),
        (r"a**", "cannot be repeated"),
        (r"*a", "nothing to repeat"),
        (r"^*", "nothing to repeat"),
        (r"(?=a)*", "nothing to repeat"),
        (r"(a", "never closed"),
        (r"a)", "closes nothing"),
        (r"[a", "never closed"),
        (r"[b-a]", "runs backwards"),
        (r"a{3,2}", "counts backwards"),
        (r"\p{X}", "general categories"),
        (r"\p{Latin}", "general categories"),
        (r"\p{}", "general categories"),
        (r"\u12", "hexadecimal"),
        (r"\u{110000}", "no code point"),
        (r"\q", "no meaning"),
        ("a\\", "lone backslash"),
        ("(" * (MAX_PATTERN_GROUPS + 1), "nested deeper"),
        ("a" * (MAX_PATTERN_CHARS + 1), "longer than"),
    ],
)
def test_what_is_no_pattern_of_the_dialect_is_refused_with_its_reason(source: str, reason: str) -> None:
    with pytest.raises(PatternError, match=re.escape(reason)):
        Pattern(source)


@pytest.mark.parametrize(
    "source",
    [
        *("(a+)+$", "(a|a)*$", "(a|aa)+$", "(.*a){12}$", "(a?){40}a{40}$", "^(([a-z])+.)+[A-Z]([a-z])+$"),
        *("(x+x+)+y", "^(a|b|ab)*c$", r"(\w+\s?)*$", "(?=(a+)+$)a", "(?!(a|a)*!)a*$", "((a{0,50}){0,50}){0,50}$"),
        *("a.{2000}b", "(a|b|c|d)*e" * 30),
    ],
)
def test_no_pattern_takes_more_steps_than_it_is_given(source: str) -> None:
    pattern = Pattern(source)
    # `re` needs longer than the age of the universe for most of these.
    for text in ("a" * 30_000 + "!", "ab" * 5_000, "xyzzy aa " * 500):
        budget = StepBudget(MAX_STEPS)
        try:
            assert pattern.search(text, budget) in (True, False)
        except OutOfSteps:
            assert budget.steps < 0


def test_everyday_patterns_cost_about_one_step_a_character() -> None:
    text = "a-" * 20_000 + "b"
    budget = StepBudget(MAX_STEPS)
    assert Pattern("^[a-z0-9]+(-[a-z0-9]+)*$").search(text, budget)
    assert MAX_STEPS - budget.steps < len(text)


def test_a_search_that_runs_out_of_steps_is_no_match_and_no_mismatch() -> None:
    validator = compile_schema({"pattern": "a.{1500}b"})
    [problem] = validator.problems("a" * 100_000)
    assert (problem.path, problem.keyword) == ("$", "limit")


def test_what_a_pattern_remembers_is_bounded() -> None:
    pattern = Pattern("[ab].{300}c")
    for seed in range(12):
        text = "".join("ab"[(seed >> (at % 4)) & 1] for at in range(1_000))
        with contextlib.suppress(OutOfSteps):
            pattern.search(text, StepBudget(100_000))
    held = sum(1 + len(ways.members) for ways in pattern._sets.values())
    assert held <= 2 * MAX_REMEMBERED
