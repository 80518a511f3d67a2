"""Turns inside of turns: a hook or a tool may use any session but the one whose turn waits for it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from power_loop import HookPoint, SendStatus, ToolContext, tool
from power_loop.core.turn import chain
from power_loop.errors import InputError
from power_loop.events import HookFailed
from power_loop.testing import call

from .conftest import MakeLoop
from .parts import Ears, answers, error_answers, said, until, within_limit


@pytest.mark.parametrize("point", [HookPoint.SEND_END, HookPoint.MESSAGE_APPEND, HookPoint.ROUND_END])
async def test_a_hook_that_would_wait_for_its_own_turn_is_told_so(make_loop: MakeLoop, point: HookPoint) -> None:
    loop = make_loop("Fine.", "Fine.")
    ears = Ears(loop, types=(HookFailed,))
    sid = await loop.new_session()

    async def send_again(context: Any) -> None:
        await loop.send("again", session_id=context.session_id)

    handle = loop.hooks.add(point, send_again)
    result = await within_limit(loop.send("go", session_id=sid))
    assert result.is_completed
    assert all("wait for itself" in one.error for one in ears.of(HookFailed))
    assert ears.of(HookFailed)
    handle.remove()
    assert (await loop.send("more", session_id=sid)).is_completed


@pytest.mark.parametrize("way", ["send", "stream", "resume", "heal"])
async def test_a_tool_that_would_wait_for_its_own_turn_is_told_so(make_loop: MakeLoop, way: str) -> None:
    @tool
    async def recurse(ctx: ToolContext) -> str:
        """Ask oneself."""
        if way == "send":
            await loop.send("again", session_id=ctx.session_id)
        elif way == "resume":
            await loop.resume(ctx.session_id)
        elif way == "heal":
            await loop.heal_pending(ctx.session_id)
        else:
            async with loop.stream("again", session_id=ctx.session_id) as events:
                await events.wait()
        return "never"

    loop = make_loop(call("recurse"), "Fine.", tool_registry=[recurse])
    sid = await loop.new_session()
    result = await within_limit(loop.send("go", session_id=sid))
    assert result.status is SendStatus.COMPLETED
    [told] = error_answers(loop.llm.requests[1])
    assert "wait for itself" in told


@pytest.mark.parametrize("way", ["gather", "wait_for", "task", "thread"])
async def test_a_tool_that_waits_for_its_own_turn_through_another_task_is_told_so(
    make_loop: MakeLoop, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(chain, "SUSPENSE_S", 0.01)
    running = asyncio.get_running_loop()

    @tool
    async def recurse(ctx: ToolContext) -> str:
        """Ask oneself."""
        sending = loop.send("again", session_id=ctx.session_id)
        if way == "gather":
            await asyncio.gather(sending, asyncio.sleep(0))
        elif way == "wait_for":
            await asyncio.wait_for(sending, 600)
        else:
            await asyncio.create_task(sending)
        return "never"

    @tool(name="recurse")
    def recurse_in_thread(ctx: ToolContext) -> str:
        """Ask oneself."""
        asyncio.run_coroutine_threadsafe(loop.send("again", session_id=ctx.session_id), running).result(600)
        return "never"

    loop = make_loop(call("recurse"), "Fine.", tool_registry=[recurse_in_thread if way == "thread" else recurse])
    sid = await loop.new_session()
    assert (await within_limit(loop.send("go", session_id=sid))).is_completed
    assert "wait for itself" in error_answers(loop.llm.requests[1])[0]


async def test_a_task_that_a_tool_starts_goes_on_with_its_session_behind_the_turn(make_loop: MakeLoop) -> None:
    begun: list[asyncio.Task[Any]] = []

    @tool
    async def follow_up(ctx: ToolContext) -> str:
        """Go on later."""
        begun.append(asyncio.create_task(loop.send("go on", session_id=ctx.session_id)))
        await asyncio.sleep(0)
        return "later"

    loop = make_loop(call("follow_up"), "One.", "Two.", tool_registry=[follow_up])
    sid = await loop.new_session()
    assert (await within_limit(loop.send("go", session_id=sid))).final_text == "One."
    await within_limit(until(lambda: begun[0].done()))
    assert begun[0].result().final_text == "Two."


async def test_a_tool_may_hold_a_conversation_in_another_session(make_loop: MakeLoop) -> None:
    @tool
    async def delegate(task: str) -> str:
        """Delegate."""
        child = await loop.new_session()
        return (await loop.send(task, session_id=child, tools=[])).final_text

    loop = make_loop(call("delegate", {"task": "think"}), "Thought.", "Done.", tool_registry=[delegate])
    sid = await loop.new_session()
    assert (await within_limit(loop.send("go", session_id=sid))).final_text == "Done."
    assert answers(loop.llm.requests[2]) == ["Thought."]


async def test_a_circle_of_sessions_is_found(make_loop: MakeLoop) -> None:
    ids: list[str] = []

    @tool
    async def ask_other(ctx: ToolContext) -> str:
        """Ask the other session."""
        other = ids[1] if ctx.session_id == ids[0] else ids[0]
        return (await loop.send("over to you", session_id=other)).final_text

    loop = make_loop(call("ask_other"), call("ask_other"), "Second.", "First.", tool_registry=[ask_other])
    ids += [await loop.new_session(), await loop.new_session()]
    result = await within_limit(loop.send("go", session_id=ids[0]))
    assert result.final_text == "First."
    assert "wait for itself" in error_answers(loop.llm.requests[2])[0]


@pytest.mark.parametrize("point", [HookPoint.SEND_END, HookPoint.LLM_BEFORE])
async def test_a_task_that_a_hook_starts_goes_on_with_its_session_behind_the_turn(
    make_loop: MakeLoop, point: HookPoint
) -> None:
    loop = make_loop("One.", "Two.")
    sid = await loop.new_session()
    begun: list[asyncio.Task[Any]] = []

    async def go_on(context: Any) -> None:
        if not begun:
            begun.append(asyncio.create_task(loop.send("go on", session_id=context.session_id)))
            # The task stands in line while its turn still runs.
            await asyncio.sleep(0)

    loop.hooks.add(point, go_on)
    await loop.send("go", session_id=sid)
    await within_limit(until(lambda: begun[0].done()))
    assert begun[0].result().final_text == "Two."
    assert [text for _, text in said(await loop.get_messages(sid))] == ["go", "One.", "go on", "Two."]


async def test_the_same_id_in_another_store_is_another_session(make_loop: MakeLoop) -> None:
    @tool
    async def elsewhere(ctx: ToolContext) -> str:
        """Ask elsewhere."""
        return (await other.send("hello", session_id=ctx.session_id)).final_text

    loop = make_loop(call("elsewhere"), "Done.", tool_registry=[elsewhere])
    other = make_loop("From afar.", table_prefix="other_")
    for one in (loop, other):
        await one.new_session(session_id="same")
    assert (await within_limit(loop.send("go", session_id="same"))).final_text == "Done."
    assert answers(loop.llm.requests[1]) == ["From afar."]


async def test_a_guarding_hook_that_would_wait_for_its_own_turn_stops_the_send(make_loop: MakeLoop) -> None:
    loop = make_loop("Fine.")
    sid = await loop.new_session()

    async def send_again(context: Any) -> None:
        await loop.send("again", session_id=sid)

    handle = loop.hooks.add(HookPoint.SEND_START, send_again)
    with pytest.raises(Exception, match="wait for itself") as caught:
        await within_limit(loop.send("go", session_id=sid))
    assert isinstance(caught.value.__cause__, InputError)
    handle.remove()
    assert (await loop.send("go", session_id=sid)).is_completed
