"""Is the public shelf of timers: when sessions are woken, and by which clock."""

from __future__ import annotations

from power_loop.agent.timers import TimerRunner
from power_loop.contracts.clock import Clock, SystemClock
from power_loop.contracts.schedules import After, At, Cron, Every, Missed, Schedule, runs_of
from power_loop.contracts.timers import TimerMaker, TimerRecord, TimerState, TimerTransaction

__all__ = [
    "After",
    "At",
    "Clock",
    "Cron",
    "Every",
    "Missed",
    "Schedule",
    "SystemClock",
    "TimerMaker",
    "TimerRecord",
    "TimerRunner",
    "TimerState",
    "TimerTransaction",
    "runs_of",
]
