"""Gives each test its database, and each wire over each carrier."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from .stage import CARRIERS, WIRES, Stages, Way

WAYS = [Way(wire, carrier) for wire in WIRES for carrier in CARRIERS]


@pytest.fixture
async def stages(tmp_path: Path) -> AsyncIterator[Stages]:
    """Builds stages."""
    made = Stages(tmp_path)
    yield made
    await made.close()


def _needs(way: Way) -> Way:
    if way.carrier == "sdk":
        pytest.importorskip(way.wire)
    return way


@pytest.fixture(params=WAYS, ids=str)
def way(request: pytest.FixtureRequest) -> Way:
    """Each wire over each carrier."""
    return _needs(request.param)


@pytest.fixture(params=[way for way in WAYS if way.wire == "openai"], ids=str)
def openai_way(request: pytest.FixtureRequest) -> Way:
    """The OpenAI wire over each carrier, for what only that wire knows."""
    return _needs(request.param)
