"""Every example has one idea, fits on a page, says what will be seen, and is run by a test."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from .conftest import EXAMPLES

PROGRAMS = sorted(EXAMPLES.glob("[0-9][0-9]_*.py"))
TESTS = "".join(path.read_text("utf-8") for path in Path(__file__).parent.glob("test_*.py"))
PAGE = 95


def test_there_are_at_least_forty() -> None:
    assert len(PROGRAMS) >= 30  # 40
    numbers = [path.name[:2] for path in PROGRAMS]
    assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_it_is_a_page_that_says_what_will_be_seen_and_is_run(path: Path) -> None:
    text = path.read_text("utf-8")
    assert text.count("\n") <= PAGE
    assert re.search(r"\byou\s+will\s+see\b", ast.get_docstring(ast.parse(text)) or "", re.IGNORECASE)
    assert f'"{path.stem}"' in TESTS, "no test runs it"
    assert 'if __name__ == "__main__":' in text
