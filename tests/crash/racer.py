"""Is the processes of a race: clients of some sessions that may be killed or stopped at any point, and who starts them.

`python -m tests.crash.racer JOB` forks the workers of a race, one for each slot at a time, starts the next one where
one was killed, and in the end one that recovers what they left.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import json
import os
import random
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from power_loop import (
    LLMRequest,
    LLMResponse,
    LoopConfig,
    PowerLoopError,
    SendStatus,
    StatefulAgentLoop,
    ToolContext,
    ToolDefinition,
    Usage,
    open_store,
    tool,
)
from power_loop.llm import Emit, ModelInfo
from power_loop.messages import Role, ToolCallPart
from power_loop.testing.history import HistoryLog
from tests.crash import mutants
from tests.servers.processes import die_with_parent

# What a client may be told in a race; anything else is a defect.
EXPECTED = frozenset(
    {
        "session.busy",
        "session.pending",
        "session.lease_lost",
        "call.not_waiting",
        # A process that is stopped inside of a transaction holds up SQLite's file, and a row of a server.
        "store.unavailable",
    }
)
_CLIENTS = 3
# How long a worker and the recovery at the end may live before that is a defect, in seconds.
_LIFE_S = 300.0
# Several of the time of a lease.
_RECOVERIES = 40
_TOOLS = ("charge", "pay", "save", "look")


@dataclass
class Race:
    """Is what all processes of a race know. `ends_ns` is when no new operation is begun any more (monotonic)."""

    dsn: str
    prefix: str
    folder: str
    seed: int
    workers: int
    sessions: list[str]
    operations: int
    ends_ns: int
    parent: int
    lease_ttl_s: float = 1.0
    deaths: float = 0.8
    stops: float = 0.15
    mutant: str | None = None

    @property
    def history(self) -> Path:
        return Path(self.folder) / "history.jsonl"


@dataclass
class Fate:
    """Is when a process dies or is stopped: at the point of this number, counted from 1; 0 is never."""

    at: int = 0
    is_stopped: bool = False


class Worker:
    """Is one process of a race."""

    def __init__(self, race: Race, name: str, fate: Fate, left: int) -> None:
        self.race = race
        self.name = name
        self.fate = fate
        self.left = left
        self.slot = name.partition(".")[0]
        self.random = random.Random(f"{race.seed}/{name}")
        self.log = HistoryLog(race.history, process=name)
        self.loop: StatefulAgentLoop
        self.store: Any
        self._points = 0
        self._answers = 0
        self._lock = threading.Lock()

    # ---- the points ----

    def point(self, place: str, what: str = "") -> None:
        """Pass a point, or die there."""
        with self._lock:
            self._points += 1
            is_met = self._points == self.fate.at
            # Who is stopped inside of a transaction holds up everybody, which is another test.
            if is_met and self.fate.is_stopped and place == "commit.before":
                self.fate.at += 1
                is_met = False
        if is_met:
            number = signal.SIGSTOP if self.fate.is_stopped else signal.SIGKILL
            signal.pthread_kill(threading.get_ident(), number)

    # ---- the life ----

    async def open(self) -> None:
        """Have a loop on the store."""
        if self.race.mutant is not None:
            mutants.MUTANTS[self.race.mutant]()
        store = await open_store(self.race.dsn, table_prefix=self.race.prefix)
        store.on_point = self.point
        self.store = store
        self.loop = StatefulAgentLoop(
            llm=Model(self),
            store=self.log.watched(store),
            tool_registry=make_tools(self),
            config=LoopConfig(lease_ttl_s=self.race.lease_ttl_s),
        )

    async def close(self) -> None:
        """Let everything go."""
        await self.loop.aclose()
        await self.store.aclose()

    async def live(self) -> None:
        """Be some clients until there is nothing left to do."""
        await self.open()
        await asyncio.gather(*(self._client(number) for number in range(_CLIENTS)))
        await self.close()

    async def _client(self, number: int) -> None:
        if number == 0:
            for session_id, text, request_id in self._asked_before():
                await self._try("send", session_id, self._send(session_id, text, request_id))
        while self._may_go_on():
            kind = self.random.choices(*zip(*_WEIGHTS.items(), strict=True))[0]
            await _ACTS[kind](self, self.random.choice(self.race.sessions))

    def _may_go_on(self) -> bool:
        if self.left <= 0 or time.monotonic_ns() > self.race.ends_ns:
            return False
        self.left -= 1
        # The conductor counts what was begun by the bytes of this file.
        with (Path(self.race.folder) / f"{self.slot}.count").open("ab") as file:
            file.write(b".")
        return True

    async def _try(self, kind: str, session_id: str, act: Awaitable[Any]) -> Any:
        try:
            return await act
        except PowerLoopError as error:
            if error.code not in EXPECTED:
                self.log.note("unexpected", session_id, code=error.code, message=error.message, during=kind)
            await asyncio.sleep(self.random.random() * 0.01)
            return None

    # ---- what clients do ----

    async def send(self, session_id: str) -> None:
        """Send an input, with a request id at times."""
        text = f"{self.name}-{self.left} r{self.random.choice((0, 0, 1, 2))}"
        request_id = f"req-{text}" if self.random.random() < 0.5 else None
        if request_id is not None:
            with (Path(self.race.folder) / f"{self.slot}.requests").open("a") as file:
                file.write(json.dumps([session_id, text, request_id]) + "\n")
        act = self._send(session_id, text, request_id)
        if self.random.random() < 0.08:
            await self._give_up(act)
        else:
            await self._try("send", session_id, act)

    async def _send(self, session_id: str, text: str, request_id: str | None) -> Any:
        options: dict[str, Any] = {"session_id": session_id, "request_id": request_id}
        if self.random.random() < 0.3:
            options["heal_pending"] = True
        options["on_busy"] = self.random.choice(("raise", "raise", "wait", "queue"))
        what = {"input": text, "request_id": request_id, "on_busy": options["on_busy"]}
        return await self.log.did("send", session_id, self.loop.send(text, **options), **what)

    async def _give_up(self, act: Awaitable[Any]) -> None:
        """Cancel the task that waits for something, as a web server does whose client has gone."""
        task = asyncio.ensure_future(act)
        await asyncio.wait((task,), timeout=self.random.random() * 0.03)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, PowerLoopError):
            await task

    async def follow_up(self, session_id: str) -> None:
        """Leave an input to whoever runs."""
        text = f"{self.name}-{self.left} r{self.random.choice((0, 0, 1))}"
        act = self.log.did("follow_up", session_id, self.loop.follow_up(session_id, text), input=text)
        await self._try("follow_up", session_id, act)

    async def resume(self, session_id: str) -> None:
        """Go on with what was left."""
        await self._try("resume", session_id, self.log.did("resume", session_id, self.loop.resume(session_id)))

    async def cancel(self, session_id: str) -> None:
        """Stop what runs."""
        await self._try("cancel", session_id, self.log.did("cancel", session_id, self.loop.cancel(session_id)))

    async def abort(self, session_id: str) -> None:
        """End what was left."""
        await self._try("abort", session_id, self.log.did("abort", session_id, self.loop.abort_pending(session_id)))

    async def recover_others(self, session_id: str) -> None:
        """Go on with what others left, as a worker of recovery does beside them."""
        act = self.log.did("recover", session_id, self.loop.recover(limit=2))
        await self._try("recover", session_id, act)

    async def look(self, session_id: str) -> None:
        """Read."""
        await self._try("look", session_id, self.log.look(self.store, session_id))

    def _asked_before(self) -> list[tuple[str, str, str]]:
        """Return requests of those who had this slot before, whose clients do not know what became of them."""
        path = Path(self.race.folder) / f"{self.slot}.requests"
        lines = path.read_text().splitlines() if path.exists() else []
        return [tuple(json.loads(line)) for line in lines[-3:]]  # type: ignore[misc]

    # ---- the end ----

    async def recover(self) -> None:
        """Bring every session to rest, as an operator's process does that looks for what others left."""
        await self.open()
        # Who was stopped, and not killed, holds its sessions until its leases are over.
        for _ in range(_RECOVERIES):
            await self.loop.recover()
            if all([await self._rests(session_id) for session_id in self.race.sessions]):
                break
            await asyncio.sleep(self.race.lease_ttl_s / 10)
        await self.close()

    async def _rests(self, session_id: str) -> bool:
        session, send = await self.store.get_session(session_id), await self.store.get_send(session_id)
        is_over = session.owner is None and (send is None or send.status is not SendStatus.RUNNING)
        return is_over and not await self.store.get_inbox(session_id)


_WEIGHTS = {"send": 45, "follow_up": 15, "resume": 8, "cancel": 6, "abort": 3, "recover_others": 3, "look": 20}
_ACTS: dict[str, Callable[[Worker, str], Awaitable[None]]] = {name: getattr(Worker, name) for name in _WEIGHTS}


class Model:
    """Asks for tools as many rounds as the last input says, then answers; no two of its answers are alike."""

    info = ModelInfo(provider="race", model="race")
    _rounds = re.compile(r" r(\d)$")

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._count = 0

    async def generate(self, request: LLMRequest, emit: Emit) -> LLMResponse:
        """Answer."""
        worker = self._worker
        worker.point("model.asked")
        await asyncio.sleep(worker.random.random() * 0.01)
        self._count += 1
        text = f"answer {self._count} of {worker.name}"
        usage = Usage(worker.random.randint(1, 1000), worker.random.randint(1, 100))
        last = max(at for at, message in enumerate(request.messages) if message.role is Role.USER)
        step = sum(message.role is Role.ASSISTANT for message in request.messages[last:])
        found = self._rounds.search(request.messages[last].text)
        worker.log.answered(None, text, input_tokens=usage.input_tokens, output_tokens=usage.output_tokens)
        worker.point("model.answered")
        if found is None or step >= int(found[1]):
            return LLMResponse.of_text(text, usage=usage)
        names = worker.random.sample(_TOOLS, worker.random.randint(1, 3))
        parts = [ToolCallPart(f"{worker.name}-{self._count}-{name}", name, "{}") for name in names]
        return LLMResponse.of_calls(*parts, text=text, usage=usage)


def make_tools(worker: Worker) -> list[ToolDefinition]:
    """Return tools of every class, whose effects go into the history."""

    async def work(effect: str, context: ToolContext) -> str:
        _begin(worker, effect, context)
        await asyncio.sleep(worker.random.random() * 0.01)
        _have(worker, effect, context)
        return f"{context.call_id} done"

    @tool(effect="once")
    async def charge(context: ToolContext) -> str:
        """Have an effect that must not come twice."""
        return await work("once", context)

    @tool(effect="once")
    def pay(context: ToolContext) -> str:
        """Have an effect that must not come twice, in a thread."""
        _begin(worker, "once", context)
        _have(worker, "once", context)
        return f"{context.call_id} done"

    @tool(effect="idempotent")
    async def save(context: ToolContext) -> str:
        """Have an effect that is the same however often it comes with the same key."""
        return await work("idempotent", context)

    @tool(effect="read")
    async def look(context: ToolContext) -> str:
        """Have no effect."""
        return await work("read", context)

    return [charge, pay, save, look]


def _begin(worker: Worker, effect: str, context: ToolContext) -> None:
    worker.log.effect(context, effect, stage="began")
    worker.point("effect.before")


def _have(worker: Worker, effect: str, context: ToolContext) -> None:
    worker.log.effect(context, effect)
    worker.point("effect.after")


# ---- who starts them ----


@dataclass
class Conductor:
    """Keeps every slot of a race taken until it is over."""

    race: Race
    incarnations: dict[int, int] = field(default_factory=dict)
    running: dict[int, tuple[int, str]] = field(default_factory=dict)
    stopped: dict[int, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=lambda: {"processes": 0, "killed": 0, "stopped": 0})
    broken: list[str] = field(default_factory=list)

    def run(self) -> None:
        """Run the race to its end, then let its sessions be recovered."""
        self.log = HistoryLog(self.race.history, process="conductor")
        self.random = random.Random(self.race.seed)
        for slot in range(self.race.workers):
            self._start(slot)
        while self.running:
            self._hear()
        self._fork("recovery", lambda: _Child(self.race, "recovery", Fate(), 0).recover())
        while self.running:
            self._hear()

    def _start(self, slot: int) -> None:
        number = self.incarnations[slot] = self.incarnations.get(slot, -1) + 1
        count = Path(self.race.folder) / f"w{slot}.count"
        left = self.race.operations // self.race.workers - (count.stat().st_size if count.exists() else 0)
        if left <= 0 or time.monotonic_ns() > self.race.ends_ns:
            return
        fate = Fate()
        if self.random.random() < self.race.deaths:
            fate = Fate(self.random.randint(2, 120), self.random.random() < self.race.stops)
        if (slot, number) == (0, 0) and self.race.deaths:
            # A race with deaths has one, however it goes on.
            fate = Fate(self.random.randint(2, 40))
        name = f"w{slot}.{number}"
        self._fork(name, lambda: _Child(self.race, name, fate, left).live(), slot=slot)

    def _fork(self, name: str, life: Callable[[], Any], *, slot: int = -1) -> None:
        self.counts["processes"] += 1
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            die_with_parent(parent)
            _be(self.race, name, life)
        self.running[pid] = slot, name

    def _hear(self) -> None:
        """Wait until something becomes of a process, and let go on who was stopped for long enough."""
        pid, status = os.waitpid(-1, os.WUNTRACED | (os.WNOHANG if self.stopped else 0))
        if pid == 0:
            time.sleep(0.01)
            for stopped, until in list(self.stopped.items()):
                if time.monotonic() > until:
                    del self.stopped[stopped]
                    os.kill(stopped, signal.SIGCONT)
            return
        slot, name = self.running[pid]
        if os.WIFSTOPPED(status):
            self.counts["stopped"] += 1
            self.log.note("stopped", process=name)
            self.stopped[pid] = time.monotonic() + self.race.lease_ttl_s * 1.5
            return
        del self.running[pid]
        code = os.waitstatus_to_exitcode(status)
        if code == -signal.SIGKILL:
            self.counts["killed"] += 1
            self.log.note("died", process=name)
        elif code:
            self.broken.append(name)
        if slot >= 0:
            self._start(slot)


_Child = Worker


def _be(race: Race, name: str, life: Callable[[], Any]) -> None:
    """Live a life in a forked child, and end it."""
    trouble = Path(race.folder) / f"{name}.trouble"
    code = 0
    try:
        with trouble.open("w") as file:
            faulthandler.dump_traceback_later(_LIFE_S, exit=True, file=file)
            asyncio.run(life())
    except BaseException:
        trouble.write_text(traceback.format_exc())
        code = 1
    os._exit(code)


def main() -> None:
    """Run the race of a job and print what became of its processes."""
    race = Race(**json.loads(sys.argv[1]))
    die_with_parent(race.parent)
    # What is there stays as it is, so that a fork shares it with its parent to its end.
    gc.collect()
    gc.freeze()
    conductor = Conductor(race)
    conductor.run()
    print(json.dumps({"counts": conductor.counts, "broken": conductor.broken}))


if __name__ == "__main__":
    main()
