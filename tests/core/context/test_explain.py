"""Two prompts part where a provider's cache ends: at the first segment that is not what it was."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from power_loop.context import Segment, SegmentKind
from power_loop.contracts.explanation import TAIL_KINDS
from power_loop.contracts.llm import Usage
from power_loop.contracts.records import ModelCall, ModelCallRecord
from power_loop.core.context.explain import Parting, explain_call, parting

TOOLS = Segment(SegmentKind.TOOLS, 50, digest="a")
SYSTEM = Segment(SegmentKind.SYSTEM, 20, digest="b")


def log(from_seq: int, to_seq: int, kind: SegmentKind = SegmentKind.MESSAGES) -> Segment:
    return Segment(kind, 10 * (to_seq - from_seq + 1), from_seq, to_seq)


def fold(to_seq: int) -> Segment:
    return Segment(SegmentKind.FOLD, 30, 1, to_seq)


def short(from_seq: int, to_seq: int) -> Segment:
    return log(from_seq, to_seq, SegmentKind.PROJECTED)


def tail(kind: SegmentKind, text: str) -> Segment:
    return Segment(kind, 5, digest=text)


GROWN = [
    ("a longer log", [TOOLS, SYSTEM, log(1, 3)], [TOOLS, SYSTEM, log(1, 5)], 100),
    ("the very same", [TOOLS, SYSTEM, log(1, 3)], [TOOLS, SYSTEM, log(1, 3)], 100),
    ("behind a fold", [SYSTEM, fold(8), log(9, 10)], [SYSTEM, fold(8), log(9, 12)], 70),
    ("behind short sends", [short(1, 4), log(5, 5)], [short(1, 4), log(5, 8)], 50),
    ("messages behind short sends", [short(1, 4)], [short(1, 4), log(5, 5)], 40),
    ("other live state", [log(1, 1), tail(SegmentKind.TODO, "x")], [log(1, 3), tail(SegmentKind.TODO, "y")], 10),
    ("a notice that went", [log(1, 1), tail(SegmentKind.NOTICE, "x")], [log(1, 3)], 10),
    ("nothing before", [], [log(1, 1)], 0),
]


@pytest.mark.parametrize(("before", "after", "shared"), [one[1:] for one in GROWN], ids=[one[0] for one in GROWN])
def test_a_prompt_that_only_grew_broke_nothing(before: list[Segment], after: list[Segment], shared: int) -> None:
    assert parting(before, after) == Parting(shared)


OTHER_TOOLS = Segment(SegmentKind.TOOLS, 60, digest="c")
OTHER_SYSTEM = Segment(SegmentKind.SYSTEM, 25, digest="d")
PINNED = log(3, 3, SegmentKind.PINNED)
LEFT_OUT = Segment(SegmentKind.LEFT_OUT, 0, 1, 4)
BROKEN = [
    ([TOOLS, SYSTEM, log(1, 2)], [OTHER_TOOLS, SYSTEM, log(1, 4)], 0, OTHER_TOOLS, "the tools changed"),
    ([TOOLS, SYSTEM, log(1, 2)], [TOOLS, OTHER_SYSTEM, log(1, 4)], 50, OTHER_SYSTEM, "the system prompt changed"),
    ([SYSTEM, log(1, 2)], [TOOLS, SYSTEM, log(1, 4)], 0, TOOLS, "the tools came"),
    ([TOOLS, SYSTEM, log(1, 2)], [SYSTEM, log(1, 4)], 0, TOOLS, "tools is not there any more"),
    ([TOOLS, SYSTEM, log(1, 2)], [TOOLS, log(1, 4)], 50, SYSTEM, "system is not there any more"),
    ([SYSTEM, log(1, 9)], [SYSTEM, fold(6), log(7, 9)], 20, fold(6), "messages 1 to 6 were folded into a summary"),
    ([fold(6), log(7, 9)], [fold(8), log(9, 9)], 0, fold(8), "messages 1 to 8 were folded into a summary"),
    ([log(1, 9)], [fold(6), PINNED, log(7, 9)], 0, fold(6), "messages 1 to 6 were folded into a summary"),
    ([log(1, 4)], [short(1, 4), log(5, 5)], 0, short(1, 4), "messages 1 to 4 are shown in short"),
    ([short(1, 4), log(5, 8)], [short(1, 8), log(9, 9)], 40, short(1, 8), "messages 1 to 8 are shown in short"),
    ([short(1, 4), log(5, 5)], [log(1, 6)], 0, log(1, 6), "messages 1 to 6 are shown as they are"),
    ([log(1, 9)], [LEFT_OUT, log(5, 11)], 0, LEFT_OUT, "messages 1 to 4 did not fit"),
    ([log(1, 9)], [log(1, 5)], 50, log(1, 5), "what stood behind message 5 is not there any more"),
    ([log(1, 9)], [log(1, 5), short(6, 9)], 50, short(6, 9), "messages 6 to 9 are shown in short"),
    ([SYSTEM, log(1, 3)], [SYSTEM], 20, log(1, 3), "messages 1-3 is not there any more"),
]


@pytest.mark.parametrize(("before", "after", "shared", "broken_by", "reason"), BROKEN)
def test_the_first_segment_that_is_not_what_it_was_is_named(
    before: list[Segment], after: list[Segment], shared: int, broken_by: Segment, reason: str
) -> None:
    assert parting(before, after) == Parting(shared, broken_by, reason)


segments = st.lists(
    st.one_of(
        st.sampled_from([TOOLS, OTHER_TOOLS, SYSTEM, OTHER_SYSTEM, fold(3), fold(6), LEFT_OUT]),
        st.builds(
            lambda kind, low, more: log(low, low + more, kind),
            st.sampled_from([SegmentKind.PINNED, SegmentKind.PROJECTED, SegmentKind.MESSAGES]),
            st.integers(1, 4),
            st.integers(0, 4),
        ),
        st.builds(tail, st.sampled_from(sorted(TAIL_KINDS)), st.sampled_from("xy")),
    ),
    max_size=6,
)


@given(segments, segments)
def test_what_is_shared_is_no_more_than_either_prompt_has(before: list[Segment], after: list[Segment]) -> None:
    found = parting(before, after)
    assert 0 <= found.shared_tokens <= min(sum(one.tokens for one in before), sum(one.tokens for one in after))
    assert (found.broken_by is None) == (found.reason is None)
    assert found.broken_by is None or (found.broken_by in (*before, *after) and found.broken_by.kind not in TAIL_KINDS)


@given(segments)
def test_no_prompt_parts_from_itself(prompt: list[Segment]) -> None:
    assert parting(prompt, prompt).broken_by is None


# ---- whole calls ----


def record(reply_seq: int, *of: Segment, model: str = "gpt", tokens: int | None = 70) -> ModelCallRecord:
    call = ModelCall(model, "end", Usage(75, 5, 64), 1, 10, estimated_tokens=tokens, segments=of)
    return ModelCallRecord(reply_seq, 2, 1, call, 0)


def test_the_first_call_is_compared_with_none() -> None:
    found = explain_call("sess_1", record(2, SYSTEM, log(1, 1)), None)
    assert (found.previous_call, found.shared_tokens, found.broken_by, found.reason) == (None, 0, None, None)


def test_another_model_shares_nothing() -> None:
    found = explain_call("sess_1", record(4, SYSTEM, log(1, 3)), record(2, SYSTEM, log(1, 1), model="claude"))
    assert (found.shared_tokens, found.broken_by) == (0, None)
    assert found.reason == "another model was asked: 'gpt', and 'claude' before"


@pytest.mark.parametrize(("before", "after", "said"), [((), (SYSTEM,), 2), ((SYSTEM,), (), 4)])
def test_calls_without_segments_are_not_compared(
    before: tuple[Segment, ...], after: tuple[Segment, ...], said: int
) -> None:
    found = explain_call("sess_1", record(4, *after), record(2, *before))
    assert found.reason == f"the segments of call {said} were not recorded"


def test_a_request_that_was_changed_is_not_compared() -> None:
    changed = Segment(SegmentKind.CHANGED, 12, name="a hook rewrote it")
    found = explain_call("sess_1", record(4, SYSTEM, log(1, 3), changed), record(2, SYSTEM, log(1, 1)))
    assert found.reason == "the request of call 4 is not what its segments say: a hook rewrote it"
    assert found.broken_by is None


def test_an_explanation_reads_as_a_table() -> None:
    memory = Segment(SegmentKind.MEMORY, 1_200, name="user")
    found = explain_call("sess_1", record(9, SYSTEM, fold(6), log(7, 8), memory), record(6, SYSTEM, log(1, 5)))
    assert str(found).splitlines() == [
        "call 9 of session 'sess_1' (send 2, round 1), gpt",
        "about 70 tokens; 75 by the provider, 64 of them cached",
        "  system                              20",
        "  fold 1-6                            30",
        "  messages 7-8                        20",
        "  memory user                      1,200",
        "shares about 20 tokens with call 6",
        "broken by fold 1-6: messages 1 to 6 were folded into a summary",
    ]
