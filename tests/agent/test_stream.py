"""A turn that is watched: typed events in order, the result of a send, and an early leave that cancels."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from power_loop import (
    AgentEvent,
    AgentEventBus,
    LLMDelta,
    LLMRequest,
    LLMResponse,
    SendStatus,
    StatefulAgentLoop,
    ToolDefinition,
    Usage,
    tool,
)
from power_loop.errors import (
    InputError,
    LLMAuthError,
    LLMConnectionError,
    LLMError,
    LoopClosedError,
    SessionPendingError,
)
from power_loop.events import (
    ReasoningDelta,
    SendFailed,
    SendFinished,
    SendStarted,
    StreamReset,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
)
from power_loop.llm import DeltaKind, Emit, ModelInfo
from power_loop.messages import ToolCallPart
from power_loop.testing import FrozenClock, ScriptedLLM, call

from .conftest import MakeLoop
from .parts import LIMIT_S, Gate, said, watch, within_limit


@tool(effect="read")
def look() -> str:
    """Look."""
    return "seen"


async def test_a_stream_yields_the_turns_events_and_ends_with_the_result_of_a_send(make_loop: MakeLoop) -> None:
    loop = make_loop(call("look"), "It is teal.", tool_registry=[look])
    sid = await loop.new_session()
    seen: list[AgentEvent] = []
    result = await watch(loop.stream("What is it?", session_id=sid), seen)
    assert result.final_text == "It is teal."
    assert (result.status, result.rounds) == (SendStatus.COMPLETED, 2)
    assert [event.type for event in seen] == [
        "send.started",
        "message.appended",
        "round.started",
        "llm.started",
        "llm.finished",
        "message.appended",
        "tools.started",
        "tool.started",
        "message.appended",
        "tool.finished",
        "tools.finished",
        "round.finished",
        "round.started",
        "llm.started",
        "delta.text",
        "delta.text",
        "delta.text",
        "llm.finished",
        "message.appended",
        "round.finished",
        "send.finished",
    ]
    assert "".join(event.payload.text for event in seen if isinstance(event.payload, TextDelta)) == "It is teal."
    assert {event.session_id for event in seen} == {sid}
    assert {event.send_index for event in seen} == {1}
    assert isinstance(seen[-1].payload, SendFinished)
    assert seen[-1].payload.result == result
    assert [event.seq for event in seen] == list(range(seen[0].seq, seen[0].seq + len(seen)))
    later = await make_loop().get_messages(sid)
    assert said(later) == [("user", "What is it?"), ("assistant", ""), ("tool", "seen"), ("assistant", "It is teal.")]


async def test_every_kind_of_piece_reaches_the_stream_in_order(make_loop: MakeLoop) -> None:
    class Model:
        info = ModelInfo("own", "pieces")

        async def generate(self, request: LLMRequest, emit: Emit) -> LLMResponse:
            if len(request.messages) > 1:
                return LLMResponse.of_text("Done.")
            emit(LLMDelta(DeltaKind.REASONING, "Hm."))
            emit(LLMDelta(DeltaKind.TEXT, "Let "))
            emit(LLMDelta(DeltaKind.TEXT, "me."))
            emit(LLMDelta(DeltaKind.TOOL_CALL, '{"', 0, "look"))
            emit(LLMDelta(DeltaKind.TOOL_CALL, '"}', 0))
            return LLMResponse.of_calls(ToolCallPart("c1", "look", "{}"), text="Let me.")

    loop = make_loop(llm=Model(), tool_registry=[look])
    sid = await loop.new_session()
    async with loop.stream("a", session_id=sid) as events:
        kinds = (TextDelta, ReasoningDelta, ToolCallDelta)
        pieces = [event.payload async for event in events if isinstance(event.payload, kinds)]
    assert pieces == [
        ReasoningDelta("Hm."),
        TextDelta("Let "),
        TextDelta("me."),
        ToolCallDelta(0, "look", '{"'),
        ToolCallDelta(0, None, '"}'),
    ]


async def test_a_slow_reader_gets_all_of_five_thousand_pieces(make_loop: MakeLoop) -> None:
    text = " ".join(f"w{n}" for n in range(5_000))
    loop = make_loop(text)
    sid = await loop.new_session()
    heard: list[str] = []
    async with loop.stream("a", session_id=sid) as events:
        async for event in events:
            if isinstance(event.payload, TextDelta):
                heard.append(event.payload.text)
                if len(heard) % 500 == 0:
                    await asyncio.sleep(0)
    assert "".join(heard) == text == events.result.final_text
    assert len(heard) == 5_000


async def test_leaving_early_cancels_the_turn_and_waits_until_it_rests(make_loop: MakeLoop) -> None:
    gate = Gate()
    loop = make_loop(gate.then("Never."), "Fine.")
    sid = await loop.new_session()
    async with loop.stream("a", session_id=sid) as events:
        async for event in events:
            if event.type == "llm.started":
                await gate.someone()
                break
    assert gate.cancelled == 1
    assert events.result.status is SendStatus.CANCELLED
    assert events.result.reason == "its stream was left"
    assert (await loop.send("b", session_id=sid)).final_text == "Fine."


async def test_leaving_in_the_middle_of_a_tool_settles_its_call(make_loop: MakeLoop) -> None:
    gate = Gate()

    @tool
    async def wait() -> str:
        """Wait."""
        await gate.passing()
        return "never"

    loop = make_loop(call("wait"), "Fine.", tool_registry=[wait])
    sid = await loop.new_session()
    async with loop.stream("a", session_id=sid) as events:
        async for event in events:
            if isinstance(event.payload, ToolCallStarted):
                await gate.someone()
                break
    assert gate.cancelled == 1
    assert await loop.get_pending(sid) == ()
    assert (await loop.send("b", session_id=sid)).final_text == "Fine."
    assert "cancelled" in said(loop.llm.requests[1].messages)[2][1]


async def test_an_error_in_the_block_cancels_the_turn_and_passes(make_loop: MakeLoop) -> None:
    gate = Gate()
    loop = make_loop(gate.then("Never."), "Fine.")
    sid = await loop.new_session()

    async def stumble() -> None:
        async with loop.stream("a", session_id=sid):
            await gate.someone()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await stumble()
    assert gate.cancelled == 1
    assert (await loop.send("b", session_id=sid)).final_text == "Fine."


async def test_cancelling_the_reader_cancels_the_turn_and_waits_until_it_rests(make_loop: MakeLoop) -> None:
    gate = Gate()
    loop = make_loop(gate.then("Never."), "Fine.")
    sid = await loop.new_session()

    async def read() -> None:
        async with loop.stream("a", session_id=sid) as events:
            async for _ in events:
                pass

    reader = asyncio.create_task(read())
    await gate.someone()
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await within_limit(reader)
    assert gate.cancelled == 1
    assert (await loop.send("b", session_id=sid)).final_text == "Fine."


async def test_the_error_of_a_turn_is_raised_behind_its_last_event(make_loop: MakeLoop) -> None:
    loop = make_loop(LLMAuthError("the key is refused"))
    sid = await loop.new_session()
    seen: list[AgentEvent] = []
    stream = loop.stream("a", session_id=sid)
    with pytest.raises(LLMAuthError):
        await watch(stream, seen)
    assert isinstance(seen[-1].payload, SendFailed)
    assert seen[-1].payload.code == "llm.auth"
    with pytest.raises(LLMAuthError):
        _ = stream.result


async def test_a_turn_may_be_waited_for_without_reading(make_loop: MakeLoop) -> None:
    loop = make_loop("Hello.")
    sid = await loop.new_session()
    async with loop.stream("a", session_id=sid) as events:
        result = await events.wait()
        assert events.result is result
    assert result.final_text == "Hello."
    # What happened can still be read.
    assert [event.type async for event in events][-1] == "send.finished"


async def test_waiting_for_a_turn_does_not_end_it_when_the_wait_is_given_up(make_loop: MakeLoop) -> None:
    gate = Gate()
    loop = make_loop(gate.then("Hello."))
    sid = await loop.new_session()
    async with loop.stream("a", session_id=sid) as events:
        await gate.someone()
        waiter = asyncio.create_task(events.wait())
        await asyncio.sleep(0)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        gate.open()
        assert (await events.wait()).final_text == "Hello."


async def test_a_stream_says_how_it_is_used(make_loop: MakeLoop) -> None:
    gate = Gate()
    loop = make_loop(gate.then("Hello."))
    sid = await loop.new_session()
    stream = loop.stream("a", session_id=sid)
    with pytest.raises(InputError, match="async with"):
        await stream.wait()
    with pytest.raises(InputError, match="async with"):
        await stream.__anext__()
    async with stream as events:
        await gate.someone()
        with pytest.raises(InputError, match="has not ended"):
            _ = events.result
        with pytest.raises(InputError, match="once"):
            await stream.__aenter__()
        gate.open()
        await events.wait()
    assert stream.result.final_text == "Hello."


async def test_a_stream_that_is_never_entered_does_nothing(make_loop: MakeLoop) -> None:
    loop = make_loop("Hello.")
    sid = await loop.new_session()
    loop.stream("a", session_id=sid)
    assert await loop.get_messages(sid) == ()
    assert loop.llm.requests == []


async def test_a_stream_shows_no_other_turn(make_loop: MakeLoop) -> None:
    gate = Gate()
    loop = make_loop(gate.then("First."), "Other.", "Second.")
    sid, other = await loop.new_session(), await loop.new_session()
    first = asyncio.create_task(loop.send("1", session_id=sid))
    await gate.someone()

    seen: list[AgentEvent] = []
    second = asyncio.create_task(watch(loop.stream("2", session_id=sid), seen))
    await asyncio.sleep(0)
    await loop.send("3", session_id=other)
    gate.open()
    await within_limit(first)
    await within_limit(second)
    assert {(event.session_id, event.send_index) for event in seen} == {(sid, 2)}
    assert [seen[0].type, seen[-1].type] == ["send.started", "send.finished"]


async def test_a_cut_stream_is_announced_before_it_is_tried_again(make_loop: MakeLoop) -> None:
    class Model:
        info = ModelInfo("own", "cut")
        attempts = 0

        async def generate(self, request: LLMRequest, emit: Emit) -> LLMResponse:
            self.attempts += 1
            emit(LLMDelta(DeltaKind.TEXT, f"{self.attempts}: Hel"))
            if self.attempts < 3:
                raise LLMConnectionError("the stream was cut")
            emit(LLMDelta(DeltaKind.TEXT, "lo."))
            return LLMResponse.of_text("3: Hello.", usage=Usage(1, 1))

    loop = make_loop(llm=Model(), clock=FrozenClock(skips_sleep=True))
    sid = await loop.new_session()
    heard = ""
    seen: list[str] = []
    async with loop.stream("a", session_id=sid) as events:
        async for event in events:
            if isinstance(event.payload, TextDelta):
                heard += event.payload.text
            elif isinstance(event.payload, StreamReset):
                heard = ""
            if event.type.startswith(("llm", "delta", "stream")):
                seen.append(event.type)
    assert heard == events.result.final_text == "3: Hello."
    once = ["llm.started", "delta.text", "llm.failed", "stream.reset"]
    assert seen == [*once, *once, "llm.started", "delta.text", "delta.text", "llm.finished"]


async def test_a_piece_that_comes_after_its_attempt_is_not_heard(make_loop: MakeLoop) -> None:
    class Model:
        info = ModelInfo("own", "late")
        emits: list[Emit] = []  # noqa: RUF012

        async def generate(self, request: LLMRequest, emit: Emit) -> LLMResponse:
            self.emits.append(emit)
            if len(self.emits) == 1:
                raise LLMConnectionError("cut")
            self.emits[0](LLMDelta(DeltaKind.TEXT, "ghost"))
            emit(LLMDelta(DeltaKind.TEXT, "Hello."))
            return LLMResponse.of_text("Hello.")

    loop = make_loop(llm=Model(), clock=FrozenClock(skips_sleep=True))
    sid = await loop.new_session()
    async with loop.stream("a", session_id=sid) as events:
        heard = [event.payload.text async for event in events if isinstance(event.payload, TextDelta)]
    assert heard == ["Hello."]


async def test_a_stream_refuses_what_a_send_refuses(make_loop: MakeLoop) -> None:
    loop = make_loop(call("ask"), tool_registry=[ToolDefinition("ask", "Ask.", {"type": "object", "properties": {}})])
    sid = await loop.new_session()
    assert (await loop.send("a", session_id=sid)).status is SendStatus.WAITING_FOR_INPUT
    with pytest.raises(SessionPendingError):
        await watch(loop.stream("b", session_id=sid), [])
    await loop.aclose()
    with pytest.raises(LoopClosedError):
        loop.stream("b", session_id=sid)


async def test_a_repeated_request_streams_nothing_and_has_the_recorded_result(make_loop: MakeLoop) -> None:
    loop = make_loop("Hello.")
    sid = await loop.new_session()
    first = await loop.send("a", session_id=sid, request_id="r1")
    async with loop.stream("a", session_id=sid, request_id="r1") as events:
        seen: list[Any] = [event async for event in events]
    assert seen == []
    assert events.result.is_replayed
    assert events.result.final_text == first.final_text


async def test_many_streams_of_one_handle_are_kept_apart(make_loop: MakeLoop) -> None:
    class Echo:
        info = ModelInfo("own", "echo")

        async def generate(self, request: LLMRequest, emit: Emit) -> LLMResponse:
            text = request.messages[-1].text
            for letter in text:
                emit(LLMDelta(DeltaKind.TEXT, letter))
                await asyncio.sleep(0)
            return LLMResponse.of_text(text)

    loop = make_loop(llm=Echo())

    async def converse(name: str) -> None:
        sid = await loop.new_session()
        async with loop.stream(name, session_id=sid) as events:
            heard = [event.payload.text async for event in events if isinstance(event.payload, TextDelta)]
        assert "".join(heard) == name == events.result.final_text

    await within_limit(asyncio.gather(*(converse(f"session number {n}") for n in range(30))))


async def test_started_says_which_request_it_is(make_loop: MakeLoop) -> None:
    loop = make_loop("Hello.")
    sid = await loop.new_session()
    async with loop.stream("a", session_id=sid, request_id="r1") as events:
        started = [event.payload async for event in events if isinstance(event.payload, SendStarted)]
    assert started == [SendStarted("r1", False)]


@pytest.fixture
def _restless_threads() -> Iterator[None]:
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval_s)


@pytest.mark.usefixtures("_restless_threads")
def test_each_of_several_event_loops_on_one_bus_gets_its_streams_whole(tmp_path: Path) -> None:
    bus = AgentEventBus()

    async def watch_turns() -> list[list[str]]:
        words = ScriptedLLM([" ".join(map(str, range(200)))], repeat_last=True)
        async with StatefulAgentLoop(llm=words, dsn=str(tmp_path / "app.db"), event_bus=bus) as loop:
            streams = []
            for _ in range(5):
                seen: list[AgentEvent] = []
                await watch(loop.stream("Count.", session_id=await loop.new_session()), seen)
                streams.append([event.type for event in seen])
            return streams

    with ThreadPoolExecutor(4) as pool:
        tasks = [pool.submit(asyncio.run, within_limit(watch_turns())) for _ in range(4)]
        streams = [types for task in tasks for types in task.result(LIMIT_S)]
    assert len(streams) == 20
    for types in streams:
        assert (types[0], types[-1]) == ("send.started", "send.finished")
        assert types == streams[0]


async def test_a_stream_that_nobody_reads_has_the_error_of_its_turn(make_loop: MakeLoop) -> None:
    loop = make_loop(ValueError("down"))
    sid = await loop.new_session()
    async with loop.stream("go", session_id=sid) as events:
        with pytest.raises(LLMError, match="down"):
            await events.wait()
    with pytest.raises(LLMError, match="down"):
        _ = events.result
    with pytest.raises(LLMError, match="down"):
        await events.wait()


async def test_a_stream_that_is_left_without_reading_has_the_cancelled_result(make_loop: MakeLoop) -> None:
    gate = Gate()
    loop = make_loop(gate.then("Done."))
    sid = await loop.new_session()
    async with loop.stream("go", session_id=sid) as events:
        await gate.someone()
    assert events.result.status is SendStatus.CANCELLED
    assert await events.wait() == events.result


async def test_a_stream_whose_turn_ended_before_it_was_left_has_its_result(make_loop: MakeLoop) -> None:
    loop = make_loop("Done.")
    sid = await loop.new_session()
    ended = asyncio.Event()
    loop.event_bus.subscribe(lambda event: ended.set(), types=(SendFinished,))
    async with loop.stream("go", session_id=sid) as events:
        await within_limit(ended.wait())
    assert events.result.status is SendStatus.COMPLETED
