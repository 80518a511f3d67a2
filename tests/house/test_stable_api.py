"""The public names are those of the baseline: one that goes or changes is seen here before a user sees it."""

from __future__ import annotations

import ast
import difflib
import importlib
from pathlib import Path

import pytest

import power_loop
from tests.house.stable_api import BASELINE, described


@pytest.mark.promise("stable-api")
def test_the_names_and_their_parameters_are_those_of_the_baseline() -> None:
    frozen = BASELINE.read_text("utf-8").splitlines()
    changes = [line for line in difflib.ndiff(frozen, described()) if line[0] in "+-"]
    assert changes == [], "print the baseline anew with `python -m tests.house.stable_api` only if this is meant"


def test_every_public_name_can_be_imported_and_is_listed() -> None:
    for name in power_loop.__all__:
        assert getattr(power_loop, name) is not None
    assert set(power_loop.STABLE_API) < set(power_loop.__all__)
    assert set(power_loop.__all__) <= set(dir(power_loop))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = power_loop.nothing


def test_type_checkers_see_the_same_names() -> None:
    """Names are handed on lazily, so what a type checker reads is a list of its own: both say the same."""
    tree = ast.parse(Path(power_loop.__file__).read_text("utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.asname: (node.module, alias.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(seen) == set(power_loop.__all__) - {"STABLE_API"}
    for name, (module, original) in seen.items():
        assert getattr(power_loop, name) is getattr(importlib.import_module(str(module)), original)
