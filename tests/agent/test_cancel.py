"""Cancelling: from wherever it comes and whatever runs, the turn ends, and the session is ready."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from power_loop import CancellationToken, HookPoint, SendStatus, StatefulAgentLoop, StatefulResult, ToolContext, tool
from power_loop.core.turn import threads
from power_loop.events import SendFinished, ToolCallFinished, ToolCallStarted
from power_loop.messages import ToolResultPart
from power_loop.testing import call, calls

from .conftest import MakeLoop
from .parts import LIMIT_S, Ears, Gate, answers, pass_time, said, until, within_limit

#: Ways to cancel: each starts a send and gives what cancels it.
Way = Callable[[StatefulAgentLoop, str], tuple["asyncio.Task[StatefulResult]", Callable[[], Any]]]


def by_id(loop: StatefulAgentLoop, sid: str) -> Any:
    turn = asyncio.create_task(loop.send("go", session_id=sid))
    return turn, lambda: asyncio.ensure_future(loop.cancel(sid))


def by_token(loop: StatefulAgentLoop, sid: str) -> Any:
    token = CancellationToken()
    return asyncio.create_task(loop.send("go", session_id=sid, cancellation=token)), token.cancel


def by_asyncio_event(loop: StatefulAgentLoop, sid: str) -> Any:
    event = asyncio.Event()
    return asyncio.create_task(loop.send("go", session_id=sid, cancellation=event)), event.set


def by_threading_event(loop: StatefulAgentLoop, sid: str) -> Any:
    event = threading.Event()
    return asyncio.create_task(loop.send("go", session_id=sid, cancellation=event)), event.set


def by_token_in_a_thread(loop: StatefulAgentLoop, sid: str) -> Any:
    token = CancellationToken()
    turn = asyncio.create_task(loop.send("go", session_id=sid, cancellation=token))
    return turn, threading.Thread(target=token.cancel).start


WAYS = [by_id, by_token, by_asyncio_event, by_threading_event, by_token_in_a_thread]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.promise("cancel")
async def test_a_turn_is_cancelled_in_a_model_call_by_whatever_says_so(make_loop: MakeLoop, way: Way) -> None:
    gate = Gate()
    loop = make_loop(gate.then("Never."), "Fine.")
    sid = await loop.new_session()
    turn, cancel = way(loop, sid)
    await gate.someone()
    cancel()
    # The model would never have answered.
    result = await within_limit(turn)
    assert (result.status, result.final_text) == (SendStatus.CANCELLED, "")
    assert gate.cancelled == 1
    assert (await loop.send("again", session_id=sid)).final_text == "Fine."
    assert said(loop.llm.requests[1].messages) == [("user", "go"), ("user", "again")]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.promise("cancel")
async def test_a_turn_is_cancelled_in_its_tools_and_every_call_is_settled(make_loop: MakeLoop, way: Way) -> None:
    gate, go_on, entered = Gate(), threading.Event(), threading.Event()
    tokens: list[CancellationToken] = []

    @tool
    async def wait(ctx: ToolContext) -> str:
        """Wait."""
        tokens.append(ctx.cancellation)
        await gate.passing()
        return "never"

    @tool
    def block(ctx: ToolContext) -> str:
        """Block."""
        tokens.append(ctx.cancellation)
        entered.set()
        go_on.wait(LIMIT_S)
        return "too late"

    @tool
    async def quick() -> str:
        """Be quick."""
        return "was quick"

    loop = make_loop(calls(("wait", {}), ("quick", {}), ("block", {})), "Fine.", tool_registry=[wait, block, quick])
    ears = Ears(loop, types=(ToolCallFinished, SendFinished))
    sid = await loop.new_session()
    try:
        turn, cancel = way(loop, sid)
        await gate.someone()
        await within_limit(until(lambda: entered.is_set() and len(ears.of(ToolCallFinished)) == 1))
        cancel()
        result = await within_limit(turn)
        assert result.status is SendStatus.CANCELLED
        assert gate.cancelled == 1
        assert all(token.is_cancelled for token in tokens)
        assert await loop.get_pending(sid) == ()
        assert (await loop.send("again", session_id=sid)).final_text == "Fine."
    finally:
        go_on.set()
    told = answers(loop.llm.requests[1])
    assert "cancelled while it ran" in told[0]
    assert told[1] == "was quick", "a sibling that had finished keeps its result"
    assert "may still be running" in told[2]
    finished = {one.name: one.state for one in ears.of(ToolCallFinished)}
    assert finished == {"wait": "aborted", "quick": "succeeded", "block": "aborted"}


async def test_the_late_outcome_of_a_cancelled_thread_changes_nothing(make_loop: MakeLoop) -> None:
    go_on, entered, left = threading.Event(), threading.Event(), threading.Event()

    @tool
    def block(ctx: ToolContext) -> str:
        """Block."""
        entered.set()
        go_on.wait(LIMIT_S)
        ctx.progress("too late")
        left.set()
        return "too late"

    loop = make_loop(call("block"), "Fine.", "Still fine.", tool_registry=[block])
    sid = await loop.new_session()
    turn = asyncio.create_task(loop.send("go", session_id=sid))
    await within_limit(until(entered.is_set))
    await loop.cancel(sid)
    await within_limit(turn)
    await loop.send("again", session_id=sid)
    go_on.set()
    await within_limit(until(left.is_set))
    await loop.send("again", session_id=sid)
    assert [text for _, text in said(await loop.get_messages(sid))].count("too late") == 0


async def test_cancelling_the_task_of_a_send_brings_the_turn_to_rest_before_it_is_raised(make_loop: MakeLoop) -> None:
    gate = Gate()
    loop = make_loop(gate.then("Never."), "Fine.")
    ears = Ears(loop)
    sid = await loop.new_session()
    turn = asyncio.create_task(loop.send("go", session_id=sid))
    await gate.someone()
    turn.cancel()
    with pytest.raises(asyncio.CancelledError):
        await within_limit(turn)
    [finished] = ears.of(SendFinished)
    assert finished.result.status is SendStatus.CANCELLED
    assert finished.result.reason == "its task was cancelled"
    assert (await loop.send("again", session_id=sid)).final_text == "Fine."


async def test_a_time_limit_of_the_application_ends_a_send(make_loop: MakeLoop) -> None:
    gate = Gate()
    loop = make_loop(gate.then("Never."), "Fine.")
    sid = await loop.new_session()
    sending = asyncio.create_task(asyncio.wait_for(loop.send("go", session_id=sid), 1_000))
    await gate.someone()
    pass_time(1_000)
    with pytest.raises(asyncio.TimeoutError):
        await within_limit(sending)
    assert gate.cancelled == 1
    assert (await loop.send("again", session_id=sid)).final_text == "Fine."


async def test_cancelling_twice_and_three_times_is_cancelling(make_loop: MakeLoop) -> None:
    gate = Gate()
    loop = make_loop(gate.then("Never."), "Fine.")
    sid = await loop.new_session()
    token = CancellationToken()
    turn = asyncio.create_task(loop.send("go", session_id=sid, cancellation=token))
    await gate.someone()
    token.cancel("first")
    await loop.cancel(sid, reason="second")
    turn.cancel()
    turn.cancel()
    with pytest.raises(asyncio.CancelledError):
        await within_limit(turn)
    again = await loop.resume(sid)
    assert (again.status, again.reason) == (SendStatus.CANCELLED, "first")
    assert (await loop.send("again", session_id=sid)).final_text == "Fine."


async def test_a_reason_is_kept_with_the_result(make_loop: MakeLoop) -> None:
    gate = Gate()
    loop = make_loop(gate.then("Never."))
    sid = await loop.new_session()
    turn = asyncio.create_task(loop.send("go", session_id=sid, request_id="r"))
    await gate.someone()
    assert await loop.cancel(sid, reason="the user left") is True
    assert (await within_limit(turn)).reason == "the user left"
    recorded = await make_loop().send("go", session_id=sid, request_id="r")
    assert (recorded.status, recorded.reason, recorded.is_replayed) == (SendStatus.CANCELLED, "the user left", True)


async def test_where_nothing_runs_there_is_nothing_to_cancel(make_loop: MakeLoop) -> None:
    loop = make_loop("Fine.", "Fine.")
    sid = await loop.new_session()
    assert await loop.cancel(sid) is False
    await loop.send("go", session_id=sid)
    assert await loop.cancel(sid) is False
    assert (await loop.send("go", session_id=sid)).is_completed, "a cancel that came too late hits no later turn"


async def test_another_handle_of_the_process_cancels_a_turn(make_loop: MakeLoop) -> None:
    gate = Gate()
    loop, other = make_loop(gate.then("Never.")), make_loop()
    sid = await loop.new_session()
    turn = asyncio.create_task(loop.send("go", session_id=sid))
    await gate.someone()
    assert await other.cancel(sid) is True
    assert (await within_limit(turn)).status is SendStatus.CANCELLED


async def test_a_turn_that_begins_while_cancel_reads_the_store_is_not_waited_for(
    make_loop: MakeLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    loop = make_loop(gate.then("Never."))
    sid = await loop.new_session()
    store = await loop.get_store()
    read = store.get_session
    turns: list[asyncio.Task[StatefulResult]] = []

    async def read_as_a_turn_begins(session_id: str) -> Any:
        head = await read(session_id)
        if not turns:
            turns.append(asyncio.create_task(loop.send("go", session_id=sid)))
            await gate.someone()
        return head

    monkeypatch.setattr(store, "get_session", read_as_a_turn_begins)
    assert await within_limit(asyncio.ensure_future(loop.cancel(sid))) is True
    assert (await within_limit(turns[0])).status is SendStatus.CANCELLED


@pytest.mark.parametrize("make", [CancellationToken, asyncio.Event, threading.Event])
async def test_a_send_that_is_cancelled_before_it_begins_stores_nothing(
    make_loop: MakeLoop, make: Callable[[], Any]
) -> None:
    loop = make_loop("Fine.")
    sid = await loop.new_session()
    cancelled = make()
    cancelled.cancel() if isinstance(cancelled, CancellationToken) else cancelled.set()
    result = await within_limit(loop.send("go", session_id=sid, cancellation=cancelled))
    assert (result.status, result.send_index) == (SendStatus.CANCELLED, 0)
    async with loop.stream("go", session_id=sid, cancellation=cancelled) as events:
        result = await within_limit(events.wait())
    assert (result.status, result.send_index) == (SendStatus.CANCELLED, 0)
    assert await loop.get_messages(sid) == ()
    assert (await loop.send("go", session_id=sid)).send_index == 1


@pytest.mark.parametrize(
    "point",
    [
        HookPoint.SEND_START,
        HookPoint.ROUND_START,
        HookPoint.ROUND_DECIDE,
        HookPoint.LLM_BEFORE,
        HookPoint.LLM_AFTER,
        HookPoint.TOOLS_BEFORE,
        HookPoint.TOOL_BEFORE,
    ],
)
async def test_a_hook_that_never_answers_is_cancelled_with_its_turn(make_loop: MakeLoop, point: HookPoint) -> None:
    ran: list[str] = []

    @tool
    def act() -> str:
        """Act."""
        ran.append("act")
        return "acted"

    gate = Gate()
    loop = make_loop(call("act"), "Fine.", "Fine.", "Fine.", tool_registry=[act])

    async def hang(context: Any) -> None:
        await gate.passing()

    handle = loop.hooks.add(point, hang)
    sid = await loop.new_session()
    turn = asyncio.create_task(loop.send("go", session_id=sid))
    await gate.someone()
    turn.cancel()
    with pytest.raises(asyncio.CancelledError):
        await within_limit(turn)
    assert gate.cancelled == 1
    assert ran == []
    handle.remove()
    assert await loop.get_pending(sid) == ()
    result = await within_limit(loop.send("again", session_id=sid))
    assert result.final_text == "Fine."


async def test_a_reply_that_came_as_the_turn_was_cancelled_is_kept(make_loop: MakeLoop) -> None:
    loop = make_loop(call("act", text="I will act."), "Fine.", tool_registry=[act_never])
    sid = await loop.new_session()

    async def cancel_then_go_on(context: Any) -> None:
        if loop.llm.requests:
            await loop.cancel(sid)

    loop.hooks.add(HookPoint.ROUND_DECIDE, cancel_then_go_on)
    result = await within_limit(loop.send("go", session_id=sid))
    assert (result.status, result.final_text) == (SendStatus.CANCELLED, "I will act.")
    assert (await loop.resume(sid)).final_text == "I will act."
    stats = await loop.get_session_stats(sid)
    assert (stats.model_calls, stats.usage.total_tokens) == (1, 15), "what was paid for is on record"
    assert await loop.get_pending(sid) == ()


@tool
def act_never() -> str:
    """Never act."""
    raise AssertionError("it must not run")


async def test_a_handler_that_ignores_its_cancellation_holds_nothing_up(make_loop: MakeLoop) -> None:
    gate, over = Gate(), asyncio.Event()

    @tool
    async def stubborn() -> str:
        """Go on."""
        while True:
            try:
                await gate.passing()
            except asyncio.CancelledError:
                continue
            over.set()
            return "too late"

    loop = make_loop(call("stubborn"), "Fine.", tool_registry=[stubborn])
    sid = await loop.new_session()
    turn = asyncio.create_task(loop.send("go", session_id=sid))
    await gate.someone()
    await loop.cancel(sid)
    assert (await within_limit(turn)).status is SendStatus.CANCELLED
    assert (await loop.send("again", session_id=sid)).final_text == "Fine."
    assert "may still be running" in answers(loop.llm.requests[1])[0]
    gate.open()
    await within_limit(over.wait())
    await asyncio.sleep(0)


async def test_a_handler_may_clean_up_when_it_is_cancelled(make_loop: MakeLoop) -> None:
    gate = Gate()
    cleaned: list[str] = []

    @tool
    async def careful() -> str:
        """Be careful."""
        try:
            await gate.passing()
        finally:
            await asyncio.sleep(0)
            cleaned.append("all")
        return "never"

    loop = make_loop(call("careful"), tool_registry=[careful])
    sid = await loop.new_session()
    turn = asyncio.create_task(loop.send("go", session_id=sid))
    await gate.someone()
    await loop.cancel(sid)
    await within_limit(turn)
    assert cleaned == ["all"]


async def test_a_handler_that_finishes_in_the_face_of_its_cancellation_keeps_its_result(make_loop: MakeLoop) -> None:
    gate = Gate()

    @tool
    async def firm() -> str:
        """Finish."""
        try:
            await gate.passing()
        except asyncio.CancelledError:
            return "finished all the same"
        return "never"

    loop = make_loop(call("firm"), "Fine.", tool_registry=[firm])
    sid = await loop.new_session()
    turn = asyncio.create_task(loop.send("go", session_id=sid))
    await gate.someone()
    await loop.cancel(sid)
    assert (await within_limit(turn)).status is SendStatus.CANCELLED
    await loop.send("again", session_id=sid)
    assert answers(loop.llm.requests[1]) == ["finished all the same"]


async def test_calls_that_had_not_begun_are_answered_as_not_run(make_loop: MakeLoop) -> None:
    gate = Gate()
    ran: list[int] = []

    @tool(parallel=False)
    async def step(n: int) -> str:
        """Step."""
        ran.append(n)
        await gate.passing()
        return "never"

    loop = make_loop(calls(*(("step", {"n": n}) for n in range(3))), "Fine.", tool_registry=[step])
    sid = await loop.new_session()
    turn = asyncio.create_task(loop.send("go", session_id=sid))
    await gate.someone()
    await loop.cancel(sid)
    await within_limit(turn)
    assert ran == [0]
    await loop.send("again", session_id=sid)
    told = answers(loop.llm.requests[1])
    assert ["before it ran" in text for text in told] == [False, True, True]


async def test_a_resume_is_cancelled_like_a_send(make_loop: MakeLoop) -> None:
    gate = Gate()
    loop = make_loop(RuntimeError("down"), gate.then("Never."), "Fine.")
    sid = await loop.new_session()
    with pytest.raises(Exception, match="down"):
        await loop.send("go", session_id=sid)
    token = CancellationToken()
    turn = asyncio.create_task(loop.resume(sid, cancellation=token))
    await gate.someone()
    token.cancel()
    assert (await within_limit(turn)).status is SendStatus.CANCELLED
    assert (await loop.send("again", session_id=sid)).final_text == "Fine."


async def test_one_token_may_stop_many_sends(make_loop: MakeLoop) -> None:
    gate = Gate()
    loop = make_loop(*[gate.then("Never.")] * 10)
    token = CancellationToken()
    sids = [await loop.new_session() for _ in range(10)]
    turns = [asyncio.create_task(loop.send("go", session_id=sid, cancellation=token)) for sid in sids]
    await within_limit(until(lambda: gate.came == 10))
    token.cancel()
    results = await within_limit(asyncio.gather(*turns))
    assert {result.status for result in results} == {SendStatus.CANCELLED}


async def test_a_token_forgets_the_sends_that_are_over(make_loop: MakeLoop) -> None:
    loop = make_loop(*["Fine."] * 20)
    sid = await loop.new_session()
    token, event = CancellationToken(), threading.Event()
    for _ in range(5):
        await loop.send("go", session_id=sid, cancellation=token)
        await loop.send("go", session_id=sid, cancellation=event)
        async with loop.stream("go", session_id=sid, cancellation=token) as events:
            await events.wait()
    assert token._callbacks == {}
    token.cancel()
    assert (await loop.send("go", session_id=sid)).is_completed


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tasks count their cancellations since 3.11")
async def test_hooks_behind_a_cancellation_run_in_a_task_that_is_not_cancelled(make_loop: MakeLoop) -> None:
    gate = Gate()
    counts: list[int] = []
    loop = make_loop(gate.then("Never."))
    loop.hooks.add(HookPoint.SEND_END, lambda context: counts.append(asyncio.current_task().cancelling()))
    sid = await loop.new_session()
    turn = asyncio.create_task(loop.send("go", session_id=sid))
    await gate.someone()
    await loop.cancel(sid)
    await within_limit(turn)
    assert counts == [0]


async def test_cancelling_every_task_there_is_leaves_sessions_that_are_ready(make_loop: MakeLoop) -> None:
    """A server that shuts down cancels all tasks, the loop's own among them."""
    gate = Gate()

    @tool
    async def wait() -> str:
        """Wait."""
        await gate.passing()
        return "never"

    loop = make_loop(gate.then("Never."), call("wait"), tool_registry=[wait])
    first, second = await loop.new_session(), await loop.new_session()
    turns = [asyncio.create_task(loop.send("go", session_id=sid)) for sid in (first, second)]
    await within_limit(until(lambda: gate.came == 2))
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await within_limit(asyncio.wait(tasks))
    assert all(turn.cancelled() for turn in turns)
    loop.llm.add("Fine.", "Fine.")
    for sid in (first, second):
        assert await loop.get_pending(sid) == ()
        assert (await loop.send("again", session_id=sid)).final_text == "Fine."
        asked = {part.id for one in loop.llm.requests[-1].messages for part in one.tool_calls}
        answered = {
            part.call_id
            for one in loop.llm.requests[-1].messages
            for part in one.parts
            if isinstance(part, ToolResultPart)
        }
        assert asked == answered


async def test_what_a_call_did_is_kept_when_the_turn_is_cancelled_before_the_next_one(make_loop: MakeLoop) -> None:
    gate = Gate()

    @tool(parallel=False)
    async def step(n: int) -> str:
        """Step."""
        return f"did {n}"

    async def hold_second(context: Any) -> None:
        if context.call.arguments["n"] == 1:
            await gate.passing()

    loop = make_loop(calls(("step", {"n": 0}), ("step", {"n": 1})), "Fine.", tool_registry=[step])
    loop.hooks.add(HookPoint.TOOL_BEFORE, hold_second)
    sid = await loop.new_session()
    turn = asyncio.create_task(loop.send("go", session_id=sid))
    await gate.someone()
    await loop.cancel(sid)
    assert (await within_limit(turn)).status is SendStatus.CANCELLED
    await loop.send("again", session_id=sid)
    told = answers(loop.llm.requests[1])
    assert told[0] == "did 0"
    assert "before it ran" in told[1]


async def test_what_a_call_did_is_durable_before_the_next_one_begins(make_loop: MakeLoop) -> None:
    states: list[list[str]] = []

    @tool(parallel=False)
    async def strike() -> str:
        """Strike."""
        return "struck"

    @tool(effect="read")
    async def look() -> str:
        """Look."""
        states.append([one.name for one in await loop.get_pending(sid)])
        return "seen"

    loop = make_loop(calls(("strike", {}), ("look", {})), "Fine.", tool_registry=[strike, look])
    sid = await loop.new_session()
    await loop.send("go", session_id=sid)
    assert states == [["look"]]


@pytest.mark.parametrize("how", ["cancelled", "timeout"])
async def test_a_call_that_waits_for_a_thread_is_never_run_once_it_is_given_up(
    make_loop: MakeLoop, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(threads, "MAX_THREADS", 1)
    gate, entered = threading.Event(), threading.Event()
    ran: list[str] = []

    @tool
    def hold() -> str:
        """Hold the only thread."""
        entered.set()
        gate.wait(LIMIT_S)
        ran.append("hold")
        return "held"

    @tool(timeout_s=0.02 if how == "timeout" else None)
    def pay() -> str:
        """Pay."""
        ran.append("pay")
        return "paid"

    script = [calls(("hold", {}), ("pay", {})), *(["Done."] if how == "timeout" else []), "Fine."]
    loop = make_loop(*script, tool_registry=[hold, pay])
    ears = Ears(loop)
    sid = await loop.new_session()
    turn = asyncio.create_task(loop.send("a", session_id=sid))
    assert await asyncio.to_thread(entered.wait, LIMIT_S)
    if how == "timeout":
        await until(lambda: any(one.name == "pay" for one in ears.of(ToolCallFinished)))
        gate.set()
    else:
        await until(lambda: len(ears.of(ToolCallStarted)) == 2)
        await loop.cancel(sid)
    await within_limit(turn)
    gate.set()
    await loop.send("b", session_id=sid)
    told = answers(loop.llm.requests[-1])[1]
    assert "not run" in told if how == "timeout" else "cancelled before it ran" in told
    assert "It had no effect." in told

    @tool
    def last() -> str:
        """Come behind all that was queued."""
        return "last"

    loop.tools.register(last)
    loop.llm.add(call("last"), "Done.")
    await within_limit(loop.send("c", session_id=sid))
    assert ran == ["hold"]


@pytest.mark.parametrize("way", ["its task", "every task"])
async def test_a_send_that_is_cancelled_at_any_step_leaves_no_coroutine_behind(make_loop: MakeLoop, way: str) -> None:
    loop = make_loop(*["Fine."] * 40)
    loop.hooks.add("send.end", lambda context: asyncio.sleep(0))
    sids = [await loop.new_session() for _ in range(20)]
    gc.collect()  # what other tests left is not told of here
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for steps, sid in enumerate(sids):
            sending = asyncio.create_task(loop.send("go", session_id=sid))
            for _ in range(steps):
                await asyncio.sleep(0)
            if way == "its task":
                sending.cancel()
            else:
                for task in asyncio.all_tasks() - {asyncio.current_task()}:
                    task.cancel()
            await within_limit(asyncio.wait({sending}))
            del sending
        gc.collect()
    assert [str(one.message) for one in caught if "never awaited" in str(one.message)] == []
    for sid in sids:
        assert (await loop.send("go", session_id=sid)).is_completed
