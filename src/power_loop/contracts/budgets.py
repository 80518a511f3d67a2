"""What a send and all that it sets going may take together: limits, prices, what is spent and what is held."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from power_loop.contracts.errors import ConfigError
from power_loop.contracts.frozen import frozen
from power_loop.contracts.llm import ModelInfo, Usage
from power_loop.contracts.numbers import is_number, is_whole

#: Money is counted in whole nano-units of whatever currency the prices are in.
NANOS = 10**9
#: Prices are for so many tokens.
PER_TOKENS = 10**6

#: What a call or a budget can come to at most, so that sums stay within 64 bits.
MAX_NANOS = 10**16
_MAX_PRICE = Decimal(NANOS)
_NANO_PLACES = 9


@frozen
class ModelPrice:
    """Is what a model costs, each figure for a million tokens, as a `Decimal`, an int or text such as `"0.15"`.

    `cached_input` (read from a provider's cache) and `cache_write` cost what `input` does where nothing is said,
    `reasoning` what `output` does. Raises `config.invalid` for a float, which is no exact sum of money.
    """

    input: Decimal | str | int
    output: Decimal | str | int
    cached_input: Decimal | str | int | None = None
    cache_write: Decimal | str | int | None = None
    reasoning: Decimal | str | int | None = None

    def __post_init__(self) -> None:
        for name, stands_in in _PRICES:
            value = getattr(self, name)
            if value is None and stands_in is not None:
                value = getattr(self, stands_in)
            object.__setattr__(self, name, _money(value, f"price {name}", most=_MAX_PRICE))

    def cost_nanos(self, usage: Usage) -> int:
        """Return what a call cost, rounded up to a whole nano-unit."""
        cached, written, reasoned = usage.cached_input_tokens, usage.cache_write_tokens, usage.reasoning_tokens
        total = (
            max(usage.input_tokens - cached - written, 0) * _nanos(self.input)
            + cached * _nanos(self.cached_input)
            + written * _nanos(self.cache_write)
            + max(usage.output_tokens - reasoned, 0) * _nanos(self.output)
            + reasoned * _nanos(self.reasoning)
        )
        return min(-(-total // PER_TOKENS), MAX_NANOS)

    @property
    def input_rate(self) -> int:
        """The most that a million tokens of a prompt cost, in nano-units."""
        return max(map(_nanos, (self.input, self.cached_input, self.cache_write)))

    @property
    def output_rate(self) -> int:
        """The most that a million tokens of a reply cost, in nano-units."""
        return max(map(_nanos, (self.output, self.reasoning)))


# Each figure with the one that stands in for it.
_PRICES = (
    ("input", None),
    ("output", None),
    ("cached_input", "input"),
    ("cache_write", "input"),
    ("reasoning", "output"),
)


@frozen
class PriceTable:
    """Is the price of each model by its name, or by `provider/name` where two providers ask different ones.

    All prices are in one currency, which the table does not name. Raises `config.invalid`.
    """

    prices: Mapping[str, ModelPrice]

    def __post_init__(self) -> None:
        prices: Any = self.prices
        is_table = isinstance(prices, Mapping) and all(isinstance(name, str) for name in prices)
        if not is_table or not all(isinstance(price, ModelPrice) for price in prices.values()):
            raise ConfigError(f"prices is {prices!r:.200}: give a dict of ModelPrice by the name of the model")
        object.__setattr__(self, "prices", dict(prices))

    def price_of(self, info: ModelInfo) -> ModelPrice | None:
        """Return what a model costs; None if the table does not say."""
        return self.prices.get(f"{info.provider}/{info.model}") or self.prices.get(info.model)


@frozen
class Budget:
    """Is what a send may take, with every session that it sets going; None is no limit.

    `max_tokens` counts prompts and replies of all model calls (`tokens_exceeded`), `max_cost` is money by
    `LoopConfig.prices` (`cost_exceeded`), as a `Decimal`, an int or text. `max_tool_calls` counts the calls that run;
    those beyond it do not, and the model is asked once more without tools (`tool_calls_exceeded`). `max_seconds` is
    wall time from the moment the send is stored, whatever happens meanwhile (`time_exceeded`). Raises `config.invalid`.
    """

    max_tokens: int | None = None
    max_cost: Decimal | str | int | None = None
    max_tool_calls: int | None = None
    max_seconds: float | None = None

    def __post_init__(self) -> None:
        for name, least in (("max_tokens", 1), ("max_tool_calls", 0)):
            count = getattr(self, name)
            if count is not None and not is_whole(count, least=least, most=MAX_NANOS):
                raise ConfigError(
                    f"{name} of a budget is {count!r:.200}: give a whole number of at least {least}, or None"
                )
        if self.max_cost is not None:
            most = Decimal(MAX_NANOS // NANOS)
            object.__setattr__(self, "max_cost", _money(self.max_cost, "max_cost of a budget", most=most))
        seconds: Any = self.max_seconds
        if seconds is not None and not is_number(seconds, above=0):
            raise ConfigError(f"max_seconds of a budget is {seconds!r:.200}: give a finite number above 0, or None")

    @property
    def max_cost_nanos(self) -> int | None:
        """`max_cost` in nano-units."""
        return None if self.max_cost is None else _nanos(self.max_cost)

    def to_json(self) -> dict[str, Any]:
        """Return the budget as JSON."""
        cost = None if self.max_cost is None else str(self.max_cost)
        values = {
            "max_tokens": self.max_tokens,
            "max_cost": cost,
            "max_tool_calls": self.max_tool_calls,
            "max_seconds": self.max_seconds,
        }
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Budget:
        """Return a budget of what `to_json` gave."""
        return cls(**value)


@frozen
class BudgetKey:
    """Names a budget: that of one send."""

    session_id: str
    send_index: int


@frozen
class NewBudget:
    """Is a budget to be stored with its send. `parent` is the one that pays for whatever this one pays for."""

    limits: Budget
    parent: BudgetKey | None = None


@frozen
class Amounts:
    """Is what was spent or is held: tokens, money in nano-units, tool calls."""

    tokens: int = 0
    cost_nanos: int = 0
    tool_calls: int = 0

    @property
    def cost(self) -> Decimal:
        """The money, in units of the currency."""
        return money_of(self.cost_nanos)

    def __add__(self, other: Amounts) -> Amounts:
        return Amounts(
            self.tokens + other.tokens, self.cost_nanos + other.cost_nanos, self.tool_calls + other.tool_calls
        )


@frozen
class BudgetRecord:
    """Is a stored budget. `spent` is what it paid, and `lost` the part of it that went to model calls whose reply
    nobody has, because a process died or a stream broke; `reserved` is held for calls that run.

    `deadline_at_ms` is when its time is over, that of the budgets above it included. `children` are the budgets that it
    pays for, whose spending is part of its own.
    """

    key: BudgetKey
    limits: Budget
    spent: Amounts
    lost: Amounts
    reserved: Amounts
    deadline_at_ms: int | None
    parent: BudgetKey | None
    created_at_ms: int
    children: tuple[BudgetRecord, ...] = ()


@frozen
class NewHold:
    """Is what is to be held for a call, as hold `number` of its session, on each of the budgets `payers`, the nearest
    first.

    A model call wants `input_tokens` and as many of `output_tokens` as there are, no fewer than `least_output_tokens`;
    the rates are nano-units for a million tokens. Calls of tools want `tool_calls`, or as many of them as there are.
    """

    number: int
    payers: tuple[BudgetKey, ...]
    input_tokens: int = 0
    output_tokens: int = 0
    least_output_tokens: int = 0
    input_rate: int = 0
    output_rate: int = 0
    tool_calls: int = 0


@frozen
class Granted:
    """Is what was held: how many tokens the reply may have, or how many calls may run."""

    output_tokens: int = 0
    tool_calls: int = 0


@frozen
class Shortage:
    """Is why nothing was held: the budget `key` has less left of its limit `name` than is needed.

    `is_held` tells that others hold what is missing, and may give it back.
    """

    key: BudgetKey
    name: str
    limit: int
    spent: int
    is_held: bool


@frozen
class Charge:
    """Is what a call came to: it is paid by the budgets `payers`, and the hold `number` is given back.

    `lost` is the part of it of which there is no reply.
    """

    number: int
    payers: tuple[BudgetKey, ...]
    spent: Amounts = Amounts()
    lost: Amounts = Amounts()


def money_of(nanos: int) -> Decimal:
    """Return nano-units as money, without zeros behind the last digit that says something."""
    value = Decimal(nanos).scaleb(-_NANO_PLACES)
    return value.quantize(Decimal(1)) if value == value.to_integral() else value.normalize()


def sum_of_costs(one: int | None, other: int | None) -> int | None:
    """Return two costs together, of which either may not be known."""
    return other if one is None else one if other is None else one + other


def cost_of(tokens: int, rate: int) -> int:
    """Return what tokens cost at a rate of nano-units for a million, rounded up."""
    return min(-(-tokens * rate // PER_TOKENS), MAX_NANOS)


def _nanos(value: Any) -> int:
    return int(value.scaleb(_NANO_PLACES))


def _money(value: Any, what: str, *, most: Decimal) -> Decimal:
    """Return an exact sum of money. Raises `config.invalid`."""
    if isinstance(value, (Decimal, str, int)) and not isinstance(value, bool):
        try:
            money = Decimal(value)
        except InvalidOperation:
            money = Decimal("NaN")
        # Beyond nano-units nothing is counted.
        if money.is_finite() and 0 <= money <= most and money == round(money, _NANO_PLACES):
            return money
    raise ConfigError(
        f"{what} is {value!r:.200}: give a Decimal, an int or text such as '0.15', from 0 to {most:,} and with at most"
        f" {_NANO_PLACES} digits behind the point"
    )
