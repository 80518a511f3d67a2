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
    milliseconds. `send_index` and `round` are 0 where there is none. `agent_path` is the ids of the sessions from the
    top of the tree of sub-agents down to this one, which alone it is where there is no tree. A plain class, because
    thousands are made a second; treat it as frozen.
    """

    __slots__ = ("agent_path", "at_ms", "monotonic_s", "payload", "round", "send_index", "seq", "session_id")

    def __init__(
        self,
        seq: int,
        at_ms: int,
        monotonic_s: float,
        session_id: str,
        send_index: int,
        round: int,
        payload: EventPayload,
        agent_path: tuple[str, ...] = (),
    ) -> None:
        self.seq = seq
        self.at_ms = at_ms
        self.monotonic_s = monotonic_s
        self.session_id = session_id
        self.send_index = send_index
        self.round = round
        self.payload = payload
        self.agent_path = agent_path or (session_id,)

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
class AgentStarted(EventPayload):
    """A call waits for a sub-agent from here on, or (`is_resume`) again: the agent `name` in the session
    `agent_session_id`."""

    type = "agent.started"

    call_id: str
    name: str
    agent_session_id: str
    is_resume: bool


@frozen
class AgentFinished(EventPayload):
    """A sub-agent came to rest. `result` is that of its send; its call ends with it unless it waits for a person."""

    type = "agent.finished"

    call_id: str
    name: str
    agent_session_id: str
    result: StatefulResult


@frozen
class WorkflowRunStarted(EventPayload):
    """An engine begins a workflow's run or (`is_resume`) goes on with it; the run is the session of the event."""

    type = "workflow.run_started"

    name: str
    is_resume: bool


@frozen
class WorkflowStepStarted(EventPayload):
    """A step was started, which stands in the run's journal by now: `path` is its instance, such as `research[3]/r`."""

    type = "workflow.step_started"

    path: str
    node_id: str
    kind: str
    attempt: int


@frozen
class WorkflowStepFinished(EventPayload):
    """A step came to an outcome, which stands in the run's journal: its `state`, and the `code` of its error if any."""

    type = "workflow.step_finished"

    path: str
    node_id: str
    kind: str
    attempt: int
    state: str
    code: str | None = None


@frozen
class WorkflowRunFinished(EventPayload):
    """A workflow's run came to rest: `status` says how, `code` and `reason` why it failed, `waits_for` the paths of the
    steps that wait for somebody."""

    type = "workflow.run_finished"

    status: str
    code: str | None = None
    reason: str | None = None
    waits_for: tuple[str, ...] = ()


@frozen
class LLMCallStarted(EventPayload):
    """An attempt of a model call goes out to `model` of `provider`; `attempt` counts from 1."""

    type = "llm.started"
    is_durable = False

    model: str
    attempt: int
    messages: int
    provider: str = ""


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
class FoldStarted(EventPayload):
    """The log up to `to_seq` is about to be folded by `strategy`, because about `tokens` tokens are too many."""

    type = "fold.started"
    is_durable = False

    to_seq: int
    strategy: str
    tokens: int


@frozen
class FoldProgressed(EventPayload):
    """A fold strategy told how far it is."""

    type = "fold.progressed"
    is_durable = False

    message: str


@frozen
class FoldFinished(EventPayload):
    """A summary stands for the log up to `to_seq` from here on; the window went from about `tokens_before` tokens to
    `tokens_after`. The log is as it was."""

    type = "fold.finished"

    from_seq: int
    to_seq: int
    strategy: str
    tokens_before: int
    tokens_after: int
    model_calls: int
    usage: Usage | None
    duration_s: float


@frozen
class FoldFailed(EventPayload):
    """A fold came to nothing; the turn goes on with what fits.

    `code` is that of the error, or a word that is none: `vetoed` by a hook, `cancelled` with its turn, `no_gain` where
    the summary takes as much as what it stands for, `internal` where the strategy raised something that is no error of
    the kernel's, or gave no summary.
    """

    type = "fold.failed"
    is_durable = False

    strategy: str
    code: str
    message: str


@frozen
class BudgetExceeded(EventPayload):
    """A model call was not made, because the budget of send `budget_send_index` of `budget_session_id` does not pay for
    it: `spent` of the `limit` called `name` (`max_tokens`, or `max_cost` in nano-units) is gone.

    `is_held` tells that other sessions held what was missing for as long as the call could wait.
    """

    type = "budget.exceeded"
    is_durable = False

    budget_session_id: str
    budget_send_index: int
    name: str
    limit: int
    spent: int
    is_held: bool


@frozen
class ProjectionFailed(EventPayload):
    """The `project` of a tool raised or gave no text; its calls are shown as those of any other tool."""

    type = "projection.failed"
    is_durable = False

    tool: str
    error: str


@frozen
class MemoryRecalled(EventPayload):
    """So many `memories` that a provider gave are shown in this send, in about `tokens` tokens; `left_out` others did
    not fit or said nothing more."""

    type = "memory.recalled"
    is_durable = False

    memories: int
    tokens: int
    left_out: int


@frozen
class MemoryFailed(EventPayload):
    """A memory provider raised, or took too long, at `step` (recall or remember); the send goes on without it."""

    type = "memory.failed"
    is_durable = False

    step: str
    message: str


@frozen
class LiveStateFailed(EventPayload):
    """The live state `name` raised or gave no text; model calls go on without it."""

    type = "live_state.failed"
    is_durable = False

    name: str
    message: str


@frozen
class InputQueued(EventPayload):
    """An input waits in the session's inbox at `position`."""

    type = "input.queued"

    position: int
    request_id: str | None


@frozen
class InputTaken(EventPayload):
    """An input left the inbox: a running turn took it in, and it stands at `seq` of the log."""

    type = "input.taken"

    position: int
    request_id: str | None
    seq: int


@frozen
class InputRefused(EventPayload):
    """An input left the inbox because a hook refused it."""

    type = "input.refused"

    position: int
    request_id: str | None
    reason: str


@frozen
class TimerScheduled(EventPayload):
    """The application, or the model, made a timer, which is due at `due_at_ms`."""

    type = "timer.scheduled"

    timer_id: str
    due_at_ms: int


@frozen
class TimerCancelled(EventPayload):
    """The application, or the model, ended a timer."""

    type = "timer.cancelled"

    timer_id: str


@frozen
class TimerFired(EventPayload):
    """A timer brought its input to the inbox, at `position`, `late_s` behind its time; `number` counts its firings.

    The next one is due at `due_at_ms`; None where this was the last. `position` is 0 of one that wakes a workflow's
    run, and brings no input.
    """

    type = "timer.fired"

    timer_id: str
    number: int
    position: int
    late_s: float
    due_at_ms: int | None


@frozen
class TimerSkipped(EventPayload):
    """A run of a timer was left out, because of a hook or because it came too late (`reason`)."""

    type = "timer.skipped"

    timer_id: str
    number: int
    reason: str
    due_at_ms: int | None


@frozen
class TimerPostponed(EventPayload):
    """A hook had a run of a timer come again later, at `due_at_ms`."""

    type = "timer.postponed"

    timer_id: str
    number: int
    due_at_ms: int


@frozen
class TimerFailed(EventPayload):
    """A run of a timer could not be delivered, for the `failures`th time, and is tried again in `after_s`."""

    type = "timer.failed"

    timer_id: str
    number: int
    failures: int
    after_s: float
    error: str


@frozen
class TimerEnded(EventPayload):
    """A timer ended because its session is closed."""

    type = "timer.ended"

    timer_id: str


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
