"""Money is counted exactly, in whole nano-units, and never forgotten."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from power_loop import Budget, ModelPrice, PriceTable, Usage
from power_loop.budgets import Amounts
from power_loop.contracts.budgets import NANOS, PER_TOKENS, cost_of, money_of
from power_loop.errors import ConfigError
from power_loop.llm import ModelInfo

money = st.decimals(min_value=0, max_value=10_000, places=9)
tokens = st.integers(0, 10**7)


@given(st.tuples(money, money, money, money, money), st.tuples(tokens, tokens, tokens, tokens, tokens))
def test_each_kind_of_token_has_its_own_price(prices: Any, counts: Any) -> None:
    price = ModelPrice(*prices)
    plain, spoken, cached, written, reasoned = counts
    usage = Usage(plain + cached + written, spoken + reasoned, cached, written, reasoned)
    exact = sum(
        Fraction(one) * count for one, count in zip(prices, (plain, spoken, cached, written, reasoned), strict=True)
    )
    nanos = exact * NANOS / PER_TOKENS
    cost = price.cost_nanos(usage)
    assert 0 <= cost - nanos < 1
    # What was held for it is never less.
    held = cost_of(1, usage.input_tokens * price.input_rate + usage.output_tokens * price.output_rate)
    assert held >= cost


@given(st.integers(0, 10**18))
def test_nano_units_come_back_as_money(nanos: int) -> None:
    assert money_of(nanos) * NANOS == nanos
    assert "E" not in str(money_of(nanos)) or nanos < 1000


def test_what_has_no_price_of_its_own_costs_what_the_whole_does() -> None:
    price = ModelPrice("3", "15")
    assert (price.cached_input, price.cache_write, price.reasoning) == (Decimal(3), Decimal(3), Decimal(15))
    assert price.cost_nanos(Usage(1000, 100, 500, 300, 90)) == 3_000 * 1000 + 15_000 * 100
    # A provider that reports more parts than the whole has is not paid back for it.
    assert price.cost_nanos(Usage(10, 0, 100, 0, 0)) == 3_000 * 100


@pytest.mark.parametrize("value", [0.15, "a little", "-1", "NaN", "Infinity", True, "0.0000000001", None, "1e12"])
def test_what_is_no_exact_sum_of_money_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"price input is .*: give a Decimal"):
        ModelPrice(value, "1")
    if value is not None:
        with pytest.raises(ConfigError, match=r"max_cost of a budget is .*: give a Decimal"):
            Budget(max_cost=value)


@pytest.mark.parametrize(
    "wrong", [{"max_tokens": 0}, {"max_tokens": "9"}, {"max_tool_calls": -1}, {"max_seconds": 0}, {"max_tokens": True}]
)
def test_limits_that_are_none_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(wrong))} of a budget is"):
        Budget(**wrong)


@given(st.none() | st.integers(1, 10**15), st.none() | money, st.none() | st.integers(0, 10**6))
def test_a_budget_is_the_same_behind_json(max_tokens: Any, max_cost: Any, max_tool_calls: Any) -> None:
    budget = Budget(max_tokens, max_cost, max_tool_calls, 2.5)
    assert Budget.from_json(budget.to_json()) == budget


def test_the_provider_s_own_price_goes_before_the_name_s() -> None:
    table = PriceTable({"m": ModelPrice(1, 1), "here/m": ModelPrice(2, 2)})
    assert table.price_of(ModelInfo("here", "m")) == ModelPrice(2, 2)
    assert table.price_of(ModelInfo("there", "m")) == ModelPrice(1, 1)
    assert table.price_of(ModelInfo("there", "other")) is None
    with pytest.raises(ConfigError, match="ModelPrice by the name"):
        PriceTable({"m": 3})  # type: ignore[dict-item]


def test_amounts_add_up() -> None:
    assert Amounts(1, 2, 3) + Amounts(10, 20, 30) == Amounts(11, 22, 33)
    assert Amounts(cost_nanos=1_500_000_000).cost == Decimal("1.5")
