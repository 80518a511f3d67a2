"""Passes the points around a stranger's work, where a test may end the process."""

from __future__ import annotations

from collections.abc import Callable

from power_loop.contracts.ports import SessionStore


def pass_point(store: SessionStore, point: str, what: str) -> None:
    """Tell the store's `on_point`, if it has one and it is set, that a turn stands at `point` with the tool or the
    model named `what`."""
    tell: Callable[[str, str], None] | None = getattr(store, "on_point", None)
    if tell is not None:
        tell(point, what)
