"""Processes that share a budget spend all of it and never more, on every database."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from power_loop import Budget
from power_loop.budgets import Amounts
from power_loop.runtime.store.open import open_store
from power_loop.testing.conformance.budgets import ROOT, budgeted
from tests.runtime.store.processes import run_together
from tests.runtime.store.sites import KINDS, Site, fresh_site


@pytest.fixture(params=KINDS)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    with fresh_site(request.param, tmp_path) as fresh:
        yield fresh


@pytest.mark.promise("budgets")
async def test_four_processes_spend_one_budget_and_never_more(site: Site, tmp_path: Path) -> None:
    store = await open_store(site.dsn)
    try:
        await budgeted(store, "sess_root", Budget(max_tokens=10_000))
        await asyncio.to_thread(run_together, "spend", 4, site.dsn, tmp_path / "ledger")
        found = await store.get_budget(ROOT)
        assert found is not None
        totals = [int(line) for line in (tmp_path / "ledger").read_text("utf-8").split()]
        assert len(totals) == len(found.children) == 16
        assert found.spent == Amounts(sum(totals))
        # What is left is less than the smallest call.
        assert 10_000 - 105 < found.spent.tokens <= 10_000
        assert max(totals) <= 2_000
        assert (found.reserved, found.lost) == (Amounts(), Amounts())
    finally:
        await store.aclose()
