"""Is the quick crash matrix: every point of every scenario, and every kind of fault, on each backend."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import power_loop
from power_loop.testing.matrix.report import CrashReport
from tests.crash.full import lanes
from tests.crash.full.agents import SCENARIOS
from tests.crash.full.disk import DISK_KINDS, NoInjectorError
from tests.crash.test_kill_at_every_point import named_moves
from tests.servers import shared_server

_STORE = Path(power_loop.__file__).parent / "runtime" / "store"
#: Moves of clocks and of other processes: the stories are killed in the first two, those of agents in the next ones,
#: and those of timers that a hook puts off in the last.
_ELSEWHERE = {"renew", "release", "ask_to_cancel", "withdraw_input", "cancel_timer", "drop_timer", "put_back_timer"}

#: Moves of a turn that has agents.
_OF_A_TREE = {"create_child", "close_session"}

#: The commits of a server are those of SQLite, where every point is killed at: the servers share them out. `make crash`
#: kills at each of them on each.
_SERVERS = ("postgres", "mysql", "mariadb")
#: As many tests share a scenario's points on SQLite out: one alone would take minutes on a machine under load.
_PARTS = 4
#: Each backend with the first of the points that a test of it kills at, and how many it goes on by.
_SHARES = [
    *[pytest.param("sqlite", part, _PARTS, id=f"sqlite-{part}") for part in range(_PARTS)],
    *[pytest.param(server, at, len(_SERVERS), id=server) for at, server in enumerate(_SERVERS)],
]

_SHARED = re.compile(r"/commit\.\w+:advance_(calls|run)#([2-9]|\d\d)/")

# Of every kind that costs more than a death of a process, as many points of a scenario as one has patience for.
_FEW = 5

Make = Callable[[str], lanes.Lane]


@pytest.fixture(scope="session")
def process_lane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Make]:
    """Give the lane of a backend, which all tests of this worker share."""
    made: dict[str, lanes.Lane] = {}
    with lanes.opened(tmp_path_factory.mktemp("matrix"), lanes.settings_of()) as everything:

        def make(backend: str) -> lanes.Lane:
            if (reason := lanes.missing(backend)) is not None:
                pytest.skip(f"{backend} is not here: {reason}")
            if backend not in made:
                server = None if backend == "sqlite" else shared_server(backend)
                made[backend] = lanes.process_lane(everything, backend, 1, server=server)
            return made[backend]

        yield make


@pytest.fixture(scope="session")
def disk_lane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lanes.Lane]:
    """Give the lane of SQLite on a disk that fails."""
    with lanes.opened(tmp_path_factory.mktemp("disk"), lanes.settings_of()) as everything:
        try:
            yield lanes.disk_lane(everything, 1)
        except NoInjectorError as error:
            pytest.skip(str(error))


every_backend = pytest.mark.parametrize("backend", lanes.BACKENDS)
every_scenario = pytest.mark.parametrize("name", [scenario.name for scenario in SCENARIOS])


def cells_of(lane: lanes.Lane, name: str, *kinds: str) -> list[lanes.Cell]:
    """Return a scenario's cells of some kinds, each point once: the ways to go on take turns."""
    scenario = next(one for one in SCENARIOS if one.name == name)
    seen: dict[tuple[str, str], list[lanes.Cell]] = {}
    for cell in lanes.first_cells(lane, [scenario], seed=1):
        if cell.kind in kinds:
            seen.setdefault((cell.kind, cell.point), []).append(cell)
    return [cells[at % len(cells)] for at, cells in enumerate(seen.values())]


def check(lane: lanes.Lane, cells: list[lanes.Cell]) -> None:
    """Make the histories and fail with what is wrong in them."""
    report = CrashReport([lane.run(cell) for cell in cells])
    report.raise_for_violations()
    # Calls that end side by side share a commit or not, so that a later one's number may not come again.
    missed = [str(row.cell) for row in report.rows if row.outcome == "not reached"]
    assert [name for name in missed if not _SHARED.search(name)] == []


def test_every_move_that_a_turn_or_an_outsider_makes_has_its_points(process_lane: Make) -> None:
    lane = process_lane("sqlite")
    passed = {point.name for scenario in SCENARIOS for point in lane.first.points(scenario.name)}
    told = {name.split()[1] for name in passed if name.startswith("commit.")}
    named = named_moves(
        *[_STORE / f"{name}.py" for name in ("commits", "outsiders", "workflow_commits", "timer_moves")]
    )
    assert told == (named - _ELSEWHERE) | _OF_A_TREE
    assert {name.split()[0] for name in passed} >= {"effect.before", "effect.after", "model.before", "model.after"}


@pytest.mark.parametrize(("backend", "first", "every"), _SHARES)
@every_scenario
@pytest.mark.promise("kill-at-any-moment", "effect-once", "valid-transcript")
def test_a_process_may_be_killed_at_every_point(
    process_lane: Make, backend: str, first: int, every: int, name: str
) -> None:
    lane = process_lane(backend)
    check(lane, cells_of(lane, name, "sigkill")[first::every])


@every_backend
@pytest.mark.parametrize("kind", ["sigstop", "overlap", "clock+1h", "clock-1h", "sigkill-1h"])
@pytest.mark.promise("one-writer", "kill-at-any-moment")
def test_a_process_may_be_stopped_and_clocks_may_jump(process_lane: Make, backend: str, kind: str) -> None:
    lane = process_lane(backend)
    cells = cells_of(lane, "probe", kind)
    check(lane, cells[:: max(len(cells) // _FEW, 1)])


@pytest.mark.parametrize("kind", ["sigstop", "overlap"])
@pytest.mark.promise("one-writer")
def test_a_process_that_stops_while_it_writes_keeps_others_out_and_goes_on(process_lane: Make, kind: str) -> None:
    lane = process_lane("sqlite")
    [cell] = [cell for cell in cells_of(lane, "transaction", kind) if cell.point == "effect.before:book#1"]
    row = lane.run(cell)
    told = "the one that was to take over was told store.unavailable"
    assert (row.outcome, row.problems, row.notes) == ("held", (), (told,))


@pytest.mark.promise("one-writer")
def test_an_engine_that_comes_behind_the_end_of_its_run_is_told_how_it_ended(process_lane: Make) -> None:
    """The server ends the transaction that stood still; behind it the process meets a run that another one ended."""
    row = process_lane("postgres").run(lanes.Cell.parse("postgres/workflow/commit.before:accept#2/sigstop/resume"))
    assert (row.outcome, row.problems) == ("held", ())


@every_backend
@pytest.mark.promise("kill-at-any-moment")
def test_a_process_that_recovers_may_be_killed_too(process_lane: Make, backend: str) -> None:
    lane = process_lane(backend)
    [first] = [cell for cell in cells_of(lane, "probe", "sigkill") if cell.point == "effect.after:refund#1"]
    row = lane.run(first)
    assert row.outcome == "held", row
    pairs, _ = lanes.double_cells([row])
    assert len(pairs) > _FEW
    check(lane, pairs)


@pytest.mark.parametrize("kind", DISK_KINDS)
@pytest.mark.promise("bad-input", "kill-at-any-moment")
def test_a_disk_may_fail_at_every_call(disk_lane: lanes.Lane, kind: str) -> None:
    cells = cells_of(disk_lane, "probe", kind)
    check(disk_lane, cells[::2])
