"""Writes a request for Chat Completions: each message and tool is encoded once, a body is a join of those."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from power_loop.contracts.errors import InputError
from power_loop.contracts.llm import LLMRequest, ModelInfo, OutputSchema, ToolSpec
from power_loop.contracts.messages import (
    AudioPart,
    FilePart,
    ImagePart,
    Message,
    ReasoningPart,
    RefusalPart,
    Role,
    TextPart,
    ToolCallPart,
)
from power_loop.runtime.llm.attachments import media_key, openai_part
from power_loop.runtime.llm.config import LLMProviderConfig, SendBack
from power_loop.runtime.llm.encoding import encode, object_text, portable_name

# A tool message and the content parts that have to stand behind its group: tool messages carry text only.
_WithMedia = tuple[bytes, bytes]
_ALL_ENCODED = {bytes}
_USER_HEAD = b'{"role":"user","content":'
_TEXT_END, _PARTS_END = b'"}', b"]}"
# Where the first letter of the role stands, by which two messages are told apart.
_ROLE_AT = len(b'{"role":"')
_SAME_ROLE = re.compile(rb"u{2,}|a{2,}")
# What stands between two texts that become one, as JSON writes it.
_BETWEEN_TEXTS = rb"\n\n"


class OpenAIWire:
    """Turns requests into bodies for one endpoint and model."""

    def __init__(self, config: LLMProviderConfig) -> None:
        facts = config.facts
        self._config = config
        self._info = config.info
        self._origin = self._info.origin
        self._has_json_schema = self._info.has_json_schema
        # What is encoded depends on what the model takes, which a config may say of the same model in two ways.
        self._memo_head = f"openai:{config.model}:{media_key(self._info)}"
        self._is_reasoning = facts.is_reasoning
        self._cap_field = "max_completion_tokens" if facts.is_reasoning or config.is_first_party else "max_tokens"
        # OpenAI itself takes neighbours of one role; the chat templates of other servers may refuse them.
        self._joins_neighbours = not config.is_first_party
        self._tail_role = config.tail_role or ("system" if config.is_first_party else "user")
        self._send_backs: dict[bool, SendBack] = {True: config.send_back, False: "never"}
        self._system: tuple[str | None, bytes] = (None, b"")

    def body(self, request: LLMRequest, *, has_usage_option: bool = True, has_reasoning: bool = True) -> bytes:
        """Return the body of a request.

        `has_usage_option` says whether the endpoint takes `stream_options`, `has_reasoning` whether it takes its own
        reasoning back.
        """
        head = encode(self._options(request, has_usage_option))[:-1]
        pieces = [head]
        if request.tools and self._config.has_tools:
            pieces.append(b',"tools":[' + b",".join([_tool_fragment(tool) for tool in request.tools]) + b"]")
        pieces.append(b',"messages":[')
        pieces.append(b",".join(self._messages(request, self._send_backs[has_reasoning])))
        pieces.append(b"]}")
        return b"".join(pieces)

    # --- options ---

    def _options(self, request: LLMRequest, has_usage_option: bool) -> dict[str, Any]:
        config = self._config
        options: dict[str, Any] = {"model": config.model, "stream": True}
        if has_usage_option:
            options["stream_options"] = {"include_usage": True}
        cap = request.max_output_tokens or config.max_output_tokens
        if cap is not None:
            options[self._cap_field] = cap
        effort = request.reasoning_effort or config.reasoning_effort
        if effort is not None:
            options["reasoning_effort"] = effort
        temperature = config.temperature if request.temperature is None else request.temperature
        if temperature is not None and (not self._is_reasoning or effort == "none"):
            options["temperature"] = temperature
        if request.tools and config.has_tools:
            choice = request.tool_choice
            if choice in ("none", "required"):
                options["tool_choice"] = choice
            elif choice != "auto":
                options["tool_choice"] = {"type": "function", "function": {"name": choice}}
            if request.parallel_tool_calls is not None:
                options["parallel_tool_calls"] = request.parallel_tool_calls
        if request.output_schema is not None and self._has_json_schema:
            response_format = _response_format(request.output_schema)
            if response_format is not None:
                options["response_format"] = response_format
        if request.cache_key is not None and config.is_first_party:
            options["prompt_cache_key"] = request.cache_key
        options.update(config.body)
        if request.extra:
            refuse_own_fields(request)
            options.update(request.extra)
        return options

    # --- messages ---

    def _messages(self, request: LLMRequest, send_back: SendBack) -> list[bytes]:
        key = f"{self._memo_head}:{send_back}"
        messages = request.messages
        fragments: list[Any] = [message.memo.get(key) for message in messages]
        if None in fragments:
            for place in [place for place, fragment in enumerate(fragments) if fragment is None]:
                fragments[place] = self._encoded(messages[place], key, send_back)
        if set(map(type, fragments)) != _ALL_ENCODED or b"" in fragments:
            fragments = _with_media_behind_groups(messages, fragments)
        if self._joins_neighbours:
            fragments = _with_neighbours_joined(fragments)
        if request.tail:
            self._add_tail(request.tail, fragments)
        if request.system:
            fragments.insert(0, self._system_fragment(request.system))
        return fragments

    def _system_fragment(self, system: str) -> bytes:
        if self._system[0] != system:
            self._system = (system, encode({"role": "system", "content": system}))
        return self._system[1]

    def _encoded(self, message: Message, key: str, send_back: SendBack) -> bytes | _WithMedia:
        if message.role is Role.USER:
            fragment: bytes | _WithMedia = _user_fragment(message, self._info)
        elif message.role is Role.ASSISTANT:
            fragment = self._assistant_fragment(message, send_back)
        else:
            fragment = _tool_message_fragment(message, self._info)
        message.memo[key] = fragment
        return fragment

    def _assistant_fragment(self, message: Message, send_back: SendBack) -> bytes:
        texts, calls, reasoning = [], [], []
        for part in message.parts:
            if isinstance(part, (TextPart, RefusalPart)):
                texts.append(part.text)
            elif isinstance(part, ToolCallPart):
                function = {"name": portable_name(part.name), "arguments": object_text(part.arguments)}
                calls.append({"id": part.id, "type": "function", "function": function})
            elif isinstance(part, ReasoningPart) and part.field is not None and message.origin == self._origin:
                reasoning.append(part)
        text = "".join(texts)
        fields: dict[str, Any] = {"role": "assistant", "content": text}
        if reasoning and send_back == "field":
            for part in reasoning:
                assert part.field is not None
                fields[part.field] = fields.get(part.field, "") + part.text
        elif reasoning and send_back == "tags":
            thought = "".join(part.text for part in reasoning)
            fields["content"] = text = f"<think>\n{thought}\n</think>\n\n{text}"
        if calls:
            fields["tool_calls"] = calls
            fields["content"] = text or None
        elif not text:
            return b""
        return encode(fields)

    def _add_tail(self, tail: str, fragments: list[bytes]) -> None:
        """Put the tail behind everything: it never stands between a call and its result, because nothing follows it."""
        fragment = encode({"role": self._tail_role, "content": tail})
        if fragments and all(one.startswith(_USER_HEAD) for one in (fragment, fragments[-1])):
            fragments[-1] = _joined_users([fragments[-1], fragment])
        else:
            fragments.append(fragment)


def refuse_own_fields(request: LLMRequest) -> None:
    """Raise `input.invalid` for an `extra` that would replace what the wire itself writes."""
    for name in ("messages", "stream"):
        if request.extra and name in request.extra:
            raise InputError(f"extra cannot replace {name!r}: the kernel writes that field itself")


def _with_media_behind_groups(messages: Sequence[Message], fragments: Sequence[bytes | _WithMedia]) -> list[bytes]:
    """The fragments without empty ones, and the media of tool results in a user message behind their whole group."""
    result: list[bytes] = []
    media: list[bytes] = []
    for message, fragment in zip(messages, fragments, strict=True):
        if media and message.role is not Role.TOOL:
            result.append(b'{"role":"user","content":[' + b",".join(media) + b"]}")
            media = []
        if isinstance(fragment, tuple):
            result.append(fragment[0])
            media.append(fragment[1])
        elif fragment:
            result.append(fragment)
    if media:
        result.append(b'{"role":"user","content":[' + b",".join(media) + b"]}")
    return result


def _with_neighbours_joined(fragments: list[bytes]) -> list[bytes]:
    """The messages with neighbours of one role as one; long conversations are looked at by their roles alone."""
    roles = bytes([fragment[_ROLE_AT] for fragment in fragments])
    joined: list[bytes] = []
    done = 0
    for run in _SAME_ROLE.finditer(roles):
        start, end = run.span()
        is_user = roles[start] == _USER_HEAD[_ROLE_AT]
        joined += fragments[done:start]
        joined.append((_joined_users if is_user else _joined_assistants)(fragments[start:end]))
        done = end
    return joined + fragments[done:] if done else fragments


def _joined_users(fragments: list[bytes]) -> bytes:
    """User messages as one, put together from their bytes: texts stay one text, which every server takes."""
    contents = [fragment[len(_USER_HEAD) :] for fragment in fragments]
    if all(content.startswith(b'"') for content in contents):
        return _USER_HEAD + b'"' + _BETWEEN_TEXTS.join([one[1 : -len(_TEXT_END)] for one in contents]) + _TEXT_END
    parts = [b'{"type":"text","text":' + one if one.startswith(b'"') else one[1 : -len(_PARTS_END)] for one in contents]
    return _USER_HEAD + b"[" + b",".join(parts) + _PARTS_END


def _joined_assistants(fragments: list[bytes]) -> bytes:
    """Assistant messages as one. They are rare: only replies that were broken off stand beside each other."""
    whole: dict[str, Any] = {"role": "assistant", "content": None}
    for fragment in fragments:
        for name, value in json.loads(fragment).items():
            if name == "content":
                whole[name] = "\n\n".join(filter(None, (whole[name], value))) or None
            elif name != "role":
                whole[name] = whole[name] + value if name in whole else value
    return encode(whole)


def _tool_fragment(tool: ToolSpec) -> bytes:
    fragment: bytes | None = tool.memo.get("openai")
    if fragment is None:
        function: dict[str, Any] = {"name": tool.name}
        if tool.description:
            function["description"] = tool.description
        function["parameters"] = dict(tool.input_schema)
        fragment = tool.memo["openai"] = encode({"type": "function", "function": function})
    return fragment


def _user_fragment(message: Message, info: ModelInfo) -> bytes:
    parts: list[dict[str, Any]] = []
    for part in message.parts:
        if isinstance(part, TextPart):
            if part.text:
                parts.append({"type": "text", "text": part.text})
        elif isinstance(part, (ImagePart, FilePart, AudioPart)):
            parts.append(openai_part(part, info))
    if not parts:
        return b""
    if len(parts) == 1 and parts[0]["type"] == "text":
        # Plain text is what every server takes.
        return encode({"role": "user", "content": parts[0]["text"]})
    return encode({"role": "user", "content": parts})


def _tool_message_fragment(message: Message, info: ModelInfo) -> bytes | _WithMedia:
    result = message.tool_result
    if result is None:
        raise InputError("a tool message without a result cannot be sent: it must hold one ToolResultPart")
    texts, media = [], []
    for part in result.content:
        if isinstance(part, TextPart):
            texts.append(part.text)
        else:
            media.append(openai_part(part, info))
    text = "\n".join(text for text in texts if text)
    if media and not text:
        text = "(the result is attached below)"
    if result.is_error and not text.lower().startswith("error"):
        # This wire has no field for it.
        text = f"Error: {text}" if text else "Error"
    fragment = encode({"role": "tool", "tool_call_id": result.call_id, "content": text})
    if not media:
        return fragment
    label = {"type": "text", "text": f"(attached to the result of call {result.call_id})"}
    return fragment, b",".join(encode(part) for part in (label, *media))


def _response_format(output: OutputSchema) -> dict[str, Any] | None:
    form = output.native_form("openai")
    if form is None:
        return None
    definition: dict[str, Any] = {"name": portable_name(output.name)}
    if output.description:
        definition["description"] = output.description
    definition["schema"] = dict(form.schema)
    definition["strict"] = form.is_strict
    return {"type": "json_schema", "json_schema": definition}
