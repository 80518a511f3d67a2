"""Is what a turn knows of the budgets that pay for it, and what it owes them until its next durable move."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from power_loop.contracts.budgets import Amounts, BudgetKey, BudgetRecord, Charge, NewHold, cost_of
from power_loop.contracts.frozen import frozen


@frozen
class Hold:
    """Is what was held for one model call."""

    wish: NewHold
    output_tokens: int


class Purse:
    """Keeps the budgets of a turn, the nearest first, and the charges that no durable move has carried yet.

    Until one does, the hold of a call stands: what a process dies with is settled by the next one. `untold` are those
    of which the store does not know yet what they came to.
    """

    __slots__ = ("_count", "_owed", "_told", "deadline_at_ms", "has_cost_limit", "has_tool_call_limit", "payers")

    def __init__(self, path: Sequence[BudgetRecord]) -> None:
        self.payers: tuple[BudgetKey, ...] = tuple([one.key for one in path])
        self.has_cost_limit = any(one.limits.max_cost is not None for one in path)
        self.has_tool_call_limit = any(one.limits.max_tool_calls is not None for one in path)
        # A budget's deadline is no later than those above it.
        self.deadline_at_ms = path[0].deadline_at_ms if path else None
        self._owed: list[Charge] = []
        self._told: set[int] = set()
        self._count = 0

    def next_number(self) -> int:
        """Return a number for another hold."""
        self._count += 1
        return self._count

    @property
    def owed(self) -> tuple[Charge, ...]:
        """What the next durable move is to pay."""
        return tuple(self._owed)

    @property
    def untold(self) -> tuple[Charge, ...]:
        """Those of the charges that the store has not heard of."""
        return tuple([one for one in self._owed if one.number not in self._told])

    def told(self, charges: Sequence[Charge]) -> None:
        """Note that the store has heard of these."""
        self._told.update([one.number for one in charges])

    def paid(self, charges: Sequence[Charge]) -> None:
        """Note that a durable move carried these."""
        self._owed = [one for one in self._owed if one not in charges]

    def lose_owed(self) -> None:
        """Note that what is owed is for replies that could not be stored: their calls never run."""
        for at, one in enumerate(self._owed):
            lost = Amounts(one.spent.tokens, one.spent.cost_nanos)
            self._owed[at] = replace(one, spent=lost, lost=lost)

    def owe(self, number: int, spent: Amounts, lost: Amounts | None = None) -> None:
        """Note what a call came to, whose hold goes back."""
        self._owed.append(Charge(number, self.payers, spent, lost or Amounts()))

    def give_back(self, number: int) -> None:
        """Note that a call came to nothing."""
        self.owe(number, Amounts())

    def lose(self, hold: Hold) -> None:
        """Note that a call was begun and its reply is lost: the provider has counted its prompt."""
        wish = hold.wish
        lost = Amounts(wish.input_tokens, cost_of(wish.input_tokens, wish.input_rate))
        self.owe(wish.number, lost, lost)
