"""Estimates how many tokens a model will count, without asking its tokenizer."""

from __future__ import annotations

import json

from power_loop.contracts.llm import LLMRequest, ToolSpec
from power_loop.contracts.messages import (
    FilePart,
    ImagePart,
    Message,
    OpaquePart,
    Part,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)

# Tokens of a character in 14ths, by the length of its UTF-8: 3.5 ASCII characters a token (English prose has 4 and
# more, code and JSON 3), 2 of the alphabets with 2 bytes (Greek, Cyrillic, Arabic, accents), 1 of CJK and its
# neighbours, and 3 tokens for an emoji. A little too many is right: an estimate that is too small ends in a refusal.
_ASCII, _TWO_BYTES, _THREE_BYTES, _FOUR_BYTES = 4, 7, 14, 42
_UNIT = 14
# What the frame of a message, of a call or result in it, and of a tool costs beside its text.
_MESSAGE_TOKENS = 4
_CALL_TOKENS = 8
_TOOL_TOKENS = 12
# A large image costs 1,600 tokens at Anthropic and 1,445 at most at OpenAI in high detail; a page of PDF about the same
# and more; a minute of sound about 1,500.
_IMAGE_TOKENS = 1_600
_FILE_TOKENS = 3_000
_AUDIO_TOKENS = 1_500
_MEMO = "tokens"


def estimate_text(text: str) -> int:
    """Return about how many tokens `text` takes."""
    count = len(text)
    if text.isascii():
        return (count * _ASCII + _UNIT - 1) // _UNIT
    # How many characters have 1, 2, 3 and 4 bytes follows from four lengths, all of them counted in C.
    total_bytes = len(text.encode("utf-8", "surrogatepass"))
    one = len(text.encode("ascii", "ignore"))
    four = len(text.encode("utf-16-le", "surrogatepass")) // 2 - count
    two_and_three = count - one - four
    three = total_bytes - one - 4 * four - 2 * two_and_three
    two = two_and_three - three
    return (one * _ASCII + two * _TWO_BYTES + three * _THREE_BYTES + four * _FOUR_BYTES + _UNIT - 1) // _UNIT


def estimate_message(message: Message) -> int:
    """Return about how many tokens `message` takes; counted once a message."""
    known = message.memo.get(_MEMO)
    if known is None:
        known = _MESSAGE_TOKENS + sum(map(_estimate_part, message.parts))
        message.memo[_MEMO] = known
    return int(known)


def estimate_tool(tool: ToolSpec) -> int:
    """Return about how many tokens a tool's description takes; counted once a tool."""
    known = tool.memo.get(_MEMO)
    if known is None:
        schema = json.dumps(tool.input_schema, ensure_ascii=False, separators=(",", ":"), default=str)
        known = _TOOL_TOKENS + estimate_text(tool.name) + estimate_text(tool.description) + estimate_text(schema)
        tool.memo[_MEMO] = known
    return int(known)


def estimate_request(request: LLMRequest) -> int:
    """Return about how many tokens the whole prompt of `request` takes."""
    extra = [request.system or "", request.tail or ""]
    if request.output_schema is not None:
        extra.append(json.dumps(request.output_schema.schema, ensure_ascii=False, default=str))
    return (
        sum(map(estimate_message, request.messages))
        + sum(map(estimate_tool, request.tools))
        + sum(map(estimate_text, extra))
    )


def _estimate_part(part: Part) -> int:
    if isinstance(part, (TextPart, RefusalPart)):
        return estimate_text(part.text)
    if isinstance(part, ToolResultPart):
        return _CALL_TOKENS + sum(map(_estimate_part, part.content))
    if isinstance(part, ToolCallPart):
        return _CALL_TOKENS + estimate_text(part.name) + estimate_text(part.arguments)
    if isinstance(part, ReasoningPart):
        # Its block holds the text and a signature; sealed reasoning has no text.
        return estimate_text(part.text if part.raw is None else part.raw)
    if isinstance(part, OpaquePart):
        return estimate_text(part.raw)
    if isinstance(part, ImagePart):
        return _IMAGE_TOKENS
    return _FILE_TOKENS if isinstance(part, FilePart) else _AUDIO_TOKENS
