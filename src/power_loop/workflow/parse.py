"""Reads the spec of a workflow and says all that is wrong with it at once."""

from __future__ import annotations

from typing import Any

from power_loop.contracts.errors import WorkflowSpecError
from power_loop.contracts.json_schema.problems import Path, place_text
from power_loop.contracts.workflow_problem import WorkflowProblem
from power_loop.workflow.bounds import MAX_PROBLEMS
from power_loop.workflow.build import build
from power_loop.workflow.grammar import WORKFLOW
from power_loop.workflow.plain import TooMuch, plain_copy
from power_loop.workflow.reach import Reach
from power_loop.workflow.spec import WorkflowSpec

# Problems that the error's own message tells in full.
_MAX_TOLD = 20


def parse_workflow(spec: Any) -> WorkflowSpec:
    """Return the workflow that some JSON is. Raises `workflow.invalid_spec` with every problem of whatever it is."""
    if isinstance(spec, WorkflowSpec):
        return spec
    source, problems = _read(spec)
    if problems:
        raise WorkflowSpecError(problems_text(problems), problems=problems)
    return build(source)


def validate_workflow(spec: Any) -> tuple[WorkflowProblem, ...]:
    """Return every problem of a spec, in the order in which it is written; none if it can be run."""
    return () if isinstance(spec, WorkflowSpec) else _read(spec)[1]


def problems_text(problems: tuple[WorkflowProblem, ...]) -> str:
    """Return problems as a text by which a model or a person mends the spec in one round."""
    lines = [f"- {problem}" for problem in problems[:_MAX_TOLD]]
    if len(problems) > _MAX_TOLD:
        lines.append(f"- and {len(problems) - _MAX_TOLD} more")
    count = f"{len(problems)} problems" if len(problems) > 1 else "1 problem"
    return "\n".join([f"the workflow cannot be run: it has {count}; mend all of them:", *lines])


class _Enough(Exception):  # noqa: N818 - a signal
    """Ends the reading of a spec in which nothing is right."""


class _Problems:
    def __init__(self) -> None:
        self.found: list[WorkflowProblem] = []

    def add(self, path: Path, message: str, *, expected: str = "", suggestion: str = "") -> None:
        """Note a problem."""
        where = place_text(path)[1:].removeprefix(".") or "the workflow"
        self.found.append(WorkflowProblem(where, message, expected, suggestion))
        if len(self.found) >= MAX_PROBLEMS:
            raise _Enough


def _read(spec: Any) -> tuple[Any, tuple[WorkflowProblem, ...]]:
    problems = _Problems()
    source: Any = None
    try:
        source = plain_copy(spec, lambda path, message, expected: problems.add(path, message, expected=expected))
        source = WORKFLOW.read(source, None, problems)
        root = source.get("root") if isinstance(source, dict) else None
        if isinstance(root, dict):
            Reach(problems).check(root)
    except (_Enough, TooMuch):
        pass
    except RecursionError:
        problems.found.append(WorkflowProblem("the workflow", "it is nested too deeply to be read", "fewer levels"))
    return source, tuple(problems.found)
