"""The published schema takes what the parser's tables take, and refuses what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from power_loop.contracts.json_schema import compile_schema
from power_loop.contracts.workflow_problem import WorkflowProblem
from power_loop.workflow.grammar import WORKFLOW
from power_loop.workflow.parse import validate_workflow
from power_loop.workflow.schema import WORKFLOW_SCHEMA
from tests.workflow.specs import CHANGES, GOOD_WORKFLOWS, RESEARCH, changed

OURS = compile_schema(WORKFLOW_SCHEMA)
THEIRS = jsonschema.Draft202012Validator(WORKFLOW_SCHEMA)


class Shape:
    """Keeps what the tables alone refuse."""

    def __init__(self, value: Any) -> None:
        self.found: list[Any] = []
        WORKFLOW.read(value, None, self)

    def add(self, path: Any, message: str, *, expected: str = "", suggestion: str = "") -> None:
        self.found.append(WorkflowProblem(str(path), message, expected, suggestion))


def test_it_is_a_schema_by_the_draft_that_it_names() -> None:
    jsonschema.Draft202012Validator.check_schema(WORKFLOW_SCHEMA)
    assert WORKFLOW_SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_the_research_workflow_fits_it() -> None:
    assert OURS.problems(RESEARCH) == ()
    assert list(THEIRS.iter_errors(RESEARCH)) == []


@settings(max_examples=60, deadline=None)
@given(GOOD_WORKFLOWS)
def test_what_can_be_run_fits_the_schema(spec: Any) -> None:
    assert validate_workflow(spec) == ()
    assert OURS.problems(spec) == ()
    assert THEIRS.is_valid(spec)


@settings(max_examples=100, deadline=None)
@given(GOOD_WORKFLOWS, st.lists(st.tuples(st.integers(0, 10_000), CHANGES), min_size=1, max_size=2))
def test_the_tables_and_the_schema_refuse_the_same(spec: Any, changes: Any) -> None:
    for where, change in changes:
        spec = changed(spec, where, change)
    refused = Shape(spec).found
    assert bool(refused) == bool(OURS.problems(spec)), refused
    assert bool(refused) == (not THEIRS.is_valid(spec)), refused


@pytest.mark.parametrize("value", [None, 1, "text", [], {}, [RESEARCH], {"name": "w", "root": []}])
def test_what_is_no_workflow_at_all_is_refused_by_both(value: Any) -> None:
    assert Shape(value).found
    assert OURS.problems(value)
    assert not THEIRS.is_valid(value)


def test_every_key_says_what_it_is_for() -> None:
    pending: list[Any] = [WORKFLOW_SCHEMA]
    while pending:
        one = pending.pop()
        if isinstance(one, dict):
            for name, schema in one.get("properties", {}).items():
                assert schema.get("description", "").endswith("."), name
            # What decides which table holds is no key of its own.
            pending += [below for name, below in one.items() if name != "if"]
        elif isinstance(one, list):
            pending += one


def test_the_published_file_is_printed_from_the_code() -> None:
    from scripts.print_architecture import DOCS, FILES

    for name, content in FILES.items():
        assert (Path(DOCS) / name).read_text("utf-8") == content(), f"run `make docs-print` for {name}"
