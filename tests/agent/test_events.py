"""Events of a loop: typed, in one order, told once what they tell is durable, and heard by nobody who can do harm."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from power_loop import (
    AgentEvent,
    AgentEventBus,
    Approve,
    Deny,
    SendStatus,
    SessionState,
    StatefulAgentLoop,
    ToolDefinition,
    open_store,
    tool,
)
from power_loop.errors import LLMAuthError, LLMConnectionError, LLMServerError
from power_loop.events import (
    LLMCallFailed,
    LLMCallFinished,
    LLMCallStarted,
    MessageAppended,
    SendFailed,
    SendFinished,
    SendStarted,
    SessionClosed,
    SessionCreated,
    TextDelta,
    ToolCallAnswered,
    ToolCallFinished,
    ToolCallStarted,
    ToolCallWaiting,
)
from power_loop.testing import FrozenClock, ScriptedLLM, call, calls

from .conftest import MakeLoop
from .parts import LIMIT_S, Ears, Gate, until, within_limit


@tool
async def act(n: int = 0) -> str:
    """Act."""
    return f"acted {n}"


@tool(requires_approval=True)
def pay() -> str:
    """Pay."""
    return "paid"


@tool(effect="read")
def fail() -> str:
    """Fail."""
    raise ValueError("no luck")


FETCH = ToolDefinition("fetch", "Fetch.", {"type": "object", "properties": {}})


class Auditor:
    """Looks each event up in the store, through another handle, while it is being told."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        # A thread of its own: the event loop of the turn stands still meanwhile.
        self._thread = ThreadPoolExecutor(1)
        self.checked: list[str] = []
        self.missing: list[str] = []

    def hear(self, event: AgentEvent) -> None:
        self._thread.submit(lambda: asyncio.run(self._look(event))).result(LIMIT_S)

    def close(self) -> None:
        self._thread.shutdown()

    async def _look(self, event: AgentEvent) -> None:
        store = await open_store(self._dsn)
        try:
            if await self._is_stored(store, event):
                self.checked.append(event.type)
            else:
                self.missing.append(f"{event!r}")
        finally:
            await store.aclose()

    async def _is_stored(self, store: Any, event: AgentEvent) -> bool:
        sid, payload = event.session_id, event.payload
        session = await store.get_session(sid)
        send = await store.get_send(sid)
        ledger = {one.call_id: one for one in await store.get_calls(sid)}
        if isinstance(payload, SessionCreated):
            return True  # get_session would have raised
        if isinstance(payload, SessionClosed):
            return session.state is SessionState.CLOSED
        assert send is not None
        if isinstance(payload, SendStarted):
            return send.index == event.send_index and send.status is SendStatus.RUNNING
        if isinstance(payload, MessageAppended):
            [record] = await store.get_messages(sid, after_seq=payload.seq - 1, limit=1)
            return record.seq == payload.seq and record.message == payload.message
        if isinstance(payload, LLMCallFinished):
            return (await store.get_stats(sid)).model_calls >= event.round
        if isinstance(payload, ToolCallFinished):
            one = ledger[payload.call_id]
            return one.state.value == payload.state and one.result_seq is not None
        if isinstance(payload, ToolCallWaiting):
            return ledger[payload.call_id].state.value == "waiting"
        if isinstance(payload, ToolCallAnswered):
            return ledger[payload.call_id].state.value != "waiting"
        if isinstance(payload, ToolCallStarted):
            return ledger[payload.call_id].state.value in ("started", "requested")
        if isinstance(payload, SendFinished):
            return send.status is payload.result.status
        if isinstance(payload, SendFailed):
            return send.status is SendStatus.FAILED
        return True


@pytest.mark.promise("events")
async def test_whatever_is_announced_can_be_read_by_another_handle_at_that_moment(
    make_loop: MakeLoop, dsn: str
) -> None:
    loop = make_loop(
        calls(("act", {"n": 1}), ("pay", {}), ("fail", {}), ("fetch", {}), ids=("a", "p", "f", "x")),
        calls(("act", {"n": 2}), ("nothing", {}), ("act", {"n": "x"})),
        "Done.",
        LLMAuthError("no"),
        tool_registry=[act, pay, fail, FETCH],
    )
    auditor = Auditor(dsn)
    loop.event_bus.subscribe(auditor.hear)
    sid = await loop.new_session()
    await loop.send("go", session_id=sid)
    await loop.resume(sid, answers={"p": Approve()})
    await loop.submit_tool_result(sid, "x", "fetched")
    with pytest.raises(LLMAuthError):
        await loop.send("again", session_id=sid)
    gate = Gate()
    loop.llm.add(gate.then("Never."))
    held = asyncio.create_task(loop.send("once more", session_id=sid))
    await gate.someone()
    await loop.cancel(sid)
    await within_limit(held)
    loop.llm.add(calls(("pay", {}), ids=("q",)), "Fine.")
    await loop.send("pay", session_id=sid)
    await loop.resume(sid, answers={"q": Deny("no")})
    await loop.close_session(sid)
    auditor.close()
    assert auditor.missing == []
    durable = {
        "session.created",
        "session.closed",
        "send.started",
        "send.finished",
        "send.failed",
        "message.appended",
        "llm.finished",
        "tool.started",
        "tool.finished",
        "tool.waiting",
        "tool.answered",
    }
    assert durable <= set(auditor.checked), "each of them was looked at"


async def test_a_call_with_an_effect_is_on_record_as_started_before_its_handler_runs(
    make_loop: MakeLoop, tmp_path: Path
) -> None:
    seen: list[str] = []

    @tool
    def strike() -> str:
        """Strike."""
        with sqlite3.connect(tmp_path / "app.db") as reader:
            seen.extend(row[0] for row in reader.execute("SELECT state FROM pl_tool_calls"))
        reader.close()
        return "struck"

    loop = make_loop(call("strike"), "Done.", tool_registry=[strike])
    sid = await loop.new_session()
    await loop.send("go", session_id=sid)
    assert seen == ["started"]


@pytest.mark.promise("events")
async def test_events_of_a_bus_have_one_order_without_gaps(make_loop: MakeLoop) -> None:
    bus = AgentEventBus()
    seen: list[AgentEvent] = []
    bus.subscribe(seen.append)
    first = make_loop(*["x"] * 10, event_bus=bus)
    second = make_loop(*["y"] * 10, event_bus=bus)

    async def talk(loop: StatefulAgentLoop) -> None:
        sid = await loop.new_session()
        for n in range(10):
            await loop.send(str(n), session_id=sid)

    await within_limit(asyncio.gather(talk(first), talk(second)))
    assert [event.seq for event in seen] == list(range(1, len(seen) + 1))
    times = [event.monotonic_s for event in seen]
    assert times == sorted(times)
    for sid in {event.session_id for event in seen}:
        own = [event for event in seen if event.session_id == sid]
        sends = [event.send_index for event in own]
        assert sends == sorted(sends)
        assert [event.type for event in own].count("send.finished") == 10


@pytest.mark.promise("events")
async def test_a_subscriber_that_raises_stops_no_run_and_is_counted(make_loop: MakeLoop) -> None:
    loop = make_loop(call("act"), "Done.", tool_registry=[act])
    broken = loop.event_bus.subscribe(lambda event: 1 / 0)
    ears = Ears(loop)
    sid = await loop.new_session()
    result = await loop.send("go", session_id=sid)
    assert result.is_completed
    assert broken.errors == len(ears.events)


async def test_a_background_subscriber_may_be_slow_and_gets_everything_in_order(make_loop: MakeLoop) -> None:
    loop = make_loop(call("act"), "It is done now.", tool_registry=[act])
    ears = Ears(loop)
    slow: list[int] = []

    async def hear(event: AgentEvent) -> None:
        await asyncio.sleep(0)
        slow.append(event.seq)

    loop.event_bus.subscribe(hear, background=True)
    sid = await loop.new_session()
    await loop.send("go", session_id=sid)
    assert await loop.event_bus.drain(timeout_s=LIMIT_S)
    assert slow == [event.seq for event in ears.events]


@pytest.mark.promise("retry")
async def test_one_attempt_is_one_event(make_loop: MakeLoop) -> None:
    loop = make_loop(
        LLMServerError("1"), LLMConnectionError("2"), "Done.", LLMAuthError("3"), clock=FrozenClock(skips_sleep=True)
    )
    ears = Ears(loop, types=(LLMCallStarted, LLMCallFailed, LLMCallFinished))
    sid = await loop.new_session()
    await loop.send("go", session_id=sid)
    with pytest.raises(LLMAuthError):
        await loop.send("go", session_id=sid)
    told = [(event.type, event.payload.attempt) for event in ears.events]
    assert told == [
        ("llm.started", 1),
        ("llm.failed", 1),
        ("llm.started", 2),
        ("llm.failed", 2),
        ("llm.started", 3),
        ("llm.finished", 3),
        ("llm.started", 1),
        ("llm.failed", 1),
    ]


async def test_every_started_thing_ends_once(make_loop: MakeLoop) -> None:
    loop = make_loop(calls(("act", {}), ("fail", {}), ("act", {})), call("act"), "Done.", tool_registry=[act, fail])
    ears = Ears(loop)
    sid = await loop.new_session()
    await loop.send("go", session_id=sid)
    for start, end in (
        ("send.started", "send.finished"),
        ("round.started", "round.finished"),
        ("llm.started", "llm.finished"),
        ("tools.started", "tools.finished"),
        ("tool.started", "tool.finished"),
    ):
        depth = 0
        for one in ears.types:
            depth += (one == start) - (one == end)
            assert depth >= 0, f"{end} before {start}"
        assert depth == 0
    assert ears.types.count("tool.finished") == 4


async def test_a_send_that_fails_says_so_once_and_does_not_say_that_it_finished(make_loop: MakeLoop) -> None:
    loop = make_loop(LLMAuthError("no"))
    ears = Ears(loop)
    sid = await loop.new_session()
    with pytest.raises(LLMAuthError):
        await loop.send("go", session_id=sid)
    assert ears.types.count("send.failed") == 1
    assert "send.finished" not in ears.types
    [failed] = ears.of(SendFailed)
    assert failed == SendFailed("llm.auth", "no")


async def test_an_event_may_be_asked_for_by_type_and_session(make_loop: MakeLoop) -> None:
    loop = make_loop("a b", "c d")
    first, second = await loop.new_session(), await loop.new_session()
    ears = Ears(loop, types=(TextDelta,), session_id=second)
    await loop.send("go", session_id=first)
    await loop.send("go", session_id=second)
    assert ears.of(TextDelta) == [TextDelta("c"), TextDelta(" d")]
    assert len(ears.events) == 2


async def test_a_subscriber_may_leave_and_come_while_events_are_told(make_loop: MakeLoop) -> None:
    loop = make_loop("a b c d", "e")
    heard: list[str] = []

    def first(event: AgentEvent) -> None:
        heard.append(event.type)
        subscription.unsubscribe()

    subscription = loop.event_bus.subscribe(first)
    sid = await loop.new_session()
    await loop.send("go", session_id=sid)
    assert heard == ["session.created"]


async def test_events_reach_an_async_for_outside_of_the_turn(make_loop: MakeLoop) -> None:
    loop = make_loop("a", "b")
    sid = await loop.new_session()
    queue = loop.event_bus.stream(session_id=sid, types=(SendFinished,))
    texts: list[str] = []

    async def listen() -> None:
        async for event in queue:
            assert isinstance(event.payload, SendFinished)
            texts.append(event.payload.result.final_text)

    listener = asyncio.create_task(listen())
    await loop.send("1", session_id=sid)
    await loop.send("2", session_id=sid)
    await within_limit(until(lambda: len(texts) == 2))
    queue.finish()
    await within_limit(listener)
    assert texts == ["a", "b"]


@pytest.mark.promise("nothing-global")
async def test_two_loops_without_a_common_bus_hear_nothing_of_each_other(dsn: str) -> None:
    async def talk(loop: StatefulAgentLoop) -> set[str]:
        ears = Ears(loop)
        sid = await loop.new_session()
        await loop.send("go", session_id=sid)
        await loop.aclose()
        assert {event.session_id for event in ears.events} == {sid}
        return set(ears.types)

    make: Callable[[], StatefulAgentLoop] = lambda: StatefulAgentLoop(llm=ScriptedLLM(["x"]), dsn=dsn)  # noqa: E731
    first, second = await asyncio.gather(talk(make()), talk(make()))
    assert first == second
