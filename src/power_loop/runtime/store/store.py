"""Is the store as the loop sees it: a counted handle on an open database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, NoReturn

from power_loop.contracts.blackboard import BlackboardEntry
from power_loop.contracts.budgets import BudgetKey, BudgetRecord, Charge, Granted, NewHold, Shortage, money_of
from power_loop.contracts.clock import Clock
from power_loop.contracts.diagnosis import Finding
from power_loop.contracts.errors import InputError, SessionBusyError, StoreError
from power_loop.contracts.messages import ContentPart, Message, clean_text
from power_loop.contracts.numbers import MAX_INTEGER, check_whole
from power_loop.contracts.ports import Listener
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
from power_loop.contracts.session_ids import check_session_id, is_session_id
from power_loop.contracts.states import CallState, SessionState
from power_loop.contracts.timers import (
    NewTimer,
    TimerClaim,
    TimerDelivery,
    TimerMaker,
    TimerRecord,
    check_timer_id,
)
from power_loop.contracts.tools import ToolBody
from power_loop.contracts.upkeep import BackedUp, Checkpointed, Vacuumed
from power_loop.contracts.workflow_runs import (
    NewRun,
    RunEnd,
    RunWrite,
    WorkflowRunRecord,
    WorkflowSignalRecord,
    WorkflowStepRecord,
)
from power_loop.runtime.store.blackboard import Boards, BoardWork
from power_loop.runtime.store.blobs import Blobs
from power_loop.runtime.store.budgets import Budgets
from power_loop.runtime.store.children import Children
from power_loop.runtime.store.claims import Claims
from power_loop.runtime.store.codec import encode_json
from power_loop.runtime.store.commits import Commits, checked_request_id, new_op
from power_loop.runtime.store.doctor import Doctor
from power_loop.runtime.store.folds import Folds
from power_loop.runtime.store.inbox import Inbox
from power_loop.runtime.store.lineage import END_OF_LOG, Span, clipped, spans_behind, spans_of
from power_loop.runtime.store.memories import Memories, MemoryRows
from power_loop.runtime.store.messages import Messages
from power_loop.runtime.store.operations import Operations
from power_loop.runtime.store.outsiders import Outsiders
from power_loop.runtime.store.projections import Projections
from power_loop.runtime.store.run_wakes import RunWakes
from power_loop.runtime.store.sends import Sends
from power_loop.runtime.store.sessions import Sessions, not_found
from power_loop.runtime.store.sql.database import Body, Database, Landed, T, Transaction
from power_loop.runtime.store.sql.dialect import Renderer
from power_loop.runtime.store.stalled import Stalled, StalledReads
from power_loop.runtime.store.timer_moves import TimerMoves
from power_loop.runtime.store.timers import TimerRows
from power_loop.runtime.store.tool_calls import ToolCalls
from power_loop.runtime.store.usage import ModelCalls
from power_loop.runtime.store.workflow_commits import RunCommits
from power_loop.runtime.store.workflow_rows import RunRows

_MAX_PAGE = 1000


class Rooms:
    """Is the tables of one prefix in one open database, with the statements on them: what all handles on them share."""

    def __init__(self, database: Database, render: Renderer) -> None:
        self.database = database
        self.render = render
        self.sessions = Sessions(render)
        self.blobs = Blobs(render)
        self.messages = Messages(render, self.blobs)
        self.calls = ToolCalls(render, self.blobs)
        self.model_calls = ModelCalls(render)
        self.sends = Sends(render, self.calls, self.model_calls)
        self.children = Children(render, sessions=self.sessions, sends=self.sends, model_calls=self.model_calls)
        self.folds = Folds(render)
        self.projections = Projections(render, self.blobs)
        self.inbox = Inbox(render)
        self.budgets = Budgets(render)
        self.stalled = Stalled(render)
        self.memories = MemoryRows(render)
        self.boards = Boards(render)
        self.runs = RunRows(render)
        self.timers = TimerRows(render, self.sessions)
        self.wakes = RunWakes(render, self.sessions)
        self.memo: dict[str, Any] = {}


class SqlSessionStore(Operations):
    """Keeps sessions in a SQL database; satisfies `SessionStore`.

    `open_store()` makes it. It is a light handle: many share one open database, which closes with the last of them.
    """

    def __init__(self, rooms: Rooms, clock: Clock, give_back: Callable[[], Awaitable[None]]) -> None:
        self._rooms = rooms
        self._clock = clock
        self._give_back = give_back
        self._use(rooms.database)

    def _use(self, database: Database) -> None:
        rooms = self._rooms
        self._database = database
        self._render, self._heads = rooms.render, rooms.sessions
        self._commits = Commits(
            database,
            self._clock,
            sessions=rooms.sessions,
            messages=rooms.messages,
            sends=rooms.sends,
            calls=rooms.calls,
            model_calls=rooms.model_calls,
            folds=rooms.folds,
            projections=rooms.projections,
            inbox=rooms.inbox,
            blobs=rooms.blobs,
            budgets=rooms.budgets,
            boards=rooms.boards,
            timers=rooms.timers,
            wakes=rooms.wakes,
        )
        self._outsiders = Outsiders(
            database, self._clock, sessions=rooms.sessions, inbox=rooms.inbox, commits=self._commits
        )
        self._timers = TimerMoves(
            database,
            self._clock,
            rows=rooms.timers,
            sessions=rooms.sessions,
            inbox=rooms.inbox,
            wakes=rooms.wakes,
        )
        self._stalled = StalledReads(database, self._clock, rooms.stalled)
        self._runs = RunCommits(
            database,
            self._clock,
            sessions=rooms.sessions,
            children=rooms.children,
            sends=rooms.sends,
            messages=rooms.messages,
            blobs=rooms.blobs,
            budgets=rooms.budgets,
            rows=rooms.runs,
            timers=rooms.timers,
            wakes=rooms.wakes,
        )
        self._claims = Claims(database, self._clock, sessions=rooms.sessions, stalled=rooms.stalled)

    @property
    def memo(self) -> dict[str, Any]:
        """Scratch space that all handles on these tables share in this process; each user has a key of its own."""
        return self._rooms.memo

    @property
    def memories(self) -> Memories:
        """What is remembered beyond sessions."""
        return Memories(self._database, self._clock, self._rooms.memories)

    @property
    def on_point(self) -> Callable[[str, str], None] | None:
        """Is called with `commit.before` and `commit.after` and the move's name, on the thread that commits; with
        `effect.before` and `effect.after` and the tool's name, and `model.before` and `model.after` and the model's.

        It belongs to the open database and so to all its handles. A test of crashes ends the process there.
        """
        return self._rooms.database.on_point

    @on_point.setter
    def on_point(self, call: Callable[[str, str], None] | None) -> None:
        self._rooms.database.on_point = call

    async def aclose(self) -> None:
        """Let the database go; the last user closes it. Doing it twice does nothing."""
        self._use(_ClosedDatabase(self._rooms.database))
        await self._give_back()

    # ---- sessions ----

    async def create_session(
        self, session_id: str, *, system_prompt: str | None, metadata: Mapping[str, Any]
    ) -> SessionRecord:
        """Make a session. Raises `session.exists`, and `input.invalid` for what cannot be an id."""
        check_session_id(session_id)
        prompt = None if system_prompt is None else clean_text(system_prompt)
        text = encode_json(metadata, "metadata of a session")
        at_ms, op = self._clock.now_ms(), new_op()
        sessions = self._rooms.sessions

        async def body(tx: Transaction) -> SessionRecord:
            return await sessions.create(tx, session_id, system_prompt=prompt, metadata=text, at_ms=at_ms, op=op)

        return await self._database.write("create_session", body, landed=lambda tx: sessions.has_op(tx, session_id, op))

    async def create_child(self, new: NewChild, *, lease: Lease | None = None) -> SessionRecord:
        """Make a session for an agent, or return the one that is there already.

        With the `lease` of the parent's turn, nothing is made once that is lost. Raises `session.lease_lost`,
        `session.exists` for an id that is another one's, `agent.limit`.
        """
        check_session_id(new.session_id)
        at_ms, op, rooms = self._clock.now_ms(), new_op(), self._rooms

        async def body(tx: Transaction) -> SessionRecord:
            await rooms.children.create(tx, lease, new, at_ms=at_ms, op=op)
            return await rooms.sessions.get(tx, new.session_id)

        return await self._database.write(
            "create_child", body, landed=lambda tx: rooms.sessions.has_op(tx, new.session_id, op)
        )

    async def get_children(self, session_id: str) -> tuple[SessionRecord, ...]:
        """Return the sessions directly below one."""
        return await self._database.read(lambda tx: self._rooms.children.children(tx, session_id))

    async def get_children_spending(self, session_id: str, send_index: int) -> tuple[ChildSpending, ...]:
        """Return what each send took that a send pays for, everything below it included."""
        return await self._database.read(lambda tx: self._rooms.children.spending(tx, session_id, send_index))

    async def get_session(self, session_id: str) -> SessionRecord:
        """Return the head of a session."""

        async def body(tx: Transaction) -> SessionRecord:
            return await self._rooms.sessions.get(tx, session_id)

        return await self._read(session_id, body)

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
        `parent_id` those that a session made for its sub-agents.

        Sessions that come while one pages through do not move the pages. Raises `input.invalid` for a cursor that is
        none and a limit out of 1 to 1000.
        """
        check_whole("limit", limit, least=1, most=_MAX_PAGE)
        if state is not None and not isinstance(state, SessionState):
            raise InputError(f"state is {state!r:.80}: give a SessionState, such as SessionState.OPEN")
        wanted = dict(metadata or {})
        encode_json(wanted, "metadata to look for")

        async def body(tx: Transaction) -> Page[SessionRecord]:
            return await self._rooms.sessions.page(
                tx, state=state, metadata=wanted, parent_id=parent_id, cursor=cursor, limit=limit
            )

        return await self._database.read(body)

    async def update_session(
        self,
        session_id: str,
        *,
        system_prompt: str | None = None,
        clear_system_prompt: bool = False,
        metadata: Mapping[str, Any] | None = None,
    ) -> SessionRecord:
        """Change the prompt and/or replace the metadata, and count `version` up. What is None stays.

        It needs no lease: a turn that runs goes on with what it began with, and the next one sees the edit.
        """
        if clear_system_prompt and system_prompt is not None:
            raise InputError("system_prompt and clear_system_prompt contradict each other: give one of them")
        prompt: tuple[str | None] | None = None
        if clear_system_prompt or system_prompt is not None:
            prompt = (None if system_prompt is None else clean_text(system_prompt),)
        text = None if metadata is None else encode_json(metadata, "metadata of a session")
        at_ms = self._clock.now_ms()

        async def body(tx: Transaction) -> SessionRecord:
            return await self._rooms.sessions.edit(tx, session_id, system_prompt=prompt, metadata=text, at_ms=at_ms)

        return await self._write("update_session", session_id, body)

    async def close_session(self, session_id: str) -> bool:
        """Close a session to input, and end its timers; False if it was closed before.

        Raises `session.busy` while a turn holds its lease.
        """
        at_ms, op = self._clock.now_ms(), new_op()

        async def body(tx: Transaction) -> bool | SessionBusyError:
            outcome = await self._rooms.sessions.close(tx, session_id, at_ms=at_ms)
            if outcome is True:
                await self._rooms.timers.end_all(tx, session_id, at_ms=at_ms, op=op)
            return outcome

        outcome = await self._write("close_session", session_id, body)
        if isinstance(outcome, SessionBusyError):
            raise outcome
        return outcome

    # ---- reads ----

    async def read_view(self, session_id: str, *, projected: bool = False) -> SessionView:
        """Return everything a turn needs to know, read in one snapshot: what stands behind the newest fold."""
        rooms = self._rooms

        async def body(tx: Transaction) -> SessionView:
            session, tool_state, fold = await rooms.sessions.get_with_state(tx, session_id)
            spans = await self._spans_of(tx, session)
            if fold is None and len(spans) > 1:
                fold = await rooms.folds.newest(tx, spans)
            after_seq = 0 if fold is None else fold.to_seq
            rows = await rooms.projections.read(tx, spans, after_seq=after_seq) if projected else ()
            has_log = session.next_seq > 1
            last = await rooms.model_calls.read(tx, spans, before_seq=session.next_seq, limit=1) if has_log else ()
            return SessionView(
                session=session,
                send=await rooms.sends.get(tx, session_id),
                calls=await rooms.calls.read_open(tx, session_id),
                messages=await rooms.messages.read_ranges(tx, spans_behind(spans, after_seq, rows)),
                tool_state=tool_state,
                fold=fold,
                pinned=() if fold is None else await rooms.messages.read_at(tx, spans, fold.pinned_seqs),
                projected=rows,
                last_call=last[0] if last else None,
            )

        return await self._read(session_id, body)

    async def get_messages(
        self, session_id: str, *, after_seq: int = 0, limit: int | None = None
    ) -> tuple[MessageRecord, ...]:
        """Return messages in order of `seq`, those after `after_seq`, at most `limit`."""
        check_whole("after_seq", after_seq, least=-MAX_INTEGER)
        if limit is not None:
            check_whole("limit", limit)

        async def body(tx: Transaction) -> tuple[MessageRecord, ...]:
            found = await self._rooms.messages.read(tx, session_id, after_seq=after_seq, limit=limit)
            if found and found[0].seq == max(after_seq, 0) + 1:
                return found
            spans = await self._spans(tx, session_id)
            if len(spans) == 1:
                return found
            return await self._rooms.messages.read_spans(tx, spans, after_seq=after_seq, limit=limit)

        return await self._read(session_id, body)

    async def search_messages(
        self, session_id: str, text: str, *, after_seq: int = 0, to_seq: int | None = None, limit: int = 20
    ) -> tuple[tuple[MessageRecord, ...], int | None]:
        """Return messages in which `text` was said, called or answered, whatever its case, at most `limit`, and the seq
        to go on behind; None where the search is at its end, which is `to_seq` if given.

        One search looks at a bounded number of messages, so that it may find nothing and still go on. Raises
        `input.invalid` for a text that is empty and a limit out of 1 to 1000.
        """
        given: Any = text
        if not isinstance(given, str) or not given:
            raise InputError(f"{text!r:.80} is no text to search for: give at least one character")
        check_whole("after_seq", after_seq, least=-MAX_INTEGER)
        if to_seq is not None:
            check_whole("to_seq", to_seq, least=-MAX_INTEGER)
        check_whole("limit", limit, least=1, most=_MAX_PAGE)
        wanted = text.casefold()

        async def body(tx: Transaction) -> tuple[tuple[MessageRecord, ...], int | None]:
            session = await self._rooms.sessions.get(tx, session_id)
            last = session.next_seq - 1
            spans = await self._spans_of(tx, session)
            return await self._rooms.messages.search(
                tx,
                spans,
                wanted,
                after_seq=max(after_seq, 0),
                to_seq=last if to_seq is None else min(to_seq, last),
                limit=limit,
            )

        return await self._read(session_id, body)

    async def get_folds(self, session_id: str) -> tuple[FoldRecord, ...]:
        """Return the folds of a session, oldest first."""

        async def body(tx: Transaction) -> tuple[FoldRecord, ...]:
            return await self._rooms.folds.all(tx, await self._spans(tx, session_id))

        return await self._read(session_id, body)

    async def get_model_calls(
        self, session_id: str, *, before_seq: int | None = None, limit: int = 50
    ) -> tuple[ModelCallRecord, ...]:
        """Return model calls, newest first."""
        if before_seq is not None:
            check_whole("before_seq", before_seq)
        check_whole("limit", limit, least=1, most=_MAX_PAGE)

        async def body(tx: Transaction) -> tuple[ModelCallRecord, ...]:
            spans = await self._spans(tx, session_id)
            before = END_OF_LOG if before_seq is None else before_seq
            return await self._rooms.model_calls.read(tx, spans, before_seq=before, limit=limit)

        return await self._read(session_id, body)

    async def find_call_ids(self, session_id: str, call_ids: Sequence[str]) -> frozenset[str]:
        """Return those of `call_ids` that calls of this session's own log have."""
        return await self._read(session_id, lambda tx: self._rooms.calls.known_ids(tx, session_id, call_ids))

    async def get_calls(self, session_id: str, *, states: Sequence[CallState] | None = None) -> tuple[CallRecord, ...]:
        """Return calls of the ledger in order, of these states only if given."""

        async def body(tx: Transaction) -> tuple[CallRecord, ...]:
            found = await self._rooms.calls.read(tx, session_id, states=states)
            if found:
                return found
            return await self._rooms.calls.read_shared(tx, await self._spans(tx, session_id), states=states)

        return await self._read(session_id, body)

    async def get_keyed_calls(self, session_id: str, key: str) -> tuple[CallRecord, ...]:
        """Return the calls in order to which their tool's own `key` gave this idempotency key."""

        async def body(tx: Transaction) -> tuple[CallRecord, ...]:
            return await self._rooms.calls.read_keyed(tx, session_id, key)

        return await self._read(session_id, body)

    async def get_send(
        self, session_id: str, *, index: int | None = None, request_id: str | None = None
    ) -> SendRecord | None:
        """Return a send by its index or its request id; the last one if neither is given. None if there is none."""
        if index is not None and request_id is not None:
            raise InputError("index and request_id both name a send: give one of them")
        if index is not None:
            check_whole("index", index)
        if request_id is not None:
            checked_request_id(request_id)

        async def body(tx: Transaction) -> SendRecord | None:
            found = await self._rooms.sends.get(tx, session_id, index=index, request_id=request_id)
            if found is not None:
                return found
            spans = await self._spans(tx, session_id)
            return None if index is None else await self._rooms.sends.get_shared(tx, spans, index)

        return await self._read(session_id, body)

    async def get_tool_result(self, session_id: str, call_id: str) -> tuple[ContentPart, ...] | None:
        """Return the whole result of a call, also where the log shows the model only a preview; None if it has none."""

        async def body(tx: Transaction) -> tuple[ContentPart, ...] | None:
            found = await self._rooms.calls.whole_result(tx, session_id, call_id)
            if found is not None:
                return found
            return await self._rooms.calls.shared_result(tx, await self._spans(tx, session_id), call_id)

        return await self._read(session_id, body)

    async def get_stats(self, session_id: str) -> SessionStats:
        """Return what a session took so far, its share of an ancestor's log with it.

        `stored_bytes` is its own messages, whole results and the data of its images, files and sounds.
        """
        rooms = self._rooms

        async def body(tx: Transaction) -> SessionStats:
            session = await rooms.sessions.get(tx, session_id)
            messages, message_bytes = await rooms.messages.size(tx, session_id)
            spans = spans_of(session_id, None) if session.forked_from is None else await self._spans(tx, session_id)
            parts = clipped(spans, from_seq=0, to_seq=END_OF_LOG)
            spent = await rooms.model_calls.spent(tx, parts)
            children, below = await rooms.children.spent_below(tx, session_id)
            whole = spent + below
            return SessionStats(
                session_id=session_id,
                sends=session.send_count,
                messages=messages + (session.forked_at_seq or 0),
                model_calls=spent.replies + spent.by_folds,
                tool_calls=await rooms.calls.count_over(tx, parts),
                usage=whole.usage,
                children=children,
                children_usage=below.usage,
                stored_bytes=sum(
                    (
                        message_bytes,
                        await rooms.calls.result_bytes(tx, session_id),
                        await rooms.blobs.size(tx, session_id),
                    )
                ),
                cost=None if whole.cost_nanos is None else money_of(whole.cost_nanos),
            )

        return await self._read(session_id, body)

    async def get_budget_path(self, key: BudgetKey) -> tuple[BudgetRecord, ...]:
        """Return a budget and those that pay with it, upwards, without what is reserved; () where there is none."""
        return await self._database.read(lambda tx: self._rooms.budgets.path(tx, key))

    async def get_budget(self, key: BudgetKey) -> BudgetRecord | None:
        """Return a budget with what is reserved of it and with those that it pays for; None where there is none."""
        return await self._database.read(lambda tx: self._rooms.budgets.tree(tx, key))

    def diagnose(self, session_id: str | None = None, *, repair: bool = False) -> AsyncIterator[Finding]:
        """Look through all sessions, or one, and yield what waits, what is unknown and what is damaged, as `async for`.

        With `repair` what can be mended without inventing facts is, a session's in one transaction; the messages of a
        log are never touched, nor is a session whose turn runs. Raises `session.not_found`.
        """
        return Doctor(self._database, self._rooms.render, self._clock).findings(session_id, repairs=repair)

    # ---- the durable moves of a turn ----

    async def accept(self, claim: Claim, new: NewSend) -> Accepted | SendRecord | InboxRecord:
        """Take the lease and store the input of a new send, or return the send that has this `request_id` already.

        An `InboxRecord` is of an input that has this `request_id` or waits first: nothing was stored. Raises
        `session.closed`, `session.busy`, `session.pending` (open calls), `request.conflict`.
        """
        _check_id(claim.session_id)
        return await self._commits.accept(claim, new)

    async def take_up(self, claim: Claim, *, drives: bool = True) -> Accepted:
        """Take the lease to drive the last send on: it becomes `running` and its `attempts` count up.

        A send that has ended for good stays as it is, and so does any if nothing `drives` it. Raises `session.busy`.
        """
        _check_id(claim.session_id)
        return await self._commits.take_up(claim, drives=drives)

    async def append_reply(self, lease: Lease, reply: NewReply) -> None:
        """Store a reply, its calls, its usage and, if the send ends with it, the end.

        This and the other writes of a turn raise `session.lease_lost`, and `Signalled`.
        """
        await self._commits.append_reply(lease, reply)

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

        Raises `store.corrupt` for a step that is not allowed.
        """
        await self._commits.advance_calls(
            lease, steps, at_seq=at_seq, send_index=send_index, round=round, tool_state=tool_state, end=end
        )

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
        """Run a tool's body in the transaction that makes the step which `end` returns for what the body returned.

        What the body raises is returned, with nothing of it stored.
        """
        return await self._commits.run_effect(
            lease, name, body, end=end, at_seq=at_seq, send_index=send_index, round=round, tool_state=tool_state
        )

    async def take_inputs(
        self, lease: Lease, inputs: Sequence[TakenInput], *, at_seq: int, send_index: int, round: int
    ) -> None:
        """Move the first waiting inputs into the log, from `at_seq` on in order; those without a message only leave."""
        await self._commits.take_inputs(lease, inputs, at_seq=at_seq, send_index=send_index, round=round)

    async def append_fold(self, lease: Lease, fold: NewFold, *, at_seq: int) -> FoldRecord:
        """Store a fold and return it."""
        return await self._commits.append_fold(lease, fold, at_seq=at_seq)

    async def end_send(self, lease: Lease, send_index: int, end: SendEnd) -> None:
        """Bring a send to rest and release the lease."""
        await self._commits.end_send(lease, send_index, end)

    async def reserve(
        self, lease: Lease, wish: NewHold, *, charges: Sequence[Charge] = (), at_seq: int
    ) -> Granted | Shortage:
        """Hold what the next call may take, on every budget or on none; earlier ones hold no more than what they came
        to."""
        return await self._commits.reserve(lease, wish, charges, at_seq=at_seq)

    async def renew(self, lease: Lease, *, ttl_s: float) -> None:
        """Lengthen the lease. Raises `session.lease_lost`."""
        await self._commits.renew(lease, ttl_s=ttl_s)

    async def release(self, lease: Lease, *, hands_back: bool = False) -> None:
        """Give the lease back without another change; does nothing if it is lost already.

        Where the send still runs, the session is free too, and `find_stalled` finds it. An owner that `hands_back` what
        it could drive on leaves the send's `attempts` as if it had not taken it up.
        """
        await self._commits.release(lease, hands_back=hands_back)

    # ---- what reaches a turn from outside, and what nobody drives ----

    async def put_input(self, session_id: str, new: NewSend) -> Queued | SendRecord:
        """Leave an input in the inbox and signal the running turn, or return what has this `request_id` already.

        Raises `session.closed`, `session.inbox_full`, `request.conflict`.
        """
        _check_id(session_id)
        return await self._outsiders.put_input(session_id, new)

    async def get_inbox(self, session_id: str, *, limit: int | None = None) -> tuple[InboxRecord, ...]:
        """Return the inputs that wait, in order, at most `limit`."""
        _check_id(session_id)
        if limit is not None:
            check_whole("limit", limit)
        return await self._outsiders.get_inbox(session_id, limit=limit)

    async def withdraw_input(self, session_id: str, position: int) -> bool:
        """Take an input back that waits; False if it does not (any more)."""
        _check_id(session_id)
        check_whole("position", position)
        return await self._outsiders.withdraw(session_id, position)

    async def ask_to_cancel(self, session_id: str, *, reason: str) -> SessionRecord:
        """Ask the turn that holds the lease to stop, that one and none after it; return the head as it stands."""
        _check_id(session_id)
        return await self._outsiders.cancel(session_id, reason=reason)

    async def read_signals(self, session_ids: Sequence[str]) -> dict[str, tuple[int, int]]:
        """Return (epoch, signals) of the sessions among these that there are."""
        return await self._outsiders.read_signals(session_ids)

    async def read_news(self, lease: Lease) -> News:
        """Return what somebody outside has to say to the turn that holds the lease. Raises `session.lease_lost`."""
        return await self._outsiders.read_news(lease)

    # ---- the blackboard of a tree of sessions ----

    async def read_entries(
        self,
        session_id: str,
        *,
        keys: Sequence[str] | None = None,
        prefix: str = "",
        after: str | None = None,
        limit: int = 100,
    ) -> tuple[BlackboardEntry, ...]:
        """Return entries in order of their keys, at most `limit` and at most 500: of these `keys` (at most 100), or of
        those that begin with `prefix` and come behind `after`."""

        async def body(tx: Transaction) -> tuple[BlackboardEntry, ...]:
            board = BoardWork(tx, self._rooms.boards, session_id, author=None, at_ms=0, op="")
            return await board.read(keys=keys, prefix=prefix, after=after, limit=limit)

        return await self._read(session_id, body)

    async def post_entry(
        self, session_id: str, key: str, value: Any, *, author_session_id: str | None = None
    ) -> BlackboardEntry:
        """Put a new entry on the board.

        Raises `blackboard.conflict` where the key is taken, `blackboard.full` behind 500 entries, and `input.invalid`
        for what can be no key, no JSON, or has more than 16,384 bytes.
        """
        return await self._on_board("post_entry", session_id, author_session_id, lambda board: board.post(key, value))

    async def update_entry(
        self, session_id: str, key: str, value: Any, *, expected_version: int, author_session_id: str | None = None
    ) -> BlackboardEntry:
        """Change an entry that has this version. Raises `blackboard.conflict` where it has not, or is not there."""

        async def work(board: BoardWork) -> BlackboardEntry:
            return await board.update(key, value, expected_version=expected_version)

        return await self._on_board("update_entry", session_id, author_session_id, work)

    async def remove_entry(self, session_id: str, key: str, *, expected_version: int) -> None:
        """Take away an entry that has this version. Raises `blackboard.conflict` as `update_entry` does."""

        async def work(board: BoardWork) -> None:
            await board.remove(key, expected_version=expected_version)

        await self._on_board("remove_entry", session_id, None, work)

    async def _on_board(
        self, move: str, session_id: str, author: str | None, work: Callable[[BoardWork], Awaitable[T]]
    ) -> T:
        _check_id(session_id)
        if author is not None:
            check_session_id(author)
        boards, at_ms, op = self._rooms.boards, self._clock.now_ms(), new_op()

        async def body(tx: Transaction) -> T:
            return await work(BoardWork(tx, boards, session_id, author=author, at_ms=at_ms, op=op))

        return await self._database.write(move, body, landed=lambda tx: boards.has_op(tx, session_id, op))

    # ---- the runs of workflows ----

    async def create_run(self, run: NewRun, *, lease: Lease | None = None) -> WorkflowRunRecord:
        """Make a run with its session, or return the one that is there already.

        With the `lease` of the parent's turn, nothing is made once that is lost. Raises `session.lease_lost`,
        `session.exists` for an id that is another one's.
        """
        check_session_id(run.session.session_id)
        return await self._runs.create(run, lease=lease)

    async def advance_run(
        self, lease: Lease, write: RunWrite, *, at_seq: int, send_index: int, end: RunEnd | None = None
    ) -> None:
        """Write steps of a run and what belongs to them; with `end` it comes to rest and the lease is given back.

        `at_seq` is the seq of the next message. Raises `session.lease_lost`, `Signalled`, and `store.corrupt` where the
        rows are not there that are to change.
        """
        await self._runs.advance(lease, write, at_seq=at_seq, send_index=send_index, end=end)

    async def signal_run(self, run_id: str, name: str, value: Any = None) -> WorkflowSignalRecord:
        """Leave a signal to a run, and signal its engine. Raises `workflow.not_found`, `input.invalid` for a run that
        has ended."""
        return await self._runs.signal(run_id, name, value)

    async def get_run(self, run_id: str) -> WorkflowRunRecord:
        """Return a run. Raises `workflow.not_found`."""
        return await self._runs.get(run_id)

    async def read_journal(
        self, run_id: str
    ) -> tuple[WorkflowRunRecord, tuple[WorkflowStepRecord, ...], tuple[WorkflowSignalRecord, ...]]:
        """Return a run with its steps and the signals to it, in one snapshot. Raises `workflow.not_found`."""
        return await self._runs.journal(run_id)

    async def get_run_signals(self, run_id: str, *, after: int = 0) -> tuple[WorkflowSignalRecord, ...]:
        """Return the signals to a run, in order, those behind a position."""
        check_whole("after", after)
        return await self._runs.signals(run_id, after=after)

    async def list_runs(
        self,
        *,
        state: str | None = None,
        parent_session_id: str | None = None,
        before: tuple[int, str] | None = None,
        limit: int = 50,
    ) -> tuple[WorkflowRunRecord, ...]:
        """Return runs, newest first, behind the one that was made at `before` and has that id; at most `limit`."""
        check_whole("limit", limit, least=1, most=_MAX_PAGE)
        return await self._runs.page(state=state, parent_session_id=parent_session_id, before=before, limit=limit)

    # ---- timers ----

    async def schedule_timer(self, new: NewTimer) -> TimerRecord:
        """Make a timer, or return the one of this id that was made of the same request.

        Raises `session.closed`, `schedule.invalid`, `schedule.no_time_zone`, `timer.limit`, `request.conflict`,
        `input.invalid`.
        """
        _check_id(new.session_id)
        return await self._timers.schedule(new)

    async def cancel_timer(self, timer_id: str, *, session_id: str | None = None) -> bool:
        """End a timer, of this session if one is given; False if it had ended. Raises `timer.not_found`."""
        check_timer_id(timer_id)
        return await self._timers.cancel(timer_id, session_id)

    async def get_timer(self, timer_id: str) -> TimerRecord:
        """Return a timer. Raises `timer.not_found`."""
        check_timer_id(timer_id)
        return await self._timers.get(timer_id)

    async def list_timers(
        self,
        session_id: str | None = None,
        *,
        include_ended: bool = False,
        cursor: str | None = None,
        limit: int = 100,
    ) -> Page[TimerRecord]:
        """Return a page of armed timers, of one session or of all, in order of their ids; ended ones too if
        `include_ended` says so. Raises `input.invalid` for a limit out of 1 to 1000."""
        if session_id is not None:
            _check_id(session_id)
        return await self._timers.page(session_id, with_ended=include_ended, cursor=cursor, limit=limit)

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
        """Give due timers to `owner`, the longest overdue first, at most `limit` and at most 200, or those of
        `timer_ids` or of a maker that are due. A claim that nothing came of within `ttl_s` is given to the next who
        asks; what one of `dead_owners` has claimed is due at once. Raises `store.schema_newer`."""
        check_whole("limit", limit, least=1)
        return await self._timers.claim(
            owner,
            ttl_ms=round(ttl_s * 1000),
            limit=limit,
            only=timer_ids,
            dead_owners=dead_owners,
            made_by=made_by,
        )

    async def list_timer_owners(self, *, within_s: float) -> tuple[str, ...]:
        """Return who holds claims of timers that are over within so many seconds."""
        return await self._timers.owners(within_ms=round(within_s * 1000))

    async def deliver_timer(self, claim: TimerClaim, message: Message, *, input_hash: str) -> TimerDelivery | None:
        """Put a firing's input into its session's inbox under the request id `{timer id}:{number}` and move the timer
        on, in one transaction; end it where the session is closed. None where the claim was lost: nothing was done.

        The timer of a workflow for its own run brings no input: it wakes the run, if that rests. Raises
        `session.inbox_full`.
        """
        return await self._timers.deliver(claim, message, input_hash)

    async def drop_timer(self, claim: TimerClaim, *, is_veto: bool) -> TimerRecord | None:
        """Leave a firing out, vetoed or missed, and move the timer on; None where the claim was lost."""
        return await self._timers.drop(claim, is_veto=is_veto)

    async def put_back_timer(self, claim: TimerClaim, *, after_s: float, error: str | None) -> TimerRecord | None:
        """Give a claim back, so that the firing comes again after so long: it failed by an `error`, or is postponed;
        None where the claim was lost."""
        return await self._timers.put_back(claim, after_ms=round(after_s * 1000), error=error)

    async def next_timer_in_s(self) -> float | None:
        """Return in how many seconds, by the store's time, a timer has to be looked at first; None if none is armed."""
        left_ms = await self._timers.next_in_ms()
        return None if left_ms is None else left_ms / 1000

    def watch_timers(self, heard: Callable[[], None]) -> Callable[[], None]:
        """Call `heard`, in whatever thread, whenever this process made a timer; what is returned ends that."""
        return self._rooms.timers.bell.watch(heard)

    # ---- what nobody drives ----

    async def list_owners(self) -> tuple[str, ...]:
        """Return the names that hold leases which are not over."""
        return await self._stalled.owners()

    async def find_stalled(
        self, *, dead_owners: Sequence[str] = (), older_than_ms: int = 0, limit: int = 100
    ) -> tuple[StalledSession, ...]:
        """Return sessions whose lease is over for `older_than_ms` or held by one of `dead_owners`, then open ones that
        rest while inputs wait for so long; at most `limit`."""
        check_whole("older_than_ms", older_than_ms)
        check_whole("limit", limit)
        return await self._stalled.find(dead_owners=dead_owners, older_than_ms=older_than_ms, limit=limit)

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
        many milliseconds. Raises `store.schema_newer`.
        """
        check_whole("limit", limit)
        check_whole("failed_within_ms", failed_within_ms)
        return await self._claims.claim(
            owner,
            ttl_s=ttl_s,
            limit=limit,
            dead_owners=dead_owners,
            passing_over=frozenset(passing_over),
            failed_within_ms=failed_within_ms,
        )

    async def listen(self, heard: Callable[[], None]) -> Listener | None:
        """Call `heard`, from the database's thread, when something is left that `claim_stalled` may find, and when the
        ear is lost; None where the database tells nobody."""
        return await self._claims.listen(heard)

    # ---- parts ----

    async def _read(self, session_id: str, body: Body[T]) -> T:
        _check_id(session_id)
        return await self._database.read(body)

    async def _write(self, move: str, session_id: str, body: Body[T]) -> T:
        _check_id(session_id)
        return await self._database.write(move, body)

    async def _spans(self, tx: Transaction, session_id: str) -> tuple[Span, ...]:
        """Return the stretches of a session's log, where its own rows do not tell all. Raises `session.not_found`."""
        return await self._rooms.sessions.spans(tx, session_id)

    async def _spans_of(self, tx: Transaction, session: SessionRecord) -> tuple[Span, ...]:
        return spans_of(session.id, None) if session.forked_from is None else await self._spans(tx, session.id)


class _ClosedDatabase:
    """Stands behind a handle that was closed."""

    on_point: Callable[[str, str], None] | None = None

    def __init__(self, database: Database) -> None:
        self.dialect = database.dialect
        self.clock = database.clock

    async def open(self, *, create: bool) -> bool:
        """Refuse."""
        self._refuse()

    async def write(self, move: str, body: Body[T], *, landed: Landed | None = None) -> T:
        """Refuse."""
        self._refuse()

    async def read(self, body: Body[T]) -> T:
        """Refuse."""
        self._refuse()

    async def listen(self, channel: str, heard: Callable[[], None]) -> Listener | None:
        """Refuse."""
        self._refuse()

    async def vacuum(self, tables: Sequence[str]) -> Vacuumed:
        """Refuse."""
        self._refuse()

    async def checkpoint(self) -> Checkpointed:
        """Refuse."""
        self._refuse()

    async def backup(self, path: str, *, overwrite: bool) -> BackedUp:
        """Refuse."""
        self._refuse()

    async def aclose(self) -> None:
        """Do nothing."""

    def _refuse(self) -> NoReturn:
        raise StoreError("this handle on a store was closed: open_store() gives a new one")


def _check_id(session_id: str) -> None:
    """Refuse an id that no session can have, before a database has to compare it."""
    if not is_session_id(session_id):
        raise not_found(session_id)
