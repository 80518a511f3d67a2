"""What the docs print from the code is what the code says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from power_loop.contracts.states import CallState
from scripts import print_architecture, state_picture
from scripts.print_architecture import PARTS, first_sentence, printed

ROOT = Path(__file__).resolve().parents[2]
# Far more than it takes, on a machine that has much else to do.
LIMIT_S = 150


def test_every_printed_part_is_up_to_date() -> None:
    command = [sys.executable, "-m", "scripts.print_architecture", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_part_stands_on_a_page() -> None:
    paths = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), ROOT / "examples" / "README.md"]
    pages = "".join(path.read_text("utf-8") for path in paths)
    assert [name for name in PARTS if f"<!-- printed: {name} -->" not in pages] == []


def test_a_step_that_has_no_place_in_the_picture_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    known = state_picture.CALL_STEPS
    more = {**known, CallState.WAITING: known[CallState.WAITING] | {CallState.STARTED}}
    monkeypatch.setattr(state_picture, "CALL_STEPS", more)
    with pytest.raises(AssertionError, match="other steps than the store"):
        state_picture.call_states()


def test_printing_a_page_twice_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(print_architecture.PARTS, "sum", lambda: "1 + 1 = 2")
    once = printed("before\n<!-- printed: sum -->\nstale\n<!-- end: sum -->\nafter\n")
    assert "1 + 1 = 2" in once
    assert "stale" not in once
    assert once.startswith("before\n")
    assert once.endswith("after\n")
    assert printed(once) == once


@pytest.mark.parametrize(
    ("docstring", "sentence"),
    [
        ("Says one thing.\n\nAnd more.", "Says one thing."),
        ("Says one thing. And more.", "Says one thing."),
        ("Says one thing\nover two lines.", "Says one thing over two lines."),
        ("Costs 0.5 s of `a.b`.", "Costs 0.5 s of `a.b`."),
        ("Says no more", "Says no more"),
        (None, ""),
    ],
)
def test_a_first_sentence_ends_at_its_full_stop(docstring: str | None, sentence: str) -> None:
    assert first_sentence(docstring) == sentence
