"""Each backend: turns a second with few and many sessions, what a turn asks of it, and what leases cost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.conversation import SYSTEM_PROMPT, question
from benchmarks.kernel import InProcessModel, StatefulAgentLoop, crowd, seed
from benchmarks.measure import Runner, Spread, interleaved, number
from benchmarks.report import Bars, Claim, Result
from benchmarks.setting import Setting
from benchmarks.syncs import own_process, syncs_of
from benchmarks.turns import repeat
from power_loop.runtime.store import sessions as head_rows
from power_loop.runtime.store import store as store_room
from tests.servers import PrivateServer, find_servers
from tests.servers.processes import family

TITLES = {"postgres": "PostgreSQL", "mysql": "MySQL", "mariadb": "MariaDB"}
CROWDS = {1: 60, 10: 20, 100: 5}  # sessions at once: turns of each
LENGTHS = (10, 10_000)
WITH, WITHOUT = "with leases and fencing", "with both removed"


@dataclass(frozen=True, eq=False)
class Backend:
    """A database that is there to be measured; `server` is None for a file."""

    name: str
    dsn: str
    server: PrivateServer | None = None


@contextlib.asynccontextmanager
async def backends(setting: Setting) -> AsyncIterator[list[Backend]]:
    """SQLite, and a private server of every kind that this machine has, as durable as it comes."""
    with contextlib.ExitStack() as stack:
        found = [Backend("SQLite", setting.database("backend"))]
        for kind in find_servers():
            if kind.missing is None and kind.given is None:
                server = stack.enter_context(kind.start())
                title = f"{TITLES[kind.name]} {kind.version.split('-')[0]}"
                found.append(Backend(title, server.new_database(), server))
        yield found


def open_loop(backend: Backend) -> StatefulAgentLoop:
    """A loop on a backend, with a model that answers at once."""
    return StatefulAgentLoop(llm=InProcessModel(), dsn=backend.dsn)


async def counts_of(loop: StatefulAgentLoop) -> Any:
    """The counters of a loop's open database."""
    store: Any = await loop.get_store()
    return store._rooms.database.counts


async def bench_backends(setting: Setting) -> Result:
    """The same turns on every backend, with 1, 10 and 100 sessions at once."""
    result = Result(
        "Backends",
        "Durable turns with a model in the same process that answers at once; every server is a private one on this"
        " machine with its durability as it comes (`fsync` on, a flush at every commit). Making the sessions is part of"
        " the measured run. Transactions, commits, round trips and fsyncs are a turn's, counted in another one; the"
        " fsyncs are those of whoever writes the disk: this process for SQLite, the server's processes elsewhere.",
        ["backend", "sessions", "turns a second", "our CPU, ms", "transactions", "commits", "round trips", "fsyncs"],
    )
    async with backends(setting) as found:
        loops = {one: open_loop(one) for one in found}
        rates: dict[str, dict[int, float]] = {one.name: {} for one in found}
        for sessions, turns in CROWDS.items():
            runners = [Runner(one.name, partial(crowd, loops[one], sessions, turns), sessions * turns) for one in found]
            for runner in runners:
                await runner.work()
            series = await interleaved(runners, setting.samples(7))
            for one in found:
                speed = Spread.of([1 / wall for wall in series[one.name].wall_s])
                rates[one.name][sessions] = speed.median
                asked = await _asked(setting, one, loops[one], sessions, turns)
                result.rows.append([one.name, str(sessions), str(speed), str(series[one.name].cpu_ms), *asked])
        for loop in loops.values():
            await loop.aclose()
    for sessions in CROWDS:
        bars = {name: speeds[sessions] for name, speeds in rates.items()}
        result.bars.append(Bars(f"Backends, {sessions} at once", "turns/s", bars, more_is_better=True))
    result.figures = {name: {str(n): speed for n, speed in speeds.items()} for name, speeds in rates.items()}
    return result


async def _asked(
    setting: Setting, backend: Backend, loop: StatefulAgentLoop, sessions: int, turns: int
) -> Sequence[str]:
    """Transactions, commits, round trips and fsyncs of one turn, as text."""
    counts = await counts_of(loop)
    # The sessions are made before, so that what is counted is turns.
    made = [await loop.new_session(system_prompt=SYSTEM_PROMPT) for _ in range(sessions)]
    before = counts.transactions, counts.commits, counts.round_trips
    pids = own_process() if backend.server is None else family(backend.server.pid)
    with syncs_of(setting, pids) as syncs:
        await asyncio.gather(*(_talk(loop, session_id, turns) for session_id in made))
    after = counts.transactions, counts.commits, counts.round_trips
    units = sessions * turns
    transactions, commits, trips = (number((late - early) / units) for late, early in zip(after, before, strict=True))
    return (
        transactions,
        commits,
        "—" if backend.server is None else trips,
        syncs.told if syncs.count is None else number(syncs.count / units),
    )


async def _talk(loop: StatefulAgentLoop, session_id: str, turns: int) -> None:
    for n in range(turns):
        await loop.send(question(n), session_id=session_id)


async def bench_long_history(setting: Setting) -> Result:
    """What a turn asks of each backend behind 10 and behind 10,000 messages."""
    result = Result(
        "A long history",
        "A warm turn behind 10 and behind 10,000 messages: what it asks of the store, and how long it takes.",
        ["backend", "messages", "statements", "transactions", "ms wall"],
    )
    archives = await _archives(setting)
    async with backends(setting) as found:
        for one in found:
            times = 30
            async with open_loop(one) as loop:
                counts = await counts_of(loop)
                store: Any = await loop.get_store()
                sessions = {length: await store.import_session(archive) for length, archive in archives.items()}
                asked: dict[int, tuple[float, float]] = {}
                for length, session_id in sessions.items():
                    await loop.send("Warm up.", session_id=session_id)
                    before = counts.statements, counts.transactions
                    await repeat(partial(loop.send, session_id=session_id), times)
                    asked[length] = (
                        (counts.statements - before[0]) / times,
                        (counts.transactions - before[1]) / times,
                    )
                runners = [
                    Runner(str(length), partial(repeat, partial(loop.send, session_id=session_id), times), times)
                    for length, session_id in sessions.items()
                ]
                series = await interleaved(runners, setting.samples(9))
            walls = {length: series[str(length)].wall_ms for length in LENGTHS}
            for length in LENGTHS:
                row = [one.name, f"{length:,}", *map(number, asked[length]), str(walls[length])]
                result.rows.append(row)
            few, many = (asked[length] for length in LENGTHS)
            ratio = walls[LENGTHS[1]].median / walls[LENGTHS[0]].median
            told = f"{number(few[0])} and {number(many[0])} statements, {number(ratio)} × the time"
            result.claims.append(
                Claim(f"{one.name}: a turn at 10,000 messages asks the store what one at 10 does", told, few == many)
            )
            result.figures[one.name] = {"statements": [few[0], many[0]], "wall_ratio": ratio}
    return result


async def _archives(setting: Setting) -> dict[int, bytes]:
    """Sessions of so many messages, which every backend takes in as they are."""
    dsn = setting.database("archived")
    made = {length: await seed(dsn, length) for length in LENGTHS}
    async with StatefulAgentLoop(llm=InProcessModel(), dsn=dsn) as loop:
        store: Any = await loop.get_store()
        return {length: await store.export_session(session_id) for length, session_id in made.items()}


async def bench_leases(setting: Setting) -> Result:
    """A plain turn with its leases and fences, and by the same code with them cut out of its statements."""
    result = Result(
        "What leases cost",
        "A plain warm turn as it is, and by the same code with everything about leases cut out of its statements: no"
        " owner, no check of the epoch, no expiry, no signals; only the numbers of the log are still allotted.",
        ["backend", "code", "ms wall", "our CPU, ms", "transactions", "round trips"],
    )
    times = 30
    async with backends(setting) as found:
        for one in found:
            loops = {WITH: open_loop(one)}
            with without_leases():
                other = Backend(one.name, _beside(setting, one), one.server)
                loops[WITHOUT] = open_loop(other)
                await loops[WITHOUT].new_session()  # the statements are written when the database is opened
            runners, asked = [], {}
            for code, loop in loops.items():
                session_id = await loop.new_session(system_prompt=SYSTEM_PROMPT)
                turn = partial(loop.send, session_id=session_id)
                await repeat(turn, times)
                counts = await counts_of(loop)
                before = counts.transactions, counts.round_trips
                await repeat(turn, times)
                asked[code] = (
                    (counts.transactions - before[0]) / times,
                    (counts.round_trips - before[1]) / times,
                )
                runners.append(Runner(code, partial(repeat, turn, times), times))
            series = await interleaved(runners, setting.samples(15))
            for code, loop in loops.items():
                trips = "—" if one.server is None else number(asked[code][1])
                row = [one.name, code, str(series[code].wall_ms), str(series[code].cpu_ms), number(asked[code][0])]
                result.rows.append([*row, trips])
                await loop.aclose()
            extra = asked[WITH][1] - asked[WITHOUT][1]
            ratio = series[WITH].wall_ms.median / series[WITHOUT].wall_ms.median
            told = f"{number(extra)} round trips and {number(ratio)} × the time"
            result.claims.append(Claim(f"{one.name}: leases cost a plain turn no round trip", told, extra == 0))
            result.figures[one.name] = {"round_trips": extra, "wall_ratio": ratio}
    return result


def _beside(setting: Setting, backend: Backend) -> str:
    """Another database of the same kind."""
    return setting.database("no-leases") if backend.server is None else backend.server.new_database()


@contextlib.contextmanager
def without_leases() -> Iterator[None]:
    """Stores that are opened inside write no lease and look at none."""
    known: Any = head_rows.Sessions

    class LeaselessSessions(known):
        def __init__(self, render: Any) -> None:
            super().__init__(render)
            self._number_send = render(
                # The cache of windows asks for the epoch, whoever checks it.
                "UPDATE {sessions} SET epoch = epoch + 1, next_seq = next_seq + 1, send_count = send_count + 1,"
                " updated_at_ms = ?"
                " WHERE id = ? AND state = 'open'"
            )
            self._number = render(
                "UPDATE {sessions} SET next_seq = next_seq + ?, updated_at_ms = ? WHERE id = ? AND next_seq = ?"
            )

        async def take_for_new_send(self, tx: Any, claim: Any, *, at_ms: int, op: str) -> Any:
            assert await tx.execute(self._number_send, (at_ms, claim.session_id))
            [row] = await tx.query(self._head_before_last, (claim.session_id,))
            return head_rows._head_of(row)

        def guard(self, lease: Any, *, at_seq: int, count: int, at_ms: int, **more: Any) -> Any:
            return self._number, (count, at_ms, lease.session_id, at_seq)

    room: Any = store_room
    room.Sessions = LeaselessSessions
    try:
        yield
    finally:
        room.Sessions = known
