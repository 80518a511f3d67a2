"""What holds for every test: no keys in the environment, live models on demand, databases named, no clock."""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.servers import plugin, shared

# A key or an address that happens to be set on a machine must not change what a test does, nor reach a provider.
_OURS = ("POWER_LOOP_", "OPENAI_", "ANTHROPIC_")

# Machines that run tests are slow at times: only the number of examples is limited. In CI the same ones come again.
settings.register_profile("local", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.register_profile("ci", settings.get_profile("local"), derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-real", action="store_true", help="leave out the tests that talk to a live model")
    plugin.add_option(parser)


def pytest_configure(config: pytest.Config) -> None:
    plugin.configure(config)


def pytest_unconfigure() -> None:
    shared.leave()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    plugin.summarize(terminalreporter)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--no-real"):
        return
    real = [item for item in items if item.get_closest_marker("real")]
    config.hook.pytest_deselected(items=real)
    items[:] = [item for item in items if item.get_closest_marker("real") is None]


@pytest.fixture(scope="session", autouse=True)
def variables_of_the_person() -> Iterator[dict[str, str]]:
    """Take our variables out of the environment for the whole run; the live tests are handed what stood there."""
    taken = {name: value for name, value in os.environ.items() if name.startswith(_OURS)}
    for name in taken:
        del os.environ[name]
    yield taken
    os.environ.update(taken)


@pytest.fixture(scope="module", autouse=True)
def garbage_of_its_own() -> None:
    """Let the collector search what the tests of a module leave, and not again and again what was there before: the
    tests of the whole run alone are a million objects, and a look at each takes most of a second."""
    with warnings.catch_warnings():
        # What others left unclosed is not told of in the first test that comes behind them.
        warnings.simplefilter("ignore")
        gc.collect()
    gc.freeze()
