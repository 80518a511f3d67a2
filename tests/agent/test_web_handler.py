"""A loop built for each request: hundreds at once share one database's threads and descriptors, and block nobody."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import threading
import weakref
from typing import Any

import pytest

from power_loop import LLMRequest, LLMResponse, SendStatus, StatefulAgentLoop, Usage, tool
from power_loop.events import TextDelta
from power_loop.llm import Emit, ModelInfo
from power_loop.testing import ScriptedLLM, call, leak_check

from .conftest import MakeLoop
from .parts import LIMIT_S, Gate, open_files, said, store_threads, until, within_limit

REQUESTS = 200


class Echo:
    """Is a model that says the last words again."""

    info = ModelInfo("own", "echo")

    async def generate(self, request: LLMRequest, emit: Emit) -> LLMResponse:
        await asyncio.sleep(0)
        return LLMResponse.of_text(request.messages[-1].text.upper(), usage=Usage(1, 1))


@pytest.mark.promise("loop-a-request")
async def test_two_hundred_requests_at_once_share_the_threads_and_connections_of_one(dsn: str) -> None:
    model = Echo()

    async def handle(session_id: str, text: str) -> str:
        loop = StatefulAgentLoop(llm=model, dsn=dsn)
        await loop.prewarm(session_id)
        return (await loop.send(text, session_id=session_id)).final_text

    keeper = StatefulAgentLoop(llm=model, dsn=dsn)
    sids = [await keeper.new_session() for _ in range(REQUESTS)]
    await within_limit(asyncio.gather(*(handle(sid, "warm") for sid in sids[:3])))
    threads = store_threads()
    seen_threads, most_opened = set(threads), 0

    async def watched(sid: str, n: int) -> str:
        nonlocal most_opened
        given = await handle(sid, f"request {n}")
        seen_threads.update(store_threads())
        most_opened = max(most_opened, len(open_files(dsn)))
        return given

    for _ in range(2):
        given = await within_limit(asyncio.gather(*(watched(sid, n) for n, sid in enumerate(sids))))
        assert given == [f"REQUEST {n}" for n in range(REQUESTS)]
    assert seen_threads == threads, "no request brings a thread"
    assert most_opened <= 3 * 3, "one writer and two readers have a connection, with a file, its log and its index"
    await keeper.aclose()


@pytest.mark.promise("loop-a-request")
async def test_two_hundred_requests_to_one_session_are_answered_in_order(dsn: str) -> None:
    model = Echo()
    keeper = StatefulAgentLoop(llm=model, dsn=dsn)
    sid = await keeper.new_session()

    async def handle(n: int) -> Any:
        loop = StatefulAgentLoop(llm=model, dsn=dsn)
        await loop.prewarm(sid)
        return await loop.send(f"n{n}", session_id=sid)

    results = await within_limit(asyncio.gather(*(handle(n) for n in range(REQUESTS))))
    assert [result.final_text for result in results] == [f"N{n}" for n in range(REQUESTS)]
    assert sorted(result.send_index for result in results) == list(range(1, REQUESTS + 1))
    log = said(await keeper.get_messages(sid))
    assert [role for role, _ in log] == ["user", "assistant"] * REQUESTS
    assert [text.upper() for _, text in log[::2]] == [text for _, text in log[1::2]]
    await keeper.aclose()


async def test_a_request_that_is_abandoned_leaves_nothing_behind(dsn: str) -> None:
    gate = Gate()
    keeper = StatefulAgentLoop(llm=Echo(), dsn=dsn)
    sids = [await keeper.new_session() for _ in range(20)]

    async def handle(sid: str) -> None:
        llm = ScriptedLLM([gate.then("never")])
        await StatefulAgentLoop(llm=llm, dsn=dsn).send("go", session_id=sid)

    async with leak_check(kinds=["task"], within_s=0):
        requests = [asyncio.create_task(handle(sid)) for sid in sids]
        await within_limit(until(lambda: gate.came == len(sids)))
        for request in requests:
            request.cancel()
        await within_limit(asyncio.wait(requests))
        assert gate.cancelled == len(sids)
    for sid in sids:
        assert (await keeper.send("hello", session_id=sid)).final_text == "HELLO"
    await keeper.aclose()


async def test_a_forgotten_handle_is_forgotten(dsn: str) -> None:
    keeper = StatefulAgentLoop(llm=Echo(), dsn=dsn)
    sid = await keeper.new_session()
    forgotten = []
    for n in range(20):
        loop = StatefulAgentLoop(llm=Echo(), dsn=dsn)
        await loop.send(f"n{n}", session_id=sid)
        forgotten.append(weakref.ref(loop))
        del loop
    gc.collect()
    assert [one() for one in forgotten] == [None] * 20
    assert (await keeper.send("still here", session_id=sid)).final_text == "STILL HERE"
    await keeper.aclose()


def test_making_a_handle_opens_nothing(dsn: str) -> None:
    with leak_check(kinds=["thread", "descriptor"], within_s=0):
        loops = [StatefulAgentLoop(llm=Echo(), dsn=dsn) for _ in range(100)]
    assert not os.path.exists(dsn)
    for loop in loops:
        asyncio.run(loop.aclose())
    assert not os.path.exists(dsn)


async def test_the_event_loop_goes_round_while_the_database_and_a_tool_are_busy(make_loop: MakeLoop) -> None:
    """A blocked event loop would let the counter stand still between two moments of the turn."""
    go_on, entered = threading.Event(), threading.Event()

    @tool
    def block() -> str:
        """Block a thread."""
        entered.set()
        assert go_on.wait(LIMIT_S)
        return "x" * 1_000_000

    rounds = 0

    async def count() -> None:
        nonlocal rounds
        while True:
            rounds += 1
            await asyncio.sleep(0)

    loop = make_loop(call("block"), "Done.", tool_registry=[block])
    sid = await loop.new_session()
    counts: list[int] = []
    loop.event_bus.subscribe(lambda event: counts.append(rounds), types=None)
    counter = asyncio.create_task(count())
    turn = asyncio.create_task(loop.send("go" * 100_000, session_id=sid))
    await within_limit(until(entered.is_set))
    held = rounds
    await within_limit(until(lambda: rounds > held + 1_000))
    assert not turn.done(), "the tool blocks its thread, and the event loop goes round"
    go_on.set()
    assert (await within_limit(turn)).is_completed
    counter.cancel()
    # Each durable move is waited for in a thread: the event loop went round meanwhile.
    moves = [later - earlier for earlier, later in itertools.pairwise(counts)]
    assert sum(1 for step in moves if step > 0) >= 3
    await asyncio.gather(counter, return_exceptions=True)


async def test_a_slow_subscriber_thread_and_a_stream_share_the_handle(make_loop: MakeLoop) -> None:
    go_on = threading.Event()
    heard: list[str] = []

    def slow(event: Any) -> None:
        go_on.wait(LIMIT_S)
        heard.append(event.type)

    loop = make_loop("a b c")
    loop.event_bus.subscribe(slow, background=True)
    sid = await loop.new_session()
    async with loop.stream("go", session_id=sid) as events:
        pieces = [event.payload.text async for event in events if isinstance(event.payload, TextDelta)]
    assert "".join(pieces) == "a b c"
    assert heard == [], "the turn waited for nobody"
    go_on.set()
    assert await loop.event_bus.drain()
    assert heard[-1] == "send.finished"


async def test_many_blocking_tools_share_a_bounded_number_of_threads(dsn: str) -> None:
    together = 0
    most = 0
    lock = threading.Lock()

    @tool(effect="read")
    def work() -> str:
        """Work."""
        nonlocal together, most
        with lock:
            together += 1
            most = max(most, threading.active_count())
        with lock:
            together -= 1
        return "done"

    before = threading.active_count()

    async def handle(loop: StatefulAgentLoop) -> SendStatus:
        sid = await loop.new_session()
        return (await loop.send("go", session_id=sid)).status

    loops = [
        StatefulAgentLoop(llm=ScriptedLLM([call("work"), "Done."]), dsn=dsn, tool_registry=[work]) for _ in range(150)
    ]
    statuses = await within_limit(asyncio.gather(*(handle(loop) for loop in loops)))
    assert set(statuses) == {SendStatus.COMPLETED}
    assert most - before <= 64 + 3
    for loop in loops:
        await loop.aclose()
