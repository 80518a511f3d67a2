"""Gives a test of the suite its store, once for each backend."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from power_loop.contracts.ports import SessionStore
from tests.conformance.backends import BACKENDS, Place
from tests.conformance.parts import HandClock


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture(params=BACKENDS, ids=[backend.name for backend in BACKENDS])
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    async with request.param.fresh() as fresh:
        yield fresh


@pytest.fixture
async def store(place: Place, clock: HandClock) -> AsyncIterator[SessionStore]:
    opened = await place.open(clock)
    yield opened
    await opened.aclose()
