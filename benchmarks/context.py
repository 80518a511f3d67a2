"""What the model sees: tokens sent and CPU a send, what a provider's prompt cache could serve, and long sessions."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from urllib.request import urlopen

from benchmarks.conversation import SYSTEM_PROMPT, question
from benchmarks.counting import counted
from benchmarks.kernel import InProcessModel, seed
from benchmarks.measure import Spread, number
from benchmarks.report import Bars, Claim, Curves, Result
from benchmarks.setting import Setting, program
from power_loop import (
    Compaction,
    LLMProviderConfig,
    LoopConfig,
    Projection,
    SendLimits,
    StatefulAgentLoop,
    create_llm_service_from_config,
    tool,
)
from power_loop.context import LiveState

SMALL, LARGE = 32_768, 100_000_000
# The estimate that the kernel makes of ASCII; figures of one text are compared with each other, so any would do.
BYTES_A_TOKEN = 3.5
# Prompts are cached in blocks of so many tokens, from so many on, at OpenAI (and from 1,024 on at Anthropic):
# https://developers.openai.com/api/docs/guides/prompt-caching
CACHE_BLOCK, CACHE_LEAST = 128, 1_024
RESULT_CHARS = 600


@contextlib.contextmanager
def endpoint() -> Iterator[str]:
    """The address of an endpoint in a process of its own, which counts what it has seen before."""
    with subprocess.Popen(program("prefix_endpoint"), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        process.stdin.close()


@tool(effect="read")
async def look(number: int) -> str:
    """Look something up."""
    line = f"Row {number} of the ledger: the café sold {number % 97} cups. "
    return (line * (RESULT_CHARS // len(line) + 1))[:RESULT_CHARS]


@dataclass
class Talk:
    """A conversation with the endpoint. `rounds` calls of a tool come before each answer."""

    name: str
    window: int = LARGE
    rounds: int = 0
    config: LoopConfig = field(default_factory=lambda: LoopConfig(compaction=None))
    tokens: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)

    def address(self, root: str) -> str:
        """Where its requests go."""
        return f"{root}/{self.name.replace(' ', '-').replace(',', '')}:{self.rounds}"

    @contextlib.asynccontextmanager
    async def loop(self, dsn: str, root: str) -> AsyncIterator[StatefulAgentLoop]:
        """A loop on it."""
        model = create_llm_service_from_config(
            LLMProviderConfig(
                model="bench-model",
                base_url=f"{self.address(root)}/v1",
                api_key="k",
                context_window_tokens=self.window,
                max_output_tokens=2_000,
            )
        )
        async with StatefulAgentLoop(llm=model, dsn=dsn, config=self.config, tool_registry=[look]) as loop:
            yield loop
        await model.aclose()

    def seen(self, root: str) -> list[tuple[int, int, str]]:
        """What the endpoint counted: bytes, bytes that it had seen before, and the kind, a request."""
        with urlopen(f"{self.address(root)}/seen") as answer:
            return [(sent, known, kind) for sent, known, kind in json.load(answer)]


def _talks(rounds: int) -> dict[str, Talk]:
    return {
        "neither": Talk("neither", rounds=rounds),
        "folding": Talk("folding", SMALL, rounds, LoopConfig()),
        "projection": Talk("projection", LARGE, rounds, LoopConfig(compaction=None, projection=Projection())),
        "both": Talk("both", SMALL, rounds, LoopConfig(projection=Projection())),
    }


async def bench_growth(setting: Setting) -> Result:
    """Tokens sent and CPU, send by send, with folding, with projection, with both and with neither."""
    sends = setting.samples(1_000, 120)
    result = Result(
        "A session that grows",
        f"{sends:,} sends to one session, each with one tool round whose result has {RESULT_CHARS:,} characters, over"
        " HTTP; folding with a window of 32,768 tokens, the requests for summaries counted. Tokens are bytes sent /"
        f" {BYTES_A_TOKEN}; CPU is this process, all threads.",
        ["context", "tokens sent", "of them by the last send", "CPU ms a send, first tenth", "last tenth", "requests"],
    )
    talks = _talks(1)
    with endpoint() as root:
        for talk in talks.values():
            await _grow(talk, sends, setting.database("growth"), root)
            requests = len(talk.seen(root))
            tenth = max(sends // 10, 1)
            first, last = (Spread.of(some) for some in (talk.cpu_ms[:tenth], talk.cpu_ms[-tenth:]))
            row = [f"{sum(talk.tokens):,.0f}", f"{talk.tokens[-1]:,.0f}", str(first), str(last), f"{requests:,}"]
            result.rows.append([talk.name, *row])
            result.figures[talk.name] = {"tokens": sum(talk.tokens), "cpu_ms": [first.median, last.median]}
    neither = sum(talks["neither"].tokens)
    for name in ("folding", "projection", "both"):
        talk = talks[name]
        share = sum(talk.tokens) / neither
        told = f"{number(share)} × the tokens"
        result.claims.append(Claim(f"{name}: fewer tokens than with neither, over {sends:,} sends", told, share < 1))
    for name in ("folding", "both"):
        # Each of a send's requests, and a summary's, may fill the window.
        most, room = max(talks[name].tokens), (talks[name].rounds + 2) * SMALL
        target = f"{name}: no send of {sends:,} takes more than its window for each of its requests"
        result.claims.append(Claim(target, f"{most:,.0f} tokens at most", most <= room))
    for title, unit, figures in (("Tokens sent", "a send", "tokens"), ("CPU", "ms a send", "cpu_ms")):
        lines = {name: _smooth(getattr(talk, figures)) for name, talk in talks.items()}
        result.curves.append(Curves(title, unit, "sends", lines))
    result.bars.append(Bars(f"Tokens over {sends:,} sends", "millions", _millions(talks), log=True))
    return result


def _millions(talks: dict[str, Talk]) -> dict[str, float]:
    names = {"neither": "neither", "folding": "power-loop, folding", "projection": "power-loop, projection"}
    names["both"] = "power-loop, both"
    return {names[name]: sum(talk.tokens) / 1e6 for name, talk in talks.items()}


async def _grow(talk: Talk, sends: int, dsn: str, root: str) -> None:
    async with talk.loop(dsn, root) as loop:
        session_id = await loop.new_session(system_prompt=SYSTEM_PROMPT)
        for n in range(sends):
            cpu = time.process_time()
            await loop.send(question(n), session_id=session_id)
            talk.cpu_ms.append((time.process_time() - cpu) * 1e3)
    _spread_over_sends(talk, root)


def _spread_over_sends(talk: Talk, root: str) -> None:
    """Give each send the tokens of its requests: an answer ends it, and a summary belongs to the send it comes in."""
    talk.tokens = []
    size = 0.0
    for sent, _, kind in talk.seen(root):
        size += sent / BYTES_A_TOKEN
        if kind == "answer":
            talk.tokens.append(size)
            size = 0.0


def _smooth(values: Sequence[float], points: int = 100) -> list[tuple[float, float]]:
    """At most so many points: the medians of neighbours."""
    step = max(len(values) // points, 1)
    return [(start + step, Spread.of(values[start : start + step]).median) for start in range(0, len(values), step)]


async def bench_prefixes(setting: Setting) -> Result:
    """How much of each request an endpoint has seen before, which is what a provider's cache could serve."""
    sends = setting.samples(200, 40)
    result = Result(
        "What a prompt cache could serve",
        f"{sends} sends each, over HTTP, to an endpoint that holds every request against the last six of its session"
        " and counts the bytes that it begins with in common. In whole blocks of 128 tokens from 1,024 on, that is what"
        " OpenAI's cache serves. A system prompt of 6,000 characters stands in front.",
        ["conversation", "requests", "seen before", "in cacheable blocks", "requests that begin anew"],
    )
    ticks = count(1)
    clock = LiveState("clock", lambda context: f"It is tick {next(ticks)}.")
    talks = [
        Talk("plain chat"),
        Talk("tool rounds", rounds=5),
        Talk("live state", rounds=2, config=LoopConfig(compaction=None, live=[clock])),
        Talk("projection", rounds=2, config=LoopConfig(compaction=None, projection=Projection())),
        Talk("folding", 16_000, rounds=2, config=LoopConfig()),
        Talk("folding and projection", 16_000, rounds=2, config=LoopConfig(projection=Projection())),
    ]
    least = {"plain chat": 0.95, "tool rounds": 0.95, "live state": 0.9, "projection": 0.7, "folding": 0.8}
    with endpoint() as root:
        for talk in talks:
            async with talk.loop(setting.database("prefixes"), root) as loop:
                session_id = await loop.new_session(system_prompt=SYSTEM_PROMPT + " Rules follow." * 430)
                for n in range(sends):
                    await loop.send(question(n), session_id=session_id)
            # The first request has nothing before it.
            counted_requests = talk.seen(root)[1:]
            sent = sum(one for one, *_ in counted_requests)
            share = sum(known for _, known, _ in counted_requests) / sent
            served = sum(map(_cacheable, (known for _, known, _ in counted_requests))) * BYTES_A_TOKEN / sent
            anew = sum(known < one / 2 for one, known, _ in counted_requests)
            row = [f"{len(counted_requests):,}", f"{share:.1%}", f"{served:.1%}", f"{anew:,}"]
            result.rows.append([talk.name, *row])
            result.figures[talk.name] = {"share": share, "served": served}
            if talk.name in least:
                target = f"{talk.name}: at least {least[talk.name]:.0%} could be served"
                result.claims.append(Claim(target, f"{served:.1%}", served >= least[talk.name]))
    values = {f"power-loop, {name}": figures["served"] * 100 for name, figures in result.figures.items()}
    result.bars.append(Bars("What a prompt cache could serve", "% of the tokens sent", values, more_is_better=True))
    return result


def _cacheable(known_bytes: int) -> int:
    tokens = int(known_bytes / BYTES_A_TOKEN)
    return tokens - tokens % CACHE_BLOCK if tokens >= CACHE_LEAST else 0


async def bench_long_send(setting: Setting) -> Result:
    """One send of 300 tool rounds, in a small window and in one that holds it all."""
    rounds = setting.samples(300, 60)
    result = Result(
        "One send of many rounds",
        f"One send with {rounds} tool rounds, each with a result of {RESULT_CHARS:,} characters, over HTTP.",
        ["context", "requests", "tokens sent", "largest request, tokens", "CPU ms a round"],
    )
    talks = [
        Talk("neither", LARGE, rounds),
        Talk("folding", SMALL, rounds, LoopConfig()),
        Talk("folding in 16,000", 16_000, rounds, LoopConfig(compaction=Compaction())),
    ]
    with endpoint() as root:
        for talk in talks:
            async with talk.loop(setting.database("rounds"), root) as loop:
                session_id = await loop.new_session(system_prompt=SYSTEM_PROMPT)
                cpu = time.process_time()
                limits = SendLimits(max_rounds=rounds + 1, max_tool_calls=rounds + 1)
                done = await loop.send("Look up all of it.", session_id=session_id, limits=limits)
                cpu = time.process_time() - cpu
            sizes = [sent / BYTES_A_TOKEN for sent, *_ in talk.seen(root)]
            row = [f"{len(sizes):,}", f"{sum(sizes):,.0f}", f"{max(sizes):,.0f}", number(cpu / rounds * 1e3)]
            result.rows.append([talk.name, *row])
            result.figures[talk.name] = {"tokens": sum(sizes), "largest": max(sizes), "status": done.status.value}
            if talk.window != LARGE:
                fits = max(sizes) <= talk.window - 2_000 and done.status.value == "completed"
                target = f"{rounds} rounds in a window of {talk.window:,} tokens are carried to their answer"
                told = (
                    f"{done.status.value} after {done.rounds} rounds, the largest request has {max(sizes):,.0f} tokens"
                )
                result.claims.append(Claim(target, told, fits))
    return result


async def bench_long_session(setting: Setting) -> Result:
    """A session of 10,000 messages beside one of 10, cold and warm, before and after it was folded."""
    messages = setting.samples(10_000, 2_000)
    result = Result(
        f"A session of {messages:,} messages",
        "Sends to it and to one of 10 messages in the same run, with a model in the same process: cold by a handle of"
        " their own, warm by one that has sent before. `folding` is the first send with a window that is too small for"
        " the history.",
        ["send", "rows read", "statements", "ms wall", "× that of 10 messages"],
    )
    dsn = setting.database("session")
    short, long = await seed(dsn, 10), await seed(dsn, messages)
    repeats = setting.samples(9)

    async def cold(session_id: str, window: int) -> tuple[int, int, Spread]:
        walls, rows, statements = [], 0, 0
        for _ in range(repeats):
            with counted() as counts:
                async with _local(dsn, window) as loop:
                    await loop.get_store()
                    counts.clear()
                    wall = time.perf_counter()
                    await loop.send("And now?", session_id=session_id)
                    walls.append((time.perf_counter() - wall) * 1e3)
                    rows, statements = counts.rows, len(counts.work)
        return rows, statements, Spread.of(walls)

    async def warm(session_id: str, window: int) -> tuple[int, int, Spread]:
        walls = []
        with counted() as counts:
            async with _local(dsn, window) as loop:
                await loop.send("Warm up.", session_id=session_id)
                for _ in range(repeats * 3):
                    counts.clear()
                    wall = time.perf_counter()
                    await loop.send("And now?", session_id=session_id)
                    walls.append((time.perf_counter() - wall) * 1e3)
                return counts.rows, len(counts.work), Spread.of(walls)

    async def first(session_id: str, window: int) -> tuple[int, int, Spread]:
        with counted() as counts:
            async with _local(dsn, window) as loop:
                await loop.get_store()
                counts.clear()
                wall = time.perf_counter()
                await loop.send("Fold.", session_id=session_id)
                return counts.rows, len(counts.work), Spread.of([(time.perf_counter() - wall) * 1e3])

    measured = {"10 messages, cold": await cold(short, SMALL), "10 messages, warm": await warm(short, SMALL)}
    measured["not folded, cold"] = await cold(long, LARGE)
    measured["not folded, warm"] = await warm(long, LARGE)
    measured["folding"] = await first(long, SMALL)
    measured["folded, cold"] = await cold(long, SMALL)
    measured["folded, warm"] = await warm(long, SMALL)
    for name, (rows, statements, wall) in measured.items():
        base = measured["10 messages, warm" if name.endswith("warm") else "10 messages, cold"][2].median
        ratio = wall.median / base
        result.rows.append([name, f"{rows:,}", f"{statements:,}", str(wall), number(ratio)])
        result.figures[name] = {"rows": rows, "statements": statements, "ratio": ratio}
    figures = result.figures
    warm_rows = figures["folded, warm"]["rows"], figures["10 messages, warm"]["rows"]
    told = f"{warm_rows[0]} and {warm_rows[1]}"
    result.claims.append(
        Claim("a warm send reads as many rows as with 10 messages", told, warm_rows[0] <= warm_rows[1])
    )
    rows = figures["folded, cold"]["rows"]
    target = "a cold send of a folded session reads its window, and not its log"
    result.claims.append(Claim(target, f"{rows:,} rows of {messages:,} messages", rows < messages / 4))
    return result


class _SmallModel(InProcessModel):
    """The model in this process, with a window of its own."""

    def __init__(self, window: int) -> None:
        super().__init__()
        info: Any = InProcessModel.info
        self.info = type(info)("bench", "bench-model", context_window_tokens=window)


@contextlib.asynccontextmanager
async def _local(dsn: str, window: int) -> AsyncIterator[StatefulAgentLoop]:
    async with StatefulAgentLoop(llm=_SmallModel(window), dsn=dsn) as loop:
        yield loop
