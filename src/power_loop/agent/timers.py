"""Fires timers: claims those that are due, asks the hooks, brings their inputs to the inboxes, and has these driven."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from types import TracebackType
from typing import Any

from power_loop.agent.firing import CLAIM_TTL_S, HOOK_TIMEOUT_S, Firing, wakes
from power_loop.agent.loop import StatefulAgentLoop
from power_loop.contracts.errors import (
    ConfigError,
    LoopClosedError,
    SessionNotFoundError,
    StoreError,
    StoreNewerError,
)
from power_loop.contracts.numbers import is_number, is_whole
from power_loop.contracts.ports import SessionStore
from power_loop.contracts.timers import TimerClaim, TimerDelivery, check_timer_id
from power_loop.core.stray import counting_task
from power_loop.runtime.host.identity import dead_among, new_owner_id

_LOG = logging.getLogger("power_loop")

# A timer may be due of which another runner is just taking hold: it is looked at again so soon, in seconds.
_NAP_S = 0.05


class TimerRunner:
    """Fires the timers of a loop's store, for as long as it runs: `async with TimerRunner(loop): ...`, or
    `await TimerRunner(loop).run()`.

    As many runners as one likes work on one database, in as many processes: each firing is delivered once. At most
    `max_deliveries` are on their way at the same time, and at most `max_turns` sessions that were woken are driven; a
    slow one keeps a place, and holds nobody up beyond that. It wakes when the next timer is due or when this process
    makes one, and looks every `poll_s` for those that others made. A claim lasts `claim_ttl_s`: so late another runner
    delivers what one that died had taken, and at its next look where that was a process of this machine. A hook has
    `hook_timeout_s`. Every `recover_every_s` it also drives what dead processes left, as `loop.recover()` does (None:
    that is done elsewhere). With `drives=False` it delivers and drives nothing: that is left to a fleet's `Worker`s.
    Raises `config.invalid`.
    """

    def __init__(
        self,
        loop: StatefulAgentLoop,
        *,
        max_deliveries: int = 16,
        max_turns: int = 32,
        poll_s: float = 5.0,
        claim_ttl_s: float = CLAIM_TTL_S,
        hook_timeout_s: float = HOOK_TIMEOUT_S,
        recover_every_s: float | None = 30.0,
        drives: bool = True,
    ) -> None:
        for name, count in (("max_deliveries", max_deliveries), ("max_turns", max_turns)):
            if not is_whole(count, least=1):
                raise ConfigError(f"{name} is {count!r:.80}: give a whole number of at least 1")
        seconds = {"poll_s": poll_s, "claim_ttl_s": claim_ttl_s, "hook_timeout_s": hook_timeout_s}
        if recover_every_s is not None:
            seconds["recover_every_s"] = recover_every_s
        for name, value in seconds.items():
            if not is_number(value, above=0):
                raise ConfigError(f"{name} is {value!r:.80}: give seconds above 0")
        if hook_timeout_s >= claim_ttl_s:
            raise ConfigError(
                f"hook_timeout_s is {hook_timeout_s!r} and claim_ttl_s is {claim_ttl_s!r}: a hook has to be done before"
                " its claim is over, so that no other runner asks it as well"
            )
        self._loop = loop
        self._clock = loop.clock
        self._owner = new_owner_id()
        self._max_deliveries = max_deliveries
        self._poll_s = poll_s
        self._claim_ttl_s = claim_ttl_s
        self._firing = Firing(loop.hooks, loop.event_bus, hook_timeout_s=hook_timeout_s)
        self._drives = drives
        self._recover_every_s = recover_every_s if drives else None
        self._turns = asyncio.Semaphore(max_turns)
        # Sessions that were woken and are not driven to their rest yet; True: they were woken again meanwhile.
        self._woken: dict[str, bool] = {}
        self._driving: set[asyncio.Task[None]] = set()
        self._deliveries: set[asyncio.Task[TimerDelivery | None]] = set()
        self._stopped = asyncio.Event()
        # When dead owners are looked for again.
        self._not_before_s = 0.0
        self._running: asyncio.Task[None] | None = None

    # ---- as long as it runs ----

    async def run(self) -> None:
        """Fire timers until `stop()` is called or the loop is closed, then wait for what is on its way; one that is
        cancelled leaves that to others. Raises `store.schema_newer` where a newer version took the tables over."""
        store = await self._loop.get_store()
        heard, here = asyncio.Event(), asyncio.get_running_loop()

        def ring() -> None:
            if not here.is_closed():
                here.call_soon_threadsafe(heard.set)

        leave = store.watch_timers(ring)
        recovering = (
            None if self._recover_every_s is None else asyncio.create_task(self._recover(self._recover_every_s, heard))
        )
        try:
            while not self._stopped.is_set():
                heard.clear()
                await self._nap(await self._pass(heard), heard)
                if recovering is not None and recovering.done():
                    recovering.result()
        except LoopClosedError:
            pass
        except asyncio.CancelledError:
            # At once: a claim runs out, an input waits in its inbox, and a turn that runs is the loop's to end.
            for task in (*self._deliveries, *self._driving, *([] if recovering is None else [recovering])):
                task.cancel()
            raise
        finally:
            leave()
            self._stopped.set()
            if recovering is not None:
                await asyncio.gather(recovering, return_exceptions=True)
            await self.drained()

    def stop(self) -> None:
        """Take no more timers; `run()` returns once what is on its way has come to its end."""
        self._stopped.set()

    async def __aenter__(self) -> TimerRunner:
        self._running = asyncio.create_task(self.run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if self._running is not None:
            await self._running

    async def drained(self) -> None:
        """Wait until nothing that this runner has begun is on its way: deliveries, and the turns of woken sessions."""
        while self._deliveries or self._driving:
            await asyncio.wait((*self._deliveries, *self._driving))

    async def _pass(self, heard: asyncio.Event) -> float:
        """Take hold of what is due, as far as there is room, and return how long there is nothing more to do."""
        room = self._max_deliveries - len(self._deliveries)
        if not room:
            return self._poll_s
        try:
            # Asked for anew, because a loop that was closed has none.
            store = await self._loop.get_store()
            dead = await self._dead_owners(store)
            claims = await store.claim_timers(self._owner, ttl_s=self._claim_ttl_s, limit=room, dead_owners=dead)
            for claim in claims:
                self._start(store, claim).add_done_callback(lambda _: heard.set())
            if len(claims) == room:
                return self._poll_s
            due_s = await store.next_timer_in_s()
        except StoreNewerError:
            raise
        except StoreError as error:
            _LOG.warning("a look for timers failed and is made again: %s", error)
            return self._poll_s
        return self._poll_s if due_s is None else min(max(due_s, _NAP_S), self._poll_s)

    async def _nap(self, seconds: float, heard: asyncio.Event) -> None:
        """Wait until the time is over, something was heard, or the end."""
        waits: tuple[Coroutine[Any, Any, Any], ...] = (
            *(self._clock.sleep(seconds), heard.wait(), self._stopped.wait()),
        )
        tasks = [asyncio.ensure_future(wait) for wait in waits]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _dead_owners(self, store: SessionStore) -> list[str]:
        """Return the owners of claims whose processes are known to be dead; now and then only."""
        at_s = asyncio.get_running_loop().time()
        if at_s < self._not_before_s:
            return []
        dead = await dead_among(await store.list_timer_owners(within_s=self._claim_ttl_s))
        self._not_before_s = at_s + self._poll_s / 2
        return dead

    async def _recover(self, every_s: float, heard: asyncio.Event) -> None:
        while not self._stopped.is_set():
            try:
                await self._loop.recover()
            except LoopClosedError:
                return
            except StoreNewerError:
                # The runner hears of it, and ends.
                heard.set()
                raise
            except StoreError as error:
                _LOG.warning("a pass of recovery failed and is made again: %s", error)
            await self._nap(every_s, asyncio.Event())

    # ---- once ----

    async def fire_due(self, *, timer_ids: Sequence[str] | None = None) -> tuple[TimerDelivery, ...]:
        """Deliver what is due at this moment, or those of `timer_ids` that are, and return what was delivered.

        The sessions that were woken are driven behind that: `drained()` waits for them.
        """
        if timer_ids is not None:
            for timer_id in timer_ids:
                check_timer_id(timer_id)
        store = await self._loop.get_store()
        self._not_before_s = 0.0
        dead = await self._dead_owners(store)
        delivered: list[TimerDelivery] = []
        left = None if timer_ids is None else list(timer_ids)
        while left is None or left:
            only = None if left is None else left[: self._max_deliveries]
            claims = await store.claim_timers(
                self._owner, ttl_s=self._claim_ttl_s, limit=self._max_deliveries, timer_ids=only, dead_owners=dead
            )
            done = await asyncio.gather(*[self._start(store, claim) for claim in claims])
            delivered += [one for one in done if one is not None]
            if left is not None:
                del left[: self._max_deliveries]
            elif not claims:
                break
        return tuple(delivered)

    # ---- one firing ----

    def _start(self, store: SessionStore, claim: TimerClaim) -> asyncio.Task[TimerDelivery | None]:
        task = counting_task(self._fire(store, claim))
        self._deliveries.add(task)
        task.add_done_callback(self._deliveries.discard)
        return task

    async def _fire(self, store: SessionStore, claim: TimerClaim) -> TimerDelivery | None:
        delivery = await self._firing.fire(store, claim)
        if delivery is not None and self._drives and wakes(delivery):
            self._wake(claim.timer.session_id)
        return delivery

    # ---- behind it ----

    def _wake(self, session_id: str) -> None:
        """Have a session's inbox driven; one that is already is driven on until nothing waits."""
        if session_id in self._woken:
            self._woken[session_id] = True
            return
        self._woken[session_id] = True
        task = asyncio.create_task(self._drive(session_id))
        self._driving.add(task)
        task.add_done_callback(self._driving.discard)

    async def _drive(self, session_id: str) -> None:
        try:
            async with self._turns:
                while self._woken[session_id]:
                    self._woken[session_id] = False
                    try:
                        await self._loop.drive_inbox(session_id)
                    except LoopClosedError:
                        pass
                    except (StoreError, SessionNotFoundError) as error:
                        _LOG.warning("session %s was woken and is left to others: %s", session_id, error)
        finally:
            del self._woken[session_id]
