"""Tells numbers that can be used from what only looks like them: True, NaN, the infinite, more than a column holds."""

from __future__ import annotations

import math
from typing import Any, TypeGuard

from power_loop.contracts.errors import InputError

#: What a column of a database holds.
MAX_INTEGER = (1 << 63) - 1


def is_whole(value: Any, *, least: int = 0, most: int = MAX_INTEGER) -> TypeGuard[int]:
    """Tell whether a value is a whole number from `least` to `most`."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def is_number(
    value: Any, *, least: float = -math.inf, above: float = -math.inf, most: float = math.inf
) -> TypeGuard[float]:
    """Tell whether a value is a finite number, at least `least`, greater than `above` and at most `most`."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    # Compared and not converted, which a great integer does not survive; NaN is on no side of anything.
    return -math.inf < value < math.inf and above < value and least <= value <= most


def check_whole(name: str, value: Any, *, least: int = 0, most: int = MAX_INTEGER) -> None:
    """Raise `input.invalid` for what is no whole number from `least` to `most`."""
    if not is_whole(value, least=least, most=most):
        upper = f"{least} or more" if most == MAX_INTEGER else f"{least} to {most}"
        raise InputError(f"{name} {value!r:.80} is not usable: give {upper}")
