"""Looks, while turns run for long, whether somebody in another process has something to say to them."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from power_loop.contracts.errors import LeaseLostError, PowerLoopError
from power_loop.contracts.ports import SessionStore
from power_loop.contracts.records import Lease, News
from power_loop.core.turn.scope import StopCause, TurnScope

_LOG = logging.getLogger("power_loop")

#: How often it looks: a cancellation from another process arrives within about this time.
INTERVAL_S = 0.4
# How long it waits at most between two looks while the database does not answer.
_MAX_INTERVAL_S = 5.0


class Watched(Protocol):
    """Is a turn as far as it is watched."""

    session_id: str
    lease: Lease
    scope: TurnScope

    def hear(self, news: News) -> None:
        """Take in what somebody outside has to say."""
        ...


class Watcher:
    """Watches the turns of one event loop: one query for all of them, and none for those that end before it looks.

    It ends with the last turn. It reads through the store of a turn that runs, because handles come and go. What it
    cannot read it reads later; a turn finds out by its next write in any case.
    """

    __slots__ = ("_interval_s", "_loop", "_task", "_timer", "_turns")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._interval_s = INTERVAL_S
        # Each turn with its store, and whether it has run for an interval.
        self._turns: dict[Watched, tuple[SessionStore, bool]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def is_over(self) -> bool:
        """True once its event loop is closed."""
        return self._loop.is_closed()

    def is_of(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Tell whether it watches the turns of this event loop."""
        return self._loop is loop

    def add(self, turn: Watched, store: SessionStore) -> None:
        """Watch a turn from its second interval on."""
        self._turns[turn] = (store, False)
        if self._timer is None:
            self._timer = self._loop.call_later(self._interval_s, self._tick)

    def turn_of(self, session_id: str) -> Watched | None:
        """Return the turn of a session that runs in its event loop, if one does."""
        return next((turn for turn in self._turns if turn.session_id == session_id), None)

    def remove(self, turn: Watched) -> None:
        """Watch it no longer."""
        self._turns.pop(turn, None)

    async def rest(self) -> None:
        """Give up a look that is on its way for turns that have all ended: it would outlive the handles."""
        if self._task is not None and not self._turns:
            self._task.cancel()
            await asyncio.wait((self._task,))

    def _tick(self) -> None:
        self._timer = None
        if not self._turns:
            return
        if self._task is not None:
            # Turns that came behind it are looked at when it has ended: of two looks only one would be given up.
            self._timer = self._loop.call_later(self._interval_s, self._tick)
            return
        watched = [turn for turn, (_, is_due) in self._turns.items() if is_due]
        for turn, (store, _) in self._turns.items():
            self._turns[turn] = (store, True)
        if watched:
            self._task = self._loop.create_task(self._look(watched))
            self._task.add_done_callback(self._looked)
        else:
            self._timer = self._loop.call_later(self._interval_s, self._tick)

    def _looked(self, task: asyncio.Task[None]) -> None:
        self._task = None
        failed = not task.cancelled() and task.exception() is not None
        if failed:
            _LOG.debug("running turns could not be watched: %s", task.exception())
        self._interval_s = min(self._interval_s * 2, _MAX_INTERVAL_S) if failed else INTERVAL_S
        if self._turns and not task.cancelled() and self._timer is None:
            self._timer = self._loop.call_later(self._interval_s, self._tick)

    async def _look(self, turns: list[Watched]) -> None:
        store = self._turns[turns[-1]][0]
        heads = await store.read_signals([turn.session_id for turn in turns])
        for turn in turns:
            head = heads.get(turn.session_id)
            if turn not in self._turns or head == (turn.lease.epoch, turn.lease.signals):
                continue
            try:
                news = await self._turns[turn][0].read_news(turn.lease)
            except LeaseLostError:
                if turn in self._turns:
                    turn.scope.stop(StopCause.LEASE_LOST)
            except PowerLoopError as error:
                _LOG.debug("the news for %s could not be read: %s", turn.session_id, error)
            else:
                if turn in self._turns:
                    turn.hear(news)
