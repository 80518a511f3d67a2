"""What the tests of the loop are made of: ears that keep events, gates that hold a step, waits that have an end."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from power_loop import (
    AgentEvent,
    HookPoint,
    LLMRequest,
    Message,
    StatefulAgentLoop,
    StatefulResult,
    TextPart,
    TurnStream,
)
from power_loop.hooks import HookContext
from power_loop.messages import ToolResultPart

T = TypeVar("T")
P = TypeVar("P")

#: How long a test waits for something that should come at once, in seconds: only a broken program takes so long. Two
#: hundred sends take half a minute on a machine that does ten other things.
LIMIT_S = 120.0


async def within_limit(work: Awaitable[T]) -> T:
    """Await something that a broken loop would never bring."""
    return await asyncio.wait_for(work, LIMIT_S)


def pass_time(seconds: float) -> None:
    """Put the clock of the running event loop forward, so that what is to come within these seconds comes at once."""
    loop = asyncio.get_running_loop()
    now = loop.time
    loop.time = lambda: now() + seconds  # type: ignore[method-assign]


async def until(claim: Callable[[], bool]) -> None:
    """Let the event loop go round until a claim is true."""
    while not claim():  # noqa: ASYNC110 - what is claimed has no event to wait for
        await asyncio.sleep(0)


class Ears:
    """Keeps the events of a loop in order."""

    def __init__(self, loop: StatefulAgentLoop, **options: Any) -> None:
        self.events: list[AgentEvent] = []
        loop.event_bus.subscribe(self.events.append, **options)

    @property
    def types(self) -> list[str]:
        """The frozen names in order."""
        return [event.type for event in self.events]

    def of(self, kind: type[P]) -> list[P]:
        """The payloads of one kind."""
        return [event.payload for event in self.events if isinstance(event.payload, kind)]


class Watch:
    """Is a hook at every point; it decides nothing and keeps the contexts."""

    def __init__(self, loop: StatefulAgentLoop) -> None:
        self.contexts: list[HookContext] = []
        for point in HookPoint:
            loop.hooks.add(point, self.see, name="watch")

    def see(self, context: HookContext) -> None:
        self.contexts.append(context)

    @property
    def points(self) -> list[str]:
        """The points in order."""
        return [context.point.value for context in self.contexts]

    def of(self, kind: type[P]) -> list[P]:
        """The contexts of one kind."""
        return [context for context in self.contexts if isinstance(context, kind)]


class Gate:
    """Holds whoever passes until it is opened; says when somebody has come, and when one was cancelled there."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._come = asyncio.Event()
        self.came = 0
        self.cancelled = 0

    def open(self) -> None:
        self._open.set()

    async def someone(self) -> None:
        """Wait until somebody stands here."""
        await within_limit(self._come.wait())

    async def passing(self) -> None:
        """Stand here until it is opened."""
        self.came += 1
        self._come.set()
        try:
            await self._open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    def then(self, step: Any) -> Callable[[LLMRequest], Awaitable[Any]]:
        """Return a step of a scripted model that stands here first."""

        async def held(request: LLMRequest) -> Any:
            await self.passing()
            return step

        return held


async def watch(stream: TurnStream, seen: list[AgentEvent]) -> StatefulResult:
    """Read a stream to its end into `seen`, which holds what came before an error too."""
    async with stream as events:
        async for event in events:
            seen.append(event)  # noqa: PERF401 - an extend would lose what came before an error
    return events.result


class Unprintable(Exception):  # noqa: N818
    """Has no words: to print it fails."""

    def __str__(self) -> str:
        raise RuntimeError("it has no words")


class Panic(BaseException):
    """Is no `Exception`, like the panic of a native extension."""


class CountingStore:
    """Is a store that counts what is asked of it, by method."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._store, name)
        if not callable(value):
            return value

        def ask(*args: Any, **options: Any) -> Any:
            self.asked.append(name)
            return value(*args, **options)

        return ask


@contextmanager
def commits_of(store: Any) -> Any:
    """Collect the names of the moves that an open database commits."""
    moves: list[str] = []

    def note(point: str, move: str) -> None:
        if point == "commit.after":
            moves.append(move)

    store.on_point = note
    try:
        yield moves
    finally:
        store.on_point = None


def open_files(dsn: str) -> list[str]:
    """Return the files of a database that this process has open, one a descriptor; [] where no system tells."""
    folder = Path("/proc/self/fd")
    found = []
    for link in folder.iterdir() if folder.is_dir() else ():
        with suppress(OSError):  # the one that lists is closed by now
            found.append(os.readlink(link))
    return sorted(one for one in found if one.startswith(dsn))


def store_threads() -> set[threading.Thread]:
    """Return the threads that serve databases."""
    return {thread for thread in threading.enumerate() if thread.name.startswith("power-loop-store")}


def said(messages: Any) -> list[tuple[str, str]]:
    """Return messages (or records of the log) as pairs of role and text; a tool's answer counts as its text."""
    plain = [getattr(one, "message", one) for one in messages]
    return [(message.role.value, text_of(message)) for message in plain]


def text_of(message: Message) -> str:
    """Return all text of a message, that of a tool's answer included."""
    texts = []
    for part in message.parts:
        if isinstance(part, TextPart):
            texts.append(part.text)
        elif isinstance(part, ToolResultPart):
            texts += [one.text for one in part.content if isinstance(one, TextPart)]
    return "".join(texts)


def answers(request: LLMRequest) -> list[str]:
    """Return the texts of the tools' answers that a model was shown, in order."""
    return [text_of(message) for message in request.messages if message.tool_result is not None]


def error_answers(request: LLMRequest) -> list[str]:
    """Return those of the answers that are marked as errors."""
    results = [(message, message.tool_result) for message in request.messages]
    return [text_of(message) for message, result in results if result is not None and result.is_error]


def is_fold(request: LLMRequest) -> bool:
    """Tell whether a model is asked to fold a conversation, and not to go on with it."""
    return (request.system or "").startswith("You keep the record of a long conversation")
