"""Every error that a user of power-loop can meet, each with a frozen machine-readable code.

PowerLoopError
├── ConfigError                 config.invalid
│   ├── MissingExtraError       config.missing_extra
│   └── PriceMissingError       config.no_price
├── InputError                  input.invalid
│   └── ScheduleError           schedule.invalid
│       └── TimeZoneMissingError schedule.no_time_zone
├── LoopClosedError             loop.closed
├── AgentError
│   ├── AgentSpecError          agent.invalid_spec
│   ├── AgentGrantError         agent.not_granted
│   └── AgentLimitError         agent.limit
├── HookError                   hook.failed
├── SessionError
│   ├── SessionNotFoundError    session.not_found
│   ├── SessionExistsError      session.exists
│   ├── SessionClosedError      session.closed
│   ├── SessionBusyError        session.busy
│   ├── InboxFullError          session.inbox_full
│   ├── SessionPendingError     session.pending
│   ├── LeaseLostError          session.lease_lost
│   ├── SessionForkedError      session.has_forks
│   ├── SendPoisonedError       send.poisoned
│   ├── RequestConflictError    request.conflict
│   ├── BlackboardConflictError blackboard.conflict
│   ├── BlackboardFullError     blackboard.full
│   ├── TimerLimitError         timer.limit
│   ├── CallNotFoundError       call.not_found
│   ├── CallNotWaitingError     call.not_waiting
│   ├── ModelCallNotFoundError  model_call.not_found
│   ├── RunNotFoundError        workflow.not_found
│   ├── RunSessionError         workflow.not_a_conversation
│   └── ResultPrunedError       call.result_pruned
├── StoreError
│   ├── StoreUnavailableError   store.unavailable
│   ├── StoreRefusedError       store.refused
│   ├── StoreFullError          store.full
│   ├── StoreReadOnlyError      store.read_only
│   ├── StoreValueError         store.value_too_large
│   ├── StoreCorruptError       store.corrupt
│   ├── StoreSchemaError        store.schema
│   ├── StoreNewerError         store.schema_newer
│   ├── NotADatabaseError       store.not_a_database
│   ├── InvalidDsnError         store.invalid_dsn
│   ├── InvalidTablePrefixError store.invalid_table_prefix
│   ├── StoreUnsupportedError   store.unsupported
│   ├── InvalidArchiveError     archive.invalid
│   └── TransactionError        store.transaction_misuse
├── TimerNotFoundError          timer.not_found
├── NamespaceError              memory.no_namespace
├── LLMError
│   ├── LLMAuthError            llm.auth              ├── LLMRateLimitedError   llm.rate_limited    (retryable)
│   ├── LLMBillingError         llm.billing           ├── LLMTimeoutError       llm.timeout         (retryable)
│   ├── LLMPermissionError      llm.permission        ├── LLMConflictError      llm.conflict        (retryable)
│   ├── LLMNotFoundError        llm.not_found         ├── LLMOverloadedError    llm.overloaded      (retryable)
│   ├── LLMInvalidRequestError  llm.invalid_request   ├── LLMServerError        llm.server          (retryable)
│   ├── LLMTooLargeError        llm.too_large         ├── LLMConnectionError    llm.connection      (retryable)
│   └── LLMContextOverflowError llm.context_overflow  └── LLMProtocolError      llm.protocol        (retryable)
├── ProcessError                process.failed
│   ├── SandboxUnavailableError sandbox.unavailable
│   └── WorkerError             worker.failed
│       ├── WorkerDiedError     worker.died
│       ├── WorkerSilentError   worker.silent
│       ├── WorkerProtocolError worker.protocol
│       └── WorkerTimeoutError  worker.timeout
├── MCPError                    mcp.failed            (what an MCP server answered, or that it cannot be understood)
│   ├── MCPConnectionError      mcp.connection
│   └── MCPToolChangedError     mcp.tool_changed
├── ToolError                   tool.failed           (raise it in a handler: its text goes to the model)
│   ├── PathRefusedError        path.refused
│   └── ToolDefinitionError     tool.invalid_definition
├── WorkflowError
│   ├── LeafLostError           workflow.leaf_lost
│   ├── LeafRefusedError        workflow.leaf_refused
│   └── WorkflowSpecError       workflow.invalid_spec
└── OutputError                 output.invalid
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from power_loop.contracts.workflow_problem import WorkflowProblem


class PowerLoopError(Exception):
    """Is the root of the tree; branch on `code`, never on the message."""

    code: ClassVar[str] = "internal"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ConfigError(PowerLoopError):
    """Says that an argument, an option or an environment variable cannot be used."""

    code = "config.invalid"


class MissingExtraError(ConfigError):
    """Says that an optional package is needed and names the extra that brings it."""

    code = "config.missing_extra"

    def __init__(self, message: str, *, extra: str) -> None:
        super().__init__(message)
        self.extra = extra


class PriceMissingError(ConfigError):
    """Says that a budget of money has to pay for a model whose price nobody gave; the model was not called."""

    code = "config.no_price"

    def __init__(self, message: str, *, model: str) -> None:
        super().__init__(message)
        self.model = model


class InputError(PowerLoopError):
    """Says that what was handed to a method cannot be accepted; nothing was stored."""

    code = "input.invalid"


class ScheduleError(InputError):
    """Says that something is no schedule for a timer: no moment, no cron expression, no number of seconds."""

    code = "schedule.invalid"


class TimeZoneMissingError(ScheduleError):
    """Says that this machine does not know the time zone named `zone`."""

    code = "schedule.no_time_zone"

    def __init__(self, message: str, *, zone: str) -> None:
        super().__init__(message)
        self.zone = zone


class LoopClosedError(PowerLoopError):
    """Says that `aclose()` was called on this loop, so that it takes no more work."""

    code = "loop.closed"


class HookError(PowerLoopError):
    """Says that a hook which may veto raised; the step it guards did not happen."""

    code = "hook.failed"

    def __init__(self, message: str, *, point: str, hook: str) -> None:
        super().__init__(message)
        self.point = point
        self.hook = hook


class AgentError(PowerLoopError):
    """Is the root of what goes wrong with a sub-agent before it runs."""


class AgentSpecError(AgentError):
    """Says that an `AgentSpec` cannot be used; `problems` are all that is wrong with it."""

    code = "agent.invalid_spec"

    def __init__(self, message: str, *, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


class AgentGrantError(AgentError):
    """Says that a sub-agent was to have what its parent does not have: a tool, a model, a session."""

    code = "agent.not_granted"


class AgentLimitError(AgentError):
    """Says that a tree of agents is as deep, or a send has as many children, as `limit` allows."""

    code = "agent.limit"

    def __init__(self, message: str, *, limit: str) -> None:
        super().__init__(message)
        self.limit = limit


class SessionError(PowerLoopError):
    """Is the branch of errors about one session."""

    def __init__(self, message: str, *, session_id: str) -> None:
        super().__init__(message)
        self.session_id = session_id


class SessionNotFoundError(SessionError):
    """Says that the store holds no session of this id."""

    code = "session.not_found"


class SessionExistsError(SessionError):
    """Says that a session of this id exists already."""

    code = "session.exists"


class SessionClosedError(SessionError):
    """Says that the session was closed and takes no more input."""

    code = "session.closed"


class SessionBusyError(SessionError):
    """Says that another turn holds the session's lease."""

    code = "session.busy"

    def __init__(self, message: str, *, session_id: str, owner: str, lease_until_ms: int) -> None:
        super().__init__(message, session_id=session_id)
        self.owner = owner
        self.lease_until_ms = lease_until_ms


class InboxFullError(SessionError):
    """Says that as many inputs wait in the session's inbox as it takes; nothing was stored."""

    code = "session.inbox_full"


class SessionPendingError(SessionError):
    """Says that calls of an earlier turn are still open."""

    code = "session.pending"

    def __init__(self, message: str, *, session_id: str, call_ids: Sequence[str]) -> None:
        super().__init__(message, session_id=session_id)
        self.call_ids = tuple(call_ids)


class LeaseLostError(SessionError):
    """Says that another owner took the session over; nothing was written."""

    code = "session.lease_lost"


class SessionForkedError(SessionError):
    """Says that other sessions share this one's log, so that it stays; `fork_ids` names some of them."""

    code = "session.has_forks"

    def __init__(self, message: str, *, session_id: str, fork_ids: Sequence[str]) -> None:
        super().__init__(message, session_id=session_id)
        self.fork_ids = tuple(fork_ids)


class SendPoisonedError(SessionError):
    """Says that a send was given up because its process died too often while it drove it."""

    code = "send.poisoned"

    def __init__(self, message: str, *, session_id: str, attempts: int) -> None:
        super().__init__(message, session_id=session_id)
        self.attempts = attempts


class RequestConflictError(SessionError):
    """Says that a `request_id` was used before with another input."""

    code = "request.conflict"

    def __init__(self, message: str, *, session_id: str, request_id: str) -> None:
        super().__init__(message, session_id=session_id)
        self.request_id = request_id


class BlackboardConflictError(SessionError):
    """Says that an entry of a blackboard is not what a write expected; nothing was changed.

    `version` and `value` are what is there; `version` is None where there is no such entry. `session_id` is the session
    whose board it is.
    """

    code = "blackboard.conflict"

    def __init__(self, message: str, *, session_id: str, key: str, version: int | None, value: Any) -> None:
        super().__init__(message, session_id=session_id)
        self.key = key
        self.version = version
        self.value = value


class BlackboardFullError(SessionError):
    """Says that a blackboard has as many entries as it may have, which is `max_entries`."""

    code = "blackboard.full"

    def __init__(self, message: str, *, session_id: str, max_entries: int) -> None:
        super().__init__(message, session_id=session_id)
        self.max_entries = max_entries


class TimerLimitError(SessionError):
    """Says that a session has as many timers as it may have, which is `max_timers`."""

    code = "timer.limit"

    def __init__(self, message: str, *, session_id: str, max_timers: int) -> None:
        super().__init__(message, session_id=session_id)
        self.max_timers = max_timers


class CallNotFoundError(SessionError):
    """Says that the session has no tool call of this id."""

    code = "call.not_found"

    def __init__(self, message: str, *, session_id: str, call_id: str) -> None:
        super().__init__(message, session_id=session_id)
        self.call_id = call_id


class CallNotWaitingError(SessionError):
    """Says that a tool call is not waiting for an answer (any more)."""

    code = "call.not_waiting"

    def __init__(self, message: str, *, session_id: str, call_id: str, state: str) -> None:
        super().__init__(message, session_id=session_id)
        self.call_id = call_id
        self.state = state


class ModelCallNotFoundError(SessionError):
    """Says that the session has no model call whose reply stands at `call`; None: that it has none at all."""

    code = "model_call.not_found"

    def __init__(self, message: str, *, session_id: str, call: int | None) -> None:
        super().__init__(message, session_id=session_id)
        self.call = call


class RunNotFoundError(SessionError):
    """Says that the store holds no workflow run of this id."""

    code = "workflow.not_found"


class RunSessionError(SessionError):
    """Says that a session is a workflow's run: its engine drives it, and nobody talks to it."""

    code = "workflow.not_a_conversation"


class ResultPrunedError(SessionError):
    """Says that the whole result of a call was pruned at `pruned_at_ms`; the log still has what the model was shown."""

    code = "call.result_pruned"

    def __init__(self, message: str, *, session_id: str, call_id: str, pruned_at_ms: int) -> None:
        super().__init__(message, session_id=session_id)
        self.call_id = call_id
        self.pruned_at_ms = pruned_at_ms


class StoreError(PowerLoopError):
    """Is the branch of errors about the database."""

    code = "store.failed"
    retryable: ClassVar[bool] = False


class StoreUnavailableError(StoreError):
    """Says that the database cannot be reached or locked in time; trying again later is right."""

    code = "store.unavailable"
    retryable = True


class StoreRefusedError(StoreError):
    """Says that a database server does not let this user in, or not do this; trying again is of no use."""

    code = "store.refused"


class StoreFullError(StoreError):
    """Says that the disk or the quota of the database is full; free space, then go on."""

    code = "store.full"
    retryable = True


class StoreReadOnlyError(StoreError):
    """Says that the database or its directory cannot be written."""

    code = "store.read_only"


class StoreValueError(StoreError):
    """Says that a value is larger than a database takes."""

    code = "store.value_too_large"


class StoreCorruptError(StoreError):
    """Says that stored data is damaged or was not written by power-loop."""

    code = "store.corrupt"


class StoreSchemaError(StoreError):
    """Says that tables or columns are missing; `ddl` holds the exact statements to run."""

    code = "store.schema"

    def __init__(self, message: str, *, ddl: str) -> None:
        super().__init__(message)
        self.ddl = ddl


class StoreNewerError(StoreError):
    """Says that a newer power-loop wrote this database; nothing was changed."""

    code = "store.schema_newer"

    def __init__(self, message: str, *, found: int, known: int) -> None:
        super().__init__(message)
        self.found = found
        self.known = known


class NotADatabaseError(StoreError):
    """Says that the file behind a DSN is no database."""

    code = "store.not_a_database"


class InvalidDsnError(StoreError):
    """Says that a DSN cannot be understood."""

    code = "store.invalid_dsn"


class InvalidTablePrefixError(StoreError):
    """Says that a table prefix is not `[a-z_][a-z0-9_]{0,23}`."""

    code = "store.invalid_table_prefix"


class TransactionError(StoreError):
    """Says that the body of a transaction awaited something other than its `tx`."""

    code = "store.transaction_misuse"


class StoreUnsupportedError(StoreError):
    """Says that this kind of database has no such operation, and what does it there."""

    code = "store.unsupported"


class InvalidArchiveError(StoreError):
    """Says why an archive was refused, and in which of its lines; nothing was imported."""

    code = "archive.invalid"

    def __init__(self, message: str, *, line: int, reason: str) -> None:
        super().__init__(message)
        self.line = line
        self.reason = reason


class TimerNotFoundError(PowerLoopError):
    """Says that there is no timer of this id, or that it is not this session's."""

    code = "timer.not_found"

    def __init__(self, message: str, *, timer_id: str) -> None:
        super().__init__(message)
        self.timer_id = timer_id


class NamespaceError(PowerLoopError):
    """Says that a session belongs to no namespace of memories, so that nothing is remembered or recalled for it."""

    code = "memory.no_namespace"


class LLMError(PowerLoopError):
    """Is the branch of failures of a model call; `retryable` tells whether the kernel tries again by itself.

    `status` is the HTTP status if there was one, `provider_code` the provider's own error code or type, `request_id`
    the provider's id of the exchange, `retry_after_s` what the provider asked to wait, in seconds.
    """

    code = "llm.failed"
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        provider: str = "",
        model: str = "",
        status: int | None = None,
        provider_code: str | None = None,
        request_id: str | None = None,
        retry_after_s: float | None = None,
        may_retry: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.provider = provider
        self.model = model
        self.status = status
        self.provider_code = provider_code
        self.request_id = request_id
        self.retry_after_s = retry_after_s
        # The provider's own word (`x-should-retry`) goes over the class's default.
        self.may_retry = self.retryable if may_retry is None else may_retry


class LLMAuthError(LLMError):
    """Says that the API key is missing or refused (401)."""

    code = "llm.auth"


class LLMBillingError(LLMError):
    """Says that the account has no credit or quota left (402, or 429 with `insufficient_quota`)."""

    code = "llm.billing"


class LLMPermissionError(LLMError):
    """Says that the key may not use this model or feature (403)."""

    code = "llm.permission"


class LLMNotFoundError(LLMError):
    """Says that the model or the endpoint does not exist (404)."""

    code = "llm.not_found"


class LLMInvalidRequestError(LLMError):
    """Says that the provider refuses the request as it is (400, 422)."""

    code = "llm.invalid_request"


class LLMTooLargeError(LLMError):
    """Says that the request is larger than the provider takes (413)."""

    code = "llm.too_large"


class LLMContextOverflowError(LLMError):
    """Says that the prompt does not fit into the model's context window."""

    code = "llm.context_overflow"


class LLMRateLimitedError(LLMError):
    """Says that the provider's rate limit was hit (429)."""

    code = "llm.rate_limited"
    retryable = True


class LLMTimeoutError(LLMError):
    """Says that no answer, or no next byte of it, came in time (408, 504, or our own limit)."""

    code = "llm.timeout"
    retryable = True


class LLMConflictError(LLMError):
    """Says that the provider reports a passing conflict (409)."""

    code = "llm.conflict"
    retryable = True


class LLMOverloadedError(LLMError):
    """Says that the provider is overloaded (503, 529, `overloaded_error`)."""

    code = "llm.overloaded"
    retryable = True


class LLMServerError(LLMError):
    """Says that the provider failed inside (other 5xx)."""

    code = "llm.server"
    retryable = True


class LLMConnectionError(LLMError):
    """Says that the connection failed or the stream was cut."""

    code = "llm.connection"
    retryable = True


class LLMProtocolError(LLMError):
    """Says that the endpoint answered something that is not its wire format."""

    code = "llm.protocol"
    retryable = True


class ProcessError(PowerLoopError):
    """Says that a program could not be started, or that what runs it failed."""

    code = "process.failed"


class SandboxUnavailableError(ProcessError):
    """Says why a sandbox cannot be had here; nothing was run outside of it instead."""

    code = "sandbox.unavailable"


class WorkerError(ProcessError):
    """Says that a leaf of a workflow came to nothing in a process of its own; `retryable` tells whether another one may
    do better."""

    code = "worker.failed"
    retryable: ClassVar[bool] = False


class WorkerDiedError(WorkerError):
    """Says that a worker ended in the middle of a leaf: killed, out of memory, or by itself."""

    code = "worker.died"
    retryable = True


class WorkerSilentError(WorkerError):
    """Says that a worker gave no sign of life for too long, and was killed."""

    code = "worker.silent"
    retryable = True


class WorkerProtocolError(WorkerError):
    """Says that a worker sent what no worker sends, and was killed; nothing that it said is used."""

    code = "worker.protocol"


class WorkerTimeoutError(WorkerError):
    """Says that a leaf took longer than it may in its worker, which was killed."""

    code = "worker.timeout"
    retryable = True


class MCPError(PowerLoopError):
    """Says that an MCP server answered a request with an error, of JSON-RPC's `rpc_code` where it gave one, or that
    what it says cannot be understood."""

    code = "mcp.failed"

    def __init__(self, message: str, *, rpc_code: int | None = None) -> None:
        super().__init__(message)
        self.rpc_code = rpc_code


class MCPConnectionError(MCPError):
    """Says that an MCP server cannot be reached, or was lost; with `may_have_run` a request was under way."""

    code = "mcp.connection"

    def __init__(self, message: str, *, may_have_run: bool = False) -> None:
        super().__init__(message)
        self.may_have_run = may_have_run


class MCPToolChangedError(MCPError):
    """Says that an MCP server offers a tool under another description or schema than it had when it was accepted."""

    code = "mcp.tool_changed"


class ToolError(PowerLoopError):
    """Is raised by a tool's handler to give the model an error text of its own wording."""

    code = "tool.failed"


class PathRefusedError(ToolError):
    """Says that a path leads out of the folders that an agent may touch, or to what its tools do not touch there."""

    code = "path.refused"


class ToolDefinitionError(ToolError):
    """Says that a tool cannot be offered as it is defined; `problems` names every reason."""

    code = "tool.invalid_definition"

    def __init__(self, message: str, *, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


class WorkflowError(PowerLoopError):
    """Is the root of what goes wrong with a workflow."""


class LeafLostError(WorkflowError):
    """Says that a workflow's leaf which ran elsewhere was lost: its workers ended, or their cluster did."""

    code = "workflow.leaf_lost"


class LeafRefusedError(WorkflowError):
    """Says that whoever was to run a workflow's leaf did not begin it, and why."""

    code = "workflow.leaf_refused"


class WorkflowSpecError(WorkflowError):
    """Says that a workflow's spec cannot be used; `problems` are all that is wrong with it, each with its place."""

    code = "workflow.invalid_spec"

    def __init__(self, message: str, *, problems: Sequence[WorkflowProblem] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


class OutputError(PowerLoopError):
    """Says that the model's answer does not fit `output_schema`, after the repairs that were allowed.

    `raw_text` is the last answer as it came, `problems` what is wrong with it. The answer is stored; the session is
    ready.
    """

    code = "output.invalid"

    def __init__(self, message: str, *, raw_text: str, problems: Sequence[str], session_id: str) -> None:
        super().__init__(message)
        self.raw_text = raw_text
        self.problems = tuple(problems)
        self.session_id = session_id
