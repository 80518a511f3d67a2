"""Puts a reply together from its pieces: the parts in their order, the tool calls with ids that any wire takes."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Any

from power_loop.contracts.llm import DeltaKind, Emit, LLMDelta, LLMResponse, StopReason, Usage
from power_loop.contracts.messages import (
    Message,
    OpaquePart,
    Origin,
    Part,
    ReasoningPart,
    RefusalPart,
    Role,
    TextPart,
    ToolCallPart,
    clean_text,
)
from power_loop.runtime.llm.failures import ProviderFault

# More parts than any reply has; beyond it the endpoint is broken or hostile.
_MAX_PARTS = 4_096
# What both providers take back, and every database: OpenAI refuses ids over 40 characters, Anthropic any other
# character.
_PORTABLE_ID = re.compile(r"[A-Za-z0-9_-]{9,40}")
# Ids that count calls (`call_0001`, `functions-search-1`) come again in the next reply, so they name nothing.
_COUNTING_ID = re.compile(r"(?i:(?:call|tool|func|fc)[a-z_-]*)?\d{1,8}")
_ID_BYTES = 12


class GrowingText:
    """Is a text, refusal or reasoning part while it grows."""

    __slots__ = ("block", "field", "half", "kind", "pieces")

    def __init__(self, kind: type[TextPart | RefusalPart | ReasoningPart], field: str | None = None) -> None:
        self.kind = kind
        self.field = field
        self.pieces: list[str] = []
        #: The first half of a character whose other half is still to come.
        self.half = ""
        #: The provider's own block, where the part has to go back as it came.
        self.block: dict[str, Any] | None = None

    def part(self) -> Part | None:
        """Return the part, None if it says nothing."""
        text = "".join(self.pieces)
        if self.block is not None:
            if self.block.get("type") == "thinking":
                self.block["thinking"] = text
            # ASCII, so that whatever stands in it survives every database byte for byte.
            return ReasoningPart(text, raw=json.dumps(self.block, separators=(",", ":")))
        if not text:
            return None
        return ReasoningPart(text, field=self.field) if self.kind is ReasoningPart else self.kind(text)


class GrowingCall:
    """Is a tool call while it grows. `given_id` is the id that the provider gave, `id` the one that we use."""

    __slots__ = ("given_id", "half", "id", "index", "name", "pieces")

    def __init__(self, index: int, name: str, given_id: str | None, own_id: str) -> None:
        self.index = index
        self.name = name
        self.given_id = given_id
        self.id = own_id
        self.half = ""
        self.pieces: list[str] = []

    def part(self) -> Part | None:
        """Return the part. Arguments that are missing altogether are those of a call without parameters."""
        return ToolCallPart(self.id, self.name, "".join(self.pieces) or "{}")


class GrowingOpaque:
    """Is a block that we do not interpret; `pieces` is the JSON text of its input where that is streamed."""

    __slots__ = ("block", "pieces")

    def __init__(self, block: dict[str, Any]) -> None:
        self.block = block
        self.pieces: list[str] = []

    def part(self) -> Part | None:
        """Return the part."""
        return OpaquePart(json.dumps(self.block, separators=(",", ":")))


Growing = GrowingText | GrowingCall | GrowingOpaque


class Assembly:
    """Is a reply while it streams. The readers of the wires add to it; `emit` hears each piece.

    `sent_body` is the request as it was sent: a call id that stands in it is taken.
    """

    __slots__ = ("_emit", "_ids", "_parts", "_sent_body", "call_count", "id", "model", "usage")

    def __init__(self, emit: Emit, sent_body: bytes = b"") -> None:
        self._emit = emit
        self._sent_body = sent_body
        self._parts: list[Growing] = []
        self._ids: set[str] = set()
        self.call_count = 0
        self.id: str | None = None
        self.model: str | None = None
        self.usage: Usage | None = None

    def open_text(self, kind: type[TextPart | RefusalPart | ReasoningPart], field: str | None = None) -> GrowingText:
        """Begin a part of text."""
        part = GrowingText(kind, field)
        self._add(part)
        return part

    def open_call(self, name: str, given_id: str | None) -> GrowingCall:
        """Begin a tool call, with an id of our own if the provider's cannot be used."""
        call = GrowingCall(self.call_count, name, given_id, self._usable_id(given_id))
        self.call_count += 1
        self._add(call)
        return call

    def open_opaque(self, block: Mapping[str, Any]) -> GrowingOpaque:
        """Begin a block that is kept as it comes."""
        part = GrowingOpaque(dict(block))
        self._add(part)
        return part

    def drop(self, part: Growing) -> None:
        """Take a part out again."""
        self._parts.remove(part)

    def say(self, part: GrowingText, piece: str) -> None:
        """Add a piece to a part of text."""
        part.pieces.append(piece)
        if part.half or not piece.isascii() or "\0" in piece:
            piece = _whole_characters(part, piece)
            if not piece:
                return
        kind = DeltaKind.REASONING if part.kind is ReasoningPart else DeltaKind.TEXT
        self._emit(LLMDelta(kind, piece))

    def argue(self, call: GrowingCall, piece: str, name: str | None = None) -> None:
        """Add a piece of arguments to a call; `name` is given with the first."""
        if piece:
            call.pieces.append(piece)
        if call.half or not piece.isascii() or "\0" in piece:
            piece = _whole_characters(call, piece)
            if not piece and name is None:
                return
        self._emit(LLMDelta(DeltaKind.TOOL_CALL, piece, call.index, name))

    def response(self, stop: StopReason, *, origin: Origin, request_id: str | None) -> LLMResponse:
        """Return the whole reply."""
        for growing in self._parts:
            if not isinstance(growing, GrowingOpaque) and growing.half:
                # Its other half never came: what was heard is what is kept.
                self._say_half(growing)
        parts = [part for part in (growing.part() for growing in self._parts) if part is not None]
        message = Message(Role.ASSISTANT, tuple(parts), origin)
        return LLMResponse(message, stop, self.usage, self.id, request_id, self.model)

    def has_refusal(self) -> bool:
        """Whether the model refused in words."""
        return any(type(part) is GrowingText and part.kind is RefusalPart and part.pieces for part in self._parts)

    def _say_half(self, part: GrowingText | GrowingCall) -> None:
        half, part.half = clean_text(part.half), ""
        if isinstance(part, GrowingCall):
            self._emit(LLMDelta(DeltaKind.TOOL_CALL, half, part.index))
        else:
            self._emit(LLMDelta(DeltaKind.REASONING if part.kind is ReasoningPart else DeltaKind.TEXT, half))

    def _add(self, part: Growing) -> None:
        if len(self._parts) >= _MAX_PARTS:
            raise ProviderFault.broken(f"the reply has more than {_MAX_PARTS} parts")
        self._parts.append(part)

    def _usable_id(self, given: str | None) -> str:
        if given is not None and given not in self._ids and self._is_portable(given):
            own = given
        else:
            own = "call_" + os.urandom(_ID_BYTES).hex()
        self._ids.add(own)
        return own

    def _is_portable(self, given: str) -> bool:
        if not _PORTABLE_ID.fullmatch(given) or _COUNTING_ID.fullmatch(given):
            return False
        return b'"%b"' % given.encode("ascii") not in self._sent_body


def _whole_characters(part: GrowingText | GrowingCall, piece: str) -> str:
    """Return a piece behind what the last one held back; a half of a character at its end is held back in turn."""
    piece, part.half = part.half + piece, ""
    if "\ud800" <= piece[-1:] <= "\udbff":
        piece, part.half = piece[:-1], piece[-1]
    return clean_text(piece)


def whole_number(value: Any) -> int | None:
    """Return a count as a provider reports it, None if it is none (missing, negative, no integer)."""
    return value if type(value) is int and value >= 0 else None
