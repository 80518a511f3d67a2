"""What the scripted model says: answers, their parts, and failures."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from .reply import Fault
from .request import Request

# Two finish words for one idea, by wire: what a script writes in either vocabulary is spoken in the wire's own.
FINISH_ON_OPENAI = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
FINISH_ON_ANTHROPIC = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}


@dataclass(frozen=True, slots=True)
class Text:
    """Visible text; each piece is one delta of a stream."""

    pieces: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reasoning:
    """Reasoning text: an Anthropic `thinking` block, or a message field of servers compatible with OpenAI.

    `field` names that message field (`reasoning_content` or `reasoning`). `signature` is made up and remembered
    when None. `shown=False` is Anthropic's `display: omitted`: the text stays at the server and the signature
    alone is sent.
    """

    pieces: tuple[str, ...]
    field: str = "reasoning_content"
    signature: str | None = None
    shown: bool = True


@dataclass(frozen=True, slots=True)
class RedactedReasoning:
    """Anthropic's `redacted_thinking` block; `data` is made up and remembered when None. Absent on the OpenAI wire."""

    data: str | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """The `refusal` field of the OpenAI wire; on the Anthropic wire text that ends with `stop_reason: refusal`."""

    pieces: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RawBlock:
    """A content block of the Anthropic wire sent as it is, for block types that a client may not know."""

    block: Mapping[str, Any]


AUTO_ID = "auto"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One tool call.

    `arguments` is the text the model wrote; a mapping is encoded, a tuple of strings is sent piece by piece (one
    delta each). `id` is made up when `"auto"`, left out of the wire when None. `index` overrides the place in the
    stream; `omit_index` leaves it out. `repeat_name` and `repeat_id` send them again in each delta, as some servers do.
    """

    name: str
    arguments: str | tuple[str, ...] | Mapping[str, Any] = "{}"
    id: str | None = AUTO_ID
    index: int | None = None
    omit_index: bool = False
    repeat_name: bool = False
    repeat_id: bool = False

    @property
    def argument_pieces(self) -> tuple[str, ...]:
        """The arguments as the deltas carry them."""
        if isinstance(self.arguments, tuple):
            return self.arguments
        if isinstance(self.arguments, str):
            return (self.arguments,) if self.arguments else ()
        return (json.dumps(self.arguments, ensure_ascii=False),)

    @property
    def argument_text(self) -> str:
        """The arguments as one text."""
        return "".join(self.argument_pieces)


Part = Text | Reasoning | RedactedReasoning | Refusal | RawBlock | ToolCall


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts as they should be reported; `input_tokens` is the whole prompt with its cached part.

    Each wire counts its own way: OpenAI reports the whole, Anthropic the uncached rest. `raw` replaces the usage
    object.
    """

    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    raw: Mapping[str, Any] | None = None


# Usage is estimated from the sizes of the request and the answer.
ESTIMATED = Usage(-1, -1)


@dataclass(frozen=True)
class Answer:
    """One reply of the model: its parts in order, how it ends, and the faults of its delivery.

    `finish` is a finish word of either wire (None: by content). `usage=None` reports none at all.
    `id` and `model` override the made-up response id and the model of the request. `whole` answers with one JSON
    body even if a stream was asked for, as some servers do.
    """

    parts: tuple[Part, ...] = ()
    finish: str | None = None
    usage: Usage | None = ESTIMATED
    stop_details: Mapping[str, Any] | None = None
    stop_sequence: str | None = None
    id: str | None = None
    model: str | None = None
    whole: bool = False
    headers: tuple[tuple[str, str], ...] = ()
    faults: tuple[Fault, ...] = ()

    def with_faults(self, *faults: Fault) -> Answer:
        """The same answer with more faults of delivery, applied in the order given."""
        return replace(self, faults=self.faults + faults)

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The tool calls among the parts."""
        return tuple(part for part in self.parts if isinstance(part, ToolCall))


class Conduct(Enum):
    """What the connection does instead of, or after, a whole response."""

    ANSWER = "answer"
    CLOSE_BEFORE_HEADERS = "close_before_headers"
    RESET_BEFORE_HEADERS = "reset_before_headers"
    CLOSE_AFTER_HEADERS = "close_after_headers"
    HANG = "hang"


@dataclass(frozen=True)
class Failure:
    """A response that is no model's answer: a status with an error body, a foreign body, or no response at all.

    The error body has the shape of the wire that was asked. `types` are the error types (OpenAI, Anthropic).
    `messages` likewise; `code` and `param` are OpenAI's, `detail_code` is Anthropic's `details.error_code`.
    `body` replaces the error body: bytes, or a function that gives an iterator of bytes for an endless one.
    """

    status: int = 500
    types: tuple[str, str] = ("server_error", "api_error")
    messages: tuple[str, str] = ("", "")
    code: str | None = None
    param: str | None = None
    detail_code: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | Callable[[], Iterator[bytes]] | None = None
    content_type: str = "application/json"
    conduct: Conduct = Conduct.ANSWER
    gate: str = ""


Step = Answer | Failure
Responder = Callable[[Request], Step | Awaitable[Step]]
Script = Sequence[Step | Responder] | Responder


def say(*pieces: str, **options: Any) -> Answer:
    """An answer of text; each piece is one delta. Options are the fields of `Answer`."""
    return Answer(parts=(Text(pieces),), **options)


def think_and_say(thought: str, *pieces: str, **options: Any) -> Answer:
    """An answer that reasons first."""
    return Answer(parts=(Reasoning((thought,)), Text(pieces)), **options)


def call(name: str, arguments: str | tuple[str, ...] | Mapping[str, Any] = "{}", **options: Any) -> Answer:
    """An answer of one tool call. Options are the fields of `ToolCall`."""
    return Answer(parts=(ToolCall(name, arguments, **options),))


def calls(*tool_calls: ToolCall, **options: Any) -> Answer:
    """An answer of several tool calls. Options are the fields of `Answer`."""
    return Answer(parts=tool_calls, **options)


def refuse(*pieces: str, **options: Any) -> Answer:
    """An answer that refuses."""
    return Answer(parts=(Refusal(pieces),), **options)
