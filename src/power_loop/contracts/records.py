"""What the store holds, as frozen records: one class a table that the application can see."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from power_loop.contracts.frozen import frozen
from power_loop.contracts.llm import Usage
from power_loop.contracts.messages import ContentPart, Message
from power_loop.contracts.states import CallState, Effect, SendStatus, SessionState, WaitKind

T = TypeVar("T")


@frozen
class SessionRecord:
    """Is one session. `next_seq` is the sequence number of the next message (the first is 1), `send_count` the number
    of sends so far.

    `version` counts the edits of prompt and metadata. `owner` holds the lease while a turn runs, until
    `lease_until_ms`.
    """

    id: str
    state: SessionState
    system_prompt: str | None
    metadata: Mapping[str, Any]
    created_at_ms: int
    updated_at_ms: int
    next_seq: int
    send_count: int
    version: int
    owner: str | None
    epoch: int
    lease_until_ms: int


@frozen
class MessageRecord:
    """Is one row of the log: `seq` orders it, `send_index` and `round` say which send and model call it belongs to."""

    seq: int
    send_index: int
    round: int
    message: Message
    created_at_ms: int


@frozen
class CallRecord:
    """Is one tool call in the ledger, addressed by (`reply_seq`, `index`) and by `call_id`.

    `arguments` is the JSON text that runs (a person may have edited it). `wait_kind`, `prompt` and `wait_data` say what
    a waiting call asks. `is_approved` tells that a person approved exactly these arguments. `result_seq` is the seq of
    the message that answered it.
    """

    call_id: str
    reply_seq: int
    index: int
    send_index: int
    name: str
    arguments: str
    effect: Effect
    state: CallState
    attempt: int
    idempotency_key: str
    is_approved: bool = False
    wait_kind: WaitKind | None = None
    prompt: str | None = None
    wait_data: Mapping[str, Any] | None = None
    started_at_ms: int | None = None
    ended_at_ms: int | None = None
    result_seq: int | None = None


@frozen
class SendRecord:
    """Is one send: an input and what became of it. `options` is what was asked of this send and what a resume needs
    (JSON).

    `result` is the recorded result (JSON) of a send that ended; `rounds`, `tool_calls` and `usage` count what it took.
    """

    session_id: str
    index: int
    request_id: str | None
    input_hash: str
    status: SendStatus
    first_seq: int
    options: Mapping[str, Any]
    result: Mapping[str, Any] | None
    rounds: int
    tool_calls: int
    usage: Usage
    attempts: int
    started_at_ms: int
    ended_at_ms: int | None


@frozen
class SessionStats:
    """Is what a session took so far."""

    session_id: str
    sends: int
    messages: int
    model_calls: int
    tool_calls: int
    usage: Usage
    stored_bytes: int


@frozen
class Page(Generic[T]):
    """Is one page of a list. `next_cursor` continues it; None is the end."""

    items: tuple[T, ...]
    next_cursor: str | None


@frozen
class Lease:
    """Is the right to write to a session: every write of a turn checks `owner` and `epoch`."""

    session_id: str
    owner: str
    epoch: int


@frozen
class Claim:
    """Is the wish to hold a session's lease as `owner` for `ttl_s` seconds.

    `dead_owner` names an owner that is known to be dead, whose lease counts as free before its time is over.
    """

    session_id: str
    owner: str
    ttl_s: float
    dead_owner: str | None = None


@frozen
class NewSend:
    """Is an input to be stored: its user message, and what `SendRecord` says of the rest."""

    message: Message
    input_hash: str
    options: Mapping[str, Any]
    request_id: str | None = None


@frozen
class Accepted:
    """Is what taking the lease gave: the lease, the last send's index, and the head as it stands.

    `next_seq` is the seq that the next message gets; after `accept` the user message has the one before. `version`
    counts the edits of prompt and metadata. `previous_owner` is set where the lease was taken over from an owner that
    did not give it back.
    """

    lease: Lease
    send_index: int
    next_seq: int
    version: int
    at_ms: int
    previous_owner: str | None = None


@frozen
class NewCall:
    """Is a tool call to be entered in the ledger together with the reply that asks for it."""

    call_id: str
    index: int
    name: str
    arguments: str
    effect: Effect
    state: CallState
    idempotency_key: str


@frozen
class ModelCall:
    """Is what one model call was: `usage` is None when the provider sent none."""

    model: str
    stop: str
    usage: Usage | None
    attempts: int
    duration_ms: int
    provider_id: str | None = None
    request_id: str | None = None


@frozen
class NewReply:
    """Is a reply to be stored at `at_seq`: `messages` is the assistant message and, behind it, answers to calls that do
    not run.

    `answered` tells for each of those answers the index of its call. `end` ends the send in the same transaction and
    releases the lease.
    """

    at_seq: int
    send_index: int
    round: int
    messages: tuple[Message, ...]
    call: ModelCall
    calls: tuple[NewCall, ...] = ()
    answered: tuple[int, ...] = ()
    end: SendEnd | None = None


@frozen
class CallStep:
    """Is one step of a call in the ledger, addressed by (`reply_seq`, `index`).

    With a `message` (a tool message) the step also appends the answer to the log; `whole` is the result as the tool
    gave it, where the message shows a preview. `wait_kind`, `prompt`, `wait_data` go with the step to `waiting`;
    `arguments` and `is_approved` with an approved step back to `requested`; `attempt` with a step to `started`
    or, where a read ran, to `waiting`.
    """

    reply_seq: int
    index: int
    state: CallState
    message: Message | None = None
    whole: tuple[ContentPart, ...] | None = None
    attempt: int | None = None
    wait_kind: WaitKind | None = None
    prompt: str | None = None
    wait_data: Mapping[str, Any] | None = None
    arguments: str | None = None
    is_approved: bool | None = None


@frozen
class SendEnd:
    """Is how a send comes to rest: its status and its recorded result (JSON).

    It releases the lease in the same transaction.
    """

    status: SendStatus
    result: Mapping[str, Any]


@frozen
class SessionView:
    """Is everything a turn needs to know of a session, read in one snapshot.

    `send` is the last send (None before the first), `calls` its open calls in order, `messages` the log in order,
    `tool_state` the session's dict for tools.
    """

    session: SessionRecord
    send: SendRecord | None
    calls: tuple[CallRecord, ...]
    messages: tuple[MessageRecord, ...]
    tool_state: Mapping[str, Any]
