"""A turn is cancelled from another process, that turn and no later one."""

from __future__ import annotations

import asyncio

import pytest

from power_loop import LoopConfig, SendStatus, tool
from power_loop.core.turn import watcher
from power_loop.testing import calls

from .conftest import MakeLoop
from .elsewhere import elsewhere
from .parts import Gate, said, until, within_limit
from .test_lease import change, take_over
from .test_recovery import dead_owner


@pytest.mark.promise("cancel")
async def test_a_turn_that_waits_for_its_model_stops(make_loop: MakeLoop, dsn: str) -> None:
    gate = Gate()
    loop, other = make_loop(gate.then("never"), "Fine."), elsewhere(make_loop, dsn)
    sid = await loop.new_session()
    turn = asyncio.create_task(loop.send("go", session_id=sid))
    await gate.someone()
    assert await other.cancel(sid, reason="from afar") is True
    # Nobody opens the gate.
    result = await within_limit(turn)
    assert (result.status, result.reason) == (SendStatus.CANCELLED, "from afar")
    assert gate.cancelled == 1
    assert (await loop.send("again", session_id=sid)).final_text == "Fine.", "it was meant for that turn alone"
    assert await other.cancel(sid) is False
    assert await other.cancel("sess_none") is False


@pytest.mark.promise("cancel")
async def test_a_turn_in_the_middle_of_a_tool_stops(make_loop: MakeLoop, dsn: str) -> None:
    gate = Gate()

    @tool
    async def work() -> str:
        """Work."""
        await gate.passing()
        return "never"

    loop = make_loop(calls(("work", {}), ids=("c",)), "Never.", tool_registry=[work])
    other = elsewhere(make_loop, dsn)
    sid = await loop.new_session()
    turn = asyncio.create_task(loop.send("go", session_id=sid))
    await gate.someone()
    assert await other.cancel(sid)
    assert (await within_limit(turn)).status is SendStatus.CANCELLED
    assert [role for role, _ in said(await loop.get_messages(sid))] == ["user", "assistant", "tool"]
    assert await loop.get_pending(sid) == ()


async def test_a_turn_hears_it_by_its_next_write_too(
    make_loop: MakeLoop, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The watch, which would stop the model call, does not look before.
    monkeypatch.setattr(watcher, "INTERVAL_S", 86_400)
    loop = make_loop()
    other = elsewhere(make_loop, dsn)

    async def answer(request: object) -> str:
        assert await other.cancel(sid, reason="just in time")
        return "An answer."

    loop.llm.add(answer)
    sid = await loop.new_session()
    result = await within_limit(loop.send("go", session_id=sid))
    assert (result.status, result.reason) == (SendStatus.CANCELLED, "just in time")
    # What was paid for is kept.
    assert said(await loop.get_messages(sid)) == [("user", "go"), ("assistant", "An answer.")]


@pytest.mark.parametrize("how", ["dead", "expired"])
async def test_a_turn_whose_process_died_is_ended_by_whoever_cancels_it(
    make_loop: MakeLoop, dsn: str, how: str
) -> None:
    loop = make_loop(RuntimeError("down"), "Fine.")
    sid = await loop.new_session()
    with pytest.raises(Exception, match="down"):
        await loop.send("go", session_id=sid)
    change(dsn, "UPDATE pl_sends SET status = 'running'")
    take_over(dsn, sid, dead_owner() if how == "dead" else "far|1|2|away")
    if how == "expired":
        change(dsn, "UPDATE pl_sessions SET lease_until_ms = 1")
    assert await loop.cancel(sid, reason="nobody is there") is True
    assert (await loop.resume(sid)).status is SendStatus.CANCELLED
    assert (await loop.get_session(sid)).owner is None
    assert (await loop.send("again", session_id=sid)).final_text == "Fine."


async def test_a_turn_that_lost_its_lease_is_stopped_by_the_watch(make_loop: MakeLoop, dsn: str) -> None:
    gate = Gate()
    # Its heartbeat would come after hours.
    loop = make_loop(gate.then("Never."), config=LoopConfig(lease_ttl_s=86_400))
    sid = await loop.new_session()
    turn = asyncio.create_task(loop.send("go", session_id=sid))
    await gate.someone()
    take_over(dsn, sid)
    with pytest.raises(Exception, match="taken over"):
        await within_limit(turn)


async def test_the_watch_goes_on_where_the_handle_that_began_it_was_closed(make_loop: MakeLoop, dsn: str) -> None:
    gate = Gate()
    first, keeper = make_loop("Fine."), make_loop()
    sid = await first.new_session()
    await keeper.get_session(sid)
    await first.send("go", session_id=sid)
    await first.aclose()
    loop = make_loop(gate.then("never"))
    turn = asyncio.create_task(loop.send("go", session_id=sid))
    await gate.someone()
    assert await elsewhere(make_loop, dsn).cancel(sid)
    assert (await within_limit(turn)).status is SendStatus.CANCELLED


async def test_a_look_of_the_watch_ends_with_the_last_turn(
    make_loop: MakeLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher, "INTERVAL_S", 0.01)
    gate, look = Gate(), Gate()
    loop = make_loop(gate.then("Fine."))
    sid, store, before = await loop.new_session(), await loop.get_store(), asyncio.all_tasks()
    monkeypatch.setattr(store, "read_signals", lambda session_ids: look.passing())
    turn = asyncio.create_task(loop.send("go", session_id=sid))
    await gate.someone()
    await look.someone()
    gate.open()
    assert (await within_limit(turn)).final_text == "Fine."
    assert look.cancelled == 1
    assert asyncio.all_tasks() <= before


async def test_turns_that_come_during_a_look_begin_no_second_one(
    make_loop: MakeLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher, "INTERVAL_S", 0.01)
    tick, ticks = watcher.Watcher._tick, list[None]()
    monkeypatch.setattr(watcher.Watcher, "_tick", lambda self: (tick(self), ticks.append(None)))
    gate, look = Gate(), Gate()
    loop = make_loop(gate.then("Fine."), gate.then("Fine."))
    sids, store, before = [await loop.new_session() for _ in range(2)], await loop.get_store(), asyncio.all_tasks()
    monkeypatch.setattr(store, "read_signals", lambda session_ids: look.passing())
    turns = [asyncio.create_task(loop.send("go", session_id=sids[0]))]
    await look.someone()
    turns.append(asyncio.create_task(loop.send("go", session_id=sids[1])))
    await within_limit(until(lambda: gate.came == 2))
    seen = len(ticks)
    # With the first of these the second turn is due, and with the next one it would be looked at.
    await within_limit(until(lambda: len(ticks) > seen + 3))
    gate.open()
    assert [(await within_limit(turn)).final_text for turn in turns] == ["Fine."] * 2
    assert (look.came, look.cancelled) == (1, 1)
    assert asyncio.all_tasks() <= before


async def test_a_turn_that_its_event_loop_left_is_ended_by_whoever_cancels_it(make_loop: MakeLoop, dsn: str) -> None:
    loop = make_loop(RuntimeError("down"), "Never.")
    sid = await loop.new_session()
    with pytest.raises(Exception, match="down"):
        await loop.send("go", session_id=sid)
    change(dsn, "UPDATE pl_sends SET status = 'running', result = NULL")
    change(dsn, "UPDATE pl_sessions SET owner = '', lease_until_ms = 1")
    assert await loop.cancel(sid, reason="not any more") is True
    assert await loop.recover() == ()
    result = await loop.resume(sid)
    assert (result.status, result.reason) == (SendStatus.CANCELLED, "not any more")
    assert await loop.cancel(sid) is False


@pytest.mark.promise("cancel")
async def test_what_waits_for_a_person_behind_the_turn_that_was_meant_waits_on(make_loop: MakeLoop, dsn: str) -> None:
    @tool(requires_approval=True)
    def pay() -> str:
        """Pay."""
        return "paid"

    loop = make_loop("First.", calls(("pay", {}), ids=("c",)), tool_registry=[pay])
    sid = await loop.new_session()
    await loop.send("go", session_id=sid)
    store = await loop.get_store()
    other = elsewhere(make_loop, dsn)
    others = await other.get_store()
    ask = others.ask_to_cancel
    take_over(dsn, sid)

    async def asked(session_id: str, *, reason: str) -> object:
        # Between the word and the look at what is left, that turn ends, and a whole other one comes and rests.
        head = await ask(session_id, reason=reason)
        change(dsn, "UPDATE pl_sessions SET owner = NULL, lease_until_ms = 0")
        assert (await loop.send("pay", session_id=sid)).status is SendStatus.WAITING_FOR_INPUT
        return head

    others.ask_to_cancel = asked
    await other.cancel(sid)
    sent = await store.get_send(sid)
    assert sent is not None
    assert sent.status is SendStatus.WAITING_FOR_INPUT
