"""A request that a provider would refuse is refused, with its own sentence; one that it would take is taken."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from . import (
    Answer,
    Ledger,
    ModelServer,
    Reasoning,
    RedactedReasoning,
    ToolCall,
    check_anthropic_request,
    check_openai_request,
    say,
)
from .raw_client import RawClient

TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
THOUGHT = {"type": "thinking", "thinking": "hm", "signature": "abc"}


def call_of(call_id: str = "call_1", name: str = "add") -> dict[str, Any]:
    """A call on an assistant message."""
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": "{}"}}


def openai_body() -> dict[str, Any]:
    """A request with a whole tool round of two parallel calls, answered in the other order."""
    return {
        "model": "gpt-test",
        "max_tokens": 100,
        "stream": True,
        "stream_options": {"include_usage": True},
        "tools": [TOOL],
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Add."}]},
            {"role": "assistant", "content": None, "tool_calls": [call_of("call_1"), call_of("call_2")]},
            {"role": "tool", "tool_call_id": "call_2", "content": "2"},
            {"role": "tool", "tool_call_id": "call_1", "content": "1"},
            {"role": "assistant", "content": "Three."},
            {"role": "user", "content": "Thanks."},
        ],
    }


def test_a_whole_openai_conversation_is_taken() -> None:
    assert check_openai_request(openai_body()) == []


Change = Callable[[dict[str, Any]], Any]
OPENAI_CASES: list[tuple[str, Change, str]] = [
    ("a call without its result", lambda b: b["messages"].pop(4), "did not have response messages: call_1"),
    ("a user message between call and result", lambda b: b["messages"].insert(3, b["messages"][1]), "call_1, call_2"),
    ("results at the very end missing", lambda b: b["messages"].__delitem__(slice(3, None)), "call_1, call_2"),
    ("a result without any call", lambda b: b["messages"].pop(2), "must be a response to a preceeding message"),
    (
        "a result of another turn",
        lambda b: b["messages"].append(b["messages"][3]),
        "must be a response to a preceeding",
    ),
    (
        "a result for an unknown id",
        lambda b: b["messages"].insert(3, {"role": "tool", "tool_call_id": "call_9", "content": ""}),
        "'tool_call_id' of 'call_9' not found",
    ),
    (
        "two results for one call",
        lambda b: b["messages"].insert(4, b["messages"][3]),
        "Duplicate value for 'tool_call_id'",
    ),
    ("a result without an id", lambda b: b["messages"][3].pop("tool_call_id"), "Missing parameter 'tool_call_id'"),
    ("null content without calls", lambda b: b["messages"][5].update(content=None), "expected a string, got null"),
    ("a user without content", lambda b: b["messages"][6].pop("content"), "expected a string, got null"),
    ("an empty list of calls", lambda b: b["messages"][5].update(tool_calls=[]), "empty array"),
    ("an empty list of parts", lambda b: b["messages"][6].update(content=[]), "empty array"),
    ("an empty list of tools", lambda b: b.update(tools=[]), "Invalid 'tools': empty array"),
    ("no messages", lambda b: b.update(messages=[]), "Invalid 'messages': empty array"),
    ("messages left out", lambda b: b.pop("messages"), "Missing required parameter: 'messages'"),
    ("no model", lambda b: b.pop("model"), "you must provide a model parameter"),
    ("a tool name with a dot", lambda b: rename(b, "fs.read"), "does not match pattern"),
    ("a tool name with a newline", lambda b: rename(b, "add\n"), "does not match pattern"),
    ("a tool name of 65 characters", lambda b: rename(b, "a" * 65), "maximum length 64"),
    ("a called name with a space", lambda b: b["messages"][2].update(tool_calls=[call_of(name="a b")]), "pattern"),
    (
        "a call id of 41 characters",
        lambda b: b["messages"][2].update(tool_calls=[call_of("c" * 41)]),
        "maximum length 40",
    ),
    ("a call without an id", lambda b: b["messages"][2]["tool_calls"][0].pop("id"), "tool_calls[0].id'"),
    ("one id for two calls", lambda b: b["messages"][2].update(tool_calls=[call_of(), call_of()]), "Duplicate value"),
    (
        "arguments that are no text",
        lambda b: b["messages"][2]["tool_calls"][0]["function"].update(arguments={"a": 1}),
        "expected a string",
    ),
    ("an unknown field", lambda b: b.update(top_k=3), "Unknown parameter: 'top_k'"),
    ("an unknown field of a message", lambda b: b["messages"][0].update(cache_control={}), "messages[0].cache_control"),
    ("an unknown role", lambda b: b["messages"][0].update(role="robot"), "Invalid value: 'robot'"),
    ("an image in a tool message", lambda b: b["messages"][3].update(content=[IMAGE]), "Image URLs are only allowed"),
    ("an unknown part", lambda b: b["messages"][6].update(content=[{"type": "smell"}]), "Invalid value: 'smell'"),
    ("max_tokens for a reasoning model", lambda b: b.update(model="gpt-5-mini"), "Use 'max_completion_tokens' instead"),
    (
        "temperature for a reasoning model",
        lambda b: (b.update(model="o4-mini", temperature=0.2), b.pop("max_tokens")),
        "'temperature' does not support 0.2",
    ),
    ("both caps", lambda b: b.update(max_completion_tokens=5), "at the same time is not supported"),
    ("a cap of zero", lambda b: b.update(max_tokens=0), "below minimum value"),
    ("stream options without a stream", lambda b: b.update(stream=False), "'stream_options' parameter is only allowed"),
    (
        "parallel calls without tools",
        lambda b: (b.pop("tools"), b.update(parallel_tool_calls=True)),
        "only allowed when",
    ),
    ("a choice without tools", lambda b: (b.pop("tools"), b.update(tool_choice="required")), "only allowed when"),
    (
        "a forced tool that is not there",
        lambda b: b.update(tool_choice={"type": "function", "function": {"name": "sub"}}),
        "'sub' not found in 'tools'",
    ),
    (
        "parameters that are no object",
        lambda b: b["tools"][0]["function"].update(parameters={"type": "string"}),
        "got 'type: \"string\"'",
    ),
    (
        "json mode without the word",
        lambda b: b.update(response_format={"type": "json_object"}),
        "contain the word 'json'",
    ),
    ("a schema name with a space", lambda b: schema(b, {"type": "object"}, name="My Plan"), "does not match pattern"),
    ("an open strict schema", lambda b: schema(b, {"type": "object"}), "'additionalProperties' is required"),
    (
        "an optional property in a strict schema",
        lambda b: schema(b, {"type": "object", "additionalProperties": False, "properties": {"a": {}}, "required": []}),
        "Missing 'a'",
    ),
]


def rename(body: dict[str, Any], name: str) -> None:
    """Give the tool another name; a fresh copy, for the tool is shared."""
    body["tools"] = copy.deepcopy(body["tools"])
    body["tools"][0]["function"]["name"] = name


def schema(body: dict[str, Any], schema: dict[str, Any], *, name: str = "plan") -> None:
    """Ask for structured output."""
    definition = {"name": name, "schema": schema, "strict": True}
    body["response_format"] = {"type": "json_schema", "json_schema": definition}


@pytest.mark.parametrize(("change", "sentence"), [case[1:] for case in OPENAI_CASES], ids=[c[0] for c in OPENAI_CASES])
def test_openai_refuses(change: Change, sentence: str) -> None:
    body = copy.deepcopy(openai_body())
    change(body)
    assert any(sentence in problem for problem in check_openai_request(body)), check_openai_request(body)


def test_unknown_fields_pass_when_not_strict() -> None:
    assert check_openai_request({**openai_body(), "top_k": 3}, strict=False) == []


def test_reasoning_fields_are_taken_refused_or_required_as_the_server_wants() -> None:
    body = openai_body()
    assert check_openai_request(body, reasoning_fields="required")
    body["messages"][2]["reasoning_content"] = "hm"
    assert check_openai_request(body, reasoning_fields="required") == []
    assert check_openai_request(body, reasoning_fields="any") == []
    assert "messages[2].reasoning_content" in check_openai_request(body, reasoning_fields="refused")[0]


def test_neighbours_of_one_role_are_refused_where_the_template_wants_turns() -> None:
    body = openai_body()
    assert check_openai_request(body, alternates=True) == []
    body["messages"].append(body["messages"][-1])
    assert check_openai_request(body) == []
    assert "must alternate" in check_openai_request(body, alternates=True)[0]


def anthropic_body() -> dict[str, Any]:
    """A request with a whole tool round of two parallel calls and a text after the results."""
    return {
        "model": "claude-test",
        "max_tokens": 100,
        "system": "Be brief.",
        "tools": [{"name": "add", "input_schema": {"type": "object"}}],
        "messages": [
            {"role": "user", "content": "Add."},
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "I add."},
                    {"type": "tool_use", "id": "toolu_1", "name": "add", "input": {}},
                    {"type": "tool_use", "id": "toolu_2", "name": "add", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "toolu_2", "content": "2"},
                    {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "1"}]},
                    {"type": "text", "text": "Go on."},
                ],
            },
            {"role": "assistant", "content": "Three."},
            {"role": "user", "content": "Thanks."},
        ],
    }


def test_a_whole_anthropic_conversation_is_taken() -> None:
    assert check_anthropic_request(anthropic_body()) == []


def test_consecutive_messages_of_one_role_are_one() -> None:
    body = anthropic_body()
    body["messages"][2:3] = [
        {"role": "user", "content": body["messages"][2]["content"][:1]},
        {"role": "user", "content": body["messages"][2]["content"][1:]},
    ]
    assert check_anthropic_request(body) == []


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "data:image/bmp;base64,AA=="}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,%%%"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}},
        {"type": "image_url", "image_url": {"url": "ftp://x"}},
        {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}},
        {"type": "input_audio", "input_audio": {"data": "AA==", "format": "ogg"}},
    ],
)
def test_openai_refuses_broken_media(part: dict[str, Any]) -> None:
    body = openai_body()
    body["messages"][6]["content"] = [part]
    assert len(check_openai_request(body)) == 1


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        ("image", {"type": "base64", "media_type": "image/bmp", "data": "AA=="}),
        ("image", {"type": "base64", "media_type": "image/png", "data": "%%%"}),
        ("image", {"type": "base64", "media_type": "image/png", "data": ""}),
        ("image", {"type": "url", "url": None}),
        ("image", {"type": "url", "url": "ftp://x"}),
        ("document", {"type": "base64", "media_type": "application/zip", "data": "AA=="}),
    ],
)
def test_anthropic_refuses_broken_media(kind: str, source: dict[str, Any]) -> None:
    said = {"role": "user", "content": [{"type": kind, "source": source}]}
    body = {"model": "m", "max_tokens": 9, "messages": [said]}
    assert len(check_anthropic_request(body)) == 1


def blocks(body: dict[str, Any], place: int) -> list[dict[str, Any]]:
    """The content of a message."""
    content: list[dict[str, Any]] = body["messages"][place]["content"]
    return content


MARK = {"type": "ephemeral"}
ANTHROPIC_CASES: list[tuple[str, Change, str]] = [
    (
        "a call without its result",
        lambda b: blocks(b, 2).pop(1),
        "without `tool_result` blocks immediately after: toolu_1",
    ),
    (
        "calls at the very end",
        lambda b: b["messages"].__delitem__(slice(2, None)),
        "immediately after: toolu_1, toolu_2",
    ),
    (
        "text before the results",
        lambda b: blocks(b, 2).insert(0, blocks(b, 2).pop()),
        "immediately after: toolu_1, toolu_2",
    ),
    ("text between the results", lambda b: blocks(b, 2).insert(1, blocks(b, 2).pop()), "immediately after: toolu_1."),
    ("a result of nothing", lambda b: blocks(b, 2)[0].update(tool_use_id="toolu_9"), "unexpected `tool_use_id`"),
    (
        "two results for one call",
        lambda b: blocks(b, 2).insert(1, blocks(b, 2)[0]),
        "each tool_use must have a single result",
    ),
    ("a result without its call", lambda b: b["messages"].pop(1), "unexpected `tool_use_id`"),
    ("one id for two calls", lambda b: blocks(b, 1)[2].update(id="toolu_1"), "`tool_use` ids must be unique"),
    ("an id with a colon", lambda b: blocks(b, 1)[1].update(id="functions.add:0"), "should match pattern"),
    ("an empty id", lambda b: blocks(b, 1)[1].update(id=""), "should match pattern"),
    ("an input that is text", lambda b: blocks(b, 1)[1].update(input="{}"), "Input should be a valid dictionary"),
    ("an empty text", lambda b: blocks(b, 1)[0].update(text=""), "text content blocks must be non-empty"),
    ("a text of spaces", lambda b: blocks(b, 1)[0].update(text=" \n"), "must contain non-whitespace text"),
    ("an empty message", lambda b: b["messages"][4].update(content=""), "all messages must have non-empty content"),
    (
        "an empty text in a result",
        lambda b: blocks(b, 2)[1].update(content=[{"type": "text", "text": ""}]),
        "non-empty",
    ),
    ("an unknown block", lambda b: blocks(b, 1)[0].update(type="smell"), "does not match any of the expected tags"),
    ("a field of ours in a block", lambda b: blocks(b, 1)[0].update(seq=3), "text.seq: Extra inputs are not permitted"),
    ("an unknown field", lambda b: b.update(n=2), "n: Extra inputs are not permitted"),
    ("no max_tokens", lambda b: b.pop("max_tokens"), "max_tokens: Field required"),
    ("no messages", lambda b: b.update(messages=[]), "at least one message is required"),
    (
        "a system message",
        lambda b: b["messages"].insert(0, {"role": "system", "content": "x"}),
        'Unexpected role "system"',
    ),
    ("an assistant first", lambda b: b["messages"].pop(0), 'first message must use the "user" role'),
    ("a prefill with a space at its end", lambda b: b["messages"].append(prefill("So: ")), "trailing whitespace"),
    ("a tool without a schema", lambda b: b["tools"][0].pop("input_schema"), "input_schema: Field required"),
    (
        "a schema that is no object",
        lambda b: b["tools"][0].update(input_schema={"type": "array"}),
        "should be 'object'",
    ),
    (
        "a union as the schema",
        lambda b: b["tools"][0].update(input_schema={"type": "object", "anyOf": []}),
        "does not support oneOf, allOf, or anyOf",
    ),
    ("a tool name with a dot", lambda b: b["tools"][0].update(name="fs.read"), "String should match pattern"),
    ("two tools of one name", lambda b: b["tools"].append(b["tools"][0]), "Tool names must be unique"),
    (
        "a choice without tools",
        lambda b: (b.pop("tools"), b.update(tool_choice={"type": "any"})),
        "while providing tools",
    ),
    (
        "a forced tool that is not there",
        lambda b: b.update(tool_choice={"type": "tool", "name": "sub"}),
        "'sub' not found",
    ),
    ("five marks", lambda b: mark(b, ["5m"] * 5), "A maximum of 4 blocks with cache_control may be provided. Found 5."),
    ("a long mark after a short one", lambda b: mark(b, ["5m", "1h"]), "must not come after a ttl='5m'"),
    ("an unknown time to live", lambda b: mark(b, ["2h"]), "should be '5m' or '1h'"),
    ("a small thinking budget", lambda b: think(b, 100), "greater than or equal to 1024"),
    ("a thinking budget over the cap", lambda b: think(b, 2000), "must be greater than `thinking.budget_tokens`"),
    (
        "thinking with a forced tool",
        lambda b: think(b, 1024, max_tokens=2000, tool_choice={"type": "any"}),
        "Thinking may not be enabled when tool_choice forces",
    ),
    (
        "thinking with a temperature",
        lambda b: think(b, 1024, max_tokens=2000, temperature=0.5),
        "may only be set to 1 when thinking",
    ),
    (
        "thinking with a prefill",
        lambda b: think(b, 1024, max_tokens=2000, messages=[*b["messages"], prefill("So")]),
        "does not support assistant message prefill",
    ),
    ("thinking as the last block", lambda b: b["messages"][3].update(content=[THOUGHT]), "final block"),
    (
        "a blank signature",
        lambda b: b["messages"][3].update(content=[{**THOUGHT, "signature": ""}, {"type": "text", "text": "x"}]),
        "Invalid `signature` in `thinking` block",
    ),
]


def prefill(text: str) -> dict[str, Any]:
    """The start of an answer, put into the model's mouth."""
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


def think(body: dict[str, Any], budget: int, **fields: Any) -> None:
    """Turn thinking on, beside other fields."""
    body.update(fields)
    body["thinking"] = {"type": "enabled", "budget_tokens": budget}


def mark(body: dict[str, Any], lives: list[str]) -> None:
    """Put cache marks on five blocks, in order."""
    body["system"] = [{"type": "text", "text": "x"}]
    targets = [*body["tools"], *body["system"], *blocks(body, 1)]
    for target, life in zip(targets, lives, strict=False):
        target["cache_control"] = {**MARK, "ttl": life}


OUTPUT_RULES: list[tuple[dict[str, Any], str]] = [
    ({"type": "integer", "minimum": 1}, "For 'integer' type, property 'minimum' is not supported"),
    ({"type": "string", "maxLength": 1}, "For 'string' type, property 'maxLength' is not supported"),
    ({"type": "string", "pattern": "(?=a)"}, "Pattern '(?=a)' is not supported"),
    ({"type": "array", "items": {"type": "string"}, "minItems": 2}, "'minItems' values other than 0 or 1"),
    ({"type": "object", "properties": {}}, "'additionalProperties' must be explicitly set to false"),
    ({"enum": [[1]]}, "Enum values must be strings"),
    ({"$ref": "#"}, "Circular reference"),
]


@pytest.mark.parametrize(("rule", "sentence"), OUTPUT_RULES)
def test_anthropic_refuses_an_output_schema_beyond_its_subset(rule: dict[str, Any], sentence: str) -> None:
    def problems(inner: dict[str, Any]) -> list[str]:
        schema = {"type": "object", "properties": {"v": inner}, "required": ["v"], "additionalProperties": False}
        return check_anthropic_request(
            {**anthropic_body(), "output_config": {"format": {"type": "json_schema", "schema": schema}}}
        )

    assert problems({"type": "string"}) == []
    assert any(sentence in problem for problem in problems(rule))


@pytest.mark.parametrize(
    ("change", "sentence"), [case[1:] for case in ANTHROPIC_CASES], ids=[c[0] for c in ANTHROPIC_CASES]
)
def test_anthropic_refuses(change: Change, sentence: str) -> None:
    body = copy.deepcopy(anthropic_body())
    change(body)
    assert any(sentence in problem for problem in check_anthropic_request(body)), check_anthropic_request(body)


async def thinking_turn(server: ModelServer, client: RawClient) -> dict[str, Any]:
    """A first turn that thinks and calls; the body of the request that answers the call."""
    body: dict[str, Any] = {
        "model": "claude-test",
        "max_tokens": 4096,
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "messages": [{"role": "user", "content": "Add."}],
    }
    reply = await client.post("/v1/messages", json.dumps(body).encode(), anthropic_version="2023-06-01")
    content = json.loads(reply.body)["content"]
    result = {"type": "tool_result", "tool_use_id": content[-1]["id"], "content": "3"}
    body["messages"] += [{"role": "assistant", "content": content}, {"role": "user", "content": [result]}]
    return body


def drop_thinking(body: dict[str, Any], *, off: bool = False) -> None:
    """Leave the thinking blocks out, and turn thinking off if told."""
    if off:
        del body["thinking"]
    body["messages"][1]["content"] = [one for one in blocks(body, 1) if "thinking" not in one["type"]]


THINKING_CASES: list[tuple[str, Change, str | None]] = [
    ("unchanged", lambda b: None, None),
    ("text changed", lambda b: blocks(b, 1)[0].update(thinking="Hm, let me see"), "cannot be modified"),
    ("text blanked", lambda b: blocks(b, 1)[0].update(thinking=""), "cannot be modified"),
    ("signature made up", lambda b: blocks(b, 1)[0].update(signature="c2lnbmVk"), "Invalid `signature`"),
    ("redacted data changed", lambda b: blocks(b, 1)[1].update(data="eA=="), "Invalid `data` in `redacted_thinking`"),
    ("one block missing", lambda b: blocks(b, 1).pop(1), "cannot be modified"),
    ("blocks in another order", lambda b: blocks(b, 1).insert(0, blocks(b, 1).pop(1)), "cannot be modified"),
    (
        "all missing while thinking is on",
        drop_thinking,
        "Expected `thinking` or `redacted_thinking`, but found `tool_use`",
    ),
    ("all missing with thinking off", lambda b: drop_thinking(b, off=True), None),
    ("another model", lambda b: b.update(model="claude-other"), "Invalid `signature`"),
    ("a mark on it", lambda b: blocks(b, 1)[0].update(cache_control=MARK), "Extra inputs are not permitted"),
]


@pytest.mark.parametrize(
    ("change", "sentence"), [case[1:] for case in THINKING_CASES], ids=[c[0] for c in THINKING_CASES]
)
async def test_thinking_must_come_back_as_it_was_issued(change: Change, sentence: str | None) -> None:
    answer = Answer(parts=(Reasoning(("Hm, ", "let me see.")), RedactedReasoning(), ToolCall("add", {})))
    async with ModelServer([answer, say("Three.")]) as server, RawClient(server.port) as client:
        body = await thinking_turn(server, client)
        change(body)
        reply = await client.post("/v1/messages", json.dumps(body).encode(), anthropic_version="2023-06-01")
    if sentence is None:
        assert reply.status == 200, reply.body
    else:
        assert reply.status == 400
        assert sentence in json.loads(reply.body)["error"]["message"]
        assert server.answers_left == 1


async def test_omitted_thinking_comes_back_empty_with_its_signature() -> None:
    answer = Answer(parts=(Reasoning(("secret",), shown=False), ToolCall("add", {})))
    async with ModelServer([answer, say("Three.")]) as server, RawClient(server.port) as client:
        body = await thinking_turn(server, client)
        assert blocks(body, 1)[0]["thinking"] == ""
        reply = await client.post("/v1/messages", json.dumps(body).encode(), anthropic_version="2023-06-01")
    assert reply.status == 200


async def test_a_paused_turn_goes_on_with_its_content_unchanged() -> None:
    script = [say("Searching", finish="pause_turn"), say("Found.")]
    async with ModelServer(script) as server, RawClient(server.port) as client:
        body: dict[str, Any] = {
            "model": "claude-test",
            "max_tokens": 4096,
            "thinking": {"type": "adaptive"},
            "messages": [{"role": "user", "content": "Search."}],
        }
        first = await client.post("/v1/messages", json.dumps(body).encode(), anthropic_version="2023-06-01")
        body["messages"].append({"role": "assistant", "content": json.loads(first.body)["content"]})
        second = await client.post("/v1/messages", json.dumps(body).encode(), anthropic_version="2023-06-01")
    assert second.status == 200


def test_without_a_ledger_the_shape_of_thinking_is_enough() -> None:
    body = anthropic_body()
    body["messages"][3]["content"] = [THOUGHT, {"type": "text", "text": "Three."}]
    assert check_anthropic_request(body) == []
    assert "Invalid `signature`" in check_anthropic_request(body, ledger=Ledger())[0]


async def test_a_refused_request_gets_the_providers_error_body_and_uses_up_no_answer() -> None:
    orphan = {"model": "gpt-test", "messages": [{"role": "tool", "tool_call_id": "x", "content": "1"}]}
    async with ModelServer([say("kept")]) as server, RawClient(server.port) as client:
        reply = await client.post("/v1/chat/completions", json.dumps(orphan).encode())
        assert reply.status == 400
        error = json.loads(reply.body)["error"]
        assert error["type"] == "invalid_request_error"
        assert error["param"] == "messages.[0].role"
        assert server.requests[0].problems
        empty = {"model": "claude-test", "max_tokens": 1, "messages": []}
        there = await client.post("/v1/messages", json.dumps(empty).encode(), anthropic_version="2023-06-01")
        assert there.status == 400
        assert json.loads(there.body)["type"] == "error"
        assert there.headers["request-id"] == json.loads(there.body)["request_id"]
        assert server.answers_left == 1


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
@pytest.mark.parametrize("raw", [b"{", b"\xff", b'{"messages": [{"role": "user", "content": "\\ud800"}]}', b"[]"])
async def test_a_body_that_is_no_good_json_is_a_400(path: str, raw: bytes) -> None:
    async with ModelServer([say("kept")]) as server, RawClient(server.port) as client:
        reply = (
            await client.post(path, raw, anthropic_version="2023-06-01")
            if "messages" in path
            else await client.post(path, raw)
        )
    assert reply.status == 400


async def test_the_anthropic_version_header_and_the_key_are_asked_for() -> None:
    body = json.dumps(
        {"model": "claude-test", "max_tokens": 1, "messages": [{"role": "user", "content": "x"}]}
    ).encode()
    async with ModelServer([say("kept")], api_key="secret") as server, RawClient(server.port) as client:
        wrong = await client.post("/v1/messages", body, anthropic_version="2023-06-01", x_api_key="guess")
        unversioned = await client.post("/v1/messages", body, x_api_key="secret")
        right = await client.post("/v1/messages", body, anthropic_version="2023-06-01", x_api_key="secret")
        there = await client.post("/v1/chat/completions", b"{}", authorization="Bearer guess")
    assert [wrong.status, unversioned.status, right.status, there.status] == [401, 400, 200, 401]
    assert b"anthropic-version" in unversioned.body
