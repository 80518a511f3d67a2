"""Every promise is named by a test, and no test names another."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.promises import PROMISES

TESTS = Path(__file__).resolve().parents[1]


def named_promises() -> Iterator[tuple[str, str]]:
    """Yield (id, place) for every `pytest.mark.promise(...)` in the tests."""
    for path in sorted(TESTS.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"), str(path))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "promise":
                for argument in node.args:
                    assert isinstance(argument, ast.Constant), f"{path}:{node.lineno}: a promise's id is a plain string"
                    yield argument.value, f"{path.relative_to(TESTS)}:{node.lineno}"


def test_every_promise_is_named_by_a_test() -> None:
    named = {promise for promise, _ in named_promises()}
    assert set(PROMISES) - named == set()


def test_no_test_names_a_promise_that_was_not_made() -> None:
    assert [place for promise, place in named_promises() if promise not in PROMISES] == []
