"""Gives a test a handle that stands for another process: its database is opened apart, under a name of its own."""

from __future__ import annotations

from typing import Any

from power_loop import LoopConfig, StatefulAgentLoop
from power_loop.runtime.host.identity import new_owner_id

from .conftest import MakeLoop

#: The shortest lease that is allowed.
SHORT = LoopConfig(lease_ttl_s=0.3)


def elsewhere(make_loop: MakeLoop, dsn: str, *steps: Any, **options: Any) -> StatefulAgentLoop:
    """Return a handle that shares nothing with those of `dsn` but the file."""
    return make_loop(*steps, dsn=f"sqlite:///{dsn}?busy_timeout_s=60", **options)


def living_owner() -> str:
    """Return the name of an owner that lives and that no handle has."""
    return new_owner_id()
