"""Makes histories one after the other in one place, and judges each."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Mapping
from pathlib import Path

from power_loop.errors import ConfigError
from power_loop.testing.matrix.histories import KINDS, History, Kind, NotReachedError, Setting, Stage
from power_loop.testing.matrix.nursery import Nursery
from power_loop.testing.matrix.places import ServerPlace, SqlitePlace
from power_loop.testing.matrix.points import Point, places_of
from power_loop.testing.matrix.report import Cell, Row
from power_loop.testing.matrix.scenarios import Scenario
from power_loop.testing.matrix.verdict import judge

# Calls that run side by side do not pass their points in the same order each time.
_ATTEMPTS = 4
# A lease is renewed by the clock: a run on a slow machine passes these points, and the next one does not.
_BY_THE_CLOCK = ("commit.before renew", "commit.after renew")


class Workshop:
    """Has a nursery, a place for databases and a folder, and is used by one thread at a time."""

    def __init__(
        self,
        settings: Mapping[str, tuple[Scenario, Setting]],
        nursery: Nursery,
        *,
        place: SqlitePlace | ServerPlace,
        folder: Path,
        kinds: Mapping[str, Kind] = KINDS,
        tag: str = "",
    ) -> None:
        self.place = place
        self.nursery = nursery
        self._settings = settings
        self._kinds = kinds
        self._folder = folder
        self._tag = tag or f"{os.getpid():x}{time.time_ns() & 0xFFFFFFF:x}"
        self._count = itertools.count(1)
        self._references: dict[str, History] = {}
        #: The history that was made last.
        self.told: History | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self._found_tables()

    def _found_tables(self) -> None:
        """Let a process of the agent make the tables."""
        _, setting = next(iter(self._settings.values()))
        stage = Stage(setting, self.nursery, place=_Nowhere(self.place), folder=self._fresh(), session_id="none")
        with stage.closing():
            life = stage.play("found", dsn=self.place.first_dsn)
        if life.end != {"exit": 0}:
            raise ConfigError(f"the agent could not open {self.place.name}: {life.trouble}")
        self.nursery.preload(life.left["modules"])

    def reference(self, scenario: str) -> History:
        """Return the run of a scenario to which nothing happens. Raises `AssertionError` if that breaks a promise."""
        if scenario not in self._references:
            stage = self.stage(scenario)
            with stage.closing():
                life = stage.play("begin")
            if life.trouble or life.error:
                outcome = life.trouble or life.left["outcome"]
                raise AssertionError(f"the scenario {scenario!r} fails without any fault: {outcome}")
            problems = judge(stage.history, stage.history)
            if problems:
                raise AssertionError(f"the scenario {scenario!r} breaks promises without any fault: {problems}")
            self._references[scenario] = stage.history
            self.nursery.preload(life.left["modules"])
        return self._references[scenario]

    def points(self, scenario: str) -> list[Point]:
        """Return the points of a scenario in the order in which they are passed, but for those that come by the
        clock."""
        places = places_of(self.reference(scenario).lives[0].points)
        return [place for place in places if place.name not in _BY_THE_CLOCK]

    def run(self, cell: Cell) -> Row:
        """Make the history of a cell, and judge it."""
        started = time.monotonic()
        reference = self.reference(cell.scenario)
        scenario, _ = self._settings[cell.scenario]
        history, reached = self._history(cell)
        deaths, lives = history.deaths, len(history.lives)
        for _ in range(_ATTEMPTS):
            if reached:
                break
            history, reached = self._history(cell)
            deaths += history.deaths
            lives += len(history.lives)
        seconds = round(time.monotonic() - started, 3)
        if not reached:
            return Row(cell, "not reached", (), deaths, lives, seconds)
        problems = judge(reference, history, is_same_end=scenario.is_same_end)
        recovery = history.recoveries[0].points if history.recoveries else []
        outcome = "broken" if problems else "held"
        return Row(cell, outcome, tuple(problems), deaths, lives, seconds, len(recovery), tuple(history.notes))

    def _history(self, cell: Cell) -> tuple[History, bool]:
        stage = self.stage(cell.scenario)
        reached = True
        with stage.closing():
            try:
                self._kinds[cell.kind](stage, Point.parse(cell.point), way=cell.way, more=cell.more)
            except NotReachedError:
                # A process that is in trouble did not come there because of it.
                reached = any(life.trouble for life in stage.history.lives)
        self.told = stage.history
        return stage.history, reached

    def stage(self, scenario: str) -> Stage:
        """Return the stage of a history that is to be made."""
        _, setting = self._settings[scenario]
        number = next(self._count)
        return Stage(
            setting,
            self.nursery,
            place=self.place,
            folder=self._folder / f"{number}",
            session_id=f"{scenario}-{self._tag}-{number}",
        )

    def _fresh(self) -> Path:
        return self._folder / f"{next(self._count)}"


class _Nowhere:
    """Is a place whose histories bring their own database."""

    def __init__(self, place: SqlitePlace | ServerPlace) -> None:
        self.name, self.scheme = place.name, place.scheme
        self._dsn = place.first_dsn

    def prepare(self, folder: Path) -> str:
        """Return the DSN."""
        return self._dsn

    def impatient(self, dsn: str) -> str:
        """Return the same."""
        return dsn

    def clear(self, folder: Path) -> None:
        """Leave it."""
