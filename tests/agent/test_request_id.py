"""A send that is repeated with its request id: recorded, driven on, or refused, and never run twice."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from power_loop import (
    ImagePart,
    LLMServerError,
    RequestConflictError,
    SendLimits,
    SendStatus,
    TextPart,
    tool,
)
from power_loop.testing import call

from .conftest import MakeLoop
from .parts import Ears, Gate, NoWaitClock, said, within_limit

RAN: list[Any] = []


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    RAN.clear()


@tool
def act() -> str:
    """Act."""
    RAN.append("act")
    return "acted"


@pytest.mark.promise("repeated-request")
async def test_a_repeated_send_gives_the_recorded_result_and_asks_no_model(make_loop: MakeLoop) -> None:
    loop = make_loop(call("act"), "Done.", tool_registry=[act])
    sid = await loop.new_session()
    first = await loop.send("go", session_id=sid, request_id="r1")
    for handle in (loop, make_loop(tool_registry=[act])):
        again = await handle.send("go", session_id=sid, request_id="r1")
        assert again.is_replayed
        assert again == type(first)(**{**{f: getattr(first, f) for f in first.__slots__}, "is_replayed": True})
    assert RAN == ["act"]
    assert len(loop.llm.requests) == 2
    assert len(await loop.get_messages(sid)) == 4


async def test_a_recorded_result_is_found_behind_later_sends(make_loop: MakeLoop) -> None:
    loop = make_loop("One.", "Two.", "Three.")
    sid = await loop.new_session()
    for n in (1, 2, 3):
        await loop.send(str(n), session_id=sid, request_id=f"r{n}")
    again = await make_loop().send("1", session_id=sid, request_id="r1")
    assert (again.final_text, again.send_index) == ("One.", 1)


@pytest.mark.parametrize("other", ["stop", ["go", "go"], [TextPart("go"), ImagePart.from_bytes(b"x")], "go "])
async def test_a_request_id_belongs_to_one_input(make_loop: MakeLoop, other: Any) -> None:
    loop = make_loop("Done.")
    sid = await loop.new_session()
    await loop.send("go", session_id=sid, request_id="r1")
    with pytest.raises(RequestConflictError) as caught:
        await loop.send(other, session_id=sid, request_id="r1")
    assert (caught.value.request_id, caught.value.session_id) == ("r1", sid)
    assert len(await loop.get_messages(sid)) == 2


async def test_the_same_input_in_another_form_is_the_same(make_loop: MakeLoop) -> None:
    loop = make_loop("Done.")
    sid = await loop.new_session()
    await loop.send("go", session_id=sid, request_id="r1")
    assert (await loop.send([TextPart("go")], session_id=sid, request_id="r1")).is_replayed


async def test_request_ids_are_of_a_session(make_loop: MakeLoop) -> None:
    loop = make_loop("One.", "Two.")
    first, second = await loop.new_session(), await loop.new_session()
    await loop.send("a", session_id=first, request_id="r1")
    assert (await loop.send("b", session_id=second, request_id="r1")).final_text == "Two."


async def test_sends_without_a_request_id_are_never_the_same(make_loop: MakeLoop) -> None:
    loop = make_loop("One.", "Two.")
    sid = await loop.new_session()
    assert (await loop.send("go", session_id=sid)).final_text == "One."
    assert (await loop.send("go", session_id=sid)).final_text == "Two."


@pytest.mark.promise("repeated-request")
async def test_repeats_at_the_same_time_run_once(make_loop: MakeLoop) -> None:
    gate = Gate()
    loop = make_loop(gate.then(call("act")), "Done.", tool_registry=[act])
    sid = await loop.new_session()
    sends = [asyncio.create_task(loop.send("go", session_id=sid, request_id="r1")) for _ in range(5)]
    await gate.someone()
    gate.open()
    results = await within_limit(asyncio.gather(*sends))
    assert {result.final_text for result in results} == {"Done."}
    assert [result.is_replayed for result in results] == [False, True, True, True, True]
    assert RAN == ["act"]


async def test_a_repeated_send_that_had_failed_is_driven_on(make_loop: MakeLoop) -> None:
    loop = make_loop(call("act"), LLMServerError("x", may_retry=False), "Done.", tool_registry=[act])
    ears = Ears(loop)
    sid = await loop.new_session()
    with pytest.raises(LLMServerError):
        await loop.send("go", session_id=sid, request_id="r1")
    result = await loop.send("go", session_id=sid, request_id="r1")
    assert (result.status, result.final_text, result.send_index) == (SendStatus.COMPLETED, "Done.", 1)
    assert RAN == ["act"], "what had run does not run again"
    assert [text for _, text in said(await loop.get_messages(sid))] == ["go", "", "acted", "Done."]
    assert ears.types.count("send.started") == 2


async def test_an_earlier_send_that_had_failed_is_not_driven_on_behind_a_later_one(make_loop: MakeLoop) -> None:
    loop = make_loop(LLMServerError("x", may_retry=False), "Second.")
    sid = await loop.new_session()
    with pytest.raises(LLMServerError):
        await loop.send("first", session_id=sid, request_id="r1")
    await loop.send("second", session_id=sid, request_id="r2")
    again = await loop.send("first", session_id=sid, request_id="r1")
    assert (again.send_index, again.is_replayed) == (1, True)
    assert again.status in (SendStatus.FAILED, SendStatus.INTERRUPTED)
    assert [text for _, text in said(await loop.get_messages(sid))] == ["first", "second", "Second."]


async def test_options_are_those_of_the_first_send(make_loop: MakeLoop) -> None:
    clock = NoWaitClock()
    loop = make_loop(call("act"), LLMServerError("x", may_retry=False), "Done.", tool_registry=[act], clock=clock)
    sid = await loop.new_session()
    limits = SendLimits(max_rounds=1)
    with pytest.raises(LLMServerError):
        await loop.send("go", session_id=sid, request_id="r1", limits=limits, system_prompt="First.")
    result = await loop.send("go", session_id=sid, request_id="r1", system_prompt="Second.")
    assert result.status is SendStatus.ROUNDS_EXCEEDED
    assert [request.system for request in loop.llm.requests] == ["First."] * 3


async def test_a_cancelled_send_stays_cancelled(make_loop: MakeLoop) -> None:
    gate = Gate()
    loop = make_loop(gate.then("Never."))
    sid = await loop.new_session()
    turn = asyncio.create_task(loop.send("go", session_id=sid, request_id="r1"))
    await gate.someone()
    await loop.cancel(sid)
    await within_limit(turn)
    again = await loop.send("go", session_id=sid, request_id="r1")
    assert (again.status, again.is_replayed) == (SendStatus.CANCELLED, True)


async def test_a_request_id_is_in_the_result_also_after_a_resume(make_loop: MakeLoop) -> None:
    loop = make_loop(RuntimeError("down"), "Done.")
    sid = await loop.new_session()
    with pytest.raises(Exception, match="down"):
        await loop.send("go", session_id=sid, request_id="r1")
    assert (await loop.resume(sid)).request_id == "r1"
    assert (await loop.resume(sid)).request_id == "r1"
