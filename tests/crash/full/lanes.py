"""Has what the histories of one backend need: processes, databases, and a server or a disk that may be made to fail."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from power_loop.testing.matrix.histories import KINDS, Kind, Setting, suits
from power_loop.testing.matrix.nursery import Nursery
from power_loop.testing.matrix.places import ServerPlace, SqlitePlace
from power_loop.testing.matrix.points import Point
from power_loop.testing.matrix.references import reference_to
from power_loop.testing.matrix.report import Cell, Row
from power_loop.testing.matrix.scenarios import Scenario
from power_loop.testing.matrix.workshop import Workshop
from tests.crash.full.agents import SCENARIOS, make_loop, make_tables
from tests.crash.full.disk import DISK_KINDS, FAULTS, count_calls, injector
from tests.crash.full.network import CUTS, SLOW, network_kinds
from tests.crash.races import run_races
from tests.servers import find_server, find_servers
from tests.servers.proxy import Proxy
from tests.servers.server import Server

BACKENDS = ("sqlite", "postgres", "mysql", "mariadb")
AGENT = reference_to(make_loop)
# Histories in which a server comes back take seconds each: this many of a scenario and kind are drawn by the seed.
_SLOW_SAMPLE = 6

#: What no library can promise, and why: by scenario and kind, and by backend where others can.
BEYOND: dict[tuple[str, ...], str] = {
    ("timer", "sigkill-1h", "sqlite"): (
        "a file has no clock but that of the process that writes: what one claimed that was an hour ahead, others take"
        " an hour later"
    ),
    ("asked", "sigstop"): (
        "a person who says that a call had no effect and lets it run again is overtaken by the process that was only"
        " stopped, and has the effect afterwards; `once` without such a word keeps it to one"
    ),
}

BEYOND["asked", "overlap"] = BEYOND["asked", "sigstop"]
for _scenario in ("follow_up", "queued_send", "late_follow_up"):
    for _kind in ("disk-full", "io-error"):
        BEYOND[_scenario, _kind] = (
            "where the disk refuses the follow-up, the tool that leaves it, or the send that it began, fails and says"
            " so, as it has to be; the verdict compares with a run in which nobody was told that"
        )

Settings = dict[str, tuple[Scenario, Setting]]


def settings_of(scenarios: Iterable[Scenario] = SCENARIOS, *, life_s: float = 150.0) -> Settings:
    """Return what the workshops need of scenarios."""
    return {one.name: (one, Setting(AGENT, None, one.told, life_s)) for one in scenarios}


def missing(backend: str) -> str | None:
    """Return why a backend is not here, or None."""
    return None if backend == "sqlite" else find_server(backend).missing


def versions() -> dict[str, str]:
    """Return the version of every backend that is here."""
    found = {"sqlite": sqlite3.sqlite_version}
    return found | {kind.name: kind.version for kind in find_servers() if kind.missing is None}


class Lane:
    """Makes the histories of some kinds on one backend, as many at a time as it has workshops."""

    def __init__(self, name: str, group: str, make: Callable[[int], Workshop], workers: int) -> None:
        self.name, self.group = name, group
        self._make = make
        self.workshops = [make(at) for at in range(workers)]
        self._free: SimpleQueue[int] = SimpleQueue()
        for at in range(workers):
            self._free.put(at)

    @property
    def first(self) -> Workshop:
        """A workshop to plan with while nothing runs."""
        return self.workshops[0]

    def run(self, cell: Cell) -> Row:
        """Make one history; what goes wrong in the making is a broken row, and the next one gets a fresh workshop."""
        at = self._free.get()
        try:
            return self.workshops[at].run(cell)
        except Exception as error:
            with contextlib.suppress(Exception):
                self.workshops[at].nursery.close()
            self.workshops[at] = self._make(at)
            return Row(cell, "broken", (f"the matrix itself failed: {type(error).__name__}: {error}",))
        finally:
            self._free.put(at)


@dataclass
class Opened:
    """Is everything that lanes opened and that ends with them."""

    folder: Path
    settings: Settings
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def nursery(self, scheme: str, environment: Mapping[str, str] | None = None) -> Nursery:
        """Start a nursery."""
        names = [name for scenario, _ in self.settings.values() for name in scenario.references]
        nursery = Nursery(scheme, *dict.fromkeys([AGENT, *names]), environment=environment)
        with self._lock:
            self.stack.callback(nursery.close)
        return nursery


@contextlib.contextmanager
def opened(folder: Path, settings: Settings) -> Iterator[Opened]:
    """Hold what lanes open."""
    made = Opened(folder, settings)
    with made.stack:
        yield made


def process_lane(made: Opened, backend: str, workers: int, *, server: Server | None = None) -> Lane:
    """Return the lane of what happens to a process alone: killed, stopped, with another clock."""
    folder = made.folder / backend
    folder.mkdir(parents=True, exist_ok=True)
    if server is None and backend != "sqlite":
        server = made.stack.enter_context(find_server(backend).start())

    def make(at: int) -> Workshop:
        own = folder / f"worker{at}"
        if server is None:
            own.mkdir(exist_ok=True)
            place: SqlitePlace | ServerPlace = SqlitePlace(own)
        else:
            # A database of its own: recover() looks at all of it.
            place = ServerPlace(_new_database(server), name=backend)
        return _with_tables(
            Workshop(made.settings, made.nursery(place.scheme), place=place, folder=_unused(own / "histories"))
        )

    return Lane(backend, "process", make, workers)


def disk_lane(made: Opened, workers: int) -> Lane:
    """Return the lane of SQLite files on a disk that fails. Raises `NoInjectorError` where it cannot be made to."""
    folder = made.folder / "disk"
    folder.mkdir(parents=True, exist_ok=True)
    library = injector(folder)

    def make(at: int) -> Workshop:
        own = folder / f"worker{at}"
        own.mkdir(exist_ok=True)
        nursery = made.nursery("sqlite", {"LD_PRELOAD": str(library)})
        place = SqlitePlace(own)
        return _with_tables(
            Workshop(made.settings, nursery, place=place, folder=_unused(own / "histories"), kinds=DISK_KINDS)
        )

    return Lane("sqlite", "disk", make, workers)


def server_lane(made: Opened, backend: str) -> Lane:
    """Return the lane of a server of its own that is killed, restarted and cut off."""
    server = made.stack.enter_context(find_server(backend).start())
    proxy = made.stack.enter_context(Proxy(server))
    kinds: dict[str, Kind] = network_kinds(server, proxy)

    def make(at: int) -> Workshop:
        place = ServerPlace(_new_database(server), name=backend)
        folder = _unused(made.folder / f"{backend}-server" / "histories")
        return _with_tables(
            Workshop(made.settings, made.nursery(place.scheme), place=place, folder=folder, kinds=kinds)
        )

    return Lane(backend, "server", make, 1)


def race(made: Opened, backend: str, *, seed: int, seconds: float) -> dict[str, Any]:
    """Let processes race on a backend, and return what became of it."""
    if backend == "sqlite":
        (made.folder / "race").mkdir(exist_ok=True)
        dsn = str(made.folder / "race" / "app.db")
    else:
        dsn = _new_database(made.stack.enter_context(find_server(backend).start()))
    report = run_races(dsn, seed=seed % 10**6, seconds=seconds, deaths=0.7, stops=0.2)
    return {
        "seed": report.seed,
        "seconds": report.duration_s,
        **{name: report.counts.get(name, 0) for name in ("processes", "killed", "stopped")},
        "operations": sum(report.kinds.values()),
        "problems": list(report.problems),
    }


def _new_database(server: Server) -> str:
    """Make a database, to which processes connect without TLS: half of a short life would be spent on that."""
    dsn = server.new_database()
    return f"{dsn}{'&' if '?' in dsn else '?'}sslmode=disable"


def _with_tables(workshop: Workshop) -> Workshop:
    """Make the application's own tables in the database that all histories begin with."""
    asyncio.run(make_tables(workshop.place.first_dsn))
    return workshop


def _unused(folder: Path) -> Path:
    """Return a folder that a workshop before this one has not used."""
    at = 0
    while (found := folder.with_name(f"{folder.name}{at}")).exists():
        at += 1
    return found


# ---- which cells ----


def first_cells(lane: Lane, scenarios: Sequence[Scenario], seed: int) -> list[Cell]:
    """Return the cells of a lane that are known from the runs without a fault."""
    made = {"process": _process_cells, "disk": _disk_cells, "server": _server_cells}[lane.group]
    return [cell for scenario in scenarios for cell in made(lane, scenario, seed)]


def _process_cells(lane: Lane, scenario: Scenario, seed: int) -> Iterator[Cell]:
    points = lane.first.points(scenario.name)
    for way in scenario.ways:
        yield from (Cell(lane.name, scenario.name, str(point), "sigkill", way) for point in points)
    for kind in KINDS:
        if kind not in ("sigkill", "double") and not _is_beyond(lane, scenario, kind):
            yield from (
                Cell(lane.name, scenario.name, str(point), kind, scenario.ways[0])
                for point in points
                if suits(kind, point)
            )


def _is_beyond(lane: Lane, scenario: Scenario, kind: str) -> bool:
    return (scenario.name, kind) in BEYOND or (scenario.name, kind, lane.name) in BEYOND


def double_cells(rows: Iterable[Row], *, seed: int = 0, most: int | None = None) -> tuple[list[Cell], int]:
    """Return a cell for each point of each recovery, where the process that goes on is killed too, or as many as
    `most` of them, drawn by the seed; and how many were not drawn."""
    cells = [
        Cell(row.cell.backend, row.cell.scenario, row.cell.point, "double", row.cell.way, str(number))
        for row in sorted(rows, key=lambda row: str(row.cell))
        if row.cell.kind == "sigkill" and row.cell.way in ("resume", "again") and row.outcome == "held"
        for number in range(1, row.recovery_points + 1)
    ]
    if most is None or len(cells) <= most:
        return cells, 0
    return random.Random(f"{seed}/{cells[0].backend}/double").sample(cells, most), len(cells) - most


def _disk_cells(lane: Lane, scenario: Scenario, seed: int) -> Iterator[Cell]:
    for kind, (_, _, calls) in FAULTS.items():
        for call in calls if not _is_beyond(lane, scenario, kind) else ():
            count = count_calls(lane.first.stage(scenario.name), call)
            for number in range(1, count + 1):
                yield Cell(lane.name, scenario.name, str(Point(call, number)), kind, scenario.ways[0])


def _server_cells(lane: Lane, scenario: Scenario, seed: int) -> Iterator[Cell]:
    points = [point for point in lane.first.points(scenario.name) if point.is_commit]
    for kind in (*CUTS, *SLOW):
        usable = [point for point in points if kind in SLOW or point.name.startswith("commit.before")]
        if kind in SLOW and len(usable) > _SLOW_SAMPLE:
            chance = random.Random(f"{seed}/{lane.name}/{scenario.name}/{kind}")
            drawn = chance.sample(usable, _SLOW_SAMPLE)
            usable = [point for point in usable if point in drawn]
        yield from (Cell(lane.name, scenario.name, str(point), kind, scenario.ways[0]) for point in usable)
