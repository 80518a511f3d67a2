"""The lifecycles: which states a session, a send and a tool call have, and which steps between them are allowed."""

from __future__ import annotations

from enum import Enum


class SessionState(str, Enum):
    """Is where a session stands."""

    OPEN = "open"
    CLOSED = "closed"


class SendStatus(str, Enum):
    """Is where a send stands; all but `running` and `waiting_for_input` are ends."""

    RUNNING = "running"
    WAITING_FOR_INPUT = "waiting_for_input"
    COMPLETED = "completed"
    TRUNCATED = "truncated"  # the model's answer was cut by its output cap
    REFUSED = "refused"  # the model refused
    CONTENT_FILTERED = "content_filtered"  # the provider withheld the answer
    EMPTY = "empty"  # the model answered nothing
    VETOED = "vetoed"  # a hook ended the send
    CANCELLED = "cancelled"
    ROUNDS_EXCEEDED = "rounds_exceeded"
    TOKENS_EXCEEDED = "tokens_exceeded"
    COST_EXCEEDED = "cost_exceeded"
    TOOL_CALLS_EXCEEDED = "tool_calls_exceeded"
    TIME_EXCEEDED = "time_exceeded"
    OUTPUT_INVALID = "output_invalid"  # the answer does not fit output_schema
    FAILED = "failed"  # the model could not be reached; resume() tries again
    INTERRUPTED = "interrupted"  # its process died and another send went on without it
    ABORTED = "aborted"  # abort_pending() or heal_pending() ended it
    NO_SEND = "no_send"  # of a session without a send, where one is to be resumed or given up; never stored
    QUEUED = "queued"  # the input waits in the session's inbox; never stored


#: A send in one of these states can be driven on by `resume()`.
RESUMABLE_SENDS = frozenset({SendStatus.RUNNING, SendStatus.WAITING_FOR_INPUT, SendStatus.FAILED})


class OnBusy(str, Enum):
    """Is what a send does while somebody else's turn runs on its session."""

    RAISE = "raise"  # session.busy
    WAIT = "wait"  # until that turn rests, or its owner is dead
    QUEUE = "queue"  # the input is left in the session's inbox, and the call returns at once


class NextInput(str, Enum):
    """Is what waits first in a session's inbox."""

    NONE = "none"  # nothing waits
    FOLLOW_UP = "follow_up"  # an input that a running turn takes in at its next round
    SEND = "send"  # an input with options of its own, which becomes a turn of its own


class Effect(str, Enum):
    """Is what running a tool twice would do; it decides what happens to a call whose process died."""

    READ = "read"  # no effect: run again freely
    IDEMPOTENT = "idempotent"  # run again with the same ctx.idempotency_key
    ONCE = "once"  # never run again by itself: the outcome is unknown
    TRANSACTIONAL = "transactional"  # commits in one transaction with its result: exactly once


#: What is started only after the ledger says so, because somebody may have to know that it may have happened.
LASTING_EFFECTS = frozenset({Effect.IDEMPOTENT, Effect.ONCE})


class OnUnknown(str, Enum):
    """Is what happens to a `once` call whose process died while it ran, where no probe tells what became of it."""

    TELL_MODEL = "tell_model"  # it is settled as unknown, and the model is told so
    ASK = "ask"  # it waits for a person, who says what became of it
    RERUN = "rerun"  # it runs again with the same idempotency key


class CallState(str, Enum):
    """Is where a tool call stands in the ledger."""

    REQUESTED = "requested"  # the model asked for it; it has not run
    STARTED = "started"  # it may have had its effect
    WAITING = "waiting"  # a person or the application has to answer
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UNKNOWN = "unknown"  # it had started, and was given up without an outcome
    ABORTED = "aborted"


#: A call in one of these states keeps its send from ending.
OPEN_CALLS = frozenset({CallState.REQUESTED, CallState.STARTED, CallState.WAITING})

#: The steps of a call. A state without a row is final and its row never changes again.
CALL_STEPS: dict[CallState, frozenset[CallState]] = {
    CallState.REQUESTED: frozenset(
        {
            CallState.STARTED,
            CallState.WAITING,
            CallState.SUCCEEDED,
            CallState.FAILED,
            # It had run before it waited, and is given up.
            CallState.UNKNOWN,
            CallState.ABORTED,
        }
    ),
    # Back to `started` is a second attempt of a call that may run again.
    CallState.STARTED: frozenset(
        {
            CallState.STARTED,
            CallState.WAITING,
            CallState.SUCCEEDED,
            CallState.FAILED,
            CallState.UNKNOWN,
            CallState.ABORTED,
        }
    ),
    CallState.WAITING: frozenset(
        {CallState.REQUESTED, CallState.SUCCEEDED, CallState.FAILED, CallState.UNKNOWN, CallState.ABORTED}
    ),
}


class WaitKind(str, Enum):
    """Is what a waiting call waits for."""

    APPROVAL = "approval"  # a person says whether it may run
    INPUT = "input"  # a person gives its value
    RESULT = "result"  # the application brings its result
    AGENT = "agent"  # a sub-agent waits, for one of these
    OUTCOME = "outcome"  # a person says what became of a call whose process died while it ran


class SchemaPolicy(str, Enum):
    """Is what opening a store may do to the tables of a database."""

    AUTO_CREATE = "auto_create"  # missing tables are made, older ones brought up to date
    VERIFY = "verify"  # nothing is changed: what is missing is an error that holds the DDL
