"""A recorded session is replayed: the same code asks the same, and other code is told where it parts from it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from power_loop import (
    Compaction,
    Deny,
    LLMRequest,
    LoopConfig,
    Projection,
    SendLimits,
    SendStatus,
    StatefulAgentLoop,
    ToolContext,
    tool,
)
from power_loop.context import Folded
from power_loop.errors import InputError, LLMConnectionError
from power_loop.records import Replayed
from power_loop.testing import ScriptedLLM, call, calls

from .conftest import MakeLoop
from .parts import within_limit

RAN: list[Any] = []


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    RAN.clear()


@tool(effect="read")
def add(a: int, b: int) -> int:
    """Add two numbers."""
    RAN.append((a, b))
    return a + b


@tool(requires_approval=True)
def pay(amount: int) -> str:
    """Pay."""
    RAN.append(amount)
    return f"paid {amount}"


@tool
def fail() -> str:
    """Fail."""
    RAN.append("fail")
    raise RuntimeError("it broke")


@tool(effect="read", max_result_chars=2_000)
def tell() -> str:
    """Tell at length."""
    RAN.append("tell")
    return "word " * 2_000


TOOLS = [add, pay, fail, tell]
STEPS = [
    calls(("add", {"a": 1, "b": 2}), ("add", {"a": 3, "b": 4})),
    "Three and seven.",
    calls(("pay", {"amount": 5}), ("fail", {}), ("tell", {})),
    call("add", {"a": "no number"}),
    call("nobody", {}),
    "That was all.",
]


async def record(loop: StatefulAgentLoop) -> str:
    session_id = await loop.new_session(system_prompt="You count.")
    await loop.send("Count.", session_id=session_id)
    waiting = await loop.send("Pay.", session_id=session_id)
    assert waiting.status is SendStatus.WAITING_FOR_INPUT
    [pending] = waiting.pending
    done = await loop.resume(session_id, answers={pending.call_id: Deny("too much")})
    assert done.is_completed
    return session_id


async def replayed(recorded: StatefulAgentLoop, session_id: str, **today: Any) -> Replayed:
    """Return what becomes of a session under a loop of today."""
    options = {"tool_registry": TOOLS, "llm": ScriptedLLM([]), "config": LoopConfig(), **today}
    async with StatefulAgentLoop(store=await recorded.get_store(), **options) as loop:
        return await within_limit(loop.replay(session_id))


def lines(found: Replayed) -> str:
    assert found.difference is not None
    return "\n".join(found.difference.lines)


async def test_the_same_code_asks_the_same_and_no_tool_runs(make_loop: MakeLoop) -> None:
    loop = make_loop(*STEPS, tool_registry=TOOLS)
    session_id = await record(loop)
    ran = list(RAN)
    before = await (await loop.get_store()).export_session(session_id)  # type: ignore[attr-defined]
    found = await within_limit(loop.replay(session_id))
    assert found == Replayed(session_id, 6), str(found)
    assert found.is_same
    found.raise_for_difference()
    assert ran == RAN, "a replay runs no tool"
    assert await (await loop.get_store()).export_session(session_id) == before  # type: ignore[attr-defined]
    assert (await loop.replay(before)).calls == 6
    assert list(found.requests) == [one.call for one in [await loop.explain(session_id, seq) for seq in found.requests]]
    asked = [request.messages for request in loop.llm.requests]  # type: ignore[attr-defined]
    assert [[one.parts for one in request.messages] for request in found.requests.values()] == [
        [one.parts for one in messages] for messages in asked
    ]


async def test_it_ends_where_it_is_told_to(make_loop: MakeLoop) -> None:
    loop = make_loop(*STEPS, tool_registry=TOOLS)
    session_id = await record(loop)
    seqs = list((await loop.replay(session_id)).requests)
    for count, seq in enumerate(seqs, 1):
        found = await loop.replay(session_id, upto=seq)
        assert (found.calls, found.is_same) == (count, True), str(found)
    with pytest.raises(InputError):
        await loop.replay(session_id, upto="4")  # type: ignore[arg-type]


async def test_another_tool_prompt_or_limit_is_told_at_the_first_call_that_it_changes(make_loop: MakeLoop) -> None:
    loop = make_loop(*STEPS, tool_registry=TOOLS)
    session_id = await record(loop)

    fewer = await replayed(loop, session_id, tool_registry=[add, pay, fail])
    assert (fewer.calls, fewer.is_same) == (0, False)
    assert "the tools differ" in lines(fewer)

    shorter = await replayed(loop, session_id, tool_registry=[add, pay, fail, replace(tell, max_result_chars=500)])
    assert shorter.calls == 3
    assert "text differs at character" in lines(shorter)

    stingy = await replayed(loop, session_id, config=LoopConfig(limits=SendLimits(max_rounds=2)))
    assert (stingy.calls, stingy.is_same) == (4, False)

    await loop.update_session(session_id, system_prompt="You do not count.")
    other = await loop.replay(session_id)
    assert "the system prompt differs" in lines(other)
    assert "You do not count." in str(other)
    with pytest.raises(AssertionError, match="You do not count"):
        other.raise_for_difference()


async def test_a_send_that_was_stopped_from_outside_is_replayed_as_far_as_it_came(make_loop: MakeLoop) -> None:
    script = [call("add", {"a": 1, "b": 1}), LLMConnectionError("away")]
    loop = make_loop(*script, tool_registry=TOOLS, config=LoopConfig(retry=replace(LoopConfig().retry, max_attempts=1)))
    session_id = await loop.new_session()
    with pytest.raises(LLMConnectionError):
        await loop.send("Add.", session_id=session_id)
    found = await within_limit(loop.replay(session_id))
    assert (found.calls, found.is_same) == (1, True), str(found)


async def test_inputs_that_came_meanwhile_are_taken_in_where_they_were(make_loop: MakeLoop) -> None:
    sent: list[StatefulAgentLoop] = []

    async def more(request: LLMRequest) -> Any:
        await sent[0].follow_up(session_id, "And hurry.")
        return call("add", {"a": 1, "b": 1})

    async def last(request: LLMRequest) -> str:
        await sent[0].follow_up(session_id, "One thing more.")
        return "Two."

    loop = make_loop(more, last, "Here it is.", tool_registry=TOOLS)
    sent.append(loop)
    session_id = await loop.new_session()
    await loop.send("Add.", session_id=session_id)
    roles = [record.message.role.value for record in await loop.get_messages(session_id)]
    assert roles.count("user") == 3
    found = await within_limit(loop.replay(session_id))
    assert (found.calls, found.is_same) == (3, True), str(found)


async def test_an_answer_that_had_to_be_mended_is_mended_again(make_loop: MakeLoop) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    loop = make_loop('{"n": "one"}', '{"n": 1}')
    session_id = await loop.new_session()
    result = await loop.send("Count.", session_id=session_id, output_schema=schema)
    assert result.output == {"n": 1}
    found = await within_limit(loop.replay(session_id))
    assert (found.calls, found.is_same) == (2, True), str(found)


class Short:
    """Folds without a model."""

    async def fold(self, task: Any) -> Folded:
        return Folded(f"They talked up to {task.to_seq}.")


async def test_folds_and_short_forms_stand_where_they_stood(make_loop: MakeLoop) -> None:
    info = replace(ScriptedLLM().info, context_window_tokens=3_000, max_output_tokens=500)
    llm = ScriptedLLM(["word " * 300], info=info, repeat_last=True)
    config = LoopConfig(compaction=Compaction(strategy=Short()))
    loop = make_loop(llm=llm, config=config)
    session_id = await loop.new_session()
    for number in range(8):
        await loop.send(f"Talk {number}. " + "more " * 100, session_id=session_id)
    assert await loop.get_folds(session_id)
    found = await within_limit(loop.replay(session_id))
    assert (found.calls, found.is_same) == (8, True), str(found)

    projecting = LoopConfig(projection=Projection())
    short = make_loop(call("add", {"a": 1, "b": 2}), "Three.", "Yes.", tool_registry=TOOLS, config=projecting)
    session_id = await short.new_session()
    await short.send("Add.", session_id=session_id)
    await short.send("Sure?", session_id=session_id)
    found = await within_limit(short.replay(session_id))
    assert (found.calls, found.is_same, found.unchecked) == (3, True, ()), str(found)


async def test_what_if_goes_on_live_in_a_fork_and_leaves_the_session_as_it_is(make_loop: MakeLoop) -> None:
    @tool(effect="read")
    def note(context: ToolContext) -> str:
        """Note."""
        RAN.append(context.session_id)
        return "noted"

    loop = make_loop(*STEPS, "Otherwise.", "Again.", tool_registry=TOOLS)
    session_id = await record(loop)
    log = await loop.get_messages(session_id)
    other = await loop.what_if(session_id, 5, "Say otherwise.")
    assert other.final_text == "Otherwise."
    texts = [record.message.text for record in await loop.get_messages(other.session_id) if record.message.text]
    assert texts == ["Count.", "Three and seven.", "Say otherwise.", "Otherwise."]
    again = await loop.what_if(session_id, 1, system_prompt="You sing.")
    assert (again.final_text, again.session_id != session_id) == ("Again.", True)
    assert loop.llm.requests[-1].system == "You sing."  # type: ignore[attr-defined]
    model = ScriptedLLM([call("note"), "By another."])
    another = await loop.what_if(session_id, 6, llm=model, tools=[note])
    assert another.final_text == "By another."
    assert RAN[-1] == another.session_id
    assert [spec.name for spec in model.requests[0].tools] == ["note"]
    assert await loop.get_messages(session_id) == log
    for seq, content in ((2, None), (0, "x"), (99, "x"), (2, "x")):
        with pytest.raises(InputError):
            await loop.what_if(session_id, seq, content)


async def test_replays_side_by_side_do_not_meet(make_loop: MakeLoop) -> None:
    loop = make_loop(*STEPS, tool_registry=TOOLS)
    session_id = await record(loop)
    found = await within_limit(asyncio.gather(*[loop.replay(session_id) for _ in range(4)]))
    assert [one.calls for one in found] == [6] * 4
