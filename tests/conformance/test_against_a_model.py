"""Random histories that shrink to the shortest one that shows a difference between a store and the model of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from power_loop.testing.conformance.against_a_model import act_against_the_model
from power_loop.testing.conformance.parts import HandClock
from tests.conformance.backends import BACKENDS

T = TypeVar("T")


class Drawn:
    """Lets hypothesis decide."""

    def __init__(self, data: st.DataObject) -> None:
        self._data = data

    def choose(self, options: Sequence[T]) -> T:
        return self._data.draw(st.sampled_from(options))

    def number(self, low: int, high: int) -> int:
        return self._data.draw(st.integers(low, high))


@pytest.mark.parametrize("backend", BACKENDS, ids=[backend.name for backend in BACKENDS])
@given(data=st.data())
@settings(max_examples=30)
def test_random_moves_do_what_the_model_does(backend: Any, data: st.DataObject) -> None:
    async def run() -> None:
        async with backend.fresh() as place:
            clock = HandClock()
            store = await place.open(clock)
            try:
                await act_against_the_model(store, clock, Drawn(data))
            finally:
                await store.aclose()

    asyncio.run(run())
