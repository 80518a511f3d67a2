"""Gives each worker one theatre, and says at the end in one line how much was killed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.crash.harness import Theatre

_KEY = "crash"


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Theatre]:
    """The theatre of this worker."""
    made = Theatre(tmp_path_factory.mktemp("theatre"))
    yield made
    made.close()


@pytest.fixture
def theatre(house: Theatre, record_property: Callable[[str, Any], None]) -> Iterator[Theatre]:
    """The processes, and what they left."""
    started, killed = house.nursery.started, house.nursery.killed
    yield house
    record_property(_KEY, (house.nursery.started - started, house.nursery.killed - killed))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    counts = [
        value
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", None) == "teardown"
        for name, value in report.user_properties
        if name == _KEY
    ]
    if counts:
        started, killed = (sum(column) for column in zip(*counts, strict=True))
        terminalreporter.write_line(f"crash: {started} processes lived, {killed} of them until a SIGKILL")
