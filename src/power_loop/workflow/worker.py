"""Is the program of a worker: it drives one leaf after the other in a process of its own, each with its own database.

It is started as `python -I -m power_loop.workflow.worker` and speaks in frames on what were its input and its output;
whatever else writes there goes to its errors. It ends when its parent does.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import hashlib
import json
import os
import signal
import sys
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any

from power_loop.agent.config import LoopConfig
from power_loop.agent.loop import StatefulAgentLoop
from power_loop.agent.subagents import agent_id_of
from power_loop.contracts.cancellation import CancellationToken
from power_loop.contracts.errors import PowerLoopError, SessionBusyError, SessionNotFoundError, StoreError
from power_loop.contracts.events import AgentEvent
from power_loop.contracts.llm import LLMRetryPolicy, LLMService, ModelInfo
from power_loop.contracts.record_values import record_of, value_of
from power_loop.contracts.results import StatefulResult
from power_loop.contracts.states import RESUMABLE_SENDS, SendStatus
from power_loop.contracts.version import __version__
from power_loop.core.stray import said
from power_loop.runtime.llm.service import create_llm_service_from_env
from power_loop.workflow.executors import LeafOutcome, LeafTask
from power_loop.workflow.leaf import TRANSIENT, outcome_of
from power_loop.workflow.proxy import ProxyLLM
from power_loop.workflow.worker_bootstrap import WorkerBootstrap, found
from power_loop.workflow.worker_frames import BEAT_S, PROTOCOL, Frame, FrameReader, frame_bytes

# A worker that was killed in a sandbox cannot be seen to be dead from another one: its lease has to run out.
_LEASE_TTL_S = 3.0
_CHUNK_BYTES = 65_536
# Events that wait for the parent; beyond it those go that tell of nothing durable.
_MAX_EVENTS = 20_000
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000


class Pipe:
    """Is the way to the parent."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._frames = FrameReader(max_total_bytes=2**62)
        self._came: deque[Frame] = deque()

    async def send(self, frame: Frame) -> None:
        """Send a frame; while the parent does not read, wait."""
        with contextlib.suppress(ConnectionError):  # the next read tells that it is gone
            self._writer.write(frame_bytes(frame))
            await self._writer.drain()

    async def next(self) -> Frame | None:
        """Return the next frame; None when the parent is gone."""
        while not self._came:
            data = await self._reader.read(_CHUNK_BYTES)
            if not data:
                return None
            self._came.extend(self._frames.feed(data))
        return self._came.popleft()


class Worker:
    """Serves one parent."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._idle_s = 0.0
        # Its last leaf was over for one whole time of rest.
        self._is_rested = False
        self._leaf: asyncio.Task[None] | None = None
        self._stop = CancellationToken()
        self._proxy: ProxyLLM | None = None

    async def serve(self) -> None:
        """Return when the parent is gone, or gave nothing to do for long."""
        await self._pipe.send({"type": "hello", "protocol": PROTOCOL, "version": __version__, "pid": os.getpid()})
        welcome = await self._pipe.next()
        if welcome is None:
            return
        self._idle_s = float(welcome["idle_s"])
        sys.path.extend(welcome["import_paths"])
        problem = _without_network() if welcome["takes_network"] else None
        await self._pipe.send({"type": "ready"} if problem is None else {"type": "refused", "reason": problem})
        while (frame := await self._next()) is not None:
            self._take(frame)

    async def _next(self) -> Frame | None:
        reading = asyncio.ensure_future(self._pipe.next())
        while not (await asyncio.wait((reading,), timeout=self._idle_s))[0]:
            if self._leaf is None or (self._leaf.done() and self._is_rested):
                reading.cancel()
                return None
            self._is_rested = self._leaf.done()
        return reading.result()

    def _take(self, frame: Frame) -> None:
        kind = frame["type"]
        if kind == "leaf":
            self._is_rested = False
            self._stop = CancellationToken()
            self._leaf = asyncio.get_running_loop().create_task(self._run(frame, self._stop))
        elif kind == "cancel":
            self._stop.cancel(frame["reason"])
        elif kind in ("deltas", "reply", "failed") and self._proxy is not None:
            self._proxy.take(frame)

    async def _run(self, frame: Frame, stop: CancellationToken) -> None:
        leaf = frame["leaf"]
        await self._pipe.send({"type": "begun", "leaf": leaf})
        beating = asyncio.get_running_loop().create_task(self._beat())
        try:
            outcome = await self._outcome(frame, leaf, stop)
        except PowerLoopError as error:
            outcome = LeafOutcome.failed(error.code, error.message, is_transient=_is_transient(error))
        except MemoryError:
            outcome = LeafOutcome.failed("worker.died", "the worker had no memory left", is_transient=True)
        except Exception as error:  # a model or a tool of the application's own may raise anything
            outcome = LeafOutcome.failed("worker.failed", said(error))
        finally:
            beating.cancel()
            self._proxy = None
        await self._pipe.send({"type": "outcome", "leaf": leaf, "outcome": value_of(outcome)})

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            await self._pipe.send({"type": "beat"})

    async def _outcome(self, frame: Frame, leaf: str, stop: CancellationToken) -> LeafOutcome:
        task = LeafTask.from_json(frame["task"])
        bootstrap = record_of(WorkerBootstrap, frame["bootstrap"])
        folder = Path(frame["folder"])
        llm, is_proxied = self._llm(bootstrap, frame, leaf)
        workspace = bootstrap.workspace or str(folder / "workspace")
        config = LoopConfig(
            lease_ttl_s=_LEASE_TTL_S,
            # The parent tries a call again, where it makes it.
            retry=LLMRetryPolicy(max_attempts=1, total_s=float("inf")) if is_proxied else LLMRetryPolicy(),
            models={task.spec.model: llm} if task.spec.model is not None and is_proxied else {},
        )
        tools = bootstrap.tools_in(bootstrap.environment_in(workspace))
        async with StatefulAgentLoop(llm=llm, dsn=str(folder / "leaf.db"), config=config, tool_registry=tools) as loop:
            teller = _Teller(self._pipe, leaf)
            loop.event_bus.subscribe(teller.put, name="parent")
            try:
                result = await _driven(loop, task, folder, stop)
            finally:
                await teller.aclose()
        return _outcome_of(result)

    def _llm(self, bootstrap: WorkerBootstrap, frame: Frame, leaf: str) -> tuple[LLMService, bool]:
        if bootstrap.is_proxied:
            self._proxy = ProxyLLM(record_of(ModelInfo, frame["model"]), leaf, self._pipe.send)
            return self._proxy, True
        if bootstrap.llm_from_env:
            return create_llm_service_from_env(frame["variables"]), False
        service: LLMService = found(bootstrap.llm or "")()
        return service, False


async def _driven(loop: StatefulAgentLoop, task: LeafTask, folder: Path, stop: CancellationToken) -> StatefulResult:
    """Drive the leaf's send to its rest. What an earlier attempt left unended goes on; what ended otherwise stays, and
    this attempt gets a session of its own."""
    served = folder / "served.json"
    digest = hashlib.sha256(json.dumps([task.spec.to_json(), task.input], sort_keys=True).encode()).hexdigest()
    number, key, known = 0, "", ""
    with contextlib.suppress(FileNotFoundError):
        number, key, known = json.loads(served.read_text("ascii"))
    request_id = f"{task.run_id}|{task.path}|{number}"
    if known != digest or (key != task.key and not await _is_unended(loop, request_id)):
        number += 1
        request_id = f"{task.run_id}|{task.path}|{number}"
    staged = folder / "served.json.new"
    staged.write_text(json.dumps([number, task.key, digest]), "ascii")
    staged.replace(served)
    tries = 0
    while True:
        try:
            return await loop.run_agent_spec(task.spec, task.input, request_id=request_id, cancellation=stop)
        except SessionBusyError:  # noqa: PERF203 - a few rounds at most
            tries += 1
            if tries > 4 * _LEASE_TTL_S or stop.is_cancelled:
                raise
            await asyncio.sleep(0.5)


async def _is_unended(loop: StatefulAgentLoop, request_id: str) -> bool:
    try:
        sent = await (await loop.get_store()).get_send(agent_id_of("", request_id), request_id=request_id)
    except SessionNotFoundError:
        return True  # it was killed before it began: the same session will do
    return sent is None or sent.status in RESUMABLE_SENDS


def _outcome_of(result: StatefulResult) -> LeafOutcome:
    if result.status is SendStatus.WAITING_FOR_INPUT:
        asked = ", ".join(repr(one.name) for one in result.pending) or "a tool"
        return LeafOutcome.failed(
            "worker.failed",
            f"{asked} waits for an answer, which cannot reach a worker: run leaves that ask people in process",
            usage=result.usage,
            cost=result.cost,
        )
    # Its session is in the worker's file, where the run does not find it.
    return replace(outcome_of(result), session_id=None)


def _is_transient(error: PowerLoopError) -> bool:
    return error.code in TRANSIENT or isinstance(error, (StoreError, SessionBusyError))


class _Teller:
    """Sends the events of a leaf to the parent, in order."""

    def __init__(self, pipe: Pipe, leaf: str) -> None:
        self._pipe = pipe
        self._leaf = leaf
        self._waiting: deque[Any] = deque()
        self._loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()
        self._is_over = False
        self._task = self._loop.create_task(self._send_all())

    def put(self, event: AgentEvent) -> None:
        """Take an event, from any thread."""
        if len(self._waiting) < _MAX_EVENTS or event.payload.is_durable:
            self._waiting.append(event.payload)
            self._loop.call_soon_threadsafe(self._woken.set)

    async def aclose(self) -> None:
        """Return when everything is told."""
        self._is_over = True
        self._woken.set()
        await self._task

    async def _send_all(self) -> None:
        while True:
            while self._waiting:
                payload = self._waiting.popleft()
                event = {"type": "event", "leaf": self._leaf, "event": payload.type, "values": value_of(payload)}
                await self._pipe.send(event)
            if self._is_over:
                return
            await self._woken.wait()
            self._woken.clear()


# ---- the process ----


def _without_network() -> str | None:
    """Take the network from this process and all that it starts; return why that cannot be done."""
    if sys.platform != "linux":
        return "only Linux takes the network from a process"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) == 0:
        return None
    user, group = os.getuid(), os.getgid()
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        return f"the kernel gives it no network of its own: {os.strerror(ctypes.get_errno())}"
    with contextlib.suppress(OSError):  # without these the files are still its own, under another name
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    # New privileges took this away.
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    return None


async def _serve(given: int, taken: int) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=_CHUNK_BYTES * 4)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(given, "rb", 0))
    transport, protocol = await loop.connect_write_pipe(
        asyncio.streams.FlowControlMixin,  # what asyncio's own subprocesses write through
        os.fdopen(taken, "wb", 0),
    )
    await Worker(Pipe(reader, asyncio.StreamWriter(transport, protocol, reader, loop))).serve()
    # At once, and not by cancelling what runs: whoever goes on with a leaf whose parent is gone takes it up from its
    # file, where an end that nobody asked for would be its outcome. A thread of a tool may never end, either.
    os._exit(0)


def main() -> None:
    """Serve the parent that started this process."""
    given, taken = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    os.close(null)
    if sys.platform == "linux":
        # What this process knows is nobody's to read, programs of its own tools included.
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    asyncio.run(_serve(given, taken))


if __name__ == "__main__":
    main()
