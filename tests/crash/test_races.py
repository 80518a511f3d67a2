"""Processes race for the same sessions, some are killed or stopped at any point, and every session's history holds."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.conformance.backends import SERVERS, SqliteFile
from tests.crash.races import RaceReport, run_races

# A run's seed is printed with what it found: POWER_LOOP_TEST_SEED=… repeats what its clients did.
SEED = int(os.environ.get("POWER_LOOP_TEST_SEED", "0")) or random.randrange(1, 10**6)
_BACKENDS = (SqliteFile, *SERVERS)
_RACES = 2 if os.environ.get("CI") else 3


@pytest.fixture(params=_BACKENDS, ids=[backend.name for backend in _BACKENDS])
async def database(request: pytest.FixtureRequest) -> AsyncIterator[dict[str, str]]:
    """A fresh database, as `run_races` wants to be told of it."""
    async with request.param.fresh() as place:
        yield {"dsn": place.dsn, "table_prefix": getattr(place, "prefix", "pl_")}


def race(database: dict[str, str], **options: Any) -> RaceReport:
    report = run_races(**database, **options)
    print(report)
    return report


@pytest.mark.parametrize("nth", range(_RACES))
@pytest.mark.promise("kill-at-any-moment", "one-writer", "effect-once")
def test_every_history_of_a_race_with_deaths_holds(
    database: dict[str, str], nth: int, record_property: Callable[[str, Any], None]
) -> None:
    report = race(database, seed=SEED + nth, operations=200, deaths=0.9, stops=0.1)
    record_property("crash", (report.counts["processes"], report.counts["killed"]))
    report.raise_for_problems()
    assert report.counts["killed"]


def test_every_history_of_a_race_without_deaths_holds(database: dict[str, str]) -> None:
    report = race(database, seed=SEED, operations=200, deaths=0.0, stops=0.0)
    report.raise_for_problems()
    assert report.counts["killed"] == 0
