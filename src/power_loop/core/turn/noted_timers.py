"""Notes what a tool does with timers in the transaction of its call, to be announced once that is durable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from power_loop.contracts.blackboard import BlackboardTransaction
from power_loop.contracts.events import EventPayload, TimerCancelled, TimerScheduled
from power_loop.contracts.schedules import Schedule
from power_loop.contracts.timers import MAX_TIMERS, TimerMaker, TimerRecord, TimerTransaction
from power_loop.contracts.tools import ToolBody, ToolTransaction


class NotedTimers:
    """Is what one call did with timers: events that come true with its transaction."""

    def __init__(self) -> None:
        self.events: list[EventPayload] = []

    def noting(self, body: ToolBody) -> ToolBody:
        """Return a body that does the same, and whose timers are noted."""

        async def noted(tx: ToolTransaction) -> Any:
            # It may run again: what an earlier run did was undone.
            self.events.clear()
            return await body(_NotedTransaction(tx, self.events))

        return noted


class _NotedTransaction:
    """Is a call's transaction; satisfies `ToolTransaction`."""

    __slots__ = ("_tx", "blackboard", "timers")

    def __init__(self, tx: ToolTransaction, events: list[EventPayload]) -> None:
        self._tx = tx
        self.blackboard: BlackboardTransaction = tx.blackboard
        self.timers: TimerTransaction = _Timers(tx.timers, events)

    async def execute(self, sql: str, params: Sequence[Any] = ()) -> int:
        """Run a statement and return how many rows it changed."""
        return await self._tx.execute(sql, params)

    async def execute_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> int:
        """Run a statement once for each of `rows` and return how many rows all of them changed."""
        return await self._tx.execute_many(sql, rows)

    async def query(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        return await self._tx.query(sql, params)


class _Timers:
    """Is the timers of a session within a transaction; satisfies `TimerTransaction`."""

    __slots__ = ("_events", "_timers")

    def __init__(self, timers: TimerTransaction, events: list[EventPayload]) -> None:
        self._timers = timers
        self._events = events

    async def schedule(
        self, text: str, schedule: Schedule, *, name: str | None = None, max_timers: int | None = MAX_TIMERS
    ) -> TimerRecord:
        """Make a timer that brings `text` to the session."""
        made = await self._timers.schedule(text, schedule, name=name, max_timers=max_timers)
        if made.due_at_ms is not None:
            self._events.append(TimerScheduled(made.id, made.due_at_ms))
        return made

    async def cancel(self, timer_id: str, *, made_by: TimerMaker | None = None) -> bool:
        """End a timer of the session, of this maker if one is given; False if it had ended."""
        was_armed = await self._timers.cancel(timer_id, made_by=made_by)
        if was_armed:
            self._events.append(TimerCancelled(timer_id))
        return was_armed
