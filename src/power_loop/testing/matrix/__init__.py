"""Ends the processes of an agent at every point, and tells whether what it promises still holds."""

from power_loop.testing.matrix.matrix import crash_matrix
from power_loop.testing.matrix.points import crash_point, crash_problem
from power_loop.testing.matrix.report import Cell, CrashReport, Row
from power_loop.testing.matrix.scenarios import Scenario

__all__ = ["Cell", "CrashReport", "Row", "Scenario", "crash_matrix", "crash_point", "crash_problem"]
