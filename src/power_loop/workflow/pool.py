"""Keeps workers that are started already, so that a leaf does not wait for a Python to start."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from power_loop.contracts.errors import (
    ConfigError,
    LoopClosedError,
    PowerLoopError,
    ProcessError,
    SandboxUnavailableError,
    WorkerDiedError,
    WorkerError,
    WorkerProtocolError,
    WorkerSilentError,
)
from power_loop.contracts.frozen import frozen
from power_loop.contracts.numbers import is_number, is_whole
from power_loop.contracts.version import __version__
from power_loop.runtime.host.process import Ended, KeptProcess, ProcessLimits, Program
from power_loop.runtime.host.shells import Launch
from power_loop.workflow.worker_frames import PROTOCOL, BrokenFrameError, Frame, FrameReader, frame_bytes, member

_CHUNK_BYTES = 262_144
# A Python that starts on a busy machine, in a container that is fetched first.
START_S = 60.0
# Between the end of a worker's pipe and the word of its keeper that it ended.
_LAST_WORD_S = 1.0


@frozen
class PoolLimits:
    """Says how many workers there are, and how long each is used.

    At most `size` are alive at once (default 4); leaves beyond it wait. `spare` of them are started ahead, once the
    first leaf has said what kind of worker is needed (default 1). A worker serves `max_uses` leaves, one after the
    other (default None: 100, and a single one behind a launcher, so that no leaf meets what another left), and ends
    when it got none for `idle_s` seconds (default 60). Raises `config.invalid`.
    """

    size: int = 4
    spare: int = 1
    max_uses: int | None = None
    idle_s: float = 60.0

    def __post_init__(self) -> None:
        for name, least in (("size", 1), ("spare", 0), ("max_uses", 1)):
            value: Any = getattr(self, name)
            if not (value is None and name == "max_uses") and not is_whole(value, least=least):
                raise ConfigError(f"PoolLimits({name}={value!r:.200}): give a whole number of at least {least}")
        idle_s: Any = self.idle_s
        if not is_number(idle_s, above=0):
            raise ConfigError(f"PoolLimits(idle_s={idle_s!r:.200}): give a number of seconds above 0")


@frozen
class WorkerKind:
    """Is what one worker has in common with another that may stand in for it: all that a launcher is told."""

    tools: tuple[str, ...] | None
    workspace: str | None


class WorkerProcess:
    """Is a worker as its parent has it. Nothing of it stands in an event loop between two calls."""

    def __init__(self, kind: WorkerKind, folder: str, launch: Launch, limits: ProcessLimits) -> None:
        """Start it. Raises `process.failed`."""
        self.kind = kind
        self.folder = folder
        self.uses = 0
        #: The way to it ends in the middle of a frame, so that it understands no other.
        self.is_cut_off = False
        self._reader = FrameReader()
        self._came: deque[Frame] = deque()
        self._sending = asyncio.Lock()
        self._from, theirs_out = socket.socketpair()
        self._to, theirs_in = socket.socketpair()
        try:
            self._process = KeptProcess(
                Program(
                    launch.argv,
                    launch.env,
                    launch.folder,
                    limits=limits,
                    files=launch.files,
                    pipes={0: theirs_in.fileno(), 1: theirs_out.fileno()},
                )
            )
        except BaseException:
            self._from.close()
            self._to.close()
            raise
        finally:
            theirs_in.close()
            theirs_out.close()
        self._from.setblocking(False)
        self._to.setblocking(False)
        self.pid = 0

    async def begin(self, welcome: Frame, *, is_launched: bool) -> None:
        """Return when it is ready. Raises `sandbox.unavailable` where its launcher fails, or a `WorkerError`."""
        try:
            hello = await self.next(silence_s=START_S)
            if hello["type"] != "hello" or member(hello, "protocol", int) != PROTOCOL:
                raise BrokenFrameError(f"it speaks another protocol than {PROTOCOL}")
            theirs = member(hello, "version", str)
            if __version__ != theirs:
                raise BrokenFrameError(f"it has power-loop {theirs!r:.50}, and its parent {__version__!r}")
            self.pid = member(hello, "pid", int)
            await self.send(welcome)
            ready = await self.next(silence_s=START_S)
            if ready["type"] == "refused":
                raise SandboxUnavailableError(
                    f"a worker with llm='proxy' has no network, and here {member(ready, 'reason', str):.300}: give a"
                    " launcher that takes it away, or WorkerBootstrap(shares_network=True)"
                )
            if ready["type"] != "ready":
                raise BrokenFrameError(f"a {ready['type']!r:.100} frame came where 'ready' was expected")
        except (BrokenFrameError, WorkerError) as error:
            raise await self._start_error(error, is_launched=is_launched) from error

    async def _start_error(self, error: Exception, *, is_launched: bool) -> PowerLoopError:
        """Return why it did not begin, with what it wrote to its errors."""
        try:
            said = _words(await self.end())
        except ProcessError as unstarted:
            said = unstarted.message
        if is_launched:
            return SandboxUnavailableError(
                f"the launcher {self._process.program.argv[0]!r} did not bring up a worker ({error}; {said}), and"
                " without it none is started: mend its words"
            )
        return WorkerError(f"a worker could not be started ({error}; {said})")

    async def send(self, frame: Frame) -> None:
        """Send a frame; one that cannot be sent is not: who reads next is told that the worker is gone."""
        await self.send_bytes(frame_bytes(frame))

    async def send_bytes(self, data: bytes) -> None:
        """Send a whole frame."""
        async with self._sending:
            self.is_cut_off = True
            with contextlib.suppress(OSError):
                await asyncio.get_running_loop().sock_sendall(self._to, data)
                self.is_cut_off = False

    async def next(self, *, silence_s: float) -> Frame:
        """Return the next frame. Raises `worker.died`, `worker.silent`, `BrokenFrameError`."""
        while not self._came:
            data = await self._received(silence_s)
            if data is None:
                raise WorkerSilentError(f"a worker gave no sign of life for {silence_s:g} seconds, and was killed")
            if not data:
                raise WorkerDiedError("a worker ended in the middle of its work")
            self._came.extend(self._reader.feed(data))
            # What floods us comes without a pause, and others have to have their turn.
            await asyncio.sleep(0)
        return self._came.popleft()

    async def _received(self, silence_s: float) -> bytes | None:
        """Return what comes next: nothing at the end, None if nothing comes for so long."""
        data = self._at_hand()
        if data is not None:
            return data
        # `wait_for` may lose a cancellation to what comes at the same moment.
        receiving = asyncio.ensure_future(asyncio.get_running_loop().sock_recv(self._from, _CHUNK_BYTES))
        try:
            await asyncio.wait((receiving,), timeout=silence_s)
            if receiving.done():
                return b"" if receiving.exception() is not None else receiving.result()
        finally:
            receiving.cancel()
        # This process itself may have had no time to look.
        return self._at_hand()

    def _at_hand(self) -> bytes | None:
        try:
            return self._from.recv(_CHUNK_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def begin_leaf(self) -> None:
        """Count what comes for another leaf. Raises `BrokenFrameError` if it spoke without being asked."""
        if self._came or not self._reader.is_between_frames:
            raise BrokenFrameError("it spoke without being asked")
        self.uses += 1
        self._reader.begin_anew()

    @property
    def is_over(self) -> bool:
        """True when it is known to have ended."""
        return self._process.is_over()

    async def death(self, error: WorkerDiedError) -> WorkerDiedError:
        """Return the error of its death, in words that say how it died."""
        with contextlib.suppress(ProcessError):
            ended = await self._process.watch(timeout_s=_LAST_WORD_S) or await self.end()
            return WorkerDiedError(f"{error.message}: {_words(ended)}")
        return error

    async def end(self) -> Ended:
        """Kill it and all that it started, and return when they are gone. May be called again."""
        try:
            return await self._process.stop(grace_s=0.0)
        finally:
            self._from.close()
            self._to.close()


class WorkerPool:
    """Gives out workers and takes them back; `start` starts one of a kind."""

    def __init__(
        self, limits: PoolLimits, start: Callable[[WorkerKind], Awaitable[WorkerProcess]], *, max_uses: int
    ) -> None:
        self._limits = limits
        self._start = start
        self._max_uses = max_uses
        self._idle: list[WorkerProcess] = []
        self._alive = 0
        self._starting: dict[WorkerKind, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting: list[asyncio.Future[None]] = []
        self._is_closed = False

    @property
    def alive(self) -> int:
        """How many workers there are, those that are being started included."""
        return self._alive

    async def take(self, kind: WorkerKind) -> WorkerProcess:
        """Return a worker of a kind that nobody else has; wait for one where there may be no more. Raises what its
        start raises."""
        while True:
            if self._is_closed:
                raise LoopClosedError("this executor was closed with aclose(): make another one")
            worker = await self._idle_of(kind)
            if worker is not None:
                self._refill(kind)
                return worker
            if self._alive < self._limits.size:
                self._alive += 1
                try:
                    worker = await self._start(kind)
                except BaseException:
                    self._lose()
                    raise
                self._refill(kind)
                return worker
            if self._alive >= self._limits.size and self._idle:
                await self.end(self._idle.pop(0))
                continue
            await self._changed()

    async def give_back(self, worker: WorkerProcess) -> None:
        """Take back a worker whose leaf came to its end."""
        if self._is_closed or worker.uses >= self._max_uses:
            await self.end(worker)
        else:
            self._idle.append(worker)
            self._wake()

    async def end(self, worker: WorkerProcess) -> None:
        """End a worker that was taken."""
        try:
            with contextlib.suppress(ProcessError):
                await worker.end()
            with contextlib.suppress(OSError):
                os.rmdir(worker.folder)
        finally:
            self._lose()
        self._refill(worker.kind)

    async def prewarm(self, kind: WorkerKind, count: int) -> None:
        """Return when `count` workers of a kind wait for leaves, or as many as there may be."""
        for _ in range(count - len([one for one in self._idle if one.kind == kind])):
            if self._alive < self._limits.size and not self._is_closed:
                self._begin(kind)
        if self._tasks:
            await asyncio.wait(list(self._tasks))

    async def aclose(self) -> None:
        """End those that wait for leaves, and return when they are gone; those that work end with their leaves."""
        self._is_closed = True
        self._wake()
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(list(self._tasks))
        while self._idle:
            await self.end(self._idle.pop())

    # ---- inside ----

    async def _idle_of(self, kind: WorkerKind) -> WorkerProcess | None:
        while fitting := [one for one in self._idle if one.kind == kind]:
            worker = fitting[-1]
            self._idle.remove(worker)
            if not worker.is_over:
                return worker
            await self.end(worker)
        return None

    def _refill(self, kind: WorkerKind) -> None:
        """Start spare workers ahead."""
        idle = len([one for one in self._idle if one.kind == kind]) + self._starting.get(kind, 0)
        if not self._is_closed and idle < self._limits.spare and self._alive < self._limits.size:
            self._begin(kind)

    def _begin(self, kind: WorkerKind) -> None:
        self._alive += 1
        self._starting[kind] = self._starting.get(kind, 0) + 1
        self._task(self._begin_ahead(kind))

    async def _begin_ahead(self, kind: WorkerKind) -> None:
        try:
            worker = await self._start(kind)
        except PowerLoopError:
            # The leaf that needs one starts it again, and is told why that fails.
            self._lose()
            return
        except BaseException:
            self._lose()
            raise
        finally:
            self._starting[kind] -= 1
        self._idle.append(worker)
        self._wake()

    def _task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _lose(self) -> None:
        self._alive -= 1
        self._wake()

    async def _changed(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        await waiter

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)


def worker_protocol_error(error: BrokenFrameError) -> WorkerProtocolError:
    """Return the error of a worker that broke the rules of the wire."""
    return WorkerProtocolError(f"a worker sent what no worker sends, and was killed: {error}")


def _words(ended: Ended) -> str:
    """Say how a worker ended, with the end of what it wrote to its errors."""
    if ended.exit_status is not None and ended.exit_status < 0:
        how = f"it was killed by signal {-ended.exit_status}"
    else:
        how = f"{ended.cause.value}, status {ended.exit_status}"
    wrote = (ended.output.head + ended.output.tail)[-600:].decode("utf-8", "replace").strip()
    return f"{how}; it wrote: {wrote}" if wrote else how
