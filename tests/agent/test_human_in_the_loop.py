"""Calls that wait for a person or the application: asked, answered from anywhere in any order, and driven on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from power_loop import (
    Approve,
    Deny,
    Give,
    HookPoint,
    ImagePart,
    SendStatus,
    TextPart,
    ToolContext,
    ToolDefinition,
    ToolResult,
    tool,
)
from power_loop.errors import CallNotFoundError, CallNotWaitingError, ConfigError, InputError, SessionPendingError
from power_loop.events import (
    RoundFinished,
    SendFinished,
    SendStarted,
    ToolCallAnswered,
    ToolCallFinished,
    ToolCallWaiting,
)
from power_loop.hooks import Park, RequireApproval, Rewrite, ToolBeforeContext
from power_loop.records import WaitKind
from power_loop.testing import call, calls
from power_loop.tools import Waiting

from .conftest import MakeLoop
from .parts import Ears, Watch, answers, error_answers, said, within_limit

RAN: list[Any] = []


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    RAN.clear()


@tool(requires_approval=True)
def pay(amount: int) -> str:
    """Pay."""
    RAN.append(amount)
    return f"paid {amount}"


@tool(effect="read")
def look() -> str:
    """Look."""
    RAN.append("look")
    return "seen"


#: A tool whose result the application brings.
FETCH = ToolDefinition("fetch", "Fetch.", {"type": "object", "properties": {"what": {"type": "string"}}})
TOOLS = [pay, look, FETCH]


async def waiting_for_pay(make_loop: MakeLoop, *rest: Any) -> tuple[Any, str]:
    loop = make_loop(calls(("pay", {"amount": 5}), ids=("c1",)), *rest, tool_registry=TOOLS)
    sid = await loop.new_session()
    result = await loop.send("go", session_id=sid)
    assert result.status is SendStatus.WAITING_FOR_INPUT
    return loop, sid


@pytest.mark.promise("human-in-the-loop")
async def test_a_call_that_needs_approval_waits_and_the_result_says_what_is_asked(make_loop: MakeLoop) -> None:
    loop = make_loop(calls(("pay", {"amount": 5}), ("look", {}), ids=("c1", "c2")), tool_registry=TOOLS)
    ears = Ears(loop)
    sid = await loop.new_session()
    result = await loop.send("go", session_id=sid)
    assert result.status is SendStatus.WAITING_FOR_INPUT
    [asked] = result.pending
    assert (asked.call_id, asked.name, asked.arguments, asked.state) == ("c1", "pay", {"amount": 5}, "waiting")
    assert (asked.wait_kind, asked.prompt) == (WaitKind.APPROVAL, "Run pay?")
    assert RAN == ["look"], "calls of the batch that do not wait have run"
    [told] = ears.of(ToolCallWaiting)
    assert told == ToolCallWaiting("c1", "pay", "approval", "Run pay?")
    # Any handle sees the same, and so does a resume without an answer.
    other = make_loop(tool_registry=TOOLS)
    assert await other.get_pending(sid) == result.pending
    again = await other.resume(sid)
    assert (again.status, again.pending) == (SendStatus.WAITING_FOR_INPUT, result.pending)
    assert other.llm.requests == []


@pytest.mark.promise("human-in-the-loop")
async def test_an_approval_from_another_handle_lets_the_call_run_and_the_turn_go_on(make_loop: MakeLoop) -> None:
    loop, sid = await waiting_for_pay(make_loop)
    await loop.aclose()
    other = make_loop("Paid.", tool_registry=TOOLS)
    ears = Ears(other)
    result = await other.resume(sid, answers={"c1": Approve()})
    assert (result.status, result.final_text, result.send_index) == (SendStatus.COMPLETED, "Paid.", 1)
    assert RAN == [5]
    assert answers(other.llm.requests[0]) == ["paid 5"]
    assert ears.of(ToolCallAnswered) == [ToolCallAnswered("c1", "pay", "approved")]
    assert ears.of(SendStarted) == [SendStarted(None, is_resume=True)]
    assert await other.get_pending(sid) == ()


async def test_an_approval_may_edit_the_arguments(make_loop: MakeLoop) -> None:
    loop, sid = await waiting_for_pay(make_loop, "Paid.")
    await loop.resume(sid, answers={"c1": Approve({"amount": 3})})
    assert RAN == [3]
    assert answers(loop.llm.requests[1]) == ["paid 3"]
    [asked] = (await loop.get_messages(sid))[1].message.tool_calls
    assert asked.arguments == '{"amount": 5}', "what the model said is not rewritten"


@pytest.mark.parametrize("arguments", [{"amount": "x"}, {}, {"amount": 1, "to": "me"}, {"amount": object()}])
async def test_arguments_that_do_not_fit_are_refused_and_the_call_still_waits(
    make_loop: MakeLoop, arguments: dict[str, Any]
) -> None:
    loop, sid = await waiting_for_pay(make_loop, "Paid.")
    with pytest.raises(InputError, match="c1"):
        await loop.resume(sid, answers={"c1": Approve(arguments)})
    await still_waits_and_can_be_approved(loop, sid)


async def still_waits_and_can_be_approved(loop: Any, sid: str) -> None:
    [asked] = await loop.get_pending(sid)
    assert (asked.state, asked.wait_kind) == ("waiting", WaitKind.APPROVAL)
    again = await loop.resume(sid)
    assert (again.status, again.is_replayed) == (SendStatus.WAITING_FOR_INPUT, True), "it rests as it did before"
    with pytest.raises(SessionPendingError):
        await loop.send("more", session_id=sid)
    assert (await loop.resume(sid, answers={"c1": Approve()})).status is SendStatus.COMPLETED
    assert RAN == [5]


@pytest.mark.promise("human-in-the-loop")
async def test_a_denied_call_does_not_run_and_the_model_is_told_why(make_loop: MakeLoop) -> None:
    loop, sid = await waiting_for_pay(make_loop, "A pity.")
    ears = Ears(loop, types=(ToolCallAnswered, ToolCallFinished))
    result = await loop.resume(sid, answers={"c1": Deny("too expensive")})
    assert (result.status, result.final_text, RAN) == (SendStatus.COMPLETED, "A pity.", [])
    [told] = error_answers(loop.llm.requests[1])
    assert "too expensive" in told
    assert [type(one).__name__ for one in (event.payload for event in ears.events)] == [
        "ToolCallAnswered",
        "ToolCallFinished",
    ]


async def test_a_value_may_be_given_in_place_of_running(make_loop: MakeLoop) -> None:
    loop, sid = await waiting_for_pay(make_loop, "Fine.")
    await loop.submit_tool_result(sid, "c1", {"receipt": 7})
    assert RAN == []
    assert answers(loop.llm.requests[1]) == ['{"receipt": 7}']


@pytest.mark.promise("human-in-the-loop")
async def test_the_application_brings_the_result_of_its_own_tool(make_loop: MakeLoop) -> None:
    loop = make_loop(calls(("fetch", {"what": "x"}), ids=("c1",)), "Fetched.", tool_registry=TOOLS)
    sid = await loop.new_session()
    result = await loop.send("go", session_id=sid)
    assert [(one.wait_kind, one.arguments) for one in result.pending] == [(WaitKind.RESULT, {"what": "x"})]
    picture = ImagePart.from_bytes(b"\x89PNG")
    result = await loop.submit_tool_result(sid, "c1", ToolResult((TextPart("Here:"), picture)))
    assert (result.status, result.final_text) == (SendStatus.COMPLETED, "Fetched.")
    assert loop.llm.requests[1].messages[-1].tool_result.content == (TextPart("Here:"), picture)


async def test_the_application_may_bring_an_error_and_a_huge_result(make_loop: MakeLoop) -> None:
    loop = make_loop(calls(("fetch", {}), ("fetch", {}), ids=("c1", "c2")), "Fine.", tool_registry=TOOLS)
    sid = await loop.new_session()
    await loop.send("go", session_id=sid)
    huge = "x" * 100_000
    await loop.submit_tool_result(sid, "c1", "no luck", is_error=True)
    await loop.submit_tool_result(sid, "c2", huge)
    assert error_answers(loop.llm.requests[1]) == ["no luck"]
    assert len(answers(loop.llm.requests[1])[1]) < 40_000
    assert await loop.get_tool_result(sid, "c2") == (TextPart(huge),)


async def test_several_waiting_calls_are_answered_one_by_one_in_any_order(make_loop: MakeLoop) -> None:
    wanted = calls(("pay", {"amount": 1}), ("fetch", {}), ("pay", {"amount": 2}), ids=("a", "b", "c"))
    loop = make_loop(wanted, "Done.", tool_registry=TOOLS)
    sid = await loop.new_session()
    assert len((await loop.send("go", session_id=sid)).pending) == 3
    result = await loop.resume(sid, answers={"c": Approve()})
    assert (result.status, [one.call_id for one in result.pending]) == (SendStatus.WAITING_FOR_INPUT, ["a", "b"])
    assert RAN == [2], "an approved call runs at once, the others still wait"
    result = await make_loop(tool_registry=TOOLS).resume(sid, answers={"b": Give("fetched")})
    assert [one.call_id for one in result.pending] == ["a"]
    assert len(loop.llm.requests) == 1, "the model is not asked before everything is answered"
    result = await loop.resume(sid, answers={"a": Deny()})
    assert result.status is SendStatus.COMPLETED
    told = answers(loop.llm.requests[1])
    assert told[1:] == ["fetched", "paid 2"]
    assert "not allowed" in told[0]


async def test_several_waiting_calls_are_answered_together(make_loop: MakeLoop) -> None:
    wanted = calls(("pay", {"amount": 1}), ("pay", {"amount": 2}), ("fetch", {}), ids=("a", "b", "c"))
    loop = make_loop(wanted, "Done.", tool_registry=TOOLS)
    sid = await loop.new_session()
    await loop.send("go", session_id=sid)
    result = await loop.resume(sid, answers={"c": Give(3), "a": Approve(), "b": Deny("no")})
    assert result.status is SendStatus.COMPLETED
    assert answers(loop.llm.requests[1])[0] == "paid 1"
    assert answers(loop.llm.requests[1])[2] == "3"


async def test_answers_are_stored_together_or_not_at_all(make_loop: MakeLoop) -> None:
    wanted = calls(("pay", {"amount": 1}), ("pay", {"amount": 2}), ids=("a", "b"))
    loop = make_loop(wanted, "Done.", tool_registry=TOOLS)
    sid = await loop.new_session()
    await loop.send("go", session_id=sid)
    for wrong, error in (
        ({"a": Approve(), "b": Approve({"amount": "x"})}, InputError),
        ({"a": Approve(), "nope": Approve()}, CallNotFoundError),
        ({"a": Approve(), "b": "yes"}, InputError),
    ):
        with pytest.raises(error):
            await loop.resume(sid, answers=wrong)
        assert [one.call_id for one in await loop.get_pending(sid)] == ["a", "b"]
    assert RAN == []
    await loop.resume(sid, answers={"a": Approve(), "b": Approve()})
    assert sorted(RAN) == [1, 2]


@pytest.mark.promise("bad-input")
async def test_an_answer_to_a_call_that_does_not_wait_says_so(make_loop: MakeLoop) -> None:
    loop, sid = await waiting_for_pay(make_loop, "Paid.")
    with pytest.raises(CallNotFoundError, match="'c1'") as unknown:
        await loop.submit_tool_result(sid, "nope", 1)
    assert unknown.value.call_id == "nope"
    await loop.resume(sid, answers={"c1": Approve()})
    with pytest.raises(CallNotWaitingError) as settled:
        await loop.resume(sid, answers={"c1": Approve()})
    assert (settled.value.call_id, settled.value.state) == ("c1", "succeeded")
    assert RAN == [5], "an answer that comes twice runs nothing twice"


async def test_a_call_that_waits_for_a_value_is_not_approved(make_loop: MakeLoop) -> None:
    loop = make_loop(calls(("fetch", {}), ids=("c1",)), "Fine.", tool_registry=TOOLS)
    sid = await loop.new_session()
    await loop.send("go", session_id=sid)
    with pytest.raises(InputError, match="Give"):
        await loop.resume(sid, answers={"c1": Approve()})
    with pytest.raises(InputError, match="give a value"):
        await loop.submit_tool_result(sid, "c1", Waiting("again?"))
    assert (await loop.submit_tool_result(sid, "c1", "x")).is_completed


async def test_of_two_answers_at_the_same_time_one_counts(make_loop: MakeLoop) -> None:
    loop, sid = await waiting_for_pay(make_loop, "Paid.")
    given = await within_limit(
        asyncio.gather(*(loop.resume(sid, answers={"c1": Approve()}) for _ in range(4)), return_exceptions=True)
    )
    assert RAN == [5]
    assert [type(one).__name__ for one in given].count("StatefulResult") == 1
    assert [type(one).__name__ for one in given].count("CallNotWaitingError") == 3


# ---- asked by a handler ----


@pytest.mark.promise("human-in-the-loop")
async def test_a_handler_may_ask_and_the_answer_is_its_result(make_loop: MakeLoop) -> None:
    schema = {"type": "object", "properties": {"size": {"enum": ["S", "M"]}}, "required": ["size"]}

    @tool
    async def order(ctx: ToolContext) -> Any:
        """Order."""
        RAN.append(ctx.attempt)
        return Waiting("Which size?", answer_schema=schema, data={"hint": "S or M"})

    loop = make_loop(calls(("order", {}), ids=("c1",)), "Ordered.", tool_registry=[order])
    sid = await loop.new_session()
    result = await loop.send("go", session_id=sid)
    [asked] = result.pending
    assert (asked.wait_kind, asked.prompt, asked.answer_schema, asked.data) == (
        WaitKind.INPUT,
        "Which size?",
        schema,
        {"hint": "S or M"},
    )
    with pytest.raises(InputError, match=r"\$\.size"):
        await loop.submit_tool_result(sid, "c1", {"size": "XXL"})
    result = await loop.submit_tool_result(sid, "c1", {"size": "M"})
    assert (result.status, RAN) == (SendStatus.COMPLETED, [1])
    assert answers(loop.llm.requests[1]) == ['{"size": "M"}']


async def test_an_error_need_not_fit_the_schema_of_the_answer(make_loop: MakeLoop) -> None:
    ask = ToolDefinition(
        "ask", "Ask.", {"type": "object", "properties": {}}, lambda: Waiting("?", answer_schema={"type": "integer"})
    )
    loop = make_loop(calls(("ask", {}), ids=("c1",)), "Fine.", tool_registry=[ask])
    sid = await loop.new_session()
    await loop.send("go", session_id=sid)
    await loop.submit_tool_result(sid, "c1", "nobody is there", is_error=True)
    assert error_answers(loop.llm.requests[1]) == ["nobody is there"]


# ---- asked by a hook ----


async def test_a_hook_may_require_approval_and_is_not_asked_the_same_again(make_loop: MakeLoop) -> None:
    @tool
    def act(n: int) -> str:
        """Act."""
        RAN.append(n)
        return "acted"

    loop = make_loop(calls(("act", {"n": 1}), ids=("c1",)), "Done.", tool_registry=[act])
    seen: list[bool] = []

    def guard(context: ToolBeforeContext) -> RequireApproval:
        seen.append(context.call.is_approved)
        return RequireApproval("Really?", {"why": "careful"})

    loop.hooks.add(HookPoint.TOOL_BEFORE, guard)
    sid = await loop.new_session()
    result = await loop.send("go", session_id=sid)
    assert [(one.prompt, one.data) for one in result.pending] == [("Really?", {"why": "careful"})]
    assert (await loop.resume(sid, answers={"c1": Approve()})).is_completed
    assert (RAN, seen) == ([1], [False, True])


async def test_arguments_that_a_hook_changes_after_the_approval_need_another_one(make_loop: MakeLoop) -> None:
    loop, sid = await waiting_for_pay(make_loop, "Done.")

    def raise_it(context: ToolBeforeContext) -> Rewrite:
        return Rewrite(arguments={"amount": 500})

    handle = loop.hooks.add(HookPoint.TOOL_BEFORE, raise_it)
    result = await loop.resume(sid, answers={"c1": Approve()})
    assert (result.status, RAN) == (SendStatus.WAITING_FOR_INPUT, [])
    assert [one.arguments for one in result.pending] == [{"amount": 500}], "the person sees what would run"
    handle.remove()
    assert (await loop.resume(sid, answers={"c1": Approve()})).is_completed
    assert RAN == [500]


async def test_a_hook_may_park_a_call_until_somebody_gives_its_value(make_loop: MakeLoop) -> None:
    loop = make_loop(calls(("look", {}), ids=("c1",)), "Done.", tool_registry=TOOLS)
    loop.hooks.add(HookPoint.TOOL_BEFORE, lambda context: Park("What do you see?", answer_schema={"type": "string"}))
    sid = await loop.new_session()
    result = await loop.send("go", session_id=sid)
    assert [(one.prompt, one.wait_kind) for one in result.pending] == [("What do you see?", WaitKind.INPUT)]
    with pytest.raises(InputError):
        await loop.submit_tool_result(sid, "c1", 5)
    await loop.submit_tool_result(sid, "c1", "a cat")
    assert (answers(loop.llm.requests[1]), RAN) == (["a cat"], [])


async def test_what_a_hook_says_is_asked_with_data_that_is_no_json_denies_the_call(make_loop: MakeLoop) -> None:
    loop = make_loop(call("look"), "Done.", tool_registry=TOOLS)
    loop.hooks.add(HookPoint.TOOL_BEFORE, lambda context: Park("?", data={"x": object()}))
    sid = await loop.new_session()
    result = await loop.send("go", session_id=sid)
    assert (result.status, RAN) == (SendStatus.COMPLETED, [])
    assert len(error_answers(loop.llm.requests[1])) == 1


async def test_a_handler_that_asks_with_data_that_is_no_json_is_an_error_for_the_model(make_loop: MakeLoop) -> None:
    ask = ToolDefinition("ask", "Ask.", {"type": "object", "properties": {}}, lambda: Waiting("?", data={"x": {1}}))
    loop = make_loop(call("ask"), "Done.", tool_registry=[ask])
    sid = await loop.new_session()
    result = await loop.send("go", session_id=sid)
    assert result.status is SendStatus.COMPLETED
    assert len(error_answers(loop.llm.requests[1])) == 1


# ---- the turn around it ----


@pytest.mark.promise("two-ways-out")
async def test_a_plain_send_on_a_waiting_session_names_both_ways_out(make_loop: MakeLoop) -> None:
    loop, sid = await waiting_for_pay(make_loop, "Fine.")
    with pytest.raises(SessionPendingError) as caught:
        await loop.send("more", session_id=sid)
    assert caught.value.call_ids == ("c1",)
    for way in (f"resume({sid!r}, answers={{'c1': Approve()}})", "heal_pending=True", "1 open call ('c1'):"):
        assert way in str(caught.value)
    assert f"resume({sid!r}) " not in str(caught.value), "which would give back what is recorded"
    result = await loop.send("more", session_id=sid, heal_pending=True)
    assert (result.status, result.final_text, RAN) == (SendStatus.COMPLETED, "Fine.", [])
    assert len(error_answers(loop.llm.requests[1])) == 1


async def test_a_waiting_session_may_be_cancelled_closed_off_and_used_again(make_loop: MakeLoop) -> None:
    loop, sid = await waiting_for_pay(make_loop, "Fine.")
    assert await loop.cancel(sid) is False, "nothing runs while it waits"
    result = await loop.abort_pending(sid, reason="nobody answered")
    assert (result.status, result.reason) == (SendStatus.ABORTED, "nobody answered")
    with pytest.raises(CallNotWaitingError):
        await loop.resume(sid, answers={"c1": Approve()})
    assert (await loop.send("more", session_id=sid)).final_text == "Fine."


async def test_a_round_ends_once_all_its_calls_are_answered(make_loop: MakeLoop) -> None:
    loop = make_loop(calls(("fetch", {}), ("look", {}), ids=("c1", "c2")), "Done.", tool_registry=TOOLS)
    ears, watch = Ears(loop), Watch(loop)
    sid = await loop.new_session()
    await loop.send("go", session_id=sid)
    assert ears.of(RoundFinished) == []
    assert "round.end" not in watch.points
    await loop.submit_tool_result(sid, "c1", "x")
    assert ears.of(RoundFinished) == [RoundFinished(2), RoundFinished(0)]
    assert watch.points.count("round.end") == 2
    rounds = [event.round for event in ears.events if isinstance(event.payload, RoundFinished)]
    assert rounds == [1, 2]


async def test_a_turn_may_wait_again_and_again(make_loop: MakeLoop) -> None:
    steps = [calls(("pay", {"amount": n}), ids=(f"c{n}",)) for n in range(1, 4)]
    loop = make_loop(*steps, "Done.", tool_registry=TOOLS)
    ears = Ears(loop, types=(SendFinished,))
    sid = await loop.new_session()
    result = await loop.send("go", session_id=sid)
    for n in range(1, 4):
        assert [one.call_id for one in result.pending] == [f"c{n}"]
        result = await loop.resume(sid, answers={f"c{n}": Approve()})
    assert (result.status, result.rounds, result.tool_calls, RAN) == (SendStatus.COMPLETED, 4, 3, [1, 2, 3])
    assert result.usage.total_tokens == 60
    waits = [one.result.status for one in ears.of(SendFinished)]
    assert waits == [SendStatus.WAITING_FOR_INPUT] * 3 + [SendStatus.COMPLETED]


async def test_a_repeated_request_that_waits_says_again_what_is_asked(make_loop: MakeLoop) -> None:
    loop = make_loop(calls(("pay", {"amount": 5}), ids=("c1",)), "Paid.", tool_registry=TOOLS)
    sid = await loop.new_session()
    first = await loop.send("go", session_id=sid, request_id="r")
    again = await loop.send("go", session_id=sid, request_id="r")
    assert (again.status, again.pending, again.is_replayed) == (first.status, first.pending, True)
    await loop.resume(sid, answers={"c1": Approve()})
    done = await loop.send("go", session_id=sid, request_id="r")
    assert (done.status, done.final_text, done.is_replayed) == (SendStatus.COMPLETED, "Paid.", True)
    assert RAN == [5]


async def test_the_log_of_a_waiting_turn_is_valid_whatever_is_asked_of_it(make_loop: MakeLoop) -> None:
    loop, sid = await waiting_for_pay(make_loop)
    assert said(await loop.get_messages(sid)) == [("user", "go"), ("assistant", "")]
    other = make_loop("Fine.", tool_registry=[look])
    # The tool is gone in this process, so that it can say no only.
    with pytest.raises(ConfigError, match="'pay'"):
        await other.resume(sid, answers={"c1": Approve()})
    assert said(await loop.get_messages(sid)) == [("user", "go"), ("assistant", "")]
    result = await other.resume(sid, answers={"c1": Deny("not here")})
    assert (result.status, RAN) == (SendStatus.COMPLETED, [])
    assert "'pay'" in error_answers(other.llm.requests[0])[0]
