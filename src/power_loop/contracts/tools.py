"""What a tool is: its definition, what its handler is given, and what it may give back."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from power_loop.contracts.agent_spec import AgentSpec
from power_loop.contracts.blackboard import BlackboardEntry, BlackboardTransaction
from power_loop.contracts.cancellation import CancellationToken
from power_loop.contracts.errors import ToolError
from power_loop.contracts.frozen import frozen
from power_loop.contracts.live import LiveState
from power_loop.contracts.messages import ContentPart
from power_loop.contracts.records import MessageRecord
from power_loop.contracts.states import Effect, OnUnknown, WaitKind
from power_loop.contracts.timers import TimerRecord, TimerTransaction

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

    if TYPE_CHECKING:  # what is given may be wider than what is kept

        def __init__(self, content: str | Sequence[ContentPart], is_error: bool = False) -> None: ...

    def __post_init__(self) -> None:
        content: Any = self.content
        if isinstance(content, list):
            object.__setattr__(self, "content", tuple(content))


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


class ToolTransaction(Protocol):
    """Is the transaction that commits a call's result, for statements of the tool's own on the store's database.

    Ask for it with a parameter annotated `ToolTransaction`, or return `context.tx(body)`. Whoever holds it awaits
    nothing but its methods, and may be run again after a conflict with another transaction, so it changes nothing but
    the database. Each text is one statement. Parameters stand as `?` on every database, and are str, int, float, bool,
    bytes or None; an operator of PostgreSQL that has a question mark is written with two (`??`). A statement that fails
    ends the transaction, whatever becomes of its error, as does a constraint that fails at COMMIT: nothing of it stays,
    and the call is settled as failed.
    """

    @property
    def blackboard(self) -> BlackboardTransaction:
        """The blackboard of the call's tree of sessions; what is written on it is written by the call's session."""
        ...

    @property
    def timers(self) -> TimerTransaction:
        """The timers of the call's session."""
        ...

    async def execute(self, sql: str, params: Sequence[Any] = ()) -> int:
        """Run a statement and return how many rows it changed."""
        ...

    async def execute_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> int:
        """Run a statement once for each of `rows` and return how many rows all of them changed."""
        ...

    async def query(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        ...


#: What a handler may return: text, any JSON value, parts, a ToolResult, Waiting, or `context.tx(body)`.
ToolOutput = Any

#: What runs inside of the transaction that commits its call; what it returns is the call's result.
ToolBody = Callable[[ToolTransaction], Coroutine[Any, Any, Any]]


@frozen
class InTransaction:
    """Is what `context.tx(body)` makes for a handler to return: the body runs in the transaction that commits its
    call."""

    body: ToolBody

    def __await__(self) -> Generator[Any, None, NoReturn]:
        yield from ()
        raise ToolError("context.tx(body) is returned by a handler, not awaited: its body runs when the call commits")


class SessionLog(Protocol):
    """Is the log of a call's session as far as a tool may look at it: reads of bounded size, for async handlers.

    A message stands in it as it was stored, whatever the model is shown in its place.
    """

    @property
    def folded_to_seq(self) -> int:
        """The seq up to which a summary stands for the log where the model is shown it; 0 before the first fold."""
        ...

    async def read(self, *, after_seq: int = 0, limit: int = 50) -> tuple[MessageRecord, ...]:
        """Return messages in order, those after `after_seq`, at most `limit` and at most 100."""
        ...

    async def read_send(self, send_index: int, *, after_seq: int = 0, limit: int = 50) -> tuple[MessageRecord, ...]:
        """Return messages of one send in order, those after `after_seq`, at most `limit` and at most 100."""
        ...

    async def search(
        self, text: str, *, after_seq: int = 0, to_seq: int | None = None, limit: int = 20
    ) -> tuple[tuple[MessageRecord, ...], int | None]:
        """Return messages that contain `text`, whatever its case, and the seq to go on behind, None at the end; a page
        may hold none and still go on."""
        ...


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

    @property
    def log(self) -> SessionLog:
        """The session's log, to read in."""
        ...

    async def read_blackboard(
        self,
        *,
        keys: Sequence[str] | None = None,
        prefix: str = "",
        after: str | None = None,
        limit: int = 100,
    ) -> tuple[BlackboardEntry, ...]:
        """Return entries of the blackboard of the session's tree, as `SessionStore.read_entries` does."""
        ...

    async def read_timers(self, *, limit: int = 100) -> tuple[TimerRecord, ...]:
        """Return the armed timers of the session, at most `limit` and at most 1000."""
        ...

    def tx(self, body: ToolBody) -> InTransaction:
        """Return what a handler returns to have `body` run in the transaction that commits its call.

        What the body returns is the call's result. Raises `tool.failed` where the tool's effect is `read`.
        """
        ...

    async def run_agent(self, spec: AgentSpec, input: str, *, session_id: str | None = None) -> ToolOutput:
        """Give `input` to a sub-agent and return what it comes to, as a handler may return it: its answer, or that it
        waits. For async handlers.

        The agent is a session of its own below this one, found again by the call's `idempotency_key` however often the
        call runs: a call gives work to one agent, and the tool's effect is `idempotent`. `session_id` goes on with a
        linked agent. Raises `agent.not_granted`, `agent.limit`, `tool.failed` where a hook vetoes it.
        """
        ...

    def progress(self, message: str, *, fraction: float | None = None) -> None:
        """Tell subscribers how far the call is; may be called from any thread.

        `fraction` is 0.0 to 1.0; what is outside counts as the nearer of them. Raises `input.invalid` for what is no
        text or no number.
        """
        ...


ToolHandler = Callable[..., ToolOutput] | Callable[..., Awaitable[ToolOutput]]
#: Is asked for the outcome of a call that was started when its process died: a result if it had its effect, None if it
#: had not; it raises if it cannot tell.
ToolProbe = Callable[[str], ToolOutput | Awaitable[ToolOutput]]

#: Names what a call is about, such as "order-17": gets its arguments, and the session's id if it takes a second one.
ToolKey = Callable[..., str]

#: Says in a few words what one call of a finished send was: gets its arguments and the text of its result. It is called
#: in the event loop, so it has to be quick.
ToolProject = Callable[[Mapping[str, Any], str], str]


class ToolResource(Protocol):
    """Is what tools hold beyond a call, such as shells: it is told when a session needs it no more, and at the end."""

    async def end_session(self, session_id: str) -> None:
        """Let go of what is held for a session, which was closed or whose send was cancelled; it may be used again."""
        ...

    async def aclose(self) -> None:
        """Let go of everything."""
        ...


@frozen
class ToolDefinition:
    """Is one tool that a model may call.

    `handler` gets the validated arguments as keyword arguments; None means that the application brings the result with
    `submit_tool_result`. `takes_context` names the parameter that receives the ToolContext, if any. A sync handler runs
    in a thread. `effect` says what a second run would do (default once); its word, such as "read", will do.
    `timeout_s` ends a call (default 120 seconds; None: the send's own limit). `parallel` False keeps the tool from
    running beside other calls of its batch. `requires_approval` parks every call until a person approves.
    `max_result_chars` is how much of a result the model sees (default 30,000); the whole is stored. `probe` see
    ToolProbe. `on_unknown` says what happens to a `once` call whose process died while it ran and of which no probe can
    tell (None: `LoopConfig.on_unknown`). `key` names what a call is about (see ToolKey) and becomes its
    `idempotency_key`; a call whose key has succeeded in its session already gets that result and does not run.
    `takes_transaction` names the parameter that receives the ToolTransaction, if any. `project` says how a call that
    succeeded is shown once its send is finished, where `LoopConfig.projection` is set (see ToolProject; None: its
    arguments and its result, cut short). `live` is state of the session that the model sees at each call for as long as
    it is offered the tool, such as the notes that it wrote. `resource` is what the tool holds beyond a call (see
    ToolResource).
    `guidance` is when to use the tool and when not, for the system prompt (see SystemPrompt.tools).
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
    on_unknown: OnUnknown | None = None
    key: ToolKey | None = field(default=None, repr=False)
    takes_transaction: str | None = None
    project: ToolProject | None = field(default=None, repr=False)
    live: LiveState | None = field(default=None, repr=False)
    resource: ToolResource | None = field(default=None, repr=False)
    guidance: str | None = None
    memo: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    if TYPE_CHECKING:  # what is given may be wider than what is kept

        def __init__(
            self,
            name: str,
            description: str,
            input_schema: Mapping[str, Any],
            handler: ToolHandler | None = None,
            effect: Effect | str = Effect.ONCE,
            timeout_s: float | None = DEFAULT_TIMEOUT_S,
            parallel: bool = True,
            requires_approval: bool = False,
            max_result_chars: int = DEFAULT_RESULT_CHARS,
            takes_context: str | None = None,
            probe: ToolProbe | None = None,
            on_unknown: OnUnknown | str | None = None,
            key: ToolKey | None = None,
            takes_transaction: str | None = None,
            project: ToolProject | None = None,
            live: LiveState | None = None,
            resource: ToolResource | None = None,
            guidance: str | None = None,
            memo: dict[str, Any] = ...,
        ) -> None: ...

    def __post_init__(self) -> None:
        # A word that is none is refused with everything else that is wrong, when the definition is checked.
        with contextlib.suppress(ValueError):
            object.__setattr__(self, "effect", Effect(self.effect))
        if self.on_unknown is not None:
            with contextlib.suppress(ValueError):
                object.__setattr__(self, "on_unknown", OnUnknown(self.on_unknown))
