"""Turns messages and other values into JSON text and back, without losing a character."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
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


#: Data of a part of so many characters stands in a row of its own, and the part refers to it by its digest.
MIN_BLOB_CHARS = 4_096
#: How a reference begins in a body. No text within JSON looks so, because its quotes are escaped.
BLOB_MEMBER = '"blob":'
_NO_BLOBS: Mapping[str, str] = {}


class AnyBlob(Mapping[str, str]):
    """Stands for all data that there may be, for those who do not look at it."""

    def __getitem__(self, digest: str) -> str:
        return ""

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


# ---- JSON values ----


def encode_json(value: Mapping[str, Any], what: str) -> str:
    """Return a mapping as JSON text that every database takes. Raises `input.invalid` if it is no JSON."""
    try:
        return encode_value(value if isinstance(value, dict) else dict(value), what)
    except (TypeError, ValueError) as error:
        raise InputError(f"{what} cannot be stored as JSON: {error}") from error


def encode_value(value: Any, what: str) -> str:
    """Return any JSON value as text, as `encode_json` does."""
    try:
        text = _encode(value)
        if not text.isascii() and not _is_portable(text):
            text = _encode_ascii(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{what} cannot be stored as JSON: {error}") from error
    return text


def decode_json(text: str, where: str) -> dict[str, Any]:
    """Return the mapping behind JSON text. Raises `store.corrupt` naming `where` it stands."""
    value = decode_value(text, where)
    if not isinstance(value, dict):
        raise StoreCorruptError(f"{where} is damaged: it holds a {type(value).__name__} where an object belongs")
    return value


def decode_value(text: str, where: str) -> Any:
    """Return the value behind JSON text, as `decode_json` does."""
    try:
        return _decode(text)
    except _DAMAGE as error:
        raise StoreCorruptError(f"{where} is damaged: {error}") from error


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


def encode_message(message: Message, blobs: dict[str, str] | None = None) -> str:
    """Return what a message holds beside its role, as JSON text. Big data goes into `blobs` by its digest, if given."""
    parts = ",".join([_WRITERS[type(part)](part, blobs) for part in message.parts])
    origin = message.origin
    if origin is None:
        return f'{{"parts":[{parts}]}}'
    return f'{{"parts":[{parts}],"origin":{{"wire":{_quote(origin.wire)},"model":{_quote(origin.model)}}}}}'


def decode_message(role: str, body: str, where: str, blobs: Mapping[str, str] = _NO_BLOBS) -> Message:
    """Return the message behind a row; `blobs` has what it refers to.

    Raises `store.corrupt` naming `where` it stands.
    """
    try:
        value = _decode(body)
        origin = value.get("origin")
        return Message(
            Role(role),
            tuple([_READERS[part["type"]](part, blobs) for part in value["parts"]]),
            None if origin is None else Origin(_text(origin, "wire"), _text(origin, "model")),
        )
    except _DAMAGE as error:
        raise StoreCorruptError(f"{where} is damaged: {type(error).__name__}: {error}") from error


def encode_content(content: tuple[ContentPart, ...], blobs: dict[str, str] | None = None) -> str:
    """Return content parts as JSON text. Big data goes into `blobs` by its digest, if given."""
    return f"[{','.join([_WRITERS[type(part)](part, blobs) for part in content])}]"


def decode_content(body: str, where: str, blobs: Mapping[str, str] = _NO_BLOBS) -> tuple[ContentPart, ...]:
    """Return the content parts behind a row; `blobs` has what they refer to.

    Raises `store.corrupt` naming `where` it stands.
    """
    try:
        return tuple([_CONTENT_READERS[part["type"]](part, blobs) for part in _decode(body)])
    except _DAMAGE as error:
        raise StoreCorruptError(f"{where} is damaged: {type(error).__name__}: {error}") from error


# ---- parts: one writer and one reader each, for speed and so that an unknown one is refused ----


def _member(name: str, value: str | None) -> str:
    return "" if value is None else f',"{name}":{_quote(value)}'


def _data_member(data: str | None, blobs: dict[str, str] | None) -> str:
    """Return data as it stands in a part, or the reference to it."""
    # What no database takes as it is, which no base64 is, stays where JSON escapes it.
    if data is None or blobs is None or len(data) < MIN_BLOB_CHARS or not data.isascii() or "\0" in data:
        return _member("data", data)
    digest = digest_of(data)
    blobs[digest] = data
    return f',{BLOB_MEMBER}"{digest}"'


def digest_of(data: str) -> str:
    """Return the name by which a part refers to its data."""
    return hashlib.sha256(data.encode("ascii")).hexdigest()


def _write_text(part: TextPart, blobs: dict[str, str] | None) -> str:
    return f'{{"type":"text","text":{_quote(part.text)}}}'


def _write_image(part: ImagePart, blobs: dict[str, str] | None) -> str:
    more = _data_member(part.data, blobs) + _member("url", part.url) + _member("detail", part.detail)
    return f'{{"type":"image","media_type":{_quote(part.media_type)}{more}}}'


def _write_file(part: FilePart, blobs: dict[str, str] | None) -> str:
    more = _data_member(part.data, blobs) + _member("url", part.url) + _member("file_id", part.file_id)
    return f'{{"type":"file","media_type":{_quote(part.media_type)}{more}{_member("filename", part.filename)}}}'


def _write_audio(part: AudioPart, blobs: dict[str, str] | None) -> str:
    return f'{{"type":"audio","format":{_quote(part.format)}{_data_member(part.data, blobs)}}}'


def _write_reasoning(part: ReasoningPart, blobs: dict[str, str] | None) -> str:
    more = _member("raw", part.raw) + _member("field", part.field)
    return f'{{"type":"reasoning","text":{_quote(part.text)}{more}}}'


def _write_tool_call(part: ToolCallPart, blobs: dict[str, str] | None) -> str:
    return (
        f'{{"type":"tool_call","id":{_quote(part.id)},"name":{_quote(part.name)},"arguments":{_quote(part.arguments)}}}'
    )


def _write_tool_result(part: ToolResultPart, blobs: dict[str, str] | None) -> str:
    is_error = ',"is_error":true' if part.is_error else ""
    content = encode_content(part.content, blobs)
    return f'{{"type":"tool_result","call_id":{_quote(part.call_id)},"content":{content}{is_error}}}'


def _write_refusal(part: RefusalPart, blobs: dict[str, str] | None) -> str:
    return f'{{"type":"refusal","text":{_quote(part.text)}}}'


def _write_opaque(part: OpaquePart, blobs: dict[str, str] | None) -> str:
    return f'{{"type":"opaque","raw":{_quote(part.raw)}}}'


def _text(part: dict[str, Any], name: str) -> str:
    value = part[name]
    if not isinstance(value, str):
        raise TypeError(f"{name!r} is a {type(value).__name__}")
    return value


def _maybe(part: dict[str, Any], name: str) -> str | None:
    return _text(part, name) if name in part else None


def _data(part: dict[str, Any], blobs: Mapping[str, str]) -> str | None:
    return blobs[_text(part, "blob")] if "blob" in part else _maybe(part, "data")


def _read_text(part: dict[str, Any], blobs: Mapping[str, str]) -> TextPart:
    return TextPart(part["text"])


def _read_image(part: dict[str, Any], blobs: Mapping[str, str]) -> ImagePart:
    return ImagePart(_text(part, "media_type"), _data(part, blobs), _maybe(part, "url"), _maybe(part, "detail"))


def _read_file(part: dict[str, Any], blobs: Mapping[str, str]) -> FilePart:
    return FilePart(
        _text(part, "media_type"),
        _data(part, blobs),
        _maybe(part, "url"),
        _maybe(part, "file_id"),
        _maybe(part, "filename"),
    )


def _read_audio(part: dict[str, Any], blobs: Mapping[str, str]) -> AudioPart:
    data = _data(part, blobs)
    return AudioPart(_text(part, "data") if data is None else data, _text(part, "format"))


def _read_reasoning(part: dict[str, Any], blobs: Mapping[str, str]) -> ReasoningPart:
    return ReasoningPart(part["text"], _maybe(part, "raw"), _maybe(part, "field"))


def _read_tool_call(part: dict[str, Any], blobs: Mapping[str, str]) -> ToolCallPart:
    return ToolCallPart(_text(part, "id"), part["name"], part["arguments"])


def _read_tool_result(part: dict[str, Any], blobs: Mapping[str, str]) -> ToolResultPart:
    content = tuple([_CONTENT_READERS[item["type"]](item, blobs) for item in part["content"]])
    return ToolResultPart(_text(part, "call_id"), content, part.get("is_error", False) is True)


def _read_refusal(part: dict[str, Any], blobs: Mapping[str, str]) -> RefusalPart:
    return RefusalPart(part["text"])


def _read_opaque(part: dict[str, Any], blobs: Mapping[str, str]) -> OpaquePart:
    return OpaquePart(_text(part, "raw"))


_WRITERS: dict[type[Part], Callable[[Any, dict[str, str] | None], str]] = {
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
_CONTENT_READERS: dict[str, Callable[[dict[str, Any], Mapping[str, str]], ContentPart]] = {
    "text": _read_text,
    "image": _read_image,
    "file": _read_file,
    "audio": _read_audio,
}
_READERS: dict[str, Callable[[dict[str, Any], Mapping[str, str]], Part]] = {
    **_CONTENT_READERS,
    "reasoning": _read_reasoning,
    "tool_call": _read_tool_call,
    "tool_result": _read_tool_result,
    "refusal": _read_refusal,
    "opaque": _read_opaque,
}
