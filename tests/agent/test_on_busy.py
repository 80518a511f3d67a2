"""A send to a session that somebody else drives: it is refused, it waits, or it leaves its input."""

from __future__ import annotations

import asyncio

import pytest

from power_loop import (
    Approve,
    CancellationToken,
    HookPoint,
    LoopConfig,
    OnBusy,
    SendLimits,
    SendStatus,
    StatefulAgentLoop,
    tool,
)
from power_loop.errors import HookError, InputError, RequestConflictError, SessionBusyError
from power_loop.events import InputQueued
from power_loop.hooks import SendStartContext
from power_loop.testing import calls

from .conftest import MakeLoop
from .elsewhere import elsewhere, living_owner
from .parts import Ears, Gate, said, until, watch, within_limit
from .test_lease import change, take_over
from .test_recovery import dead_owner


@pytest.mark.promise("on-busy")
async def test_it_is_refused_unless_told_otherwise(make_loop: MakeLoop, dsn: str) -> None:
    gate = Gate()
    loop, other = make_loop(gate.then("First.")), elsewhere(make_loop, dsn, "Never.")
    sid = await loop.new_session()
    turn = asyncio.create_task(loop.send("go", session_id=sid))
    await gate.someone()
    for word in ("raise", OnBusy.RAISE):
        with pytest.raises(SessionBusyError, match="on_busy"):
            await other.send("me too", session_id=sid, on_busy=word)
    with pytest.raises(InputError, match="'wait'"):
        await other.send("me too", session_id=sid, on_busy="later")
    gate.open()
    await within_limit(turn)


@pytest.mark.promise("on-busy")
async def test_it_waits_until_the_other_turn_rests(make_loop: MakeLoop, dsn: str) -> None:
    gate = Gate()
    loop, other = make_loop(gate.then("First.")), elsewhere(make_loop, dsn, "Second.", "Third.")
    sid = await loop.new_session()
    turn = asyncio.create_task(loop.send("go", session_id=sid))
    await gate.someone()
    waiting = [asyncio.create_task(other.send(text, session_id=sid, on_busy="wait")) for text in ("b", "c")]
    gate.open()
    await within_limit(turn)
    results = [await within_limit(one) for one in waiting]
    assert [one.final_text for one in results] == ["Second.", "Third."]
    assert [text for _, text in said(await loop.get_messages(sid))] == ["go", "First.", "b", "Second.", "c", "Third."]


async def test_waiting_ends_with_its_cancellation_and_with_its_time(make_loop: MakeLoop, dsn: str) -> None:
    loop = make_loop()
    sid = await loop.new_session()
    take_over(dsn, sid, living_owner())
    token = CancellationToken()
    waiting = asyncio.create_task(loop.send("go", session_id=sid, on_busy="wait", cancellation=token))
    await within_limit(until(lambda: loop._kit(loop._store).desk.is_taken(sid) if loop._store else False))
    token.cancel("enough")
    assert (await within_limit(waiting)).status is SendStatus.CANCELLED
    result = await within_limit(loop.send("go", session_id=sid, on_busy="wait", limits=SendLimits(max_seconds=0.05)))
    assert result.status is SendStatus.TIME_EXCEEDED
    assert said(await loop.get_messages(sid)) == []


async def test_waiting_takes_a_dead_owner_over(make_loop: MakeLoop, dsn: str) -> None:
    loop = make_loop("Fine.", "Fine.")
    sid = await loop.new_session()
    take_over(dsn, sid, living_owner())
    waiting = asyncio.create_task(loop.send("go", session_id=sid, on_busy="wait"))
    await within_limit(until(lambda: bool(loop._store)))
    change(dsn, "UPDATE pl_sessions SET owner = ? WHERE id = ?", dead_owner(), sid)
    assert (await within_limit(waiting)).final_text == "Fine."


async def test_a_resume_waits_as_well(make_loop: MakeLoop, dsn: str) -> None:
    @tool(requires_approval=True)
    def pay() -> str:
        """Pay."""
        return "paid"

    loop = make_loop(calls(("pay", {}), ids=("c",)), "Done.", tool_registry=[pay])
    sid = await loop.new_session()
    await loop.send("go", session_id=sid)
    take_over(dsn, sid, living_owner())
    waiting = asyncio.create_task(loop.resume(sid, answers={"c": Approve()}, on_busy="wait"))
    change(dsn, "UPDATE pl_sessions SET owner = NULL, lease_until_ms = 0 WHERE id = ?", sid)
    assert (await within_limit(waiting)).final_text == "Done."
    with pytest.raises(InputError, match="resume"):
        await loop.resume(sid, on_busy="queue")


@pytest.mark.promise("on-busy")
@pytest.mark.parametrize("is_elsewhere", [False, True])
async def test_it_leaves_its_input_and_returns_at_once(make_loop: MakeLoop, dsn: str, is_elsewhere: bool) -> None:
    gate = Gate()
    loop = make_loop(gate.then("First."), "Second.")
    other = elsewhere(make_loop, dsn) if is_elsewhere else loop
    ears = Ears(other)
    sid = await loop.new_session()
    turn = asyncio.create_task(loop.send("go", session_id=sid))
    await gate.someone()
    queued = await within_limit(other.send("more", session_id=sid, on_busy="queue", request_id="r1"))
    assert (queued.status, queued.inbox_position, queued.send_index) == (SendStatus.QUEUED, 1, 0)
    assert ears.of(InputQueued) == [InputQueued(1, "r1")]
    again = await within_limit(other.send("more", session_id=sid, on_busy="queue", request_id="r1"))
    assert (again.status, again.inbox_position) == (SendStatus.QUEUED, 1)
    with pytest.raises(RequestConflictError):
        await other.send("else", session_id=sid, on_busy="queue", request_id="r1")
    gate.open()
    assert (await within_limit(turn)).final_text == "Second."
    # The send that took it in is what became of the request.
    for word in ("queue", "raise"):
        found = await within_limit(other.send("more", session_id=sid, on_busy=word, request_id="r1"))
        assert (found.final_text, found.send_index, found.is_replayed) == ("Second.", 1, True)
    assert [text for _, text in said(await loop.get_messages(sid))] == ["go", "First.", "more", "Second."]


async def test_an_input_with_options_of_its_own_becomes_a_turn_of_its_own(make_loop: MakeLoop) -> None:
    gate = Gate()
    loop = make_loop(gate.then("First."), "Second.", "Third.")
    sid = await loop.new_session()
    turn = asyncio.create_task(loop.send("go", session_id=sid))
    await gate.someone()
    await loop.send("mine", session_id=sid, on_busy="queue", temperature=0.5, request_id="r1")
    await loop.send("more", session_id=sid, on_busy="queue")
    gate.open()
    assert (await within_limit(turn)).final_text == "First."
    await within_limit(loop._work.ended())
    assert [text for _, text in said(await loop.get_messages(sid))] == ["go", "First.", "mine", "more", "Second."]
    assert loop.llm.requests[1].temperature == 0.5
    result = await loop.send("mine", session_id=sid, temperature=0.5, request_id="r1")
    assert (result.send_index, result.final_text, result.is_replayed) == (2, "Second.", True)


async def test_on_a_session_at_rest_it_is_a_send_like_any_other(make_loop: MakeLoop) -> None:
    loop = make_loop("First.")
    sid = await loop.new_session()
    assert (await loop.send("go", session_id=sid, on_busy="queue")).final_text == "First."


async def test_a_stream_waits_and_queues_as_a_send_does(make_loop: MakeLoop, dsn: str) -> None:
    gate = Gate()
    loop, other = make_loop(gate.then("First."), "Second."), elsewhere(make_loop, dsn, "Third.")
    sid = await loop.new_session()
    turn = asyncio.create_task(loop.send("go", session_id=sid))
    await gate.someone()
    result = await within_limit(watch(other.stream("more", session_id=sid, on_busy="queue"), []))
    assert result.status is SendStatus.QUEUED
    waiting = asyncio.create_task(watch(other.stream("last", session_id=sid, on_busy="wait"), []))
    gate.open()
    await within_limit(turn)
    assert (await within_limit(waiting)).final_text == "Third."


# ---- a send behind an input that waits ----


async def with_waiting(loop: StatefulAgentLoop, dsn: str, *texts: str) -> str:
    """Return a session at rest in whose inbox inputs wait that nobody drives."""
    sid = await loop.new_session()
    take_over(dsn, sid, living_owner())
    for text in texts:
        assert (await loop.follow_up(sid, text)).is_turn_running
    free(dsn, sid)
    return sid


def free(dsn: str, sid: str) -> None:
    """Let another process give the session's lease back."""
    change(dsn, "UPDATE pl_sessions SET owner = NULL, lease_until_ms = 0 WHERE id = ?", sid)


@pytest.mark.promise("on-busy")
@pytest.mark.parametrize("word", ["raise", "wait"])
async def test_behind_an_input_whose_turn_somebody_else_came_before(make_loop: MakeLoop, dsn: str, word: str) -> None:
    loop = make_loop("Earlier.", "Mine.")
    sid = await with_waiting(loop, dsn, "earlier")
    starts: list[str] = []

    def others(context: SendStartContext) -> None:
        starts.append(context.content[0].text)  # type: ignore[union-attr]
        if len(starts) == 2:
            take_over(dsn, sid, living_owner())
        elif len(starts) == 3:
            free(dsn, sid)

    loop.hooks.add(HookPoint.SEND_START, others)
    sending = loop.send("mine", session_id=sid, on_busy=word)
    if word == "raise":
        with pytest.raises(SessionBusyError):
            await within_limit(sending)
        assert [one.position for one in await loop.get_inbox(sid)] == [1]
        return
    assert (await within_limit(sending)).final_text == "Mine."
    assert starts == ["mine", "earlier", "mine", "earlier", "mine"]
    assert [text for _, text in said(await loop.get_messages(sid))] == ["earlier", "Earlier.", "mine", "Mine."]


async def test_behind_an_input_that_cannot_be_made_a_turn_of_it_is_refused(make_loop: MakeLoop, dsn: str) -> None:
    loop = make_loop("Mine.")
    sid = await with_waiting(loop, dsn, "bad")

    def check(context: SendStartContext) -> None:
        if context.content[0].text == "bad":  # type: ignore[union-attr]
            raise RuntimeError("broken")

    loop.hooks.add(HookPoint.SEND_START, check)
    with pytest.raises(InputError, match="withdraw") as refused:
        await within_limit(loop.send("mine", session_id=sid))
    assert isinstance(refused.value.__cause__, HookError)
    assert await loop.withdraw(sid, 1)
    assert (await within_limit(loop.send("mine", session_id=sid))).final_text == "Mine."


@pytest.mark.promise("on-busy")
async def test_behind_an_input_whose_hook_takes_all_of_its_time_it_is_refused(make_loop: MakeLoop, dsn: str) -> None:
    loop = make_loop(config=LoopConfig(limits=SendLimits(max_seconds=0.05)))
    sid = await with_waiting(loop, dsn, "slow")
    starts: list[str] = []

    async def hang(context: SendStartContext) -> None:
        starts.append(context.content[0].text)  # type: ignore[union-attr]
        if starts[-1] == "slow":
            await asyncio.Event().wait()

    loop.hooks.add(HookPoint.SEND_START, hang)
    with pytest.raises(InputError, match="came first"):
        await within_limit(loop.send("mine", session_id=sid, limits=SendLimits(max_seconds=60)))
    assert starts.count("slow") <= 2, "it is not asked on and on"


async def test_a_send_that_waits_behind_the_inbox_is_in_line_for_a_cancellation(make_loop: MakeLoop, dsn: str) -> None:
    gate = Gate()
    loop = make_loop(gate.then("Earlier."), "Never.")
    sid = await with_waiting(loop, dsn, "earlier")
    sending = asyncio.create_task(loop.send("mine", session_id=sid))
    await gate.someone()
    assert await loop.cancel(sid)
    assert (await within_limit(sending)).status is SendStatus.CANCELLED
    await within_limit(loop._work.ended())
    assert [text for _, text in said(await loop.get_messages(sid))] == ["earlier"]
