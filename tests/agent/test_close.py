"""Closing: no more work is taken, what runs is finished, and then everything is let go."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from power_loop import AgentEvent, AgentEventBus, SendStatus, StatefulAgentLoop, tool
from power_loop.core.turn import chain
from power_loop.errors import LoopClosedError
from power_loop.events import HookFailed
from power_loop.testing import ScriptedLLM, call, leak_check

from .conftest import MakeLoop
from .parts import LIMIT_S, Ears, Gate, answers, error_answers, store_threads, within_limit


@pytest.mark.promise("graceful-close")
async def test_closing_refuses_new_sends_and_lets_those_in_flight_finish(make_loop: MakeLoop) -> None:
    gates = [Gate(), Gate()]
    loop = make_loop(gates[0].then("First."), gates[1].then("Second."))
    sids = [await loop.new_session() for _ in range(2)]
    turns = []
    for sid, gate in zip(sids, gates, strict=True):
        turns.append(asyncio.create_task(loop.send("go", session_id=sid)))
        await gate.someone()
    closing = asyncio.create_task(loop.aclose())
    await asyncio.sleep(0)
    with pytest.raises(LoopClosedError, match="make another"):
        await loop.send("more", session_id=sids[0])
    gates[0].open()
    assert (await within_limit(turns[0])).final_text == "First."
    for _ in range(10):
        await asyncio.sleep(0)
    assert not closing.done(), "another turn is still in flight"
    gates[1].open()
    assert (await within_limit(turns[1])).final_text == "Second."
    await within_limit(closing)


@pytest.mark.promise("graceful-close")
async def test_a_block_closes_behind_its_turns(dsn: str) -> None:
    gate = Gate()
    async with StatefulAgentLoop(llm=ScriptedLLM([gate.then("Done.")]), dsn=dsn) as loop:
        sid = await loop.new_session()
        turn = asyncio.create_task(loop.send("go", session_id=sid))
        await gate.someone()
        gate.open()
    assert turn.done() or (await within_limit(turn)).is_completed
    assert (await turn).final_text == "Done."
    async with StatefulAgentLoop(llm=ScriptedLLM(), dsn=dsn) as other:
        assert len(await other.get_messages(sid)) == 2


async def test_a_turn_with_many_rounds_is_drained_to_its_end(make_loop: MakeLoop) -> None:
    gate = Gate()

    @tool
    async def act() -> str:
        """Act."""
        await gate.passing()
        return "acted"

    loop = make_loop(call("act"), call("act"), "Done.", tool_registry=[act])
    sid = await loop.new_session()
    async with loop.stream("go", session_id=sid) as events:
        await gate.someone()
        closing = asyncio.create_task(loop.aclose())
        await asyncio.sleep(0)
        gate.open()
        result = await within_limit(events.wait())
    assert (result.status, result.rounds) == (SendStatus.COMPLETED, 3)
    await within_limit(closing)


@pytest.mark.promise("graceful-close")
async def test_a_closed_handle_refuses_everything_and_says_what_to_do(make_loop: MakeLoop) -> None:
    loop = make_loop("x")
    sid = await loop.new_session()
    await loop.aclose()
    doors = [
        loop.new_session(),
        loop.get_session(sid),
        loop.update_session(sid, system_prompt="x"),
        loop.list_sessions(),
        loop.close_session(sid),
        loop.get_messages(sid),
        loop.get_session_stats(sid),
        loop.get_tool_result(sid, "c"),
        loop.prewarm(sid),
        loop.send("x", session_id=sid),
        loop.resume(sid),
        loop.submit_tool_result(sid, "c", 1),
        loop.get_pending(sid),
        loop.heal_pending(sid),
        loop.abort_pending(sid),
        loop.cancel(sid),
        loop.get_store(),
    ]
    for door in doors:
        with pytest.raises(LoopClosedError, match="make another"):
            await door
    with pytest.raises(LoopClosedError):
        loop.stream("x", session_id=sid)
    with pytest.raises(LoopClosedError):
        await loop.__aenter__()


async def test_closing_may_be_done_again_and_by_several_at_once(make_loop: MakeLoop) -> None:
    gate = Gate()
    loop = make_loop(gate.then("Done."))
    sid = await loop.new_session()
    turn = asyncio.create_task(loop.send("go", session_id=sid))
    await gate.someone()
    closings = [asyncio.create_task(loop.aclose()) for _ in range(3)]
    await asyncio.sleep(0)
    closings[0].cancel()
    gate.open()
    await within_limit(turn)
    await within_limit(asyncio.gather(*closings[1:]))
    await within_limit(loop.aclose())


async def test_closing_a_handle_that_was_never_used_does_nothing(make_loop: MakeLoop) -> None:
    await make_loop().aclose()


async def test_the_last_handle_of_a_database_lets_go_of_its_threads_and_files(dsn: str) -> None:
    async with leak_check(within_s=LIMIT_S):
        loops = [StatefulAgentLoop(llm=ScriptedLLM(["x"]), dsn=dsn) for _ in range(3)]
        for loop in loops:
            sid = await loop.new_session()
            await loop.send("go", session_id=sid)
            await loop.get_messages(sid)
        assert store_threads()
        for loop in loops[:2]:
            await loop.aclose()
        assert (await loops[2].get_messages(sid))[0].seq == 1, "others go on"
        await loops[2].aclose()


async def test_closing_in_the_middle_of_opening_leaves_nothing_open(dsn: str) -> None:
    async with leak_check(within_s=LIMIT_S):
        loop = StatefulAgentLoop(llm=ScriptedLLM(), dsn=dsn)
        making = asyncio.create_task(loop.new_session())
        await asyncio.sleep(0)
        await within_limit(loop.aclose())
        given: Any = await within_limit(asyncio.gather(making, return_exceptions=True))
        assert isinstance(given[0], (str, LoopClosedError))


async def test_an_opening_that_nobody_waits_for_any_more_is_used_by_the_next(dsn: str) -> None:
    loop = StatefulAgentLoop(llm=ScriptedLLM(["x"]), dsn=dsn)
    first = asyncio.create_task(loop.new_session())
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    sid = await within_limit(loop.new_session())
    assert (await loop.send("go", session_id=sid)).is_completed
    await loop.aclose()


async def test_cancelling_a_close_does_not_undo_it(make_loop: MakeLoop) -> None:
    gate = Gate()
    loop = make_loop(gate.then("Done."))
    sid = await loop.new_session()
    turn = asyncio.create_task(loop.send("go", session_id=sid))
    await gate.someone()
    closing = asyncio.create_task(loop.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)
    with pytest.raises(LoopClosedError):
        await loop.send("more", session_id=sid)
    gate.open()
    assert (await within_limit(turn)).final_text == "Done."
    await within_limit(loop.aclose())


# ---- the bus ----


def test_at_the_end_of_a_script_background_subscribers_have_seen_the_last_event(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AgentEventBus.aclose, "__kwdefaults__", {"timeout_s": LIMIT_S})
    late, blocking = list[str](), list[str]()

    async def note(event: AgentEvent) -> None:
        await asyncio.sleep(0)
        late.append(event.type)

    async def main() -> None:
        async with StatefulAgentLoop(llm=ScriptedLLM(["Hello."]), dsn=dsn) as loop:
            loop.event_bus.subscribe(note, background=True)
            loop.event_bus.subscribe(lambda event: blocking.append(event.type), background=True)
            await loop.send("Hello?", session_id=await loop.new_session())

    asyncio.run(main())
    assert late == blocking
    assert (late[0], late[-1]) == ("session.created", "send.finished")


async def test_closing_a_loop_ends_a_subscriber_that_hangs(
    make_loop: MakeLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AgentEventBus.aclose, "__kwdefaults__", {"timeout_s": 0.01})
    loop, ends, gate = make_loop("Hello."), list[str](), Gate()

    async def hang(event: AgentEvent) -> None:
        try:
            await gate.passing()
        finally:
            ends.append(event.type)

    loop.event_bus.subscribe(hang, background=True)
    await loop.new_session()
    await gate.someone()
    await within_limit(loop.aclose())
    assert ends == ["session.created"]


async def test_a_bus_that_was_given_to_a_loop_outlives_it(dsn: str) -> None:
    bus, seen = AgentEventBus(), list[str]()
    bus.subscribe(lambda event: seen.append(event.session_id))
    for name in ("sess_1", "sess_2"):
        async with StatefulAgentLoop(llm=ScriptedLLM(), dsn=dsn, event_bus=bus) as loop:
            await loop.new_session(session_id=name)
    assert seen == ["sess_1", "sess_2"]
    assert bus.is_listening


@pytest.mark.parametrize("way", ["hook", "tool", "gather", "thread"])
async def test_a_turn_that_would_close_the_loop_that_waits_for_it_is_told_so(
    make_loop: MakeLoop, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(chain, "SUSPENSE_S", 0.01)

    @tool(name="quit")
    async def leave() -> str:
        """Quit."""
        if way == "gather":
            await asyncio.gather(loop.aclose())
        else:
            await loop.aclose()
        return "bye"

    @tool(name="quit")
    def leave_from_thread() -> str:
        """Quit."""
        loop.close_sync()
        return "bye"

    loop = make_loop(call("quit"), "Done.", "More.", tool_registry=[leave_from_thread if way == "thread" else leave])
    ears = Ears(loop, types=(HookFailed,))
    if way == "hook":
        loop.hooks.add("message.append", lambda context: loop.aclose(), name="quits")
    sid = await loop.new_session()
    assert (await within_limit(loop.send("go", session_id=sid))).final_text == "Done."
    assert "would wait for itself" in error_answers(loop.llm.requests[1])[0]
    assert all("would wait for itself" in one.error for one in ears.of(HookFailed))
    assert bool(ears.of(HookFailed)) is (way == "hook")
    # It was not closed half.
    assert (await loop.send("more", session_id=sid)).final_text == "More."
    await asyncio.to_thread(loop.close_sync)


async def test_a_tool_may_start_a_task_that_closes_its_loop(make_loop: MakeLoop) -> None:
    closing: list[asyncio.Task[None]] = []

    @tool(name="quit")
    async def leave() -> str:
        """Quit."""
        closing.append(asyncio.create_task(loop.aclose()))
        return "bye"

    loop = make_loop(call("quit"), "Done.", tool_registry=[leave])
    assert (await within_limit(loop.send("go", session_id=await loop.new_session()))).final_text == "Done."
    await within_limit(closing[0])
    with pytest.raises(LoopClosedError):
        await loop.new_session()


async def test_a_tool_may_close_another_loop(make_loop: MakeLoop) -> None:
    other = make_loop()

    @tool
    async def finish() -> str:
        """Finish with the other."""
        await other.aclose()
        return "closed"

    loop = make_loop(call("finish"), "Done.", tool_registry=[finish])
    await loop.send("go", session_id=await loop.new_session())
    assert answers(loop.llm.requests[1]) == ["closed"]
