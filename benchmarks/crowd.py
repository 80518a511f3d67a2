"""Many sessions at once: turns a second with every turn on the disk."""

from __future__ import annotations

import asyncio
from typing import Any

from benchmarks.conversation import question
from benchmarks.counting import counted
from benchmarks.kernel import CARRIERS, LEAN, StatefulAgentLoop, crowd, remote_model
from benchmarks.limit import LimitSession, open_database
from benchmarks.measure import Runner, Spread, interleaved, number
from benchmarks.official_sdk import SdkSession
from benchmarks.report import Bars, Claim, Result
from benchmarks.setting import Setting
from benchmarks.syncs import syncs_a_turn
from benchmarks.turns import CALL, LIMIT, sdk_client

SESSIONS, TURNS = 100, 5
TARGET = 1500


async def bench_crowd(setting: Setting) -> Result:
    """100 sessions of 5 turns."""
    client = sdk_client(setting)
    database = open_database(setting.database("limit-crowd"))
    limits = [LimitSession(database, setting.port, f"limit-{n}") for n in range(SESSIONS)]
    for one in limits:
        await one.connect()
        one.fill(())
    loops = {
        name: StatefulAgentLoop(llm=remote_model(setting.base_url, carrier), dsn=setting.database(carrier))
        for name, carrier in CARRIERS.items()
    }

    async def talk(session: Any) -> None:
        for n in range(TURNS):
            await session.turn(question(n))

    async def run_limit() -> None:
        for one in limits:
            del one.fragments[1:]
        await asyncio.gather(*map(talk, limits))

    async def run_call() -> None:
        await asyncio.gather(*(talk(SdkSession(client)) for _ in range(SESSIONS)))

    def run(loop: StatefulAgentLoop) -> Any:
        return lambda: crowd(loop, SESSIONS, TURNS)

    runners = [
        Runner(LIMIT, run_limit, SESSIONS * TURNS),
        Runner(CALL, run_call, SESSIONS * TURNS),
        *(Runner(name, run(loop), SESSIONS * TURNS) for name, loop in loops.items()),
    ]
    for runner in runners:
        await runner.work()
    series = await interleaved(runners, setting.samples(9))
    for loop in loops.values():
        await loop.aclose()
    for one in limits:
        one.close()
    database.close()
    await client.close()

    commits = await commits_a_turn(setting)
    syncs = syncs_a_turn(setting, sessions=SESSIONS, turns=TURNS)
    result = Result(
        "A crowd",
        f"{SESSIONS} sessions at once, {TURNS} turns each, `synchronous=FULL`; the SDK row stores nothing. With"
        " power-loop, transactions share commits, and making the sessions is part of the run.",
        ["contestant", "turns a second", "CPU ms a turn", "commits a turn", "fsyncs a turn"],
    )
    for name, one in series.items():
        rates = Spread.of([1 / wall for wall in one.wall_s])
        ours = name == LEAN
        counts = [number(commits) if ours else "—", syncs if ours else "—"]
        result.rows.append([name, str(rates), str(one.cpu_ms), *counts])
        if ours:
            claim = f"{name}: ≥ {TARGET:,} turns a second with {SESSIONS} sessions"
            result.claims.append(Claim(claim, f"{rates.median:,.0f}", rates.median >= TARGET))
            told = f"{number(commits)} commits and {syncs} fsyncs a turn"
            result.claims.append(Claim("group commit in a crowd", told, None))
    medians = {name: 1 / one.wall_ms.median * 1000 for name, one in series.items()}
    bars = Bars(f"{SESSIONS} sessions × {TURNS} turns", "turns/s", medians, more_is_better=True)
    result.bars.append(bars)
    result.figures = {**medians, "commits_a_turn": commits, "fsyncs_a_turn": syncs}
    return result


async def commits_a_turn(setting: Setting) -> float:
    """COMMITs that SQLite carried out in a crowd, a turn."""
    with counted() as counts:
        llm = remote_model(setting.base_url, "lean")
        async with StatefulAgentLoop(llm=llm, dsn=setting.database("counted-crowd")) as loop:
            await crowd(loop, SESSIONS, 1)
            counts.clear()
            await crowd(loop, SESSIONS, TURNS)
            return counts.commits / (SESSIONS * TURNS)
