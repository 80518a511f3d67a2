"""References are taken apart, found in texts, and filled in once with what they give."""

from __future__ import annotations

from typing import Any

import pytest

from power_loop.workflow import refs
from power_loop.workflow.refs import (
    Hole,
    Reference,
    ReferenceFault,
    Template,
    holes_and_texts,
    parse_reference,
    section,
)


class Names(dict[str, Any]):
    """Looks names up in a dict."""

    def lookup(self, name: str) -> Any:
        return self.get(name)


NAMES = Names(
    plan={"topics": ["a", {"deep-key": 7}], "0": "zero"}, t="tea", n=3, yes=True, none=None, text="{{t}} and \\{{"
)


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("t", Reference("t")),
        ("plan.topics[1].deep-key", Reference("plan", ("topics", 1, "deep-key"))),
        ("a[0][12]", Reference("a", (0, 12))),
        ("plan.0", Reference("plan", ("0",))),
        ("", None),
        ("a.", None),
        ("a..b", None),
        ("a[01]", None),
        ("a[-1]", None),
        ("a b", None),
        ("a\n", None),
        ("{{a}}", None),
        ("a" * 301, None),
    ],
)
def test_a_reference_is_a_name_with_keys_and_places(text: str, reference: Reference | None) -> None:
    assert parse_reference(text) == reference
    assert reference is None or str(reference) == text


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("{{t}}", "tea"),
        ("on {{ t }}, {{n}} times: {{yes}}{{none}}.", "on tea, 3 times: true."),
        ("{{plan.topics}}", '["a", {"deep-key": 7}]'),
        ("{{plan.topics[1].deep-key}}", "7"),
        ("{{plan.0}}", "zero"),
        (r"as \{{t}} is, {{t}}", "as {{t}} is, tea"),
        ("} }} {", "} }} {"),
        ("{{none.of.this[3]}}", ""),
        ("{{text}}", "{{t}} and \\{{"),
    ],
)
def test_a_text_is_filled_in_once(text: str, filled: str) -> None:
    assert Template(text).fill(NAMES) == filled


def test_a_text_that_is_one_reference_keeps_the_type_where_that_is_asked_for() -> None:
    args = Template(
        {"list": "{{plan.topics}}", "n": "{{n}}", "text": "n is {{n}}", "deep": [{"t": "{{t}}"}], "plain": 5}
    )
    assert args.fill(NAMES, keeps_types=True) == {
        "list": ["a", {"deep-key": 7}],
        "n": 3,
        "text": "n is 3",
        "deep": [{"t": "tea"}],
        "plain": 5,
    }
    assert Template("{{n}}").fill(NAMES) == "3"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("plan.topic", "`plan` is an object with 'topics', '0', which has no 'topic'"),
        ("plan.topics[2]", "`plan.topics` is a list of 2, which has no 2"),
        ("t.x", "`t` is a text, which has no 'x'"),
        ("plan[0]", "has no 0"),
    ],
)
def test_what_a_value_lacks_is_a_fault_that_says_what_is_there(text: str, said: str) -> None:
    reference = parse_reference(text)
    assert reference is not None
    with pytest.raises(ReferenceFault, match=r".") as caught:
        reference.value(NAMES)
    assert said in str(caught.value)
    assert reference.value_or_null(NAMES) is None


def test_what_is_filled_in_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refs, "MAX_FILLED_CHARS", 10)
    assert Template("{{t}} {{t}}").fill(NAMES) == "tea tea"
    with pytest.raises(ReferenceFault) as caught:
        Template(["{{t}} {{t}}", "{{t}} {{t}}"]).fill(NAMES)
    assert caught.value.code == "workflow.too_large"


def test_a_hole_that_is_no_reference_and_one_without_an_end_are_found() -> None:
    assert holes_and_texts("a {{b c}} {{d}}") == ["a ", Hole("b c", None), " ", Hole("d", Reference("d"))]
    assert holes_and_texts("a {{b") == ["a ", Hole("b", None)]


def test_an_output_stands_in_an_input_under_its_name() -> None:
    assert section(Reference("plan"), "text") == "plan:\ntext"
    assert section(Reference("notes"), ["one", "two", None]) == "notes:\n[1] one\n\n[2] two\n\n[3] "
    assert section(Reference("x"), {"a": 1}) == 'x:\n{"a": 1}'
