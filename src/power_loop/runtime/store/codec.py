"""Turns messages and other values into JSON text and back, without losing a character."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from enum import Enum
from json.encoder import encode_basestring, encode_basestring_ascii
from typing import Any, TypeVar

from power_loop.contracts.errors import InputError, StoreCorruptError
from power_loop.contracts.messages import (
    AudioPart,
    ContentPart,
    FilePart,
    ImagePart,
    Message,
    OpaquePart,
    Origin,
    Part,
    ReasoningPart,
    RefusalPart,
    Role,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)

E = TypeVar("E", bound=Enum)

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
_encode_ascii = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode
_encode_sorted = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), sort_keys=True).encode
_decode = json.JSONDecoder().decode

# What reading a damaged value can raise.
_DAMAGE = (ValueError, KeyError, TypeError, AttributeError, RecursionError, InputError)


# ---- JSON values ----


def encode_json(value: Mapping[str, Any], what: str) -> str:
    """Return a mapping as JSON text that every database takes. Raises `input.invalid` if it is no JSON."""
    try:
        text = _encode(value if isinstance(value, dict) else dict(value))
        if not text.isascii() and not _is_portable(text):
            text = _encode_ascii(value if isinstance(value, dict) else dict(value))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{what} cannot be stored as JSON: {error}") from error
    return text


def decode_json(text: str, where: str) -> dict[str, Any]:
    """Return the mapping behind JSON text. Raises `store.corrupt` naming `where` it stands."""
    try:
        value = _decode(text)
    except _DAMAGE as error:
        raise StoreCorruptError(f"{where} is damaged: {error}") from error
    if not isinstance(value, dict):
        raise StoreCorruptError(f"{where} is damaged: it holds a {type(value).__name__} where an object belongs")
    return value


def decode_choice(kind: type[E], value: object, where: str) -> E:
    """Return the member of an enum behind a stored word. Raises `store.corrupt` naming `where` it stands."""
    try:
        return kind(value)
    except ValueError as error:
        raise StoreCorruptError(f"{where} is damaged: {value!r} is none of {[one.value for one in kind]}") from error


def is_same_json(left: object, right: object) -> bool:
    """Tell whether two values are the same JSON: 1 is not true, and the order of keys means nothing."""
    return _encode_sorted(left) == _encode_sorted(right)


def member_text(key: str, value: object) -> str | None:
    """Return text that stands in the JSON of every mapping with this member; None if it can be written in many ways."""
    if not isinstance(value, str) or not _is_plain(key) or not _is_plain(value):
        return None
    return f"{encode_basestring(key)}:{encode_basestring(value)}"


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isprintable()


def _is_portable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _quote(text: str) -> str:
    """Return a JSON string; a lone surrogate is escaped, because no database takes it as it is."""
    if text.isascii() or _is_portable(text):
        return encode_basestring(text)
    return encode_basestring_ascii(text)


# ---- messages ----


def encode_message(message: Message) -> str:
    """Return what a message holds beside its role, as JSON text."""
    parts = ",".join([_WRITERS[type(part)](part) for part in message.parts])
    origin = message.origin
    if origin is None:
        return f'{{"parts":[{parts}]}}'
    return f'{{"parts":[{parts}],"origin":{{"wire":{_quote(origin.wire)},"model":{_quote(origin.model)}}}}}'


def decode_message(role: str, body: str, where: str) -> Message:
    """Return the message behind a row. Raises `store.corrupt` naming `where` it stands."""
    try:
        value = _decode(body)
        origin = value.get("origin")
        return Message(
            Role(role),
            tuple([_READERS[part["type"]](part) for part in value["parts"]]),
            None if origin is None else Origin(_text(origin, "wire"), _text(origin, "model")),
        )
    except _DAMAGE as error:
        raise StoreCorruptError(f"{where} is damaged: {type(error).__name__}: {error}") from error


def encode_content(content: tuple[ContentPart, ...]) -> str:
    """Return content parts as JSON text."""
    return f"[{','.join([_WRITERS[type(part)](part) for part in content])}]"


def decode_content(body: str, where: str) -> tuple[ContentPart, ...]:
    """Return the content parts behind a row. Raises `store.corrupt` naming `where` it stands."""
    try:
        return tuple([_CONTENT_READERS[part["type"]](part) for part in _decode(body)])
    except _DAMAGE as error:
        raise StoreCorruptError(f"{where} is damaged: {type(error).__name__}: {error}") from error


# ---- parts: one writer and one reader each, for speed and so that an unknown one is refused ----


def _member(name: str, value: str | None) -> str:
    return "" if value is None else f',"{name}":{_quote(value)}'


def _write_text(part: TextPart) -> str:
    return f'{{"type":"text","text":{_quote(part.text)}}}'


def _write_image(part: ImagePart) -> str:
    more = _member("data", part.data) + _member("url", part.url) + _member("detail", part.detail)
    return f'{{"type":"image","media_type":{_quote(part.media_type)}{more}}}'


def _write_file(part: FilePart) -> str:
    more = _member("data", part.data) + _member("url", part.url) + _member("file_id", part.file_id)
    return f'{{"type":"file","media_type":{_quote(part.media_type)}{more}{_member("filename", part.filename)}}}'


def _write_audio(part: AudioPart) -> str:
    return f'{{"type":"audio","format":{_quote(part.format)},"data":{_quote(part.data)}}}'


def _write_reasoning(part: ReasoningPart) -> str:
    more = _member("raw", part.raw) + _member("field", part.field)
    return f'{{"type":"reasoning","text":{_quote(part.text)}{more}}}'


def _write_tool_call(part: ToolCallPart) -> str:
    return (
        f'{{"type":"tool_call","id":{_quote(part.id)},"name":{_quote(part.name)},"arguments":{_quote(part.arguments)}}}'
    )


def _write_tool_result(part: ToolResultPart) -> str:
    is_error = ',"is_error":true' if part.is_error else ""
    return (
        f'{{"type":"tool_result","call_id":{_quote(part.call_id)},"content":{encode_content(part.content)}{is_error}}}'
    )


def _write_refusal(part: RefusalPart) -> str:
    return f'{{"type":"refusal","text":{_quote(part.text)}}}'


def _write_opaque(part: OpaquePart) -> str:
    return f'{{"type":"opaque","raw":{_quote(part.raw)}}}'


def _text(part: dict[str, Any], name: str) -> str:
    value = part[name]
    if not isinstance(value, str):
        raise TypeError(f"{name!r} is a {type(value).__name__}")
    return value


def _maybe(part: dict[str, Any], name: str) -> str | None:
    return _text(part, name) if name in part else None


def _read_text(part: dict[str, Any]) -> TextPart:
    return TextPart(part["text"])


def _read_image(part: dict[str, Any]) -> ImagePart:
    return ImagePart(_text(part, "media_type"), _maybe(part, "data"), _maybe(part, "url"), _maybe(part, "detail"))


def _read_file(part: dict[str, Any]) -> FilePart:
    return FilePart(
        _text(part, "media_type"),
        _maybe(part, "data"),
        _maybe(part, "url"),
        _maybe(part, "file_id"),
        _maybe(part, "filename"),
    )


def _read_audio(part: dict[str, Any]) -> AudioPart:
    return AudioPart(_text(part, "data"), _text(part, "format"))


def _read_reasoning(part: dict[str, Any]) -> ReasoningPart:
    return ReasoningPart(part["text"], _maybe(part, "raw"), _maybe(part, "field"))


def _read_tool_call(part: dict[str, Any]) -> ToolCallPart:
    return ToolCallPart(_text(part, "id"), part["name"], part["arguments"])


def _read_tool_result(part: dict[str, Any]) -> ToolResultPart:
    content = tuple([_CONTENT_READERS[item["type"]](item) for item in part["content"]])
    return ToolResultPart(_text(part, "call_id"), content, part.get("is_error", False) is True)


def _read_refusal(part: dict[str, Any]) -> RefusalPart:
    return RefusalPart(part["text"])


def _read_opaque(part: dict[str, Any]) -> OpaquePart:
    return OpaquePart(_text(part, "raw"))


_WRITERS: dict[type[Part], Callable[[Any], str]] = {
    TextPart: _write_text,
    ImagePart: _write_image,
    FilePart: _write_file,
    AudioPart: _write_audio,
    ReasoningPart: _write_reasoning,
    ToolCallPart: _write_tool_call,
    ToolResultPart: _write_tool_result,
    RefusalPart: _write_refusal,
    OpaquePart: _write_opaque,
}
_CONTENT_READERS: dict[str, Callable[[dict[str, Any]], ContentPart]] = {
    "text": _read_text,
    "image": _read_image,
    "file": _read_file,
    "audio": _read_audio,
}
_READERS: dict[str, Callable[[dict[str, Any]], Part]] = {
    **_CONTENT_READERS,
    "reasoning": _read_reasoning,
    "tool_call": _read_tool_call,
    "tool_result": _read_tool_result,
    "refusal": _read_refusal,
    "opaque": _read_opaque,
}
