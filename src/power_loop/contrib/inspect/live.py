"""Tells a page what changes while it looks: the rows of the store, and the events of a loop in this process."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from power_loop import AgentEvent, PowerLoopError
from power_loop.contrib.event_values import event_value
from power_loop.contrib.inspect.views import bounded
from power_loop.events import AgentEventBus

#: The rows are looked at so often; another process writes them and tells nobody.
POLL_S = 0.5
#: A line at least so often, by which a dead connection is found out.
_SIGN_OF_LIFE_S = 15.0
_MOMENT_S = 0.03
# Who reads slower than a model speaks loses the oldest pieces; the rows have the whole.
_MAX_WAITING = 2_000
_MAX_EVENT_CHARS, _MAX_TEXT_CHARS = 20_000, 2_000


class Ears:
    """Hands what a bus says, and what the inspector has to say itself, to the pages that are open."""

    def __init__(self, bus: AgentEventBus | None) -> None:
        self._pages: set[_Page] = set()
        self._loop = asyncio.get_running_loop()
        self._subscription = None if bus is None else bus.subscribe(self._hear, name="inspector")

    def close(self) -> None:
        """Hear nothing more."""
        if self._subscription is not None:
            self._subscription.unsubscribe()

    async def pieces(self, session_id: str | None, mark: Callable[[], Awaitable[object]]) -> AsyncIterator[bytes]:
        """Give the server-sent events of a page that shows a session, or None for the list: `told` and `notice` as they
        come, `changed` whenever the `mark` of the view does."""
        page = _Page(session_id)
        self._pages.add(page)
        try:
            yield b"retry: 1000\n\n"
            async for piece in page.pieces(mark):
                yield piece
        finally:
            self._pages.discard(page)

    def notify(self, session_id: str, text: str, code: str | None) -> None:
        """Tell the pages that show a session something that is in no row."""
        for page in self._pages:
            if page.session_id == session_id:
                page.put("notice", {"text": text, "code": code})

    def _hear(self, event: AgentEvent) -> None:
        # A bus calls in whatever thread the event happened, and in the midst of a turn.
        if self._pages:
            self._loop.call_soon_threadsafe(self._hand_on, event)

    def _hand_on(self, event: AgentEvent) -> None:
        value = None
        for page in self._pages:
            if page.session_id in event.agent_path:
                if value is None:
                    value = bounded(event_value(event), max_chars=_MAX_TEXT_CHARS, max_all_chars=_MAX_EVENT_CHARS)
                page.put("told", value)
            if event.payload.is_durable:
                page.look_again()


class _Page:
    """Is an open page's ear."""

    def __init__(self, session_id: str | None) -> None:
        self.session_id = session_id
        self._said: deque[tuple[str, Any]] = deque(maxlen=_MAX_WAITING)
        self._woken = asyncio.Event()
        self._is_stale = True

    def put(self, name: str, value: Any) -> None:
        """Have an event sent."""
        self._said.append((name, value))
        self._woken.set()

    def look_again(self) -> None:
        """Have the rows looked at: something in them has changed."""
        self._is_stale = True
        self._woken.set()

    async def pieces(self, mark: Callable[[], Awaitable[object]]) -> AsyncIterator[bytes]:
        """Give what was said, and tell when the mark changed, as long as somebody reads."""
        clock = asyncio.get_running_loop().time
        known: object = None
        looked_s = spoke_s = clock()
        while True:
            said = [_event(*self._said.popleft()) for _ in range(len(self._said))]
            if self._is_stale or clock() - looked_s >= POLL_S:
                self._is_stale, looked_s = False, clock()
                now = await _marked(mark)
                if now != known:
                    known = now
                    said.append(_event("changed", None))
            if not said and clock() - spoke_s >= _SIGN_OF_LIFE_S:
                said = [b": still here\n\n"]
            if said:
                spoke_s = clock()
                yield b"".join(said)
                # Pieces of an answer come by the thousand: those of a moment go together.
                await asyncio.sleep(_MOMENT_S)
            with contextlib.suppress(TimeoutError, asyncio.TimeoutError):
                await asyncio.wait_for(self._woken.wait(), max(looked_s + POLL_S - clock(), 0.0))
            self._woken.clear()


async def _marked(mark: Callable[[], Awaitable[object]]) -> object:
    try:
        return await mark()
    except PowerLoopError as error:
        return error.code


def _event(name: str, value: Any) -> bytes:
    # As ASCII JSON, nothing that a model said can end a line of the stream.
    return f"event: {name}\ndata: {json.dumps(value)}\n\n".encode("ascii")
