"""Lets what has locks and threads begin anew in a forked child, where only the thread that forked runs on."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Renewable(Protocol):
    """Is what would hang in a forked child: a lock that another thread held, a thread that is not there."""

    def begin_anew(self) -> None:
        """Forget what belongs to the parent."""
        ...


_RENEWABLE: weakref.WeakSet[Renewable] = weakref.WeakSet()


def renew_in_child(one: Renewable) -> None:
    """Call `one.begin_anew()` in each forked child, for as long as `one` lives."""
    _RENEWABLE.add(one)


def _renew() -> None:
    for one in list(_RENEWABLE):
        one.begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
