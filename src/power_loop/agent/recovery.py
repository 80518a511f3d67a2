"""Finds the sessions whose process died or whose inputs nobody drives, and drives them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from power_loop.contracts.errors import InputError, PowerLoopError, SessionBusyError
from power_loop.contracts.numbers import is_number, is_whole
from power_loop.contracts.ports import SessionStore
from power_loop.contracts.records import Lease, StalledSession
from power_loop.contracts.results import Found, Recovered, StatefulResult
from power_loop.contracts.states import SendStatus
from power_loop.runtime.host.identity import dead_among

#: So many sessions are driven at the same time.
CONCURRENCY = 8
#: The most that one pass may look at.
MAX_LIMIT = 10_000

Drive = Callable[[str], Coroutine[Any, Any, StatefulResult | None]]


class Recovery:
    """Makes passes over what is stalled. Many processes may do so at the same time: of each session the lease decides
    who drives it, and whoever comes late passes it over."""

    def __init__(
        self, store: SessionStore, *, is_owner_dead: Callable[[str], bool], recover: Drive, next_turn: Drive
    ) -> None:
        self._store = store
        self._is_owner_dead = is_owner_dead
        self._recover = recover
        self._next_turn = next_turn

    async def run(self, *, limit: int, drive: bool, older_than_s: float) -> AsyncIterator[Recovered]:
        """Yield what became of each stalled session as it comes, until there is no other or `limit` were seen."""
        seen: set[str] = set()
        room = asyncio.Semaphore(CONCURRENCY)
        while len(seen) < limit:
            found = await self._find(limit=limit + len(seen), older_than_s=older_than_s)
            fresh = [one for one in found if one.session_id not in seen][: limit - len(seen)]
            if not fresh:
                return
            seen.update(one.session_id for one in fresh)
            if not drive:
                for one in fresh:
                    yield Recovered(one.session_id, found_in(one), one.send_status, one.waiting_inputs, one.attempts)
                continue
            tasks = [asyncio.ensure_future(self._drive(one, room)) for one in fresh]
            try:
                for ended in asyncio.as_completed(tasks):
                    report = await ended
                    if report is not None:
                        yield report
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _find(self, *, limit: int, older_than_s: float) -> tuple[StalledSession, ...]:
        dead = await dead_among(await self._store.list_owners(), self._is_owner_dead)
        return await self._store.find_stalled(dead_owners=dead, older_than_ms=round(older_than_s * 1000), limit=limit)

    async def _drive(self, one: StalledSession, room: asyncio.Semaphore) -> Recovered | None:
        """Drive a session; None where somebody else does."""
        async with room:
            status, code = one.send_status, None
            try:
                result = await self._driven(one)
            except SessionBusyError:
                return None
            except PowerLoopError as error:
                sent = await self._store.get_send(one.session_id)
                status, code = (None if sent is None else sent.status), error.code
            else:
                if found_in(one) is not Found.LEFT_LEASE and (result is None or result.is_replayed):
                    return None  # somebody else had driven it by then
                status = status if result is None else result.status
            return Recovered(
                one.session_id, found_in(one), status, one.waiting_inputs, one.attempts, was_driven=True, error=code
            )

    async def _driven(self, one: StalledSession) -> StatefulResult | None:
        result: StatefulResult | None = None
        if one.send_status is SendStatus.RUNNING:
            result = await self._recover(one.session_id)
            if result is not None and not result.send_index:
                return result  # a hook refused it, or it was stopped before it began: what waits does so behind it
        elif one.owner is not None:
            await self._store.release(Lease(one.session_id, one.owner, one.epoch))
        while one.waiting_inputs and (result is None or result.status is not SendStatus.WAITING_FOR_INPUT):
            following = await self._next_turn(one.session_id)
            if following is None:
                break
            result = following
        return result


def found_in(one: StalledSession) -> Found:
    """Return what is the matter with a session."""
    if one.send_status is SendStatus.RUNNING:
        return Found.DEAD_TURN
    return Found.WAITING_INPUT if one.waiting_inputs else Found.LEFT_LEASE


def check_pass(limit: Any, older_than_s: Any) -> None:
    """Raise `input.invalid` for a pass that cannot be made."""
    if not is_whole(limit, least=1, most=MAX_LIMIT):
        raise InputError(f"limit is {limit!r:.200}: give a whole number of 1 to {MAX_LIMIT}")
    check_seconds("older_than_s", older_than_s, least=0.0)


def check_seconds(name: str, value: Any, *, least: float) -> None:
    """Raise `input.invalid` for what is no number of seconds of at least `least`."""
    if not is_number(value, least=least):
        raise InputError(f"{name} is {value!r:.200}: give a number of seconds of at least {least:g}")
