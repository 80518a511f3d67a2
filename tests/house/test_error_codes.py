"""Error codes are frozen: none goes, none changes its class, and each new one is written down here."""

from __future__ import annotations

from pathlib import Path

import pytest

from power_loop.contracts import errors

ROOT = Path(__file__).resolve().parents[2]
BASELINE = Path(__file__).with_name("error_codes.txt")
PAGE = ROOT / "docs" / "en" / "api" / "index.md"


def classes() -> list[type[errors.PowerLoopError]]:
    return [
        value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, errors.PowerLoopError)
    ]


def codes() -> dict[str, str]:
    return {error.code: error.__name__ for error in classes() if "code" in vars(error)}


@pytest.mark.promise("error-codes")
def test_the_codes_are_those_of_the_baseline() -> None:
    frozen = dict(line.split() for line in BASELINE.read_text("utf-8").splitlines() if line and line[0] != "#")
    assert codes() == frozen, f"a new code is added to {BASELINE.name}; one that is there stays"


def test_no_two_errors_share_a_code() -> None:
    assert len(codes()) == len([error for error in classes() if "code" in vars(error)])


@pytest.mark.promise("error-codes")
def test_every_code_is_explained_in_the_documentation() -> None:
    page = PAGE.read_text("utf-8")
    assert "## Error codes" in page
    assert [code for code in codes() if f"| `{code}` |" not in page] == []


def test_the_tree_at_the_top_of_the_file_is_the_tree_of_the_classes() -> None:
    drawn = errors.__doc__ or ""
    for error in classes():
        assert error.__name__ in drawn, f"{error.__name__} is not drawn"
        if error.code != "internal" and "code" in vars(error) and error.__name__ not in ("StoreError", "LLMError"):
            assert error.code in drawn, f"{error.code} is not drawn"
