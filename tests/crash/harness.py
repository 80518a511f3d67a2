"""Starts the processes of crash tests, lets them die, and keeps what they left behind."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import power_loop
from tests.crash.facts import Facts, read_facts, with_ids_of_the_story

DRIVER = Path(__file__).with_name("driver.py")
SOURCE = Path(power_loop.__file__).resolve().parents[1]
_COMMAND = [sys.executable, "-I", "-S", str(DRIVER), str(SOURCE)]
_DATABASE_FILES = ("app.db", "app.db-wal", "app.db-shm")


class Nursery:
    """Starts processes of `driver.py`, each a fork of one that has imported the kernel and nothing else."""

    def __init__(self) -> None:
        self.started = self.killed = 0
        self._process = subprocess.Popen(_COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def start(self, scene: Scene, story: str, *acts: str, **job: Any) -> int:
        """Start a process that lives in a scene, and return its id."""
        scene.clear()
        job |= {"folder": str(scene.folder), "own": str(scene.own), "story": story, "acts": acts}
        self.started += 1
        pid: int = self._ask(job=job)["pid"]
        return pid

    def wait(self, pid: int) -> dict[str, int]:
        """Wait until a process ends (`exit`: a code, or a signal's number below zero) or stops (`stopped`)."""
        told = self._ask(wait=pid)
        self.killed += told.get("exit") == -signal.SIGKILL
        return told

    def go_on(self, pid: int) -> None:
        """Let a stopped process go on."""
        self._ask(go_on=pid)

    def kill(self, pid: int) -> None:
        """End a process with SIGKILL."""
        self._ask(kill=pid)

    def close(self) -> None:
        """End it and whatever it started."""
        self._process.communicate()

    def _ask(self, **asked: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the driver ended with {self._process.wait()}"
        return json.loads(line)


class Scene:
    """Is a folder in which processes live, with a database and the world outside of it.

    `own` is where a process leaves what is its own; another one that lives at the same time has another one.
    """

    def __init__(self, folder: Path, own: str = ".") -> None:
        self.folder = folder
        self.own = folder / own
        self.own.mkdir(parents=True, exist_ok=True)

    def beside(self) -> Scene:
        """Return the same scene for a second process."""
        return Scene(self.folder, "second")

    def clear(self) -> None:
        """Forget what the last process left that is its own."""
        for name in ("points", "outcomes", "states"):
            (self.own / name).unlink(missing_ok=True)

    def copied_to(self, folder: Path) -> Scene:
        """Return a copy, as another outcome of the same past."""
        copy = Scene(folder)
        for name in (*_DATABASE_FILES, "effects", "requests"):
            if (self.folder / name).exists():
                shutil.copy(self.folder / name, folder / name)
        return copy

    @property
    def database(self) -> Path:
        """The database file."""
        return self.folder / "app.db"

    def facts(self) -> Facts:
        """Return what the database holds. A copy is read, so that reading changes nothing."""
        look = self.folder / "look"
        look.mkdir(exist_ok=True)
        for name in _DATABASE_FILES:
            (look / name).unlink(missing_ok=True)
            if (self.folder / name).exists():
                shutil.copy(self.folder / name, look / name)
        return with_ids_of_the_story(read_facts(look / "app.db"))

    def points(self) -> list[str]:
        """Return the points that were passed, the last one included."""
        return (self.own / "points").read_text("utf-8").splitlines()

    def effects(self) -> list[dict[str, Any]]:
        """Return what happened in the world outside."""
        path = self.folder / "effects"
        return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []

    def told(self) -> list[str]:
        """Return the sessions of a crowd whose callers were told their answers, in order."""
        return (self.folder / "told").read_text("utf-8").splitlines()

    def requests(self) -> list[tuple[str, Any]]:
        """Return the requests to the model as (wire, body)."""
        found = []
        for line in (self.folder / "requests").read_bytes().splitlines():
            wire, _, body = line.partition(b" ")
            found.append((wire.decode(), json.loads(body)))
        return found

    def outcomes(self) -> list[Any]:
        """Return what the acts of the process that lived to its end gave."""
        return self._left("outcomes")

    def states(self) -> list[Facts]:
        """Return what the database held after each commit of a process that observed it."""
        return self._left("states")

    def check(self) -> None:
        """Fail with what a process that failed or hung left about it."""
        for name in ("traceback", "hung"):
            left = self.own / name
            text = left.read_text("utf-8") if left.exists() else ""
            assert not text, f"{name} in {self.own}:\n{text}"

    def _left(self, name: str) -> Any:
        self.check()
        return json.loads((self.own / name).read_text("utf-8"))


@dataclass(frozen=True)
class Reference:
    """Is a story told without a kill: the points that it passes, and what the database holds behind each commit.

    `states` begins with what was there before.
    """

    story: str
    scene: Scene
    states: list[Facts]

    @cached_property
    def points(self) -> list[str]:
        """The points in order."""
        return self.scene.points()

    @cached_property
    def places(self) -> list[tuple[str, int]]:
        """The points in order, each with which time its name comes."""
        seen: Counter[str] = Counter()
        places = []
        for name in self.points:
            seen[name] += 1
            places.append((name, seen[name]))
        return places

    def state_at(self, place: tuple[str, int]) -> Facts:
        """Return what a database has to hold when the process is killed at a point."""
        passed = self.points[: self.places.index(place) + 1]
        return self.states[sum(name.startswith("commit.after") for name in passed)]


class Theatre:
    """Has a nursery, the database that every story begins with, and what was played already."""

    def __init__(self, folder: Path) -> None:
        self.nursery = Nursery()
        self._folder = folder
        self._count = 0
        self._references: dict[str, Reference] = {}
        self._dead: dict[tuple[str, tuple[str, int]], Scene] = {}
        self._beginning: Scene | None = None

    def close(self) -> None:
        """End the nursery."""
        self.nursery.close()

    def folder(self) -> Path:
        """Return a fresh folder's path."""
        self._count += 1
        return self._folder / f"{self._count}"

    def empty(self) -> Scene:
        """Return a scene without a database."""
        return Scene(self.folder())

    def beginning(self) -> Scene:
        """Return a scene whose session has had one exchange."""
        if self._beginning is None:
            scene = self.empty()
            assert self.play(scene, "plain", "found") == {"exit": 0}, scene.outcomes()
            self._beginning = scene
        return self._beginning.copied_to(self.folder())

    def play(self, scene: Scene, story: str, *acts: str, **job: Any) -> dict[str, int]:
        """Let one process live in a scene."""
        ended = self.nursery.wait(self.nursery.start(scene, story, *acts, **job))
        scene.check()
        return ended

    def reference(self, story: str) -> Reference:
        """Return a story told without a kill."""
        if story not in self._references:
            scene = self.beginning()
            before = scene.facts()
            ended = self.play(scene, story, "carry_out", observes=True, is_first=True)
            states = [before, *scene.states()]
            assert ended == {"exit": 0}
            self._references[story] = Reference(story, scene, states)
        return self._references[story]

    def dead(self, story: str, place: tuple[str, int], **job: Any) -> Scene:
        """Return a copy of what a process leaves that is killed at a point of a story."""
        key = (story, place)
        if job or key not in self._dead:
            scene = self.beginning()
            ended = self.play(scene, story, "carry_out", stop_at=[place], is_first=True, **job)
            assert ended == {"exit": -signal.SIGKILL}, f"{place} of {story!r} was not reached: {ended}"
            assert scene.points()[-1] == place[0]
            if job:
                return scene
            self._dead[key] = scene
        return self._dead[key].copied_to(self.folder())


def run_alone(scene: Scene, story: str, *acts: str, **job: Any) -> int:
    """Run a job in an interpreter that is started for it alone; return how it ended."""
    scene.clear()
    job |= {"folder": str(scene.folder), "own": str(scene.own), "story": story, "acts": acts}
    done = subprocess.run([*_COMMAND, json.dumps(job)], stderr=subprocess.PIPE, text=True, check=False)
    scene.check()
    assert not done.stderr, done.stderr
    return done.returncode
