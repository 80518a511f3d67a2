"""Writes messages as the OpenTelemetry conventions for generative AI want them."""

from __future__ import annotations

from typing import Any

from power_loop import AudioPart, FilePart, ImagePart, Message, TextPart
from power_loop.messages import ReasoningPart, RefusalPart, ToolCallPart, ToolResultPart


def gen_ai_message(message: Message) -> dict[str, Any]:
    """Return a message with its role and its parts; of media only what they are."""
    return {"role": message.role.value, "parts": [_part(part) for part in message.parts]}


def _part(part: Any) -> dict[str, Any]:
    match part:
        case TextPart(text=text):
            return {"type": "text", "content": text}
        case ReasoningPart(text=text):
            return {"type": "reasoning", "content": text}
        case RefusalPart(text=text):
            return {"type": "refusal", "content": text}
        case ToolCallPart(id=call_id, name=name, arguments=arguments):
            return {"type": "tool_call", "id": call_id, "name": name, "arguments": arguments}
        case ToolResultPart(call_id=call_id, content=content):
            texts = [one.text if isinstance(one, TextPart) else f"[{_medium(one)}]" for one in content]
            return {"type": "tool_call_response", "id": call_id, "response": "\n".join(texts)}
        case _:
            return {"type": _medium(part)}


def _medium(part: Any) -> str:
    match part:
        case ImagePart():
            return "image"
        case AudioPart():
            return "audio"
        case FilePart():
            return "file"
        case _:
            return "other"
