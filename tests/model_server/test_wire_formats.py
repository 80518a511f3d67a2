"""Each kind of answer arrives as what it says, through the official SDKs, streamed and whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from . import (
    Answer,
    ModelServer,
    RawBlock,
    Reasoning,
    RedactedReasoning,
    Refusal,
    Text,
    ToolCall,
    Usage,
    call,
    calls,
    refuse,
    say,
    think_and_say,
)

Client = Callable[[ModelServer], Any]
QUESTION = [{"role": "user", "content": "Say something."}]


async def ask_openai(client: Any, **options: Any) -> list[Any]:
    """The chunks of a streamed answer."""
    stream = await client.chat.completions.create(
        **{
            "model": "gpt-test",
            "messages": QUESTION,
            "stream": True,
            "stream_options": {"include_usage": True},
            **options,
        }
    )
    return [chunk async for chunk in stream]


async def ask_anthropic(client: Any, **options: Any) -> Any:
    """The final message of a streamed answer, assembled by the SDK."""
    asked = {"model": "claude-test", "max_tokens": 2048, "messages": QUESTION, **options}
    async with client.messages.stream(**asked) as stream:
        return await stream.get_final_message()


def text_of(chunks: list[Any]) -> str:
    """The text of streamed chunks."""
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


async def test_openai_text_streams_one_delta_a_piece_and_ends_with_usage(openai_client: Client) -> None:
    async with ModelServer([say("Hé", "llo", " 🌍")]) as server:
        chunks = await ask_openai(openai_client(server))
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert pieces == ["", "Hé", "llo", " 🌍", None]
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens == chunks[-1].usage.prompt_tokens + chunks[-1].usage.completion_tokens
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    assert chunks[0].id.startswith("chatcmpl-")
    assert chunks[0].model == "gpt-test"


async def test_openai_usage_stays_away_unless_it_was_asked_for(openai_client: Client) -> None:
    async with ModelServer([say("Hi")]) as server:
        chunks = await ask_openai(openai_client(server), stream_options={})
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


async def test_openai_whole_answer_has_text_usage_and_a_request_id(openai_client: Client) -> None:
    async with ModelServer([say("Hel", "lo")]) as server:
        answer = await openai_client(server).chat.completions.create(model="gpt-test", messages=QUESTION)
    assert answer.choices[0].message.content == "Hello"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens == 2
    assert answer._request_id.startswith("req_")


async def test_openai_parallel_calls_stream_by_index_with_ids_of_their_own(openai_client: Client) -> None:
    answer = calls(ToolCall("add", ('{"a": 1', ', "b": 2}')), ToolCall("now", {}, id="call_mine"), ToolCall("nil", ""))
    async with ModelServer([answer]) as server:
        chunks = await ask_openai(openai_client(server))
    assembled: dict[int, dict[str, str]] = {}
    for chunk in chunks:
        for delta in (chunk.choices[0].delta.tool_calls or ()) if chunk.choices else ():
            one = assembled.setdefault(delta.index, {"id": "", "name": "", "arguments": ""})
            one["id"] += delta.id or ""
            one["name"] += delta.function.name or ""
            one["arguments"] += delta.function.arguments or ""
    assert [(one["name"], one["arguments"]) for one in assembled.values()] == [
        ("add", '{"a": 1, "b": 2}'),
        ("now", "{}"),
        ("nil", ""),
    ]
    assert assembled[1]["id"] == "call_mine"
    assert len({one["id"] for one in assembled.values()}) == 3
    assert chunks[-2].choices[0].finish_reason == "tool_calls"


async def test_openai_whole_answer_carries_calls_without_content(openai_client: Client) -> None:
    async with ModelServer([call("add", '{"a": ')]) as server:
        answer = await openai_client(server).chat.completions.create(model="gpt-test", messages=QUESTION)
    message = answer.choices[0].message
    assert message.content is None
    assert message.tool_calls[0].function.arguments == '{"a": '
    assert answer.choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
async def test_openai_reasoning_arrives_in_the_field_of_the_server(openai_client: Client, field: str) -> None:
    answer = Answer(parts=(Reasoning(("Let me ", "see."), field=field), Text(("Yes.",))))
    async with ModelServer([answer, answer]) as server:
        client = openai_client(server)
        chunks = await ask_openai(client)
        whole = await client.chat.completions.create(model="gpt-test", messages=QUESTION)
    extras = [(chunk.choices[0].delta.model_extra or {}).get(field) for chunk in chunks if chunk.choices]
    assert "".join(filter(None, extras)) == "Let me see."
    assert text_of(chunks) == "Yes."
    assert whole.choices[0].message.model_extra[field] == "Let me see."
    assert chunks[-1].usage.completion_tokens_details.reasoning_tokens > 0


async def test_openai_refusal_has_its_own_field(openai_client: Client) -> None:
    async with ModelServer([refuse("I will ", "not."), refuse("No.")]) as server:
        client = openai_client(server)
        chunks = await ask_openai(client)
        whole = await client.chat.completions.create(model="gpt-test", messages=QUESTION)
    assert "".join(chunk.choices[0].delta.refusal or "" for chunk in chunks if chunk.choices) == "I will not."
    assert text_of(chunks) == ""
    assert whole.choices[0].message.refusal == "No."
    assert whole.choices[0].message.content is None


@pytest.mark.parametrize(
    ("finish", "on_openai", "on_anthropic"),
    [
        ("length", "length", "max_tokens"),
        ("max_tokens", "length", "max_tokens"),
        ("content_filter", "content_filter", "refusal"),
        ("pause_turn", "stop", "pause_turn"),
        ("model_context_window_exceeded", "length", "model_context_window_exceeded"),
        ("stop_sequence", "stop", "stop_sequence"),
        ("stop", "stop", "end_turn"),
    ],
)
async def test_a_finish_word_of_either_wire_is_spoken_in_the_wires_own(
    openai_client: Client, anthropic_client: Client, finish: str, on_openai: str, on_anthropic: str
) -> None:
    answer = Answer(parts=(ToolCall("add", '{"a": 1}'),), finish=finish)
    async with ModelServer([answer, answer]) as server:
        chunks = await ask_openai(openai_client(server))
        message = await ask_anthropic(anthropic_client(server))
    assert chunks[-2].choices[0].finish_reason == on_openai
    assert message.stop_reason == on_anthropic


USAGE = Usage(input_tokens=100, output_tokens=20, cached_tokens=60, cache_write_tokens=10, reasoning_tokens=5)


async def test_the_same_usage_is_counted_as_each_api_counts(openai_client: Client, anthropic_client: Client) -> None:
    async with ModelServer([say("x", usage=USAGE)] * 4) as server:
        client = openai_client(server)
        streamed = (await ask_openai(client))[-1].usage
        whole = (await client.chat.completions.create(model="gpt-test", messages=QUESTION)).usage
        claude = anthropic_client(server)
        streamed_there = (await ask_anthropic(claude)).usage
        whole_there = (await claude.messages.create(model="claude-test", max_tokens=9, messages=QUESTION)).usage
    for usage in (streamed, whole):
        assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (100, 20, 120)
        assert usage.prompt_tokens_details.cached_tokens == 60
        assert usage.completion_tokens_details.reasoning_tokens == 5
    for usage in (streamed_there, whole_there):
        assert (usage.input_tokens, usage.output_tokens) == (30, 20)
        assert (usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (60, 10)
        assert usage.output_tokens_details.thinking_tokens == 5


async def test_usage_can_be_missing_or_nonsense(openai_client: Client, anthropic_client: Client) -> None:
    odd = Usage(0, 0, raw={"prompt_tokens": -1, "completion_tokens": "many"})
    odd_there = Usage(0, 0, raw={"input_tokens": -7, "output_tokens": -1})
    async with ModelServer([say("x", usage=None), say("x", usage=odd), say("x", usage=odd_there)]) as server:
        client = openai_client(server)
        assert all(chunk.usage is None for chunk in await ask_openai(client))
        assert (await ask_openai(client))[-1].usage.prompt_tokens == -1
        assert (await ask_anthropic(anthropic_client(server))).usage.output_tokens == -1


async def test_anthropic_streams_text_as_its_events(anthropic_client: Client) -> None:
    async with ModelServer([say("Hé", "llo")]) as server:
        stream = await anthropic_client(server).messages.create(
            model="claude-test", max_tokens=9, messages=QUESTION, stream=True
        )
        kinds = [(event.type, getattr(getattr(event, "delta", None), "text", None)) async for event in stream]
    assert kinds == [
        ("message_start", None),
        ("content_block_start", None),
        ("content_block_delta", "Hé"),
        ("content_block_delta", "llo"),
        ("content_block_stop", None),
        ("message_delta", None),
        ("message_stop", None),
    ]


async def test_anthropic_blocks_keep_their_order_streamed_and_whole(anthropic_client: Client) -> None:
    answer = Answer(
        parts=(
            Reasoning(("Hm, ", "let me see.")),
            RedactedReasoning(),
            Reasoning(("never shown",), shown=False),
            Text(("I look it up.",)),
            ToolCall("look", ('{"at"', ': "it"}')),
            ToolCall("nil", ""),
        )
    )
    async with ModelServer([answer, answer]) as server:
        client = anthropic_client(server)
        for message in (
            await ask_anthropic(client),
            await client.messages.create(model="claude-test", max_tokens=9, messages=QUESTION),
        ):
            kinds = [block.type for block in message.content]
            assert kinds == ["thinking", "redacted_thinking", "thinking", "text", "tool_use", "tool_use"]
            shown, redacted, omitted, text, look, nothing = message.content
            assert shown.thinking == "Hm, let me see."
            assert all((shown.signature, redacted.data, omitted.signature))
            assert omitted.thinking == ""
            assert text.text == "I look it up."
            assert (look.name, look.input, nothing.input) == ("look", {"at": "it"}, {})
            assert look.id.startswith("toolu_01")
            assert look.id != nothing.id
            assert message.stop_reason == "tool_use"
            assert message.id.startswith("msg_01")


async def test_anthropic_refusal_ends_with_its_details(anthropic_client: Client) -> None:
    details = {"type": "refusal", "category": "cyber", "explanation": "No."}
    async with ModelServer([refuse("I cannot.", stop_details=details)]) as server:
        message = await ask_anthropic(anthropic_client(server))
    assert message.stop_reason == "refusal"
    assert message.stop_details.category == "cyber"


async def test_anthropic_unknown_blocks_are_sent_as_they_are(anthropic_client: Client) -> None:
    block = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "teal"}}
    async with ModelServer([Answer(parts=(RawBlock(block), Text(("Found.",))))]) as server:
        message = await ask_anthropic(anthropic_client(server))
    assert message.content[0].to_dict() == block


async def test_ids_differ_between_answers_and_repeat_with_the_seed() -> None:
    ids = []
    for _ in range(2):
        async with ModelServer([call("f"), call("f")], seed="same") as server:
            replies = [await post(server, "/v1/chat/completions", body()) for _ in range(2)]
        ids.append([reply["choices"][0]["message"]["tool_calls"][0]["id"] for reply in replies])
    assert ids[0] == ids[1]
    assert ids[0][0] != ids[0][1]


async def test_a_whole_body_can_answer_a_request_for_a_stream() -> None:
    async with ModelServer([say("Hello", whole=True)]) as server:
        reply = await post(server, "/v1/chat/completions", {**body(), "stream": True})
    assert reply["choices"][0]["message"]["content"] == "Hello"


async def test_a_function_of_the_request_can_be_the_script(openai_client: Client) -> None:
    async with ModelServer(lambda request: say(request.last_text.upper())) as server:
        client = openai_client(server)
        first = await ask_openai(client)
        second = await ask_openai(client, messages=[{"role": "user", "content": [{"type": "text", "text": "again"}]}])
    assert (text_of(first), text_of(second)) == ("SAY SOMETHING.", "AGAIN")


async def test_lone_surrogates_are_sent_as_escapes() -> None:
    async with ModelServer([say("bad \ud800 end")]) as server:
        reply = await post(server, "/v1/chat/completions", body())
    assert reply["choices"][0]["message"]["content"] == "bad \ud800 end"


async def test_a_refusal_part_and_a_thought_stand_beside_text(openai_client: Client) -> None:
    parts = (Text(("Well. ",)), Refusal(("No.",)))
    async with ModelServer([Answer(parts=parts), think_and_say("hm", "ok")]) as server:
        client = openai_client(server)
        whole = await client.chat.completions.create(model="gpt-test", messages=QUESTION)
        chunks = await ask_openai(client)
    assert (whole.choices[0].message.content, whole.choices[0].message.refusal) == ("Well. ", "No.")
    assert text_of(chunks) == "ok"


def body() -> dict[str, Any]:
    """A small request."""
    return {"model": "gpt-test", "messages": QUESTION}


async def post(server: ModelServer, path: str, content: Any) -> Any:
    """One request over a raw connection; the parsed body of the reply."""
    import json

    from .raw_client import RawClient

    async with RawClient(server.port) as client:
        return json.loads((await client.post(path, json.dumps(content).encode())).body)
