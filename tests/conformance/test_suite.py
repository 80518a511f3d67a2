"""The published suite, on every backend."""

from __future__ import annotations

from typing import Any

import pytest

from power_loop.testing.conformance import Case, Place, cases

# What a case shows beyond its own sentence.
_PROMISES = {
    "nothing_is_written_under_a_lease_that_was_lost": pytest.mark.promise("one-writer"),
}


def _parameters() -> list[Any]:
    return [pytest.param(case, marks=_PROMISES.get(case.name, ()), id=f"{case.room}-{case.name}") for case in cases()]


@pytest.mark.parametrize("case", _parameters())
async def test_a_store_does_what_the_suite_says(place: Place, case: Case) -> None:
    await case.run(place)


def test_what_is_said_of_cases_is_said_of_cases_that_are_there() -> None:
    assert _PROMISES.keys() <= {case.name for case in cases()}
