"""Breaks the kernel inside of a child, one promise at a time: a crash test that finds nothing there is blind."""

from __future__ import annotations

from collections.abc import Callable

MUTANTS: dict[str, Callable[[], None]] = {}
