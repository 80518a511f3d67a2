"""A database of its own for each test, and handles that are closed behind it with nothing left over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from power_loop import StatefulAgentLoop
from power_loop.testing import ScriptedLLM

from .parts import within_limit


class MakeLoop(Protocol):
    """Makes a handle on the test's database, with a model that says `steps`."""

    def __call__(self, *steps: Any, **options: Any) -> StatefulAgentLoop: ...


@pytest.fixture
def dsn(tmp_path: Path) -> str:
    return str(tmp_path / "app.db")


@pytest.fixture
async def make_loop(dsn: str) -> AsyncIterator[MakeLoop]:
    made: list[StatefulAgentLoop] = []

    def make(*steps: Any, **options: Any) -> StatefulAgentLoop:
        if "llm" not in options:
            options["llm"] = ScriptedLLM(steps)
        if "store" not in options:
            options.setdefault("dsn", dsn)
        loop = StatefulAgentLoop(**options)
        made.append(loop)
        return loop

    yield make
    for loop in made:
        await within_limit(loop.aclose())
    # What a turn began ends with it.
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, f"tasks were left behind: {left}"
