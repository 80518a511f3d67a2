"""Is a turn that is watched while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from types import TracebackType
from typing import Any

from power_loop.contracts.errors import InputError
from power_loop.contracts.events import AgentEvent
from power_loop.contracts.results import StatefulResult
from power_loop.core.bus import EventQueue
from power_loop.core.turn.chain import start
from power_loop.core.turn.scope import StopCause, TurnScope

Start = Callable[[EventQueue], Coroutine[Any, Any, StatefulResult]]


class TurnStream(AsyncIterator[AgentEvent]):
    """Yields the events of one turn, and then has its `result`.

        async with loop.stream("Hello", session_id=sid) as events:
            async for event in events:
                ...
        print(events.result.final_text)

    The turn begins with the block. Leaving the block early cancels the turn and waits until it rests; its `result` is
    the cancelled one then. If the turn fails, its error is raised behind the last event, and by `result` and `wait()`.
    """

    __slots__ = ("_events", "_scope", "_start", "_task")

    def __init__(self, start: Start, scope: TurnScope) -> None:
        self._start = start
        self._scope = scope
        self._events = EventQueue()
        self._task: asyncio.Task[StatefulResult] | None = None

    @property
    def result(self) -> StatefulResult:
        """The result of the turn, once it rests. Raises what the turn raised, and `input.invalid` before it rests."""
        task = self._task
        if task is None or not task.done():
            raise InputError("the turn has not ended: read its events to the end, or await wait()")
        if task.cancelled():
            raise InputError("the turn has no result: its event loop was shut down before it came to rest")
        return task.result()

    async def wait(self) -> StatefulResult:
        """Let the turn go on to its rest without reading further events, and return its result; raises what the turn
        raises."""
        return await asyncio.shield(self._begun())

    async def __aenter__(self) -> TurnStream:
        if self._task is not None:
            raise InputError("a stream can be entered once: call stream() again for another turn")
        self._task = start(self._start(self._events))
        self._task.add_done_callback(self._ended)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        if not self._task.done():
            self._scope.stop(StopCause.CANCELLED, "its stream was left")
            cancelled: asyncio.CancelledError | None = None
            while not self._task.done():
                try:
                    await asyncio.wait((self._task,))
                except asyncio.CancelledError as caught:  # noqa: PERF203 - a few rounds at most
                    cancelled = caught
            if cancelled is not None:
                raise cancelled

    def _ended(self, task: asyncio.Task[StatefulResult]) -> None:
        if not task.cancelled():
            task.exception()  # seen: whoever asks for the result gets it
        self._events.finish()

    def __aiter__(self) -> TurnStream:
        return self

    async def __anext__(self) -> AgentEvent:
        task = self._begun()
        try:
            return await self._events.__anext__()
        except StopAsyncIteration:
            await task
            raise

    def _begun(self) -> asyncio.Task[StatefulResult]:
        if self._task is None:
            raise InputError("the turn has not begun: use `async with loop.stream(...) as events:`")
        return self._task
