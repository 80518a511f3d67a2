"""The whole matrix goes on where it was ended, prints what it did and what it did not, and makes a row again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from power_loop.testing.matrix.report import Cell, Row
from tests.crash.broken import rows as broken_variants
from tests.crash.full.__main__ import main
from tests.crash.full.journal import Journal
from tests.crash.full.page import KINDS, page_beside, page_of

_QUICK = ["--backends", "sqlite", "--scenarios", "plain", "--workers", "1", "--race-seconds", "0"]


def lines_of(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_a_run_that_was_ended_goes_on_where_it_was_and_keeps_its_seed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal, page = tmp_path / "journal", tmp_path / "page.md"
    words = [*_QUICK, "--kinds", "clock+1h", "--journal", str(journal), "--page", str(page)]
    assert main([*words, "--seed", "7"]) == 0
    first = [str(line["cell"]) for line in lines_of(journal) if "cell" in line]
    assert len(first) == len(set(first)) > 10
    # It is killed while it writes a line, and two rows earlier.
    kept = journal.read_bytes().splitlines(keepends=True)
    rows = [line for line in kept if b'"cell"' in line]
    journal.write_bytes(b"".join([kept[0], *rows[:-2]]) + rows[-2][:20])
    assert main([*words, "--seed", "8"]) == 0
    told = Journal(journal, {})
    told.close()
    assert sorted(told.rows) == sorted(first)
    assert told.about["seed"] == 7
    text = page.read_text("utf-8")
    assert f"**{len(first)} histories, 0 processes killed with SIGKILL, 0 violations**" in text
    assert f"| `clock+1h` | {KINDS['clock+1h']} | {len(first)} | 0 | 0 |" in text
    assert f"| `sigkill` | {KINDS['sigkill']} | not run |" in text
    assert "no_fence" in text
    assert "violations; " in capsys.readouterr().err


def test_a_row_is_made_again_and_all_of_it_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    name = "sqlite/plain/commit.after:append_reply#2/sigkill/resume"
    assert main(["--one", name]) == 0
    out = capsys.readouterr().out
    assert f"{name}: held, 1 deaths" in out
    assert "process 1: begin, ended {'exit': -9}, passed\n    commit.before accept\n    commit.after accept\n" in out
    assert "process 2: resume, ended {'exit': 0}" in out
    assert '"what": "replied"' in out


def test_the_page_tells_of_what_was_broken_missed_and_left_out() -> None:
    def row(point: str, outcome: str, *problems: str, notes: tuple[str, ...] = ()) -> Row:
        return Row(Cell("sqlite", "plain", point, "sigkill", "resume"), outcome, problems, 1, 2, notes=notes)

    rows = [
        row("a#1", "held", notes=("the caller was told store.full",)),
        row("b#1", "broken", "two | books came"),
        row("c#1", "not reached"),
    ]
    about = {
        "seed": 7,
        "backends": {"sqlite": "3.40"},
        "planned": {"sqlite/sigkill": 5},
        "not_run": ["mysql: not here"],
        "races": {
            "sqlite": {"seed": 7, "seconds": 60.0, "processes": 9, "killed": 4, "stopped": 1, "operations": 500}
            | {"problems": ["C1 s1: lost"]}
        },
    }
    page = page_of(rows, about, broken_variants())
    assert "**2 histories, 3 processes killed with SIGKILL, 1 violations** on sqlite 3.40; 1 problems in" in page
    assert "- `sqlite/plain/b#1/sigkill/resume`: two \\| books came" in page
    assert "- sqlite, `sigkill`: 1 points were not passed again" in page
    assert "- sqlite/sigkill: 2 of 5 planned histories" in page
    assert "- mysql: not here" in page
    assert "| `sigkill` | the caller was told store.full | 1 |" in page
    assert "| sqlite | 7 | 60 | 9 | 4 | 1 | 500 | 1 |" in page
    assert page.count("| `no_fence` |") == 1


def test_a_later_run_is_told_of_beside_the_page_and_takes_the_place_of_the_one_before() -> None:
    def row(scenario: str, kind: str, outcome: str = "held") -> Row:
        return Row(Cell("sqlite", scenario, "a#1", kind, "resume"), outcome, ("two came",), 1, 2)

    about = {"seed": 7, "backends": {"sqlite": "3.40"}, "planned": {"sqlite/sigkill": 3}, "commits": [["abc", 0]]}
    page = page_of([row("plain", "sigkill")], about, broken_variants())
    once = page_beside(page, [row("timer", "sigstop")], about, broken_variants())
    twice = page_beside(once, [row("timer", "sigkill"), row("timer", "double", "broken")], about, broken_variants())
    for text in (once, twice):
        assert text.startswith(page.partition("## Broken variants")[0].rstrip())
        assert text.count("## Scenarios of a later run") == text.count("## Broken variants") == 1
    assert "**2 histories, 2 processes killed with SIGKILL, 1 violations**" in twice
    assert "| timer | `sigkill` | 1 / 1 / 0 |" in twice
    assert "`sigstop` | 1 / 1" not in twice
    assert "- `sqlite/timer/a#1/double/resume`: two came" in twice
    assert "- sqlite/sigkill: 2 of 3 planned histories" in twice
