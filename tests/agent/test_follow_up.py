"""Something more is said to a session: the turn that runs takes it in, or it becomes the next turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from power_loop import (
    Approve,
    HookPoint,
    LLMRequest,
    Message,
    SendLimits,
    SendStatus,
    StatefulAgentLoop,
    TextPart,
    tool,
)
from power_loop.core.turn import watcher
from power_loop.errors import RequestConflictError, SessionClosedError, SessionNotFoundError
from power_loop.events import InputQueued, InputRefused, InputTaken, SendFinished
from power_loop.hooks import Rewrite, SendStartContext, Veto
from power_loop.messages import Role
from power_loop.storage import NewSend
from power_loop.testing import ScriptedLLM, calls

from .conftest import MakeLoop
from .elsewhere import elsewhere
from .parts import Ears, Gate, commits_of, said, until, within_limit


async def finished(ears: Ears, count: int) -> list[SendFinished]:
    """Return the ends of turns, once there are so many."""
    await within_limit(until(lambda: len(ears.of(SendFinished)) >= count))
    return ears.of(SendFinished)


def watcher_of(loop: StatefulAgentLoop, store: Any) -> watcher.Watcher:
    """Return what watches the turns of a loop in the running event loop."""
    return loop._kit(store).desk.watcher()


def heard(request: LLMRequest) -> list[str]:
    """Return what a user said to a model."""
    return [message.text for message in request.messages if message.role.value == "user"]


@pytest.mark.promise("follow-up")
@pytest.mark.parametrize("is_elsewhere", [False, True])
async def test_a_running_turn_takes_it_in_behind_the_answer_it_was_about_to_end_with(
    make_loop: MakeLoop, dsn: str, is_elsewhere: bool
) -> None:
    gate = Gate()
    loop = make_loop(gate.then("First."), "Second.")
    other = elsewhere(make_loop, dsn) if is_elsewhere else loop
    ears = Ears(loop)
    sid = await loop.new_session()
    turn = asyncio.create_task(loop.send("go", session_id=sid))
    await gate.someone()
    left = await other.follow_up(sid, "and more")
    assert (left.position, left.is_turn_running, left.is_known) == (1, True, False)
    assert [one.position for one in await other.get_inbox(sid)] == [1]
    gate.open()
    result = await within_limit(turn)
    assert (result.status, result.final_text, result.rounds) == (SendStatus.COMPLETED, "Second.", 2)
    log = [("user", "go"), ("assistant", "First."), ("user", "and more"), ("assistant", "Second.")]
    assert said(await loop.get_messages(sid)) == log
    assert await loop.get_inbox(sid) == ()
    assert ears.of(InputTaken) == [InputTaken(1, None, 3)]
    assert {record.send_index for record in await loop.get_messages(sid)} == {1}
    # The window that was kept knows it all.
    loop.llm.add("Third.")
    await loop.send("last", session_id=sid)
    assert heard(loop.llm.requests[-1]) == ["go", "and more", "last"]


async def test_it_comes_between_rounds_and_never_between_calls_and_their_results(make_loop: MakeLoop) -> None:
    gate = Gate()

    @tool
    async def look() -> str:
        """Look."""
        await gate.passing()
        return "seen"

    loop = make_loop(calls(("look", {}), ("look", {}), ids=("a", "b")), "Done.", tool_registry=[look])
    sid = await loop.new_session()
    turn = asyncio.create_task(loop.send("go", session_id=sid))
    await gate.someone()
    for text in ("one", "two"):
        await loop.follow_up(sid, text)
    gate.open()
    assert (await within_limit(turn)).final_text == "Done."
    roles = [role for role, _ in said(await loop.get_messages(sid))]
    assert roles == ["user", "assistant", "tool", "tool", "user", "user", "assistant"]
    assert heard(loop.llm.requests[1]) == ["go", "one", "two"]


async def test_a_plain_turn_pays_nothing_for_it(make_loop: MakeLoop) -> None:
    loop = make_loop("Yes.", "Yes.")
    sid = await loop.new_session()
    await loop.send("go", session_id=sid)
    with commits_of(await loop.get_store()) as moves:
        await loop.send("go", session_id=sid)
    assert moves == ["accept", "append_reply"]


@pytest.mark.promise("follow-up")
async def test_for_a_session_at_rest_it_becomes_the_next_turn_in_the_background(make_loop: MakeLoop) -> None:
    loop = make_loop("Hello.")
    ears = Ears(loop)
    sid = await loop.new_session()
    left = await loop.follow_up(sid, "hi", request_id="r1")
    assert (left.position, left.is_turn_running, left.request_id) == (1, False, "r1")
    [end] = await finished(ears, 1)
    assert (end.result.status, end.result.request_id) == (SendStatus.COMPLETED, "r1")
    assert said(await loop.get_messages(sid)) == [("user", "hi"), ("assistant", "Hello.")]
    assert ears.of(InputQueued) == [InputQueued(1, "r1")]
    again = await loop.follow_up(sid, "hi", request_id="r1")
    assert (again.is_known, again.send_index) == (True, 1)
    assert (await loop.send("hi", session_id=sid, request_id="r1")).is_replayed
    with pytest.raises(RequestConflictError):
        await loop.follow_up(sid, "other", request_id="r1")


async def test_closing_waits_for_the_turn_that_was_made_of_it(make_loop: MakeLoop, dsn: str) -> None:
    loop = make_loop("Hello.")
    sid = await loop.new_session()
    await loop.follow_up(sid, "hi")
    await within_limit(loop.aclose())
    later = make_loop()
    assert said(await later.get_messages(sid)) == [("user", "hi"), ("assistant", "Hello.")]


async def test_what_its_turn_could_not_answer_is_left_to_the_next_one(make_loop: MakeLoop) -> None:
    gate = Gate()
    loop = make_loop(gate.then("First."), "Second.")
    ears = Ears(loop)
    sid = await loop.new_session()
    turn = asyncio.create_task(loop.send("go", session_id=sid, limits=SendLimits(max_tokens=10)))
    await gate.someone()
    await loop.follow_up(sid, "and more")
    gate.open()
    assert (await within_limit(turn)).status is SendStatus.COMPLETED
    _, second = await finished(ears, 2)
    assert (second.result.send_index, second.result.final_text) == (2, "Second.")


async def test_a_cancelled_turn_does_not_take_what_waits_with_it(make_loop: MakeLoop) -> None:
    gate = Gate()
    loop = make_loop(gate.then("never"), "Second.")
    ears = Ears(loop)
    sid = await loop.new_session()
    turn = asyncio.create_task(loop.send("go", session_id=sid))
    await gate.someone()
    await loop.follow_up(sid, "and more")
    assert await loop.cancel(sid)
    assert (await within_limit(turn)).status is SendStatus.CANCELLED
    _, second = await finished(ears, 2)
    assert second.result.final_text == "Second."


async def test_behind_a_failed_turn_it_waits_and_comes_before_the_next_send(make_loop: MakeLoop) -> None:
    gate = Gate()
    loop = make_loop(gate.then(RuntimeError("down")), "Second.", "Third.")
    sid = await loop.new_session()
    turn = asyncio.create_task(loop.send("go", session_id=sid))
    await gate.someone()
    await loop.follow_up(sid, "and more")
    gate.open()
    with pytest.raises(Exception, match="down"):
        await within_limit(turn)
    assert [one.position for one in await loop.get_inbox(sid)] == [1]
    result = await within_limit(loop.send("last", session_id=sid))
    assert (result.send_index, result.final_text) == (3, "Third.")
    assert [text for _, text in said(await loop.get_messages(sid))] == ["go", "and more", "Second.", "last", "Third."]


async def test_while_a_call_waits_for_a_person_it_waits_too(make_loop: MakeLoop) -> None:
    @tool(requires_approval=True)
    def pay() -> str:
        """Pay."""
        return "paid"

    loop = make_loop(calls(("pay", {}), ids=("c",)), "Done.", tool_registry=[pay])
    sid = await loop.new_session()
    assert (await loop.send("go", session_id=sid)).status is SendStatus.WAITING_FOR_INPUT
    await loop.follow_up(sid, "and more")
    await within_limit(loop._work.ended())
    assert [one.position for one in await loop.get_inbox(sid)] == [1]
    assert (await within_limit(loop.resume(sid, answers={"c": Approve()}))).final_text == "Done."
    roles = [role for role, _ in said(await loop.get_messages(sid))]
    assert roles == ["user", "assistant", "tool", "user", "assistant"]


async def test_the_hooks_of_an_input_see_it_and_may_refuse_or_rewrite_it(make_loop: MakeLoop) -> None:
    gate = Gate()
    loop = make_loop(gate.then("First."), "Second.")
    ears = Ears(loop)
    seen: list[tuple[Any, bool]] = []

    def check(context: SendStartContext) -> Any:
        text = context.content[0].text  # type: ignore[union-attr]
        seen.append((text, context.is_follow_up))
        return Veto("no") if text == "bad" else Rewrite(content=text.upper())

    loop.hooks.add(HookPoint.SEND_START, check)
    sid = await loop.new_session()
    turn = asyncio.create_task(loop.send("go", session_id=sid))
    await gate.someone()
    for text in ("bad", "good"):
        await loop.follow_up(sid, text)
    gate.open()
    await within_limit(turn)
    assert [text for role, text in said(await loop.get_messages(sid)) if role == "user"] == ["GO", "GOOD"]
    assert seen == [("go", False), ("bad", True), ("good", True)]
    assert ears.of(InputRefused) == [InputRefused(1, None, "no")]


async def test_it_can_be_withdrawn_while_it_waits(make_loop: MakeLoop) -> None:
    gate = Gate()
    loop = make_loop(gate.then("First."), "Second.")
    sid = await loop.new_session()
    turn = asyncio.create_task(loop.send("go", session_id=sid))
    await gate.someone()
    await loop.follow_up(sid, "one")
    await loop.follow_up(sid, "two")
    assert await loop.withdraw(sid, 1)
    assert not await loop.withdraw(sid, 1)
    gate.open()
    await within_limit(turn)
    assert [text for role, text in said(await loop.get_messages(sid)) if role == "user"] == ["go", "two"]


async def test_a_tool_may_say_something_to_its_own_session(make_loop: MakeLoop) -> None:
    @tool
    async def remind() -> str:
        """Remind."""
        await loop.follow_up(sid, "remember")
        return "ok"

    loop = make_loop(calls(("remind", {}), ids=("c",)), "Done.", tool_registry=[remind])
    sid = await loop.new_session()
    await within_limit(loop.send("go", session_id=sid))
    assert heard(loop.llm.requests[1]) == ["go", "remember"]


async def test_nothing_is_left_where_it_cannot_be_delivered(make_loop: MakeLoop) -> None:
    loop = make_loop()
    with pytest.raises(SessionNotFoundError):
        await loop.follow_up("sess_none", "hi")
    sid = await loop.new_session()
    await loop.close_session(sid)
    with pytest.raises(SessionClosedError):
        await loop.follow_up(sid, "hi")


def test_a_script_without_an_event_loop_follows_up(dsn: str) -> None:
    with StatefulAgentLoop(llm=ScriptedLLM(["Hello."]), dsn=dsn) as loop:
        sid = loop.new_session_sync()
        loop.follow_up_sync(sid, "hi")
    with StatefulAgentLoop(llm=ScriptedLLM(), dsn=dsn) as loop:
        assert said(loop.get_messages_sync(sid)) == [("user", "hi"), ("assistant", "Hello.")]


async def test_fifty_from_many_places_arrive_once_and_in_order(make_loop: MakeLoop, dsn: str) -> None:
    gate = Gate()
    loop = make_loop(gate.then("First."), "Second.")
    places = [elsewhere(make_loop, dsn), loop]
    sid = await loop.new_session()
    turn = asyncio.create_task(loop.send("go", session_id=sid))
    await gate.someone()
    left = await asyncio.gather(*(places[n % 2].follow_up(sid, f"{n}") for n in range(50)))
    gate.open()
    await within_limit(turn)
    positions = {left_one.position: f"{n}" for n, left_one in enumerate(left)}
    assert sorted(positions) == list(range(1, 51))
    users = [text for role, text in said(await loop.get_messages(sid)) if role == "user"]
    assert users == ["go", *(positions[n] for n in range(1, 51))]


@pytest.mark.promise("follow-up")
@pytest.mark.parametrize("is_watched", [False, True])
async def test_a_turn_has_its_word_while_others_speak_all_the_time(
    make_loop: MakeLoop, dsn: str, monkeypatch: pytest.MonkeyPatch, is_watched: bool
) -> None:
    # The watch hears of each input before a write meets it, or of none.
    monkeypatch.setattr(watcher, "INTERVAL_S", 86_400)
    loop, other = make_loop("First.", "Second.", "Third."), elsewhere(make_loop, dsn)
    ears = Ears(loop)
    sid = await loop.new_session()
    here, there = await loop.get_store(), await other.get_store()
    spoken: list[str] = []

    def speaking(name: str) -> None:
        move = getattr(here, name)

        async def late(*args: Any, **options: Any) -> Any:
            # Somebody is always faster.
            if len(spoken) < 40 and not ears.of(SendFinished):
                spoken.append(f"{len(spoken)}")
                await there.put_input(sid, NewSend(Message(Role.USER, (TextPart(spoken[-1]),)), "", {}, None))
                if is_watched:
                    [watched] = watcher_of(loop, here)._turns
                    watched.hear(await here.read_news(watched.lease))
            return await move(*args, **options)

        setattr(here, name, late)

    for name in ("append_reply", "take_inputs"):
        speaking(name)
    result = await within_limit(loop.send("go", session_id=sid, limits=SendLimits(max_rounds=2)))
    assert result.final_text == "Second."
    # What the watch has heard of is worth one more look.
    assert len(spoken) < (12 if is_watched else 10), "a write is made again once at most"
    await within_limit(loop._work.ended())
    users = [text for role, text in said(await loop.get_messages(sid)) if role == "user"]
    assert users == ["go", *spoken]


async def test_what_is_heard_while_inputs_are_taken_in_is_taken_in_as_well(make_loop: MakeLoop, dsn: str) -> None:
    gate, hook = Gate(), Gate()
    loop = make_loop(gate.then("First."), "Second.", "Third.")
    sid = await loop.new_session()

    async def slow(context: SendStartContext) -> None:
        if context.is_follow_up and not hook.came:
            await hook.passing()

    loop.hooks.add(HookPoint.SEND_START, slow)
    turn = asyncio.create_task(loop.send("go", session_id=sid))
    await gate.someone()
    await loop.follow_up(sid, "one")
    gate.open()
    await hook.someone()
    await loop.follow_up(sid, "two")
    # The watch hears of it while a hook is asked about the first.
    [watched] = watcher_of(loop, await loop.get_store())._turns
    await within_limit(until_slowly(lambda: watched.lease.signals == 2))
    hook.open()
    assert (await within_limit(turn)).final_text in ("Second.", "Third.")
    assert await loop.get_inbox(sid) == ()
    users = [text for role, text in said(await loop.get_messages(sid)) if role == "user"]
    assert users == ["go", "one", "two"]


async def until_slowly(claim: Callable[[], bool]) -> None:
    while not claim():  # noqa: ASYNC110 - the watch has no event to wait for
        await asyncio.sleep(0.01)
