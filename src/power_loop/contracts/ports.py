"""What the loop asks of a store: the whole list of durable moves and reads, in no database's words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from power_loop.contracts.blackboard import BlackboardEntry
from power_loop.contracts.budgets import BudgetKey, BudgetRecord, Charge, Granted, NewHold, Shortage
from power_loop.contracts.messages import ContentPart, Message
from power_loop.contracts.records import (
    Accepted,
    CallRecord,
    CallStep,
    ChildSpending,
    Claim,
    EffectFailure,
    FoldRecord,
    InboxRecord,
    Lease,
    MessageRecord,
    ModelCallRecord,
    NewChild,
    NewFold,
    NewReply,
    News,
    NewSend,
    Page,
    Queued,
    SendEnd,
    SendRecord,
    SessionRecord,
    SessionStats,
    SessionView,
    StalledSession,
    TakenInput,
)
from power_loop.contracts.states import CallState, SessionState
from power_loop.contracts.timers import NewTimer, TimerClaim, TimerDelivery, TimerMaker, TimerRecord
from power_loop.contracts.tools import ToolBody
from power_loop.contracts.workflow_runs import (
    NewRun,
    RunEnd,
    RunWrite,
    WorkflowRunRecord,
    WorkflowSignalRecord,
    WorkflowStepRecord,
)


class Signalled(Exception):  # noqa: N818  (a signal to the running turn, not an error)
    """Says that somebody outside wants the ear of the turn that writes: nothing was written, and its lease stands.

    The turn hears the `news`, and makes the move again with a lease that has its count of `signals` or `ANY_SIGNALS`,
    or decides anew.
    """

    def __init__(self, news: News) -> None:
        super().__init__(news)
        self.news = news


class Listener(Protocol):
    """Is an ear at a database: it hears when somebody leaves something to do."""

    @property
    def is_open(self) -> bool:
        """False once nothing will be heard any more."""
        ...

    async def check(self) -> bool:
        """Ask the database for a sign of life; False where none comes."""
        ...

    async def aclose(self) -> None:
        """Listen no longer."""
        ...


class SessionStore(Protocol):
    """Keeps sessions. Every method is one transaction or one consistent read; a cancelled caller never leaves one open.

    A write that was begun is carried to its end even if its caller is cancelled. All methods raise `StoreError`s for
    what the database does, and `session.not_found` for an unknown session.
    """

    @property
    def memo(self) -> dict[str, Any]:
        """Scratch space that all handles of one open database share in this process; each user has a key of its own."""
        ...

    async def aclose(self) -> None:
        """Let the database go; the last user closes it."""
        ...

    # ---- sessions ----

    async def create_session(
        self, session_id: str, *, system_prompt: str | None, metadata: Mapping[str, Any]
    ) -> SessionRecord:
        """Make a session. Raises `session.exists`."""
        ...

    async def create_child(self, new: NewChild, *, lease: Lease | None = None) -> SessionRecord:
        """Make a session for an agent, or return the one that is there already.

        With the `lease` of the parent's turn, nothing is made once that is lost. Raises `session.lease_lost`,
        `session.exists` for an id that is another one's, `agent.limit`.
        """
        ...

    async def get_children(self, session_id: str) -> tuple[SessionRecord, ...]:
        """Return the sessions directly below one."""
        ...

    async def get_children_spending(self, session_id: str, send_index: int) -> tuple[ChildSpending, ...]:
        """Return what each send took that a send pays for, everything below it included."""
        ...

    async def get_session(self, session_id: str) -> SessionRecord:
        """Return the head of a session."""
        ...

    async def list_sessions(
        self,
        *,
        state: SessionState | None = None,
        metadata: Mapping[str, Any] | None = None,
        parent_id: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page[SessionRecord]:
        """Return a page of sessions, newest first; `metadata` keeps those whose metadata has these top-level values,
        `parent_id` those that a session made for its sub-agents."""
        ...

    async def update_session(
        self,
        session_id: str,
        *,
        system_prompt: str | None = None,
        clear_system_prompt: bool = False,
        metadata: Mapping[str, Any] | None = None,
    ) -> SessionRecord:
        """Change the prompt and/or replace the metadata, and count `version` up. What is None stays."""
        ...

    async def close_session(self, session_id: str) -> bool:
        """Close a session to input; False if it was closed before.

        Raises `session.busy` while a turn holds its lease.
        """
        ...

    # ---- reads ----

    async def read_view(self, session_id: str, *, projected: bool = False) -> SessionView:
        """Return everything a turn needs to know, read in one snapshot: what stands behind the newest fold, and
        `projected`, the rows of the projection in place of the messages that they stand for."""
        ...

    async def get_messages(
        self, session_id: str, *, after_seq: int = 0, limit: int | None = None
    ) -> tuple[MessageRecord, ...]:
        """Return messages in order of `seq`, those after `after_seq`, at most `limit`."""
        ...

    async def search_messages(
        self, session_id: str, text: str, *, after_seq: int = 0, to_seq: int | None = None, limit: int = 20
    ) -> tuple[tuple[MessageRecord, ...], int | None]:
        """Return messages whose texts contain `text`, whatever its case, in order of `seq` from behind `after_seq` to
        `to_seq`; and the seq to go on behind, None at the end. One call looks at a bounded part of the log only, so a
        page may hold fewer than `limit`, or none, and still go on."""
        ...

    async def get_folds(self, session_id: str) -> tuple[FoldRecord, ...]:
        """Return the folds of a session, oldest first, those that it shares with what it was forked from included."""
        ...

    async def get_model_calls(
        self, session_id: str, *, before_seq: int | None = None, limit: int = 50
    ) -> tuple[ModelCallRecord, ...]:
        """Return model calls, newest first, those whose reply stands before `before_seq`, at most `limit`."""
        ...

    async def find_call_ids(self, session_id: str, call_ids: Sequence[str]) -> frozenset[str]:
        """Return those of `call_ids` that calls of this session's own log have."""
        ...

    async def get_calls(self, session_id: str, *, states: Sequence[CallState] | None = None) -> tuple[CallRecord, ...]:
        """Return calls of the ledger in order, of these states only if given."""
        ...

    async def get_keyed_calls(self, session_id: str, key: str) -> tuple[CallRecord, ...]:
        """Return the calls in order to which their tool's own `key` gave this idempotency key."""
        ...

    async def get_send(
        self, session_id: str, *, index: int | None = None, request_id: str | None = None
    ) -> SendRecord | None:
        """Return a send by its index or its request id; the last one if neither is given. None if there is none.

        Raises `input.invalid` for what can be no request id.
        """
        ...

    async def get_tool_result(self, session_id: str, call_id: str) -> tuple[ContentPart, ...] | None:
        """Return the whole result of a call, also where the log shows the model only a preview; None if it has none."""
        ...

    async def get_stats(self, session_id: str) -> SessionStats:
        """Return what a session took so far."""
        ...

    async def get_budget_path(self, key: BudgetKey) -> tuple[BudgetRecord, ...]:
        """Return a budget and those that pay with it, upwards, without what is reserved; () where there is none."""
        ...

    async def get_budget(self, key: BudgetKey) -> BudgetRecord | None:
        """Return a budget with what is reserved of it and with those that it pays for; None where there is none."""
        ...

    # ---- the durable moves of a turn ----

    async def accept(self, claim: Claim, new: NewSend) -> Accepted | SendRecord | InboxRecord:
        """Take the lease and store the input of a new send, or return the send that has this `request_id` already.

        An `InboxRecord` says that nothing was stored: it has this `request_id`, or it is the first that waits and has
        to come before. With an `inbox_position`, the input leaves the inbox in the same transaction. A send that an
        earlier process left `running` without open calls becomes `interrupted`, and what its calls held of budgets is
        settled. A `budget` is stored with its send. Raises `session.closed`,
        `session.busy`, `session.pending` (open calls), `request.conflict`.
        """
        ...

    async def take_up(self, claim: Claim, *, drives: bool = True) -> Accepted:
        """Take the lease to drive the last send on: it becomes `running` and its `attempts` count up. Where nothing
        `drives` it, it stays as it is. What earlier calls of the session held of budgets is settled: their prompts are
        paid.

        Raises `session.busy`.
        """
        ...

    # These five raise `session.lease_lost`, and `Signalled` where somebody outside has news for the turn.

    async def append_reply(self, lease: Lease, reply: NewReply) -> None:
        """Store a reply, its calls, its usage and, if the send ends with it, the end."""
        ...

    async def advance_calls(
        self,
        lease: Lease,
        steps: Sequence[CallStep],
        *,
        at_seq: int,
        send_index: int,
        round: int,
        tool_state: Mapping[str, Any] | None = None,
        end: SendEnd | None = None,
    ) -> None:
        """Make steps of the ledger; their messages get the seqs from `at_seq` on, in the order given.

        `tool_state` replaces the session's dict for tools. A step that `CALL_STEPS` does not allow from where the row
        stands is `store.corrupt`, and nothing is written.
        """
        ...

    async def run_effect(
        self,
        lease: Lease,
        name: str,
        body: ToolBody,
        *,
        end: Callable[[Any], CallStep],
        at_seq: int,
        send_index: int,
        round: int,
        tool_state: Mapping[str, Any] | None = None,
    ) -> CallStep | EffectFailure:
        """Run the body of the tool `name` in the transaction that makes the step which `end` returns for what the body
        returned, with a message for the seq `at_seq`; return that step, or the failure of the body."""
        ...

    async def take_inputs(
        self, lease: Lease, inputs: Sequence[TakenInput], *, at_seq: int, send_index: int, round: int
    ) -> None:
        """Move the first waiting inputs into the log, from `at_seq` on in order; those without a message only leave."""
        ...

    async def append_fold(self, lease: Lease, fold: NewFold, *, at_seq: int) -> FoldRecord:
        """Store a fold and return it: from then on `read_view` begins with it. Nothing that it covers changes.

        `at_seq` is the seq of the next message. Raises `store.corrupt` for a range that does not reach beyond the fold
        before it, or reaches beyond the log.
        """
        ...

    async def end_send(self, lease: Lease, send_index: int, end: SendEnd) -> None:
        """Bring a send to rest and release the lease."""
        ...

    async def reserve(
        self, lease: Lease, wish: NewHold, *, charges: Sequence[Charge] = (), at_seq: int
    ) -> Granted | Shortage:
        """Hold what the next call may take, on every budget or on none.

        Of the `charges`, which a later move is to pay, no more is held from here on than what they came to. `at_seq` is
        the seq of the next message. News do not keep it from being made. Raises `session.lease_lost`.
        """
        ...

    async def renew(self, lease: Lease, *, ttl_s: float) -> None:
        """Lengthen the lease. Raises `session.lease_lost`."""
        ...

    async def release(self, lease: Lease, *, hands_back: bool = False) -> None:
        """Give the lease back without another change; does nothing if it is lost already.

        Where the send still runs, the session is free too, and `find_stalled` finds it. An owner that `hands_back` what
        it could drive on, because it ends itself, leaves the send's `attempts` as if it had not taken it up.
        """
        ...

    # ---- what reaches a turn from outside, without a lease ----

    async def put_input(self, session_id: str, new: NewSend) -> Queued | SendRecord:
        """Leave an input in the inbox and signal the running turn, or return what has this `request_id` already.

        Raises `session.closed`, `session.inbox_full`, `request.conflict`.
        """
        ...

    async def get_inbox(self, session_id: str, *, limit: int | None = None) -> tuple[InboxRecord, ...]:
        """Return the inputs that wait, in order, at most `limit`."""
        ...

    async def withdraw_input(self, session_id: str, position: int) -> bool:
        """Take an input back that waits; False if it does not (any more)."""
        ...

    async def ask_to_cancel(self, session_id: str, *, reason: str) -> SessionRecord:
        """Ask the turn that holds the lease to stop, that one and none after it; return the head as it stands."""
        ...

    async def read_signals(self, session_ids: Sequence[str]) -> dict[str, tuple[int, int]]:
        """Return (epoch, signals) of the sessions among these that there are."""
        ...

    async def read_news(self, lease: Lease) -> News:
        """Return what somebody outside has to say to the turn that holds the lease. Raises `session.lease_lost`."""
        ...

    # ---- the blackboard of a tree of sessions, which any session of the tree names ----

    async def read_entries(
        self,
        session_id: str,
        *,
        keys: Sequence[str] | None = None,
        prefix: str = "",
        after: str | None = None,
        limit: int = 100,
    ) -> tuple[BlackboardEntry, ...]:
        """Return entries in order of their keys, at most `limit` and at most 500: of these `keys`, or of those that
        begin with `prefix` and come behind `after`."""
        ...

    async def post_entry(
        self, session_id: str, key: str, value: Any, *, author_session_id: str | None = None
    ) -> BlackboardEntry:
        """Put a new entry on the board.

        Raises `blackboard.conflict` where the key is taken, `blackboard.full` behind 500 entries, and `input.invalid`
        for what can be no key, no JSON, or has more than 16,384 bytes.
        """
        ...

    async def update_entry(
        self, session_id: str, key: str, value: Any, *, expected_version: int, author_session_id: str | None = None
    ) -> BlackboardEntry:
        """Change an entry that has this version. Raises `blackboard.conflict` where it has not, or is not there."""
        ...

    async def remove_entry(self, session_id: str, key: str, *, expected_version: int) -> None:
        """Take away an entry that has this version. Raises `blackboard.conflict` as `update_entry` does."""
        ...

    # ---- the runs of workflows ----

    async def create_run(self, run: NewRun, *, lease: Lease | None = None) -> WorkflowRunRecord:
        """Make a run with its session, or return the one that is there already.

        With the `lease` of the parent's turn, nothing is made once that is lost. Raises `session.lease_lost`,
        `session.exists` for an id that is another one's.
        """
        ...

    async def advance_run(
        self, lease: Lease, write: RunWrite, *, at_seq: int, send_index: int, end: RunEnd | None = None
    ) -> None:
        """Write steps of a run and what belongs to them; with `end` it comes to rest and the lease is given back.

        `at_seq` is the seq of the next message. Raises `session.lease_lost`, `Signalled`, and `store.corrupt` where the
        rows are not there that are to change.
        """
        ...

    async def signal_run(self, run_id: str, name: str, value: Any = None) -> WorkflowSignalRecord:
        """Leave a signal to a run, and signal its engine. Raises `workflow.not_found`, `input.invalid` for a run that
        has ended."""
        ...

    async def get_run(self, run_id: str) -> WorkflowRunRecord:
        """Return a run. Raises `workflow.not_found`."""
        ...

    async def read_journal(
        self, run_id: str
    ) -> tuple[WorkflowRunRecord, tuple[WorkflowStepRecord, ...], tuple[WorkflowSignalRecord, ...]]:
        """Return a run with its steps and the signals to it, in one snapshot. Raises `workflow.not_found`."""
        ...

    async def get_run_signals(self, run_id: str, *, after: int = 0) -> tuple[WorkflowSignalRecord, ...]:
        """Return the signals to a run, in order, those behind a position."""
        ...

    async def list_runs(
        self,
        *,
        state: str | None = None,
        parent_session_id: str | None = None,
        before: tuple[int, str] | None = None,
        limit: int = 50,
    ) -> tuple[WorkflowRunRecord, ...]:
        """Return runs, newest first, behind the one that was made at `before` and has that id; at most `limit`."""
        ...

    # ---- timers ----

    async def schedule_timer(self, new: NewTimer) -> TimerRecord:
        """Make a timer, or return the one of this id that was made of the same request.

        Raises `session.closed`, `schedule.invalid`, `schedule.no_time_zone`, `timer.limit`, `request.conflict`.
        """
        ...

    async def cancel_timer(self, timer_id: str, *, session_id: str | None = None) -> bool:
        """End a timer, of this session if one is given; False if it had ended. Raises `timer.not_found`."""
        ...

    async def get_timer(self, timer_id: str) -> TimerRecord:
        """Return a timer. Raises `timer.not_found`."""
        ...

    async def list_timers(
        self,
        session_id: str | None = None,
        *,
        include_ended: bool = False,
        cursor: str | None = None,
        limit: int = 100,
    ) -> Page[TimerRecord]:
        """Return a page of armed timers, of one session or of all, in order of their ids; ended ones too if
        `include_ended` says so."""
        ...

    async def claim_timers(
        self,
        owner: str,
        *,
        ttl_s: float,
        limit: int,
        timer_ids: Sequence[str] | None = None,
        dead_owners: Sequence[str] = (),
        made_by: TimerMaker | None = None,
    ) -> tuple[TimerClaim, ...]:
        """Give due timers to `owner`, the longest overdue first, at most `limit`, or those of `timer_ids` or of a maker
        that are due. A claim that nothing came of within `ttl_s` is given to the next who asks; what one of
        `dead_owners` has claimed is due at once. Raises `store.schema_newer`."""
        ...

    async def list_timer_owners(self, *, within_s: float) -> tuple[str, ...]:
        """Return who holds claims of timers that are over within so many seconds."""
        ...

    async def deliver_timer(self, claim: TimerClaim, message: Message, *, input_hash: str) -> TimerDelivery | None:
        """Put a firing's input into its session's inbox under the request id `{timer id}:{number}` and move the timer
        on, in one transaction; end it where the session is closed. None where the claim was lost: nothing was done.

        The timer of a workflow for its own run brings no input: it wakes the run, if that rests. Raises
        `session.inbox_full`.
        """
        ...

    async def drop_timer(self, claim: TimerClaim, *, is_veto: bool) -> TimerRecord | None:
        """Leave a firing out, vetoed or missed, and move the timer on; None where the claim was lost."""
        ...

    async def put_back_timer(self, claim: TimerClaim, *, after_s: float, error: str | None) -> TimerRecord | None:
        """Give a claim back, so that the firing comes again after so long: it failed by an `error`, or is postponed;
        None where the claim was lost."""
        ...

    async def next_timer_in_s(self) -> float | None:
        """Return in how many seconds, by the store's time, a timer has to be looked at first; None if none is armed."""
        ...

    def watch_timers(self, heard: Callable[[], None]) -> Callable[[], None]:
        """Call `heard`, in whatever thread, whenever this process made a timer; what is returned ends that."""
        ...

    # ---- what nobody drives ----

    async def list_owners(self) -> tuple[str, ...]:
        """Return the names that hold leases which are not over."""
        ...

    async def find_stalled(
        self, *, dead_owners: Sequence[str] = (), older_than_ms: int = 0, limit: int = 100
    ) -> tuple[StalledSession, ...]:
        """Return sessions whose lease is over for `older_than_ms` or held by one of `dead_owners`, then open ones that
        rest while inputs wait for so long; at most `limit`."""
        ...

    async def claim_stalled(
        self,
        owner: str,
        *,
        ttl_s: float,
        limit: int,
        dead_owners: Sequence[str] = (),
        passing_over: Sequence[str] = (),
        failed_within_ms: int = 0,
    ) -> tuple[StalledSession, ...]:
        """Take the leases of stalled sessions that somebody can do something about, at most `limit`, and return them
        with the `owner` that each had and its new `epoch`.

        First come those whose turn died, then those where inputs wait, the one that was served longest ago first. Left
        out are sessions that wait for a person, those in `passing_over`, and inputs behind a send that failed within so
        many milliseconds. What somebody else is writing at this moment is passed over and not waited for.
        """
        ...

    async def listen(self, heard: Callable[[], None]) -> Listener | None:
        """Call `heard`, from whichever thread, when something is left that `claim_stalled` may find, and when the ear
        is lost; None where the database tells nobody."""
        ...
