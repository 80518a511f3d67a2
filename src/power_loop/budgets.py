"""Is the public shelf of budgets: what work may cost."""

from __future__ import annotations

from power_loop.contracts.budgets import Amounts, Budget, BudgetKey, BudgetRecord, ModelPrice, PriceTable

__all__ = [
    "Amounts",
    "Budget",
    "BudgetKey",
    "BudgetRecord",
    "ModelPrice",
    "PriceTable",
]
