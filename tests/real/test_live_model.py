"""What the kernel guarantees holds with a real model at the other end: structure is asserted, never prose."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from power_loop import HookPoint, LLMRequest, SendStatus, StatefulAgentLoop, StatefulResult, ToolRegistry, tool
from power_loop.errors import OutputError
from power_loop.events import TextDelta
from power_loop.hooks import LLMBeforeContext
from tests.real.conftest import Endpoint

# A small model goes on talking until it is cut: what matters is that it was reached and answered.
ANSWERED = {SendStatus.COMPLETED, SendStatus.TRUNCATED}


def watch(loop: StatefulAgentLoop) -> list[LLMRequest]:
    """Return the list that every request of this loop is added to."""
    requests: list[LLMRequest] = []

    def see(context: LLMBeforeContext) -> None:
        requests.append(context.request)

    loop.hooks.add(HookPoint.LLM_BEFORE, see)
    return requests


@pytest.mark.promise("durable-conversation")
@pytest.mark.promise("any-endpoint")
@pytest.mark.promise("two-carriers")
async def test_a_cold_loop_tells_the_model_what_was_said_before(endpoint: Endpoint, tmp_path: Path) -> None:
    dsn = str(tmp_path / "app.db")
    async with StatefulAgentLoop(llm=endpoint.service(), dsn=dsn) as loop:
        sid = await loop.new_session()
        first = await loop.send("Remember my favorite color is teal.", session_id=sid)
    async with StatefulAgentLoop(llm=endpoint.service(), dsn=dsn) as loop:
        requests = watch(loop)
        second = await loop.send("What's my favorite color?", session_id=sid)
    assert {first.status, second.status} <= ANSWERED
    assert [message.text for message in requests[0].messages] == [
        "Remember my favorite color is teal.",
        first.final_text,
        "What's my favorite color?",
    ]
    assert second.final_text
    assert second.usage.input_tokens > 0
    assert second.usage.output_tokens > 0
    assert not second.usage.is_estimated


async def test_a_tool_call_goes_out_runs_and_comes_back(endpoint: Endpoint, tmp_path: Path) -> None:
    booked = []

    @tool
    def book_flight(city: str) -> str:
        """Book a flight."""
        booked.append(city)
        return f"A flight to {city} is booked."

    async with StatefulAgentLoop(
        llm=endpoint.service(), dsn=str(tmp_path / "app.db"), tool_registry=ToolRegistry([book_flight])
    ) as loop:
        requests = watch(loop)
        sid = await loop.new_session()
        result = await loop.send("Book a flight to Lisbon.", session_id=sid)
        log = [record.message for record in await loop.get_messages(sid)]
    assert result.status in ANSWERED
    assert len(booked) == result.tool_calls >= 1
    assert result.final_text
    (call, *_), answer = log[1].tool_calls, log[2].tool_result
    assert (call.name, json.loads(call.arguments)) == ("book_flight", {"city": booked[0]})
    assert answer is not None
    assert (answer.call_id, answer.is_error) == (call.id, False)
    assert requests[1].messages[2] == log[2]


SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 40}, "people": {"type": "integer"}},
    "required": ["city", "people"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("is_native", [True, False])
async def test_structured_output_is_valid_or_a_coded_error(endpoint: Endpoint, is_native: bool, tmp_path: Path) -> None:
    native = {"POWER_LOOP_HAS_JSON_SCHEMA": "true" if is_native else "false"}
    service = Endpoint({**endpoint.variables, **native}).service()
    async with StatefulAgentLoop(llm=service, dsn=str(tmp_path / "app.db")) as loop:
        sid = await loop.new_session()
        failure: OutputError | None = None
        result: StatefulResult | None = None
        try:
            result = await loop.send("Three people travel to Rome.", session_id=sid, output_schema=SCHEMA)
        except OutputError as error:
            failure = error
        if result is not None and result.is_completed:
            assert isinstance(result.output["city"], str)
            assert isinstance(result.output["people"], int)
            assert result.output.keys() == {"city", "people"}
        elif result is not None:
            assert (result.status, result.output) == (SendStatus.TRUNCATED, None)
        else:
            assert failure is not None
            assert failure.code == "output.invalid"
            assert failure.raw_text == (await loop.get_messages(sid))[-1].message.text
            assert failure.problems
        assert (await loop.send("Thank you.", session_id=sid)).status in ANSWERED


@pytest.mark.promise("streaming")
async def test_a_stream_is_the_answer_piece_by_piece(endpoint: Endpoint, tmp_path: Path) -> None:
    async with StatefulAgentLoop(llm=endpoint.service(), dsn=str(tmp_path / "app.db")) as loop:
        sid = await loop.new_session()
        async with loop.stream("What is the capital of France?", session_id=sid) as events:
            pieces = [event.payload.text async for event in events if isinstance(event.payload, TextDelta)]
        stored = (await loop.get_messages(sid))[-1].message.text
    assert len(pieces) > 1
    assert "".join(pieces) == events.result.final_text == stored


@pytest.mark.promise("cancel")
async def test_leaving_a_stream_cancels_and_the_next_send_works(endpoint: Endpoint, tmp_path: Path) -> None:
    async with StatefulAgentLoop(llm=endpoint.service(), dsn=str(tmp_path / "app.db")) as loop:
        sid = await loop.new_session()
        async with loop.stream("Tell me a long story about a river.", session_id=sid) as events:
            async for event in events:
                if isinstance(event.payload, TextDelta):
                    break
        assert events.result.status is SendStatus.CANCELLED
        result = await loop.send("What is the capital of France?", session_id=sid)
    assert result.status in ANSWERED


@pytest.mark.promise("any-length")
async def test_a_folded_conversation_goes_on_and_gives_its_originals_back(endpoint: Endpoint, tmp_path: Path) -> None:
    async with StatefulAgentLoop(llm=endpoint.service(), dsn=str(tmp_path / "app.db")) as loop:
        requests = watch(loop)
        sid = await loop.new_session()
        for text in ("Remember my favorite color is teal.", "What is the capital of France?", "Tell me about rivers."):
            await loop.send(f"{text} {'I have all the time in the world. ' * 8}", session_id=sid)
        before = await loop.get_messages(sid)
        fold = await loop.compact(sid)
        assert fold is not None
        assert (fold.strategy, fold.from_seq) == ("llm_summary", 1)
        assert fold.usage is not None
        assert fold.usage.output_tokens > 0
        assert fold.tokens_after < fold.tokens_before
        result = await loop.send("What's my favorite color?", session_id=sid)
        after = await loop.get_messages(sid)
        assert result.status in ANSWERED
        assert after[: len(before)] == before, "the originals are where they were"
        # The model stands behind the summary, and is offered what gives the originals back.
        request = requests[3]
        assert fold.summary in request.messages[0].text
        assert all("Remember my favorite color" not in message.text for message in request.messages[1:])
        assert "recall_compacted" in {spec.name for spec in request.tools}
        # Whether a small model takes it up is its own affair; each of its calls is answered.
        await loop.send("Call recall_compacted with from_seq 1 and to_seq 1.", session_id=sid)
        for call in await (await loop.get_store()).get_calls(sid):
            assert call.result_seq is not None
