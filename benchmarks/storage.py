"""What a turn asks of the store: statements, transactions, rows, bytes; and the kernel's own CPU at any length."""

from __future__ import annotations

import sqlite3
from functools import partial
from itertools import pairwise
from pathlib import Path

from benchmarks.conversation import SYSTEM_PROMPT, question
from benchmarks.counting import counted
from benchmarks.kernel import InProcessModel, StatefulAgentLoop, registry, remote_model, seed
from benchmarks.measure import Runner, interleaved, number
from benchmarks.report import Bars, Claim, Result
from benchmarks.setting import Setting
from benchmarks.syncs import syncs_a_turn
from benchmarks.turns import echo, repeat
from power_loop import Effect

LENGTHS = (10, 1000, 10_000)


async def bench_statements(setting: Setting) -> Result:
    """Count what SQLite is asked for, by kind of send."""
    found: dict[str, tuple[int, int, int]] = {}
    with counted() as counts:
        llm = remote_model(setting.base_url, "lean")

        async def count(what: str, loop: StatefulAgentLoop, text: str, session_id: str) -> None:
            counts.clear()
            await loop.send(text, session_id=session_id)
            found[what] = (len(counts.work), counts.transactions, counts.rows)

        for length in (20, 400):
            dsn = setting.database("counted")
            session_id = await seed(dsn, length)
            async with StatefulAgentLoop(llm=llm, dsn=dsn) as loop:
                await loop.send("Warm the handle.", session_id=await loop.new_session())
                await count(f"cold, {length} messages", loop, "Hello.", session_id)
                await count(f"warm, {length} messages", loop, "Hello.", session_id)
        for label, effect in (("once", Effect.ONCE), ("read", Effect.READ)):
            dsn = setting.database("counted-tools")
            async with StatefulAgentLoop(llm=llm, dsn=dsn, tool_registry=registry(echo, effect)) as loop:
                session_id = await loop.new_session(system_prompt=SYSTEM_PROMPT)
                await loop.send("Warm up.", session_id=session_id)
                await count(f"warm, one tool round ({label})", loop, "Go. [[rounds=1]]", session_id)
    result = Result(
        "What a send asks of SQLite",
        "Statements without transaction control, transactions that wrote, rows that were read. The fsyncs are of sends"
        " one after the other.",
        ["send", "statements", "transactions", "rows read"],
        rows=[[what, *map(str, found[what])] for what in found],
    )
    plain, tool_round = found["warm, 400 messages"], found["warm, one tool round (once)"]
    syncs = syncs_a_turn(setting, sessions=1, turns=25)
    result.claims += [
        Claim("a plain send is 2 write transactions", str(plain[1]), plain[1] == 2),
        Claim("a plain send is at most 10 statements", str(plain[0]), plain[0] <= 10),
        Claim("a send with one tool round is at most 4 transactions", str(tool_round[1]), tool_round[1] <= 4),
        Claim(
            "a warm send reads O(1) rows",
            f"{found['warm, 20 messages'][2]} at 20 messages, {plain[2]} at 400",
            found["warm, 20 messages"][2] == plain[2],
        ),
        Claim(
            "a cold send reads its window once",
            f"{found['cold, 400 messages'][2]} rows at 400 messages",
            found["cold, 400 messages"][2] <= 400 + 20,
        ),
        Claim("fsyncs of a plain send, alone", syncs, None),
    ]
    columns = ("statements", "transactions", "rows")
    result.figures = {what: dict(zip(columns, figures, strict=True)) for what, figures in found.items()}
    result.figures["fsyncs"] = syncs
    return result


async def bench_storage(setting: Setting) -> Result:
    """The growth of the file over 1,000 turns, by quarters."""
    turns = 1000
    dsn = setting.database("growth")
    sizes = []
    async with StatefulAgentLoop(llm=InProcessModel(), dsn=dsn) as loop:
        session_id = await loop.new_session(system_prompt=SYSTEM_PROMPT)
        await loop.send(question(0), session_id=session_id)
        sizes.append(kept_bytes(dsn))
        for n in range(1, turns + 1):
            await loop.send(question(n), session_id=session_id)
            if n % (turns // 4) == 0:
                sizes.append(kept_bytes(dsn))
    quarters = [(after - before) / (turns // 4) for before, after in pairwise(sizes)]
    spread = max(quarters) / min(quarters)
    return Result(
        "Bytes a turn",
        f"Growth of the database over {turns:,} turns of one session, by quarters; a turn's texts are about 330 bytes.",
        ["turns", "bytes a turn"],
        rows=[[f"{n * 250 + 1}–{(n + 1) * 250}", f"{one:,.0f}"] for n, one in enumerate(quarters)],
        claims=[
            Claim(
                "storage grows by a constant a turn",
                f"{quarters[0]:,.0f} bytes in the first quarter, {quarters[-1]:,.0f} in the last",
                spread < 1.15,
            )
        ],
        figures={"quarters": quarters},
    )


def kept_bytes(path: str) -> int:
    """The size of a database with its log folded in."""
    connection = sqlite3.connect(path)
    connection.execute("pragma wal_checkpoint(truncate)")
    connection.close()
    return sum(file.stat().st_size for file in Path(path).parent.glob(Path(path).name + "*"))


async def bench_in_process(setting: Setting) -> Result:
    """The kernel's own CPU a turn, with a model that answers at once."""
    times = 50
    loops = {}
    sessions = {}
    for length in LENGTHS:
        dsn = setting.database(f"in-process-{length}")
        sessions[length] = await seed(dsn, length)
        loops[length] = StatefulAgentLoop(llm=InProcessModel(), dsn=dsn)
        await loops[length].send("Warm up.", session_id=sessions[length])
    runners = [
        Runner(
            f"{length:,} messages",
            partial(repeat, partial(loops[length].send, session_id=sessions[length]), times),
            times,
        )
        for length in LENGTHS
    ]
    series = await interleaved(runners, setting.samples(11))
    for loop in loops.values():
        await loop.aclose()
    result = Result(
        "The kernel alone",
        "A durable turn with a model in the same process that answers at once, warm. Milliseconds.",
        ["history", "CPU", "wall"],
        rows=[[name, str(one.cpu_ms), str(one.wall_ms)] for name, one in series.items()],
        claims=[
            Claim(f"≤ 0.5 ms CPU a turn at {name}, warm", f"{number(one.cpu_ms.median)} ms", one.cpu_ms.median <= 0.5)
            for name, one in series.items()
        ],
    )
    medians = {name: one.cpu_ms.median for name, one in series.items()}
    result.bars.append(
        Bars("The kernel alone, CPU of a turn", "ms", {f"power-loop, {k}": v for k, v in medians.items()})
    )
    result.figures = medians
    return result
