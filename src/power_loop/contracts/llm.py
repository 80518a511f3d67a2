"""What the kernel asks of a model and what it gets back, whichever provider stands behind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from enum import Enum
from typing import Any, Protocol

from power_loop.contracts.errors import ConfigError
from power_loop.contracts.frozen import frozen
from power_loop.contracts.json_schema import NativeForm, SchemaDialect, native_form
from power_loop.contracts.messages import Message, Origin, Role, TextPart, ToolCallPart
from power_loop.contracts.numbers import is_whole


class StopReason(str, Enum):
    """Is why the model stopped."""

    END = "end"
    TOOL_CALLS = "tool_calls"
    LENGTH = "length"  # cut by the output cap: its tool calls must not run
    STOP_SEQUENCE = "stop_sequence"
    CONTENT_FILTER = "content_filter"
    REFUSAL = "refusal"
    PAUSE = "pause"  # send the same messages and this reply again, unchanged
    CONTEXT_FULL = "context_full"  # the context window ended the reply


@frozen
class Usage:
    """Is what one model call cost, in tokens, in one form for all providers.

    `input_tokens` is the whole prompt, `cached_input_tokens` and `cache_write_tokens` are parts of it; `output_tokens`
    is the whole reply, `reasoning_tokens` a part of it. `is_estimated` marks a count that the kernel estimated because
    the provider sent none.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    is_estimated: bool = False

    @property
    def total_tokens(self) -> int:
        """Prompt and reply together."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_input_tokens + other.cached_input_tokens,
            self.cache_write_tokens + other.cache_write_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            self.is_estimated or other.is_estimated,
        )


@frozen
class ToolSpec:
    """Is what a model is told of a tool.

    `input_schema` is JSON Schema of type object. `memo` is scratch space for wires.
    """

    name: str
    description: str
    input_schema: Mapping[str, Any]
    memo: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)


@frozen
class OutputSchema:
    """Is the JSON Schema that the final answer has to fit. `memo` is scratch space for wires and validators."""

    schema: Mapping[str, Any]
    name: str = "output"
    description: str = ""
    memo: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def native_form(self, dialect: SchemaDialect) -> NativeForm | None:
        """Return the schema as a model of this dialect takes it, made once; None if it has to be asked for in words."""
        key = f"native:{dialect}"
        if key not in self.memo:
            self.memo[key] = native_form(self.schema, dialect)
        form: NativeForm | None = self.memo[key]
        return form

    def to_json(self) -> dict[str, Any]:
        """Return it as it is stored: what its class is made of."""
        return {"name": self.name, "description": self.description, "schema": dict(self.schema)}


@frozen
class LLMRequest:
    """Is one call of a model.

    `messages` is a valid transcript: every call is answered once, directly after the message that asked. `tail` is more
    text that belongs behind the last message for this call only (live state, an instruction); it is not part of the
    log. `tool_choice` is `auto`, `none`, `required` or a tool's name. `extra` is merged into the request's body as it
    is. `cache_key` names the conversation to providers that route by it.
    """

    messages: tuple[Message, ...] | list[Message]
    system: str | None = None
    tools: tuple[ToolSpec, ...] = ()
    tool_choice: str = "auto"
    output_schema: OutputSchema | None = None
    tail: str | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    reasoning_effort: str | None = None
    parallel_tool_calls: bool | None = None
    cache_key: str | None = None
    extra: Mapping[str, Any] | None = None


@frozen
class LLMResponse:
    """Is one whole reply. `usage` is None when the provider sent none; it is never copied from another call.

    `id` is the provider's id of the reply, `request_id` its id of the HTTP exchange, `model` the model that answered.
    """

    message: Message
    stop: StopReason = StopReason.END
    usage: Usage | None = None
    id: str | None = None
    request_id: str | None = None
    model: str | None = None

    @classmethod
    def of_text(cls, text: str, *, usage: Usage | None = None) -> LLMResponse:
        """Return a reply that only says `text`."""
        return cls(Message(Role.ASSISTANT, (TextPart(text),)), usage=usage)

    @classmethod
    def of_calls(cls, *calls: ToolCallPart, text: str = "", usage: Usage | None = None) -> LLMResponse:
        """Return a reply that asks for tool calls, after some `text` if there is any."""
        spoken = (TextPart(text),) if text else ()
        return cls(Message(Role.ASSISTANT, (*spoken, *calls)), StopReason.TOOL_CALLS, usage)


class DeltaKind(str, Enum):
    """Is what a piece of a streamed reply carries."""

    TEXT = "text"
    REASONING = "reasoning"
    TOOL_CALL = "tool_call"


class LLMDelta:
    """Is one piece of a reply while it streams: not durable, and void if the call is tried again.

    `text` is the piece (for a tool call: of its arguments), `index` the position of the tool call in the reply, `name`
    its tool, given with the first piece. A plain class, because thousands are made a second.
    """

    __slots__ = ("index", "kind", "name", "text")

    def __init__(self, kind: DeltaKind, text: str, index: int = 0, name: str | None = None) -> None:
        self.kind = kind
        self.text = text
        self.index = index
        self.name = name

    def __repr__(self) -> str:
        return f"LLMDelta({self.kind.value!r}, {self.text!r}, index={self.index}, name={self.name!r})"


Emit = Callable[[LLMDelta], None]


@frozen
class ModelInfo:
    """Is what the kernel has to know of a model. Window and cap are in tokens.

    `wire` names the message format; it and `model` decide whether stored reasoning may go back. `has_json_schema` tells
    whether the model takes an output schema natively, and `schema_dialect` which ones; otherwise the kernel asks for
    JSON in words. `has_images`, `has_audio` and `has_pdf` tell which media it takes as they are (default: all of them):
    the kernel reads the text of a PDF for a model that takes none, and a provider's wire says in words what an image or
    a sound was.
    """

    provider: str
    model: str
    wire: str = "custom"
    context_window_tokens: int = 128_000
    max_output_tokens: int = 4_096
    has_json_schema: bool = False
    has_tools: bool = True
    schema_dialect: SchemaDialect = "any"
    has_images: bool = True
    has_audio: bool = True
    has_pdf: bool = True

    @property
    def origin(self) -> Origin:
        """What marks the replies of this model."""
        return Origin(self.wire, self.model)


class LLMService(Protocol):
    """Is a model. A user's own takes ten lines: say what it is in `info`, answer in `generate`.

    `generate` makes one attempt, calls `emit` for pieces as they come (or never), and returns the whole reply or raises
    an `LLMError`; the kernel retries. It must end promptly when its task is cancelled.
    """

    @property
    def info(self) -> ModelInfo:
        """What this model is and can do."""
        ...

    async def generate(self, request: LLMRequest, emit: Emit) -> LLMResponse:
        """Make one attempt at one reply."""
        ...


@frozen
class LLMRetryPolicy:
    """Says when a failed model call is tried again.

    `max_attempts` counts the attempts at one reply, the first included (default 4). An attempt is one call of
    `LLMService.generate`: a provider's service makes one request in it, and a second one only where the endpoint
    refuses something that can be left out (counts of tokens in the stream, thinking). The wait before attempt n is
    drawn evenly between zero and min(`max_delay_s`, `base_delay_s` * 2**(n-1)), and is never under what the provider
    asked for; if the provider asks for more than `max_retry_after_s`, the call fails at once. `total_s` bounds all
    attempts and waits of one reply: an attempt that runs when it is over is cancelled (`llm.timeout`). Durations may be
    `math.inf`. Raises `config.invalid`.
    """

    max_attempts: int = 4
    base_delay_s: float = 0.5
    max_delay_s: float = 20.0
    max_retry_after_s: float = 120.0
    total_s: float = 600.0

    def __post_init__(self) -> None:
        attempts: Any = self.max_attempts
        if not is_whole(attempts, least=1):
            raise ConfigError(f"max_attempts is {attempts!r:.200}: give a whole number of at least 1")
        for name in ("base_delay_s", "max_delay_s", "max_retry_after_s", "total_s"):
            seconds: Any = getattr(self, name)
            # A NaN is not greater than anything.
            is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
            if not is_number or not (seconds > 0 if name == "total_s" else seconds >= 0):
                least = "above 0" if name == "total_s" else "of at least 0"
                raise ConfigError(f"{name} is {seconds!r:.200}: give seconds {least}")
