"""Is a clock that stands still until a test moves it, and that gives the same ids in every run."""

from __future__ import annotations

import asyncio
import hashlib
import math
import threading
from collections import Counter

from power_loop.errors import ConfigError

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_ID_CHARS = 16
#: The 14th of November 2023, 22:13:20 UTC.
_START_MS = 1_700_000_000_000


class FrozenClock:
    """Tells the same time until `advance` moves it; who sleeps by it is woken then.

        clock = FrozenClock()
        loop = StatefulAgentLoop(llm=llm, dsn="app.db", clock=clock)
        sending = asyncio.create_task(loop.send("Hi.", session_id=session_id))
        await clock.until_asleep()  # the model was busy, and the loop waits before it asks again
        clock.advance(60)

    With `skips_sleep` nobody waits: a sleep moves the clock on by its length and is over. `slept` keeps the lengths of
    all sleeps, in seconds. Ids are made of `seed`, their kind and a count, so that they are the same in each run;
    clocks that make sessions in one database need a seed each. It can be asked and moved from any thread.

    What waits by the event loop's own timers (the timeout of a tool, the beat of a lease) does not wait by a clock.
    """

    def __init__(self, now_ms: int = _START_MS, *, seed: int | str = 0, skips_sleep: bool = False) -> None:
        self._now_ms = float(now_ms)
        self._passed_s = 0.0
        self._seed = seed
        self._skips_sleep = skips_sleep
        self._lock = threading.RLock()
        self._ids = Counter[str]()
        self._sleepers: list[_Sleeper] = []
        self._watchers: list[tuple[int, _Sleeper]] = []
        #: How long each sleep was to be, in seconds and in order.
        self.slept: list[float] = []

    def now_ms(self) -> int:
        """Return the wall-clock time as epoch milliseconds."""
        return int(self._now_ms)

    def monotonic_s(self) -> float:
        """Return the seconds that the clock was moved on."""
        return self._passed_s

    def new_id(self, kind: str) -> str:
        """Return the next id of this kind."""
        with self._lock:
            self._ids[kind] += 1
            count = self._ids[kind]
        number = int.from_bytes(hashlib.sha256(f"{self._seed}/{kind}/{count}".encode()).digest(), "big")
        return f"{kind}_{''.join(_ALPHABET[number >> 5 * at & 31] for at in range(_ID_CHARS))}"

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock was moved on by so many seconds; with `skips_sleep` move it on."""
        if self._skips_sleep:
            self.slept.append(seconds)
            self.advance(max(seconds, 0.0))
            await asyncio.sleep(0)
            return
        with self._lock:
            self.slept.append(seconds)
            sleeper = _Sleeper(self._passed_s + seconds)
            if seconds > 0:
                self._sleepers.append(sleeper)
                self._tell_watchers()
            else:
                sleeper.wake()
        try:
            await sleeper.woken
        finally:
            with self._lock:
                if sleeper in self._sleepers:
                    self._sleepers.remove(sleeper)

    def advance(self, seconds: float) -> None:
        """Move the clock on and wake, in order, those who have slept long enough. Raises `config.invalid`."""
        if not 0 <= seconds < math.inf:
            raise ConfigError(
                f"a clock is to move on by {seconds!r} s: give seconds of at least 0; jump() sets it back"
            )
        with self._lock:
            self._passed_s += seconds
            self._now_ms += seconds * 1000
            due = sorted(
                (one for one in self._sleepers if one.due_s <= self._passed_s + _ROUNDING_S), key=lambda one: one.due_s
            )
            self._sleepers = [one for one in self._sleepers if one not in due]
            for sleeper in due:
                sleeper.wake()

    def jump(self, seconds: float) -> None:
        """Set the wall-clock time forward or back, as an administrator does: no time passes, and nobody wakes up."""
        with self._lock:
            self._now_ms += seconds * 1000

    @property
    def sleepers(self) -> int:
        """How many sleep by this clock."""
        with self._lock:
            return len(self._sleepers)

    async def until_asleep(self, count: int = 1) -> None:
        """Wait until so many sleep by this clock."""
        with self._lock:
            if len(self._sleepers) >= count:
                return
            watcher = _Sleeper(0.0)
            self._watchers.append((count, watcher))
        try:
            await watcher.woken
        finally:
            with self._lock:
                self._watchers = [one for one in self._watchers if one[1] is not watcher]

    def _tell_watchers(self) -> None:
        for count, watcher in self._watchers:
            if len(self._sleepers) >= count:
                watcher.wake()


#: Seconds that were added up in another order are the same moment.
_ROUNDING_S = 1e-9


class _Sleeper:
    """Is somebody who waits in an event loop until any thread wakes them."""

    __slots__ = ("_loop", "due_s", "woken")

    def __init__(self, due_s: float) -> None:
        self.due_s = due_s
        self._loop = asyncio.get_running_loop()
        self.woken: asyncio.Future[None] = self._loop.create_future()

    def wake(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        if not self.woken.done():
            self.woken.set_result(None)
