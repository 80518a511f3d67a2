"""The decision: the same facts, the same action; and every turn ends."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from power_loop.contracts.llm import StopReason
from power_loop.contracts.states import SendStatus
from power_loop.core.turn.decide import (
    Abort,
    AskAgain,
    CallModel,
    Conclude,
    Finish,
    Fold,
    OutputCheck,
    ReplyFacts,
    RunTools,
    TakeInput,
    TurnFacts,
    decide,
    ending_of,
)

replies = st.builds(
    ReplyFacts,
    stop=st.sampled_from(StopReason),
    has_calls=st.booleans(),
    has_text=st.booleans(),
    output=st.sampled_from(OutputCheck),
    concludes=st.sampled_from([None, SendStatus.ROUNDS_EXCEEDED, SendStatus.TOOL_CALLS_EXCEEDED]),
)
counts = st.integers(min_value=0, max_value=3)
lefts = st.integers(min_value=-2, max_value=3)
all_facts = st.builds(
    TurnFacts,
    runnable_calls=counts,
    waiting_calls=counts,
    rounds_left=lefts,
    tool_calls_left=lefts,
    tokens_left=lefts,
    stopped=st.sampled_from([None, SendStatus.CANCELLED, SendStatus.TIME_EXCEEDED]),
    has_follow_up=st.booleans(),
    reply=st.none() | replies,
    window_is_full=st.booleans(),
)


@given(all_facts)
def test_the_same_facts_give_the_same_action(facts: TurnFacts) -> None:
    assert decide(facts) == decide(replace(facts))


@given(all_facts)
def test_a_model_is_never_called_with_open_calls(facts: TurnFacts) -> None:
    if isinstance(decide(facts), (CallModel, Conclude, AskAgain)):
        assert facts.runnable_calls == facts.waiting_calls == 0


@given(all_facts)
def test_a_stopped_turn_does_nothing_but_end(facts: TurnFacts) -> None:
    if facts.stopped is not None:
        assert decide(facts) == Abort(facts.stopped)


@given(all_facts)
def test_calls_that_wait_for_nobody_run_before_the_turn_rests(facts: TurnFacts) -> None:
    if facts.stopped is None and facts.runnable_calls:
        assert decide(facts) == RunTools()


@given(all_facts)
def test_nothing_is_asked_beyond_the_limits(facts: TurnFacts) -> None:
    action = decide(facts)
    if isinstance(action, CallModel):
        assert facts.rounds_left > 0
        assert facts.tokens_left > 0
        assert facts.tool_calls_left >= 0
    if isinstance(action, Conclude):
        assert facts.tokens_left > 0


@given(all_facts)
def test_a_full_window_is_folded_exactly_where_a_model_would_be_asked(facts: TurnFacts) -> None:
    without = decide(replace(facts, window_is_full=False))
    assert not isinstance(without, Fold)
    asks = isinstance(without, (CallModel, Conclude))
    assert decide(replace(facts, window_is_full=True)) == (Fold() if asks else without)


@given(replies)
def test_a_reply_cut_by_its_length_or_withheld_never_counts_as_an_answer(reply: ReplyFacts) -> None:
    if reply.stop in (StopReason.LENGTH, StopReason.CONTENT_FILTER, StopReason.REFUSAL, StopReason.CONTEXT_FULL):
        assert ending_of(reply) is not SendStatus.COMPLETED


@settings(max_examples=500)
@given(st.data(), st.integers(min_value=1, max_value=6), st.integers(min_value=0, max_value=4), st.integers(1, 30))
def test_every_turn_ends_whatever_the_model_and_the_tools_do(
    data: st.DataObject, rounds: int, tool_calls: int, tokens: int
) -> None:
    """A driver in miniature: its world is drawn at random, and it has to come to rest within its limits."""
    facts = TurnFacts(rounds_left=rounds, tool_calls_left=tool_calls, tokens_left=tokens)
    model_calls = 0
    for _ in range(6 * (rounds + 3)):
        action = decide(facts)
        if isinstance(action, (Finish, Abort)):
            assert model_calls <= rounds + 1
            return
        if isinstance(action, RunTools):
            waits = data.draw(st.integers(min_value=0, max_value=facts.runnable_calls))
            facts = replace(facts, runnable_calls=0, waiting_calls=facts.waiting_calls + waits, reply=None)
            continue
        if isinstance(action, AskAgain):
            facts = replace(facts, reply=None)
            continue
        if isinstance(action, Fold):
            # Whether it came to anything or not, a fold is not due again before there is another reply.
            facts = replace(facts, reply=None, window_is_full=False)
            continue
        model_calls += 1
        reply = data.draw(replies)
        reply = replace(reply, concludes=action.status if isinstance(action, Conclude) else None)
        asked = data.draw(st.integers(min_value=1, max_value=3)) if reply.has_calls else 0
        runs = 0 if reply.concludes else min(asked, max(facts.tool_calls_left, 0))
        facts = replace(
            facts,
            reply=reply,
            window_is_full=data.draw(st.booleans()),
            runnable_calls=runs,
            rounds_left=facts.rounds_left - 1,
            tool_calls_left=facts.tool_calls_left - asked,
            tokens_left=facts.tokens_left - data.draw(st.integers(min_value=0, max_value=5)),
        )
    raise AssertionError(f"the turn did not end: {facts}")


def test_a_fold_comes_behind_results_and_inputs_and_before_a_prompt_only() -> None:
    full = TurnFacts(window_is_full=True)
    answered = ReplyFacts(StopReason.END, has_calls=False, has_text=True)
    assert decide(full) == Fold()
    assert decide(replace(full, rounds_left=0)) == Fold()
    assert decide(replace(full, runnable_calls=1)) == RunTools()
    assert decide(replace(full, waiting_calls=1)) == Finish(SendStatus.WAITING_FOR_INPUT)
    assert decide(replace(full, has_follow_up=True)) == TakeInput()
    assert decide(replace(full, reply=answered)) == Finish(SendStatus.COMPLETED)
    assert decide(replace(full, tokens_left=0)) == Finish(SendStatus.TOKENS_EXCEEDED)
    assert decide(replace(full, stopped=SendStatus.CANCELLED)) == Abort(SendStatus.CANCELLED)


def test_an_input_that_waits_comes_before_the_end_and_before_the_next_reply() -> None:
    answered = ReplyFacts(StopReason.END, has_calls=False, has_text=True)
    assert decide(TurnFacts(has_follow_up=True)) == TakeInput()
    assert decide(TurnFacts(has_follow_up=True, reply=answered)) == TakeInput()
    # Never between calls and their results, and never into a send that could not answer it.
    assert decide(TurnFacts(has_follow_up=True, runnable_calls=1)) == RunTools()
    assert decide(TurnFacts(has_follow_up=True, waiting_calls=1)) == Finish(SendStatus.WAITING_FOR_INPUT)
    assert decide(TurnFacts(has_follow_up=True, stopped=SendStatus.CANCELLED)) == Abort(SendStatus.CANCELLED)
    assert decide(TurnFacts(has_follow_up=True, tokens_left=0)) == Finish(SendStatus.TOKENS_EXCEEDED)
    assert decide(TurnFacts(has_follow_up=True, rounds_left=0)) == Conclude(SendStatus.ROUNDS_EXCEEDED)
    concluded = replace(answered, concludes=SendStatus.ROUNDS_EXCEEDED)
    assert decide(TurnFacts(has_follow_up=True, reply=concluded)) == Finish(SendStatus.ROUNDS_EXCEEDED)
