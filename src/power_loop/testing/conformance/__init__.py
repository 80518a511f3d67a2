"""Checks any store against what the loop asks of one: the very suite that our own databases have to pass."""

from power_loop.testing.conformance.cases import Case, Place
from power_loop.testing.conformance.suite import (
    ROOMS,
    ConformanceReport,
    ConformanceSuite,
    Failure,
    cases,
    run_conformance,
)

__all__ = ["ROOMS", "Case", "ConformanceReport", "ConformanceSuite", "Failure", "Place", "cases", "run_conformance"]
