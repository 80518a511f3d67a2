"""What is granted fits every budget above, is as much as fits, and is refused for the reason that is there."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from power_loop.budgets import Amounts, BudgetKey
from power_loop.runtime.store.grants import Level, grant, held_amounts
from power_loop.storage import Granted, NewHold, Shortage

few = st.integers(0, 3000)
amounts = st.builds(Amounts, few, st.integers(0, 3_000_000), st.integers(0, 20))
levels = st.lists(
    st.builds(
        Level,
        st.builds(BudgetKey, st.just("s"), st.integers(1, 9)),
        st.none() | few,
        st.none() | st.integers(0, 3_000_000),
        st.none() | st.integers(0, 20),
        amounts,
        amounts,
    ),
    max_size=4,
)
rates = st.integers(0, 10**9)


@st.composite
def calls(draw: st.DrawFn) -> NewHold:
    output = draw(st.integers(1, 2000))
    least = draw(st.integers(1, output))
    return NewHold(1, (), draw(st.integers(1, 2000)), output, least, draw(rates), draw(rates))


def fits(levels: Sequence[Level], wish: NewHold, output: int, *, with_held: bool = True) -> bool:
    whole, _ = held_amounts(wish, Granted(output))
    for level in levels:
        held = level.reserved if with_held else Amounts()
        for most, spent, others, more in (
            (level.max_tokens, level.spent.tokens, held.tokens, whole.tokens),
            (level.max_cost_nanos, level.spent.cost_nanos, held.cost_nanos, whole.cost_nanos),
        ):
            if most is not None and spent + others + more > most:
                return False
    return True


@given(levels, calls())
def test_a_grant_fits_and_one_token_more_does_not(levels: list[Level], wish: NewHold) -> None:
    granted = grant(levels, wish)
    if isinstance(granted, Granted):
        assert wish.least_output_tokens <= granted.output_tokens <= wish.output_tokens
        assert fits(levels, wish, granted.output_tokens)
        assert granted.output_tokens == wish.output_tokens or not fits(levels, wish, granted.output_tokens + 1)
        return
    assert not fits(levels, wish, wish.least_output_tokens)
    assert granted.is_held == fits(levels, wish, wish.least_output_tokens, with_held=False)


@given(levels, calls())
def test_a_shortage_names_a_limit_that_is_short(levels: list[Level], wish: NewHold) -> None:
    short = grant(levels, wish)
    if isinstance(short, Shortage):
        named = [level for level in levels if level.key == short.key]
        limits = {"max_tokens": "tokens", "max_cost": "cost_nanos"}
        assert any(
            (getattr(level, short.name if short.name == "max_tokens" else "max_cost_nanos"), getattr(level.spent, kind))
            == (short.limit, short.spent)
            for level in named
            for kind in (limits[short.name],)
        )


@given(levels, st.integers(1, 30))
def test_of_tool_calls_as_many_are_granted_as_there_are(levels: list[Level], wanted: int) -> None:
    granted = grant(levels, NewHold(1, (), tool_calls=wanted))
    assert isinstance(granted, Granted)
    left = [
        one.max_tool_calls - one.spent.tool_calls - one.reserved.tool_calls
        for one in levels
        if one.max_tool_calls is not None
    ]
    assert granted.tool_calls == max(min([wanted, *left]), 0)


@given(levels, calls(), st.integers(0, 500), st.integers(0, 100_000))
def test_what_others_spend_grants_nobody_more(levels: list[Level], wish: NewHold, tokens: int, cost: int) -> None:
    more = [
        Level(
            one.key,
            one.max_tokens,
            one.max_cost_nanos,
            one.max_tool_calls,
            one.spent + Amounts(tokens, cost),
            one.reserved,
        )
        for one in levels
    ]
    before, after = grant(levels, wish), grant(more, wish)
    if isinstance(after, Granted):
        assert isinstance(before, Granted)
        assert after.output_tokens <= before.output_tokens
