"""Every file opens with one sentence that says what it is for."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from scripts.print_architecture import module_sentence

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("src/power_loop", "demo", "scripts", "benchmarks", "examples", "tests")


def files() -> list[Path]:
    paths = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    # A test folder's mark that it is a package says nothing of its own.
    return [path for path in paths if path.name != "__init__.py" or path.stat().st_size or "tests" not in path.parts]


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_it_opens_with_a_sentence(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text("utf-8"), str(path)))
    assert docstring, "it has no docstring"
    sentence = module_sentence(path)
    assert sentence[-1] in ".!?:", f"{sentence!r} does not end"
    # A name stands as it is written in code.
    assert sentence[0].isupper() or sentence.startswith(("power-loop", "`")), f"{sentence!r} does not begin"
    assert " and also " not in sentence, "it holds two ideas"
