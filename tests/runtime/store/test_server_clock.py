"""The clock of a server: it lags by an answer's way at most, never runs ahead, and does not jitter."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from power_loop.runtime.store.sql.server_clock import Reading, ServerClock

_HOUR_MS = 3_600_000


def _reading(clock_ms: float, *, there_s: float, back_s: float) -> tuple[Reading, float]:
    """Return a reading of a server whose time is `clock_ms` ahead of our monotonic clock, and that difference."""
    answered_s = time.monotonic()
    server_s = answered_s - back_s
    return Reading(int(server_s * 1000 + clock_ms), server_s - there_s, answered_s), clock_ms


_WAY = st.floats(min_value=0, max_value=2)


@given(ways=st.lists(st.tuples(_WAY, _WAY), min_size=1, max_size=10))
def test_it_is_never_ahead_and_never_goes_back_while_the_servers_does_not(ways: list[tuple[float, float]]) -> None:
    clock = ServerClock()
    shown = 0
    for there_s, back_s in ways:
        reading, offset_ms = _reading(1_700_000_000_000.0, there_s=there_s, back_s=back_s)
        clock.note(reading)
        now_ms = clock.now_ms()
        assert now_ms <= time.monotonic() * 1000 + offset_ms + 1
        assert now_ms >= shown
        shown = now_ms


def test_it_follows_a_server_whose_clock_is_set() -> None:
    clock = ServerClock()
    for offset_ms in (1_700_000_000_000.0, 1_700_000_000_000.0 - _HOUR_MS, 1_700_000_000_000.0 + _HOUR_MS):
        reading, _ = _reading(offset_ms, there_s=0.001, back_s=0.001)
        clock.note(reading)
        behind_ms = time.monotonic() * 1000 + offset_ms - clock.now_ms()
        # Compared by the hour, because a test has no say in how long its lines take.
        assert 0 <= behind_ms + 1 < _HOUR_MS / 2


def test_before_the_first_reading_it_is_this_machines_and_wants_to_be_read() -> None:
    clock = ServerClock()
    assert clock.is_stale
    assert abs(clock.now_ms() - time.time() * 1000) < _HOUR_MS
    clock.note(Reading(5, time.monotonic(), time.monotonic()))
    assert not clock.is_stale
    assert clock.now_ms() < _HOUR_MS
