"""Lets processes deliver timers and die at a point, and others go on: a fork for each life.

`python -m tests.agent.timers_child DSN PREFIX FOLDER FIRST EVERY` prints a line of JSON for each point at which it
killed a process: the first one, and every so many behind it. The second life begins ten minutes later, by a clock that
is moved by hand: every claim and lease is over then.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from power_loop import At, Every, HookPoint, LoopConfig, SendStatus, StatefulAgentLoop, TimerRunner
from power_loop.hooks import Postpone, TimerFireContext, Veto
from power_loop.messages import Role
from power_loop.testing import FrozenClock, ScriptedLLM
from power_loop.timers import Missed
from tests.agent.agents_child import live

START_MS = 1_700_000_000_000
_LATER_MS = 600_000
#: What the timers of a life say, and how often each comes: once, in two runs, and after a veto and a postponement.
EXPECTED = {"once": 1, "twice": 2, "asked": 1}


class Life:
    """Is one session with its timers, and the processes that deliver them."""

    def __init__(self, dsn: str, prefix: str, folder: Path, name: str) -> None:
        self.sid = f"timers_{name}"
        self._dsn, self._prefix = dsn, prefix
        self._folder = folder / self.sid
        self._folder.mkdir(exist_ok=True)

    def _loop(self, now_ms: int) -> StatefulAgentLoop:
        loop = StatefulAgentLoop(
            llm=ScriptedLLM(["Noted."], repeat_last=True),
            dsn=self._dsn,
            table_prefix=self._prefix,
            clock=FrozenClock(now_ms, seed=f"{self.sid}/{now_ms}"),
            config=LoopConfig(max_recoveries=100),
        )

        @loop.hooks.on(HookPoint.TIMER_FIRE)
        async def decide(context: TimerFireContext) -> Any:
            if context.timer.name != "asked":
                return None
            if context.timer.number == 1:
                return Veto("not the first one")
            return Postpone(1) if context.timer.due_at_ms == context.timer.planned_at_ms else None

        return loop

    async def begin(self, kill_at: int | None) -> None:
        """Make the timers, and deliver them up to a point."""
        await self._schedule()
        await self._deliver(START_MS, kill_at)

    async def go_on(self) -> None:
        """Deliver what is left, and write down what has become of it."""
        await self._deliver(START_MS + _LATER_MS, None)
        await self._look()

    async def _schedule(self) -> None:
        async with self._loop(START_MS) as loop:
            await loop.new_session(session_id=self.sid)
            await loop.schedule_timer(self.sid, "once", At(START_MS), request_id="once")
            twice = Every(60, start=START_MS, missed=Missed.ALL, max_runs=2)
            await loop.schedule_timer(self.sid, "twice", twice, request_id="twice")
            asked = Every(60, start=START_MS, missed=Missed.ALL, max_runs=1)
            await loop.schedule_timer(self.sid, "asked", asked, request_id="asked", name="asked")

    async def _deliver(self, now_ms: int, kill_at: int | None) -> None:
        seen: list[str] = []

        def on_point(point: str, name: str) -> None:
            if kill_at is not None and len(seen) == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            seen.append(f"{point} {name}")

        async with self._loop(now_ms) as loop:
            store: Any = await loop.get_store()
            store.on_point = on_point
            runner = TimerRunner(loop, recover_every_s=None)
            clock: Any = loop.clock
            ids = [timer.id for timer in (await loop.list_timers(self.sid)).items]
            # As far as the last run, and the one that was put off.
            for seconds in (0, 60, 2):
                clock.advance(seconds)
                # Others have timers in the same database.
                await runner.fire_due(timer_ids=ids)
                await runner.drained()
            await loop.recover()
        (self._folder / "points").write_text(json.dumps(seen), "utf-8")

    async def _look(self) -> None:
        async with self._loop(START_MS + 2 * _LATER_MS) as loop:
            store: Any = await loop.get_store()
            timers = (await loop.list_timers(self.sid, include_ended=True)).items
            messages = await loop.get_messages(self.sid)
            send = await store.get_send(self.sid)
            facts = {
                "said": [one.message.text for one in messages if one.message.role is Role.USER],
                "timers": {one.message.text: [one.state.value, one.delivered, one.vetoed] for one in timers},
                "waiting": len(await loop.get_inbox(self.sid)),
                "rests": send is not None and send.status is SendStatus.COMPLETED,
                "findings": [str(one) async for one in store.diagnose(self.sid)],
            }
            (self._folder / "facts").write_text(json.dumps(facts), "utf-8")

    def left(self, name: str) -> Any:
        """Return what a life wrote down."""
        return json.loads((self._folder / name).read_text("utf-8"))


def main() -> None:
    """Kill a process at every so many points, and tell what the next one made of it."""
    dsn, prefix, folder, first, every = sys.argv[1:]
    whole = Life(dsn, prefix, Path(folder), "whole")
    assert live(whole.begin(None)) == 0
    points = whole.left("points")
    for at in range(int(first), len(points), int(every)):
        life = Life(dsn, prefix, Path(folder), str(at))
        # Deliveries are side by side, and the store may commit some of them together: a life may pass a point less.
        died = live(life.begin(at))
        assert died in (0, -signal.SIGKILL), died
        assert live(life.go_on()) == 0
        told = {"point": f"{at} {points[at]}", "points": points, "was_killed": died != 0, **life.left("facts")}
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
