"""What a send may take: rounds, tokens, tool calls, seconds; each limit has its status, and keeps the answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from power_loop import LoopConfig, SendLimits, SendStatus, StopReason, Usage, tool
from power_loop.errors import ConfigError
from power_loop.events import SendFinished, TextDelta, ToolCallFinished
from power_loop.testing import call, calls

from .conftest import MakeLoop
from .parts import Ears, Gate, answers, error_answers, pass_time, said, until, within_limit


@tool(effect="read")
def look() -> str:
    """Look."""
    return "seen"


@pytest.mark.promise("limits")
async def test_when_the_rounds_are_used_up_the_model_concludes_without_tools(make_loop: MakeLoop) -> None:
    loop = make_loop(call("look"), call("look"), "What I have.", "Next.", tool_registry=[look])
    sid = await loop.new_session()
    result = await loop.send("go", session_id=sid, limits=SendLimits(max_rounds=2))
    assert (result.status, result.final_text, result.rounds) == (SendStatus.ROUNDS_EXCEEDED, "What I have.", 3)
    assert [request.tool_choice for request in loop.llm.requests] == ["auto", "auto", "none"]
    assert loop.llm.requests[2].tools == loop.llm.requests[1].tools, "what a provider cached stays as it was"
    assert "last reply" in (loop.llm.requests[2].tail or "")
    assert said(await loop.get_messages(sid))[-1] == ("assistant", "What I have.")
    assert (await loop.send("more", session_id=sid)).is_completed


async def test_an_answer_in_the_last_round_is_a_plain_one(make_loop: MakeLoop) -> None:
    loop = make_loop(call("look"), "Seen.", tool_registry=[look])
    sid = await loop.new_session()
    result = await loop.send("go", session_id=sid, limits=SendLimits(max_rounds=2))
    assert (result.status, result.rounds) == (SendStatus.COMPLETED, 2)


async def test_a_model_that_calls_tools_although_it_must_conclude_is_not_asked_for_ever(make_loop: MakeLoop) -> None:
    ran: list[int] = []

    @tool
    def act() -> str:
        """Act."""
        ran.append(1)
        return "acted"

    loop = make_loop(call("act"), call("act", text="Just once more."), "Fine.", tool_registry=[act])
    sid = await loop.new_session()
    result = await loop.send("go", session_id=sid, limits=SendLimits(max_rounds=1))
    assert (result.status, result.final_text, len(ran)) == (SendStatus.ROUNDS_EXCEEDED, "Just once more.", 1)
    assert (await loop.send("more", session_id=sid)).final_text == "Fine."
    assert "no more tool calls" in error_answers(loop.llm.requests[2])[-1]


@pytest.mark.promise("limits")
async def test_when_the_tokens_are_used_up_the_send_ends_with_what_was_said(make_loop: MakeLoop) -> None:
    spoken = calls(("look", {}), text="Looking.", usage=Usage(80, 20))
    loop = make_loop(spoken, calls(("look", {}), usage=Usage(80, 30)), "Never.", tool_registry=[look])
    sid = await loop.new_session()
    result = await loop.send("go", session_id=sid, limits=SendLimits(max_tokens=200))
    assert (result.status, result.final_text, result.rounds) == (SendStatus.TOKENS_EXCEEDED, "Looking.", 2)
    assert result.usage.total_tokens == 210
    assert await loop.get_pending(sid) == (), "the calls that were paid for have run"
    assert answers(loop.llm.requests[1]) == ["seen"]
    assert loop.llm.steps_left == 1


async def test_an_answer_over_the_tokens_is_still_the_answer(make_loop: MakeLoop) -> None:
    loop = make_loop("An answer.")
    sid = await loop.new_session()
    result = await loop.send("go", session_id=sid, limits=SendLimits(max_tokens=1))
    assert (result.status, result.final_text) == (SendStatus.COMPLETED, "An answer.")


async def test_what_is_left_of_the_tokens_caps_each_reply(make_loop: MakeLoop) -> None:
    loop = make_loop(calls(("look", {}), usage=Usage(500, 100)), "Done.", tool_registry=[look])
    sid = await loop.new_session()
    await loop.send("go", session_id=sid, limits=SendLimits(max_tokens=1_000), max_output_tokens=900)
    assert [request.max_output_tokens for request in loop.llm.requests] == [900, 400]


@pytest.mark.promise("limits")
async def test_calls_beyond_the_limit_do_not_run_and_the_model_concludes(make_loop: MakeLoop) -> None:
    ran: list[int] = []

    @tool
    def act(n: int) -> str:
        """Act."""
        ran.append(n)
        return f"acted {n}"

    wanted = calls(*(("act", {"n": n}) for n in range(3)))
    loop = make_loop(call("act", {"n": 9}), wanted, "What I have.", tool_registry=[act])
    sid = await loop.new_session()
    result = await loop.send("go", session_id=sid, limits=SendLimits(max_tool_calls=3))
    assert (result.status, result.final_text) == (SendStatus.TOOL_CALLS_EXCEEDED, "What I have.")
    assert sorted(ran) == [0, 1, 9]
    assert answers(loop.llm.requests[2])[:3] == ["acted 9", "acted 0", "acted 1"]
    [told] = error_answers(loop.llm.requests[2])
    assert "limit of tool calls" in told
    assert loop.llm.requests[2].tool_choice == "none"


async def test_exactly_the_allowed_calls_are_no_excess(make_loop: MakeLoop) -> None:
    loop = make_loop(calls(("look", {}), ("look", {})), "Done.", tool_registry=[look])
    sid = await loop.new_session()
    result = await loop.send("go", session_id=sid, limits=SendLimits(max_tool_calls=2))
    assert (result.status, result.tool_calls) == (SendStatus.COMPLETED, 2)


async def test_no_calls_at_all_may_be_allowed(make_loop: MakeLoop) -> None:
    loop = make_loop(call("look"), "Fine.", tool_registry=[look])
    sid = await loop.new_session()
    result = await loop.send("go", session_id=sid, limits=SendLimits(max_tool_calls=0))
    assert (result.status, result.final_text) == (SendStatus.TOOL_CALLS_EXCEEDED, "Fine.")


@pytest.mark.promise("limits")
async def test_when_the_time_is_over_in_a_model_call_the_send_ends(make_loop: MakeLoop) -> None:
    gate = Gate()
    loop = make_loop(call("look", text="Looking."), gate.then("Never."), "Fine.", tool_registry=[look])
    sid = await loop.new_session()
    sending = asyncio.create_task(loop.send("go", session_id=sid, limits=SendLimits(max_seconds=60)))
    await gate.someone()
    pass_time(60)
    result = await within_limit(sending)
    assert (result.status, result.final_text) == (SendStatus.TIME_EXCEEDED, "Looking.")
    assert gate.cancelled == 1
    assert (await loop.send("more", session_id=sid)).final_text == "Fine."


async def test_when_the_time_is_over_in_a_tool_its_call_is_settled(make_loop: MakeLoop) -> None:
    gate = Gate()

    @tool
    async def wait() -> str:
        """Wait."""
        await gate.passing()
        return "never"

    loop = make_loop(calls(("wait", {}), ("look", {})), "Fine.", tool_registry=[wait, look])
    sid = await loop.new_session()
    ears = Ears(loop, types=(ToolCallFinished,))
    sending = asyncio.create_task(loop.send("go", session_id=sid, limits=SendLimits(max_seconds=60)))
    await gate.someone()
    await within_limit(until(lambda: bool(ears.of(ToolCallFinished))))
    pass_time(60)
    result = await within_limit(sending)
    assert result.status is SendStatus.TIME_EXCEEDED
    assert gate.cancelled == 1
    await loop.send("more", session_id=sid)
    told = answers(loop.llm.requests[1])
    assert "cancelled while it ran" in told[0]
    assert told[1] == "seen", "the sibling that had finished keeps its result"


async def test_the_configuration_limits_every_send_that_brings_no_limits(make_loop: MakeLoop) -> None:
    config = LoopConfig(limits=SendLimits(max_rounds=1))
    loop = make_loop(
        call("look"), "Concluded.", call("look"), call("look"), "Done.", tool_registry=[look], config=config
    )
    sid = await loop.new_session()
    assert (await loop.send("go", session_id=sid)).status is SendStatus.ROUNDS_EXCEEDED
    result = await loop.send("go", session_id=sid, limits=SendLimits(max_rounds=None))
    assert (result.status, result.rounds) == (SendStatus.COMPLETED, 3)


async def test_limits_count_over_a_resume(make_loop: MakeLoop) -> None:
    calling = [call("look") for _ in range(3)]
    loop = make_loop(*calling, RuntimeError("down"), tool_registry=[look])
    sid = await loop.new_session()
    limits = SendLimits(max_rounds=4, max_tool_calls=10)
    with pytest.raises(Exception, match="down"):
        await loop.send("go", session_id=sid, limits=limits)
    other = make_loop(call("look"), "Concluded.", tool_registry=[look])
    result = await other.resume(sid)
    assert (result.status, result.rounds, result.tool_calls) == (SendStatus.ROUNDS_EXCEEDED, 5, 4)
    assert result.usage.total_tokens == 75


async def test_a_limit_ends_a_send_once_and_its_result_is_the_recorded_one(make_loop: MakeLoop) -> None:
    loop = make_loop(call("look"), "Concluded.", tool_registry=[look])
    ears = Ears(loop, types=(SendFinished, TextDelta))
    sid = await loop.new_session()
    options: dict[str, Any] = {"session_id": sid, "request_id": "r", "limits": SendLimits(max_rounds=1)}
    result = await loop.send("go", **options)
    again = await make_loop(tool_registry=[look]).send("go", **options)
    assert (again.status, again.final_text, again.is_replayed) == (result.status, result.final_text, True)
    assert len(ears.of(SendFinished)) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"max_rounds": 0},
        {"max_rounds": 1.5},
        {"max_rounds": True},
        {"max_tokens": -1},
        {"max_tool_calls": -1},
        {"max_tool_calls": "2"},
        {"max_seconds": 0},
        {"max_seconds": float("nan")},
        {"max_seconds": float("inf")},
        {"max_seconds": "1"},
    ],
    ids=repr,
)
@pytest.mark.promise("bad-input")
def test_a_limit_that_limits_nothing_sensible_is_refused(options: dict[str, Any]) -> None:
    [name] = options
    with pytest.raises(ConfigError, match=name):
        SendLimits(**options)


async def test_a_truncated_reply_with_calls_counts_them_and_runs_none(make_loop: MakeLoop) -> None:
    cut = calls(("look", {}), ("look", "{"))
    loop = make_loop(type(cut)(cut.message, StopReason.LENGTH, cut.usage), "Done.", tool_registry=[look])
    sid = await loop.new_session()
    result = await loop.send("go", session_id=sid, limits=SendLimits(max_tool_calls=5))
    assert (result.status, result.tool_calls) == (SendStatus.COMPLETED, 2)
    await asyncio.sleep(0)
    assert "seen" not in answers(loop.llm.requests[1])
