"""Works for a store: claims sessions in which something is to be done, and drives them, a bounded number at a time."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import math
import random
from collections.abc import Callable, Iterator
from types import TracebackType

from power_loop.agent.loop import StatefulAgentLoop
from power_loop.agent.recovery import check_seconds, found_in
from power_loop.agent.workplace import Workplace
from power_loop.contracts.errors import (
    InputError,
    LeaseLostError,
    LLMError,
    LoopClosedError,
    OutputError,
    PowerLoopError,
    SendPoisonedError,
    SessionBusyError,
    StoreError,
    StoreNewerError,
)
from power_loop.contracts.numbers import is_whole
from power_loop.contracts.ports import Listener
from power_loop.contracts.records import Lease, StalledSession
from power_loop.contracts.results import Found, Recovered, StatefulResult
from power_loop.core.turn.scope import TurnScope
from power_loop.runtime.host.identity import dead_among

_LOG = logging.getLogger("power_loop")

#: The most sessions that one worker drives at the same time.
MAX_CONCURRENCY = 1_000
#: An idle worker that is told of work looks this many times less often by itself.
LISTENING_FACTOR = 10
# A database that is away is asked again after so many seconds, growing up to the longest pause.
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 15.0
# A session that could not be driven is left alone for so many seconds, twice as long with each time.
_FIRST_REST_S = 1.0
_LONGEST_REST_S = 300.0
# So long a look waits for timers to be delivered, in seconds.
_PATIENCE_S = 1.0
# Somebody else drives it, or has done so: nothing is wrong with it.
_TAKEN_BY_OTHERS = (SessionBusyError, LeaseLostError)
# The send has come to rest with it, or others have: the store says when the session is to be driven on.
_SEEN_TO = (*_TAKEN_BY_OTHERS, LLMError, OutputError, SendPoisonedError)
# What is told of an error that is none of ours.
_UNKNOWN = "unknown"


class Worker:
    """Drives the sessions of a loop's store in which inputs wait that `enqueue()` and others left, or whose process
    died.

    As many workers as one likes, on as many machines, work for one store: of each session the lease decides which of
    them drives it, and they pass over what another one is claiming. `concurrency` sessions are driven at a time, one
    turn each, then it is the turn of the one that was served longest ago. `poll_s` is how often an idle worker looks;
    where the database tells it of work, it looks ten times less often. Behind a send that failed, what waits is left
    alone for `after_failure_s`. At the end, turns that run have `grace_s` to come to rest, and are then handed back as
    they stand for others to go on with. `on_turn` is told what became of each session.

    Use it as `async with Worker(loop):`, which works in the background of the block, or `await Worker(loop).run()`.
    """

    def __init__(
        self,
        loop: StatefulAgentLoop,
        *,
        concurrency: int = 8,
        poll_s: float = 1.0,
        grace_s: float = 30.0,
        after_failure_s: float = 10.0,
        on_turn: Callable[[Recovered], object] | None = None,
    ) -> None:
        if not is_whole(concurrency, least=1, most=MAX_CONCURRENCY):
            raise InputError(f"concurrency is {concurrency!r:.200}: give a whole number of 1 to {MAX_CONCURRENCY}")
        check_seconds("poll_s", poll_s, least=0.01)
        check_seconds("grace_s", grace_s, least=0.0)
        check_seconds("after_failure_s", after_failure_s, least=0.0)
        self._loop = loop
        self._concurrency = concurrency
        self._poll_s = poll_s
        self._grace_s = grace_s
        self._after_failure_ms = round(after_failure_s * 1000)
        self._on_turn = on_turn
        self._wake = asyncio.Event()
        self._is_stopping = False
        self._running: dict[asyncio.Task[None], TurnScope] = {}
        self._resting = _Resting()
        self._ear = _Ear()
        self._task: asyncio.Task[None] | None = None
        self._delivery: asyncio.Task[None] | None = None
        # When dead owners are looked for again.
        self._not_before_s = 0.0
        #: How many sessions were driven for a turn.
        self.turns = 0

    # ---- what its owner does ----

    async def run(self, *, until_idle: bool = False) -> None:
        """Work until `stop()` or until the loop is closed; with `until_idle`, until there is nothing left to do.

        A database that is away is waited for. Raises `loop.closed` where the loop is closed already, and
        `store.schema_newer` where a newer version took the tables over.
        """
        if self._task is None:
            await self._run(until_idle=until_idle)
        else:
            await asyncio.shield(self._task)

    async def _run(self, *, until_idle: bool) -> None:
        place = await self._loop.workplace(self._wake.set)
        try:
            await self._work(place, until_idle=until_idle)
        finally:
            await self._end()

    def stop(self, *, at_once: bool = False) -> None:
        """Claim nothing more and end when the turns that run rest; `at_once`, hand them back as they stand."""
        self._is_stopping = True
        if at_once:
            self._grace_s = 0.0
            self._leave_turns()
        self._wake.set()

    async def __aenter__(self) -> Worker:
        self._task = asyncio.create_task(self._run(until_idle=False))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        task, self._task = self._task, None
        if task is not None:
            await task

    # ---- looking and claiming ----

    async def _work(self, place: Workplace, *, until_idle: bool) -> None:
        pauses = _Pauses(self._poll_s)
        is_woken = True
        while not (self._is_stopping or place.is_closed()):
            self._wake.clear()
            room = self._concurrency - len(self._running)
            wait_s: float | None = None
            if room:
                try:
                    with place.in_flight():
                        delivery = await self._delivered(place)
                        claimed = await self._claim(place, room)
                        for one in claimed:
                            self._start(place, one)
                    if not claimed:
                        await self._ear.open(place, self._wake, is_to_be_checked=not is_woken)
                except StoreNewerError:
                    raise
                except StoreError as error:
                    _LOG.warning("a worker could not look for work and tries again: %s", error)
                    wait_s = pauses.after_failure()
                else:
                    if until_idle and not claimed and not self._running and delivery.done():
                        return
                    wait_s = min(pauses.idle(is_told=self._ear.is_open), self._ear.next_try_in_s)
            is_woken = await self._wait(wait_s)

    async def _delivered(self, place: Workplace) -> asyncio.Task[None]:
        """Let the timers be delivered that workflows made: nobody else may run timers. A hook that takes its time holds
        up no session."""
        if self._delivery is None or self._delivery.done():
            self._delivery = asyncio.create_task(self._deliver(place))
        await asyncio.wait((self._delivery,), timeout=_PATIENCE_S)
        return self._delivery

    async def _deliver(self, place: Workplace) -> None:
        try:
            if await place.deliver():
                self._wake.set()
        except StoreError as error:
            _LOG.warning("a worker could not deliver timers of workflows and tries again: %s", error)
        except LoopClosedError:
            pass

    async def _claim(self, place: Workplace, room: int) -> tuple[StalledSession, ...]:
        return await place.store.claim_stalled(
            place.desk.owner,
            ttl_s=place.lease_ttl_s,
            limit=room,
            dead_owners=await self._dead_owners(place),
            passing_over=self._resting.now(),
            failed_within_ms=self._after_failure_ms,
        )

    async def _dead_owners(self, place: Workplace) -> list[str]:
        """Return the owners of leases whose processes are known to be dead; now and then only."""
        at_s = asyncio.get_running_loop().time()
        if at_s < self._not_before_s:
            return []
        dead = await dead_among(await place.store.list_owners(), place.is_owner_dead)
        # As long as there are some, what they left is to be found.
        self._not_before_s = at_s if dead else at_s + self._poll_s / 2
        return dead

    async def _wait(self, seconds: float | None) -> bool:
        """Wait until there may be more to do, so long at most; False if nobody said so."""
        # `wait_for` may lose a cancellation to what comes at the same moment.
        waking = asyncio.ensure_future(self._wake.wait())
        try:
            return bool((await asyncio.wait((waking,), timeout=seconds))[0])
        finally:
            waking.cancel()

    # ---- driving ----

    def _start(self, place: Workplace, one: StalledSession) -> None:
        scope = TurnScope(is_background=True)
        place.desk.note_taken(one.session_id, one.owner)
        in_flight = contextlib.ExitStack()
        in_flight.enter_context(place.in_flight())
        # In a context of its own: it is nothing that the turn waits for which happens to start it.
        task = contextvars.Context().run(asyncio.get_running_loop().create_task, self._drive(place, one, scope))
        self._running[task] = scope

        def ended(task: asyncio.Task[None]) -> None:
            in_flight.close()
            del self._running[task]
            self._wake.set()
            if not task.cancelled() and task.exception() is not None:
                _LOG.error("a worker's turn ended oddly", exc_info=task.exception())

        task.add_done_callback(ended)

    async def _drive(self, place: Workplace, one: StalledSession, scope: TurnScope) -> None:
        """Drive a session for one turn, and see to it that its lease is given back."""
        drive = place.recover if found_in(one) is Found.DEAD_TURN else place.next_turn
        result: StatefulResult | None = None
        failure: Exception | None = None
        try:
            result = await drive(one.session_id, scope)
        except Exception as error:  # whatever it is, the other sessions go on
            failure = error
        finally:
            if place.desk.forget_taken(one.session_id) is not None:
                # No turn has taken it over: there was nothing to do, or it could not begin.
                with contextlib.suppress(StoreError):
                    await place.store.release(Lease(one.session_id, place.desk.owner, one.epoch))
        if scope.is_left and (result is None or not result.send_index):
            return  # it was stopped before it began
        self._judge(one, result, failure)
        if (result is None and failure is None) or isinstance(failure, _TAKEN_BY_OTHERS):
            return
        self.turns += 1
        if self._on_turn is not None:
            await self._tell(self._on_turn, place, one, result, failure)

    def _judge(self, one: StalledSession, result: StatefulResult | None, failure: Exception | None) -> None:
        """Leave a session alone for a while in which nothing came of driving it."""
        # A refused input has left the inbox; a send that goes on is refused again and again.
        is_refused = result is not None and not result.send_index and found_in(one) is Found.DEAD_TURN
        if failure is None and not is_refused:
            self._resting.forget(one.session_id)
        elif is_refused or not isinstance(failure, _SEEN_TO):
            seconds = self._resting.add(one.session_id)
            _LOG.warning("session %s is left alone for %g s: %s", one.session_id, seconds, failure or "it was refused")

    async def _tell(
        self,
        on_turn: Callable[[Recovered], object],
        place: Workplace,
        one: StalledSession,
        result: StatefulResult | None,
        failure: Exception | None,
    ) -> None:
        status = one.send_status if result is None else result.status
        if result is None:
            with contextlib.suppress(PowerLoopError):
                sent = await place.store.get_send(one.session_id)
                status = None if sent is None else sent.status
        code = failure.code if isinstance(failure, PowerLoopError) else None if failure is None else _UNKNOWN
        try:
            on_turn(
                Recovered(
                    one.session_id, found_in(one), status, one.waiting_inputs, one.attempts, was_driven=True, error=code
                )
            )
        except Exception:  # a stranger's code
            _LOG.exception("on_turn of a worker failed")

    # ---- the end ----

    async def _end(self) -> None:
        """Let what runs come to rest or hand it back, and listen no longer."""
        try:
            if self._running and self._is_stopping and self._grace_s:
                await asyncio.wait(tuple(self._running), timeout=self._grace_s)
        finally:
            self._leave_turns()
            if self._delivery is not None:
                self._delivery.cancel()
                await asyncio.gather(self._delivery, return_exceptions=True)
            while self._running:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait(tuple(self._running))
            await self._ear.close()

    def _leave_turns(self) -> None:
        for scope in self._running.values():
            scope.leave("its worker ends: another one goes on with it")


class _Pauses:
    """Tells how long to wait before the next look; workers that began together do not stay together."""

    def __init__(self, poll_s: float) -> None:
        self._poll_s = poll_s
        self._failures = 0

    def idle(self, *, is_told: bool) -> float:
        """Return the seconds behind a look that went well."""
        self._failures = 0
        return _spread(self._poll_s * (LISTENING_FACTOR if is_told else 1))

    def after_failure(self) -> float:
        """Return the seconds behind one that failed."""
        self._failures += 1
        return _spread(min(_FIRST_PAUSE_S * 2.0 ** min(self._failures, 16), _LONGEST_PAUSE_S))


class _Resting:
    """Is the sessions that are left alone for a while, because nothing came of driving them."""

    def __init__(self) -> None:
        self._until: dict[str, tuple[float, float]] = {}

    def now(self) -> tuple[str, ...]:
        """Return those that are left alone now."""
        at_s = asyncio.get_running_loop().time()
        self._until = {id_: one for id_, one in self._until.items() if one[0] + _LONGEST_REST_S > at_s}
        return tuple([session_id for session_id, (until_s, _) in self._until.items() if until_s > at_s])

    def add(self, session_id: str) -> float:
        """Leave one alone, for twice as long as the last time; return for how many seconds."""
        _, last_s = self._until.get(session_id, (0.0, _FIRST_REST_S / 2))
        seconds = min(last_s * 2, _LONGEST_REST_S)
        self._until[session_id] = (asyncio.get_running_loop().time() + seconds, seconds)
        return seconds

    def forget(self, session_id: str) -> None:
        """Take it like any other."""
        self._until.pop(session_id, None)


class _Ear:
    """Listens where the database tells of work; where that is lost, it is tried again, seldomer each time."""

    def __init__(self) -> None:
        self._listener: Listener | None = None
        self._tries = self._pauses()
        self._not_before_s = 0.0

    @property
    def is_open(self) -> bool:
        """True while what is left to do is told of."""
        return self._listener is not None and self._listener.is_open

    @property
    def next_try_in_s(self) -> float:
        """In how many seconds it is to be opened again, where it is lost."""
        left_s = self._not_before_s - asyncio.get_running_loop().time()
        return math.inf if self.is_open or left_s == math.inf else max(left_s, _FIRST_PAUSE_S)

    async def open(self, place: Workplace, wake: asyncio.Event, *, is_to_be_checked: bool) -> None:
        """See to it that it listens, if it can; one that heard nothing may be lost without knowing."""
        loop = asyncio.get_running_loop()
        if self._listener is not None and (self.is_open if not is_to_be_checked else await self._listener.check()):
            return
        if loop.time() < self._not_before_s:
            return
        await self.close()
        self._not_before_s = loop.time() + next(self._tries)

        def heard() -> None:
            # The event loop may be closed by then.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(wake.set)

        try:
            self._listener = await place.store.listen(heard)
        except StoreError as error:
            _LOG.info("a worker is not told of work and looks for it by itself: %s", error)
            return
        if self._listener is None:
            self._not_before_s = math.inf
        else:
            self._tries = self._pauses()
            # What came before it listened was not told.
            wake.set()

    async def close(self) -> None:
        """Listen no longer."""
        listener, self._listener = self._listener, None
        if listener is not None:
            await listener.aclose()

    @staticmethod
    def _pauses() -> Iterator[float]:
        pause_s = _FIRST_PAUSE_S
        while True:
            yield pause_s
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)


def _spread(seconds: float) -> float:
    return seconds * (0.75 + random.random() / 2)
