"""Decides how much of a wish the budgets above a call grant: pure arithmetic over what they have left."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from power_loop.contracts.budgets import PER_TOKENS, Amounts, BudgetKey, Granted, NewHold, Shortage, cost_of
from power_loop.contracts.frozen import frozen


@frozen
class Level:
    """Is one budget on the way up from a call, as it stands: its limits, what is spent, and what others hold."""

    key: BudgetKey
    max_tokens: int | None
    max_cost_nanos: int | None
    max_tool_calls: int | None
    spent: Amounts
    reserved: Amounts


def grant(levels: Sequence[Level], wish: NewHold) -> Granted | Shortage:
    """Return what all levels can bear together: the whole wish, or less of it, or why it is nothing.

    Of tool calls there is never a shortage: none of them may run then.
    """
    output, tool_calls = wish.output_tokens, wish.tool_calls
    for level in levels:
        for limit in _LIMITS:
            most = limit.output(level, wish, with_held=True)
            if most is None:
                continue
            if most < wish.least_output_tokens:
                return _shortage(levels, wish, level, limit)
            output = min(output, most)
        if level.max_tool_calls is not None:
            left = level.max_tool_calls - level.spent.tool_calls - level.reserved.tool_calls
            tool_calls = min(tool_calls, max(left, 0))
    return Granted(output, tool_calls)


def held_amounts(wish: NewHold, held: Granted) -> tuple[Amounts, Amounts]:
    """Return what a hold takes, and the part of it that is spent if nobody lives to see the reply: the prompt."""
    tokens = wish.input_tokens + held.output_tokens
    cost = _cost(wish, held.output_tokens)
    return Amounts(tokens, cost, held.tool_calls), Amounts(
        wish.input_tokens, cost_of(wish.input_tokens, wish.input_rate)
    )


def _cost(wish: NewHold, output_tokens: int) -> int:
    return cost_of(1, wish.input_tokens * wish.input_rate + output_tokens * wish.output_rate)


@frozen
class _Limit:
    """Is a limit that a model call counts towards: how many tokens of a reply it leaves room for, None if any."""

    name: str
    output: Callable[..., int | None]
    limit: Callable[[Level], int | None]
    spent: Callable[[Level], int]


def _by_tokens(level: Level, wish: NewHold, *, with_held: bool) -> int | None:
    if level.max_tokens is None or not _is_model_call(wish):
        return None
    held = level.reserved.tokens if with_held else 0
    return level.max_tokens - level.spent.tokens - held - wish.input_tokens


def _by_cost(level: Level, wish: NewHold, *, with_held: bool) -> int | None:
    if level.max_cost_nanos is None or not _is_model_call(wish):
        return None
    held = level.reserved.cost_nanos if with_held else 0
    left = (level.max_cost_nanos - level.spent.cost_nanos - held) * PER_TOKENS - wish.input_tokens * wish.input_rate
    if left < 0:
        return -1
    return left // wish.output_rate if wish.output_rate else wish.output_tokens


def _is_model_call(wish: NewHold) -> bool:
    return wish.input_tokens > 0 or wish.output_tokens > 0


_LIMITS = (
    _Limit("max_tokens", _by_tokens, lambda level: level.max_tokens, lambda level: level.spent.tokens),
    _Limit("max_cost", _by_cost, lambda level: level.max_cost_nanos, lambda level: level.spent.cost_nanos),
)


def _shortage(levels: Sequence[Level], wish: NewHold, level: Level, limit: _Limit) -> Shortage:
    """Say what is short; where no level could bear it even if all holds were given back, that one is named."""
    for other in levels:
        for one in _LIMITS:
            most = one.output(other, wish, with_held=False)
            if most is not None and most < wish.least_output_tokens:
                return _named(other, one, is_held=False)
    return _named(level, limit, is_held=True)


def _named(level: Level, limit: _Limit, *, is_held: bool) -> Shortage:
    return Shortage(level.key, limit.name, limit.limit(level) or 0, limit.spent(level), is_held)
