"""What the kernel tells about itself: one frozen payload an event, in one envelope.

Every payload is announced after what it tells is durable. The three deltas and `ToolCallProgressed` are the exception:
they tell what is streaming by, and are void once `StreamReset` or another attempt of the same round comes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from power_loop.contracts.frozen import frozen
from power_loop.contracts.llm import Usage
from power_loop.contracts.messages import Message
from power_loop.contracts.results import StatefulResult


@frozen
class EventPayload:
    """Is the root of all payloads; `type` is the event's frozen name, `is_durable` tells whether it stands for stored
    facts."""

    type: ClassVar[str] = ""
    is_durable: ClassVar[bool] = True


class AgentEvent:
    """Is one event: a payload and where and when it happened.

    `seq` orders all events of a bus without gaps, `monotonic_s` measures between them, `at_ms` is wall-clock epoch
    milliseconds. `send_index` and `round` are 0 where there is none. A plain class, because thousands are made a
    second; treat it as frozen.
    """

    __slots__ = ("at_ms", "monotonic_s", "payload", "round", "send_index", "seq", "session_id")

    def __init__(
        self,
        seq: int,
        at_ms: int,
        monotonic_s: float,
        session_id: str,
        send_index: int,
        round: int,
        payload: EventPayload,
    ) -> None:
        self.seq = seq
        self.at_ms = at_ms
        self.monotonic_s = monotonic_s
        self.session_id = session_id
        self.send_index = send_index
        self.round = round
        self.payload = payload

    @property
    def type(self) -> str:
        """The frozen name of the payload."""
        return self.payload.type

    def __repr__(self) -> str:
        return (
            f"AgentEvent({self.seq}, {self.session_id}, send={self.send_index}, round={self.round}, {self.payload!r})"
        )


@frozen
class SessionCreated(EventPayload):
    """A session exists."""

    type = "session.created"


@frozen
class SessionClosed(EventPayload):
    """A session takes no more input."""

    type = "session.closed"


@frozen
class SendStarted(EventPayload):
    """A turn began: with a new input, or (`is_resume`) with a stored one.

    `missing_tools` names the tools that the send was begun with and that this process does not have: a call of one of
    them is answered with that.
    """

    type = "send.started"

    request_id: str | None
    is_resume: bool
    missing_tools: tuple[str, ...] = ()


@frozen
class SendFinished(EventPayload):
    """A turn came to rest."""

    type = "send.finished"

    result: StatefulResult


@frozen
class SendFailed(EventPayload):
    """A turn ended with an error, which its caller gets; `code` is the error's frozen code."""

    type = "send.failed"

    code: str
    message: str


@frozen
class RoundStarted(EventPayload):
    """A model call is next."""

    type = "round.started"


@frozen
class RoundFinished(EventPayload):
    """A reply and all its calls are settled."""

    type = "round.finished"

    tool_calls: int


@frozen
class LLMCallStarted(EventPayload):
    """An attempt of a model call goes out; `attempt` counts from 1."""

    type = "llm.started"
    is_durable = False

    model: str
    attempt: int
    messages: int


@frozen
class LLMCallFinished(EventPayload):
    """A reply is stored. `usage` is None when the provider sent none."""

    type = "llm.finished"

    model: str
    attempt: int
    stop: str
    usage: Usage | None
    duration_s: float
    request_id: str | None


@frozen
class LLMCallFailed(EventPayload):
    """An attempt failed. `retry_in_s` is the wait before the next one, None if there is none."""

    type = "llm.failed"
    is_durable = False

    model: str
    attempt: int
    code: str
    message: str
    retry_in_s: float | None


@frozen
class StreamReset(EventPayload):
    """What streamed in this round is void: the stream was cut and the call is tried again."""

    type = "stream.reset"
    is_durable = False

    attempt: int


@frozen
class TextDelta(EventPayload):
    """A piece of the answer."""

    type = "delta.text"
    is_durable = False

    text: str


@frozen
class ReasoningDelta(EventPayload):
    """A piece of the model's reasoning."""

    type = "delta.reasoning"
    is_durable = False

    text: str


@frozen
class ToolCallDelta(EventPayload):
    """A piece of a tool call's arguments; `index` is its position in the reply, `name` comes with the first piece."""

    type = "delta.tool_call"
    is_durable = False

    index: int
    name: str | None
    arguments: str


@frozen
class MessageAppended(EventPayload):
    """A message is in the log."""

    type = "message.appended"

    seq: int
    message: Message


@frozen
class ToolBatchStarted(EventPayload):
    """Calls of one reply begin."""

    type = "tools.started"

    call_ids: tuple[str, ...]


@frozen
class ToolBatchFinished(EventPayload):
    """No call of the batch can go on by itself."""

    type = "tools.finished"

    call_ids: tuple[str, ...]


@frozen
class ToolCallStarted(EventPayload):
    """A call runs."""

    type = "tool.started"

    call_id: str
    name: str
    arguments: Mapping[str, Any]
    attempt: int


@frozen
class ToolCallProgressed(EventPayload):
    """A running call says how far it is; `fraction` is 0.0 to 1.0."""

    type = "tool.progressed"
    is_durable = False

    call_id: str
    name: str
    message: str
    fraction: float | None


@frozen
class ToolCallFinished(EventPayload):
    """A call is settled in the ledger with `state`, and its answer is in the log."""

    type = "tool.finished"

    call_id: str
    name: str
    state: str
    is_error: bool
    duration_s: float


@frozen
class ToolCallWaiting(EventPayload):
    """A call waits for an answer."""

    type = "tool.waiting"

    call_id: str
    name: str
    wait_kind: str
    prompt: str


@frozen
class ToolCallAnswered(EventPayload):
    """A waiting call was answered; `decision` is approved, denied or result."""

    type = "tool.answered"

    call_id: str
    name: str
    decision: str


@frozen
class TranscriptRepaired(EventPayload):
    """The view of the log had to be mended before a request; `problems` says how. The log is as it was."""

    type = "transcript.repaired"
    is_durable = False

    problems: tuple[str, ...]


@frozen
class WindowTrimmed(EventPayload):
    """Something was left out of a request because it would not fit, or was refused as too large: the oldest `left_out`
    messages, `media` images, files and sounds, and the middle of `texts` long inputs and results.

    The log is as it was.
    """

    type = "window.trimmed"
    is_durable = False

    left_out: int
    media: int = 0
    texts: int = 0


@frozen
class LeaseTaken(EventPayload):
    """A session was taken over from an owner that died."""

    type = "lease.taken"

    previous_owner: str


@frozen
class HookFailed(EventPayload):
    """A hook raised."""

    type = "hook.failed"
    is_durable = False

    point: str
    hook: str
    error: str
