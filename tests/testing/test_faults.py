"""A model fails at the calls that a plan names, in the way that it names, and an agent goes on or says so."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from power_loop import LLMDelta, LLMRequest, LLMResponse, LLMRetryPolicy, LoopConfig, Message, StatefulAgentLoop, tool
from power_loop.errors import ConfigError, LLMConnectionError, LLMOverloadedError, LLMRateLimitedError
from power_loop.messages import Role, ToolCallPart, tool_message, user_message
from power_loop.testing import (
    Fault,
    FaultKind,
    FaultyLLM,
    FrozenClock,
    ScriptedLLM,
    call,
    calls,
    random_faults,
)
from tests.agent.parts import Ears, error_answers, said, until, within_limit

FIRST = "call 1: error llm.overloaded"
QUESTION = LLMRequest((user_message("go"),))


@tool(effect="read")
async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


async def asked(llm: Any, request: LLMRequest = QUESTION) -> tuple[LLMResponse, list[tuple[str, str]]]:
    heard: list[LLMDelta] = []
    response = await within_limit(llm.generate(request, heard.append))
    return response, [(one.kind.value, one.text) for one in heard]


# ---- each fault ----


async def test_an_error_is_raised_and_the_model_is_not_asked() -> None:
    script = ScriptedLLM(["Fine."])
    llm = FaultyLLM(script, [Fault(1, "error", code="llm.rate_limited", retry_after_s=2.5)])
    with pytest.raises(LLMRateLimitedError) as caught:
        await asked(llm)
    assert (caught.value.retry_after_s, caught.value.may_retry, caught.value.model) == (2.5, True, "scripted")
    assert str(caught.value) == "the model fails (a fault at call 1: error llm.rate_limited)"
    assert script.requests == []
    assert (await asked(llm))[0].message.text == "Fine."
    assert (llm.asked, llm.fired) == (2, list(llm.faults))


async def test_a_stream_is_cut_and_who_asks_the_same_again_gets_the_whole() -> None:
    script = ScriptedLLM(["One two three.", "Other."])
    llm = FaultyLLM(script, [Fault(1, FaultKind.CUT, pieces=2), Fault(2, "cut", pieces=0)])
    heard: list[LLMDelta] = []
    with pytest.raises(LLMConnectionError, match="after 2 pieces"):
        await llm.generate(QUESTION, heard.append)
    assert [one.text for one in heard] == ["One", " two"]
    with pytest.raises(LLMConnectionError):
        await llm.generate(QUESTION, heard.append)
    assert len(heard) == 2
    response, pieces = await asked(llm)
    assert (response.message.text, "".join(text for _, text in pieces)) == ("One two three.", "One two three.")
    assert len(script.requests) == 1
    assert (await asked(llm))[0].message.text == "Other."


async def test_a_delay_is_one_of_its_clock() -> None:
    clock = FrozenClock()
    llm = FaultyLLM(ScriptedLLM(["Fine."]), [Fault(1, "delay", seconds=30)], clock=clock)
    asking = asyncio.create_task(asked(llm))
    await within_limit(clock.until_asleep())
    assert clock.slept == [30]
    clock.advance(30)
    assert (await asking)[0].message.text == "Fine."


async def test_a_hang_ends_by_being_cancelled() -> None:
    llm = FaultyLLM(ScriptedLLM(["Fine."]), [Fault(1, "hang")])
    asking = asyncio.create_task(llm.generate(QUESTION, lambda delta: None))
    await within_limit(until(lambda: bool(llm.fired)))
    asking.cancel()
    await asyncio.wait([asking])
    assert asking.cancelled()
    assert (await asked(llm))[0].message.text == "Fine."


async def test_a_reply_says_nothing() -> None:
    llm = FaultyLLM(ScriptedLLM([call("add", {"a": 1, "b": 2}, text="Well.")]), [Fault(1, "empty")])
    response, pieces = await asked(llm)
    assert (response.message.parts, response.stop.value, pieces) == ((), "end", [])


async def test_arguments_end_in_the_middle() -> None:
    script = ScriptedLLM([calls(("add", '{"a": 1}'), ("add", "1"), text="Well.")])
    response, pieces = await asked(FaultyLLM(script, [Fault(1, "garbled_arguments")]))
    assert [one.arguments for one in response.message.tool_calls] == ['{"a"', "{"]
    assert pieces == [("text", "Well."), ("tool_call", '{"a"'), ("tool_call", "{")]


async def test_calls_share_one_id() -> None:
    script = ScriptedLLM([calls(("add", "{}"), ("add", "{}"), ids=["x", "y"])] * 2)
    llm = FaultyLLM(script, [Fault(1, "doubled_ids"), Fault(2, "doubled_ids")])
    assert [one.id for one in (await asked(llm))[0].message.tool_calls] == ["x", "x"]
    earlier = Message(Role.ASSISTANT, (ToolCallPart("old", "add", "{}"),))
    request = LLMRequest((user_message("go"), earlier, tool_message("old", ())))
    assert [one.id for one in (await asked(llm, request))[0].message.tool_calls] == ["old", "old"]


async def test_no_usage_is_given_and_what_is_not_spoiled_stays() -> None:
    response, pieces = await asked(FaultyLLM(ScriptedLLM(["Well now."]), [Fault(1, "no_usage")]))
    assert (response.usage, response.message.text) == (None, "Well now.")
    assert pieces == [("text", "Well"), ("text", " now.")]


async def test_several_faults_of_one_call_come_together() -> None:
    clock = FrozenClock(skips_sleep=True)
    faults = [Fault(1, "cut", pieces=1), Fault(1, "no_usage"), Fault(1, "delay", seconds=3)]
    llm = FaultyLLM(ScriptedLLM(["Well now."]), faults, clock=clock)
    heard: list[LLMDelta] = []
    with pytest.raises(LLMConnectionError):
        await llm.generate(QUESTION, heard.append)
    assert ([one.text for one in heard], clock.slept) == (["Well"], [3])
    assert (await asked(llm))[0].usage is None
    assert [one.kind.value for one in llm.fired] == ["delay", "no_usage", "cut"]


async def test_a_fault_that_finds_nothing_to_spoil_is_not_among_those_that_fired() -> None:
    llm = FaultyLLM(ScriptedLLM(["No calls."]), [Fault(1, "garbled_arguments"), Fault(9, "empty")])
    await asked(llm)
    assert llm.fired == []


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ((1, "broken"), "the kind of a fault is 'broken': give one of 'error', 'cut'"),
        ((0, "cut"), "a fault is at call 0: calls of a model are counted from 1"),
        ((1, "error", "llm.tired"), r"no failure of a model has the code 'llm.tired': give one of llm\.\*"),
    ],
)
def test_a_fault_that_cannot_be_is_refused(fault: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        Fault(*fault)


# ---- plans by chance ----


def test_a_seed_draws_the_same_faults_and_another_one_others() -> None:
    assert random_faults(7) == random_faults(7)
    assert len({random_faults(seed) for seed in range(20)}) == 20
    assert random_faults(7, share=0.0) == ()
    assert [one.at for one in random_faults(7, calls=5, share=1.0)] == [1, 2, 3, 4, 5]
    drawn = {one.kind for seed in range(50) for one in random_faults(seed)}
    assert drawn == set(FaultKind) - {FaultKind.HANG}
    assert {one.kind for one in random_faults(1, share=1.0, kinds=["hang"])} == {FaultKind.HANG}


async def test_the_seed_is_told_by_each_error_and_by_a_block_that_fails(capsys: pytest.CaptureFixture[str]) -> None:
    seed = next(seed for seed in range(9_999) if str(next(iter(random_faults(seed)), "")) == FIRST)

    async def fail() -> None:
        with FaultyLLM(ScriptedLLM(["x"]), seed) as llm:
            assert llm.seed == seed
            await asked(llm)

    with pytest.raises(LLMOverloadedError, match=f"{FIRST}, seed {seed}"):
        await fail()
    assert capsys.readouterr().err == f"faults of the model, seed {seed}: {FIRST}\n"
    with FaultyLLM(ScriptedLLM(["x"]), []) as llm:
        await asked(llm)
    assert capsys.readouterr().err == ""


# ---- an agent behind it ----


async def test_an_agent_gets_through_what_passes() -> None:
    faults = [
        Fault(1, "error", code="llm.overloaded"),
        Fault(2, "cut", pieces=1),
        Fault(4, "garbled_arguments"),
        Fault(5, "doubled_ids"),
        Fault(6, "no_usage"),
    ]
    sum_of = call("add", {"a": 1, "b": 2}, id="one", text="I look at it.")
    clock = FrozenClock(skips_sleep=True)
    llm = FaultyLLM(ScriptedLLM([sum_of, sum_of, sum_of, "Three."]), faults, clock=clock)
    async with StatefulAgentLoop(llm=llm, dsn=":memory:", tool_registry=[add], clock=clock) as loop:
        ears = Ears(loop)
        sid = await loop.new_session()
        result = await within_limit(loop.send("go", session_id=sid))
        log = said(await loop.get_messages(sid))
    assert (result.final_text, result.usage.is_estimated) == ("Three.", True)
    assert llm.fired == faults
    assert [text for role, text in log if role == "tool"][::2] == ["3", "3"]
    assert "stream.reset" in ears.types


@settings(max_examples=15)
@given(st.integers(0, 10_000))
def test_whatever_a_seed_draws_the_session_can_go_on(seed: int) -> None:
    async def run() -> None:
        clock = FrozenClock(skips_sleep=True)
        script = ScriptedLLM([lambda request: "Fine." if error_answers(request) or request.messages[-1].tool_result
                              else call("add", {"a": 1, "b": 2})], repeat_last=True)  # fmt: skip
        config = LoopConfig(retry=LLMRetryPolicy(max_attempts=30))
        with FaultyLLM(script, seed, clock=clock) as llm:
            loop = StatefulAgentLoop(llm=llm, dsn=":memory:", tool_registry=[add], clock=clock, config=config)
            async with loop:
                sid = await loop.new_session()
                while llm.asked < 20:
                    await within_limit(loop.send("go", session_id=sid))
                assert (await within_limit(loop.send("go", session_id=sid))).final_text == "Fine."

    asyncio.run(run())
