"""Is what the servers add to a test run: the line that says which databases are here, and insisting on them."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.servers import shared
from tests.servers.kinds import ServerKind, find_servers

OPTION = "--all-databases"


def add_option(parser: pytest.Parser) -> None:
    """Add the option that makes a missing database an error."""
    parser.addoption(OPTION, action="store_true", help="fail where a database that power-loop runs on is not here")


def configure(config: pytest.Config) -> None:
    """Join the run's servers; raise UsageError if one that is insisted on is not here."""
    worker: dict[str, Any] | None = getattr(config, "workerinput", None)
    shared.belong_to(worker["testrunuid"][:12] if worker else uuid.uuid4().hex[:12])
    missing = _insisted_on(find_servers()) if config.getoption(OPTION) else []
    if missing and worker is None:
        raise pytest.UsageError(*(f"{OPTION}: {kind}" for kind in missing))


def summarize(reporter: Any) -> None:
    """Say in one line which databases the tests ran on, and why one is not here."""
    kinds = find_servers()
    here = ", ".join(["sqlite", *(str(kind) for kind in kinds if kind.missing is None)])
    reporter.write_line("; ".join([f"databases: {here}", *(str(kind) for kind in kinds if kind.missing is not None)]))


def _insisted_on(kinds: list[ServerKind]) -> list[ServerKind]:
    """Return what is missing and has no excuse; MySQL has one if it could not be fetched and MariaDB is here."""
    missing = [kind for kind in kinds if kind.missing is not None]
    speaks_mysql = any(kind.missing is None and kind.recipe.scheme == "mysql" for kind in kinds)
    return [kind for kind in missing if not (kind.is_excused and speaks_mysql)]
