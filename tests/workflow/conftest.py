"""Lends the tests of workflows the handles of the tests of the handle."""

from __future__ import annotations

from tests.agent.conftest import dsn as dsn
from tests.agent.conftest import make_loop as make_loop
