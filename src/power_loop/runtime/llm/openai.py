"""Reads what a Chat Completions endpoint answers, in all the ways in which compatible servers differ."""

from __future__ import annotations

import json
from typing import Any

from power_loop.contracts.llm import LLMResponse, StopReason, Usage
from power_loop.contracts.messages import Origin, ReasoningPart, RefusalPart, TextPart
from power_loop.runtime.llm.failures import ProviderFault
from power_loop.runtime.llm.stream import Assembly, GrowingCall, GrowingText, whole_number
from power_loop.runtime.llm.template import TextTemplate

_REASONING_FIELDS = ("reasoning_content", "reasoning")
_STOPS = {
    "stop": StopReason.END,
    "length": StopReason.LENGTH,
    "max_tokens": StopReason.LENGTH,
    "model_length": StopReason.LENGTH,
    "tool_calls": StopReason.TOOL_CALLS,
    "function_call": StopReason.TOOL_CALLS,
    "content_filter": StopReason.CONTENT_FILTER,
    "stop_sequence": StopReason.STOP_SEQUENCE,
}
# Finish words that say that the endpoint failed.
_FAILED = {"error": "server_error", "insufficient_system_resource": "overloaded_error"}
# A reply that says two of these is the more careful one of them: its calls must not run.
_CAREFUL = (StopReason.LENGTH, StopReason.CONTENT_FILTER)


class OpenAIReader:
    """Reads one reply into an assembly, event by event or whole."""

    def __init__(self, assembly: Assembly) -> None:
        self._assembly = assembly
        self._text: GrowingText | None = None
        self._refusal: GrowingText | None = None
        self._reasoning: GrowingText | None = None
        self._calls: dict[int, GrowingCall] = {}
        self._calls_by_id: dict[str, GrowingCall] = {}
        self._last_call: GrowingCall | None = None
        self._stop: StopReason | None = None
        self._has_choice = False
        self._has_delta = False
        self._template = TextTemplate("content")
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
            # Its form was learned from a chunk that held text, so the part is open.
            if text and self._text is not None:
                self._assembly.say(self._text, text)
            return
        if data.startswith("[DONE]"):
            self.is_done = True
            return
        try:
            chunk = json.loads(data)
        except (ValueError, RecursionError) as exc:
            raise ProviderFault.broken(f"an event is no JSON: {data[:200]!r}") from exc
        if not isinstance(chunk, dict):
            raise ProviderFault.broken(f"an event is no object: {data[:200]!r}")
        if name == "error" or chunk.get("error"):
            raise ProviderFault.reported(chunk)
        self._read_head(chunk)
        choice = _first_choice(chunk)
        if choice is None:
            return
        self._has_choice = True
        delta = choice.get("delta")
        if delta:
            self._has_delta = True
        elif not self._has_delta:
            # Behind pieces, a message is the whole once more.
            delta = choice.get("message")
        if isinstance(delta, dict):
            self._read_delta(delta)
            if _is_plain_text(delta) and choice.get("finish_reason") is None and not chunk.get("usage"):
                self._template.learn(data, chunk, _put_text)
        self._read_finish(choice.get("finish_reason"))

    def read_whole(self, body: dict[str, Any]) -> None:
        """Take a whole reply, as some endpoints send one where a stream was asked for."""
        if body.get("error"):
            raise ProviderFault.reported(body)
        self._read_head(body)
        choice = _first_choice(body)
        if choice is None:
            raise ProviderFault.broken("the reply holds no choice")
        self._has_choice = True
        message = choice.get("message") or choice.get("delta")
        if isinstance(message, dict):
            self._read_delta(message)
        self._read_finish(choice.get("finish_reason") or "stop")
        self.is_done = True

    def response(self, *, origin: Origin, request_id: str | None) -> LLMResponse:
        """Return the reply, which is whole."""
        if not self._has_choice:
            raise ProviderFault.broken("the stream ended without any choice")
        if self._stop is None:
            raise ProviderFault.cut("the stream ended before the reply did")
        stop = self._stop
        if stop not in _CAREFUL:
            if self._assembly.call_count:
                # Some servers say `stop` beside their calls.
                stop = StopReason.TOOL_CALLS
            elif self._assembly.has_refusal():
                stop = StopReason.REFUSAL
            elif stop is StopReason.TOOL_CALLS:
                stop = StopReason.END
        return self._assembly.response(stop, origin=origin, request_id=request_id)

    # --- the parts of a chunk ---

    def _read_head(self, chunk: dict[str, Any]) -> None:
        assembly = self._assembly
        if assembly.id is None and isinstance(chunk.get("id"), str):
            assembly.id = chunk["id"] or None
        if assembly.model is None and isinstance(chunk.get("model"), str):
            assembly.model = chunk["model"] or None
        usage = chunk.get("usage")
        if isinstance(usage, dict):
            assembly.usage = _usage(usage) or assembly.usage

    def _read_delta(self, delta: dict[str, Any]) -> None:
        for field in _REASONING_FIELDS:
            thought = delta.get(field)
            if isinstance(thought, str) and thought:
                if self._reasoning is None or self._reasoning.field != field:
                    self._reasoning = self._assembly.open_text(ReasoningPart, field)
                self._assembly.say(self._reasoning, thought)
                # Servers that send both fields say the same in each.
                break
        content = delta.get("content")
        if isinstance(content, list):
            content = "".join(
                part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)
            )
        if isinstance(content, str) and content:
            if self._text is None:
                self._text = self._assembly.open_text(TextPart)
            self._assembly.say(self._text, content)
        refusal = delta.get("refusal")
        if isinstance(refusal, str) and refusal:
            if self._refusal is None:
                self._refusal = self._assembly.open_text(RefusalPart)
            self._assembly.say(self._refusal, refusal)
        calls = delta.get("tool_calls")
        if isinstance(calls, list):
            for call in calls:
                if isinstance(call, dict):
                    self._read_call(call)
        elif isinstance(delta.get("function_call"), dict):
            self._read_call({"index": 0, "function": delta["function_call"]})

    def _read_call(self, delta: dict[str, Any]) -> None:
        function = delta.get("function")
        if not isinstance(function, dict):
            function = {}
        name = function.get("name") if isinstance(function.get("name"), str) else None
        given_id = delta.get("id") if isinstance(delta.get("id"), str) and delta["id"] else None
        index = delta.get("index") if type(delta.get("index")) is int else None
        call = self._call_of(index, given_id, name)
        opening = None
        if call is None:
            if name is None and given_id is None:
                raise ProviderFault.broken("a piece of a tool call belongs to no call")
            call = self._assembly.open_call(name or "", given_id)
            opening = call.name
            self._last_call = call
            self._calls[call.index if index is None else index] = call
            if given_id is not None:
                self._calls_by_id[given_id] = call
        elif name and not call.name:
            call.name = opening = name
        arguments = function.get("arguments")
        if isinstance(arguments, dict):
            arguments = json.dumps(arguments, ensure_ascii=False)
        if opening is not None or (isinstance(arguments, str) and arguments):
            self._assembly.argue(call, arguments if isinstance(arguments, str) else "", opening)

    def _call_of(self, index: int | None, given_id: str | None, name: str | None) -> GrowingCall | None:
        """The call that a piece belongs to; None if it opens a new one."""
        if index is not None:
            call = self._calls.get(index)
            # Some servers count every call as number 0, and tell them apart by their ids.
            is_other = call is not None and name is not None and given_id is not None and call.given_id != given_id
            return None if is_other else call
        if given_id is not None:
            return self._calls_by_id.get(given_id)
        last = self._last_call
        if last is None or name is None:
            return last
        # Neither number nor id: a name opens a call, unless it only repeats the name of one that is not yet whole.
        return last if name == last.name and not _is_whole(last) else None

    def _read_finish(self, word: Any) -> None:
        if not isinstance(word, str) or not word:
            return
        if word in _FAILED:
            raise ProviderFault.reported({"error": {"type": _FAILED[word], "message": f"finish_reason is {word!r}"}})
        stop = _STOPS.get(word, StopReason.END)
        if self._stop is None or stop in _CAREFUL:
            self._stop = stop


def _first_choice(chunk: dict[str, Any]) -> dict[str, Any] | None:
    choices = chunk.get("choices")
    if isinstance(choices, list):
        for choice in choices:
            if isinstance(choice, dict) and choice.get("index", 0) in (0, None):
                return choice
    return None


def _is_plain_text(delta: dict[str, Any]) -> bool:
    return bool(delta.get("content")) and not any(
        value for name, value in delta.items() if name not in ("content", "role")
    )


def _put_text(chunk: dict[str, Any], text: str) -> None:
    choice = _first_choice(chunk)
    delta = (choice or {}).get("delta")
    if isinstance(delta, dict):
        delta["content"] = text


def _is_whole(call: GrowingCall) -> bool:
    if not call.pieces or not call.pieces[-1].rstrip().endswith("}"):
        return False
    try:
        json.loads("".join(call.pieces))
    except (ValueError, RecursionError):
        return False
    return True


def _usage(counts: dict[str, Any]) -> Usage | None:
    """Return the counts in our form: theirs include what was cached, as ours do."""
    given, made = whole_number(counts.get("prompt_tokens")), whole_number(counts.get("completion_tokens"))
    if given is None or made is None:
        return None
    of_prompt, of_reply = counts.get("prompt_tokens_details"), counts.get("completion_tokens_details")
    of_prompt = of_prompt if isinstance(of_prompt, dict) else {}
    of_reply = of_reply if isinstance(of_reply, dict) else {}
    cached = whole_number(of_prompt.get("cached_tokens"))
    if cached is None:
        cached = whole_number(counts.get("prompt_cache_hit_tokens"))
    return Usage(
        input_tokens=given,
        output_tokens=made,
        cached_input_tokens=min(cached or 0, given),
        cache_write_tokens=whole_number(of_prompt.get("cache_write_tokens")) or 0,
        reasoning_tokens=min(whole_number(of_reply.get("reasoning_tokens")) or 0, made),
    )
