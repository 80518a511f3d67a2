"""Keeps the budgets of sends: what each may take, what it paid, and what is held of it for calls that run."""

from __future__ import annotations

from collections.abc import Sequence

from power_loop.contracts.budgets import (
    Amounts,
    Budget,
    BudgetKey,
    BudgetRecord,
    Charge,
    Granted,
    NewBudget,
    NewHold,
    Shortage,
    money_of,
)
from power_loop.runtime.store.grants import Level, grant, held_amounts
from power_loop.runtime.store.sql.database import Row, Statement, Transaction
from power_loop.runtime.store.sql.dialect import Renderer

#: Budgets that one call is paid by, one above the other, at most: a parent that is its own ancestor ends there.
MAX_LEVELS = 64
#: Budgets of a tree that one read returns.
MAX_TREE = 10_000

_COLUMNS = (
    "session_id, send_index, parent_session_id, parent_send_index, max_tokens, max_cost_nanos, max_tool_calls,"
    " max_ms, deadline_at_ms, spent_tokens, spent_cost_nanos, spent_tool_calls, lost_tokens, lost_cost_nanos,"
    " created_at_ms"
)


class Budgets:
    """Runs the statements on `budgets` and `budget_holds`, inside of others' transactions.

    Rows are locked from a call's own budget upwards, so that no two transactions wait for each other. What is reserved
    is the sum of the holds, and stands nowhere else.
    """

    def __init__(self, render: Renderer) -> None:
        self._insert = render(
            f"INSERT INTO {{budgets}} ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0, 0, 0, 0, ?)"
        )
        self._select = render(f"SELECT {_COLUMNS} FROM {{budgets}} WHERE session_id = ? AND send_index = ?")
        self._lock = self._select + render.dialect.for_update
        self._children = render(
            f"SELECT {_COLUMNS} FROM {{budgets}} WHERE parent_session_id = ? AND parent_send_index = ?"
            f" ORDER BY session_id, send_index LIMIT {MAX_TREE}"
        )
        sums = ", ".join(
            render.dialect.as_integer(f"COALESCE(SUM(CASE WHEN is_settled = {flag} THEN {column} ELSE 0 END), 0)")
            for flag in (0, 1)
            for column in ("tokens", "cost_nanos", "tool_calls")
        )
        self._held = render(
            f"SELECT {sums} FROM {{budget_holds}} WHERE budget_session_id = ? AND budget_send_index = ?"
        )
        self._hold = render(
            "INSERT INTO {budget_holds} (session_id, number, level, budget_session_id, budget_send_index, is_settled,"
            " tokens, cost_nanos, tool_calls, sure_tokens, sure_cost_nanos, created_at_ms)"
            " VALUES (?, ?, ?, ?, ?, 0, ?, ?, ?, ?, ?, ?)"
        )
        self._narrow = render(
            "UPDATE {budget_holds} SET is_settled = 1, tokens = ?, cost_nanos = ?, tool_calls = ?, sure_tokens = ?,"
            " sure_cost_nanos = ? WHERE session_id = ? AND number = ?"
        )
        self._give_back = render("DELETE FROM {budget_holds} WHERE session_id = ? AND number = ?")
        self._give_all_back = render("DELETE FROM {budget_holds} WHERE session_id = ?")
        self._left = render(
            "SELECT budget_session_id, budget_send_index, sure_tokens, sure_cost_nanos FROM {budget_holds}"
            " WHERE session_id = ? ORDER BY number, level"
        )
        self._pay = render(
            "UPDATE {budgets} SET spent_tokens = spent_tokens + ?, spent_cost_nanos = spent_cost_nanos + ?,"
            " spent_tool_calls = spent_tool_calls + ?, lost_tokens = lost_tokens + ?,"
            " lost_cost_nanos = lost_cost_nanos + ? WHERE session_id = ? AND send_index = ?"
        )

    # ---- making and reading ----

    async def make(self, tx: Transaction, key: BudgetKey, new: NewBudget, *, at_ms: int) -> None:
        """Store a budget; its time is over when its own is, or that of a budget above it."""
        limits, parent = new.limits, new.parent
        above = () if parent is None else await self.path(tx, parent)
        max_ms = None if limits.max_seconds is None else round(limits.max_seconds * 1000)
        ends = [one.deadline_at_ms for one in above if one.deadline_at_ms is not None]
        if max_ms is not None:
            ends.append(at_ms + max_ms)
        params = (
            key.session_id,
            key.send_index,
            None if parent is None else parent.session_id,
            None if parent is None else parent.send_index,
            limits.max_tokens,
            limits.max_cost_nanos,
            limits.max_tool_calls,
            max_ms,
            min(ends, default=None),
            at_ms,
        )
        await tx.execute(self._insert, params)

    async def path(self, tx: Transaction, key: BudgetKey) -> tuple[BudgetRecord, ...]:
        """Return a budget and those that pay with it, upwards, without what is reserved; () where there is none."""
        found: list[BudgetRecord] = []
        at: BudgetKey | None = key
        while at is not None and len(found) < MAX_LEVELS:
            rows = await tx.query(self._select, (at.session_id, at.send_index))
            if not rows:
                break
            found.append(_record_of(rows[0]))
            at = found[-1].parent
        return tuple(found)

    async def tree(self, tx: Transaction, key: BudgetKey) -> BudgetRecord | None:
        """Return a budget with what is reserved of it and with all that it pays for; None where there is none."""
        rows = await tx.query(self._select, (key.session_id, key.send_index))
        return await self._with_children(tx, rows[0], 0, [MAX_TREE]) if rows else None

    async def _with_children(self, tx: Transaction, row: Row, depth: int, left: list[int]) -> BudgetRecord:
        key = BudgetKey(row[0], row[1])
        reserved, settled = await self._held_of(tx, key)
        left[0] -= 1
        children: list[BudgetRecord] = []
        if depth < MAX_LEVELS:
            for below in await tx.query(self._children, (key.session_id, key.send_index)):
                if left[0] <= 0:
                    break
                children.append(await self._with_children(tx, below, depth + 1, left))
        return _record_of(row, reserved + settled, tuple(children))

    async def _held_of(self, tx: Transaction, key: BudgetKey) -> tuple[Amounts, Amounts]:
        """Return what calls hold that run, and what those hold that came to their end."""
        [sums] = await tx.query(self._held, (key.session_id, key.send_index))
        return Amounts(*map(int, sums[:3])), Amounts(*map(int, sums[3:]))

    # ---- holding and paying ----

    async def reserve(
        self, tx: Transaction, session_id: str, wish: NewHold, charges: Sequence[Charge], *, at_ms: int
    ) -> Granted | Shortage:
        """Hold what a call may take on each of its budgets, or on none of them, once the holds of those that ended are
        down to what these came to."""
        locked: list[BudgetRecord] = []
        for key in wish.payers:
            # One that is not there was removed with its session.
            locked += map(_record_of, await tx.query(self._lock, (key.session_id, key.send_index)))
        for charge in charges:
            spent = charge.spent
            amounts = (spent.tokens, spent.cost_nanos, spent.tool_calls, spent.tokens, spent.cost_nanos)
            await tx.execute(self._narrow, (*amounts, session_id, charge.number))
        levels: list[Level] = []
        for budget in locked:
            limits = budget.limits
            # Behind the lock, which whoever changes a hold on this budget has to take.
            reserved, settled = await self._held_of(tx, budget.key)
            most = (limits.max_tokens, limits.max_cost_nanos, limits.max_tool_calls)
            levels.append(Level(budget.key, *most, budget.spent + settled, reserved))
        held = grant(levels, wish)
        if isinstance(held, Shortage) or (wish.tool_calls and not held.tool_calls):
            return held
        whole, sure = held_amounts(wish, held)
        taken = (whole.tokens, whole.cost_nanos, whole.tool_calls, sure.tokens, sure.cost_nanos, at_ms)
        holds = [
            (session_id, wish.number, place, level.key.session_id, level.key.send_index, *taken)
            for place, level in enumerate(levels)
        ]
        await tx.execute_many(self._hold, holds)
        return held

    def settles(self, session_id: str, charges: Sequence[Charge]) -> list[Statement]:
        """Return the statements that pay what calls came to and give their holds back."""
        totals: dict[BudgetKey, tuple[Amounts, Amounts]] = {}
        for charge in charges:
            for key in charge.payers:
                spent, lost = totals.get(key, (Amounts(), Amounts()))
                totals[key] = (spent + charge.spent, lost + charge.lost)
        # What pays goes first: it locks the budget on which less is held then.
        pays = [_paid(self._pay, key, *total) for key, total in totals.items()]
        return [*pays, *[(self._give_back, (session_id, charge.number)) for charge in charges]]

    async def settle_left(self, tx: Transaction, session_id: str) -> None:
        """Pay for the calls whose reply was lost with the process of their turn: what they came to, or where they ran
        still, their prompts, because a provider that was asked has counted them."""
        left = await tx.query(self._left, (session_id,))
        for budget_session_id, budget_index, tokens, cost in left:
            lost = Amounts(tokens, cost)
            await tx.execute(*_paid(self._pay, BudgetKey(budget_session_id, budget_index), lost, lost))
        if left:
            await tx.execute(self._give_all_back, (session_id,))


def _paid(sql: str, key: BudgetKey, spent: Amounts, lost: Amounts) -> Statement:
    amounts = (spent.tokens, spent.cost_nanos, spent.tool_calls, lost.tokens, lost.cost_nanos)
    return sql, (*amounts, key.session_id, key.send_index)


def _record_of(row: Row, reserved: Amounts | None = None, children: tuple[BudgetRecord, ...] = ()) -> BudgetRecord:
    session_id, index, above, above_index, tokens, cost, tool_calls, max_ms, deadline, *amounts, created_at_ms = row
    spent_tokens, spent_cost, spent_calls, lost_tokens, lost_cost = amounts
    return BudgetRecord(
        BudgetKey(session_id, index),
        Budget(
            tokens,
            None if cost is None else money_of(cost),
            tool_calls,
            None if max_ms is None else max_ms / 1000,
        ),
        Amounts(spent_tokens, spent_cost, spent_calls),
        Amounts(lost_tokens, lost_cost),
        reserved or Amounts(),
        deadline,
        None if above is None else BudgetKey(above, above_index),
        created_at_ms,
        children,
    )
