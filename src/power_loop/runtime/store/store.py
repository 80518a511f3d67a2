"""Is the store as the loop sees it: a counted handle on an open database."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NoReturn

from power_loop.contracts.clock import Clock
from power_loop.contracts.errors import InputError, SessionBusyError, StoreError
from power_loop.contracts.messages import ContentPart, clean_text
from power_loop.contracts.records import (
    Accepted,
    CallRecord,
    CallStep,
    Claim,
    Lease,
    MessageRecord,
    NewReply,
    NewSend,
    Page,
    SendEnd,
    SendRecord,
    SessionRecord,
    SessionStats,
    SessionView,
)
from power_loop.contracts.session_ids import check_session_id, is_session_id
from power_loop.contracts.states import CallState, SessionState
from power_loop.runtime.store.codec import encode_json
from power_loop.runtime.store.commits import Commits, checked_request_id
from power_loop.runtime.store.messages import Messages
from power_loop.runtime.store.sends import Sends
from power_loop.runtime.store.sessions import Sessions, not_found
from power_loop.runtime.store.sql.database import Body, Database, T, Transaction
from power_loop.runtime.store.sql.dialect import Renderer
from power_loop.runtime.store.tool_calls import ToolCalls
from power_loop.runtime.store.usage import ModelCalls

_MAX_PAGE = 1000
_END_OF_LOG = (1 << 63) - 1


class Rooms:
    """Is the tables of one prefix in one open database, with the statements on them: what all handles on them share."""

    def __init__(self, database: Database, render: Renderer) -> None:
        self.database = database
        self.render = render
        self.sessions = Sessions(render)
        self.messages = Messages(render)
        self.calls = ToolCalls(render)
        self.model_calls = ModelCalls(render)
        self.sends = Sends(render, self.calls, self.model_calls)
        self.memo: dict[str, Any] = {}


class SqlSessionStore:
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
        self._commits = Commits(
            database,
            self._clock,
            sessions=rooms.sessions,
            messages=rooms.messages,
            sends=rooms.sends,
            calls=rooms.calls,
            model_calls=rooms.model_calls,
        )

    @property
    def memo(self) -> dict[str, Any]:
        """Scratch space that all handles on these tables share in this process; each user has a key of its own."""
        return self._rooms.memo

    @property
    def on_point(self) -> Callable[[str, str], None] | None:
        """Is called with `commit.before` and `commit.after` and the move's name, on the thread that commits.

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
        at_ms = self._clock.now_ms()

        async def body(tx: Transaction) -> SessionRecord:
            return await self._rooms.sessions.create(tx, session_id, system_prompt=prompt, metadata=text, at_ms=at_ms)

        return await self._database.write("create_session", body)

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
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page[SessionRecord]:
        """Return a page of sessions, newest first; `metadata` keeps those whose metadata has these top-level values.

        Sessions that come while one pages through do not move the pages. Raises `input.invalid` for a cursor that is
        none and a limit out of 1 to 1000.
        """
        size: Any = limit
        if not isinstance(size, int) or not 1 <= size <= _MAX_PAGE:
            raise InputError(f"limit {limit!r} is not usable: give 1 to {_MAX_PAGE}")
        wanted = dict(metadata or {})
        encode_json(wanted, "metadata to look for")

        async def body(tx: Transaction) -> Page[SessionRecord]:
            return await self._rooms.sessions.page(tx, state=state, metadata=wanted, cursor=cursor, limit=limit)

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
        """Close a session to input; False if it was closed before.

        Raises `session.busy` while a turn holds its lease.
        """
        at_ms = self._clock.now_ms()

        async def body(tx: Transaction) -> bool | SessionBusyError:
            return await self._rooms.sessions.close(tx, session_id, at_ms=at_ms)

        outcome = await self._write("close_session", session_id, body)
        if isinstance(outcome, SessionBusyError):
            raise outcome
        return outcome

    # ---- reads ----

    async def read_view(self, session_id: str) -> SessionView:
        """Return everything a turn needs to know, read in one snapshot."""
        rooms = self._rooms

        async def body(tx: Transaction) -> SessionView:
            session, tool_state = await rooms.sessions.get_with_state(tx, session_id)
            return SessionView(
                session=session,
                send=await rooms.sends.get(tx, session_id),
                calls=await rooms.calls.read_open(tx, session_id),
                messages=await rooms.messages.read(tx, session_id),
                tool_state=tool_state,
            )

        return await self._read(session_id, body)

    async def get_messages(
        self, session_id: str, *, after_seq: int = 0, limit: int | None = None
    ) -> tuple[MessageRecord, ...]:
        """Return messages in order of `seq`, those after `after_seq`, at most `limit`."""
        if limit is not None and limit < 0:
            raise InputError(f"limit {limit!r} is not usable: give 0 or more")

        async def body(tx: Transaction) -> tuple[MessageRecord, ...]:
            found = await self._rooms.messages.read(tx, session_id, after_seq=after_seq, limit=limit)
            return found or await self._nothing(tx, session_id, ())

        return await self._read(session_id, body)

    async def get_calls(self, session_id: str, *, states: Sequence[CallState] | None = None) -> tuple[CallRecord, ...]:
        """Return calls of the ledger in order, of these states only if given."""

        async def body(tx: Transaction) -> tuple[CallRecord, ...]:
            found = await self._rooms.calls.read(tx, session_id, states=states)
            return found or await self._nothing(tx, session_id, ())

        return await self._read(session_id, body)

    async def get_send(
        self, session_id: str, *, index: int | None = None, request_id: str | None = None
    ) -> SendRecord | None:
        """Return a send by its index or its request id; the last one if neither is given. None if there is none."""
        if index is not None and request_id is not None:
            raise InputError("index and request_id both name a send: give one of them")
        if request_id is not None:
            checked_request_id(request_id)

        async def body(tx: Transaction) -> SendRecord | None:
            found = await self._rooms.sends.get(tx, session_id, index=index, request_id=request_id)
            return found or await self._nothing(tx, session_id, None)

        return await self._read(session_id, body)

    async def get_tool_result(self, session_id: str, call_id: str) -> tuple[ContentPart, ...] | None:
        """Return the whole result of a call, also where the log shows the model only a preview; None if it has none."""

        async def body(tx: Transaction) -> tuple[ContentPart, ...] | None:
            found = await self._rooms.calls.whole_result(tx, session_id, call_id)
            return found or await self._nothing(tx, session_id, found)

        return await self._read(session_id, body)

    async def get_stats(self, session_id: str) -> SessionStats:
        """Return what a session took so far; `stored_bytes` is its messages and whole results."""
        rooms = self._rooms

        async def body(tx: Transaction) -> SessionStats:
            session = await rooms.sessions.get(tx, session_id)
            messages, message_bytes = await rooms.messages.size(tx, session_id)
            model_calls, usage = await rooms.model_calls.sum(tx, session_id, from_seq=0, to_seq=_END_OF_LOG)
            return SessionStats(
                session_id=session_id,
                sends=session.send_count,
                messages=messages,
                model_calls=model_calls,
                tool_calls=await rooms.calls.count(tx, session_id, from_seq=0, to_seq=_END_OF_LOG),
                usage=usage,
                stored_bytes=message_bytes + await rooms.calls.result_bytes(tx, session_id),
            )

        return await self._read(session_id, body)

    # ---- the durable moves of a turn ----

    async def accept(self, claim: Claim, new: NewSend) -> Accepted | SendRecord:
        """Take the lease and store the input of a new send, or return the send that has this `request_id` already.

        Raises `session.closed`, `session.busy`, `session.pending` (open calls), `request.conflict`.
        """
        _check_id(claim.session_id)
        return await self._commits.accept(claim, new)

    async def take_up(self, claim: Claim) -> Accepted:
        """Take the lease to drive the last send on: it becomes `running` and its `attempts` count up.

        A send that has ended for good stays as it is. Raises `session.busy`.
        """
        _check_id(claim.session_id)
        return await self._commits.take_up(claim)

    async def append_reply(self, lease: Lease, reply: NewReply) -> None:
        """Store a reply, its calls, its usage and, if the send ends with it, the end. Raises `session.lease_lost`."""
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

        Raises `session.lease_lost`, and `store.corrupt` for a step that is not allowed.
        """
        await self._commits.advance_calls(
            lease, steps, at_seq=at_seq, send_index=send_index, round=round, tool_state=tool_state, end=end
        )

    async def end_send(self, lease: Lease, send_index: int, end: SendEnd) -> None:
        """Bring a send to rest and release the lease. Raises `session.lease_lost`."""
        await self._commits.end_send(lease, send_index, end)

    async def renew(self, lease: Lease, *, ttl_s: float) -> None:
        """Lengthen the lease. Raises `session.lease_lost`."""
        await self._commits.renew(lease, ttl_s=ttl_s)

    async def release(self, lease: Lease) -> None:
        """Give the lease back without another change; does nothing if it is lost already."""
        await self._commits.release(lease)

    # ---- parts ----

    async def _read(self, session_id: str, body: Body[T]) -> T:
        _check_id(session_id)
        return await self._database.read(body)

    async def _write(self, move: str, session_id: str, body: Body[T]) -> T:
        _check_id(session_id)
        return await self._database.write(move, body)

    async def _nothing(self, tx: Transaction, session_id: str, nothing: T) -> T:
        """Return `nothing` if that is because the session has none. Raises `session.not_found`."""
        await self._rooms.sessions.get(tx, session_id)
        return nothing


class _ClosedDatabase:
    """Stands behind a handle that was closed."""

    on_point: Callable[[str, str], None] | None = None

    def __init__(self, database: Database) -> None:
        self.dialect = database.dialect

    async def open(self, *, create: bool) -> bool:
        """Refuse."""
        self._refuse()

    async def write(self, move: str, body: Body[T]) -> T:
        """Refuse."""
        self._refuse()

    async def read(self, body: Body[T]) -> T:
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
