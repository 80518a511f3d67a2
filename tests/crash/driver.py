"""Is the child of the crash tests: a process that acts out a part of a story and stops exactly where it is told.

`python -I -S driver.py SRC` reads one JSON object a line: `{"job": …}` starts a process for a job and tells its pid,
`{"wait": pid}` tells how it ended or that it stopped, `{"go_on": pid}` and `{"kill": pid}` send it a signal. Each job
runs in a fork of a process that has imported the kernel and done nothing with it: a fresh process without the 0.2 s
that importing takes. `python -I -S driver.py SRC JOB` runs one job in a process that was started for it alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import faulthandler
import gc
import json
import os
import signal
import sqlite3
import sys
import tempfile
import threading
import traceback
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TextIO

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path[:0] = [sys.argv[1], str(ROOT)]

from power_loop import (  # noqa: E402
    Budget,
    LLMDelta,
    LLMRequest,
    LLMResponse,
    LoopConfig,
    PowerLoopError,
    Projection,
    SendStatus,
    StatefulAgentLoop,
    StatefulResult,
    ToolContext,
    ToolDefinition,
    create_llm_service_from_config,
    tool,
)
from power_loop.core.turn import seat  # noqa: E402
from power_loop.errors import (  # noqa: E402
    InputError,
    LLMAuthError,
    SessionExistsError,
    SessionPendingError,
    StoreUnavailableError,
)
from power_loop.llm import DeltaKind, Emit, ModelInfo  # noqa: E402
from power_loop.runtime.llm.anthropic_wire import AnthropicWire  # noqa: E402
from power_loop.runtime.llm.config import LLMProviderConfig  # noqa: E402
from power_loop.runtime.llm.openai_wire import OpenAIWire  # noqa: E402
from power_loop.runtime.store import open as opening  # noqa: E402
from power_loop.runtime.store.dsn import parse_dsn  # noqa: E402
from power_loop.timers import SystemClock  # noqa: E402
from power_loop.tools import Waiting  # noqa: E402
from tests.crash import mutants, stories  # noqa: E402
from tests.crash.facts import read_facts  # noqa: E402
from tests.crash.stories import SESSION, STORIES, Story  # noqa: E402

_WIRES = {
    "openai": OpenAIWire(LLMProviderConfig(model="gpt-4o")),
    "anthropic": AnthropicWire(LLMProviderConfig(provider="anthropic", model="claude-sonnet-4-5")),
}
# How long a handler waits for its stage, and a process lives, before that is a defect; in seconds.
_STAGE_S = 60.0
_LIFE_S = 120.0
# No process here outlives its lease, or lives until that is renewed by the clock; in seconds.
_LEASE_S = 600.0
_PR_SET_PDEATHSIG = 1


class SkewedClock(SystemClock):
    """Is ahead of the machine's clock, so that a lease is over without waiting for that."""

    __slots__ = ("ahead_ms",)

    def __init__(self, ahead_ms: int) -> None:
        self.ahead_ms = ahead_ms

    def now_ms(self) -> int:
        """Return the time as it will be."""
        return super().now_ms() + self.ahead_ms


class Heart(seat.Heartbeat):
    """Renews a lease when a model wants it: beats that came by the clock would be more on a slow machine."""

    last: Heart

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        Heart.last = self

    def beat(self) -> None:
        """Renew the lease now."""
        self._beat()


class Stages:
    """Lets calls that run side by side have their effects and end in a fixed order."""

    def __init__(self, order: tuple[str, ...]) -> None:
        self._gates: dict[str, Future[None]] = {stage: Future() for stage in order}
        self._order = list(order)
        self._is_passed = False
        self._lock = threading.Lock()
        self._open_first()

    def gate(self, stage: str) -> Future[None]:
        """Return what is done when a stage may begin; at once for one that has no place in the order."""
        return self._gates.get(stage) or _done()

    def passed(self, stage: str) -> None:
        """Go on to the next stage; behind a `finish` only with the commit that follows."""
        with self._lock:
            if self._order and self._order[0] == stage:
                if stage.startswith("finish"):
                    self._is_passed = True
                else:
                    self._next()

    def committed(self) -> None:
        """Go on to the next stage if it waited for this."""
        with self._lock:
            if self._is_passed:
                self._next()

    def _next(self) -> None:
        self._is_passed = False
        self._order.pop(0)
        self._open_first()

    def _open_first(self) -> None:
        if self._order:
            self._gates[self._order[0]].set_result(None)


class Life:
    """Is one process: its scene's `folder`, the `own` one that it leaves its outcomes in, its loop, and its points.

    `stop_at` lists points, each as its name and which time it is passed; `stop_at_number` counts points of any name
    from 1. `signal` is what it gets there. `observes` keeps what the database holds after every commit. `ahead_ms` sets
    its clock. `is_first` says that the story has not been begun yet. `endpoint` is a model server that answers in place
    of the model of the stories, as (provider, URL). From the `full_at`th commit on `full_for` commits fail, because the
    disk is full, at most until there is space again.
    """

    def __init__(
        self,
        *,
        folder: str,
        own: str,
        story: str,
        acts: list[str],
        stop_at: Sequence[tuple[str, int]] = (),
        stop_at_number: int = 0,
        signal: str = "SIGKILL",
        observes: bool = False,
        is_first: bool = False,
        ahead_ms: int = 0,
        busy_timeout_s: float = 10.0,
        endpoint: tuple[str, str] | None = None,
        full_at: int = 0,
        full_for: int = 0,
        mutant: str | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.own = Path(own)
        self.story: Story = STORIES[story]
        self.acts = acts
        self.stop_at = {(name, time) for name, time in stop_at}
        self.stop_at_number = stop_at_number
        self.signal = signal
        self.observes = observes
        self.is_first = is_first
        self.clock = SkewedClock(ahead_ms)
        self.has_beat = self.story.waits_for_renewal and is_first
        self.dsn = f"{self.folder / 'app.db'}?busy_timeout_s={busy_timeout_s}"
        self.endpoint = endpoint
        self.full = range(full_at, full_at + full_for)
        self.mutant = mutant
        self.has_wrong_key = self.story.has_wrong_key and is_first
        self.stages = Stages(self.story.stages if is_first else ())
        self.renewed: Future[None] = Future()
        self.states: list[Any] = []
        self.loop: StatefulAgentLoop
        self._passed: Counter[str] = Counter()
        self._commits = 0
        self._lock = threading.Lock()
        self._trace = _append_to(self.own / "points")
        self._effects = _append_to(self.folder / "effects")
        self._requests = _append_to(self.folder / "requests")
        self.told = _append_to(self.folder / "told")

    # ---- the points ----

    def point(self, name: str) -> None:
        """Pass a point, or stop there."""
        with self._lock:
            self._passed[name] += 1
            os.write(self._trace, f"{name}\n".encode())
            if (name, self._passed[name]) in self.stop_at or self._passed.total() == self.stop_at_number:
                # A signal to the thread itself takes effect before the next line, and no other thread passes a point
                # meanwhile.
                signal.pthread_kill(threading.get_ident(), getattr(signal, self.signal))

    def on_point(self, place: str, move: str) -> None:
        """Pass a point of the kernel: of a commit, on the thread that commits, of a tool or of a model."""
        if place == "commit.after":
            if self.observes:
                self.states.append(read_facts(self.folder / "app.db"))
            self.point(f"{place} {move}")
            self._was_renewed(move)
            if move == "advance_calls":
                self.stages.committed()
            return
        # A statement that makes a table has many lines; a point has one.
        self.point(f"{place} {move.partition(chr(10))[0]}")
        if place != "commit.before":
            return
        self._commits += 1
        if self._commits in self.full:
            self._was_renewed(move)
            raise sqlite3.OperationalError("database or disk is full")

    def _was_renewed(self, move: str) -> None:
        """Let a model go on that waits until its turn's lease was renewed, or that was tried."""
        if move == "renew" and not self.renewed.done():
            self.renewed.set_result(None)

    def note(self, what: str, label: str, context: ToolContext) -> None:
        """Write into the world outside of the database, durably."""
        line = {"what": what, "label": label, "key": context.idempotency_key, "attempt": context.attempt}
        os.write(self._effects, json.dumps(line).encode() + b"\n")
        os.fsync(self._effects)

    def note_request(self, request: LLMRequest) -> None:
        """Keep a request as both wires would send it."""
        for name, wire in _WIRES.items():
            os.write(self._requests, name.encode() + b" " + wire.body(request) + b"\n")

    # ---- the life ----

    async def live(self) -> None:
        """Do the acts and leave their outcomes behind."""
        if self.mutant is not None:
            mutants.MUTANTS[self.mutant]()
        if self.has_beat:
            seat.Heartbeat = Heart  # type: ignore[misc]
        shared = opening._share(parse_dsn(self.dsn))
        shared.database.on_point = self.on_point
        self.loop = StatefulAgentLoop(
            llm=Model(self) if self.endpoint is None else DistantModel(self, *self.endpoint),
            dsn=self.dsn,
            tool_registry=make_tools(self),
            config=LoopConfig(lease_ttl_s=_LEASE_S, projection=Projection() if self.story.is_projected else None),
            clock=self.clock,
        )
        outcomes = []
        try:
            for act in self.acts:
                outcomes.append(await self._outcome(_ACTS[act]))  # noqa: PERF401 - what was done stays, whatever comes
        finally:
            await self.loop.aclose()
            await shared.give_back()
        self.write("outcomes", outcomes)
        if self.observes:
            self.write("states", self.states)

    async def _outcome(self, act: Any) -> Any:
        try:
            return _told(await act(self))
        except PowerLoopError as error:
            return {"error": error.code, "message": error.message}

    def write(self, name: str, value: Any) -> None:
        """Leave something behind for the parent."""
        (self.own / name).write_text(json.dumps(value), "utf-8")


class Model:
    """Says what the story says; a user's own model, as the protocol describes it."""

    info = ModelInfo(
        "story",
        "story",
        context_window_tokens=stories.WINDOW_TOKENS,
        max_output_tokens=stories.REPLY_TOKENS,
        has_json_schema=True,
    )

    def __init__(self, life: Life) -> None:
        self._life = life

    async def generate(self, request: LLMRequest, emit: Emit) -> LLMResponse:
        """Answer by what stands in the request."""
        life = self._life
        life.note_request(request)
        life.point("model.asked")
        await asyncio.sleep(0)
        if life.has_wrong_key:
            raise LLMAuthError("the key is wrong")
        if life.has_beat and not life.renewed.done():
            Heart.last.beat()
            await asyncio.wrap_future(life.renewed)
        response = stories.reply_to(request.messages)
        for word in response.message.text.split():
            emit(LLMDelta(DeltaKind.TEXT, f"{word} "))
            if life.story.is_streamed:
                await asyncio.sleep(0)
                life.point("model.delta")
        life.point("model.answered")
        return response


class DistantModel:
    """Asks a model server over the wire, and passes the same points."""

    def __init__(self, life: Life, provider: Any, url: str) -> None:
        self._life = life
        config = LLMProviderConfig(provider=provider, model="story", base_url=url, api_key="k", carrier="lean")
        self._service = create_llm_service_from_config(config)

    @property
    def info(self) -> ModelInfo:
        """What stands behind it."""
        return self._service.info

    async def generate(self, request: LLMRequest, emit: Emit) -> LLMResponse:
        """Ask."""
        life = self._life
        life.note_request(request)
        life.point("model.asked")

        def hear(delta: LLMDelta) -> None:
            emit(delta)
            life.point("model.delta")

        response = await self._service.generate(request, hear)
        life.point("model.answered")
        return response


# ---- tools ----


def make_tools(life: Life) -> list[ToolDefinition]:
    """Return the tools of all stories, with effects in the world of this life."""

    async def work(name: str, id: str, context: ToolContext) -> str:
        label = f"{name}:{id}"
        await asyncio.wait_for(asyncio.wrap_future(life.stages.gate(f"effect {label}")), _STAGE_S)
        _have_effect(life, label, context)
        await asyncio.wait_for(asyncio.wrap_future(life.stages.gate(f"finish {label}")), _STAGE_S)
        life.stages.passed(f"finish {label}")
        return stories.result_text(name, id)

    @tool(effect="once")
    def charge(id: str, context: ToolContext) -> str:
        """Have an effect that must not come twice, in a thread."""
        label = f"charge:{id}"
        life.stages.gate(f"effect {label}").result(_STAGE_S)
        _have_effect(life, label, context)
        life.stages.gate(f"finish {label}").result(_STAGE_S)
        life.stages.passed(f"finish {label}")
        return stories.result_text("charge", id)

    @tool(effect="once")
    async def pay(id: str, context: ToolContext) -> str:
        """Have an effect that must not come twice."""
        return await work("pay", id, context)

    @tool(effect="once", parallel=False)
    async def seal(id: str, context: ToolContext) -> str:
        """Have an effect that must not come twice, beside no other call."""
        return await work("seal", id, context)

    @tool(effect="once")
    async def count(id: str, context: ToolContext) -> str:
        """Have an effect that must not come twice, and count it in the session's own state."""
        text = await work("count", id, context)
        context.state["counted"] = [*context.state.get("counted", ()), id]
        return text

    @tool(effect="once", requires_approval=True)
    async def transfer(id: str, context: ToolContext) -> str:
        """Have an effect that must not come twice, once a person approves."""
        return await work("transfer", id, context)

    @tool(effect="idempotent")
    async def save(id: str, context: ToolContext) -> str:
        """Have an effect that is the same however often it comes with the same key."""
        return await work("save", id, context)

    @tool(effect="read")
    async def look(id: str, context: ToolContext) -> str:
        """Have no effect."""
        return await work("look", id, context)

    @tool(effect="read")
    def colour(id: str) -> Waiting:
        """Ask a person for a colour."""
        return Waiting(f"Which colour for {id}?", answer_schema={"type": "string"})

    @tool(effect="once")
    async def stick(id: str, context: ToolContext) -> str:
        """Have an effect, cancel the turn it runs in, and never end by itself."""
        label = f"stick:{id}"
        await asyncio.wait_for(asyncio.wrap_future(life.stages.gate(f"effect {label}")), _STAGE_S)
        _have_effect(life, label, context)
        await life.loop.cancel(SESSION, reason="changed my mind")
        await asyncio.Event().wait()
        return "never"

    return [charge, pay, seal, count, transfer, save, look, colour, stick]


def _have_effect(life: Life, label: str, context: ToolContext) -> None:
    life.note("start", label, context)
    life.point(f"effect.before {label}")
    life.note("effect", label, context)
    life.point(f"effect.after {label}")
    life.stages.passed(f"effect {label}")


# ---- acts: what an application does ----


async def found(life: Life) -> None:
    """Make the database and the session, edit it, and hold the first exchange; again, where it was begun already."""
    loop = life.loop
    with contextlib.suppress(SessionExistsError):
        await loop.new_session(session_id=SESSION, system_prompt="Be brief.", metadata={"user": "u1"})
    await loop.update_session(SESSION, metadata={"user": "u1", "plan": "free"})
    await loop.send(stories.GREETING, session_id=SESSION, request_id="greeting")
    with contextlib.suppress(SessionExistsError):
        await loop.new_session(session_id="closed")
    await loop.close_session("closed")


async def carry_out(life: Life) -> StatefulResult:
    """Send the story's input if the log has it not, else go on with it; answer what is asked."""
    log = await life.loop.get_messages(SESSION)
    if any(record.message.text == life.story.text for record in log):
        return await _answered(life, await life.loop.resume(SESSION))
    return await send_again(life)


async def send_again(life: Life) -> StatefulResult:
    """Send the story's input, whether it was sent or not: its request id tells; answer what is asked."""
    story, loop = life.story, life.loop
    options: dict[str, Any] = {"session_id": SESSION, "request_id": story.name, "output_schema": story.output_schema}
    if story.is_budgeted:
        options["budget"] = Budget(max_tokens=1_000_000, max_tool_calls=100)
    if story.cannot_read and life.is_first:
        await _fail_to_read_once(loop)
    try:
        if story.is_streamed:
            async with loop.stream(story.text, **options) as events:
                async for _ in events:
                    pass
                result = events.result
        else:
            result = await loop.send(story.text, **options)
    except LLMAuthError:
        life.has_wrong_key = False
        result = await loop.resume(SESSION)
    except StoreUnavailableError:
        if not (story.cannot_read and life.is_first):
            raise
        result = await loop.resume(SESSION)
    return await _answered(life, result)


async def _fail_to_read_once(loop: StatefulAgentLoop) -> None:
    store: Any = await loop.get_store()

    async def fail(session_id: str, *, projected: bool = False) -> None:
        del store.read_view
        raise StoreUnavailableError("the disk has a bad moment")

    store.read_view = fail


async def _answered(life: Life, result: StatefulResult) -> StatefulResult:
    """Answer what a send waits for, wrongly at first where the story has it so."""
    story, loop = life.story, life.loop
    while result.status is SendStatus.WAITING_FOR_INPUT:
        mistake = {call.call_id: story.mistake[call.name] for call in result.pending if call.name in story.mistake}
        if mistake:
            try:
                await loop.resume(SESSION, answers=mistake)
            except InputError:
                pass
            else:
                raise AssertionError("a wrong answer was taken")
        answers = {call.call_id: story.answers[call.name] for call in result.pending}
        result = await loop.resume(SESSION, answers=answers)
    return result


async def send_other(life: Life) -> StatefulResult:
    """Send something else; where calls are open, take the way out that the error names."""
    try:
        return await life.loop.send(stories.FOLLOW_UP, session_id=SESSION)
    except SessionPendingError as error:
        for way_out in ("resume(", "heal_pending=True", *error.call_ids):
            if way_out not in error.message:
                raise AssertionError(f"{way_out} is not in {error.message!r}") from error
        return await life.loop.send(stories.FOLLOW_UP, session_id=SESSION, heal_pending=True)


async def give_up(life: Life) -> StatefulResult:
    """End what was begun without carrying it out."""
    return await life.loop.abort_pending(SESSION, reason="given up")


async def follow_up(life: Life) -> StatefulResult:
    """Send something else."""
    return await life.loop.send(stories.FOLLOW_UP, session_id=SESSION)


async def get_ready(life: Life) -> None:
    """Have the database open and the session read."""
    await life.loop.prewarm(SESSION)
    life.point("ready")


async def carry_out_too_early(life: Life) -> StatefulResult:
    """Try to carry the story out when half of the time is over for which another process holds the lease."""
    life.clock.ahead_ms += await _lease_left_ms(life) // 2
    return await carry_out(life)


async def carry_out_in_time(life: Life) -> StatefulResult:
    """Carry the story out as soon as the lease of another process is over."""
    life.clock.ahead_ms += await _lease_left_ms(life)
    return await carry_out(life)


async def _lease_left_ms(life: Life) -> int:
    session = await life.loop.get_session(SESSION)
    return session.lease_until_ms - life.clock.now_ms()


async def crowd(life: Life) -> list[str]:
    """Carry the story out in several sessions at once; note each that was told its answer."""
    loop, story = life.loop, life.story

    async def one(session_id: str) -> str:
        with contextlib.suppress(SessionExistsError):
            await loop.new_session(session_id=session_id)
        result = await loop.send(story.text, session_id=session_id, request_id=story.name)
        os.write(life.told, f"{session_id}\n".encode())
        mutants.believed.set()
        return result.final_text

    return await asyncio.gather(*map(one, stories.CROWD))


async def make_space(life: Life) -> None:
    """Let the disk take what comes, and the rest of the story go as it likes."""
    life.full = range(0)
    life.stages = Stages(())


async def look_into_the_file(life: Life) -> Any:
    """Tell what the database holds."""
    return read_facts(life.folder / "app.db")


async def look_around(life: Life) -> dict[str, Any]:
    """Tell what an application can see of the session."""
    loop = life.loop
    session, stats = await loop.get_session(SESSION), await loop.get_session_stats(SESSION)
    return {
        "pending": [call.call_id for call in await loop.get_pending(SESSION)],
        "owner": session.owner,
        "usage": [stats.usage.input_tokens, stats.usage.output_tokens],
        "model_calls": stats.model_calls,
    }


_ACTS: dict[str, Any] = {
    act.__name__: act
    for act in (
        found,
        get_ready,
        carry_out,
        carry_out_too_early,
        carry_out_in_time,
        send_again,
        send_other,
        give_up,
        follow_up,
        look_around,
        crowd,
        make_space,
        look_into_the_file,
    )
}


def _told(value: Any) -> Any:
    if not isinstance(value, StatefulResult):
        return value
    return {
        "status": value.status.value,
        "final_text": value.final_text,
        "output": value.output,
        "usage": [value.usage.input_tokens, value.usage.output_tokens],
        "rounds": value.rounds,
        "tool_calls": value.tool_calls,
        "send_index": value.send_index,
        "request_id": value.request_id,
        "is_replayed": value.is_replayed,
    }


def _append_to(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)


def _done() -> Future[None]:
    future: Future[None] = Future()
    future.set_result(None)
    return future


# ---- the process ----


def run(job: dict[str, Any]) -> None:
    """Run a job and end the process."""
    if sys.platform == "linux":
        # One that is stopped ends with its parent as well.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    hung = open(Path(job["own"]) / "hung", "w")  # noqa: SIM115 - open to the end of the process
    faulthandler.dump_traceback_later(_LIFE_S, exit=True, file=hung)

    async def live() -> None:
        asyncio.get_running_loop().call_later(_LIFE_S - 1.0, _print_tasks, hung)
        await Life(**job).live()

    try:
        asyncio.run(live())
    except BaseException:
        (Path(job["own"]) / "traceback").write_text(traceback.format_exc(), "utf-8")
        os._exit(1)
    os._exit(0)


def _print_tasks(file: TextIO) -> None:
    for task in asyncio.all_tasks():
        task.print_stack(file=file)
    file.flush()


def serve() -> None:
    """Start processes and tell what becomes of them, until the input ends."""
    # What is made once need not be made by each child: the tools' schemas, what regular expressions compile to.
    with tempfile.TemporaryDirectory() as folder:
        make_tools(Life(folder=folder, own=folder, story="plain", acts=[]))
    # What is there stays as it is, so that a fork shares it with its parent to its end.
    gc.collect()
    gc.freeze()
    gc.disable()
    running: set[int] = set()
    for line in sys.stdin:
        asked = json.loads(line)
        told: dict[str, Any] = {}
        if "job" in asked:
            pid = os.fork()
            if pid == 0:
                run(asked["job"])
            running.add(pid)
            told = {"pid": pid}
        elif "wait" in asked:
            _, status = os.waitpid(asked["wait"], os.WUNTRACED)
            if os.WIFSTOPPED(status):
                told = {"stopped": os.WSTOPSIG(status)}
            else:
                running.discard(asked["wait"])
                told = {"exit": os.waitstatus_to_exitcode(status)}
        elif "go_on" in asked:
            os.kill(asked["go_on"], signal.SIGCONT)
        elif "kill" in asked:
            os.kill(asked["kill"], signal.SIGKILL)
        print(json.dumps(told), flush=True)
    for pid in running:
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        run(json.loads(sys.argv[2]))
    serve()
