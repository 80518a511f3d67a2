"""Lets what has locks and threads begin anew in a forked child, where only the thread that forked runs on."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

_RENEWED: weakref.WeakKeyDictionary[Any, Callable[[Any], None]] = weakref.WeakKeyDictionary()


def renew_in_child(one: T, renew: Callable[[T], None]) -> None:
    """Call `renew(one)` in each forked child, for as long as `one` lives.

    There a lock that another thread held stays locked, and a thread that is waited for never comes.
    """
    _RENEWED[one] = renew


def _renew() -> None:
    for one, renew in list(_RENEWED.items()):
        renew(one)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
