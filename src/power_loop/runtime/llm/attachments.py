"""Writes images, files and sounds as each wire wants them, and a sentence where a wire cannot carry one."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from power_loop.contracts.messages import AudioPart, FilePart, ImagePart


def openai_part(part: ImagePart | FilePart | AudioPart) -> dict[str, Any]:
    """Return a content part of a Chat Completions user message."""
    if isinstance(part, ImagePart):
        image: dict[str, Any] = {"url": part.url or f"data:{part.media_type};base64,{part.data or ''}"}
        if part.detail is not None:
            image["detail"] = part.detail
        return {"type": "image_url", "image_url": image}
    if isinstance(part, AudioPart):
        return {"type": "input_audio", "input_audio": {"data": part.data, "format": part.format}}
    if part.file_id is not None:
        return {"type": "file", "file": {"file_id": part.file_id}}
    if part.data is not None:
        name = part.filename or "file." + part.media_type.rpartition("/")[2]
        return {"type": "file", "file": {"filename": name, "file_data": f"data:{part.media_type};base64,{part.data}"}}
    if part.url is not None and part.url[:5].lower() == "data:":
        return {"type": "file", "file": {"filename": part.filename or "file", "file_data": part.url}}
    return {"type": "text", "text": f"[file at {part.url}, which was not read]"}


def anthropic_block(part: ImagePart | FilePart | AudioPart) -> dict[str, Any]:
    """Return a content block of an Anthropic user message or tool result."""
    if isinstance(part, AudioPart):
        return {"type": "text", "text": f"[{part.format} sound, which this model cannot hear]"}
    source = _anthropic_source(part)
    if isinstance(part, ImagePart):
        return {"type": "image", "source": source}
    if source["type"] == "base64" and source["media_type"] != "application/pdf":
        name = f"file {part.filename}" if part.filename else "file"
        return {"type": "text", "text": f"[{name} of type {source['media_type']}, which this model cannot read]"}
    document: dict[str, Any] = {"type": "document", "source": source}
    if part.filename is not None:
        document["title"] = part.filename
    return document


def _anthropic_source(part: ImagePart | FilePart) -> dict[str, Any]:
    if isinstance(part, FilePart) and part.file_id is not None:
        return {"type": "file", "file_id": part.file_id}
    media_type, data = part.media_type, part.data
    if data is None and part.url is not None and part.url[:5].lower() == "data:":
        head, _, data = part.url.partition(",")
        media_type = head[5:].partition(";")[0] or media_type
    if data is None:
        return {"type": "url", "url": part.url}
    if isinstance(part, FilePart) and media_type.startswith("text/"):
        # Documents of text are sent as text; the API takes base64 of PDFs only.
        return {"type": "text", "media_type": "text/plain", "data": _text_of(data)}
    return {"type": "base64", "media_type": media_type, "data": data}


def _text_of(data: str) -> str:
    try:
        return base64.b64decode(data).decode("utf-8", "replace")
    except binascii.Error:
        return data
