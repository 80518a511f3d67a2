"""Requests for Messages: accepted by the endpoint's own rules whatever was said before, and encoded once."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from power_loop.contracts.errors import InputError
from power_loop.contracts.llm import LLMRequest, OutputSchema, ToolSpec
from power_loop.contracts.messages import (
    FilePart,
    ImagePart,
    Message,
    OpaquePart,
    Origin,
    ReasoningPart,
    RefusalPart,
    Role,
    TextPart,
    ToolCallPart,
    tool_message,
    user_message,
)
from power_loop.runtime.llm.anthropic_wire import AnthropicWire
from power_loop.runtime.llm.config import LLMProviderConfig
from tests.model_server import check_anthropic_request

from .transcripts import TEXTS, conversations, results_of

ADD = ToolSpec("add", "Adds.", {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]})
SUB = ToolSpec("sub", "", {"type": "object"})
HELLO = user_message("Hello.")
OWN = Origin("anthropic", "m")
MARK = {"type": "ephemeral"}


def wire(**options: Any) -> AnthropicWire:
    return AnthropicWire(LLMProviderConfig(**{"provider": "anthropic", "model": "m", "prompt_cache": "off", **options}))


def body(messages: list[Message], *, given_wire: AnthropicWire | None = None, **options: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((given_wire or wire()).body(LLMRequest(messages, **options)))
    return found


def spoken(parts: tuple[Any, ...], **options: Any) -> Message:
    return Message(Role.ASSISTANT, parts, options.get("origin", OWN))


def marks(value: Any) -> int:
    """How many cache marks stand in a body."""
    if isinstance(value, dict):
        return ("cache_control" in value) + sum(map(marks, value.values()))
    return sum(map(marks, value)) if isinstance(value, list) else 0


# --- what holds for every conversation ---


@settings(max_examples=150, deadline=None)
@given(conversations("anthropic"), TEXTS | st.none(), TEXTS | st.none(), st.sampled_from(["off", "5m", "1h"]))
def test_any_valid_conversation_is_accepted(
    messages: list[Message], system: str | None, tail: str | None, prompt_cache: str
) -> None:
    given_wire = wire(prompt_cache=prompt_cache)
    request = LLMRequest(messages, system=system, tail=tail, tools=(ADD,))
    first = given_wire.body(request)
    sent = json.loads(first)
    assert check_anthropic_request(sent) == []
    assert given_wire.body(request) == first
    roles = [message["role"] for message in sent["messages"]]
    assert all(left != right for left, right in itertools.pairwise(roles))
    for result in results_of(messages):
        assert first.count(b'"tool_use_id":"%b"' % result.call_id.encode()) == 1


@settings(max_examples=50, deadline=None)
@given(conversations("anthropic"))
def test_without_reasoning_a_conversation_is_accepted_too(messages: list[Message]) -> None:
    given_wire = wire(reasoning_effort="high")
    sent = json.loads(given_wire.body(LLMRequest(messages), has_reasoning=False))
    assert check_anthropic_request(sent) == []
    parts = [
        part for message in sent["messages"] if isinstance(message["content"], list) for part in message["content"]
    ]
    assert "thinking" not in sent
    assert not {part["type"] for part in parts} & {"thinking", "redacted_thinking"}


@settings(max_examples=50, deadline=None)
@given(conversations("anthropic"), st.data())
def test_but_for_its_marks_a_longer_conversation_begins_with_a_shorter_one(
    messages: list[Message], data: st.DataObject
) -> None:
    ends = [n for n in range(1, len(messages) + 1) if n == len(messages) or messages[n].role is Role.ASSISTANT]
    end = data.draw(st.sampled_from(ends))
    mark = b',"cache_control":{"type":"ephemeral"}'
    marked = wire(prompt_cache="5m").body(LLMRequest(messages, system="s"))
    assert marked.replace(mark, b"") == wire().body(LLMRequest(messages, system="s"))
    shorter = wire(prompt_cache="5m").body(LLMRequest(messages[:end], system="s"))
    assert marked.replace(mark, b"").startswith(shorter.replace(mark, b"").removesuffix(b"]}]}"))


# --- encoded once ---


def test_a_message_and_a_tool_are_encoded_once_and_never_marked() -> None:
    messages = [HELLO, spoken((TextPart("Hi."),)), user_message("More.")]
    request = LLMRequest(messages, tools=(ToolSpec("t", "", {"type": "object"}),))
    given_wire = wire(prompt_cache="5m")
    given_wire.body(request)
    kept = [dict(message.memo) for message in messages]
    assert all(len(memo) == 1 for memo in kept)
    assert not any(b"cache_control" in fragment for memo in kept for fragment in memo.values())
    given_wire.body(request)
    for message, memo in zip(messages, kept, strict=True):
        assert [*message.memo] == [*memo]
        assert all(message.memo[key] is memo[key] for key in memo)
    assert not any(b"cache_control" in fragment for fragment in request.tools[0].memo.values())


# --- messages ---


def test_a_conversation_is_written_field_by_field() -> None:
    thought = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
    messages = [
        user_message("Add."),
        spoken(
            (ReasoningPart("hm", raw=json.dumps(thought)), TextPart("So:"), ToolCallPart("toolu_1", "add", '{"a": 1}'))
        ),
        tool_message("toolu_1", (TextPart("2"),)),
        user_message(["Look:", ImagePart(data="aGk=", media_type="image/gif"), FilePart(url="https://x/a.pdf")]),
    ]
    found = body(messages, system="Be brief.", tools=(ADD,), given_wire=wire(max_output_tokens=99))
    assert found == {
        "model": "m",
        "stream": True,
        "max_tokens": 99,
        "system": [{"type": "text", "text": "Be brief."}],
        "tools": [{"name": "add", "description": "Adds.", "input_schema": ADD.input_schema}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Add."}]},
            {
                "role": "assistant",
                "content": [
                    thought,
                    {"type": "text", "text": "So:"},
                    {"type": "tool_use", "id": "toolu_1", "name": "add", "input": {"a": 1}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "toolu_1", "content": "2"},
                    {"type": "text", "text": "Look:"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/gif", "data": "aGk="}},
                    {"type": "document", "source": {"type": "url", "url": "https://x/a.pdf"}},
                ],
            },
        ],
    }


def test_a_result_carries_its_images_and_its_failure() -> None:
    call = ToolCallPart("toolu_1", "f", "{}")
    result = tool_message("toolu_1", (TextPart("x"), ImagePart(url="https://x/a.png")), is_error=True)
    assert body([HELLO, spoken((call,)), result])["messages"][-1]["content"] == [
        {
            "type": "tool_result",
            "tool_use_id": "toolu_1",
            "content": [
                {"type": "text", "text": "x"},
                {"type": "image", "source": {"type": "url", "url": "https://x/a.png"}},
            ],
            "is_error": True,
        }
    ]


def test_files_are_sent_as_the_wire_takes_them_or_named() -> None:
    files = [
        FilePart(data="aGk=", filename="a.pdf"),
        FilePart(data="aGk=", media_type="text/csv"),
        FilePart(url="data:text/plain;charset=utf-8;base64,aGk="),
        FilePart(data="aGk=", media_type="application/zip", filename="a.zip"),
    ]
    assert body([user_message(files)])["messages"][0]["content"] == [
        {
            "type": "document",
            "source": {"type": "base64", "media_type": "application/pdf", "data": "aGk="},
            "title": "a.pdf",
        },
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "hi"}},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "hi"}},
        {"type": "text", "text": "[file a.zip of type application/zip, which this model cannot read]"},
    ]


@pytest.mark.promise("reasoning-kept")
def test_blocks_of_thinking_go_back_byte_for_byte() -> None:
    raw = '{"type":"thinking","thinking":"caf\\u00e9 \\ud83d\\ude00","signature":"c2ln"}'
    sent = wire().body(LLMRequest([HELLO, spoken((ReasoningPart("café", raw=raw), TextPart("Hi."))), HELLO]))
    assert raw.encode() in sent


def test_a_block_with_half_a_character_is_left_out_because_the_endpoint_cannot_read_it() -> None:
    raw = '{"type":"thinking","thinking":"\\ud800","signature":"c2ln"}'
    found = body([HELLO, spoken((ReasoningPart("x", raw=raw), TextPart("Hi."))), HELLO])
    assert found["messages"][1]["content"] == [{"type": "text", "text": "Hi."}]
    call = ToolCallPart("toolu_1", "f", '{"a": "\\ud800"}')
    found = body([HELLO, spoken((call,)), tool_message("toolu_1", ())])
    assert found["messages"][1]["content"][0]["input"] == {"a": "\ufffd"}


@pytest.mark.parametrize("origin", [None, Origin("anthropic", "other"), Origin("openai", "m")])
def test_blocks_of_another_model_do_not_go_back(origin: Origin | None) -> None:
    parts = (
        ReasoningPart("hm", raw='{"type":"thinking","thinking":"hm","signature":"c2ln"}'),
        OpaquePart('{"type":"server_tool_use","id":"s1","name":"web_search","input":{}}'),
        TextPart("Hi."),
    )
    sent = body([HELLO, spoken(parts, origin=origin), HELLO])
    assert sent["messages"][1]["content"] == [{"type": "text", "text": "Hi."}]


def test_a_reply_that_was_cut_within_its_thinking_goes_back_without_it() -> None:
    raw = '{"type":"thinking","thinking":"hm","signature":""}'
    sent = body([HELLO, spoken((TextPart("Hi."), ReasoningPart("hm", raw=raw))), HELLO])
    assert sent["messages"][1]["content"] == [{"type": "text", "text": "Hi."}]
    sent = body([HELLO, spoken((ReasoningPart("hm", raw=raw), ReasoningPart("hm", raw=raw))), HELLO])
    assert [message["role"] for message in sent["messages"]] == ["user"]


def test_what_says_nothing_is_left_out() -> None:
    messages = [HELLO, spoken((TextPart(" "), RefusalPart(""))), Message(Role.USER, (TextPart("\n"),)), HELLO]
    found = body(messages, system=" ", tail=" ")
    assert "system" not in found
    assert found["messages"] == [{"role": "user", "content": [{"type": "text", "text": "Hello."}] * 2}]


@pytest.mark.parametrize("arguments", ["", "{", "[1]", '{"a": NaN}', "null"])
def test_arguments_that_are_no_object_go_back_as_an_object_that_shows_them(arguments: str) -> None:
    found = body([HELLO, spoken((ToolCallPart("toolu_1", "f", arguments),)), tool_message("toolu_1", ())])
    assert found["messages"][1]["content"][0]["input"] == {"invalid_arguments": arguments}


def test_a_tool_message_without_its_result_is_refused() -> None:
    with pytest.raises(InputError):
        body([HELLO, Message(Role.TOOL, (TextPart("x"),))])


def test_a_tail_stands_behind_the_results() -> None:
    messages = [HELLO, spoken((ToolCallPart("toolu_1", "f", "{}"),)), tool_message("toolu_1", ())]
    found = body(messages, tail="It is noon.")["messages"][-1]["content"]
    assert [block["type"] for block in found] == ["tool_result", "text"]
    paused = body([HELLO, spoken((TextPart("Hi."),))], tail="It is noon.")["messages"]
    assert paused[-1] == {"role": "user", "content": [{"type": "text", "text": "It is noon."}]}


# --- the prompt cache ---


def test_the_cache_is_marked_at_the_system_prompt_and_the_last_two_user_turns() -> None:
    messages = [
        user_message("1"),
        spoken((TextPart("a"),)),
        user_message("2"),
        spoken((TextPart("b"),)),
        user_message("3"),
    ]
    found = body(messages, system="s", tools=(ADD, SUB), tail="now", given_wire=wire(prompt_cache="5m"))
    assert marks(found) == 3
    assert found["system"][0]["cache_control"] == MARK
    assert found["messages"][2]["content"][-1]["cache_control"] == MARK
    # The tail changes with every call, so the mark stands before it.
    assert found["messages"][4]["content"] == [
        {"type": "text", "text": "3", "cache_control": MARK},
        {"type": "text", "text": "now"},
    ]


def test_without_a_system_prompt_the_tools_are_marked() -> None:
    found = body([HELLO], tools=(ADD, SUB), given_wire=wire(prompt_cache="1h"))
    assert found["tools"][-1]["cache_control"] == {"type": "ephemeral", "ttl": "1h"}
    assert marks(found) == 2


def test_the_cache_can_be_off() -> None:
    assert marks(body([HELLO], system="s", tools=(ADD,))) == 0


# --- options ---


def test_a_cap_is_always_sent() -> None:
    assert body([HELLO])["max_tokens"] == 4096
    assert body([HELLO], given_wire=wire(model="claude-3-5-sonnet"))["max_tokens"] == 8192
    assert body([HELLO], max_output_tokens=7)["max_tokens"] == 7


@pytest.mark.parametrize(
    ("choice", "parallel", "sent"),
    [
        ("auto", None, None),
        ("auto", True, None),
        ("auto", False, {"type": "auto", "disable_parallel_tool_use": True}),
        ("none", False, {"type": "none"}),
        ("required", None, {"type": "any"}),
        ("add", False, {"type": "tool", "name": "add", "disable_parallel_tool_use": True}),
    ],
)
def test_a_tool_choice_is_sent_with_tools_only(choice: str, parallel: bool | None, sent: Any) -> None:
    found = body([HELLO], tools=(ADD,), tool_choice=choice, parallel_tool_calls=parallel)
    assert found.get("tool_choice") == sent
    assert check_anthropic_request(found) == []
    assert "tool_choice" not in body([HELLO], tool_choice=choice, parallel_tool_calls=parallel)


def test_an_effort_is_a_budget_or_an_effort_as_the_model_takes_it() -> None:
    adaptive = body([HELLO], given_wire=wire(model="claude-opus-4-7", reasoning_effort="high", temperature=0.5))
    assert adaptive["thinking"] == {"type": "adaptive"}
    assert adaptive["output_config"] == {"effort": "high"}
    assert "temperature" not in adaptive
    budget = body([HELLO], given_wire=wire(model="claude-sonnet-4", reasoning_effort="high"))
    assert budget["thinking"] == {"type": "enabled", "budget_tokens": 16_384}
    for found in (adaptive, budget):
        assert check_anthropic_request(found) == []


@pytest.mark.parametrize(
    ("model", "options", "asked", "cap", "budget"),
    [
        # What the caller allows for the reply is never exceeded: thinking takes what an answer can spare.
        ("claude-sonnet-4", {"thinking_budget_tokens": 5_000}, 20_000, 20_000, 5_000),
        ("claude-sonnet-4", {"thinking_budget_tokens": 5_000}, 6_000, 6_000, 4_500),
        ("claude-sonnet-4", {"thinking_budget_tokens": 5_000}, 1_366, 1_366, 1_025),
        ("claude-sonnet-4", {"thinking_budget_tokens": 5_000}, 1_000, 1_000, None),
        ("claude-sonnet-4", {"thinking_budget_tokens": 5_000}, 1, 1, None),
        ("claude-sonnet-4", {"thinking_budget_tokens": 5_000, "max_output_tokens": 4_000}, None, 4_000, 3_000),
        ("claude-sonnet-4", {"reasoning_effort": "high", "max_output_tokens": 8_192}, None, 8_192, 6_144),
        ("claude-sonnet-4", {"reasoning_effort": "low", "max_output_tokens": 500}, None, 500, None),
        # Nor is what the model can do.
        ("claude-sonnet-4", {"thinking_budget_tokens": 64_000}, None, 64_000, 59_904),
        ("claude-opus-4-1", {"reasoning_effort": "max"}, None, 32_000, 27_904),
        # Of an unknown model the budget says more than our guess.
        ("m", {"thinking_budget_tokens": 8_000}, None, 12_096, 8_000),
        ("m", {"thinking_budget_tokens": 64_000}, None, 16_384, 12_288),
        ("m", {"reasoning_effort": "high"}, None, 4_096, 3_072),
    ],
)
def test_thinking_and_answer_share_the_cap(
    model: str, options: dict[str, Any], asked: int | None, cap: int, budget: int | None
) -> None:
    found = body([HELLO], given_wire=wire(model=model, **options), max_output_tokens=asked)
    assert found["max_tokens"] == cap
    assert found.get("thinking", {}).get("budget_tokens") == budget
    assert check_anthropic_request(found) == []


THOUGHT = ReasoningPart("hm", raw='{"type":"thinking","thinking":"hm","signature":"c2ln"}')
CALL = ToolCallPart("toolu_1", "add", "{}")
RESULT = tool_message("toolu_1", (TextPart("2"),))


@pytest.mark.parametrize(
    ("messages", "thinks"),
    [
        ([HELLO, spoken((THOUGHT, CALL)), RESULT], True),
        ([HELLO, spoken((THOUGHT, TextPart("So:"), CALL)), RESULT, HELLO], True),
        # After a forced tool, after a round that was answered by a hook or a person.
        ([HELLO, spoken((CALL,)), RESULT], False),
        ([HELLO, spoken((CALL,)), RESULT, user_message("And?")], False),
        ([HELLO, spoken((TextPart("So:"), CALL)), RESULT], False),
        # After a change of the model: what another one thought does not go back.
        ([HELLO, spoken((THOUGHT, CALL), origin=Origin("anthropic", "other")), RESULT], False),
        # The wire reads neighbours as one.
        ([HELLO, spoken((TextPart("Wait."),)), spoken((THOUGHT, CALL)), RESULT], False),
        # A round that is over binds nobody.
        ([HELLO, spoken((CALL,)), RESULT, spoken((TextPart("Two."),)), HELLO], True),
        ([HELLO, spoken((TextPart('{"type":"tool_use"'),)), HELLO], True),
        ([HELLO], True),
    ],
)
@pytest.mark.parametrize("prompt_cache", ["off", "5m"])
def test_a_round_of_tools_that_began_without_thinking_goes_on_without(
    messages: list[Message], thinks: bool, prompt_cache: str
) -> None:
    given_wire = wire(thinking_budget_tokens=1_024, temperature=0.5, prompt_cache=prompt_cache)
    found = body(messages, given_wire=given_wire, tools=(ADD,))
    assert check_anthropic_request(found) == []
    assert ("thinking" in found) is thinks
    assert ("temperature" in found) is not thinks


@settings(max_examples=100, deadline=None)
@given(conversations("anthropic"))
def test_any_valid_conversation_is_accepted_with_thinking_too(messages: list[Message]) -> None:
    sent = body(messages, given_wire=wire(thinking_budget_tokens=1_024), tools=(ADD,))
    assert check_anthropic_request(sent) == []


def test_a_refusal_does_not_go_back_as_the_assistants_words() -> None:
    found = body([HELLO, spoken((RefusalPart("Policy X."),)), HELLO])
    assert found["messages"] == [{"role": "user", "content": [{"type": "text", "text": "Hello."}] * 2}]
    found = body([HELLO, spoken((TextPart("I "), RefusalPart("Policy X."))), HELLO])
    assert found["messages"][1]["content"] == [{"type": "text", "text": "I "}]


@pytest.mark.parametrize("choice", ["required", "add"])
def test_a_forced_tool_is_asked_for_without_thinking(choice: str) -> None:
    found = body([HELLO], tools=(ADD,), tool_choice=choice, given_wire=wire(thinking_budget_tokens=1024))
    assert "thinking" not in found
    assert check_anthropic_request(found) == []


def test_no_effort_and_the_effort_none_ask_for_no_thinking() -> None:
    assert "thinking" not in body([HELLO])
    assert "thinking" not in body([HELLO], given_wire=wire(thinking_budget_tokens=1024), reasoning_effort="none")


def test_an_output_schema_is_sent_where_the_model_takes_one() -> None:
    schema = OutputSchema({"type": "object", "properties": {"a": {"type": "integer"}}})
    found = body([HELLO], output_schema=schema, given_wire=wire(has_json_schema=True))
    assert found["output_config"]["format"]["type"] == "json_schema"
    assert found["output_config"]["format"]["schema"] == {
        **schema.schema,
        "required": [],
        "additionalProperties": False,
    }
    assert "output_config" not in body([HELLO], output_schema=schema)


def test_options_are_the_requests_then_the_configs() -> None:
    given_wire = wire(temperature=0.1, body={"top_k": 1})
    found = body([HELLO], given_wire=given_wire, extra={"top_k": 2})
    assert (found["temperature"], found["top_k"]) == (0.1, 2)
    assert body([HELLO], given_wire=given_wire, temperature=0.0)["temperature"] == 0.0
    with pytest.raises(InputError, match="stream"):
        body([HELLO], extra={"stream": False})
