"""Requests for Chat Completions: accepted by the endpoint's own rules whatever was said before, and encoded once."""

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
    ImagePart,
    Message,
    Origin,
    ReasoningPart,
    RefusalPart,
    Role,
    TextPart,
    ToolCallPart,
    tool_message,
    user_message,
)
from power_loop.runtime.llm.config import LLMProviderConfig
from power_loop.runtime.llm.encoding import encode
from power_loop.runtime.llm.openai_wire import OpenAIWire
from tests.model_server import check_openai_request

from .transcripts import TEXTS, conversations, results_of

ADD = ToolSpec("add", "Adds.", {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]})
HELLO = user_message("Hello.")
OWN = Origin("openai", "m")


def wire(**options: Any) -> OpenAIWire:
    options = {"base_url": "http://127.0.0.1:1/v1", **options}
    return OpenAIWire(LLMProviderConfig(**{"model": "m", **options}))


def body(messages: list[Message], *, given_wire: OpenAIWire | None = None, **options: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((given_wire or wire()).body(LLMRequest(messages, **options)))
    return found


def spoken(parts: tuple[Any, ...], **options: Any) -> Message:
    return Message(Role.ASSISTANT, parts, options.get("origin", OWN))


# --- what holds for every conversation ---


@settings(max_examples=150, deadline=None)
@given(
    conversations("openai"),
    TEXTS | st.none(),
    TEXTS | st.none(),
    st.sampled_from(["field", "tags", "never"]),
    st.sampled_from(["user", "system", "developer", None]),
)
def test_any_valid_conversation_is_accepted(
    messages: list[Message], system: str | None, tail: str | None, send_back: str, tail_role: str | None
) -> None:
    given_wire = wire(send_back=send_back, tail_role=tail_role)
    request = LLMRequest(messages, system=system, tail=tail, tools=(ADD,))
    first = given_wire.body(request)
    assert check_openai_request(json.loads(first), alternates=True) == []
    # Encoded before or not, the bytes are the same.
    assert given_wire.body(request) == first
    for result in results_of(messages):
        assert first.count(b'"tool_call_id":"%b"' % result.call_id.encode()) == 1


@settings(max_examples=50, deadline=None)
@given(conversations("openai"), st.data())
def test_a_longer_conversation_begins_with_the_bytes_of_a_shorter_one(
    messages: list[Message], data: st.DataObject
) -> None:
    ends = [n for n in range(1, len(messages) + 1) if n == len(messages) or messages[n].role is Role.ASSISTANT]
    end = data.draw(st.sampled_from(ends))
    first_party = wire(base_url="https://api.openai.com/v1")
    shorter = first_party.body(LLMRequest(messages[:end], system="s", tools=(ADD,)))
    longer = first_party.body(LLMRequest(messages, system="s", tools=(ADD,)))
    assert longer.startswith(shorter.removesuffix(b"]}"))


@settings(max_examples=100, deadline=None)
@given(conversations("openai"), TEXTS | st.none(), st.data())
def test_where_neighbours_are_joined_only_the_last_message_of_a_shorter_conversation_changes(
    messages: list[Message], tail: str | None, data: st.DataObject
) -> None:
    ends = [n for n in range(1, len(messages) + 1) if n == len(messages) or messages[n].role is not Role.TOOL]
    end = data.draw(st.sampled_from(ends))
    shorter = wire().body(LLMRequest(messages[:end], system="s", tools=(ADD,)))
    longer = wire().body(LLMRequest(messages, system="s", tools=(ADD,), tail=tail))
    sent = json.loads(shorter)["messages"]
    unchanged = shorter.removesuffix(encode(sent[-1]) + b"]}")
    assert len(unchanged) < len(shorter)
    assert longer.startswith(unchanged)
    roles = [message["role"] for message in json.loads(longer)["messages"]]
    assert all(left != right or left == "tool" for left, right in itertools.pairwise(roles))


# --- encoded once ---


def test_a_message_and_a_tool_are_encoded_once() -> None:
    messages = [HELLO, spoken((TextPart("Hi."),))]
    request = LLMRequest(messages, tools=(ToolSpec("t", "", {"type": "object"}),))
    given_wire = wire()
    given_wire.body(request)
    kept = [dict(message.memo) for message in messages]
    assert all(len(memo) == 1 for memo in kept)
    given_wire.body(request)
    wire().body(request)
    for message, memo in zip(messages, kept, strict=True):
        assert [*message.memo] == [*memo]
        assert all(message.memo[key] is memo[key] for key in memo)
    assert len(request.tools[0].memo) == 1


def test_another_model_does_not_read_what_was_encoded_for_this_one() -> None:
    message = spoken((ReasoningPart("hm", field="reasoning"), TextPart("Hi.")))
    mine, other = wire(), wire(model="n")
    assert b'"reasoning":"hm"' in mine.body(LLMRequest([HELLO, message, HELLO]))
    assert b"hm" not in other.body(LLMRequest([HELLO, message, HELLO]))
    assert b'"reasoning":"hm"' in mine.body(LLMRequest([HELLO, message, HELLO]))


# --- messages ---


def test_a_conversation_is_written_field_by_field() -> None:
    messages = [
        user_message("Add."),
        spoken((TextPart("So: "), ToolCallPart("call_123456789", "add", '{"a": 1}'))),
        tool_message("call_123456789", (TextPart("2"),)),
        spoken((TextPart("Two."),)),
        user_message(["Look:", ImagePart(data="aGk=", detail="high")]),
    ]
    assert body(messages, system="Be brief.", tools=(ADD,)) == {
        "model": "m",
        "stream": True,
        "stream_options": {"include_usage": True},
        "tools": [
            {"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": ADD.input_schema}}
        ],
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Add."},
            {
                "role": "assistant",
                "content": "So: ",
                "tool_calls": [
                    {"id": "call_123456789", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
                ],
            },
            {"role": "tool", "tool_call_id": "call_123456789", "content": "2"},
            {"role": "assistant", "content": "Two."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Look:"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk=", "detail": "high"}},
                ],
            },
        ],
    }


def test_images_of_results_follow_their_whole_group() -> None:
    calls = tuple(ToolCallPart(f"call_00000000{n}", "shoot", "{}") for n in (1, 2))
    messages = [
        HELLO,
        spoken(calls),
        tool_message("call_000000001", (TextPart("done"), ImagePart(data="aGk="))),
        tool_message("call_000000002", (ImagePart(data="eW8="),)),
        spoken((TextPart("I see."),)),
    ]
    sent = body(messages)["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "tool", "tool", "user", "assistant"]
    assert [message["content"] for message in sent[2:4]] == ["done", "(the result is attached below)"]
    urls = [part["image_url"]["url"] for part in sent[4]["content"] if part["type"] == "image_url"]
    assert urls == ["data:image/png;base64,aGk=", "data:image/png;base64,eW8="]


@pytest.mark.parametrize(("text", "sent"), [("no file", "Error: no file"), ("Error: x", "Error: x"), ("", "Error")])
def test_a_failed_result_is_marked_in_words(text: str, sent: str) -> None:
    messages = [
        HELLO,
        spoken((ToolCallPart("call_1", "f", "{}"),)),
        tool_message("call_1", (TextPart(text),), is_error=True),
    ]
    assert body(messages)["messages"][-1]["content"] == sent


@pytest.mark.parametrize("arguments", ["", "{", "[1]", '{"a": NaN}', "null", '{"a":1,"a":2}'])
def test_arguments_that_no_server_could_parse_go_back_as_an_object_that_shows_them(arguments: str) -> None:
    call = ToolCallPart("call_1", "f", arguments)
    sent = body([HELLO, spoken((call,)), tool_message("call_1", ())])["messages"][1]["tool_calls"][0]["function"]
    assert json.loads(sent["arguments"]) == {"invalid_arguments": arguments}


def test_valid_arguments_go_back_as_they_came() -> None:
    text = '{ "a" :1,\t"é": [] }'
    sent = body([HELLO, spoken((ToolCallPart("call_1", "f", text),)), tool_message("call_1", ())])
    assert sent["messages"][1]["tool_calls"][0]["function"]["arguments"] == text


def test_a_refusal_goes_back_as_what_was_said() -> None:
    assert body([HELLO, spoken((RefusalPart("No."),)), HELLO])["messages"][1] == {"role": "assistant", "content": "No."}


def test_a_reply_that_said_nothing_is_left_out() -> None:
    assert len(body([HELLO, spoken(()), HELLO], given_wire=wire(base_url="https://api.openai.com/v1"))["messages"]) == 2


def test_a_tool_message_without_its_result_is_refused() -> None:
    with pytest.raises(InputError):
        body([HELLO, Message(Role.TOOL, (TextPart("x"),))])


# --- reasoning ---


THOUGHT = (ReasoningPart("hm", field="reasoning_content"), TextPart("Hi."))


@pytest.mark.parametrize(
    ("send_back", "sent"),
    [
        ("field", {"content": "Hi.", "reasoning_content": "hm"}),
        ("tags", {"content": "<think>\nhm\n</think>\n\nHi."}),
        ("never", {"content": "Hi."}),
    ],
)
def test_reasoning_goes_back_as_the_config_says(send_back: str, sent: dict[str, str]) -> None:
    found = body([HELLO, spoken(THOUGHT), HELLO], given_wire=wire(send_back=send_back))["messages"][1]
    assert found == {"role": "assistant", **sent}


@pytest.mark.parametrize("origin", [None, Origin("openai", "other"), Origin("anthropic", "m")])
@pytest.mark.promise("reasoning-kept")
def test_reasoning_of_another_model_does_not_go_back(origin: Origin | None) -> None:
    assert "reasoning_content" not in body([HELLO, spoken(THOUGHT, origin=origin), HELLO])["messages"][1]


def test_reasoning_that_was_refused_is_left_out_on_demand() -> None:
    request = LLMRequest([HELLO, spoken(THOUGHT), HELLO])
    given_wire = wire()
    assert b"hm" in given_wire.body(request)
    assert b"hm" not in given_wire.body(request, has_reasoning=False)
    assert b"hm" in given_wire.body(request)


# --- neighbours of one role ---

IMAGE = ImagePart(data="aGk=")
SENT_IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}


@pytest.mark.parametrize(
    ("messages", "sent"),
    [
        ([user_message('a"'), user_message("b\n"), user_message("é")], [{"role": "user", "content": 'a"\n\nb\n\n\né'}]),
        (
            [user_message("a"), user_message(["b", IMAGE]), user_message("c")],
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "a"},
                        {"type": "text", "text": "b"},
                        SENT_IMAGE,
                        {"type": "text", "text": "c"},
                    ],
                }
            ],
        ),
        (
            [HELLO, spoken((ReasoningPart("h", field="reasoning"), TextPart("So"))), spoken((TextPart("Hi."),)), HELLO],
            [
                {"role": "user", "content": "Hello."},
                {"role": "assistant", "content": "So\n\nHi.", "reasoning": "h"},
                {"role": "user", "content": "Hello."},
            ],
        ),
        (
            [HELLO, spoken((TextPart("So"),)), spoken((ToolCallPart("c1", "f", "{}"),)), tool_message("c1", ()), HELLO],
            [
                {"role": "user", "content": "Hello."},
                {
                    "role": "assistant",
                    "content": "So",
                    "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
                },
                {"role": "tool", "tool_call_id": "c1", "content": ""},
                {"role": "user", "content": "Hello."},
            ],
        ),
    ],
)
def test_neighbours_of_one_role_are_one_message_where_chat_templates_may_refuse_them(
    messages: list[Message], sent: list[dict[str, Any]]
) -> None:
    assert body(messages)["messages"] == sent
    assert body(messages)["messages"] == sent
    first_party = wire(base_url="https://api.openai.com/v1")
    assert len(body(messages, given_wire=first_party)["messages"]) == len(messages)


# --- the tail ---


def test_a_tail_joins_the_text_of_the_last_user_message() -> None:
    assert body([HELLO], tail="It is noon.")["messages"] == [{"role": "user", "content": "Hello.\n\nIt is noon."}]
    # Only for this request.
    assert body([HELLO])["messages"] == [{"role": "user", "content": "Hello."}]


def test_a_tail_stands_behind_results_and_their_images() -> None:
    messages = [HELLO, spoken((ToolCallPart("call_1", "f", "{}"),)), tool_message("call_1", (ImagePart(data="aGk="),))]
    sent = body(messages, tail="It is noon.")["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "tool", "user"]
    assert [part["type"] for part in sent[-1]["content"]] == ["text", "image_url", "text"]
    assert sent[-1]["content"][-1]["text"] == "It is noon."


def test_a_tail_is_a_system_message_at_openai_itself() -> None:
    given_wire = wire(base_url="https://api.openai.com/v1")
    assert body([HELLO], given_wire=given_wire, tail="x")["messages"][-1] == {"role": "system", "content": "x"}


# --- options ---


def test_options_are_the_requests_then_the_configs() -> None:
    given_wire = wire(temperature=0.1, max_output_tokens=10, reasoning_effort="low", body={"seed": 1, "top_p": 0.5})
    found = body([HELLO], given_wire=given_wire)
    assert {name: found[name] for name in ("temperature", "max_tokens", "reasoning_effort", "seed", "top_p")} == {
        "temperature": 0.1,
        "max_tokens": 10,
        "reasoning_effort": "low",
        "seed": 1,
        "top_p": 0.5,
    }
    found = body([HELLO], given_wire=given_wire, temperature=0.0, max_output_tokens=20, extra={"seed": 2})
    assert (found["temperature"], found["max_tokens"], found["seed"], found["top_p"]) == (0.0, 20, 2, 0.5)


@pytest.mark.parametrize("name", ["messages", "stream"])
def test_an_extra_cannot_replace_what_the_wire_writes(name: str) -> None:
    with pytest.raises(InputError, match=name):
        body([HELLO], extra={name: 1})


def test_a_reasoning_model_gets_its_own_name_of_the_cap_and_no_temperature() -> None:
    given_wire = wire(model="gpt-5", temperature=0.5, max_output_tokens=9)
    found = body([HELLO], given_wire=given_wire)
    assert found["max_completion_tokens"] == 9
    assert "max_tokens" not in found
    assert "temperature" not in found
    assert check_openai_request(found) == []
    assert body([HELLO], given_wire=given_wire, reasoning_effort="none")["temperature"] == 0.5


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ("auto", None),
        ("none", "none"),
        ("required", "required"),
        ("add", {"type": "function", "function": {"name": "add"}}),
    ],
)
def test_a_tool_choice_is_sent_with_tools_only(choice: str, sent: Any) -> None:
    found = body([HELLO], tools=(ADD,), tool_choice=choice, parallel_tool_calls=False)
    assert found.get("tool_choice") == sent
    assert found["parallel_tool_calls"] is False
    bare = body([HELLO], tool_choice=choice, parallel_tool_calls=False)
    assert not {"tool_choice", "parallel_tool_calls", "tools"} & bare.keys()


def test_a_model_without_tools_is_sent_none() -> None:
    assert "tools" not in body([HELLO], given_wire=wire(has_tools=False), tools=(ADD,), tool_choice="required")


def test_an_output_schema_is_sent_in_its_strict_form() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}}, "required": ["a"]}
    given_wire = wire(has_json_schema=True)
    found = body([HELLO], given_wire=given_wire, output_schema=OutputSchema(schema, "my answer", "What is asked."))
    definition = found["response_format"]["json_schema"]
    assert found["response_format"]["type"] == "json_schema"
    assert (definition["name"], definition["strict"]) == ("my_answer", True)
    assert definition["schema"]["required"] == ["a", "b"]
    assert check_openai_request(found) == []


@pytest.mark.parametrize(
    ("schema", "sent"),
    [({"type": "object"}, {"type": "object"}), ({"type": "array", "items": {"type": "integer"}}, None)],
)
def test_a_schema_without_a_strict_form_is_sent_loosely_if_at_all(schema: dict[str, Any], sent: Any) -> None:
    found = body([HELLO], given_wire=wire(has_json_schema=True), output_schema=OutputSchema(schema))
    if sent is None:
        assert "response_format" not in found
    else:
        assert found["response_format"]["json_schema"]["schema"] == sent
        assert found["response_format"]["json_schema"]["strict"] is False
    assert check_openai_request(found) == []


def test_a_model_without_output_schemas_is_sent_none() -> None:
    assert "response_format" not in body([HELLO], output_schema=OutputSchema({"type": "object"}))


def test_the_cache_key_goes_to_openai_itself_only() -> None:
    assert "prompt_cache_key" not in body([HELLO], cache_key="s")
    given_wire = wire(base_url="https://api.openai.com/v1")
    assert body([HELLO], given_wire=given_wire, cache_key="s")["prompt_cache_key"] == "s"


def test_the_option_for_usage_can_be_left_out() -> None:
    assert "stream_options" not in json.loads(wire().body(LLMRequest([HELLO]), has_usage_option=False))
