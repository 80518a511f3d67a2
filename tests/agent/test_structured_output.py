"""Answers that fit a schema: asked for natively or in words, checked whole, mended by the model, or a coded error."""

from __future__ import annotations

import json
from typing import Any

import pytest

from power_loop import LLMResponse, LoopConfig, Message, SendLimits, SendStatus, StopReason, TextPart, tool
from power_loop.errors import OutputError
from power_loop.events import SendFinished
from power_loop.llm import ModelInfo, OutputSchema
from power_loop.messages import RefusalPart, Role
from power_loop.testing import ScriptedLLM, call

from .conftest import MakeLoop
from .parts import Ears, said

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}, "pet": {"type": "string"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
ANN = '{"name": "Ann", "age": 30}'
PLAIN = ModelInfo("scripted", "plain", has_json_schema=False)


@tool(effect="read")
def look() -> str:
    """Look."""
    return "seen"


@pytest.mark.promise("structured-output")
async def test_an_answer_that_fits_comes_parsed(make_loop: MakeLoop) -> None:
    loop = make_loop(ANN)
    sid = await loop.new_session()
    result = await loop.send("Who?", session_id=sid, output_schema=PERSON)
    assert (result.status, result.output, result.final_text) == (
        SendStatus.COMPLETED,
        {"name": "Ann", "age": 30},
        ANN,
    )
    [request] = loop.llm.requests
    assert request.output_schema is not None
    assert request.output_schema.schema == PERSON
    assert request.tail is None


async def test_a_model_that_takes_no_schema_is_asked_in_words(make_loop: MakeLoop) -> None:
    loop = make_loop(llm=ScriptedLLM([f"Here you are:\n```json\n{ANN}\n```\nAnything else?"], info=PLAIN))
    sid = await loop.new_session()
    result = await loop.send("Who?", session_id=sid, output_schema=PERSON)
    assert result.output == {"name": "Ann", "age": 30}
    [request] = loop.llm.requests
    assert request.output_schema is None
    assert json.dumps(PERSON, separators=(",", ":")) in (request.tail or "")


@pytest.mark.parametrize(
    "schema",
    [
        OutputSchema(PERSON, "person", "A person."),
        {"name": "person", "schema": PERSON},
        {"name": "person", "description": "A person.", "strict": True, "schema": PERSON},
    ],
)
async def test_a_schema_may_have_a_name(make_loop: MakeLoop, schema: Any) -> None:
    loop = make_loop(ANN)
    sid = await loop.new_session()
    assert (await loop.send("Who?", session_id=sid, output_schema=schema)).output["name"] == "Ann"
    sent = loop.llm.requests[0].output_schema
    assert sent is not None
    assert (sent.name, sent.schema) == ("person", PERSON)


@pytest.mark.parametrize(
    ("title", "name"),
    [("person", "person"), ("My Plan (v2)", "My_Plan_v2"), ("計画", "output"), ("", "output"), ("x" * 100, "x" * 64)],
)
async def test_a_title_is_made_a_name_that_providers_take(make_loop: MakeLoop, title: str, name: str) -> None:
    loop = make_loop(ANN)
    sid = await loop.new_session()
    schema = {**PERSON, "title": title}
    assert (await loop.send("Who?", session_id=sid, output_schema=schema)).output["name"] == "Ann"
    sent = loop.llm.requests[0].output_schema
    assert sent is not None
    assert (sent.name, sent.schema) == (name, schema)


@pytest.mark.promise("structured-output")
async def test_an_answer_that_does_not_fit_is_mended_by_the_model_which_gets_every_problem(
    make_loop: MakeLoop,
) -> None:
    wrong = '{"name": 5, "age": -1, "size": 3}'
    loop = make_loop(wrong, ANN, "Later.")
    sid = await loop.new_session()
    result = await loop.send("Who?", session_id=sid, output_schema=PERSON)
    assert (result.status, result.output, result.rounds) == (SendStatus.COMPLETED, {"name": "Ann", "age": 30}, 2)
    role, told = said(loop.llm.requests[1].messages)[-1]
    assert role == "user"
    for path in ("$.name", "$.age", "$.size"):
        assert path in told
    assert [text for _, text in said(await loop.get_messages(sid))] == ["Who?", wrong, told, ANN]
    assert (await loop.send("And?", session_id=sid)).output is None, "a schema is a send's, not a session's"


@pytest.mark.parametrize("wrong", ["no JSON at all", "{", "[]", "null", '{"name": "Ann"}', ANN + "x", "```\n{\n```"])
async def test_whatever_is_wrong_the_model_may_mend_it(make_loop: MakeLoop, wrong: str) -> None:
    loop = make_loop(wrong, ANN)
    sid = await loop.new_session()
    result = await loop.send("Who?", session_id=sid, output_schema=PERSON)
    assert (result.output, result.rounds) == ({"name": "Ann", "age": 30}, 2)


@pytest.mark.promise("structured-output")
async def test_repairs_are_bounded_and_the_error_carries_the_raw_text(make_loop: MakeLoop) -> None:
    loop = make_loop("one", "two", '{"name": 5, "age": 1}', "Fine.", config=LoopConfig(max_output_repairs=2))
    ears = Ears(loop, types=(SendFinished,))
    sid = await loop.new_session()
    with pytest.raises(OutputError, match="is stored") as caught:
        await loop.send("Who?", session_id=sid, output_schema=PERSON)
    error = caught.value
    assert (error.code, error.raw_text, error.session_id) == ("output.invalid", '{"name": 5, "age": 1}', sid)
    assert len(error.problems) == 1
    assert error.problems[0].startswith("$.name")
    assert [one.result.status for one in ears.of(SendFinished)] == [SendStatus.OUTPUT_INVALID]
    # The answer is stored, and the session is ready.
    assert said(await loop.get_messages(sid))[-1] == ("assistant", '{"name": 5, "age": 1}')
    assert (await loop.send("again", session_id=sid)).final_text == "Fine."


async def test_repairs_may_be_turned_off(make_loop: MakeLoop) -> None:
    loop = make_loop("nonsense", config=LoopConfig(max_output_repairs=0))
    sid = await loop.new_session()
    with pytest.raises(OutputError) as caught:
        await loop.send("Who?", session_id=sid, output_schema=PERSON)
    assert caught.value.raw_text == "nonsense"


async def test_tools_may_run_before_the_answer_and_between_repairs(make_loop: MakeLoop) -> None:
    loop = make_loop(call("look"), "wrong", call("look"), ANN, tool_registry=[look])
    sid = await loop.new_session()
    result = await loop.send("Who?", session_id=sid, output_schema=PERSON)
    assert (result.output, result.rounds, result.tool_calls) == ({"name": "Ann", "age": 30}, 4, 2)


async def test_a_repeated_request_has_the_output_again(make_loop: MakeLoop) -> None:
    loop = make_loop(ANN)
    sid = await loop.new_session()
    await loop.send("Who?", session_id=sid, output_schema=PERSON, request_id="r")
    again = await make_loop().send("Who?", session_id=sid, output_schema=PERSON, request_id="r")
    assert (again.output, again.is_replayed) == ({"name": "Ann", "age": 30}, True)


async def test_a_repeated_request_raises_again_what_it_raised(make_loop: MakeLoop) -> None:
    loop = make_loop("nonsense", config=LoopConfig(max_output_repairs=0))
    sid = await loop.new_session()
    options: dict[str, Any] = {"session_id": sid, "output_schema": PERSON, "request_id": "r"}
    with pytest.raises(OutputError) as first:
        await loop.send("Who?", **options)
    other = make_loop()
    with pytest.raises(OutputError) as again:
        await other.send("Who?", **options)
    assert again.value.raw_text == first.value.raw_text == "nonsense"
    assert again.value.problems == first.value.problems
    with pytest.raises(OutputError):
        await other.resume(sid)
    # There is nothing to heal, and that is no error.
    assert (await other.heal_pending(sid)).status is SendStatus.OUTPUT_INVALID
    assert other.llm.requests == []


async def test_a_resumed_send_still_has_its_schema(make_loop: MakeLoop) -> None:
    loop = make_loop("wrong", RuntimeError("down"))
    sid = await loop.new_session()
    with pytest.raises(Exception, match="down"):
        await loop.send("Who?", session_id=sid, output_schema=OutputSchema(PERSON, "person"))
    other = make_loop("wrong again", ANN)
    result = await other.resume(sid)
    assert result.output == {"name": "Ann", "age": 30}
    assert [request.output_schema for request in other.llm.requests] == [OutputSchema(PERSON, "person")] * 2


async def test_an_answer_that_was_cut_is_truncated_and_not_called_invalid(make_loop: MakeLoop) -> None:
    cut = LLMResponse(Message(Role.ASSISTANT, (TextPart('{"name": "An'),)), StopReason.LENGTH)
    loop = make_loop(cut)
    sid = await loop.new_session()
    result = await loop.send("Who?", session_id=sid, output_schema=PERSON)
    assert (result.status, result.output) == (SendStatus.TRUNCATED, None)


async def test_a_refusal_is_a_refusal(make_loop: MakeLoop) -> None:
    no = LLMResponse(Message(Role.ASSISTANT, (TextPart("I will not."),)), StopReason.REFUSAL)
    loop = make_loop(no)
    sid = await loop.new_session()
    result = await loop.send("Who?", session_id=sid, output_schema=PERSON)
    assert (result.status, result.output) == (SendStatus.REFUSED, None)


async def test_an_empty_answer_is_mended_like_another(make_loop: MakeLoop) -> None:
    empty = LLMResponse(Message(Role.ASSISTANT, ()))
    loop = make_loop(empty, ANN)
    sid = await loop.new_session()
    assert (await loop.send("Who?", session_id=sid, output_schema=PERSON)).output == {"name": "Ann", "age": 30}


async def test_a_null_for_an_optional_property_is_dropped_as_strict_modes_write_it(make_loop: MakeLoop) -> None:
    loop = make_loop('{"name": "Ann", "age": 30, "pet": null}')
    sid = await loop.new_session()
    result = await loop.send("Who?", session_id=sid, output_schema=PERSON)
    assert result.output == {"name": "Ann", "age": 30}


@pytest.mark.parametrize(("schema", "text"), [({"type": "array", "items": {"type": "integer"}}, "[1, 2]"), ({}, "3")])
async def test_an_output_need_not_be_an_object(make_loop: MakeLoop, schema: dict[str, Any], text: str) -> None:
    loop = make_loop(llm=ScriptedLLM([text], info=PLAIN))
    sid = await loop.new_session()
    result = await loop.send("Which?", session_id=sid, output_schema=schema)
    assert result.output == json.loads(text)


async def test_repairs_count_as_rounds(make_loop: MakeLoop) -> None:
    loop = make_loop("wrong", "wrong", '{"name": "last"}')
    sid = await loop.new_session()
    limits = SendLimits(max_rounds=2)
    result = await loop.send("Who?", session_id=sid, output_schema=PERSON, limits=limits)
    assert (result.status, result.output, result.final_text) == (
        SendStatus.ROUNDS_EXCEEDED,
        None,
        '{"name": "last"}',
    )


@pytest.mark.parametrize(
    ("limits", "status"),
    [
        (SendLimits(max_rounds=1), SendStatus.ROUNDS_EXCEEDED),
        (SendLimits(max_tool_calls=0), SendStatus.TOOL_CALLS_EXCEEDED),
    ],
)
async def test_a_conclusion_that_fits_is_an_output_fresh_and_repeated(
    make_loop: MakeLoop, limits: SendLimits, status: SendStatus
) -> None:
    loop = make_loop(call("look"), ANN, tool_registry=[look])
    sid = await loop.new_session()
    options: dict[str, Any] = {"session_id": sid, "output_schema": PERSON, "limits": limits, "request_id": "r"}
    result = await loop.send("Who?", **options)
    assert (result.status, result.final_text) == (status, ANN)
    assert result.output == {"name": "Ann", "age": 30}
    again = await make_loop(tool_registry=[look]).send("Who?", **options)
    assert (again.output, again.is_replayed) == (result.output, True)


async def test_what_was_cut_or_stands_beside_calls_is_no_output_even_where_it_fits(make_loop: MakeLoop) -> None:
    number = {"type": "integer"}
    cut = LLMResponse(Message(Role.ASSISTANT, (TextPart("12"),)), StopReason.LENGTH)
    loop = make_loop(cut, call("look", text="34"), tool_registry=[look])
    sid = await loop.new_session()
    first = await loop.send("How many?", session_id=sid, output_schema=number, request_id="r1")
    assert (first.status, first.final_text, first.output) == (SendStatus.TRUNCATED, "12", None)
    limits = SendLimits(max_tokens=1)
    second = await loop.send("And?", session_id=sid, output_schema=number, limits=limits, request_id="r2")
    assert (second.status, second.final_text, second.output) == (SendStatus.TOKENS_EXCEEDED, "34", None)
    cold = make_loop(tool_registry=[look])
    assert (await cold.send("How many?", session_id=sid, output_schema=number, request_id="r1")).output is None
    again = await cold.send("And?", session_id=sid, output_schema=number, limits=limits, request_id="r2")
    assert (again.final_text, again.output) == ("34", None)


@pytest.mark.parametrize("text", ["", "I looked at it."])
async def test_a_refusal_says_its_words_fresh_and_recorded(make_loop: MakeLoop, text: str) -> None:
    parts = (*([TextPart(text)] if text else []), RefusalPart("I cannot help with that."))
    no = LLMResponse(Message(Role.ASSISTANT, parts), StopReason.REFUSAL)
    loop = make_loop(call("look", text="Let me look."), no, tool_registry=[look])
    sid = await loop.new_session()
    result = await loop.send("Who?", session_id=sid, output_schema=PERSON, request_id="r")
    again = await make_loop(tool_registry=[look]).send("Who?", session_id=sid, output_schema=PERSON, request_id="r")
    resumed = await make_loop(tool_registry=[look]).resume(sid)
    for one in (result, again, resumed):
        assert (one.status, one.output) == (SendStatus.REFUSED, None)
        assert one.reason == "I cannot help with that."
        assert one.final_text == (text or "I cannot help with that.")
