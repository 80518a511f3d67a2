"""Hooks through a loop: every point is passed, every decision does what it says, and a raise does no harm."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from power_loop import (
    HookPoint,
    Hooks,
    LLMRequest,
    LLMResponse,
    SendStatus,
    SessionState,
    StatefulAgentLoop,
    TextPart,
    ToolResult,
    tool,
)
from power_loop.errors import HookError, SessionNotFoundError
from power_loop.events import HookFailed, SendFailed
from power_loop.hooks import (
    HookContext,
    LLMAfterContext,
    LLMBeforeContext,
    MessageAppendContext,
    Park,
    RequireApproval,
    Rewrite,
    RoundDecideContext,
    RoundEndContext,
    SendEndContext,
    SendStartContext,
    Skip,
    ToolAfterContext,
    ToolBeforeContext,
    ToolErrorContext,
    ToolsAfterContext,
    ToolsBeforeContext,
    Veto,
)
from power_loop.messages import Role
from power_loop.testing import call, calls

from .conftest import MakeLoop
from .parts import Ears, Watch, answers, error_answers, said, within_limit

RAN: list[Any] = []


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    RAN.clear()


@tool
def act(n: int = 0) -> str:
    """Act."""
    RAN.append(n)
    return f"acted {n}"


@tool(effect="read")
def fail() -> str:
    """Fail."""
    raise ValueError("no luck")


def always(decision: Any) -> Callable[[HookContext], Any]:
    """Return a hook that decides the same every time."""
    return lambda context: decision


def once(decision: Any) -> Callable[[HookContext], Any]:
    """Return a hook that decides so at its first call."""
    left = [decision]
    return lambda context: left.pop() if left else None


async def a_turn(make_loop: MakeLoop, *steps: Any, **options: Any) -> tuple[StatefulAgentLoop, str]:
    loop = make_loop(*steps, tool_registry=[act, fail], **options)
    return loop, await loop.new_session(metadata={"tenant": "t1"})


# ---- every point ----


@pytest.mark.promise("hooks")
async def test_every_point_is_passed_in_order_and_knows_session_send_and_round(make_loop: MakeLoop) -> None:
    loop = make_loop(calls(("act", {}), ("fail", {})), "Done.", tool_registry=[act, fail])
    watch = Watch(loop)
    sid = await loop.new_session(metadata={"tenant": "t1"})
    await loop.send("go", session_id=sid)
    await loop.close_session(sid)
    points = watch.points
    tools = points.index("tools.after")
    # The two calls run side by side: only the order of what belongs to one of them is fixed.
    assert points[:8] == [
        "session.start",
        "send.start",
        "message.append",
        "round.decide",
        "round.start",
        "llm.before",
        "llm.after",
        "round.decide",
    ]
    assert points[8:10] == ["message.append", "tools.before"]
    assert sorted(points[10:tools]) == sorted(
        [
            "tool.before",
            "tool.before",
            "tool.after",
            "tool.error",
            *["message.append"] * points[10:tools].count("message.append"),
        ]
    )
    assert points[tools:] == [
        "tools.after",
        "round.end",
        "round.decide",
        "round.start",
        "llm.before",
        "llm.after",
        "round.decide",
        "message.append",
        "round.end",
        "send.end",
        "session.end",
    ]
    assert set(points) == {point.value for point in HookPoint} - {
        "fold.before",
        "subagent.start",
        "subagent.end",
        "timer.fire",
    }
    assert {context.session_id for context in watch.contexts} == {sid}
    assert all(context.metadata == {"tenant": "t1"} for context in watch.contexts)
    inside = watch.contexts[1:-1]
    assert {context.send_index for context in inside} == {1}
    rounds = [context.round for context in inside]
    assert rounds == sorted(rounds)
    assert set(rounds) == {0, 1, 2}
    assert [context.action for context in watch.of(RoundDecideContext)] == [
        "CallModel",
        "RunTools",
        "CallModel",
        "Finish",
    ]
    assert [context.tool_calls for context in watch.of(RoundEndContext)] == [2, 0]


async def test_contexts_hold_what_their_point_is_about(make_loop: MakeLoop) -> None:
    loop, sid = await a_turn(make_loop, calls(("act", {"n": 4}), ("fail", {}), ids=("a", "f")), "Done.")
    watch = Watch(loop)
    result = await loop.send("go", session_id=sid)
    [start] = watch.of(SendStartContext)
    assert (start.content, start.is_resume) == ((TextPart("go"),), False)
    [before, _] = watch.of(LLMBeforeContext)
    assert before.request == loop.llm.requests[0]
    [after, last] = watch.of(LLMAfterContext)
    assert after.request == loop.llm.requests[0]
    assert last.response.message.text == "Done."
    [batch] = watch.of(ToolsBeforeContext)
    assert [(one.call_id, one.tool.name, one.arguments) for one in batch.calls] == [
        ("a", "act", {"n": 4}),
        ("f", "fail", {}),
    ]
    assert {one.call.call_id for one in watch.of(ToolBeforeContext)} == {"a", "f"}
    [done] = watch.of(ToolAfterContext)
    assert (done.call.call_id, done.result) == ("a", ToolResult((TextPart("acted 4"),)))
    [failed] = watch.of(ToolErrorContext)
    assert isinstance(failed.error, ValueError)
    assert failed.result.is_error
    [settled] = watch.of(ToolsAfterContext)
    assert len(settled.messages) == 2
    appended = [message for one in watch.of(MessageAppendContext) for message in one.messages]
    log = await loop.get_messages(sid)
    assert appended == [record.message for record in log]
    firsts = [(one.first_seq, len(one.messages)) for one in watch.of(MessageAppendContext)]
    assert firsts[0] == (1, 1)
    assert all(first + count == next_first for (first, count), (next_first, _) in itertools.pairwise(firsts))
    [end] = watch.of(SendEndContext)
    assert end.result == result


async def test_a_resumed_turn_passes_the_same_hooks(make_loop: MakeLoop) -> None:
    loop, sid = await a_turn(make_loop, RuntimeError("down"))
    with pytest.raises(Exception, match="down"):
        await loop.send("go", session_id=sid)
    other = make_loop(call("act"), "Done.", tool_registry=[act])
    watch = Watch(other)
    await other.resume(sid)
    [start] = watch.of(SendStartContext)
    assert (start.content, start.is_resume, start.send_index) == ((), True, 1)
    assert {"llm.before", "tool.before", "tool.after", "send.end"} <= set(watch.points)
    assert {context.send_index for context in watch.contexts} == {1}


# ---- sends ----


@pytest.mark.promise("hooks")
async def test_a_vetoed_input_is_not_stored(make_loop: MakeLoop) -> None:
    loop, sid = await a_turn(make_loop, "Fine.")
    loop.hooks.add(HookPoint.SEND_START, once(Veto("not today")))
    result = await loop.send("go", session_id=sid)
    assert (result.status, result.reason, result.final_text) == (SendStatus.VETOED, "not today", "")
    assert await loop.get_messages(sid) == ()
    assert loop.llm.requests == []
    assert (await loop.send("go", session_id=sid)).send_index == 1


async def test_a_rewritten_input_is_what_is_stored_and_sent(make_loop: MakeLoop) -> None:
    loop, sid = await a_turn(make_loop, "Fine.")

    async def mask(context: SendStartContext) -> Rewrite:
        return Rewrite(content=context.content[0].text.replace("1234", "****"))

    loop.hooks.add(HookPoint.SEND_START, mask)
    await loop.send("my pin is 1234", session_id=sid)
    assert said(loop.llm.requests[0].messages) == [("user", "my pin is ****")]
    assert said(await loop.get_messages(sid))[0] == ("user", "my pin is ****")


@pytest.mark.parametrize("decision", [Rewrite(content=""), Rewrite(content=()), Rewrite(), Skip("x"), "yes", Park("?")])
async def test_a_decision_that_its_point_does_not_take_stops_the_send_and_stores_nothing(
    make_loop: MakeLoop, decision: Any
) -> None:
    loop, sid = await a_turn(make_loop, "Fine.")
    loop.hooks.add(HookPoint.SEND_START, once(decision), name="odd")
    with pytest.raises(HookError) as caught:
        await loop.send("go", session_id=sid)
    assert (caught.value.code, caught.value.hook, caught.value.point) == ("hook.failed", "odd", "send.start")
    assert await loop.get_messages(sid) == ()
    assert (await loop.send("go", session_id=sid)).is_completed


async def test_a_resume_may_be_vetoed_and_done_later(make_loop: MakeLoop) -> None:
    loop, sid = await a_turn(make_loop, RuntimeError("down"), "Fine.")
    with pytest.raises(Exception, match="down"):
        await loop.send("go", session_id=sid)
    loop.hooks.add(HookPoint.SEND_START, once(Veto("later")))
    result = await loop.resume(sid)
    assert (result.status, result.reason) == (SendStatus.VETOED, "later")
    assert (await loop.resume(sid)).final_text == "Fine."


# ---- rounds ----


@pytest.mark.promise("hooks")
@pytest.mark.parametrize("point", [HookPoint.ROUND_START, HookPoint.ROUND_DECIDE, HookPoint.LLM_BEFORE])
async def test_a_veto_before_the_model_is_asked_ends_the_send(make_loop: MakeLoop, point: HookPoint) -> None:
    loop, sid = await a_turn(make_loop, "Fine.")
    loop.hooks.add(point, once(Veto("enough")))
    result = await loop.send("go", session_id=sid)
    assert (result.status, result.reason) == (SendStatus.VETOED, "enough")
    assert loop.llm.requests == []
    assert (await loop.send("again", session_id=sid)).final_text == "Fine."
    assert said(loop.llm.requests[0].messages) == [("user", "go"), ("user", "again")]


async def test_a_veto_of_what_to_do_with_a_reply_keeps_the_reply_and_runs_no_call(make_loop: MakeLoop) -> None:
    loop, sid = await a_turn(make_loop, call("act", text="I will act."), "Fine.")

    def no_tools(context: RoundDecideContext) -> Veto | None:
        return Veto("no tools here") if context.action == "RunTools" else None

    handle = loop.hooks.add(HookPoint.ROUND_DECIDE, no_tools)
    result = await loop.send("go", session_id=sid)
    assert (result.status, result.reason, result.final_text) == (SendStatus.VETOED, "no tools here", "I will act.")
    assert RAN == []
    assert await loop.get_pending(sid) == ()
    assert (await loop.get_session_stats(sid)).usage.total_tokens == 15, "what was paid for is on record"
    handle.remove()
    assert (await loop.send("again", session_id=sid)).final_text == "Fine."
    assert len(error_answers(loop.llm.requests[1])) == 1


# ---- model calls ----


@pytest.mark.promise("hooks")
async def test_a_rewritten_request_is_the_one_that_goes_out(make_loop: MakeLoop) -> None:
    loop, sid = await a_turn(make_loop, "Fine.", "Fine.")

    def lower(context: LLMBeforeContext) -> Rewrite:
        return Rewrite(request=dataclasses.replace(context.request, temperature=0.0, extra={"seed": 1}))

    loop.hooks.add(HookPoint.LLM_BEFORE, lower)
    await loop.send("go", session_id=sid)
    [request] = loop.llm.requests
    assert (request.temperature, request.extra) == (0.0, {"seed": 1})


async def test_a_model_call_may_be_answered_without_the_model(make_loop: MakeLoop) -> None:
    loop, sid = await a_turn(make_loop, "Fine.")
    loop.hooks.add(HookPoint.LLM_BEFORE, once(Skip(response=LLMResponse.of_text("From the cache."))))
    result = await loop.send("go", session_id=sid)
    assert (result.status, result.final_text) == (SendStatus.COMPLETED, "From the cache.")
    assert loop.llm.requests == []
    await loop.send("again", session_id=sid)
    assert said(loop.llm.requests[0].messages)[1] == ("assistant", "From the cache.")


async def test_a_rewritten_reply_is_what_is_stored(make_loop: MakeLoop) -> None:
    loop, sid = await a_turn(make_loop, call("act"), "The secret is 42.")

    def censor(context: LLMAfterContext) -> Rewrite | None:
        text = context.response.message.text
        return Rewrite(response=LLMResponse.of_text(text.replace("42", "**"))) if "42" in text else None

    loop.hooks.add(HookPoint.LLM_AFTER, censor)
    result = await loop.send("go", session_id=sid)
    assert result.final_text == "The secret is **."
    assert said(await loop.get_messages(sid))[-1] == ("assistant", "The secret is **.")
    assert RAN == [0]


async def test_a_vetoed_reply_is_not_stored_and_its_calls_do_not_run(make_loop: MakeLoop) -> None:
    loop, sid = await a_turn(make_loop, call("act", text="I will act."), "Fine.")
    loop.hooks.add(HookPoint.LLM_AFTER, once(Veto("not like that")))
    result = await loop.send("go", session_id=sid)
    assert (result.status, result.reason, result.final_text) == (SendStatus.VETOED, "not like that", "")
    assert RAN == []
    assert said(await loop.get_messages(sid)) == [("user", "go")]
    assert (await loop.send("again", session_id=sid)).final_text == "Fine."


async def test_a_rewritten_reply_may_ask_for_calls_which_are_checked_like_others(make_loop: MakeLoop) -> None:
    loop, sid = await a_turn(make_loop, "Plain.", "Done.")
    asked = calls(("act", {"n": 7}), ("act", {"n": "x"}), ("nothing", {}))
    loop.hooks.add(HookPoint.LLM_AFTER, once(Rewrite(response=asked)))
    result = await loop.send("go", session_id=sid)
    assert (result.final_text, RAN) == ("Done.", [7])
    assert len(error_answers(loop.llm.requests[1])) == 2


# ---- tools ----


@pytest.mark.promise("hooks")
async def test_a_vetoed_batch_is_answered_with_the_reason_and_nothing_runs(make_loop: MakeLoop) -> None:
    loop, sid = await a_turn(make_loop, calls(("act", {"n": 1}), ("act", {"n": 2})), "Fine.")
    loop.hooks.add(HookPoint.TOOLS_BEFORE, once(Veto("the shop is closed")))
    result = await loop.send("go", session_id=sid)
    assert (result.status, RAN) == (SendStatus.COMPLETED, [])
    told = error_answers(loop.llm.requests[1])
    assert len(told) == 2
    assert all("the shop is closed" in text for text in told)


@pytest.mark.promise("hooks")
async def test_a_vetoed_call_is_answered_with_the_reason_and_its_siblings_run(make_loop: MakeLoop) -> None:
    loop, sid = await a_turn(make_loop, calls(("act", {"n": 1}), ("act", {"n": 2}), ("act", {"n": 3})), "Fine.")

    def no_two(context: ToolBeforeContext) -> Veto | None:
        return Veto("two is too many") if context.call.arguments["n"] == 2 else None

    loop.hooks.add(HookPoint.TOOL_BEFORE, no_two)
    await loop.send("go", session_id=sid)
    assert sorted(RAN) == [1, 3]
    assert answers(loop.llm.requests[1])[0] == "acted 1"
    assert answers(loop.llm.requests[1])[2] == "acted 3"
    assert "two is too many" in error_answers(loop.llm.requests[1])[0]


@pytest.mark.parametrize(
    ("result", "is_error"), [("from the cache", False), (ToolResult("broken", is_error=True), True)]
)
async def test_a_call_may_be_answered_without_running(make_loop: MakeLoop, result: Any, is_error: bool) -> None:
    loop, sid = await a_turn(make_loop, call("act"), "Fine.")
    loop.hooks.add(HookPoint.TOOL_BEFORE, once(Skip(result=result)))
    await loop.send("go", session_id=sid)
    assert RAN == []
    text = result if isinstance(result, str) else result.content
    assert answers(loop.llm.requests[1]) == [text]
    assert (error_answers(loop.llm.requests[1]) == [text]) is is_error


async def test_rewritten_arguments_are_checked_and_are_what_runs(make_loop: MakeLoop) -> None:
    loop, sid = await a_turn(make_loop, calls(("act", {"n": 1}), ("act", {"n": 2})), "Fine.")

    def change(context: ToolBeforeContext) -> Rewrite:
        return Rewrite(arguments={"n": 10} if context.call.arguments["n"] == 1 else {"n": "many"})

    loop.hooks.add(HookPoint.TOOL_BEFORE, change)
    await loop.send("go", session_id=sid)
    assert RAN == [10]
    assert answers(loop.llm.requests[1])[0] == "acted 10"
    assert "$.n" in error_answers(loop.llm.requests[1])[0]


@pytest.mark.parametrize("value", [object(), float("nan"), {1, 2}])
async def test_rewritten_arguments_that_are_no_json_do_not_run(make_loop: MakeLoop, value: Any) -> None:
    @tool
    def take(value: Any) -> str:
        """Take."""
        RAN.append(value)
        return "taken"

    loop = make_loop(call("take", {"value": 1}), "Fine.", tool_registry=[take])
    sid = await loop.new_session()
    loop.hooks.add(HookPoint.TOOL_BEFORE, once(Rewrite(arguments={"value": value})))
    result = await loop.send("go", session_id=sid)
    assert (result.status, RAN) == (SendStatus.COMPLETED, [])
    assert len(error_answers(loop.llm.requests[1])) == 1


async def test_a_result_may_be_rewritten_before_it_is_stored(make_loop: MakeLoop) -> None:
    loop, sid = await a_turn(make_loop, calls(("act", {"n": 42}), ids=("c",)), "Fine.")

    def mask(context: ToolAfterContext) -> Rewrite:
        return Rewrite(result=ToolResult((TextPart("acted **"),)))

    loop.hooks.add(HookPoint.TOOL_AFTER, mask)
    await loop.send("go", session_id=sid)
    assert answers(loop.llm.requests[1]) == ["acted **"]
    assert await loop.get_tool_result(sid, "c") == (TextPart("acted **"),)
    assert "42" not in str([one for one in said(await loop.get_messages(sid)) if one[0] == "tool"])


async def test_an_error_may_be_told_otherwise_or_turned_into_a_result(make_loop: MakeLoop) -> None:
    loop, sid = await a_turn(make_loop, call("fail"), call("fail"), "Fine.")
    loop.hooks.add(HookPoint.TOOL_ERROR, once(Rewrite(result=ToolResult("try again later", is_error=True))))
    loop.hooks.add(HookPoint.TOOL_ERROR, lambda context: Rewrite(result="42") if len(loop.llm.requests) == 2 else None)
    await loop.send("go", session_id=sid)
    assert answers(loop.llm.requests[2]) == ["try again later", "42"]
    assert error_answers(loop.llm.requests[2]) == ["try again later"]


async def test_hooks_see_only_calls_that_could_run(make_loop: MakeLoop) -> None:
    loop, sid = await a_turn(make_loop, calls(("nothing", {}), ("act", {"n": "x"}), ("act", {"n": 5})), "Fine.")
    watch = Watch(loop)
    await loop.send("go", session_id=sid)
    [batch] = watch.of(ToolsBeforeContext)
    assert [one.arguments for one in batch.calls] == [{"n": 5}]
    assert len(watch.of(ToolBeforeContext)) == 1


# ---- what raises ----


@pytest.mark.promise("hooks")
@pytest.mark.parametrize(
    "point",
    [HookPoint.ROUND_START, HookPoint.ROUND_DECIDE, HookPoint.LLM_BEFORE, HookPoint.LLM_AFTER],
)
async def test_a_hook_that_guards_a_model_call_and_raises_stops_the_send_which_can_be_resumed(
    make_loop: MakeLoop, point: HookPoint
) -> None:
    loop, sid = await a_turn(make_loop, "Fine.", "Fine.")
    ears = Ears(loop, types=(SendFailed,))

    async def broken(context: HookContext) -> None:
        raise ZeroDivisionError("oops")

    handle = loop.hooks.add(point, broken, name="broken")
    with pytest.raises(HookError, match="ZeroDivisionError: oops") as caught:
        await loop.send("go", session_id=sid)
    assert (caught.value.point, caught.value.hook) == (point.value, "broken")
    assert [one.code for one in ears.of(SendFailed)] == ["hook.failed"]
    handle.remove()
    assert (await loop.resume(sid)).final_text == "Fine."
    assert (await loop.send("again", session_id=sid)).is_completed if loop.llm.steps_left else True


@pytest.mark.promise("hooks")
@pytest.mark.parametrize("point", [HookPoint.TOOLS_BEFORE, HookPoint.TOOL_BEFORE])
@pytest.mark.parametrize("broken", [always("yes"), always(1), lambda context: 1 / 0])
async def test_a_hook_that_guards_a_call_and_raises_keeps_it_from_running(
    make_loop: MakeLoop, point: HookPoint, broken: Any
) -> None:
    loop, sid = await a_turn(make_loop, call("act"), "Fine.")
    ears = Ears(loop, types=(HookFailed,))
    loop.hooks.add(point, broken, name="broken")
    result = await loop.send("go", session_id=sid)
    assert (result.status, RAN) == (SendStatus.COMPLETED, [])
    assert "the check that has to allow it failed" in error_answers(loop.llm.requests[1])[0]
    assert [(one.point, one.hook) for one in ears.of(HookFailed)] == [(point.value, "broken")]


@pytest.mark.promise("hooks")
@pytest.mark.parametrize(
    "point",
    [
        HookPoint.SESSION_START,
        HookPoint.SESSION_END,
        HookPoint.SEND_END,
        HookPoint.ROUND_END,
        HookPoint.TOOLS_AFTER,
        HookPoint.TOOL_AFTER,
        HookPoint.TOOL_ERROR,
        HookPoint.MESSAGE_APPEND,
    ],
)
async def test_a_hook_that_only_looks_and_raises_stops_nothing(make_loop: MakeLoop, point: HookPoint) -> None:
    loop = make_loop(calls(("act", {}), ("fail", {})), "Fine.", tool_registry=[act, fail])
    ears = Ears(loop, types=(HookFailed,))
    loop.hooks.add(point, lambda context: 1 / 0, name="broken")
    sid = await loop.new_session()
    result = await loop.send("go", session_id=sid)
    assert (result.status, result.final_text, RAN) == (SendStatus.COMPLETED, "Fine.", [0])
    assert await loop.close_session(sid) is True
    failed = ears.of(HookFailed)
    assert failed
    assert {(one.point, one.hook) for one in failed} == {(point.value, "broken")}
    assert all("ZeroDivisionError" in one.error for one in failed)


@pytest.mark.promise("hooks")
async def test_the_end_of_a_session_is_told_though_what_its_tools_hold_cannot_be_let_go_of(make_loop: MakeLoop) -> None:
    ended: list[str] = []

    class Held:
        def __init__(self, name: str) -> None:
            self.name = name

        async def end_session(self, session_id: str) -> None:
            ended.append(self.name)
            if self.name == "first":
                raise OSError("it is stuck")

        async def aclose(self) -> None:
            pass

    tools = [dataclasses.replace(act, resource=Held("first")), dataclasses.replace(fail, resource=Held("second"))]
    loop = make_loop("Fine.", tool_registry=tools)
    ears = Ears(loop, types=(HookFailed,))
    told: list[str] = []
    loop.hooks.add(HookPoint.SESSION_END, lambda context: told.append(context.session_id), name="told")
    sid = await loop.new_session()
    assert await loop.close_session(sid) is True
    assert (ended, told) == (["first", "second"], [sid])
    [failed] = ears.of(HookFailed)
    assert (failed.point, failed.hook) == (HookPoint.SESSION_END.value, "Held.end_session")
    assert failed.error == "OSError: it is stuck"
    assert (await loop.get_session(sid)).state is SessionState.CLOSED


@pytest.mark.parametrize("point", [HookPoint.SEND_END, HookPoint.ROUND_END, HookPoint.MESSAGE_APPEND])
async def test_a_decision_where_nothing_is_decided_is_told_and_changes_nothing(
    make_loop: MakeLoop, point: HookPoint
) -> None:
    loop, sid = await a_turn(make_loop, "Fine.")
    ears = Ears(loop, types=(HookFailed,))
    loop.hooks.add(point, always(Veto("no")))
    assert (await loop.send("go", session_id=sid)).is_completed
    assert ears.of(HookFailed)


# ---- who looks in ----


async def test_hooks_run_by_order_and_each_sees_what_the_one_before_rewrote(make_loop: MakeLoop) -> None:
    loop, sid = await a_turn(make_loop, "Fine.")

    def adding(letter: str) -> Callable[[SendStartContext], Rewrite]:
        return lambda context: Rewrite(content=context.content[0].text + letter)

    loop.hooks.add(HookPoint.SEND_START, adding("c"), order=5)
    loop.hooks.add(HookPoint.SEND_START, adding("a"), order=-1)
    loop.hooks.add(HookPoint.SEND_START, adding("b"))
    await loop.send("_", session_id=sid)
    assert said(loop.llm.requests[0].messages) == [("user", "_abc")]


async def test_a_hook_may_be_added_and_removed_while_turns_run(make_loop: MakeLoop) -> None:
    loop, sid = await a_turn(make_loop, call("act", {"n": 1}), call("act", {"n": 2}), "Fine.")

    def first_only(context: ToolBeforeContext) -> Skip:
        loop.hooks.remove("first_only")
        return Skip(result="skipped")

    loop.hooks.add(HookPoint.TOOL_BEFORE, first_only, name="first_only")
    await loop.send("go", session_id=sid)
    assert RAN == [2]
    assert loop.hooks.names(HookPoint.TOOL_BEFORE) == ()


@pytest.mark.promise("nothing-global")
async def test_hooks_belong_to_the_loops_that_were_given_them(make_loop: MakeLoop) -> None:
    hooks = Hooks()
    seen: list[str] = []
    hooks.add(HookPoint.SEND_END, lambda context: seen.append(context.session_id))
    first, second = make_loop("A.", hooks=hooks), make_loop("B.", hooks=hooks)
    stranger = make_loop("C.")
    sids = [await loop.new_session() for loop in (first, second, stranger)]
    for loop, sid in zip((first, second, stranger), sids, strict=True):
        await loop.send("go", session_id=sid)
    assert seen == sids[:2]


async def test_a_hook_may_use_the_loop_itself(make_loop: MakeLoop) -> None:
    loop, sid = await a_turn(make_loop, "Fine.", "Other.")
    other = await loop.new_session()
    texts: list[str] = []

    async def ask_elsewhere(context: SendEndContext) -> None:
        if context.session_id == sid:
            texts.append((await loop.send("aside", session_id=other)).final_text)
            texts.append(str(len(await loop.get_messages(context.session_id))))

    loop.hooks.add(HookPoint.SEND_END, ask_elsewhere)
    await within_limit(loop.send("go", session_id=sid))
    assert texts == ["Other.", "2"]


async def test_a_hook_about_an_unknown_session_is_not_asked(make_loop: MakeLoop) -> None:
    loop = make_loop("Fine.")
    watch = Watch(loop)
    with pytest.raises(SessionNotFoundError):
        await loop.send("go", session_id="none")
    with pytest.raises(SessionNotFoundError):
        await loop.resume("none")
    assert watch.points == []


async def test_approval_may_be_required_by_what_a_call_wants(make_loop: MakeLoop) -> None:
    loop, sid = await a_turn(make_loop, calls(("act", {"n": 1}), ("act", {"n": 100}), ids=("a", "b")), "Fine.")

    def big_ones(context: ToolBeforeContext) -> RequireApproval | None:
        return RequireApproval("That much?", {"n": 100}) if context.call.arguments["n"] > 10 else None

    loop.hooks.add(HookPoint.TOOL_BEFORE, big_ones)
    result = await loop.send("go", session_id=sid)
    assert result.status is SendStatus.WAITING_FOR_INPUT
    assert [(one.call_id, one.prompt, one.data) for one in result.pending] == [("b", "That much?", {"n": 100})]
    assert RAN == [1]


async def test_what_a_rewritten_request_shows_is_not_what_is_stored(make_loop: MakeLoop) -> None:
    loop, sid = await a_turn(make_loop, "Fine.", "Fine.")

    def hide(context: LLMBeforeContext) -> Rewrite:
        messages = tuple(one for one in context.request.messages if one.role is Role.USER)
        return Rewrite(request=LLMRequest(messages[-1:]))

    loop.hooks.add(HookPoint.LLM_BEFORE, hide)
    await loop.send("a", session_id=sid)
    await loop.send("b", session_id=sid)
    assert said(loop.llm.requests[1].messages) == [("user", "b")]
    assert len(await loop.get_messages(sid)) == 4
