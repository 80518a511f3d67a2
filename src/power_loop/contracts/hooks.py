"""The points of a turn where the application may look in, and what it may decide there.

A hook is a callable, sync or async, that takes the point's context. It returns None to let things go on, or one of the
decisions that its point allows (the union in the point's context). Points that may veto fail closed: a hook that raises
there ends the step. Points that only tell fail
open: the failure becomes an event.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, ClassVar

from power_loop.contracts.agent_spec import AgentSpec
from power_loop.contracts.frozen import frozen
from power_loop.contracts.llm import LLMRequest, LLMResponse
from power_loop.contracts.messages import ContentPart, Message
from power_loop.contracts.results import StatefulResult
from power_loop.contracts.states import WaitKind
from power_loop.contracts.timers import TimerRecord
from power_loop.contracts.tools import ToolDefinition, ToolResult


class HookPoint(str, Enum):
    """Is a named place in the life of a session, a send, a round, a model call or a tool call."""

    SESSION_START = "session.start"
    SESSION_END = "session.end"
    SEND_START = "send.start"
    SEND_END = "send.end"
    ROUND_START = "round.start"
    ROUND_DECIDE = "round.decide"
    ROUND_END = "round.end"
    LLM_BEFORE = "llm.before"
    LLM_AFTER = "llm.after"
    TOOLS_BEFORE = "tools.before"
    TOOLS_AFTER = "tools.after"
    TOOL_BEFORE = "tool.before"
    TOOL_AFTER = "tool.after"
    TOOL_ERROR = "tool.error"
    MESSAGE_APPEND = "message.append"
    FOLD_BEFORE = "fold.before"
    SUBAGENT_START = "subagent.start"
    SUBAGENT_END = "subagent.end"
    TIMER_FIRE = "timer.fire"


# ---- decisions ----


@frozen
class Veto:
    """Says no.

    A vetoed send or round ends with status `vetoed`; a vetoed call is answered with `reason` as an error.
    """

    reason: str


@frozen
class Skip:
    """Answers a tool call, without running it, with `result`; or a model call with `response`."""

    result: ToolResult | str | None = None
    response: LLMResponse | None = None


@frozen
class Rewrite:
    """Goes on with something else: `content` of an input, `request` of a model call, `response` of a reply, `arguments`
    or `result` of a call."""

    content: str | Sequence[ContentPart] | None = None
    request: LLMRequest | None = None
    response: LLMResponse | None = None
    arguments: Mapping[str, Any] | None = None
    result: ToolResult | str | None = None


@frozen
class RequireApproval:
    """Parks a tool call until a person approves it.

    A call that was approved with these arguments is not parked again.
    """

    prompt: str
    data: Mapping[str, Any] | None = None


@frozen
class Park:
    """Parks a tool call until somebody gives its value."""

    prompt: str
    kind: WaitKind = WaitKind.INPUT
    answer_schema: Mapping[str, Any] | None = None
    data: Mapping[str, Any] | None = None


@frozen
class Postpone:
    """Has the firing of a timer come again so many `seconds` later; the hooks are asked again then."""

    seconds: float


Decision = Veto | Skip | Rewrite | RequireApproval | Park | Postpone


# ---- contexts: one a point; all know session, send and round (0 where there is none) ----


@frozen
class HookContext:
    """Is what every hook is told. `metadata` is the session's."""

    point: ClassVar[HookPoint]
    allows: ClassVar[tuple[type, ...]] = ()

    session_id: str
    send_index: int
    round: int
    metadata: Mapping[str, Any]


@frozen
class SessionStartContext(HookContext):
    """A session was created."""

    point = HookPoint.SESSION_START


@frozen
class SessionEndContext(HookContext):
    """A session was closed."""

    point = HookPoint.SESSION_END


@frozen
class SendStartContext(HookContext):
    """An input is about to be stored.

    Veto refuses it, Rewrite(content=...) stores another. `is_resume` marks a turn that goes on with a stored one,
    `is_follow_up` an input from the inbox that a running turn takes in.
    """

    point = HookPoint.SEND_START
    allows = (Veto, Rewrite)

    content: tuple[ContentPart, ...]
    is_resume: bool
    is_follow_up: bool = False


@frozen
class SendEndContext(HookContext):
    """A turn came to rest with `result`, which is durable."""

    point = HookPoint.SEND_END

    result: StatefulResult


@frozen
class RoundStartContext(HookContext):
    """A model call is next. Veto ends the send with status `vetoed`."""

    point = HookPoint.ROUND_START
    allows = (Veto,)


@frozen
class RoundDecideContext(HookContext):
    """The loop decided what to do next; `action` is its name."""

    point = HookPoint.ROUND_DECIDE
    allows = (Veto,)

    action: str


@frozen
class RoundEndContext(HookContext):
    """A reply and all its calls are durable."""

    point = HookPoint.ROUND_END

    tool_calls: int


@frozen
class LLMBeforeContext(HookContext):
    """A request is about to go out.

    Rewrite(request=...) sends another, Skip(response=...) answers it, Veto ends the send.
    """

    point = HookPoint.LLM_BEFORE
    allows = (Veto, Skip, Rewrite)

    request: LLMRequest


@frozen
class LLMAfterContext(HookContext):
    """A reply came and is about to be stored. Rewrite(response=...) stores another, Veto ends the send without it."""

    point = HookPoint.LLM_AFTER
    allows = (Veto, Rewrite)

    request: LLMRequest
    response: LLMResponse


@frozen
class PlannedCall:
    """Is a call as hooks see it. `arguments` are parsed and valid against the tool's schema."""

    call_id: str
    tool: ToolDefinition
    arguments: Mapping[str, Any]
    idempotency_key: str
    attempt: int
    is_approved: bool


@frozen
class ToolsBeforeContext(HookContext):
    """A batch of calls is about to run. Veto answers all of them with an error."""

    point = HookPoint.TOOLS_BEFORE
    allows = (Veto,)

    calls: tuple[PlannedCall, ...]


@frozen
class ToolsAfterContext(HookContext):
    """All calls of a batch are settled and durable."""

    point = HookPoint.TOOLS_AFTER

    calls: tuple[PlannedCall, ...]
    messages: tuple[Message, ...]


@frozen
class ToolBeforeContext(HookContext):
    """A call is about to run.

    Veto denies it, Skip(result=...) answers it, Rewrite(arguments=...) changes it, RequireApproval and Park make it
    wait.
    """

    point = HookPoint.TOOL_BEFORE
    allows = (Veto, Skip, Rewrite, RequireApproval, Park)

    call: PlannedCall


@frozen
class ToolAfterContext(HookContext):
    """A call gave `result`, not yet stored. Rewrite(result=...) stores another.

    With `is_stored` it was committed together with its effect, and nothing rewrites it: that is a failure of the hook.
    """

    point = HookPoint.TOOL_AFTER
    allows = (Rewrite,)

    call: PlannedCall
    result: ToolResult
    is_stored: bool = False


@frozen
class ToolErrorContext(HookContext):
    """A call failed with `error`; `result` is what the model will be told.

    Rewrite(result=...) tells it something else.
    """

    point = HookPoint.TOOL_ERROR
    allows = (Rewrite,)

    call: PlannedCall
    error: BaseException
    result: ToolResult


@frozen
class MessageAppendContext(HookContext):
    """Messages were appended to the log and are durable; `first_seq` is the seq of the first."""

    point = HookPoint.MESSAGE_APPEND

    first_seq: int
    messages: Sequence[Message]


@frozen
class FoldBeforeContext(HookContext):
    """The log up to `to_seq` is about to be folded: a summary is to stand for `messages`, because the prompt takes
    about `tokens` tokens.

    Veto leaves the conversation as it is for now.
    """

    point = HookPoint.FOLD_BEFORE
    allows = (Veto,)

    to_seq: int
    messages: tuple[Message, ...]
    tokens: int


@frozen
class SubagentStartContext(HookContext):
    """A call is about to give `input` to the sub-agent of `spec`, for the first time. Veto answers the call with an
    error."""

    point = HookPoint.SUBAGENT_START
    allows = (Veto,)

    call_id: str
    spec: AgentSpec
    agent_session_id: str
    input: str


@frozen
class SubagentEndContext(HookContext):
    """The sub-agent of `spec` came to rest with `result`, which is durable."""

    point = HookPoint.SUBAGENT_END

    call_id: str
    spec: AgentSpec
    result: StatefulResult


@frozen
class TimerFireContext(HookContext):
    """A `timer` is due and is about to bring `content` to its session, `late_s` behind its time.

    Veto leaves this run out, Postpone(seconds) has it come again later, Rewrite(content=...) brings something else. A
    hook that raises has it come again later as well.
    """

    point = HookPoint.TIMER_FIRE
    allows = (Veto, Postpone, Rewrite)

    timer: TimerRecord
    content: tuple[ContentPart, ...]
    late_s: float
