"""How many timers a second are fired, on each backend, and how long a calendar takes to plan."""

from __future__ import annotations

import time
from collections import Counter
from functools import partial
from typing import Any

from benchmarks.backends import backends, open_loop
from benchmarks.report import Claim, Result
from benchmarks.setting import Setting
from power_loop import After, Cron, TimerRunner
from power_loop.timers import runs_of

SESSIONS = 50
_YEAR_MS = 366 * 86_400_000
_START_MS = 1_704_067_200_000


async def bench_timers(setting: Setting) -> Result:
    """Fire timers that are all due, and drive the sessions that they wake."""
    count = setting.samples(1000, 200)
    result = Result(
        "Timers",
        f"{count} timers of {SESSIONS} sessions are due at once, and one runner fires them: claimed 16 at a time, each"
        " delivered in a transaction of its own. Meanwhile and behind that the sessions are driven,"
        " with a model that answers at once: one turn takes in what its session was given meanwhile.",
        ["backend", "scheduled a second", "fired a second", "transactions a firing", "fired and driven a second"],
    )
    async with backends(setting) as found:
        for backend in found:
            async with open_loop(backend) as loop:
                ids = [await loop.new_session() for _ in range(SESSIONS)]
                began_s = time.perf_counter()
                for number in range(count):
                    await loop.schedule_timer(ids[number % SESSIONS], "Wake up.", After(0))
                scheduled_s = time.perf_counter() - began_s
                store: Any = await loop.get_store()
                runner = TimerRunner(loop, recover_every_s=None)
                began_s = time.perf_counter()
                moves = Counter[str]()
                store.on_point = partial(_count, moves)
                assert len(await runner.fire_due()) == count
                fired_s = time.perf_counter() - began_s
                store.on_point = None
                await runner.drained()
                driven_s = time.perf_counter() - began_s
                own = moves["claim_timers"] + moves["deliver_timer"]
                result.rows.append(
                    [
                        backend.name,
                        f"{count / scheduled_s:.0f}",
                        f"{count / fired_s:.0f}",
                        f"{own / count:.2f}",
                        f"{count / driven_s:.0f}",
                    ]
                )
                result.figures[backend.name] = {
                    "scheduled_a_second": round(count / scheduled_s),
                    "fired_a_second": round(count / fired_s),
                    "driven_a_second": round(count / driven_s),
                }
    began_s = time.perf_counter()
    hourly = runs_of(Cron("0 * * * *", "Europe/Berlin"), from_ms=_START_MS - 1, count=9000)
    planned_s = time.perf_counter() - began_s
    year = len([moment for moment in hourly if moment < _START_MS + _YEAR_MS])
    result.figures["hourly_year_s"] = round(planned_s, 3)
    result.claims.append(
        Claim("a year of hourly runs is planned within a second", f"{year} runs in {planned_s:.2f} s", planned_s < 1)
    )
    return result


def _count(moves: Counter[str], point: str, move: str) -> None:
    if point == "commit.after":
        moves[move] += 1
