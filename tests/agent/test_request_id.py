"""A send that is repeated with its request id: recorded, driven on, or refused, and never run twice."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from power_loop import ImagePart, LLMRetryPolicy, LoopConfig, SendLimits, SendStatus, TextPart, tool
from power_loop.errors import InputError, LLMServerError, RequestConflictError
from power_loop.hooks import Rewrite, SendStartContext, Veto
from power_loop.testing import FrozenClock, call

from .conftest import MakeLoop
from .parts import Ears, Gate, said, within_limit

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
    clock = FrozenClock(skips_sleep=True)
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


# ---- hooks about an input, and a repeat of it ----


async def test_a_repeat_is_known_by_what_its_caller_gave_whatever_hooks_make_of_it(make_loop: MakeLoop) -> None:
    loop = make_loop("Done.")
    count = itertools.count(1)
    loop.hooks.add("send.start", lambda context: Rewrite(content=f"{context.content[0].text} ({next(count)})"))
    sid = await loop.new_session()
    first = await loop.send("go", session_id=sid, request_id="r1")
    again = await loop.send("go", session_id=sid, request_id="r1")
    assert (again.is_replayed, again.final_text, again.send_index) == (True, "Done.", first.send_index)
    assert said(await loop.get_messages(sid)) == [("user", "go (1)"), ("assistant", "Done.")]
    with pytest.raises(RequestConflictError):
        await loop.send("go (1)", session_id=sid, request_id="r1")


async def test_a_repeat_gives_the_recorded_result_where_hooks_would_veto_it_by_now(make_loop: MakeLoop) -> None:
    loop = make_loop("Done.")
    sid = await loop.new_session()
    await loop.send("go", session_id=sid, request_id="r1")
    loop.hooks.add("send.start", lambda context: Veto("over quota"))
    assert (await loop.send("go", session_id=sid, request_id="r1")).final_text == "Done."
    assert (await loop.send("go", session_id=sid, request_id="r2")).status is SendStatus.VETOED


async def test_hooks_are_asked_before_a_repeat_drives_a_failed_send_on(make_loop: MakeLoop) -> None:
    loop = make_loop(LLMServerError("down"), "Done.", config=LoopConfig(retry=LLMRetryPolicy(max_attempts=1)))
    sid = await loop.new_session()
    with pytest.raises(LLMServerError):
        await loop.send("go", session_id=sid, request_id="r1")
    asked = []

    def veto_once(context: SendStartContext) -> Veto | None:
        asked.append((context.is_resume, context.send_index))
        return Veto("not now") if len(asked) == 1 else None

    loop.hooks.add("send.start", veto_once)
    assert (await loop.send("go", session_id=sid, request_id="r1")).status is SendStatus.VETOED
    assert (await loop.send("go", session_id=sid, request_id="r1")).final_text == "Done."
    assert asked == [(True, 1), (True, 1)]


@pytest.mark.parametrize("other", [None, {"type": "object", "properties": {"b": {"type": "integer"}}}])
async def test_the_form_of_the_answer_belongs_to_the_request(make_loop: MakeLoop, other: Any) -> None:
    loop = make_loop('{"a": 1}')
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    sid = await loop.new_session()
    first = await loop.send("go", session_id=sid, request_id="r1", output_schema=schema)
    again = await loop.send("go", session_id=sid, request_id="r1", output_schema=dict(schema))
    assert (again.is_replayed, again.output) == (True, first.output)
    with pytest.raises(RequestConflictError):
        await loop.send("go", session_id=sid, request_id="r1", output_schema=other)


@pytest.mark.parametrize("has_hooks", [True, False])
@pytest.mark.parametrize("request_id", ["", 5, object(), ["r1"], b"r1", "r" * 300, "r\ud800"])
async def test_what_can_be_no_request_id_is_refused_with_and_without_hooks(
    make_loop: MakeLoop, request_id: Any, has_hooks: bool
) -> None:
    loop = make_loop()
    if has_hooks:
        loop.hooks.add("send.start", lambda context: None)
    sid = await loop.new_session()
    with pytest.raises(InputError, match=r"request_id .* is not usable"):
        await loop.send("go", session_id=sid, request_id=request_id)
    assert await loop.get_messages(sid) == ()
