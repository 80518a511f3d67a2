"""Writes a request for Anthropic's Messages: each message is encoded once, a body is a join of what was encoded."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from power_loop.contracts.errors import InputError
from power_loop.contracts.llm import LLMRequest, ModelInfo, ToolSpec
from power_loop.contracts.messages import (
    AudioPart,
    FilePart,
    ImagePart,
    Message,
    OpaquePart,
    Part,
    ReasoningPart,
    Role,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from power_loop.runtime.llm.attachments import anthropic_block, media_key
from power_loop.runtime.llm.config import LLMProviderConfig
from power_loop.runtime.llm.encoding import encode, is_sendable, object_text, portable_name
from power_loop.runtime.llm.known_models import UNKNOWN_MODEL
from power_loop.runtime.llm.openai_wire import refuse_own_fields

_USER_HEAD = b'{"role":"user","content":['
_ASSISTANT_HEAD = b'{"role":"assistant","content":['
_END = b"]}"
_BLOCK_END = b"}]}"
# Where the first letter of the role stands, by which two messages are told apart.
_ROLE_AT = len(b'{"role":"')
_SAME_ROLE = re.compile(rb"u{2,}|a{2,}")
_ALL_ENCODED = {bytes}
# What an effort means to models that take a budget of thinking in tokens instead.
_BUDGETS = {"minimal": 1_024, "low": 2_048, "medium": 8_192, "high": 16_384, "xhigh": 32_768, "max": 65_536}
_MIN_BUDGET_TOKENS = 1_024
# The room that is left for the answer behind the thinking: so much, or this part of a small cap.
_ANSWER_TOKENS = 4_096
_ANSWER_SHARE = 0.25
_THINKING = ("thinking", "redacted_thinking")
_EFFORTS = frozenset({"low", "medium", "high", "xhigh", "max"})


class AnthropicWire:
    """Turns requests into bodies for one endpoint and model."""

    def __init__(self, config: LLMProviderConfig) -> None:
        self._config = config
        self._info = config.info
        facts = config.facts
        self._has_adaptive_thinking = facts.has_adaptive_thinking
        self._is_known = facts is not UNKNOWN_MODEL
        head = f"anthropic:{config.model}:{media_key(self._info)}"
        self._memo_keys = {True: head, False: f"{head}:no-reasoning"}
        self._mark = b""
        if config.prompt_cache != "off":
            mark = {"type": "ephemeral"} if config.prompt_cache == "5m" else {"type": "ephemeral", "ttl": "1h"}
            self._mark = b',"cache_control":' + encode(mark)
        self._system: tuple[str | None, bytes] = (None, b"")

    def body(self, request: LLMRequest, *, has_usage_option: bool = True, has_reasoning: bool = True) -> bytes:
        """Return the body of a request; `has_reasoning=False` sends no thinking back and asks for none."""
        turns = self._messages(request, self._memo_keys[has_reasoning], has_reasoning)
        pieces = [encode(self._options(request, turns, has_reasoning=has_reasoning))[:-1]]
        if request.system and request.system.strip():
            pieces += (b',"system":[', self._system_block(request.system), b"]")
        if request.tools and self._config.has_tools:
            tools = [_tool_fragment(tool) for tool in request.tools]
            if self._mark and not (request.system and request.system.strip()):
                # The mark on the system prompt covers the tools, which stand before it.
                tools[-1] = tools[-1][:-1] + self._mark + b"}"
            pieces += (b',"tools":[', b",".join(tools), b"]")
        pieces.append(b',"messages":[')
        pieces.append(b",".join(turns))
        pieces.append(b"]}")
        return b"".join(pieces)

    # --- options ---

    def _options(self, request: LLMRequest, turns: list[bytes], *, has_reasoning: bool) -> dict[str, Any]:
        config = self._config
        options: dict[str, Any] = {"model": config.model, "stream": True, "max_tokens": self._cap(request)}
        choice = self._tool_choice(request)
        is_forced = choice is not None and choice["type"] in ("any", "tool")
        output_config: dict[str, Any] = {}
        # Thinking cannot be had where a tool is forced.
        if has_reasoning and not is_forced:
            thinking, effort = self._thinking(request, options["max_tokens"])
            if thinking is not None and not ("budget_tokens" in thinking and _is_in_unthought_round(turns)):
                options["thinking"] = thinking
            if effort is not None:
                output_config["effort"] = effort
        temperature = config.temperature if request.temperature is None else request.temperature
        if temperature is not None and "thinking" not in options:
            options["temperature"] = temperature
        if choice is not None:
            options["tool_choice"] = choice
        if request.output_schema is not None and self._info.has_json_schema:
            form = request.output_schema.native_form("anthropic")
            if form is not None:
                output_config["format"] = {"type": "json_schema", "schema": dict(form.schema)}
        if output_config:
            options["output_config"] = output_config
        options.update(config.body)
        if request.extra:
            refuse_own_fields(request)
            options.update(request.extra)
        return options

    def _tool_choice(self, request: LLMRequest) -> dict[str, Any] | None:
        if not request.tools or not self._config.has_tools:
            return None
        kinds = {"auto": "auto", "none": "none", "required": "any"}
        choice: dict[str, Any] = {"type": kinds.get(request.tool_choice, "tool")}
        if choice["type"] == "tool":
            choice["name"] = request.tool_choice
        if request.parallel_tool_calls is False and choice["type"] != "none":
            choice["disable_parallel_tool_use"] = True
        return None if choice == {"type": "auto"} else choice

    def _cap(self, request: LLMRequest) -> int:
        """The most tokens of the whole reply, its thinking among them."""
        given = request.max_output_tokens or self._config.max_output_tokens
        if given is not None:
            return given
        cap, budget = self._info.max_output_tokens, self._config.thinking_budget_tokens
        if budget is not None and not self._is_known:
            # What is guessed of an unknown model says less than the budget that was chosen for it.
            cap = max(cap, min(budget + _ANSWER_TOKENS, self._info.context_window_tokens // 2))
        return cap

    def _thinking(self, request: LLMRequest, cap: int) -> tuple[dict[str, Any] | None, str | None]:
        """The thinking that is asked for, and the effort where the model takes one."""
        budget = self._config.thinking_budget_tokens
        effort = request.reasoning_effort or self._config.reasoning_effort
        if effort == "none" or (effort is None and budget is None):
            return None, None
        if budget is None:
            assert effort is not None
            if self._has_adaptive_thinking:
                return {"type": "adaptive"}, "low" if effort not in _EFFORTS else effort
            budget = _BUDGETS.get(effort, _BUDGETS["medium"])
        budget = min(budget, cap - min(_ANSWER_TOKENS, int(cap * _ANSWER_SHARE)))
        return ({"type": "enabled", "budget_tokens": budget} if budget >= _MIN_BUDGET_TOKENS else None), None

    # --- messages ---

    def _system_block(self, system: str) -> bytes:
        if self._system[0] != system:
            block = encode({"type": "text", "text": system})
            self._system = (system, block[:-1] + self._mark + b"}")
        return self._system[1]

    def _messages(self, request: LLMRequest, key: str, has_reasoning: bool) -> list[bytes]:
        """The messages, neighbours of one role joined into one, as the wire reads them anyway."""
        fragments: list[Any] = [message.memo.get(key) for message in request.messages]
        if set(map(type, fragments)) != _ALL_ENCODED:
            fragments = [
                self._encoded(message, key, has_reasoning) if fragment is None else fragment
                for message, fragment in zip(request.messages, fragments, strict=True)
            ]
        if b"" in fragments:
            fragments = [fragment for fragment in fragments if fragment]
        turns = _joined_turns(fragments)
        if self._mark:
            self._mark_turns(turns)
        if request.tail and request.tail.strip():
            tail = encode({"type": "text", "text": request.tail})
            if turns and turns[-1].startswith(_USER_HEAD):
                turns[-1] = turns[-1][: -len(_END)] + b"," + tail + _END
            else:
                turns.append(_USER_HEAD + tail + _END)
        return turns

    def _mark_turns(self, turns: list[bytes]) -> None:
        """Mark the ends of the last two user turns for the prompt cache.

        The last one writes the cache; the one before it is where the previous request wrote, which the provider's own
        search, twenty blocks back, may not reach. What is encoded stays as it is: the mark is put into a copy.
        """
        last = len(turns) - 1
        if last >= 0 and not turns[last].startswith(_USER_HEAD):
            last -= 1
        # The roles alternate, so the one before stands two places earlier. Every block of a user can be marked.
        for place in (last, last - 2):
            if place >= 0:
                turns[place] = turns[place][: -len(_BLOCK_END)] + self._mark + _BLOCK_END

    def _encoded(self, message: Message, key: str, has_reasoning: bool) -> bytes:
        """A message as it stands in a body, without what is empty; b"" if nothing is left."""
        if message.role is Role.ASSISTANT:
            is_own = has_reasoning and message.origin == self._info.origin
            blocks = _assistant_blocks(message.parts, is_own)
        elif message.role is Role.TOOL:
            result = message.tool_result
            if result is None:
                raise InputError("a tool message without a result cannot be sent: it must hold one ToolResultPart")
            blocks = [_result_block(result, self._info)]
        else:
            blocks = [encode(block) for block in _content_blocks(message.parts, self._info)]
        head = _ASSISTANT_HEAD if message.role is Role.ASSISTANT else _USER_HEAD
        fragment = message.memo[key] = head + b",".join(blocks) + _END if blocks else b""
        return fragment


def _joined_turns(fragments: list[bytes]) -> list[bytes]:
    """The messages with neighbours of one role as one; long conversations are looked at by their roles alone."""
    roles = bytes([fragment[_ROLE_AT] for fragment in fragments])
    turns: list[bytes] = []
    done = 0
    for run in _SAME_ROLE.finditer(roles):
        start, end = run.span()
        turns += fragments[done:start]
        head = _USER_HEAD if roles[start] == _USER_HEAD[_ROLE_AT] else _ASSISTANT_HEAD
        turns.append(head + b",".join([one[len(head) : -len(_END)] for one in fragments[start:end]]) + _END)
        done = end
    turns += fragments[done:]
    return turns


def _is_in_unthought_round(turns: list[bytes]) -> bool:
    """Whether the last reply asked for tools without its own thinking before: no request that thinks can follow it."""
    last = next((turn for turn in reversed(turns) if turn.startswith(_ASSISTANT_HEAD)), b"")
    if b'{"type":"tool_use"' not in last:
        return False
    kinds = [block["type"] for block in json.loads(last)["content"]]
    return "tool_use" in kinds and kinds[0] not in _THINKING


def _assistant_blocks(parts: Iterable[Part], is_own: bool) -> list[bytes]:
    blocks: list[bytes] = []
    # How many blocks there are up to the last one that is no reasoning.
    complete = 0
    for part in parts:
        # A refusal is the provider's word about the turn and not the assistant's: it does not go back.
        if isinstance(part, TextPart):
            if not part.text.strip():
                continue
            blocks.append(encode({"type": "text", "text": part.text}))
        elif isinstance(part, ToolCallPart):
            head = encode({"type": "tool_use", "id": part.id, "name": portable_name(part.name)})
            blocks.append(head[:-1] + b',"input":' + object_text(part.arguments).strip().encode() + b"}")
        elif isinstance(part, (ReasoningPart, OpaquePart)) and part.raw is not None and is_own:
            if not is_sendable(part.raw):
                continue
            blocks.append(part.raw.encode())
            if isinstance(part, ReasoningPart):
                continue
        else:
            continue
        complete = len(blocks)
    # A message that ends in thinking was cut off, and is refused as it is.
    return blocks[:complete]


def _content_blocks(parts: Iterable[Part], info: ModelInfo) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    for part in parts:
        if isinstance(part, TextPart):
            if part.text.strip():
                blocks.append({"type": "text", "text": part.text})
        elif isinstance(part, (ImagePart, FilePart, AudioPart)):
            blocks.append(anthropic_block(part, info))
    return blocks


def _result_block(result: ToolResultPart, info: ModelInfo) -> bytes:
    block: dict[str, Any] = {"type": "tool_result", "tool_use_id": result.call_id}
    content = _content_blocks(result.content, info)
    if len(content) == 1 and content[0]["type"] == "text":
        block["content"] = content[0]["text"]
    elif content:
        block["content"] = content
    if result.is_error:
        block["is_error"] = True
    return encode(block)


def _tool_fragment(tool: ToolSpec) -> bytes:
    fragment: bytes | None = tool.memo.get("anthropic")
    if fragment is None:
        definition: dict[str, Any] = {"name": tool.name}
        if tool.description:
            definition["description"] = tool.description
        definition["input_schema"] = dict(tool.input_schema)
        fragment = tool.memo["anthropic"] = encode(definition)
    return fragment
