"""Every example has one idea, fits on a page, says what will be seen, and is run by a test."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import power_loop

from .conftest import EXAMPLES

PROGRAMS = sorted(EXAMPLES.glob("[0-9][0-9]_*.py"))
TESTS = "".join(path.read_text("utf-8") for path in Path(__file__).parent.glob("test_*.py"))
PAGE = 100


@pytest.mark.promise("examples")
def test_there_are_at_least_forty() -> None:
    assert len(PROGRAMS) >= 40
    numbers = [path.name[:2] for path in PROGRAMS]
    assert len(set(numbers)) == len(numbers)


@pytest.mark.promise("examples")
@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_it_is_a_page_that_says_what_will_be_seen_and_is_run(path: Path) -> None:
    text = path.read_text("utf-8")
    assert text.count("\n") <= PAGE
    assert re.search(r"\byou\s+will\s+see\b", ast.get_docstring(ast.parse(text)) or "", re.IGNORECASE)
    assert f'"{path.stem}"' in TESTS, "no test runs it"
    assert 'if __name__ == "__main__":' in text


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_it_imports_public_names_only(path: Path) -> None:
    shelves = {f"power_loop.{name.partition('.')[0]}" for name in power_loop.STABLE_API if "." in name}
    allowed = {"power_loop", "power_loop.storage", *shelves}
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("power_loop"):
            assert node.module in allowed or (node.module or "").startswith("power_loop.contrib."), node.module
