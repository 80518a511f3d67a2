"""Hands out inspectors and whoever visits them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from power_loop import StatefulAgentLoop
from power_loop.contrib.inspect import Inspector
from power_loop.testing import ScriptedLLM

from .visitor import LIMIT_S, Visitor

Visit = Callable[..., Awaitable[Visitor]]


@pytest.fixture
async def visit() -> AsyncIterator[Visit]:
    """Return what opens an inspector of a loop, and comes in by its door."""
    opened: list[Inspector] = []

    async def make(loop: StatefulAgentLoop, **options: Any) -> Visitor:
        inspector = await Inspector(loop, **options).start()
        opened.append(inspector)
        return await Visitor(inspector).enter()

    yield make
    for one in opened:
        await one.aclose()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have an inspector wait for the end of what it is asked to do, however busy the machine: a refusal that comes late
    is told to the page otherwise, and not in the answer."""
    monkeypatch.setattr("power_loop.contrib.inspect.inspector._REFUSAL_S", LIMIT_S)


@pytest.fixture
async def loop(tmp_path: Path) -> AsyncIterator[StatefulAgentLoop]:
    """Return a loop that says one thing for ever, in a file of its own."""
    model = ScriptedLLM(["Yes."], repeat_last=True)
    async with StatefulAgentLoop(llm=model, dsn=str(tmp_path / "app.db")) as made:
        yield made
