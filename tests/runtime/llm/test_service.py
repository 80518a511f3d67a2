"""The service: one attempt a call, with the two refusals that it answers itself, over both wires and both carriers."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from power_loop.contracts.errors import ConfigError, LLMInvalidRequestError, MissingExtraError
from power_loop.contracts.llm import LLMRequest, StopReason, ToolSpec, Usage
from power_loop.contracts.messages import Message, Role, TextPart, ToolCallPart, tool_message, user_message
from power_loop.runtime.llm import service as service_module
from power_loop.runtime.llm.config import LLMProviderConfig
from power_loop.runtime.llm.service import carrier_of, create_llm_service_from_config
from tests.model_server import (
    Answer,
    Failure,
    ModelServer,
    Reasoning,
    RedactedReasoning,
    Request,
    Text,
    ToolCall,
    calls,
    faults,
    refuse,
    say,
    think_and_say,
)
from tests.model_server import Usage as SentUsage
from tests.model_server.script import Step

from .conftest import QUESTION, Ask, Way, ignore

ADD = ToolSpec("add", "Adds.", {"type": "object", "properties": {"a": {"type": "integer"}}})


async def test_a_conversation_with_thinking_and_tools_goes_round(ask: Ask, way: Way) -> None:
    script = [
        Answer((Reasoning(("First ", "think.")), ToolCall("add", {"a": 1}), ToolCall("add", {"a": 2}))),
        think_and_say("So.", "Three."),
        say("Bye."),
    ]
    async with ModelServer(script) as server:
        messages = [user_message("Add.")]
        reply, _ = await ask(way, server, LLMRequest(messages, tools=(ADD,)))
        assert reply.stop is StopReason.TOOL_CALLS
        messages.append(reply.message)
        messages += [tool_message(call.id, (TextPart(call.arguments),)) for call in reply.message.tool_calls]
        reply, _ = await ask(way, server, LLMRequest(messages, tools=(ADD,)))
        assert reply.message.text == "Three."
        messages += [reply.message, user_message("Thanks.")]
        reply, _ = await ask(way, server, LLMRequest(messages, tools=(ADD,)))
    assert reply.message.text == "Bye."
    # The server knows every block of thinking that it has issued and refuses a changed or missing one.
    assert [request.problems for request in server.requests] == [[], [], []]
    assert "First think." in str(server.requests[2].body)


async def test_redacted_thinking_goes_back(ask: Ask, anthropic_way: Way) -> None:
    script = [Answer((RedactedReasoning(), Reasoning(("x",), shown=False), ToolCall("add", {"a": 1}))), say("Done.")]
    async with ModelServer(script) as server:
        messages = [user_message("Add.")]
        reply, _ = await ask(anthropic_way, server, LLMRequest(messages, tools=(ADD,)))
        messages += [reply.message, tool_message(reply.message.tool_calls[0].id, (TextPart("2"),))]
        reply, _ = await ask(anthropic_way, server, LLMRequest(messages, tools=(ADD,)))
    assert [block["type"] for block in server.requests[1].messages[1]["content"]] == [
        "redacted_thinking",
        "thinking",
        "tool_use",
    ]


async def test_usage_has_one_form_on_both_wires(ask: Ask, way: Way) -> None:
    sent = SentUsage(100, 20, cached_tokens=60, reasoning_tokens=5)
    async with ModelServer([say("x", usage=sent), say("x", usage=None)]) as server:
        reply, _ = await ask(way, server)
        assert reply.usage == Usage(100, 20, cached_input_tokens=60, reasoning_tokens=5)
        reply, _ = await ask(way, server)
        assert reply.usage is None


async def test_ids_of_the_reply_and_of_the_exchange_are_kept(ask: Ask, way: Way) -> None:
    async with ModelServer([say("x", id="reply-1", model="test-model-2026")]) as server:
        reply, _ = await ask(way, server)
    assert (reply.id, reply.model) == ("reply-1", "test-model-2026")
    assert reply.request_id is not None
    assert reply.request_id.startswith("req_")
    assert reply.message.origin is not None
    assert reply.message.origin.model == "test-model"


async def test_a_refusal_is_a_reply(ask: Ask, way: Way) -> None:
    async with ModelServer([refuse("I ", "can't.")]) as server:
        reply, heard = await ask(way, server)
    assert reply.stop is StopReason.REFUSAL
    assert "".join(delta.text for delta in heard) == "I can't."


async def test_a_paused_turn_goes_on_with_the_same_content(ask: Ask, anthropic_way: Way) -> None:
    async with ModelServer([say("Searching", finish="pause_turn"), say("Found.")]) as server:
        reply, _ = await ask(anthropic_way, server)
        assert reply.stop is StopReason.PAUSE
        messages = [*QUESTION.messages, reply.message]
        reply, _ = await ask(anthropic_way, server, LLMRequest(messages))
    assert reply.message.text == "Found."


@pytest.mark.parametrize(
    "tool_calls",
    [
        (ToolCall("add", {"a": 1}, id=None), ToolCall("add", {"a": 2}, id=None)),
        (ToolCall("add", {"a": 1}, id="call_same_id"), ToolCall("add", {"a": 2}, id="call_same_id")),
        (ToolCall("add", {"a": 1}, id="'; --"), ToolCall("add", {"a": 2}, id="x" * 5000)),
        (ToolCall("add", ("{", '"a"', ": 1}"), repeat_name=True), ToolCall("add", ('{"a": 2', "}"), repeat_id=True)),
    ],
)
async def test_spoiled_ids_never_spoil_the_conversation(ask: Ask, way: Way, tool_calls: tuple[ToolCall, ...]) -> None:
    async with ModelServer([calls(*tool_calls), say("Done.")]) as server:
        reply, _ = await ask(way, server, LLMRequest(QUESTION.messages, tools=(ADD,)))
        assert [json.loads(call.arguments) for call in reply.message.tool_calls] == [{"a": 1}, {"a": 2}]
        results = [tool_message(call.id, (TextPart("ok"),)) for call in reply.message.tool_calls]
        request = LLMRequest([*QUESTION.messages, reply.message, *results], tools=(ADD,))
        reply, _ = await ask(way, server, request)
    assert reply.message.text == "Done."


async def test_indexes_that_jump_or_are_missing_are_followed(ask: Ask, openai_way: Way) -> None:
    tool_calls = (ToolCall("add", ("{", "}"), index=4), ToolCall("add", '{"a": 2}', index=7))
    bare = (ToolCall("add", ("{", "}"), omit_index=True, repeat_id=True), ToolCall("add", '{"a": 2}', omit_index=True))
    async with ModelServer([calls(*tool_calls), calls(*bare, finish="stop")]) as server:
        for _ in range(2):
            reply, _ = await ask(openai_way, server, LLMRequest(QUESTION.messages, tools=(ADD,)))
            assert [call.arguments for call in reply.message.tool_calls] == ["{}", '{"a": 2}']
            assert reply.stop is StopReason.TOOL_CALLS


@pytest.mark.parametrize("arguments", ['{"a": 1', "", "nonsense", '{"a": NaN}', "[1]"])
async def test_invalid_arguments_are_kept_and_spoil_nothing(ask: Ask, way: Way, arguments: str) -> None:
    async with ModelServer([calls(ToolCall("add", arguments)), say("Done.")]) as server:
        reply, _ = await ask(way, server, LLMRequest(QUESTION.messages, tools=(ADD,)))
        call = reply.message.tool_calls[0]
        assert call.arguments == (arguments or "{}")
        result = tool_message(call.id, (TextPart("invalid arguments"),), is_error=True)
        reply, _ = await ask(way, server, LLMRequest([*QUESTION.messages, reply.message, result], tools=(ADD,)))
    assert reply.message.text == "Done."


async def test_a_call_that_the_cap_cut_is_marked_as_cut(ask: Ask, way: Way) -> None:
    async with ModelServer([calls(ToolCall("add", '{"a": 1'), finish="length")]) as server:
        reply, _ = await ask(way, server, LLMRequest(QUESTION.messages, tools=(ADD,)))
    assert reply.stop is StopReason.LENGTH


# --- the two refusals that are answered at once ---


def without_usage_option(request: Request) -> Step:
    if "stream_options" in request.body:
        return faults.invalid_request("Unrecognized request argument supplied: stream_options", "stream_options")
    return say("Fine.")


async def test_an_endpoint_without_the_usage_option_is_asked_without_it_from_then_on(openai_way: Way) -> None:
    async with ModelServer(without_usage_option) as server:
        service = openai_way.service(server)
        for _ in range(2):
            assert (await service.generate(QUESTION, ignore)).message.text == "Fine."
        await service.aclose()
    assert ["stream_options" in request.body for request in server.requests] == [True, False, False]


def without_reasoning(request: Request) -> Step:
    if "reasoning" in str(request.messages):
        return faults.invalid_request("Unknown parameter: 'messages[1].reasoning_content'.")
    return say("Fine.")


async def test_an_endpoint_that_takes_no_reasoning_back_gets_none_from_then_on(openai_way: Way) -> None:
    async with ModelServer([think_and_say("hm", "Hi."), *[without_reasoning] * 3]) as server:
        service = openai_way.service(server)
        reply = await service.generate(QUESTION, ignore)
        request = LLMRequest([*QUESTION.messages, reply.message, user_message("Go on.")])
        for _ in range(2):
            assert (await service.generate(request, ignore)).message.text == "Fine."
        await service.aclose()
    assert ["reasoning" in str(request.messages) for request in server.requests] == [False, True, False, False]


async def test_thinking_that_is_refused_is_left_out_once(anthropic_way: Way) -> None:
    async with ModelServer([think_and_say("hm", "Hi."), say("Fine.")]) as server:
        service = anthropic_way.service(server)
        reply = await service.generate(QUESTION, ignore)
        # Another server's ledger: it refuses a signature that it did not issue.
        server.ledger.by_seal.clear()
        request = LLMRequest([*QUESTION.messages, reply.message, user_message("Go on.")])
        assert (await service.generate(request, ignore)).message.text == "Fine."
        await service.aclose()
    assert ["thinking" in str(request.messages) for request in server.requests] == [False, True, False]


def without_thinking(request: Request) -> Step:
    if "thinking" in request.body:
        return faults.invalid_request("adaptive thinking is not supported on this model")
    return say("Fine.")


async def test_a_model_that_refuses_to_think_is_asked_to_answer(ask: Ask, anthropic_way: Way) -> None:
    async with ModelServer(without_thinking) as server:
        reply, _ = await ask(anthropic_way, server, thinking_budget_tokens=1_024)
    assert reply.message.text == "Fine."
    assert ["thinking" in request.body for request in server.requests] == [True, False]


async def test_a_round_that_began_with_a_forced_tool_goes_on(ask: Ask, anthropic_way: Way) -> None:
    async with ModelServer([calls(ToolCall("add", {"a": 1})), say("Three."), think_and_say("hm", "Bye.")]) as server:
        messages = [user_message("Add.")]
        for choice in ("required", "auto", "auto"):
            request = LLMRequest(list(messages), tools=(ADD,), tool_choice=choice)
            reply, _ = await ask(anthropic_way, server, request, thinking_budget_tokens=1_024)
            messages.append(reply.message)
            messages += [tool_message(call.id, (TextPart("2"),)) for call in reply.message.tool_calls]
            messages += [] if reply.message.tool_calls else [user_message("Thanks.")]
    assert [request.problems for request in server.requests] == [[], [], []]
    assert ["thinking" in request.body for request in server.requests] == [False, False, True]


async def test_a_chat_template_that_wants_turns_gets_them_after_a_question_without_an_answer(
    ask: Ask, openai_way: Way
) -> None:
    async with ModelServer([say("Fine.")], alternates=True) as server:
        request = LLMRequest([user_message("One."), user_message("Two.")], system="Be brief.", tail="It is noon.")
        reply, _ = await ask(openai_way, server, request)
    assert reply.message.text == "Fine."
    assert server.requests[0].messages[-1]["content"] == "One.\n\nTwo.\n\nIt is noon."


async def test_any_other_refusal_is_not_tried_again(ask: Ask, way: Way) -> None:
    async with ModelServer([faults.invalid_request()]) as server:
        with pytest.raises(LLMInvalidRequestError):
            await ask(way, server)
    assert len(server.requests) == 1


async def test_a_failure_is_never_tried_again_by_the_carrier(ask: Ask, way: Way) -> None:
    failures: list[Failure] = [
        faults.server_error(should_retry=True),
        faults.rate_limited(0),
        faults.reset_before_headers(),
    ]
    async with ModelServer(failures) as server:
        for _ in failures:
            with pytest.raises(Exception, match="failed"):
                await ask(way, server)
    assert len(server.requests) == 3


# --- what is sent ---


async def test_the_key_and_the_headers_of_the_config_are_sent(ask: Ask, way: Way) -> None:
    async with ModelServer([say("x")], api_key="sk-test-secret-1234") as server:
        await ask(way, server, headers={"x-tenant": "t1", "user-agent": "mine"})
    headers = server.requests[0].headers
    assert (headers["x-tenant"], headers["user-agent"]) == ("t1", "mine")
    assert headers["content-type"] == "application/json"
    if way.wire == "anthropic":
        assert headers["anthropic-version"] == "2023-06-01"
        assert "authorization" not in headers


async def test_an_endpoint_without_a_key_is_sent_none(ask: Ask, way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-somebody-else")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-of-somebody-else")
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "sk-of-somebody-else")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    async with ModelServer([say("x")]) as server:
        await ask(way, server, api_key=None)
    assert "somebody" not in str(server.requests[0].headers)


async def test_a_body_of_megabytes_is_sent_whole(ask: Ask, way: Way) -> None:
    text = "é💡x" * 1_000_000
    async with ModelServer([say("x")]) as server:
        await ask(way, server, LLMRequest([user_message(text)]))
    assert server.requests[0].last_text == text


async def test_text_that_no_wire_takes_is_sent_cleaned(ask: Ask, way: Way) -> None:
    async with ModelServer([say("x")]) as server:
        await ask(way, server, LLMRequest([user_message("a\ud800b\0c")], system="s\udfff", tail="t\ud800"))
    assert "a\ufffdb\ufffdc" in server.requests[0].last_text


# --- cancelling ---


@pytest.mark.parametrize("script", [[faults.hang()], [say("a", "b", faults=(faults.hang_after(1),))]])
async def test_cancelling_closes_the_stream_and_spoils_nothing(way: Way, script: list[Step]) -> None:
    async with ModelServer([*script, say("Fine.")]) as server:
        service = way.service(server)
        task = asyncio.create_task(service.generate(QUESTION, ignore))
        await server.wait_for_hang()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 60)
        await server.wait_until(lambda: server.requests[0].client_left)
        assert (await service.generate(QUESTION, ignore)).message.text == "Fine."
        await service.aclose()


async def test_cancelling_at_any_moment_spoils_nothing(way: Way) -> None:
    async with ModelServer(lambda request: say("a", "b", "c")) as server:
        service = way.service(server)
        for rounds in range(60):
            task = asyncio.create_task(service.generate(QUESTION, ignore))
            for _ in range(rounds):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
        assert (await service.generate(QUESTION, ignore)).message.text == "abc"
        await service.aclose()
        await server.wait_for_open_connections(0)


async def test_what_emit_raises_ends_the_call(way: Way) -> None:
    def refuse_to_hear(delta: object) -> None:
        raise KeyError("heard enough")

    async with ModelServer([say("a", "b"), say("Fine.")]) as server:
        service = way.service(server)
        with pytest.raises(KeyError):
            await service.generate(QUESTION, refuse_to_hear)
        assert (await service.generate(QUESTION, ignore)).message.text == "Fine."
        await service.aclose()


# --- what is needed ---


def test_a_service_says_what_its_model_is() -> None:
    config = LLMProviderConfig(model="gpt-4o", base_url="http://127.0.0.1:1/v1")
    service = create_llm_service_from_config(config)
    assert service.info == config.info
    assert service.config is config


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_a_missing_sdk_is_named_by_its_extra(monkeypatch: pytest.MonkeyPatch, provider: Any) -> None:
    monkeypatch.setattr(service_module, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=rf"power-loop\[{provider}\]") as caught:
        create_llm_service_from_config(LLMProviderConfig(provider=provider, model="m", carrier="sdk", api_key="k"))
    assert caught.value.extra == provider
    assert isinstance(caught.value, ConfigError)


@pytest.mark.parametrize("carrier", ["auto", "lean"])
def test_the_lean_carrier_needs_no_package(monkeypatch: pytest.MonkeyPatch, carrier: Any) -> None:
    monkeypatch.setattr(service_module, "find_spec", lambda name: None)
    assert carrier_of(LLMProviderConfig(model="m", carrier=carrier)).name == "lean"


def test_making_a_service_imports_no_transport() -> None:
    program = (
        "import sys, pkgutil, importlib, power_loop.runtime.llm as room\n"
        "for one in pkgutil.iter_modules(room.__path__): importlib.import_module(f'{room.__name__}.{one.name}')\n"
        "from power_loop.runtime.llm.service import create_llm_service_from_env\n"
        "create_llm_service_from_env({'POWER_LOOP_MODEL': 'm', 'POWER_LOOP_BASE_URL': 'http://127.0.0.1:1'})\n"
        "print(sorted({'aiohttp', 'openai', 'anthropic', 'httpx', 'httpx2', 'pydantic', 'yarl'} & sys.modules.keys()))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(service_module.__file__).parents[3])}
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True, env=environment
    )
    assert found.stdout.strip() == "[]"


async def test_an_assistant_message_of_another_wire_is_understood(ask: Ask, way: Way) -> None:
    other = Message(Role.ASSISTANT, (TextPart("Hi."), ToolCallPart("call_123456789", "add", "{}")), None)
    request = LLMRequest([*QUESTION.messages, other, tool_message("call_123456789", (TextPart("2"),))], tools=(ADD,))
    async with ModelServer([Answer((Text(("Fine.",)),))]) as server:
        reply, _ = await ask(way, server, request)
    assert reply.message.text == "Fine."
