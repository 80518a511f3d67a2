"""The public names are those of the baseline: one that goes or changes is seen here before a user sees it."""

from __future__ import annotations

import ast
import difflib
import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import power_loop
from tests.house.stable_api import BASELINE, described


@pytest.mark.promise("stable-api")
def test_the_names_and_their_parameters_are_those_of_the_baseline() -> None:
    frozen = BASELINE.read_text("utf-8").splitlines()
    changes = [line for line in difflib.ndiff(frozen, described()) if line[0] in "+-"]
    assert changes == [], "print the baseline anew with `python -m tests.house.stable_api` only if this is meant"


def shelves() -> dict[str, Any]:
    """Return the modules of our package that stand beside its floors: the front, and a shelf a subject."""
    root = Path(power_loop.__file__).parent
    names = ["power_loop"] + [f"power_loop.{path.stem}" for path in root.glob("[a-z]*.py")]
    packages = ["power_loop.testing", "power_loop.tools", "power_loop.workflow"]
    return {name: importlib.import_module(name) for name in names + packages}


def test_every_public_name_can_be_imported_and_is_listed() -> None:
    listed = set(power_loop.STABLE_API)
    for module, shelf in shelves().items():
        for name in shelf.__all__:
            assert getattr(shelf, name) is not None
            dotted = f"{module}.{name}".removeprefix("power_loop.")
            is_provisional = module == "power_loop.storage" or name in {*power_loop.storage.__all__, "STABLE_API"}
            assert (dotted in listed) != is_provisional, dotted
        assert set(shelf.__all__) <= set(dir(shelf))


def test_the_front_is_small_and_a_name_is_one_thing_wherever_it_stands() -> None:
    assert len(power_loop.__all__) <= 75
    seen: dict[str, object] = {}
    for shelf in shelves().values():
        for name in shelf.__all__:
            assert seen.setdefault(name, getattr(shelf, name)) is getattr(shelf, name), name


def test_a_name_stands_on_one_shelf() -> None:
    stands: dict[str, list[str]] = {}
    for module, shelf in shelves().items():
        if module != "power_loop":
            for name in shelf.__all__:
                stands.setdefault(name, []).append(module)
    assert {name: where for name, where in stands.items() if len(where) > 1} == {}


def test_a_shelf_is_an_attribute_without_an_import_of_its_own() -> None:
    program = "import power_loop; assert power_loop.errors.SessionBusyError; assert power_loop.workflow.create_workflow"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = power_loop.nothing


@pytest.mark.parametrize("package", ["power_loop", "power_loop.tools", "power_loop.workflow"])
def test_type_checkers_see_the_same_names(package: str) -> None:
    """Names are handed on lazily, so what a type checker reads is a list of its own: both say the same."""
    face = importlib.import_module(package)
    tree = ast.parse(Path(str(face.__file__)).read_text("utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.asname: (node.module, alias.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(seen) == set(face.__all__) - {"STABLE_API"}
    for name, (module, original) in seen.items():
        assert getattr(face, name) is getattr(importlib.import_module(str(module)), original)
