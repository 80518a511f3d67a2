"""Makes one history: a run, a fault at one point of it, and what other processes do with what is left."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from power_loop.testing.matrix.moves import TOLD_BUSY, Move, read_moves
from power_loop.testing.matrix.nursery import Nursery
from power_loop.testing.matrix.outside import read_ledger
from power_loop.testing.matrix.overtaken import told_wrongly, written_behind
from power_loop.testing.matrix.points import Plan, Point, places_of
from power_loop.testing.matrix.story import KILLED, LifeStory

HOUR_MS = 3_600_000
_TAKEN_UP = Point("commit.after take_up", 1)
# How often others go on with a session before it counts as stuck.
MAX_RECOVERIES = 3


class NotReachedError(Exception):
    """Says that a run did not come to the point at which something was to happen to it."""


@dataclass
class History:
    """Is one history: the processes in order, what they did outside of the database, and what is left.

    `faults` counts what happened to them, `deaths` the processes that a SIGKILL ended. `killed_at` is the point at
    which the first one was killed. `problems` is what was wrong while it was made, `notes` what was remarkable.
    """

    lives: list[LifeStory] = field(default_factory=list)
    ledger: list[dict[str, Any]] = field(default_factory=list)
    faults: int = 0
    deaths: int = 0
    killed_at: Point | None = None
    leftovers: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def last(self) -> LifeStory:
        """The process that lived to its end last."""
        return self.lives[-1]

    @property
    def recoveries(self) -> list[LifeStory]:
        """The processes that went on with what was left."""
        return [life for life in self.lives if life.way != "begin"]

    def life(self, pid: int) -> LifeStory:
        """Return what a process left that has ended."""
        return next(life for life in self.lives if life.pid == pid)


class Place(Protocol):
    """Is a backend: where the sessions of histories are kept.

    `name` stands in the table. `prepare` makes a database for one history and returns its DSN, `clear` lets it go.
    """

    name: str
    scheme: str

    def prepare(self, folder: Path) -> str:
        """Return the DSN of a database with the tables in it, for one history."""
        ...

    def impatient(self, dsn: str) -> str:
        """Return the DSN for a process that meets one that was stopped while it writes."""
        ...

    def clear(self, folder: Path) -> None:
        """Forget what a history left."""
        ...


@dataclass(frozen=True)
class Setting:
    """Is what all histories of one scenario have in common, as a job names it."""

    agent: str
    tools: str | None
    scenario: Mapping[str, Any]
    life_s: float = 60.0


class Stage:
    """Is where one history happens: a folder for the world outside, a session, and processes one by one."""

    def __init__(self, setting: Setting, nursery: Nursery, *, place: Place, folder: Path, session_id: str) -> None:
        self.setting = setting
        self.place = place
        self.history = History()
        self.folder = folder
        self.session_id = session_id
        self._nursery = nursery
        folder.mkdir(parents=True)
        self.dsn = place.prepare(folder)
        self._running: dict[int, tuple[str, Path]] = {}

    def start(self, way: str, *plans: Plan, ahead_ms: int = 0, dsn: str = "", **more: Any) -> int:
        """Start a process: `begin` founds the session and carries the scenario out, other ways go on with it."""
        own = self.folder / f"life{len(self._running) + 1}"
        own.mkdir()
        job = {
            "agent": self.setting.agent,
            "tools": self.setting.tools,
            "scenario": dict(self.setting.scenario),
            "life_s": self.setting.life_s,
            "dsn": dsn or self.dsn,
            "session_id": self.session_id,
            "way": way,
            "own": str(own),
            "world": str(self.folder),
            "plans": [plan._asdict() for plan in plans],
            "ahead_ms": ahead_ms,
            **more,
        }
        pid = self._nursery.start(job)
        self._running[pid] = (way, own)
        return pid

    def wait(self, pid: int) -> dict[str, int]:
        """Wait until a process stops or ends; one that ended takes its place in the history."""
        end = self._nursery.wait(pid)
        if "exit" in end:
            way, own = self._running[pid]
            points, left = _lines(own / "points"), _json(own / "left")
            life = LifeStory(pid, way, end, points, left, _trouble(own, end), self.moves(pid))
            self.history.lives.append(life)
            self.history.deaths += life.is_killed
        return end

    def moves(self, pid: int) -> list[Move]:
        """Return the moves that a process has begun and made so far, if it is watched."""
        return read_moves(self._running[pid][1] / "moves")

    def send_signal(self, pid: int, number: int) -> None:
        """Send a signal to a process."""
        self._nursery.send_signal(pid, number)

    def play(self, way: str, *plans: Plan, **options: Any) -> LifeStory:
        """Let one process live."""
        self.wait(self.start(way, *plans, **options))
        return self.history.last

    def settle(self, way: str, **options: Any) -> None:
        """Let processes go on with the session until it rests, as often as it takes within the bound."""
        for _ in range(MAX_RECOVERIES):
            life = self.play(way, **options)
            if life.error is None or life.trouble:
                return

    @contextlib.contextmanager
    def closing(self) -> Iterator[Stage]:
        """End whatever is still running, read what happened outside, and clean up."""
        try:
            yield self
        finally:
            for pid in self._running.keys() - {life.pid for life in self.history.lives}:
                self.send_signal(pid, signal.SIGKILL)
                self._nursery.wait(pid)
            self.history.ledger = read_ledger(self.folder)
            self.history.leftovers = self._nursery.orphans()
            self.place.clear(self.folder)
            shutil.rmtree(self.folder, ignore_errors=True)


# ---- the kinds of faults ----


def sigkill(stage: Stage, point: Point, *, way: str, more: str = "") -> None:
    """Kill the process at the point; another one goes on."""
    _die_at(stage, point)
    stage.settle(way)


def double(stage: Stage, point: Point, *, way: str, more: str = "1") -> None:
    """Kill the process at the point, and the one that goes on at its own point number `more`; a third goes on."""
    _die_at(stage, point)
    for number in more.split("+"):
        life = stage.play(way, Plan("SIGKILL", number=int(number)))
        if not life.is_killed:
            raise NotReachedError(f"it came to rest before point {number} of the recovery")
        stage.history.faults += 1
    stage.settle(way)


def sigstop(stage: Stage, point: Point, *, way: str, more: str = "") -> None:
    """Stop the process at the point until its lease is over, let another one take over, and let it go on."""
    pid = stage.start("begin", Plan("SIGSTOP", point), watched=True)
    if "stopped" not in stage.wait(pid):
        raise NotReachedError(str(point))
    mark = len(stage.moves(pid))
    stage.history.faults += 1
    taken = stage.play(way, ahead_ms=HOUR_MS, dsn=stage.place.impatient(stage.dsn), watched=True)
    stage.send_signal(pid, signal.SIGCONT)
    stage.wait(pid)
    stale = stage.history.last
    if taken.error is not None:
        # Stopped inside of a transaction, the first one kept it out and went on itself; or it met what the first one
        # was to meet.
        stage.history.notes.append(f"the one that was to take over was told {taken.error}")
    else:
        stage.history.problems += told_wrongly(stale)
    stage.history.problems += written_behind(stale, taken, mark=mark)
    # Whoever comes next finds it at rest: its clock is that of the one that took over.
    stage.settle(way, ahead_ms=HOUR_MS)


def overlap(stage: Stage, point: Point, *, way: str, more: str = "") -> None:
    """Stop the process until its lease is over; another one takes over and is stopped when it has the lease; the first
    goes on beside it, then the second. A first one that waits for the second is not made to wait longer."""
    waits = Plan("SIGSTOP", Point(TOLD_BUSY, 2))
    first = stage.start("begin", Plan("SIGSTOP", point), waits, watched=True)
    if "stopped" not in stage.wait(first):
        raise NotReachedError(str(point))
    mark = len(stage.moves(first))
    second = stage.start(way, Plan("SIGSTOP", _TAKEN_UP), ahead_ms=HOUR_MS, watched=True)
    is_held = "stopped" in stage.wait(second)
    # Behind a claim of its own it may have changed what the first one is not to change.
    is_fresh = not any(move["what"] == "claimed" for move in stage.moves(second))
    stage.history.faults += 2
    stage.send_signal(first, signal.SIGCONT)
    is_waiting = "stopped" in stage.wait(first)
    if is_held:
        stage.send_signal(second, signal.SIGCONT)
    if is_waiting:
        stage.send_signal(first, signal.SIGCONT)
        stage.wait(first)
    stale = stage.history.life(first)
    if is_held:
        stage.wait(second)
    taken = stage.history.life(second)
    stage.history.problems += told_wrongly(stale, "session.busy")
    is_alone = None if not is_held else is_fresh and not is_waiting
    stage.history.problems += written_behind(stale, taken, mark=mark, is_alone=is_alone)
    if is_held and taken.error is not None:
        stage.history.problems.append(f"the process that had taken over was disturbed: {taken.left['outcome']}")
    elif taken.error is not None:
        # Stopped inside of a transaction, the first one kept it out.
        stage.history.notes.append(f"the one that was to take over was told {taken.error}")
    elif not is_held:
        stage.history.notes.append("nothing was left to take over")
    stage.settle(way, ahead_ms=HOUR_MS)


def suits(kind: str, point: Point) -> bool:
    """Tell whether a kind of fault can come at a point."""
    # Who was stopped inside of a transaction keeps the others out.
    return kind != "overlap" or not point.name.startswith("commit.before")


def clock_forward(stage: Stage, point: Point, *, way: str, more: str = "") -> None:
    """Put the process's clock one hour forward at the point; it goes on, and so does another one later."""
    _jump(stage, point, way=way, by_ms=HOUR_MS)


def clock_back(stage: Stage, point: Point, *, way: str, more: str = "") -> None:
    """Put the process's clock one hour back at the point."""
    _jump(stage, point, way=way, by_ms=-HOUR_MS)


def killed_in_the_future(stage: Stage, point: Point, *, way: str, more: str = "") -> None:
    """Kill the process at the point, and go on with a clock that is one hour behind it."""
    _die_at(stage, point, ahead_ms=HOUR_MS)
    stage.settle(way)


def _jump(stage: Stage, point: Point, *, way: str, by_ms: int) -> None:
    stage.play("begin", Plan("jump", point, by_ms=by_ms))
    if str(point) not in {str(one) for one in places_of(stage.history.last.points)}:
        raise NotReachedError(str(point))
    stage.history.faults += 1
    stage.settle(way)


def _die_at(stage: Stage, point: Point, **options: Any) -> None:
    life = stage.play("begin", Plan("SIGKILL", point), **options)
    if not life.is_killed:
        raise NotReachedError(str(point))
    stage.history.faults += 1
    stage.history.killed_at = point


#: A kind of fault makes the history of one point.
Kind = Callable[..., None]

KINDS: dict[str, Kind] = {
    "sigkill": sigkill,
    "double": double,
    "sigstop": sigstop,
    "overlap": overlap,
    "clock+1h": clock_forward,
    "clock-1h": clock_back,
    "sigkill-1h": killed_in_the_future,
}


# ---- what a process leaves ----


def _lines(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines() if path.exists() else []


def _json(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return found


def _trouble(own: Path, end: dict[str, int]) -> str:
    """Return why a process that was not killed did not end well."""
    if end.get("exit") in (0, KILLED):
        return ""
    texts = [(own / name).read_text("utf-8") for name in ("failed", "hung") if (own / name).exists()]
    return "".join(texts).strip() or f"it ended with {end}"
