"""Turns the content of MCP into parts of messages, and parts of messages into content of MCP."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from power_loop import AudioPart, ContentPart, FilePart, ImagePart, TextPart, ToolResult
from power_loop.contrib.mcp.source import MCPResult

_IMAGES = ("image/png", "image/jpeg", "image/gif", "image/webp")
_AUDIO = {"audio/wav": "wav", "audio/x-wav": "wav", "audio/wave": "wav", "audio/mpeg": "mp3", "audio/mp3": "mp3"}
_PDF = "application/pdf"


def tool_result(result: MCPResult) -> ToolResult:
    """Return what a model is shown of a result: text, and media that models take; of other media what they were."""
    parts = [_part(block) for block in result.content]
    if not parts and result.structured is not None:
        parts = [TextPart(json.dumps(result.structured, ensure_ascii=False))]
    content = tuple(parts) or (TextPart("The tool gave nothing back."),)
    return ToolResult(content, is_error=result.is_error)


def _part(block: Mapping[str, Any]) -> ContentPart:
    kind = block.get("type")
    if kind == "text":
        return TextPart(str(block.get("text", "")))
    if kind in ("image", "audio"):
        return _medium(block.get("mimeType"), block.get("data"), what=str(kind))
    if kind == "resource_link":
        # A link is told and never followed: it may lead anywhere.
        return TextPart(f"[link to {block.get('uri')!s:.2000}: {block.get('name')!s:.200}]")
    resource = block.get("resource")
    if kind == "resource" and isinstance(resource, dict):
        text, uri = resource.get("text"), resource.get("uri")
        if isinstance(text, str):
            return TextPart(f"[resource {uri!s:.2000}]\n{text}")
        return _medium(resource.get("mimeType"), resource.get("blob"), what=f"resource {uri!s:.2000}")
    return TextPart(f"[content of the unknown type {kind!r:.100}]")


def _medium(media_type: Any, data: Any, *, what: str) -> ContentPart:
    if isinstance(data, str) and isinstance(media_type, str):
        kind = media_type.partition(";")[0].strip().lower()
        if kind in _IMAGES:
            return ImagePart(media_type=kind, data=data)
        if kind in _AUDIO:
            return AudioPart(data=data, format=_AUDIO[kind])
        if kind == _PDF:
            return FilePart(media_type=_PDF, data=data)
    size = len(data) * 3 // 4 if isinstance(data, str) else 0
    return TextPart(f"[{what} of the type {media_type!r:.100}, {size} bytes, which cannot be shown]")
