"""Reads what a Messages endpoint answers: blocks by their index, thinking kept as it came."""

from __future__ import annotations

import json
from typing import Any

from power_loop.contracts.llm import LLMResponse, StopReason, Usage
from power_loop.contracts.messages import Origin, ReasoningPart, RefusalPart, TextPart
from power_loop.runtime.llm.failures import ProviderFault
from power_loop.runtime.llm.stream import Assembly, Growing, GrowingCall, GrowingOpaque, GrowingText, whole_number
from power_loop.runtime.llm.template import TextTemplate

_STOPS = {
    "end_turn": StopReason.END,
    "tool_use": StopReason.TOOL_CALLS,
    "max_tokens": StopReason.LENGTH,
    "stop_sequence": StopReason.STOP_SEQUENCE,
    "refusal": StopReason.REFUSAL,
    "pause_turn": StopReason.PAUSE,
    "model_context_window_exceeded": StopReason.CONTEXT_FULL,
}
# A reply that says two of these is the more careful one of them: its calls must not run.
_CAREFUL = (StopReason.LENGTH, StopReason.CONTEXT_FULL, StopReason.REFUSAL)


class AnthropicReader:
    """Reads one reply into an assembly, event by event or whole."""

    def __init__(self, assembly: Assembly) -> None:
        self._assembly = assembly
        self._blocks: dict[int, Growing] = {}
        self._counts: dict[str, Any] = {}
        self._stop: StopReason | None = None
        self._explanation = ""
        self._template = TextTemplate("text")
        # The block that the learned form of a text delta belongs to.
        self._text: GrowingText | None = None
        #: Whether the endpoint said that nothing more comes.
        self.is_done = False

    @property
    def is_finished(self) -> bool:
        """Whether the reply is whole, even if the endpoint has not said so twice."""
        return self._stop is not None

    def read(self, name: str, data: str) -> None:
        """Take one event of the stream."""
        text = self._template.read(data)
        if text is not None:
            if text and self._text is not None:
                self._assembly.say(self._text, text)
            return
        try:
            event = json.loads(data)
        except (ValueError, RecursionError) as exc:
            raise ProviderFault.broken(f"an event is no JSON: {data[:200]!r}") from exc
        if not isinstance(event, dict):
            raise ProviderFault.broken(f"an event is no object: {data[:200]!r}")
        kind = event.get("type")
        if kind == "error" or name == "error":
            raise ProviderFault.reported(event)
        if kind == "content_block_delta":
            self._read_delta(event, data)
        elif kind == "content_block_start":
            block, index = event.get("content_block"), event.get("index")
            if isinstance(block, dict) and type(index) is int:
                self._open(index, block)
        elif kind == "message_start":
            message = event.get("message")
            if isinstance(message, dict):
                self._read_head(message)
        elif kind == "message_delta":
            delta = event.get("delta")
            self._count(event.get("usage"))
            if isinstance(delta, dict):
                self._read_stop(delta)
        elif kind == "message_stop":
            self.is_done = True

    def read_whole(self, body: dict[str, Any]) -> None:
        """Take a whole reply, as some endpoints send one where a stream was asked for."""
        if body.get("type") == "error" or body.get("error"):
            raise ProviderFault.reported(body)
        content = body.get("content")
        if not isinstance(content, list):
            raise ProviderFault.broken("the reply holds no content")
        self._read_head(body)
        for index, block in enumerate(content):
            if isinstance(block, dict):
                self._open(index, block)
        self._read_stop({"stop_reason": "end_turn", **{k: v for k, v in body.items() if v is not None}})
        self.is_done = True

    def response(self, *, origin: Origin, request_id: str | None) -> LLMResponse:
        """Return the reply, which is whole."""
        if self._stop is None:
            raise ProviderFault.cut("the stream ended before the reply did")
        for block in self._blocks.values():
            if isinstance(block, GrowingOpaque) and block.pieces:
                block.block["input"] = _json_or_text("".join(block.pieces))
        stop = self._stop
        if self._assembly.call_count and stop is StopReason.END:
            stop = StopReason.TOOL_CALLS
        elif not self._assembly.call_count and stop is StopReason.TOOL_CALLS:
            stop = StopReason.END
        if stop is StopReason.REFUSAL and self._explanation:
            self._assembly.open_text(RefusalPart).pieces.append(self._explanation)
        self._assembly.usage = _usage(self._counts)
        return self._assembly.response(stop, origin=origin, request_id=request_id)

    # --- the parts of an event ---

    def _read_head(self, message: dict[str, Any]) -> None:
        assembly = self._assembly
        if isinstance(message.get("id"), str):
            assembly.id = message["id"] or None
        if isinstance(message.get("model"), str):
            assembly.model = message["model"] or None
        self._count(message.get("usage"))

    def _count(self, usage: Any) -> None:
        """Take counts over: those of later events are cumulative and replace the earlier ones, where they are given."""
        if isinstance(usage, dict):
            self._counts.update((name, value) for name, value in usage.items() if value is not None)

    def _open(self, index: int, block: dict[str, Any]) -> None:
        assembly = self._assembly
        kind = block.get("type")
        if kind == "text":
            part = assembly.open_text(TextPart)
            if isinstance(block.get("text"), str) and block["text"]:
                assembly.say(part, block["text"])
            self._blocks[index] = part
        elif kind in ("thinking", "redacted_thinking"):
            part = assembly.open_text(ReasoningPart)
            part.block = dict(block)
            if isinstance(block.get("thinking"), str) and block["thinking"]:
                assembly.say(part, block["thinking"])
            self._blocks[index] = part
        elif kind == "tool_use":
            name = block["name"] if isinstance(block.get("name"), str) else ""
            call = assembly.open_call(name, block["id"] if isinstance(block.get("id"), str) else None)
            given = block.get("input")
            # A stream opens a call with an empty input and sends the real one in pieces.
            assembly.argue(call, json.dumps(given, ensure_ascii=False) if given else "", name)
            self._blocks[index] = call
        else:
            self._blocks[index] = assembly.open_opaque(block)

    def _read_delta(self, event: dict[str, Any], data: str) -> None:
        delta = event.get("delta")
        index = event.get("index")
        if not isinstance(delta, dict) or type(index) is not int:
            return
        block = self._blocks.get(index)
        if block is None:
            if delta.get("type") not in ("text_delta", "thinking_delta", "input_json_delta"):
                return
            raise ProviderFault.broken(f"a delta belongs to block {index}, which was not opened")
        kind = delta.get("type")
        if kind == "text_delta" and isinstance(block, GrowingText):
            text = delta.get("text")
            if isinstance(text, str) and text:
                self._assembly.say(block, text)
                if block.block is None and block is not self._text:
                    self._text = block
                    self._template = TextTemplate("text")
                self._template.learn(data, event, _put_text)
        elif kind == "input_json_delta" and isinstance(block, GrowingCall):
            piece = delta.get("partial_json")
            if isinstance(piece, str) and piece:
                self._assembly.argue(block, piece)
        elif kind == "input_json_delta" and isinstance(block, GrowingOpaque):
            if isinstance(delta.get("partial_json"), str):
                block.pieces.append(delta["partial_json"])
        elif kind == "thinking_delta" and isinstance(block, GrowingText) and block.block is not None:
            thought = delta.get("thinking")
            if isinstance(thought, str) and thought:
                self._assembly.say(block, thought)
        elif kind == "signature_delta" and isinstance(block, GrowingText) and block.block is not None:
            signature = delta.get("signature")
            if isinstance(signature, str):
                block.block["signature"] = str(block.block.get("signature") or "") + signature

    def _read_stop(self, delta: dict[str, Any]) -> None:
        word = delta.get("stop_reason")
        if not isinstance(word, str):
            return
        stop = _STOPS.get(word, StopReason.END)
        if self._stop is None or stop in _CAREFUL:
            self._stop = stop
        details = delta.get("stop_details")
        if isinstance(details, dict) and isinstance(details.get("explanation"), str):
            self._explanation = details["explanation"]


def _put_text(event: dict[str, Any], text: str) -> None:
    event["delta"]["text"] = text


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return {"invalid_arguments": text}


def _usage(counts: dict[str, Any]) -> Usage | None:
    """Return the counts in our form: theirs leave out of the input what was read from the cache or written to it."""
    plain, made = whole_number(counts.get("input_tokens")), whole_number(counts.get("output_tokens"))
    if plain is None or made is None:
        return None
    read = whole_number(counts.get("cache_read_input_tokens")) or 0
    written = whole_number(counts.get("cache_creation_input_tokens")) or 0
    details = counts.get("output_tokens_details")
    thought = whole_number(details.get("thinking_tokens")) if isinstance(details, dict) else None
    return Usage(
        input_tokens=plain + read + written,
        output_tokens=made,
        cached_input_tokens=read,
        cache_write_tokens=written,
        reasoning_tokens=min(thought or 0, made),
    )
