"""What a turn costs: plain at two lengths of history, with tools, and by the streamed delta."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from openai import AsyncOpenAI

from benchmarks.conversation import history, question
from benchmarks.kernel import CARRIERS, LEAN, SDK, KernelSession, registry
from benchmarks.limit import LimitSession, open_database
from benchmarks.measure import Runner, Series, interleaved, number
from benchmarks.official_sdk import PrebuiltSession, SdkSession
from benchmarks.report import Bars, Claim, Result
from benchmarks.setting import Setting
from power_loop import Effect, ToolRegistry

LIMIT, CALL, PREBUILT = "the limit", "official SDK, the call alone", "official SDK, prebuilt body"
TARGETS = {(LEAN, 100): 0.1, (LEAN, 4000): 0.02, (SDK, 100): 0.3, (SDK, 4000): 0.03}
DECLARED = {
    "type": "function",
    "function": {
        "name": "echo",
        "description": "Give it back.",
        "parameters": {"type": "object", "properties": {"value": {"type": "integer"}}, "required": ["value"]},
    },
}


def sdk_client(setting: Setting) -> AsyncOpenAI:
    """The official client, without retries."""
    return AsyncOpenAI(base_url=setting.base_url, api_key="k", max_retries=0)


async def echo(value: int) -> str:
    """The tool that takes no time."""
    return str(value)


async def nap(value: int) -> str:
    """The tool that takes 20 milliseconds."""
    await asyncio.sleep(0.020)
    return str(value)


async def repeat(turn: Any, times: int) -> None:
    """So many turns, one after the other."""
    for n in range(times):
        await turn(question(n))


@contextlib.asynccontextmanager
async def contestants(setting: Setting, *, tools: ToolRegistry | None = None) -> AsyncIterator[Contestants]:
    """Everybody with a connection to the endpoint and a database of their own, let go at the end."""
    declared = [DECLARED] if tools is not None else []
    database = open_database(setting.database("limit"))
    client = sdk_client(setting)
    limit = LimitSession(database, setting.port, "", tools=declared)
    await limit.connect()
    kernels = {
        name: KernelSession(setting.database(carrier), setting.base_url, carrier, tools=tools)
        for name, carrier in CARRIERS.items()
    }
    try:
        yield Contestants(limit, SdkSession(client, tools=declared), PrebuiltSession(client), kernels)
    finally:
        for kernel in kernels.values():
            await kernel.close()
        limit.close()
        database.close()
        await client.close()


@dataclass
class Contestants:
    """Those who hold the same conversation."""

    limit: LimitSession
    call: SdkSession
    prebuilt: PrebuiltSession
    kernels: dict[str, KernelSession]
    _limit_ids: Iterator[int] = field(default_factory=itertools.count)

    async def begin_limit(self, talk: Sequence[dict[str, str]] = ()) -> None:
        """A new session for the limit, with one warm turn."""
        self.limit.session_id = f"session-{next(self._limit_ids)}"
        self.limit.fill(talk)
        await self.limit.turn("Warm up.")

    async def begin(self, session: SdkSession | PrebuiltSession, talk: Sequence[dict[str, str]] = ()) -> None:
        """A new history for a session that stores nothing, with one warm turn."""
        session.fill(talk)
        await session.turn("Warm up.")

    async def begin_kernel(self, kernel: KernelSession, messages: int = 0) -> None:
        """A new session for the kernel, with one warm turn."""
        await kernel.fill(messages)
        await kernel.turn("Warm up.")


async def plain_turns(setting: Setting, messages: int, *, times: int, samples: int) -> dict[str, Series]:
    """The same plain turns by everybody, each beginning with the same history."""
    talk = history(messages)
    # The call alone takes so long on a long history that two turns say enough.
    few = 2 if messages > 1000 else times
    async with contestants(setting) as everybody:
        runners = [
            Runner(LIMIT, partial(repeat, everybody.limit.turn, times), times, partial(everybody.begin_limit, talk)),
            Runner(
                CALL, partial(repeat, everybody.call.turn, few), few, partial(everybody.begin, everybody.call, talk)
            ),
            Runner(
                PREBUILT,
                partial(repeat, everybody.prebuilt.turn, times),
                times,
                partial(everybody.begin, everybody.prebuilt, talk),
            ),
        ]
        runners += [
            Runner(name, partial(repeat, kernel.turn, times), times, partial(everybody.begin_kernel, kernel, messages))
            for name, kernel in everybody.kernels.items()
        ]
        return await interleaved(runners, samples)


async def bench_plain_turns(setting: Setting) -> Result:
    """A plain turn at 100 and at 4,000 messages."""
    result = Result(
        "A plain turn",
        "One question, one streamed answer of four deltas, stored; CPU of the whole process and wall time, in"
        " milliseconds. The SDK rows store nothing.",
        ["contestant", "messages", "CPU", "wall", "CPU × the SDK call"],
    )
    for messages, times, samples in ((100, 20, setting.samples(15)), (4000, 20, setting.samples(7, 2))):
        series = await plain_turns(setting, messages, times=times, samples=samples)
        base = series[CALL].cpu_ms.median
        for name, one in series.items():
            ratio = one.cpu_ms.median / base
            result.rows.append([name, f"{messages:,}", str(one.cpu_ms), str(one.wall_ms), f"{ratio:.3f}"])
            if (name, messages) in TARGETS:
                wanted = TARGETS[name, messages]
                result.claims.append(
                    Claim(
                        f"{name}: CPU of a turn at {messages:,} messages ≤ {wanted} × the bare SDK call",
                        f"{ratio:.3f} × ({number(one.cpu_ms.median)} ms)",
                        ratio <= wanted,
                    )
                )
        medians = {name: one.cpu_ms.median for name, one in series.items()}
        result.bars.append(Bars(f"CPU of a turn at {messages:,} messages", "ms, log", medians, log=True))
        result.figures[str(messages)] = {
            name: {"cpu_ms": one.cpu_ms.median, "wall_ms": one.wall_ms.median} for name, one in series.items()
        }
    return result


async def tool_turns(setting: Setting, text: str, handler: Any, effect: Effect) -> dict[str, Series]:
    """The same turns with tools by everybody, on short histories that begin anew for each sample."""
    tools = {"echo": handler}
    times = 4

    async def turns(turn: Any, *more: Any) -> None:
        for _ in range(times):
            await turn(text, *more)

    async with contestants(setting, tools=registry(handler, effect)) as everybody:
        runners = [
            Runner(LIMIT, partial(turns, everybody.limit.turn, tools), times, everybody.begin_limit),
            Runner(CALL, partial(turns, everybody.call.turn, tools), times, partial(everybody.begin, everybody.call)),
        ]
        runners += [
            Runner(
                f"{name}, {effect.value}", partial(turns, kernel.turn), times, partial(everybody.begin_kernel, kernel)
            )
            for name, kernel in everybody.kernels.items()
        ]
        return await interleaved(runners, setting.samples(11))


async def bench_tools(setting: Setting) -> Result:
    """Ten rounds of one call, and one round of ten calls."""
    result = Result(
        "Tools",
        "Ten sequential rounds of a tool that returns at once; ten 20 ms tools asked for in one reply. Milliseconds a"
        " turn. `once` is a tool's default effect: its start is committed before it runs; a `read` needs no such row.",
        ["contestant", "turn", "CPU", "wall"],
    )
    effects = (Effect.ONCE, Effect.READ)
    rounds: dict[str, Series] = {}
    batch: dict[str, Series] = {}
    for effect in effects:
        rounds |= await tool_turns(setting, "Go on. [[rounds=10]]", echo, effect)
        batch |= await tool_turns(setting, "All at once. [[calls=10]]", nap, effect)
    for title, series, limit_ms in (("10 rounds", rounds, 12.0), ("10 × 20 ms", batch, 25.0)):
        for name, one in series.items():
            result.rows.append([name, title, str(one.cpu_ms), str(one.wall_ms)])
            if name.startswith(LEAN):
                wall = one.wall_ms.median
                result.claims.append(
                    Claim(f"{name}: {title} ≤ {limit_ms:g} ms", f"{number(wall)} ms wall", wall <= limit_ms)
                )
        result.bars.append(
            Bars(f"Tools, {title}", "ms wall", {name: one.wall_ms.median for name, one in series.items()})
        )
        result.figures[title] = {
            name: {"cpu_ms": one.cpu_ms.median, "wall_ms": one.wall_ms.median} for name, one in series.items()
        }
    return result


async def bench_deltas(setting: Setting) -> Result:
    """What a streamed delta costs up to the application."""
    deltas = 5000
    text = f"Tell me much. [[deltas={deltas}]]"
    async with contestants(setting) as everybody:

        async def listen_by_list(session: LimitSession | SdkSession) -> None:
            heard: list[str] = []
            await session.turn(text, heard=heard)
            assert len(heard) == deltas

        async def listen(kernel: KernelSession) -> None:
            assert await kernel.listen(text) == deltas

        runners = [
            Runner(LIMIT, partial(listen_by_list, everybody.limit), deltas, everybody.begin_limit),
            Runner(CALL, partial(listen_by_list, everybody.call), deltas, partial(everybody.begin, everybody.call)),
        ]
        runners += [
            Runner(name, partial(listen, kernel), deltas, partial(everybody.begin_kernel, kernel))
            for name, kernel in everybody.kernels.items()
        ]
        series = await interleaved(runners, setting.samples(15))
    result = Result(
        "A streamed delta",
        "An answer of 5,000 deltas, each up to an `async for` event (the references: to a list). Microseconds a delta.",
        ["contestant", "CPU", "wall"],
    )
    for name, one in series.items():
        micros, wall = one.cpu_ms.scaled(1000), one.wall_ms.scaled(1000)
        result.rows.append([name, str(micros), str(wall)])
        if name == LEAN:
            held = micros.median <= 12
            result.claims.append(Claim(f"{name}: ≤ 12 µs CPU a delta", f"{number(micros.median)} µs", held))
    medians = {name: one.cpu_ms.median * 1000 for name, one in series.items()}
    result.bars.append(Bars("CPU of a streamed delta", "µs", medians))
    result.figures = medians
    return result
