"""Hooks and models that hang, or raise a cancellation of their own: a turn ends all the same and loses nothing."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from power_loop import LLMResponse, LoopConfig, Message, SendLimits, SendStatus, TextPart, Usage, tool
from power_loop.core.turn import scope
from power_loop.errors import HookError, LLMError
from power_loop.events import HookFailed, SendFinished
from power_loop.hooks import Rewrite, Veto
from power_loop.messages import Role
from power_loop.testing import call, calls

from .conftest import MakeLoop
from .parts import Ears, Gate, Panic, Unprintable, answers, pass_time, said, within_limit


@tool
async def act() -> str:
    """Act."""
    return "acted"


@tool
async def fail() -> str:
    """Fail."""
    raise ValueError("no luck")


TELLING = ["message.append", "round.end", "send.end", "tools.after", "tool.after", "tool.error"]


@pytest.fixture
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scope, "PATIENCE_S", 0.01)


# ---- hooks that hang ----


@pytest.mark.usefixtures("no_patience")
@pytest.mark.parametrize("way", ["cancel", "time"])
@pytest.mark.parametrize("point", TELLING)
async def test_a_hook_that_hangs_where_it_is_told_is_left_behind_by_a_turn_that_is_stopped(
    make_loop: MakeLoop, point: str, way: str
) -> None:
    loop = make_loop(calls(("act", {}), ("fail", {})), "Done.", "More.", tool_registry=[act, fail])
    ears = Ears(loop, types=(HookFailed,))
    gate = Gate()
    handle = loop.hooks.add(point, lambda context: gate.passing(), name="hangs")
    sid = await loop.new_session()
    limits = SendLimits(max_seconds=600) if way == "time" else None
    sending = asyncio.create_task(loop.send("go", session_id=sid, limits=limits))
    await gate.someone()
    if way == "cancel":
        assert await loop.cancel(sid)
    else:
        pass_time(600)
    result = await within_limit(sending)
    stopped = SendStatus.TIME_EXCEEDED if way == "time" else SendStatus.CANCELLED
    assert result.status is (SendStatus.COMPLETED if point == "send.end" else stopped)
    failed = ears.of(HookFailed)
    assert {(one.point, one.hook) for one in failed} == {(point, "hangs")}
    assert "TimeoutError" in failed[0].error
    assert gate.cancelled == gate.came
    if point in ("tool.after", "tool.error", "tools.after", "round.end"):
        # What the calls did is known, and stays so.
        kept = [text for role, text in said(await loop.get_messages(sid)) if role == "tool"]
        assert kept == ["acted", "'fail' failed: ValueError: no luck"]
    handle.remove()
    assert (await loop.send("more", session_id=sid)).is_completed


@pytest.mark.usefixtures("no_patience")
async def test_hooks_behind_one_that_hangs_are_told_too(make_loop: MakeLoop) -> None:
    loop = make_loop("Done.")
    gate, told = Gate(), []

    async def note(context: Any) -> None:
        await asyncio.sleep(0)
        told.append(context.result.status)

    loop.hooks.add("send.end", lambda context: gate.passing())
    loop.hooks.add("send.end", note)
    sid = await loop.new_session()
    sending = asyncio.create_task(loop.send("go", session_id=sid))
    await gate.someone()
    await loop.cancel(sid)
    await within_limit(sending)
    assert told == [SendStatus.COMPLETED]


async def test_a_hook_that_is_about_to_return_is_given_the_time(make_loop: MakeLoop) -> None:
    gate = Gate()

    async def redact(context: Any) -> Rewrite:
        await gate.passing()
        return Rewrite(result="redacted")

    loop = make_loop(call("act"), "Done.", tool_registry=[act])
    loop.hooks.add("tool.after", redact)
    sid = await loop.new_session()
    sending = asyncio.create_task(loop.send("go", session_id=sid))
    await gate.someone()
    await loop.cancel(sid)
    await asyncio.sleep(0)
    gate.open()
    assert (await within_limit(sending)).status is SendStatus.CANCELLED
    assert said(await loop.get_messages(sid))[-1] == ("tool", "redacted")


async def test_the_time_of_a_send_runs_while_hooks_are_asked_about_its_input(make_loop: MakeLoop) -> None:
    loop = make_loop("Done.")
    gate = Gate()
    handle = loop.hooks.add("send.start", lambda context: gate.passing())
    sid = await loop.new_session()
    result = await within_limit(loop.send("go", session_id=sid, limits=SendLimits(max_seconds=0.05)))
    assert (result.status, result.send_index) == (SendStatus.TIME_EXCEEDED, 0)
    assert await loop.get_messages(sid) == ()
    handle.remove()
    assert (await loop.send("go", session_id=sid)).is_completed


@pytest.mark.parametrize("way", ["send", "resume"])
async def test_the_time_of_a_turn_runs_while_it_waits_in_line(make_loop: MakeLoop, way: str) -> None:
    other, gate = make_loop("Done."), Gate()
    loop = make_loop("Never.", config=LoopConfig(limits=SendLimits(max_seconds=0.05)))
    sid = await loop.new_session()
    if way == "resume":
        with pytest.raises(LLMError):
            await make_loop(LLMError("down")).send("go", session_id=sid)
    other.hooks.add("send.start", lambda context: gate.passing())
    ahead = asyncio.create_task(other.send("first", session_id=sid))
    await gate.someone()
    behind = loop.resume(sid) if way == "resume" else loop.send("go", session_id=sid)
    result = await within_limit(behind)
    assert (result.status, result.send_index) == (SendStatus.TIME_EXCEEDED, 0)
    gate.open()
    await within_limit(ahead)


async def test_cancel_finds_a_turn_whose_hooks_are_asked_about_its_input(make_loop: MakeLoop) -> None:
    loop = make_loop("Done.")
    ears = Ears(loop, types=(SendFinished,))
    gate = Gate()
    loop.hooks.add("send.start", lambda context: gate.passing())
    sid = await loop.new_session()
    sending = asyncio.create_task(loop.send("go", session_id=sid))
    await gate.someone()
    assert await loop.cancel(sid, reason="changed my mind")
    result = await within_limit(sending)
    assert (result.status, result.reason) == (SendStatus.CANCELLED, "changed my mind")
    assert [one.result for one in ears.of(SendFinished)] == [result]
    assert await loop.cancel(sid) is False


async def test_cancel_stops_the_turns_that_wait_in_line_too(make_loop: MakeLoop) -> None:
    gate = Gate()
    loop = make_loop(gate.then("Done."))
    sid = await loop.new_session()
    running = asyncio.create_task(loop.send("one", session_id=sid))
    await gate.someone()
    queued = asyncio.create_task(loop.send("two", session_id=sid))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert await loop.cancel(sid)
    results = await within_limit(asyncio.gather(running, queued))
    assert [one.status for one in results] == [SendStatus.CANCELLED] * 2
    assert [text for _, text in said(await loop.get_messages(sid))] == ["one"]


# ---- cancellations that nobody asked for ----


def cancelled(context: Any) -> Any:
    raise asyncio.CancelledError("mine")


async def cancelled_later(context: Any) -> Any:
    await asyncio.sleep(0)
    raise asyncio.CancelledError("mine")


@pytest.mark.parametrize("hook", [cancelled, cancelled_later])
@pytest.mark.parametrize("point", ["send.start", "round.decide", "round.start", "llm.before", "llm.after"])
async def test_a_guarding_hook_that_raises_a_cancellation_has_failed_and_nobody_is_cancelled(
    make_loop: MakeLoop, point: str, hook: Any
) -> None:
    loop = make_loop("Done.", "Done.")
    ears = Ears(loop, types=(HookFailed,))
    handle = loop.hooks.add(point, hook)
    sid = await loop.new_session()
    with pytest.raises(HookError, match="CancelledError: mine"):
        await within_limit(loop.send("go", session_id=sid))
    assert [(one.point, one.error) for one in ears.of(HookFailed)] == [(point, "CancelledError: mine")]
    handle.remove()
    assert (await loop.send("go", session_id=sid)).is_completed


@pytest.mark.parametrize(("error", "words"), [(Panic("no"), "Panic: no"), (Unprintable(), "cannot be printed")])
@pytest.mark.parametrize("point", ["send.start", "round.start", "send.end"])
async def test_whatever_a_hook_raises_it_is_the_hook_that_failed(
    make_loop: MakeLoop, point: str, error: BaseException, words: str
) -> None:
    async def broken(context: Any) -> None:
        raise error

    loop = make_loop("Done.", "Done.")
    ears = Ears(loop, types=(HookFailed,))
    handle = loop.hooks.add(point, broken)
    sid = await loop.new_session()
    with contextlib.suppress(HookError):
        assert (await within_limit(loop.send("go", session_id=sid))).is_completed
        assert point == "send.end"
    [failed] = ears.of(HookFailed)
    assert (failed.point, words in failed.error) == (point, True)
    handle.remove()
    assert (await loop.send("go", session_id=sid)).is_completed


@pytest.mark.parametrize("error", [Panic("no"), Unprintable()])
async def test_whatever_a_model_service_raises_it_is_the_model_that_failed(
    make_loop: MakeLoop, error: BaseException
) -> None:
    loop = make_loop(error, "Done.")
    sid = await loop.new_session()
    with pytest.raises(LLMError, match=f"raised {type(error).__name__}"):
        await loop.send("go", session_id=sid)
    assert (await loop.resume(sid)).final_text == "Done."


@pytest.mark.parametrize("hook", [cancelled, cancelled_later])
@pytest.mark.parametrize("point", TELLING)
async def test_a_telling_hook_that_raises_a_cancellation_has_failed_and_stops_nothing(
    make_loop: MakeLoop, point: str, hook: Any
) -> None:
    loop = make_loop(calls(("act", {}), ("fail", {})), "Done.", tool_registry=[act, fail])
    ears = Ears(loop, types=(HookFailed,))
    loop.hooks.add(point, hook)
    sid = await loop.new_session()
    assert (await within_limit(loop.send("go", session_id=sid))).is_completed
    assert {one.point for one in ears.of(HookFailed)} == {point}
    assert answers(loop.llm.requests[1]) == ["acted", "'fail' failed: ValueError: no luck"]


@pytest.mark.parametrize("point", ["tools.before", "tool.before"])
async def test_a_hook_that_guards_a_call_and_raises_a_cancellation_keeps_it_from_running(
    make_loop: MakeLoop, point: str
) -> None:
    loop = make_loop(call("act"), "Done.", tool_registry=[act])
    loop.hooks.add(point, cancelled_later)
    sid = await loop.new_session()
    assert (await within_limit(loop.send("go", session_id=sid))).is_completed
    assert "was not allowed" in answers(loop.llm.requests[1])[0]


async def test_a_model_service_that_raises_a_cancellation_has_failed(make_loop: MakeLoop) -> None:
    loop = make_loop(cancelled_later, "Done.")
    sid = await loop.new_session()
    with pytest.raises(LLMError, match="the model service raised CancelledError: mine"):
        await within_limit(loop.send("go", session_id=sid))
    assert (await loop.resume(sid)).is_completed


async def test_a_time_limit_of_a_hook_on_itself_is_its_own_affair(make_loop: MakeLoop) -> None:
    loop = make_loop("Done.")

    async def impatient(context: Any) -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.get_running_loop().create_future(), 0.001)

    for point in ("send.start", "message.append", "send.end"):
        loop.hooks.add(point, impatient)
    sid = await loop.new_session()
    assert (await within_limit(loop.send("go", session_id=sid))).is_completed


async def test_a_shutdown_in_the_middle_of_a_hook_keeps_what_its_call_did(make_loop: MakeLoop) -> None:
    gate = Gate()
    loop = make_loop(call("act"), "Done.", tool_registry=[act])
    loop.hooks.add("tool.after", lambda context: gate.passing())
    sid = await loop.new_session()
    sending = asyncio.create_task(loop.send("go", session_id=sid))
    await gate.someone()
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await within_limit(sending)
    assert said(await loop.get_messages(sid))[-1] == ("tool", "acted")
    send = await (await loop.get_store()).get_send(sid)
    assert send is not None
    assert send.status is SendStatus.CANCELLED


# ---- what is announced and counted ----


async def test_a_vetoed_input_is_announced_to_subscribers_and_to_its_stream(make_loop: MakeLoop) -> None:
    loop = make_loop()
    loop.hooks.add("send.start", lambda context: Veto("not today"))
    ears = Ears(loop, types=(SendFinished,))
    sid = await loop.new_session()
    async with loop.stream("go", session_id=sid) as events:
        seen = [event.payload async for event in events]
    assert events.result.status is SendStatus.VETOED
    assert seen == [SendFinished(events.result)]
    assert ears.of(SendFinished) == seen


@pytest.mark.parametrize("point", ["send.start", "round.decide", "round.start", "llm.before", "llm.after"])
async def test_a_guarding_hook_that_raises_is_announced(make_loop: MakeLoop, point: str) -> None:
    loop = make_loop("Done.")
    ears = Ears(loop, types=(HookFailed,))
    loop.hooks.add(point, lambda context: {}["gone"], name="guard")
    with pytest.raises(HookError):
        await loop.send("go", session_id=await loop.new_session())
    assert ears.of(HookFailed) == [HookFailed(point, "guard", "KeyError: 'gone'")]


def a_reply(text: str, usage: Usage | None = None) -> LLMResponse:
    return LLMResponse(Message(Role.ASSISTANT, (TextPart(text),)), usage=usage)


async def test_a_reply_that_hooks_keep_out_of_the_log_is_counted_all_the_same(make_loop: MakeLoop) -> None:
    loop = make_loop(a_reply("secret", Usage(100, 20)), a_reply("fine", Usage(7, 5)))
    handle = loop.hooks.add("llm.after", lambda context: Veto("secrets"))
    sid = await loop.new_session()
    result = await loop.send("go", session_id=sid, request_id="r1")
    assert (result.status, result.usage.total_tokens) == (SendStatus.VETOED, 120)
    handle.remove()
    assert (await make_loop().send("go", session_id=sid, request_id="r1")).usage == result.usage


async def test_a_reply_that_was_lost_to_a_failing_hook_counts_over_a_resume(make_loop: MakeLoop) -> None:
    loop = make_loop(a_reply("lost", Usage(100, 20)), a_reply("fine", Usage(7, 5)))
    handle = loop.hooks.add("llm.after", lambda context: {}["gone"])
    sid = await loop.new_session()
    with pytest.raises(HookError):
        await loop.send("go", session_id=sid, request_id="r1")
    handle.remove()
    result = await loop.resume(sid)
    assert result.usage.total_tokens == 132
    assert (await loop.send("go", session_id=sid, request_id="r1")).usage == result.usage


async def test_a_rewritten_reply_costs_what_the_reply_did(make_loop: MakeLoop) -> None:
    loop = make_loop(a_reply("secret", Usage(100, 20)))
    loop.hooks.add("llm.after", lambda context: Rewrite(response=a_reply("fine")))
    result = await loop.send("go", session_id=await loop.new_session())
    assert (result.final_text, result.usage) == ("fine", Usage(100, 20))
