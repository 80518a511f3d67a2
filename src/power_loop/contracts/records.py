"""What the store holds, as frozen records: one class a table that the application can see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from decimal import Decimal
from typing import Any, Generic, TypeVar

from power_loop.contracts.budgets import Charge, NewBudget
from power_loop.contracts.explanation import Segment
from power_loop.contracts.frozen import frozen
from power_loop.contracts.llm import Usage
from power_loop.contracts.messages import ContentPart, Message
from power_loop.contracts.states import CallState, Effect, NextInput, SendStatus, SessionState, WaitKind

T = TypeVar("T")


@frozen
class SessionRecord:
    """Is one session. `next_seq` is the sequence number of the next message (the first is 1), `send_count` the number
    of sends so far.

    `version` counts the edits of prompt and metadata. `owner` holds the lease while a turn runs, until
    `lease_until_ms`. A fork shares the log of `forked_from` up to `forked_at_seq`. The session of a sub-agent was made
    by send `parent_send` of `parent_id`; `root_id` is the session at the top of its tree, `depth` how many stand above
    it. `agent` is what the agent of the session may do (JSON), None where that is the loop's own.
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
    forked_from: str | None = None
    forked_at_seq: int | None = None
    parent_id: str | None = None
    parent_send: int | None = None
    root_id: str | None = None
    depth: int = 0
    agent: Mapping[str, Any] | None = None


@frozen
class NewChild:
    """Is a session to be made for an agent: its id and prompt, what the agent may do, and whose child it is.

    `parent_id` is None of one at the top. A send has `max_children` at most.
    """

    session_id: str
    system_prompt: str | None
    agent: Mapping[str, Any]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    parent_id: str | None = None
    parent_send: int | None = None
    root_id: str | None = None
    depth: int = 0
    max_children: int | None = None


@frozen
class ChildSpending:
    """Is what one send of a sub-agent took, everything below it included."""

    session_id: str
    send_index: int
    usage: Usage
    model_calls: int
    tool_calls: int
    cost_nanos: int | None = None


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
    the message that answered it. `is_keyed` tells that the tool's own `key` gave the idempotency key.
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
    is_keyed: bool = False


@frozen
class SendRecord:
    """Is one send: an input and what became of it. `options` is what was asked of this send and what a resume needs
    (JSON).

    `result` is the recorded result (JSON) of a send that ended; `rounds`, `tool_calls` and `usage` count what it took
    itself, `cost_nanos` the money of the calls whose price was known, None where none was. `paid_by` is the session and
    the send that wait for it and pay for it.
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
    cost_nanos: int | None = None
    paid_by: tuple[str, int] | None = None

    @property
    def dropped_usage(self) -> Usage:
        """What the replies cost that a hook kept out of the log."""
        recorded: Any = (self.result or {}).get("dropped_usage")
        return Usage(**recorded) if isinstance(recorded, dict) else Usage()

    @property
    def dropped_cost_nanos(self) -> int | None:
        """What these replies cost in nano-units, where a price was known."""
        recorded = (self.result or {}).get("dropped_cost_nanos")
        return recorded if isinstance(recorded, int) else None


@frozen
class SessionStats:
    """Is what a session took so far. `usage` and `cost` count the session and every one below it; `children_usage` is
    the part of those, and `children` how many they are. `cost` is the money of the model calls whose price was known,
    in the price table's currency; None where none was."""

    session_id: str
    sends: int
    messages: int
    model_calls: int
    tool_calls: int
    usage: Usage
    stored_bytes: int
    cost: Decimal | None = None
    children: int = 0
    children_usage: Usage = Usage()


@frozen
class Page(Generic[T]):
    """Is one page of a list. `next_cursor` continues it; None is the end."""

    items: tuple[T, ...]
    next_cursor: str | None


@frozen
class Lease:
    """Is the right to write to a session: every write of a turn checks `owner`, `epoch` and `signals`.

    `signals` is the session's count of those who wanted the running turn's ear, as far as the turn has heard them:
    where the count has moved on, a write changes nothing and raises `Signalled` with the news. With `ANY_SIGNALS` it is
    made whatever the count is: where others speak all the time, it would never be the turn's turn otherwise.
    """

    session_id: str
    owner: str
    epoch: int
    signals: int = 0


#: In place of a lease's `signals`: its write is made whatever somebody outside has to say.
ANY_SIGNALS = -1


@frozen
class News:
    """Is what somebody outside has to say to a running turn, as of the count `signals`.

    `cancel_reason` is set where this very turn is asked to stop. `next_input` is what waits first in the inbox.
    """

    signals: int
    cancel_reason: str | None
    next_input: NextInput


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
    """Is an input to be stored: its user message, and what `SendRecord` says of the rest.

    `inbox_position` is set where the input is the first that waits in the inbox. `budget` is stored with the send as
    its own. `paid_by` is the session and the send that wait for it and pay for it.
    """

    message: Message
    input_hash: str
    options: Mapping[str, Any]
    request_id: str | None = None
    inbox_position: int | None = None
    budget: NewBudget | None = None
    paid_by: tuple[str, int] | None = None


@frozen
class Accepted:
    """Is what taking the lease gave: the lease, the last send's index, and the head as it stands.

    `next_seq` is the seq that the next message gets; after `accept` the user message has the one before. `version`
    counts the edits of prompt and metadata. `previous_owner` is set where the lease was taken over from an owner that
    did not give it back. `next_input` is what waits first in the inbox.
    """

    lease: Lease
    send_index: int
    next_seq: int
    version: int
    at_ms: int
    previous_owner: str | None = None
    next_input: NextInput = NextInput.NONE


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
    is_keyed: bool = False


@frozen
class ModelCall:
    """Is what one model call was: `usage` is None when the provider sent none. `estimated_tokens` is what the prompt
    was estimated at before, `segments` what it was made of, from its start on. `cost_nanos` is what it cost in
    nano-units of the price table's currency, None where no price was known."""

    model: str
    stop: str
    usage: Usage | None
    attempts: int
    duration_ms: int
    provider_id: str | None = None
    request_id: str | None = None
    estimated_tokens: int | None = None
    segments: tuple[Segment, ...] = ()
    cost_nanos: int | None = None


@frozen
class ModelCallRecord:
    """Is one stored model call, addressed by the seq of the reply that it gave."""

    reply_seq: int
    send_index: int
    round: int
    call: ModelCall
    created_at_ms: int


@frozen
class NewFold:
    """Is a fold to be stored: `summary` stands in the window for everything up to `to_seq`, older folds included.

    What stands at `pinned_seqs`, among what it covers, is shown behind the summary as it is. `strategy` and `model`
    made it with `model_calls` calls that took `usage`; the window went from about `tokens_before` to `tokens_after`.
    `refused_tokens` is set where the model `refused_by` refused a prompt for its size: the estimate of the smallest
    one, which later folds hand on. `text_seq` is the seq of the last reply of the running send that says something and
    is covered. `tool_state` replaces the session's dict for tools in the same transaction, in which `charges` are paid;
    `cost_nanos` is the money among them, None where no price was known.
    """

    to_seq: int
    summary: str
    send_index: int
    round: int
    strategy: str
    pinned_seqs: tuple[int, ...] = ()
    model: str | None = None
    model_calls: int = 0
    usage: Usage | None = None
    tokens_before: int = 0
    tokens_after: int = 0
    refused_tokens: int | None = None
    refused_by: str | None = None
    text_seq: int | None = None
    tool_state: Mapping[str, Any] | None = None
    cost_nanos: int | None = None
    charges: tuple[Charge, ...] = ()


@frozen
class FoldRecord:
    """Is a stored fold; for its fields see `NewFold`. `from_seq` is the first seq that the fold before it did not
    cover, and `pruned_at_ms` when the originals were removed, if they were."""

    session_id: str
    from_seq: int
    to_seq: int
    summary: str
    send_index: int
    round: int
    strategy: str
    created_at_ms: int
    pinned_seqs: tuple[int, ...] = ()
    model: str | None = None
    model_calls: int = 0
    usage: Usage | None = None
    tokens_before: int = 0
    tokens_after: int = 0
    refused_tokens: int | None = None
    refused_by: str | None = None
    text_seq: int | None = None
    pruned_at_ms: int | None = None
    cost_nanos: int | None = None


@frozen
class ProjectedMessage:
    """Is a stretch of a finished send as the projection shows it: the messages from `seq` to `to_seq` in one
    `message`, which holds nothing but content parts."""

    seq: int
    to_seq: int
    message: Message


@frozen
class NewReply:
    """Is a reply to be stored at `at_seq`: `messages` is the assistant message and, behind it, answers to calls that do
    not run.

    `answered` tells for each of those answers the index of its call. `end` ends the send in the same transaction and
    releases the lease. `charges` are paid in it.
    """

    at_seq: int
    send_index: int
    round: int
    messages: tuple[Message, ...]
    call: ModelCall
    calls: tuple[NewCall, ...] = ()
    answered: tuple[int, ...] = ()
    end: SendEnd | None = None
    charges: tuple[Charge, ...] = ()


@frozen
class CallStep:
    """Is one step of a call in the ledger, addressed by (`reply_seq`, `index`).

    With a `message` (a tool message) the step also appends the answer to the log; `whole` is the result as the tool
    gave it, where the message shows a preview. `wait_kind`, `prompt`, `wait_data` go with the step to `waiting`;
    `arguments` and `is_approved` with an approved step back to `requested`, `idempotency_key` wherever other arguments
    gave another one; `attempt` with a step to `started` or, where no step to it was needed, with the one behind it.
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
    idempotency_key: str | None = None


@frozen
class EffectFailure:
    """Is why a tool's body came to nothing: what it raised. Nothing of it is in the database."""

    error: BaseException


@frozen
class AgentReport:
    """Is what a detached sub-agent leaves in the inbox of the session that made it, once under its `request_id`."""

    session_id: str
    request_id: str
    message: Message


@frozen
class SendEnd:
    """Is how a send comes to rest: its status and its recorded result (JSON), how the projection shows it, whom it
    reports to, and the workflow's run that it `wakes` because that rests until it ends.

    It releases the lease in the same transaction. `charges` are paid in it, and where the send `has_payers`, whatever
    its session still holds of their budgets is settled.
    """

    status: SendStatus
    result: Mapping[str, Any]
    projection: tuple[ProjectedMessage, ...] = ()
    charges: tuple[Charge, ...] = ()
    has_payers: bool = False
    report: AgentReport | None = None
    wakes: str | None = None


@frozen
class InboxRecord:
    """Is one input in a session's inbox, addressed by `position`, which counts from 1.

    While it waits it has its `message`; then `taken_at_ms` says when it left, `send_index` and `seq` where it stands in
    the log. Both are None of one that was withdrawn or refused.
    """

    session_id: str
    position: int
    request_id: str | None
    input_hash: str
    message: Message | None
    options: Mapping[str, Any]
    created_at_ms: int
    taken_at_ms: int | None = None
    send_index: int | None = None
    seq: int | None = None

    @property
    def is_waiting(self) -> bool:
        """True until it is delivered, withdrawn or refused."""
        return self.taken_at_ms is None


@frozen
class Queued:
    """Is an input that was put in the inbox: its row, and whether a turn holds the session's lease that will see it.

    `is_known` tells that the row was there already under the same `request_id`.
    """

    record: InboxRecord
    is_turn_running: bool
    is_known: bool = False


@frozen
class TakenInput:
    """Is a waiting input on its way into the log as `message`; None where a hook refused it."""

    position: int
    message: Message | None


@frozen
class StalledSession:
    """Is a session that nobody drives although something is to be done.

    `owner` left its lease, which is over or whose process is dead; None where the lease was given back, and the send
    still runs or `waiting_inputs` wait in the inbox. `send_status`, `send_index` and `attempts` are of its last send,
    None, 0 and 0 before the first.
    """

    session_id: str
    owner: str | None
    epoch: int
    lease_until_ms: int
    waiting_inputs: int
    send_status: SendStatus | None
    send_index: int
    attempts: int


@frozen
class SessionView:
    """Is everything a turn needs to know of a session, read in one snapshot.

    `send` is the last send (None before the first), `calls` its open calls in order, `tool_state` the session's dict
    for tools. `fold` is the newest fold, `pinned` what it covers and shows all the same. `messages` is the log in order
    behind the fold; where `projected` was asked for and there are rows, without what these stand for. `last_call` is
    the last model call.
    """

    session: SessionRecord
    send: SendRecord | None
    calls: tuple[CallRecord, ...]
    messages: tuple[MessageRecord, ...]
    tool_state: Mapping[str, Any]
    fold: FoldRecord | None = None
    pinned: tuple[MessageRecord, ...] = ()
    projected: tuple[ProjectedMessage, ...] = ()
    last_call: ModelCallRecord | None = None
