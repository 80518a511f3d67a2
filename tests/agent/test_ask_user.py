"""A model asks a person by a tool, in whatever process the answer comes, and a bad answer leaves the call waiting."""

from __future__ import annotations

from typing import Any

import pytest

from power_loop import Approve, Deny, Give, SendStatus
from power_loop.errors import InputError
from power_loop.records import WaitKind
from power_loop.testing import Scenario, call, calls, crash_matrix
from power_loop.tools import ask_user_tools

from .asking import ask_and_answer, is_booked, make_agent
from .conftest import MakeLoop
from .parts import answers, error_answers

ASK = "request_user_input"


async def asked(make_loop: MakeLoop, *rest: Any, **arguments: Any) -> tuple[Any, str]:
    loop = make_loop(calls((ASK, arguments), ids=("c1",)), *rest, tool_registry=ask_user_tools())
    sid = await loop.new_session()
    result = await loop.send("go", session_id=sid)
    assert result.status is SendStatus.WAITING_FOR_INPUT
    return loop, sid


@pytest.mark.promise("human-in-the-loop")
async def test_a_question_waits_and_another_handle_brings_the_answer(make_loop: MakeLoop) -> None:
    loop, sid = await asked(make_loop, prompt=" Where to? ")
    await loop.aclose()
    other = make_loop("To Oslo.", tool_registry=ask_user_tools())
    [waiting] = await other.get_pending(sid)
    assert (waiting.name, waiting.wait_kind, waiting.prompt, waiting.data) == (ASK, WaitKind.INPUT, "Where to?", None)
    for bad in ("", "  \n", "x" * 20_001, 5, None, {"a": 1}, ["Oslo"]):
        with pytest.raises(InputError, match="the result for call 'c1' is not what was asked for"):
            await other.submit_tool_result(sid, "c1", bad)
    with pytest.raises(InputError, match="Give"):
        await other.resume(sid, answers={"c1": Approve()})
    assert await other.get_pending(sid) == (waiting,), "it waits on"
    result = await other.submit_tool_result(sid, "c1", "Oslo, please.")
    assert (result.status, result.final_text) == (SendStatus.COMPLETED, "To Oslo.")
    assert answers(other.llm.requests[0]) == ["Oslo, please."]


async def test_with_choices_the_answer_is_one_of_them(make_loop: MakeLoop) -> None:
    loop, sid = await asked(make_loop, "Fine.", prompt="Which?", choices=["red", " dark  blue\n"])
    [waiting] = await loop.get_pending(sid)
    assert waiting.answer_schema == {"type": "string", "enum": ["red", "dark blue"]}
    assert waiting.data == {"choices": ["red", "dark blue"], "allows_other": False}
    for bad in ("green", "Red", "", 1):
        with pytest.raises(InputError, match=r"\$: "):
            await loop.resume(sid, answers={"c1": Give(bad)})
    assert await loop.get_pending(sid) == (waiting,)
    await loop.resume(sid, answers={"c1": Give("dark blue")})
    assert answers(loop.llm.requests[1]) == ["dark blue"]


async def test_with_choices_other_words_may_be_allowed(make_loop: MakeLoop) -> None:
    loop, sid = await asked(make_loop, "Fine.", prompt="Which?", choices=["red", "blue"], allows_other=True)
    [waiting] = await loop.get_pending(sid)
    assert waiting.data == {"choices": ["red", "blue"], "allows_other": True}
    await loop.submit_tool_result(sid, "c1", "the one of the sea")
    assert answers(loop.llm.requests[1]) == ["the one of the sea"]


async def test_a_person_may_refuse_to_answer(make_loop: MakeLoop) -> None:
    loop, sid = await asked(make_loop, "Then not.", prompt="Which?")
    result = await loop.resume(sid, answers={"c1": Deny("none of your business")})
    assert result.status is SendStatus.COMPLETED
    assert "none of your business" in error_answers(loop.llm.requests[1])[0]


async def test_several_questions_of_one_reply_wait_at_the_same_time(make_loop: MakeLoop) -> None:
    wanted = calls((ASK, {"prompt": "One?"}), (ASK, {"prompt": "Two?"}), ids=("a", "b"))
    loop = make_loop(wanted, "Fine.", tool_registry=ask_user_tools())
    sid = await loop.new_session()
    assert [one.prompt for one in (await loop.send("go", session_id=sid)).pending] == ["One?", "Two?"]
    result = await loop.submit_tool_result(sid, "b", "second")
    assert [one.call_id for one in result.pending] == ["a"]
    await loop.submit_tool_result(sid, "a", "first")
    assert answers(loop.llm.requests[1]) == ["first", "second"]


@pytest.mark.promise("kill-at-any-moment")
def test_a_kill_at_any_point_loses_neither_the_question_nor_the_answer() -> None:
    booking = Scenario("booking", ask_and_answer, check=is_booked)
    report = crash_matrix(make_agent, scenarios=booking, workers=2)
    report.raise_for_violations()
    assert len(report.rows) > 5


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"prompt": " \n"}, "the prompt has 0 characters: give 1 to 4,000"),
        ({"prompt": "x" * 4_001}, "the prompt has 4,001 characters"),
        ({"prompt": "?", "choices": [str(n) for n in range(21)]}, "there are 21 choices: give at most 20"),
        ({"prompt": "?", "choices": ["a", " "]}, "choice 2 has 0 characters"),
        ({"prompt": "?", "choices": ["a", "b" * 201]}, "choice 2 has 201 characters"),
        ({"prompt": "?", "choices": ["a", "b", " a"]}, "choice 3, 'a', stands there twice"),
        ({"prompt": "?", "choices": "red"}, "choices"),
        ({}, "prompt"),
    ],
)
async def test_a_question_that_nobody_can_be_asked_is_told_to_the_model(
    make_loop: MakeLoop, arguments: dict[str, Any], told: str
) -> None:
    loop = make_loop(call(ASK, arguments or "{}"), "Sorry.", tool_registry=ask_user_tools())
    result = await loop.send("go", session_id=await loop.new_session())
    assert (result.status, result.pending) == (SendStatus.COMPLETED, ())
    assert told in error_answers(loop.llm.requests[1])[0]
