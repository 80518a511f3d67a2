"""A user's agent is put through the crash matrix in three lines, and what is wrong with it is found and told."""

from __future__ import annotations

import pytest

from power_loop.errors import ConfigError
from power_loop.testing import Cell, CrashReport, Row, Scenario, crash_matrix
from power_loop.testing.matrix import nursery
from power_loop.testing.matrix.points import Point, places_of
from tests.servers import find_server, shared_server
from tests.testing.matrix import agents


@pytest.mark.promise("kill-at-any-moment")
def test_an_agent_that_keeps_its_promises_is_killed_at_every_point_and_goes_on() -> None:
    report = crash_matrix(agents.make_shop, scenarios=[agents.buy], workers=1)
    report.raise_for_violations()
    kinds = {Point.parse(row.cell.point).name.split()[0] for row in report.rows}
    assert kinds == {
        "commit.before",
        "commit.after",
        "effect.before",
        "effect.after",
        "model.before",
        "model.after",
        "own",
    }
    assert report.deaths >= len(report.rows) >= 15
    assert str(report).startswith(f"{len(report.rows)} histories, {report.deaths} deaths, 0 violations")
    assert f"| sqlite | buy | sigkill | {len(report.rows)} | {report.deaths} | 0 |" in report.table()


@pytest.mark.promise("kill-at-any-moment")
def test_an_agent_that_works_through_another_one_is_judged_with_it() -> None:
    report = crash_matrix(agents.make_office, scenarios=[agents.buy], workers=1)
    report.raise_for_violations()
    moves = {row.cell.point.partition("#")[0] for row in report.rows}
    assert {"commit.after:create_child", "own:ordered", "model.before:scripted"} <= moves
    assert {"commit.after:accept#3", "own:ordered#2"} <= {row.cell.point for row in report.rows}


def test_a_renewal_that_the_clock_brought_is_no_point_to_be_killed_at() -> None:
    report = crash_matrix(agents.make_thinker, workers=1)
    report.raise_for_violations()
    assert {row.outcome for row in report.rows} == {"held"}
    assert [row for row in report.rows if "renew" in row.cell.point] == []


def test_it_is_stopped_cut_short_twice_and_given_other_clocks_too() -> None:
    kinds = ["sigstop", "overlap", "double", "clock+1h", "clock-1h", "sigkill-1h"]
    report = crash_matrix(agents.make_shop, scenarios=[agents.buy], kinds=kinds, workers=1)
    report.raise_for_violations()
    assert {row.cell.kind for row in report.rows if row.outcome == "held"} == set(kinds)


def test_a_text_is_a_scenario_and_tools_may_be_given_by_name() -> None:
    report = crash_matrix(
        "tests.testing.matrix.agents:make_with", "tests.testing.matrix.agents:give_careless", scenarios="Emma, please."
    )
    report.raise_for_violations()
    assert {row.cell.scenario for row in report.rows} == {"send1"}


def test_a_tool_that_is_not_what_it_says_is_found_by_what_really_happened() -> None:
    scenario = Scenario("buy", agents.buy, check=agents.one_order)
    report = crash_matrix(agents.make_with, agents.give_careless, scenarios=scenario, workers=1)
    broken = {row.cell.point for row in report.violations}
    # It had its effect when it died, and was run again as it allows.
    assert broken >= {"own:ordered#1", "effect.after:careless_order#1"}
    assert "commit.before:accept#1" not in broken
    with pytest.raises(AssertionError, match=r"sqlite/buy/own:ordered#1/sigkill/resume\n    2 books came"):
        report.raise_for_violations()


def test_a_scenario_that_repeats_its_input_is_found_by_its_end() -> None:
    report = crash_matrix(agents.make_shop, scenarios=[agents.buy_without_an_id], workers=1)
    assert any(problem.startswith("log: ") for row in report.violations for problem in row.problems)


@pytest.mark.parametrize(
    ("tools", "words"), [(agents.give_child, "processes were left behind"), (agents.give_complaint, "out of print")]
)
def test_what_is_wrong_without_any_fault_is_told_before_anything_is_killed(
    monkeypatch: pytest.MonkeyPatch, tools: object, words: str
) -> None:
    # It will not end, however long one waits.
    monkeypatch.setattr(nursery, "_ORPHANS_S", 0.5)
    with pytest.raises(AssertionError, match=words):
        crash_matrix(agents.make_with, tools, scenarios=[agents.buy], workers=1)  # type: ignore[arg-type]


def test_a_scenario_that_fails_without_any_fault_is_told() -> None:
    with pytest.raises(AssertionError, match="'fail' fails without any fault"):
        crash_matrix(agents.make_shop, scenarios=[agents.fail], workers=1)


def test_a_row_is_made_again_by_its_name() -> None:
    name = "sqlite/buy/own:ordered#1/sigkill/resume"
    for _ in range(2):
        report = crash_matrix(agents.make_shop, scenarios=[agents.buy], only=name)
        [row] = report.rows
        assert (str(row.cell), row.outcome, row.deaths) == (name, "held", 1)


def test_a_point_that_is_not_passed_is_told_as_that() -> None:
    report = crash_matrix(agents.make_shop, scenarios=[agents.buy], only="sqlite/buy/own:ordered#7/sigkill/resume")
    assert [row.outcome for row in report.rows] == ["not reached"]
    with pytest.raises(AssertionError, match="nothing was tried"):
        report.raise_for_violations()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"agent": lambda dsn: None}, "cannot be found by another process"),
        ({"agent": "tests.testing.matrix.agents"}, "names no function"),
        ({"agent": "tests.testing.matrix.agents:nobody"}, "ended with"),
        ({"kinds": ["sigkil"]}, r"unknown kinds of faults \['sigkil'\]"),
        ({"scenarios": []}, "give at least one"),
        ({"scenarios": ["Hello.", Scenario("send1", "Hi.")]}, "each with a name of its own"),
    ],
)
def test_what_cannot_be_tried_is_refused(changes: dict[str, object], words: str) -> None:
    asked: dict[str, object] = {"agent": agents.make_shop, "scenarios": "Hello.", **changes}
    with pytest.raises(ConfigError, match=words):
        crash_matrix(**asked)  # type: ignore[arg-type]


def test_names_of_cells_and_points_are_read_as_they_are_written() -> None:
    for text in ("sqlite/buy/commit.after:accept#2/double/resume/3", "mysql/x/own:paid, or not#1/sigkill/again"):
        assert str(Cell.parse(text)) == text
    point = Point("own paid: or not", 3)
    assert Point.parse(str(point)) == point
    assert places_of(["a", "b", "a"]) == [("a", 1), ("b", 1), ("a", 2)]


def test_a_report_says_what_broke_and_where() -> None:
    cell = Cell("sqlite", "buy", "own:ordered#1", "sigkill", "resume")
    rows = [Row(cell, "broken", ("2 books came",), 1, 2), Row(cell, "not reached", (), 3, 3)]
    report = CrashReport(rows)
    assert report.violations == rows[:1]
    assert str(report) == "2 histories, 4 deaths, 1 violations, 1 points not reached again (0 held)"
    assert [Row.of_json(row.as_json()) for row in rows] == rows
    with pytest.raises(AssertionError, match=r"own:ordered#1/sigkill/resume\n    2 books came"):
        report.raise_for_violations()


def test_a_lease_that_runs_out_by_a_servers_clock_needs_an_agent_that_takes_a_clock() -> None:
    with pytest.raises(ConfigError, match="give the agent a parameter `clock`"):
        crash_matrix(agents.make_clockless, None, "postgresql://nobody@localhost:1/none", kinds=["sigstop"])


@pytest.mark.parametrize("backend", ["postgres", "mysql", "mariadb"])
def test_a_server_is_a_backend_by_its_dsn(backend: str) -> None:
    kind = find_server(backend)
    if kind.missing is not None:
        pytest.skip(str(kind))
    with shared_server(backend).database() as dsn:
        scenario = Scenario("buy", agents.buy, ways=("recover",))
        report = crash_matrix(agents.make_shop, None, dsn, scenarios=scenario, workers=1)
    report.raise_for_violations()
    assert {row.cell.backend for row in report.rows} == {dsn.partition(":")[0]}
