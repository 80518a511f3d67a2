"""The loop against a model behind HTTP: both wires, both carriers, and an endpoint that refuses what is not valid."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from power_loop import (
    HookPoint,
    ImagePart,
    LLMProviderConfig,
    LoopConfig,
    SendStatus,
    TextPart,
    ToolResult,
    create_llm_service_from_config,
    tool,
)
from power_loop.errors import LLMError, LLMInvalidRequestError
from power_loop.events import LLMCallFailed, StreamReset, TextDelta, WindowTrimmed
from power_loop.hooks import LLMBeforeContext, Rewrite
from power_loop.testing import FrozenClock
from tests.model_server import Answer, ModelServer, Reasoning, Text, ToolCall, call, calls, faults, refuse, say

from .conftest import MakeLoop
from .parts import LIMIT_S, Ears, said, within_limit

Connect = Callable[..., Any]


@pytest.fixture(params=["openai-lean", "openai-sdk", "anthropic-lean", "anthropic-sdk"])
async def connect(request: pytest.FixtureRequest) -> AsyncIterator[Connect]:
    """Makes a service for a server, on each wire over each carrier."""
    wire, carrier = request.param.split("-")
    if carrier == "sdk":
        pytest.importorskip(wire)
    services: list[Any] = []

    def make(server: ModelServer, **options: Any) -> Any:
        config = LLMProviderConfig(
            provider=wire, carrier=carrier, base_url=server.base_url, api_key="k", model="test-model", **options
        )
        services.append(create_llm_service_from_config(config))
        return services[-1]

    make.wire = wire  # type: ignore[attr-defined]
    yield make
    for service in services:
        await service.aclose()


@tool(effect="read")
async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool(effect="read")
def shoot() -> Any:
    """Take a picture."""
    return ToolResult((TextPart("Here:"), ImagePart.from_bytes(b"\x89PNG\r\n\x1a\n")))


@tool
async def erase(path: str) -> str:
    """Erase a file."""
    raise AssertionError("it must not run")


@pytest.mark.promise("any-endpoint")
@pytest.mark.promise("two-carriers")
async def test_a_conversation_with_tools_over_several_handles(make_loop: MakeLoop, connect: Connect) -> None:
    script = [
        calls(ToolCall("add", {"a": 1, "b": 2}), ToolCall("add", {"a": 3, "b": 4})),
        say("Three and ", "seven."),
        call("shoot"),
        say("A picture."),
    ]
    async with ModelServer(script) as server:
        loop = make_loop(llm=connect(server), tool_registry=[add, shoot])
        sid = await loop.new_session(system_prompt="Be exact.")
        first = await loop.send("1 + 2? 3 + 4?", session_id=sid)
        assert (first.status, first.final_text, first.rounds) == (SendStatus.COMPLETED, "Three and seven.", 2)
        assert first.usage.input_tokens > 0
        assert not first.usage.is_estimated
        cold = make_loop(llm=connect(server), tool_registry=[add, shoot])
        second = await cold.send(["And this?", ImagePart.from_bytes(b"\x89PNG\r\n\x1a\n")], session_id=sid)
        assert second.final_text == "A picture."
        assert [request.problems for request in server.requests] == [[]] * 4
        assert [request.status for request in server.requests] == [200] * 4


@pytest.mark.promise("streaming")
async def test_pieces_stream_from_the_endpoint_to_the_reader(make_loop: MakeLoop, connect: Connect) -> None:
    async with ModelServer([say("It ", "is ", "teal.")]) as server:
        loop = make_loop(llm=connect(server))
        sid = await loop.new_session()
        async with loop.stream("Which?", session_id=sid) as events:
            pieces = [event.payload.text async for event in events if isinstance(event.payload, TextDelta)]
    assert pieces == ["It ", "is ", "teal."]
    assert events.result.final_text == "It is teal."


@pytest.mark.promise("cancel")
async def test_cancelling_closes_the_stream_of_the_model(make_loop: MakeLoop, connect: Connect) -> None:
    hanging = say("It ", "is ", faults=(faults.hang_after(1),))
    async with ModelServer([hanging, say("Fine.")]) as server:
        loop = make_loop(llm=connect(server))
        sid = await loop.new_session()
        turn = asyncio.create_task(loop.send("Which?", session_id=sid))
        await server.wait_for_hang(timeout_s=LIMIT_S)
        assert await loop.cancel(sid)
        result = await within_limit(turn)
        assert result.status is SendStatus.CANCELLED
        await server.wait_until(lambda: server.requests[0].client_left, timeout_s=LIMIT_S)
        assert (await loop.send("Again?", session_id=sid)).final_text == "Fine."


@pytest.mark.promise("retry")
async def test_a_stream_that_is_cut_is_reset_and_tried_again(make_loop: MakeLoop, connect: Connect) -> None:
    script = [
        faults.rate_limited(retry_after=7),
        say("It ", "is ", "red.", faults=(faults.cut_after(2),)),
        faults.server_error(),
        say("It ", "is ", "teal."),
    ]
    clock = FrozenClock(skips_sleep=True)
    async with ModelServer(script) as server:
        loop = make_loop(llm=connect(server), clock=clock)
        ears = Ears(loop)
        sid = await loop.new_session()
        result = await loop.send("Which?", session_id=sid)
    assert result.final_text == "It is teal."
    assert [one.code for one in ears.of(LLMCallFailed)] == ["llm.rate_limited", "llm.connection", "llm.server"]
    assert clock.slept[0] >= 7
    assert len(ears.of(StreamReset)) == 1
    reset = ears.types.index("stream.reset")
    void = [event.payload.text for event in ears.events[:reset] if isinstance(event.payload, TextDelta)]
    kept = [event.payload.text for event in ears.events[reset:] if isinstance(event.payload, TextDelta)]
    assert "".join(void) == "It is "
    assert "".join(kept) == "It is teal."
    assert said(await loop.get_messages(sid))[-1] == ("assistant", "It is teal.")


@pytest.mark.promise("no-fault-bricks")
async def test_what_a_provider_refuses_does_not_keep_the_session_from_going_on(
    make_loop: MakeLoop, connect: Connect
) -> None:
    async with ModelServer([faults.invalid_request(), faults.unauthorized(), say("Fine.")]) as server:
        loop = make_loop(llm=connect(server))
        sid = await loop.new_session()
        for code in ("llm.invalid_request", "llm.auth"):
            with pytest.raises(LLMError) as caught:
                await loop.send("Hi.", session_id=sid)
            assert caught.value.code == code
        assert (await loop.send("Hi.", session_id=sid)).final_text == "Fine."


async def test_calls_of_a_reply_that_was_cut_by_length_do_not_run(make_loop: MakeLoop, connect: Connect) -> None:
    cut = Answer((ToolCall("erase", ('{"path": "/',)),), finish="length")
    async with ModelServer([cut, say("I see.")]) as server:
        loop = make_loop(llm=connect(server), tool_registry=[erase])
        sid = await loop.new_session()
        result = await loop.send("Clean up.", session_id=sid)
        assert (result.status, result.final_text) == (SendStatus.COMPLETED, "I see.")
        assert [request.problems for request in server.requests] == [[], []]


@pytest.mark.parametrize(
    "broken",
    [
        calls(ToolCall("add", "{not json"), ToolCall("add", {"a": 1, "b": 1})),
        calls(ToolCall("add", '{"a": 1, "b": 1}', id="same"), ToolCall("add", '{"a": 2, "b": 2}', id="same")),
        calls(ToolCall("nonesuch", {}), ToolCall("add", "")),
        calls(ToolCall("add", '"text"')),
        calls(ToolCall("add", '{"a": 1, "b": 1}', id="it's odd: ünï " * 5)),
    ],
    ids=["no JSON", "same ids", "unknown", "no object", "odd id"],
)
@pytest.mark.promise("no-fault-bricks")
async def test_whatever_calls_a_model_makes_up_the_next_request_is_accepted(
    make_loop: MakeLoop, connect: Connect, broken: Answer
) -> None:
    async with ModelServer([broken, say("I see."), say("Fine.")]) as server:
        loop = make_loop(llm=connect(server), tool_registry=[add])
        sid = await loop.new_session()
        assert (await loop.send("Add.", session_id=sid)).final_text == "I see."
        cold = make_loop(llm=connect(server), tool_registry=[add])
        assert (await cold.send("Again.", session_id=sid)).final_text == "Fine."
        assert [request.problems for request in server.requests] == [[]] * 3


@pytest.mark.promise("reasoning-kept")
async def test_reasoning_goes_back_to_the_model_that_reasoned_as_it_came(make_loop: MakeLoop, connect: Connect) -> None:
    thinking = Answer((Reasoning(("Let me ", "think.")), Text(("Looking.",)), ToolCall("add", {"a": 1, "b": 2})))
    async with ModelServer([thinking, say("Three."), say("Fine.")]) as server:
        options = {"thinking_budget_tokens": 1_024} if connect.wire == "anthropic" else {}  # type: ignore[attr-defined]
        loop = make_loop(llm=connect(server, **options), tool_registry=[add])
        sid = await loop.new_session()
        assert (await loop.send("1 + 2?", session_id=sid)).final_text == "Three."
        cold = make_loop(llm=connect(server, **options), tool_registry=[add])
        await cold.send("And?", session_id=sid)
        # The server knows what it signed, and refuses a block that comes back changed.
        assert [request.problems for request in server.requests] == [[]] * 3
        assert "Let me think." in json.dumps(server.requests[1].body)


async def test_a_refusal_has_its_status_and_the_session_goes_on(make_loop: MakeLoop, connect: Connect) -> None:
    async with ModelServer([refuse("I will not."), say("Fine.")]) as server:
        loop = make_loop(llm=connect(server))
        sid = await loop.new_session()
        assert (await loop.send("Do it.", session_id=sid)).status is SendStatus.REFUSED
        assert (await loop.send("Something else.", session_id=sid)).final_text == "Fine."
        assert server.requests[1].problems == []


@pytest.mark.promise("structured-output")
@pytest.mark.parametrize("is_native", [True, False])
async def test_structured_output_over_the_wire(make_loop: MakeLoop, connect: Connect, is_native: bool) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    async with ModelServer([say('{"name": "Ann"}'), say('{"name": "Ann", "age": 30}')]) as server:
        loop = make_loop(llm=connect(server, has_json_schema=is_native))
        sid = await loop.new_session()
        result = await loop.send("Who?", session_id=sid, output_schema=schema)
        assert result.output == {"name": "Ann", "age": 30}
        bodies = [json.dumps(request.body) for request in server.requests]
        assert [request.problems for request in server.requests] == [[], []]
    native = "response_format" if connect.wire == "openai" else "output_"  # type: ignore[attr-defined]
    assert all((native in body) is is_native for body in bodies)


async def test_a_context_that_overflows_is_sent_again_with_less(make_loop: MakeLoop, connect: Connect) -> None:
    script = [say(f"Answer {n}. " + "word " * 30) for n in range(4)]
    async with ModelServer([*script, faults.context_overflow(), say("Short.")]) as server:
        loop = make_loop(llm=connect(server), config=LoopConfig(compaction=None))
        ears = Ears(loop)
        sid = await loop.new_session()
        for n in range(4):
            await loop.send(f"Question {n}? " + "word " * 30, session_id=sid)
        result = await loop.send("And now?", session_id=sid)
        assert result.final_text == "Short."
        assert len(server.requests[5].messages) < len(server.requests[4].messages)
        assert [request.problems for request in server.requests] == [[]] * 6
    assert ears.of(WindowTrimmed)


async def test_an_endpoint_that_refuses_what_is_not_valid_would_show_a_spoiled_transcript(
    make_loop: MakeLoop, connect: Connect
) -> None:
    """The checks above mean something: a request with an unanswered call is refused by this server."""
    async with ModelServer([call("add", {"a": 1, "b": 2}), say("never")]) as server:
        loop = make_loop(llm=connect(server), tool_registry=[add])

        def spoil(context: LLMBeforeContext) -> Rewrite | None:
            kept = tuple(one for one in context.request.messages if one.tool_result is None)
            changed = dataclasses.replace(context.request, messages=kept)
            return Rewrite(request=changed) if kept != tuple(context.request.messages) else None

        loop.hooks.add(HookPoint.LLM_BEFORE, spoil)
        sid = await loop.new_session()
        with pytest.raises(LLMInvalidRequestError):
            await loop.send("1 + 2?", session_id=sid)
