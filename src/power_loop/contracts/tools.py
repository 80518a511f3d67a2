"""What a tool is: its definition, what its handler is given, and what it may give back."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import field
from typing import Any, Protocol

from power_loop.contracts.cancellation import CancellationToken
from power_loop.contracts.frozen import frozen
from power_loop.contracts.messages import ContentPart
from power_loop.contracts.states import Effect, WaitKind

# Long enough for a slow build or a web search, short enough that a forgotten call does not hold its session.
DEFAULT_TIMEOUT_S = 120.0
# About 8,000 tokens: several results of that size fit any context window.
DEFAULT_RESULT_CHARS = 30_000


@frozen
class ToolResult:
    """Is what a handler returns when plain text or JSON is not enough.

    `content` is text or content parts (images reach models that see); `is_error` marks it as an error for the model.
    """

    content: str | tuple[ContentPart, ...]
    is_error: bool = False


@frozen
class Waiting:
    """Is returned by a handler (or a hook) to park its call until a person or the application answers, in whatever
    process.

    `prompt` is the question, `answer_schema` the JSON Schema of an acceptable answer, `data` anything else the asking
    side wants to show.
    """

    prompt: str
    kind: WaitKind = WaitKind.INPUT
    answer_schema: Mapping[str, Any] | None = None
    data: Mapping[str, Any] | None = None


class ToolContext(Protocol):
    """Is what a handler knows of its call. Ask for it with a parameter annotated `ToolContext`.

    `idempotency_key` stays the same over every retry and resume of this call; `attempt` counts from 1. `deadline_s` is
    the monotonic second at which the call is ended, or None. `state` is a dict of JSON values that lasts as long as the
    session; what is set in it is stored with the call's result, and what is no JSON is refused with a TypeError.
    """

    @property
    def session_id(self) -> str:
        """The session of the call."""
        ...

    @property
    def send_index(self) -> int:
        """The send of the call."""
        ...

    @property
    def call_id(self) -> str:
        """The id that the model knows the call by."""
        ...

    @property
    def tool_name(self) -> str:
        """The name of the tool."""
        ...

    @property
    def idempotency_key(self) -> str:
        """The same over every retry and resume of this call."""
        ...

    @property
    def attempt(self) -> int:
        """Counts from 1."""
        ...

    @property
    def deadline_s(self) -> float | None:
        """The monotonic second at which the call is ended, or None."""
        ...

    @property
    def cancellation(self) -> CancellationToken:
        """Is cancelled when the call should end."""
        ...

    @property
    def state(self) -> dict[str, Any]:
        """JSON values that last as long as the session."""
        ...

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The session's metadata."""
        ...

    def progress(self, message: str, *, fraction: float | None = None) -> None:
        """Tell subscribers how far the call is; may be called from any thread.

        `fraction` is 0.0 to 1.0; what is outside counts as the nearer of them. Raises `input.invalid` for what is no
        text or no number.
        """
        ...


#: What a handler may return: text, any JSON value, parts, a ToolResult, or Waiting.
ToolOutput = Any
ToolHandler = Callable[..., ToolOutput] | Callable[..., Awaitable[ToolOutput]]
#: Is asked for the outcome of a call that was started when its process died: a result if it had its effect, None if it
#: had not; it raises if it cannot tell.
ToolProbe = Callable[[str], ToolOutput | Awaitable[ToolOutput]]


@frozen
class ToolDefinition:
    """Is one tool that a model may call.

    `handler` gets the validated arguments as keyword arguments; None means that the application brings the result with
    `submit_tool_result`. `takes_context` names the parameter that receives the ToolContext, if any. A sync handler runs
    in a thread. `effect` says what a second run would do (default once); its word, such as "read", will do.
    `timeout_s` ends a call (default 120 seconds; None: the send's own limit). `parallel` False keeps the tool from
    running beside other calls of its batch. `requires_approval` parks every call until a person approves.
    `max_result_chars` is how much of a result the model sees (default 30,000); the whole is stored. `probe` see
    ToolProbe.
    """

    name: str
    description: str
    input_schema: Mapping[str, Any]
    handler: ToolHandler | None = None
    effect: Effect = Effect.ONCE
    timeout_s: float | None = DEFAULT_TIMEOUT_S
    parallel: bool = True
    requires_approval: bool = False
    max_result_chars: int = DEFAULT_RESULT_CHARS
    takes_context: str | None = None
    probe: ToolProbe | None = field(default=None, repr=False)
    memo: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        # A word that is none is refused with everything else that is wrong, when the definition is checked.
        with contextlib.suppress(ValueError):
            object.__setattr__(self, "effect", Effect(self.effect))
