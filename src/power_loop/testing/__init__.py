"""Helps to test agents: models by script, recording and fault, a clock, leak checks, and a matrix of crashes."""

from power_loop.testing.belongings import Leak, LeakKind
from power_loop.testing.cassette import Cassette, CassetteMismatchError, MatchMode, RecordedCall, RecordMode
from power_loop.testing.faults import Fault, FaultKind, FaultyLLM, random_faults
from power_loop.testing.frozen_clock import FrozenClock
from power_loop.testing.leaks import LeakError, leak_check
from power_loop.testing.matrix import Cell, CrashReport, Row, Scenario, crash_matrix, crash_point, crash_problem
from power_loop.testing.replay_fixture import check_replay_fixture, write_replay_fixture
from power_loop.testing.scripted import ScriptedLLM, call, calls

__all__ = [
    "Cassette",
    "CassetteMismatchError",
    "Cell",
    "CrashReport",
    "Fault",
    "FaultKind",
    "FaultyLLM",
    "FrozenClock",
    "Leak",
    "LeakError",
    "LeakKind",
    "MatchMode",
    "RecordMode",
    "RecordedCall",
    "Row",
    "Scenario",
    "ScriptedLLM",
    "call",
    "calls",
    "check_replay_fixture",
    "crash_matrix",
    "crash_point",
    "crash_problem",
    "leak_check",
    "random_faults",
    "write_replay_fixture",
]
