"""Numbers that can be used are told from what only looks like them."""

from __future__ import annotations

import math
from typing import Any

import pytest

from power_loop.contracts.errors import InputError
from power_loop.contracts.numbers import MAX_INTEGER, check_whole, is_number, is_whole


@pytest.mark.parametrize("value", [True, False, None, "1", 1.0, math.nan, [1], 10**400, -1])
def test_what_is_no_whole_number_in_its_bounds(value: Any) -> None:
    assert not is_whole(value)
    with pytest.raises(InputError, match="is not usable: give 0 or more"):
        check_whole("limit", value)


@pytest.mark.parametrize("value", [True, None, "1", math.nan, math.inf, -math.inf, 1j, [1]])
def test_what_is_no_finite_number(value: Any) -> None:
    assert not is_number(value)


def test_bounds_are_a_part_of_what_is_allowed_but_for_what_is_to_be_above() -> None:
    assert is_whole(0)
    assert is_whole(MAX_INTEGER)
    assert is_whole(3, least=3, most=3)
    assert not is_whole(4, least=3, most=3)
    assert is_number(0, least=0)
    assert not is_number(0, above=0)
    assert is_number(1, above=0, most=1)
    assert not is_number(1.5, above=0, most=1)
    # Greater than any float, and compared all the same.
    assert is_number(10**400, above=0)
    with pytest.raises(InputError, match="give 1 to 5"):
        check_whole("limit", 6, least=1, most=5)
