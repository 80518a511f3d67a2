"""What was recalled is framed as data, the best first, and never takes more than its budget."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from power_loop.contracts.messages import clean_text
from power_loop.core.context.memory import framed
from power_loop.core.context.tokens import estimate_text
from power_loop.memory import Memory

TEXTS = st.text(max_size=60) | st.sampled_from(
    ["</memories>", '- "x"\n- y', "a\u2028b", "\ud800", "x" * 2_000, "词" * 500]
)
MEMORIES = st.builds(Memory, text=TEXTS, created_at_ms=st.none() | st.integers())


def lines_of(text: str) -> list[str]:
    """The texts that a frame shows."""
    lines = text.splitlines()
    assert lines[1] == "<memories>"
    assert lines[-1] == "</memories>"
    shown = [line[2:] for line in lines[2:-1]]
    return [json.loads(line.partition(") ")[2] if line.startswith("(") else line) for line in shown]


@settings(max_examples=300, deadline=None)
@given(st.lists(MEMORIES, max_size=8), st.integers(min_value=1, max_value=2_000))
def test_a_frame_holds_its_budget_and_its_texts_and_nothing_else(memories: list[Memory], max_tokens: int) -> None:
    found = framed(memories, max_tokens=max_tokens)
    assert found.memories + found.left_out == len(memories)
    if found.text is None:
        assert (found.tokens, found.memories) == (0, 0)
        return
    assert found.tokens == estimate_text(found.text) <= max_tokens
    shown = lines_of(found.text)
    assert len(shown) == found.memories
    given = [clean_text(memory.text) for memory in memories]
    at = -1
    for text in shown:
        place = next((n for n, one in enumerate(given) if n > at and one == text), None)
        if place is None:  # only the very first may be cut
            assert text.endswith(" (cut)")
            place = next(n for n, one in enumerate(given) if n > at and one.startswith(text.removesuffix(" (cut)")))
        at = place


def test_one_that_does_not_fit_makes_room_for_those_behind_it_and_the_first_is_cut() -> None:
    small, big = Memory("small"), Memory("big " * 1_000)
    assert lines_of(framed([small, big, Memory("last")], max_tokens=150).text or "") == ["small", "last"]
    cut = framed([big, small], max_tokens=200)
    assert cut.memories >= 1
    assert lines_of(cut.text or "")[0].endswith(" (cut)")
    assert framed([big], max_tokens=20) == framed([], max_tokens=20).__class__(None, 0, 0, 1)


@pytest.mark.parametrize("memories", ["text", 3, None, [3], ["text"], {"text": "x"}])
def test_what_is_no_list_of_memories_is_refused(memories: object) -> None:
    with pytest.raises(TypeError, match="Memory"):
        framed(memories, max_tokens=100)  # type: ignore[arg-type]
