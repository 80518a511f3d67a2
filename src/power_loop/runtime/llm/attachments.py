"""Writes images, files and sounds as each wire wants them, and a sentence where a wire or its model cannot take one."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from power_loop.contracts.llm import ModelInfo
from power_loop.contracts.messages import AudioPart, FilePart, ImagePart, inline_data, is_pdf

# Media types beside `text/*` whose bytes are text.
_TEXT_TYPES = frozenset(
    f"application/{name}"
    for name in (
        "json",
        "javascript",
        "ld+json",
        "sql",
        "toml",
        "x-ndjson",
        "x-sh",
        "x-yaml",
        "xhtml+xml",
        "xml",
        "yaml",
    )
)
# How the ids of files begin at each provider; the other one refuses them, and every later request with them.
_FOREIGN_IDS = {"openai": "file_", "anthropic": "file-"}


def media_key(info: ModelInfo) -> str:
    """Return what tells apart how the same message is encoded for models that take different media."""
    return "".join(map(str, map(int, (info.has_images, info.has_audio, info.has_pdf))))


def openai_part(part: ImagePart | FilePart | AudioPart, info: ModelInfo) -> dict[str, Any]:
    """Return a content part of a Chat Completions user message.

    That wire carries images, sounds, and of files PDFs alone: https://developers.openai.com/api/docs/guides/file-inputs.
    """
    sentence = _not_taken(part, info)
    if sentence is not None:
        return {"type": "text", "text": sentence}
    if isinstance(part, ImagePart):
        image: dict[str, Any] = {"url": part.url or f"data:{part.media_type};base64,{part.data or ''}"}
        if part.detail is not None:
            image["detail"] = part.detail
        return {"type": "image_url", "image_url": image}
    if isinstance(part, AudioPart):
        return {"type": "input_audio", "input_audio": {"data": part.data, "format": part.format}}
    if part.file_id is not None:
        return {"type": "file", "file": {"file_id": part.file_id}}
    inline = inline_data(part)
    if inline is None:
        return {"type": "text", "text": f"[{_named(part)} at {part.url}, which was not read]"}
    media_type, data = inline
    if _is_text(media_type):
        return {"type": "text", "text": f"[{_named(part)} of type {media_type}]\n{_text_of(data)}"}
    name = part.filename or "file." + media_type.rpartition("/")[2]
    return {"type": "file", "file": {"filename": name, "file_data": f"data:{media_type};base64,{data}"}}


def anthropic_block(part: ImagePart | FilePart | AudioPart, info: ModelInfo) -> dict[str, Any]:
    """Return a content block of an Anthropic user message or tool result."""
    sentence = _not_taken(part, info)
    if sentence is not None:
        return {"type": "text", "text": sentence}
    assert not isinstance(part, AudioPart)
    source = _anthropic_source(part)
    if isinstance(part, ImagePart):
        return {"type": "image", "source": source}
    document: dict[str, Any] = {"type": "document", "source": source}
    if part.filename is not None:
        document["title"] = part.filename
    return document


def _not_taken(part: ImagePart | FilePart | AudioPart, info: ModelInfo) -> str | None:
    """Return what is said of a part that the wire or the model does not take; None if it goes as it is."""
    if isinstance(part, ImagePart):
        return None if info.has_images else "[image, which this model cannot see]"
    if isinstance(part, AudioPart):
        return None if info.has_audio else f"[{part.format} sound, which this model cannot hear]"
    if part.file_id is not None:
        is_foreign = part.file_id.startswith(_FOREIGN_IDS.get(info.wire, "\0"))
        return f"[{_named(part)} that another provider keeps, which was not read]" if is_foreign else None
    inline = inline_data(part)
    if inline is None or _is_text(inline[0]) or (is_pdf(part) and info.has_pdf):
        return None
    return f"[{_named(part)} of type {inline[0]}, which this model cannot read]"


def _anthropic_source(part: ImagePart | FilePart) -> dict[str, Any]:
    if isinstance(part, FilePart) and part.file_id is not None:
        return {"type": "file", "file_id": part.file_id}
    inline = inline_data(part)
    if inline is None:
        return {"type": "url", "url": part.url}
    media_type, data = inline
    if isinstance(part, FilePart):
        if _is_text(media_type):
            # Documents of text are sent as text; the API takes base64 of PDFs only.
            return {"type": "text", "media_type": "text/plain", "data": _text_of(data)}
        media_type = "application/pdf"
    return {"type": "base64", "media_type": media_type, "data": data}


def _named(part: FilePart) -> str:
    return f"file {part.filename}" if part.filename else "file"


def _is_text(media_type: str) -> bool:
    lower = media_type.lower()
    return lower.startswith("text/") or lower in _TEXT_TYPES


def _text_of(data: str) -> str:
    try:
        return base64.b64decode(data).decode("utf-8-sig", "replace")
    except binascii.Error:
        return data
