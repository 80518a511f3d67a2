"""Is one process of a crash matrix: it builds the agent, carries a scenario out or goes on with it, and may die.

`serve()` is the process that all of them are forks of: it has imported the agent and done nothing with it, so that a
fresh process costs no more than a fork.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import faulthandler
import gc
import importlib
import inspect
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn

from power_loop import PowerLoopError, StatefulAgentLoop
from power_loop.testing.matrix.counted import count_model, count_tools
from power_loop.testing.matrix.look import error_of, look_at, outcome_of
from power_loop.testing.matrix.moves import Moves
from power_loop.testing.matrix.outside import Ledger
from power_loop.testing.matrix.points import Plan, Point, Points, ShiftedClock, listen, shift_clock
from power_loop.testing.matrix.references import find, takes

#: Names the folder that stands for the world outside of the database; it lives as long as the history.
WORLD = "POWER_LOOP_CRASH_WORLD"
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
# A process that lives longer hangs, in seconds.
LIFE_S = 60.0
# How often it is looked whether what a dead process left behind has ended.
_LOOK_S = 0.002
# Importing a driver takes longer than a scenario; it is done once, before the forks.
_DRIVERS = {"postgresql": "asyncpg", "postgres": "asyncpg", "mysql": "aiomysql", "mariadb": "aiomysql"}


class Life:
    """Is what a job says: see `Job` of the histories."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job
        self.own = Path(job["own"])
        self.session_id: str = job["session_id"]
        self.ledger = Ledger(Path(job["world"]))
        plans = [Plan(**{**plan, "point": plan["point"] and Point(*plan["point"])}) for plan in job["plans"]]
        self.points = Points(self.own / "points", plans)

    async def live(self) -> None:
        """Do what the job says and leave what came of it behind."""
        job = self.job
        left: dict[str, Any] = {}
        listen(self.points.passed, lambda problem: self.ledger.note("problem", problem=problem))
        os.environ[WORLD] = job["world"]
        loop = self._loop()
        try:
            left["tools"] = self._count(loop)
            store: Any = await loop.get_store()
            if job["way"] == "found":
                left["modules"] = sorted(sys.modules)
                return
            if job["way"] == "begin":
                await loop.new_session(session_id=self.session_id)
            else:
                left["before"] = await look_at(loop, self.session_id)
                # Written down at once: it may not live to its end.
                (self.own / "left").write_text(json.dumps(left), "utf-8")
            _arm_injector(job.get("inject"))
            if job.get("watched"):
                Moves(self.own / "moves", self.points).watch(store)
            if hasattr(store, "on_point"):
                store.on_point = self.points.on_point
            self.points.arm()
            left["outcome"] = await self._act(loop)
            self.points.disarm()
            left["injected"] = _disarm_injector()
            left["modules"] = [] if job["plans"] else sorted(sys.modules)
            with contextlib.suppress(PowerLoopError):
                left["after"] = await look_at(loop, self.session_id)
                left["problems"] = await self._check(loop)
        finally:
            self.points.disarm()
            await loop.aclose()
            (self.own / "left").write_text(json.dumps(left), "utf-8")

    def _loop(self) -> StatefulAgentLoop:
        job = self.job
        make = find(job["agent"])
        options: dict[str, Any] = {}
        if job["tools"] is not None:
            tools = find(job["tools"])
            is_maker = inspect.isfunction(tools)
            options["tools"] = tools() if is_maker else tools
        if job["ahead_ms"]:
            if takes(make, "clock"):
                options["clock"] = ShiftedClock(job["ahead_ms"])
            else:
                shift_clock(job["ahead_ms"])
        loop: StatefulAgentLoop = make(job["dsn"], **options)
        return loop

    def _count(self, loop: StatefulAgentLoop) -> dict[str, Any]:
        count_model(loop, self.ledger, self.points)
        return count_tools(loop, self.ledger, self.points)

    async def _act(self, loop: StatefulAgentLoop) -> Any:
        try:
            return outcome_of(await self._go(loop))
        except PowerLoopError as error:
            return error_of(error)

    async def _go(self, loop: StatefulAgentLoop) -> Any:
        way = self.job["way"]
        if way == "resume":
            await loop.resume(self.session_id)
        elif way == "recover":
            await loop.recover()
        # A scenario may be carried out again at any time: its request ids tell what was done already.
        return await self._scenario(loop)

    async def _scenario(self, loop: StatefulAgentLoop) -> Any:
        scenario = self.job["scenario"]
        if "text" in scenario:
            return await loop.send(scenario["text"], session_id=self.session_id, request_id="crash-matrix")
        return await find(scenario["run"])(loop, self.session_id)

    async def _check(self, loop: StatefulAgentLoop) -> list[str]:
        check = self.job["scenario"].get("check")
        if check is None:
            return []
        found = await find(check)(loop, self.session_id)
        return [str(problem) for problem in found or ()]


def _arm_injector(inject: dict[str, Any] | None) -> None:
    """Tell the library that stands between this process and the disk which of its calls fails."""
    if inject is not None:
        library = ctypes.CDLL(None)
        library.inject_arm(inject["number"], inject["call"].encode(), inject["error"], inject["lasts"])


def _disarm_injector() -> int:
    library = ctypes.CDLL(None)
    return int(library.inject_disarm()) if hasattr(library, "inject_disarm") else 0


def run(job: dict[str, Any]) -> NoReturn:
    """Carry a job out and end the process."""
    own = Path(job["own"])
    hung = open(own / "hung", "w")  # noqa: SIM115 - open to the end of the process
    faulthandler.dump_traceback_later(job.get("life_s", LIFE_S), exit=True, file=hung)
    if sys.platform == "linux":
        # One that is stopped ends with its parent as well.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # A session of its own, so that what it starts and leaves behind is found.
    os.setsid()
    try:
        asyncio.run(Life(job).live())
    except BaseException:
        (own / "failed").write_text(traceback.format_exc(), "utf-8")
        os._exit(1)
    os._exit(0)


def serve(scheme: str, *references: str) -> None:
    """Start processes and tell what becomes of them, until the input ends."""
    with contextlib.suppress(ImportError):
        importlib.import_module(_DRIVERS.get(scheme, "sqlite3"))
    for reference in references:
        find(reference)
    # What is there stays as it is, so that a fork shares it with its parent to its end.
    gc.collect()
    gc.freeze()
    gc.disable()
    if sys.platform == "linux":
        # What a process started that died becomes a child of this one.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    running: set[int] = set()
    for line in sys.stdin:
        told = _answer(json.loads(line), running)
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()
    for pid in running:
        os.kill(pid, signal.SIGKILL)


def _answer(asked: dict[str, Any], running: set[int]) -> dict[str, Any]:
    if "job" in asked:
        pid = os.fork()
        if pid == 0:
            run(asked["job"])
        running.add(pid)
        return {"pid": pid}
    if "modules" in asked:
        for name in asked["modules"]:
            # Some are made by others and cannot be imported by their name.
            with contextlib.suppress(Exception):
                importlib.import_module(name)
        gc.freeze()
        return {}
    if "wait" in asked:
        _, status = os.waitpid(asked["wait"], os.WUNTRACED)
        if os.WIFSTOPPED(status):
            return {"stopped": os.WSTOPSIG(status)}
        running.discard(asked["wait"])
        return {"exit": os.waitstatus_to_exitcode(status)}
    if "orphans" in asked:
        return {"orphans": _orphans(asked["orphans"])}
    os.kill(asked["signal"], asked["number"])
    return {}


def _orphans(wait_s: float) -> list[int]:
    """Return what processes that have ended started and left alive, once it has had `wait_s` seconds to end."""
    until = time.monotonic() + wait_s
    while True:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        children = Path(f"/proc/self/task/{os.getpid()}/children")
        left = [int(pid) for pid in children.read_text("ascii").split()] if children.exists() else []
        if not left or time.monotonic() > until:
            return left
        time.sleep(_LOOK_S)


if __name__ == "__main__":
    sys.path[:] = json.loads(sys.argv[1])
    serve(*sys.argv[2:])
