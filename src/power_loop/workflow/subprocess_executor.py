"""Runs each leaf of a workflow in a process of its own, with a database of its own."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from power_loop.contracts import events
from power_loop.contracts.errors import (
    ConfigError,
    PowerLoopError,
    WorkerDiedError,
    WorkerError,
    WorkerTimeoutError,
)
from power_loop.contracts.llm import LLMService, OutputSchema, Usage
from power_loop.contracts.numbers import is_number
from power_loop.contracts.record_values import InvalidValueError, record_of, value_of
from power_loop.contracts.shell import ShellLimits
from power_loop.contracts.states import SendStatus
from power_loop.core.turn.scope import uninterrupted
from power_loop.core.turn.structured import prepare_schema
from power_loop.runtime.host.environment import DEFAULT_VARIABLES
from power_loop.runtime.host.process import ProcessLimits
from power_loop.workflow.executors import LeafError, LeafHost, LeafOutcome, LeafTask
from power_loop.workflow.launcher import WorkerLauncher, WorkerPlan, launch_of, python_folders, worker_argv
from power_loop.workflow.pool import (
    PoolLimits,
    WorkerKind,
    WorkerPool,
    WorkerProcess,
    worker_protocol_error,
)
from power_loop.workflow.proxy import ModelDesk
from power_loop.workflow.worker_bootstrap import WorkerBootstrap, tool_names
from power_loop.workflow.worker_frames import SILENCE_S, BrokenFrameError, Frame, frame_bytes, member

_BARE_USES, _LAUNCHED_USES = 100, 1
# What a leaf that is told to stop has for coming to its rest, before it is killed.
_GRACE_S = 2.0
# A worker that waits for work may end by itself in the moment in which it is given some.
_TRIES = 3
# What a run that nobody went on with left behind, and how often it is looked for.
_KEPT_S, _SWEPT_EVERY_S = 7 * 86_400.0, 86_400.0
# Leaves that came to their end and whose files are kept still: a run that dies before it knows of an end asks again.
_MOST_DONE = 200
_ENDS = frozenset(SendStatus) - {
    SendStatus.RUNNING,
    SendStatus.WAITING_FOR_INPUT,
    SendStatus.QUEUED,
    SendStatus.NO_SEND,
}
_EVENTS: dict[str, type[events.EventPayload]] = {
    one.type: one
    for one in vars(events).values()
    if isinstance(one, type) and issubclass(one, events.EventPayload) and one.type
}


class SubprocessExecutor:
    """Runs each leaf in a process of its own, with a SQLite file of its own; satisfies `LeafExecutor`.

    `bootstrap` says what a worker makes a leaf's agent of (default: a proxy of the parent's model, and no tools).
    `launcher` wraps the worker's command, told by the leaf's tools (default None: it runs bare, which is no sandbox).
    A leaf has `timeout_s` seconds (default None: as long as its spec says). A worker that is killed and whose leaf is
    tried again goes on from the leaf's file, which lies in `state_folder` (default: a folder of this user's in the
    system's temporary one; give one that lasts where runs outlive the machine's). `limits` are what each process of a
    worker may take, of `ShellLimits` those of one process. `pool` says how many workers there are. A worker that is
    silent for `silence_s` seconds in the middle of a leaf is killed. Raises `config.invalid`.
    """

    def __init__(
        self,
        bootstrap: WorkerBootstrap | None = None,
        *,
        launcher: WorkerLauncher | None = None,
        timeout_s: float | None = None,
        state_folder: str | os.PathLike[str] | None = None,
        limits: ShellLimits | None = None,
        pool: PoolLimits | None = None,
        silence_s: float = SILENCE_S,
    ) -> None:
        for name, value, kind in (
            ("bootstrap", bootstrap, WorkerBootstrap),
            ("limits", limits, ShellLimits),
            ("pool", pool, PoolLimits),
        ):
            if value is not None and not isinstance(value, kind):
                raise ConfigError(f"{name} is {value!r:.200}: give a {kind.__name__}, or None")
        if launcher is not None and not callable(launcher):
            raise ConfigError(f"launcher is {launcher!r:.200}: give a function of a WorkerPlan, or None")
        for name, seconds in (("timeout_s", timeout_s), ("silence_s", silence_s)):
            if seconds is not None and not is_number(seconds, above=0):
                raise ConfigError(f"{name} is {seconds!r:.200}: give a number of seconds above 0")
        self._bootstrap = bootstrap or WorkerBootstrap()
        self._launcher = launcher
        # A launcher decides by the tools: it is told all there are where a leaf's spec names none.
        self._all_tools = None if launcher is None else tool_names(self._bootstrap)
        self._timeout_s = timeout_s
        self._silence_s = silence_s
        self._limits = limits or ShellLimits(max_processes=None)
        self._pool_limits = pool or PoolLimits()
        self._given_folder = state_folder
        self._folder: Path | None = None
        uses = self._pool_limits.max_uses or (_BARE_USES if launcher is None else _LAUNCHED_USES)
        self._pool = WorkerPool(self._pool_limits, self._start, max_uses=uses)
        self._swept_at_s: float | None = None
        # In the order in which they came to their end.
        self._done: dict[Path, None] = {}

    async def run_leaf(self, task: LeafTask, host: LeafHost) -> LeafOutcome:
        """Run a leaf to its outcome in a worker; what goes wrong with that one is an outcome, too."""
        talk = _Talk(task, host)
        try:
            return await self._bounded(task, host, self._run(task, host, talk), talk)
        except PowerLoopError as error:
            return LeafOutcome.failed(
                error.code,
                error.message,
                is_transient=isinstance(error, WorkerError) and error.retryable,
                usage=talk.usage,
            )

    async def prewarm(self, tools: tuple[str, ...] | None = None, *, count: int = 1) -> None:
        """Start `count` workers ahead, for leaves that are granted `tools` (which matters to a launcher only)."""
        await self._pool.prewarm(self._kind(tools), count)

    async def aclose(self) -> None:
        """End the workers that wait, and remove the files of leaves that came to their end. May be called again."""
        await self._pool.aclose()
        for folder in self._done:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            with contextlib.suppress(OSError):
                folder.parent.rmdir()
        self._done.clear()

    async def __aenter__(self) -> SubprocessExecutor:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    # ---- one leaf ----

    async def _bounded(
        self, task: LeafTask, host: LeafHost, work: Coroutine[Any, Any, LeafOutcome], talk: _Talk
    ) -> LeafOutcome:
        """Run a leaf until it ends, its time is over, or it is told to stop."""
        limit_s = min((one for one in (self._timeout_s, task.timeout_s) if one is not None), default=None)
        running = asyncio.ensure_future(work)
        stopped = asyncio.ensure_future(host.stop.wait())
        try:
            await asyncio.wait({running, stopped}, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                return running.result()
            if not stopped.done():
                raise WorkerTimeoutError(f"the leaf {task.path!r} took longer than its {limit_s:g} seconds")
            reason = host.stop.reason
            await asyncio.wait({running}, timeout=_GRACE_S if talk.tell_stop(reason) else 0)
            if running.done() and running.exception() is None:
                return running.result()
            return LeafOutcome(SendStatus.CANCELLED, usage=talk.usage, error=LeafError("send.cancelled", reason))
        finally:
            stopped.cancel()
            running.cancel()
            await uninterrupted(_ended(running, stopped))

    async def _run(self, task: LeafTask, host: LeafHost, talk: _Talk) -> LeafOutcome:
        kind = self._kind(None if task.spec.tools is None else tuple(task.spec.tools))
        variables = self._bootstrap.model_variables()
        with contextlib.ExitStack() as lent:
            if self._bootstrap.is_proxied:
                talk.llm = lent.enter_context(host.lend_model(task.spec))
            for attempt in range(1, _TRIES + 1):
                worker = await self._pool.take(kind)
                is_well = False
                try:
                    folder = await asyncio.to_thread(self._place, task, worker, self._no_more_needed())
                    worker.begin_leaf()
                    outcome = await talk.hold(
                        worker,
                        {
                            "type": "leaf",
                            "task": task.to_json(),
                            "bootstrap": value_of(self._bootstrap),
                            "folder": str(folder),
                            "variables": variables,
                        },
                        silence_s=self._silence_s,
                    )
                    is_well = not worker.is_cut_off
                    if outcome.is_completed:
                        self._done[folder] = None
                    return outcome
                except BrokenFrameError as error:
                    raise worker_protocol_error(error) from error
                except WorkerDiedError as error:
                    if not talk.has_begun and attempt < _TRIES:
                        continue
                    raise await worker.death(error) from error
                finally:
                    await uninterrupted(self._pool.give_back(worker) if is_well else self._pool.end(worker))
        raise AssertionError  # the last try returns or raises

    # ---- workers ----

    def _kind(self, tools: tuple[str, ...] | None) -> WorkerKind:
        # What does not depend on the tools is started for any.
        if self._launcher is None:
            return WorkerKind(None, self._bootstrap.workspace)
        return WorkerKind(self._all_tools if tools is None else tuple(sorted(tools)), self._bootstrap.workspace)

    async def _start(self, kind: WorkerKind) -> WorkerProcess:
        bootstrap = self._bootstrap
        folder = await asyncio.to_thread(self._worker_folder)
        env = {name: os.environ[name] for name in DEFAULT_VARIABLES if name in os.environ}
        plan = WorkerPlan(
            argv=worker_argv(),
            env={**env, "HOME": folder},
            tools=kind.tools,
            folder=folder,
            workspace=kind.workspace,
            read_only=(*python_folders(), *bootstrap.read_only_roots, *bootstrap.import_paths),
            needs_network=not bootstrap.is_proxied,
        )
        worker: WorkerProcess | None = None
        try:
            launch = await launch_of(self._launcher, plan)
            limits = self._limits
            worker = WorkerProcess(
                kind,
                folder,
                launch,
                ProcessLimits(
                    limits.cpu_s, limits.memory_bytes, limits.written_bytes, limits.open_files, limits.max_processes
                ),
            )
            welcome = {
                "type": "welcome",
                "idle_s": self._pool_limits.idle_s,
                "import_paths": list(bootstrap.import_paths),
                "takes_network": bootstrap.is_proxied and self._launcher is None and not bootstrap.shares_network,
            }
            await worker.begin(welcome, is_launched=self._launcher is not None)
            return worker
        except BaseException:
            if worker is not None:
                with contextlib.suppress(PowerLoopError):
                    await uninterrupted(worker.end())
            with contextlib.suppress(OSError):
                os.rmdir(folder)
            raise

    # ---- files ----

    def _worker_folder(self) -> str:
        # Each time: what cleans up temporary folders may have taken it.
        self._folder = _state_folder(self._given_folder)
        now_s = time.monotonic()
        if self._swept_at_s is None or now_s - self._swept_at_s > _SWEPT_EVERY_S:
            self._swept_at_s = now_s
            _sweep(self._folder)
        return tempfile.mkdtemp(prefix="worker-", dir=self._folder)

    def _no_more_needed(self) -> list[Path]:
        """Return the folders of leaves that are to be removed, so that there are never too many."""
        many = list(self._done)[: max(len(self._done) - _MOST_DONE, 0)]
        for folder in many:
            del self._done[folder]
        return many

    def _place(self, task: LeafTask, worker: WorkerProcess, unneeded: list[Path]) -> Path:
        """Return the leaf's folder, in that of its worker; what an earlier worker left of the leaf is in it."""
        assert self._folder is not None
        for former in unneeded:
            shutil.rmtree(former, ignore_errors=True)
        # Databases of one machine may hold runs of the same id.
        place = f"{task.run_id}|{task.run_made_at_ms}|{task.path}"
        name = hashlib.sha256(place.encode("utf-8", "replace")).hexdigest()[:32]
        folder = Path(worker.folder, name)
        for left in self._folder.glob(f"worker-*/{name}"):
            if left.is_symlink() or not left.is_dir():
                continue
            home = left.parent
            self._done.pop(left, None)
            left.rename(folder)
            with contextlib.suppress(OSError):
                home.rmdir()
            break
        (folder / "workspace").mkdir(parents=True, exist_ok=True)
        return folder


class _Talk:
    """Is the talk with a worker about one leaf."""

    def __init__(self, task: LeafTask, host: LeafHost) -> None:
        self._task = task
        self._host = host
        self._leaf = os.urandom(12).hex()
        self._worker: WorkerProcess | None = None
        self._desk: ModelDesk | None = None
        self._sending: list[asyncio.Task[None]] = []
        self.llm: LLMService | None = None
        self.has_begun = False

    @property
    def usage(self) -> Usage:
        """What the model calls took that were made for the leaf."""
        return Usage() if self._desk is None else self._desk.usage

    def tell_stop(self, reason: str) -> bool:
        """Ask the leaf to stop; False if it has no worker."""
        if self._worker is not None:
            self._tell(self._worker, {"type": "cancel", "leaf": self._leaf, "reason": reason})
        return self._worker is not None

    def _tell(self, worker: WorkerProcess, frame: Frame) -> None:
        """Send a frame; one that does not read holds up nobody."""
        task = asyncio.get_running_loop().create_task(worker.send_bytes(frame_bytes(frame)))
        self._sending.append(task)

    async def hold(self, worker: WorkerProcess, frame: Frame, *, silence_s: float) -> LeafOutcome:
        """Give a worker the leaf and return what became of it. Raises `BrokenFrameError`, `worker.died`,
        `worker.silent`."""
        self._worker, self.has_begun = worker, False
        if self.llm is not None:
            self._desk = ModelDesk(self.llm, worker.send)
            frame["model"] = value_of(self.llm.info)
        try:
            self._tell(worker, {**frame, "leaf": self._leaf})
            while True:
                outcome = self._take(await worker.next(silence_s=silence_s))
                if outcome is not None:
                    return outcome
        finally:
            self._worker = None
            for task in self._sending:
                task.cancel()
            await uninterrupted(_ended(*self._sending))
            self._sending.clear()
            if self._desk is not None:
                await uninterrupted(self._desk.aclose())

    def _take(self, frame: Frame) -> LeafOutcome | None:
        kind = frame["type"]
        if kind == "beat":
            return None
        if member(frame, "leaf", str) != self._leaf:
            raise BrokenFrameError(f"a {kind!r:.100} frame is about another leaf")
        if kind == "begun" and not self.has_begun:
            self.has_begun = True
        elif not self.has_begun:
            raise BrokenFrameError(f"a {kind!r:.100} frame came before the leaf began")
        elif kind == "event":
            self._host.announce(self._event(frame))
        elif kind == "model" and self._desk is not None:
            self._desk.ask(frame)
        elif kind == "drop" and self._desk is not None:
            self._desk.drop(frame)
        elif kind == "outcome":
            return self._outcome(frame)
        else:
            raise BrokenFrameError(f"there is no {kind!r:.100} frame here")
        return None

    def _event(self, frame: Frame) -> events.EventPayload:
        kind = _EVENTS.get(member(frame, "event", str))
        if kind is None:
            raise BrokenFrameError(f"there is no event {frame['event']!r:.100}")
        try:
            return record_of(kind, frame.get("values"))
        except InvalidValueError as error:
            raise BrokenFrameError(f"an event is none: {error}") from error

    def _outcome(self, frame: Frame) -> LeafOutcome:
        try:
            outcome = record_of(LeafOutcome, frame.get("outcome"))
        except InvalidValueError as error:
            raise BrokenFrameError(f"an outcome is none: {error}") from error
        if outcome.status not in _ENDS or outcome.session_id is not None:
            raise BrokenFrameError("an outcome is no end, or of a session that is not the worker's")
        if outcome.is_completed == (outcome.error is not None):
            raise BrokenFrameError("an outcome is completed with an error, or failed without one")
        schema = self._task.spec.output_schema
        if outcome.is_completed and schema is not None:
            wanted = schema if isinstance(schema, OutputSchema) else OutputSchema(schema)
            problems = prepare_schema(wanted).problems(outcome.output)
            if problems:
                raise BrokenFrameError(f"an output does not fit its schema at {problems[0].path}")
        if self._desk is not None:
            # The run counts what its own model took; a worker may say anything.
            outcome = _counted(outcome, self._desk.usage)
        return outcome


def _counted(outcome: LeafOutcome, usage: Usage) -> LeafOutcome:
    return LeafOutcome(
        outcome.status, outcome.final_text, outcome.output, usage, None, outcome.error, None, outcome.is_transient
    )


async def _ended(*tasks: asyncio.Future[Any]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)


# ---- the folder of all leaves ----


def _state_folder(given: str | os.PathLike[str] | None) -> Path:
    """Return the folder, made if it is not there. Raises `config.invalid` for one that others can write."""
    folder = Path(given) if given is not None else Path(tempfile.gettempdir(), f"power-loop-leaves-{os.getuid()}")
    try:
        folder.mkdir(mode=0o700, parents=given is not None, exist_ok=True)
        found = folder.lstat() if given is None else folder.stat()
    except OSError as error:
        raise ConfigError(f"state_folder {str(folder)!r} cannot be used ({error}): give another one") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise ConfigError(
            f"state_folder {str(folder)!r} is not this user's own: leaves keep their files there, so give a folder that"
            " nobody else can write"
        )
    return folder.resolve()


def _sweep(folder: Path) -> None:
    """Remove what nobody has touched for long."""
    before = time.time() - _KEPT_S
    for left in folder.glob("worker-*"):
        with contextlib.suppress(OSError):
            # One whose leaf takes very long is written to further down.
            used_s = max(one.lstat().st_mtime for one in (left, *left.glob("*/leaf.db*")))
            if used_s < before and not left.is_symlink():
                shutil.rmtree(left, ignore_errors=True)
