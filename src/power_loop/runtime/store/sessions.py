"""Keeps the head rows: who holds a session's lease, which number the next message gets, and what an edit changes."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from power_loop.contracts.errors import (
    InputError,
    LeaseLostError,
    SessionBusyError,
    SessionClosedError,
    SessionExistsError,
    SessionNotFoundError,
)
from power_loop.contracts.frozen import frozen
from power_loop.contracts.ports import Signalled
from power_loop.contracts.records import ANY_SIGNALS, Claim, FoldRecord, Lease, News, Page, SessionRecord
from power_loop.contracts.states import NextInput, SessionState
from power_loop.runtime.store.codec import decode_choice, decode_json, is_same_json, member_text
from power_loop.runtime.store.folds import FOLD_COLUMNS, FOLD_WIDTH, fold_of
from power_loop.runtime.store.lineage import Span, spans_of
from power_loop.runtime.store.sql.database import DuplicateKeyError, Row, Statement, Transaction
from power_loop.runtime.store.sql.dialect import Renderer
from power_loop.runtime.store.sql.migrations import IS_KNOWN, refuse_newer
from power_loop.runtime.store.sql.tables import IS_OPEN_CALL

# Rows that a filtered list looks at in one query.
_SCAN_ROWS = 500
# Sessions that one query asks for.
_MAX_ASKED = 200
_MAX_INTEGER = (1 << 63) - 1

_COLUMNS = (
    "s.id, s.state, d.system_prompt, d.metadata, s.created_at_ms, s.updated_at_ms, s.next_seq, s.send_count,"
    " s.version, s.owner, s.epoch, s.lease_until_ms, s.forked_from, s.forked_at_seq, s.parent_id, s.parent_send,"
    " s.root_id, s.depth, d.agent"
)
_JOINED = "{sessions} s JOIN {session_details} d ON d.session_id = s.id"
_IS_FREE = "(owner IS NULL OR lease_until_ms <= ? OR owner = ?)"
# The options of the input that waits first, NULL where none does.
_NEXT_INPUT = (
    "CASE WHEN s.inbox_count > s.inbox_taken THEN (SELECT i.options FROM {inbox} i WHERE i.session_id = s.id"
    " AND i.position > s.inbox_taken AND i.taken_at_ms IS NULL ORDER BY i.position LIMIT 1) END"
)
_LAST_SEND_RUNS = (
    "EXISTS (SELECT 1 FROM {sends} p WHERE p.session_id = {sessions}.id AND p.idx = {sessions}.send_count"
    " AND p.status = 'running')"
)
# Every input up to it has left the inbox; those behind the parameter are looked at.
_INBOX_TAKEN = (
    "COALESCE((SELECT MIN(i.position) - 1 FROM {inbox} i WHERE i.session_id = {sessions}.id"
    " AND i.position > ? AND i.taken_at_ms IS NULL), inbox_count)"
)


@frozen
class Head:
    """Is a head row as it stands after the lease was taken, with the status of a send and the count of open calls."""

    epoch: int
    next_seq: int
    version: int
    send_count: int
    previous_owner: str | None
    send_status: str | None
    open_calls: int
    signals: int
    next_input: NextInput


class Sessions:
    """Runs the statements on `sessions` and `session_details`, inside of others' transactions."""

    def __init__(self, render: Renderer) -> None:
        self._insert = render(
            "INSERT INTO {sessions} (id, state, created_at_ms, updated_at_ms, next_seq, send_count, version, owner,"
            " previous_owner, epoch, lease_until_ms, lease_ttl_ms, tick, last_op, signals, cancel_epoch, inbox_count,"
            " inbox_taken) VALUES (?, 'open', ?, ?, 1, 0, 0, NULL, NULL, ?, 0, 0, 0, ?, 0, 0, 0, 0)"
        )
        self._insert_details = render(
            "INSERT INTO {session_details} (session_id, system_prompt, metadata, tool_state) VALUES (?, ?, ?, '{{}}')"
        )
        self._select = render(f"SELECT {_COLUMNS} FROM {_JOINED} WHERE s.id = ?")
        self._select_with_state = render(
            f"SELECT {_COLUMNS}, d.tool_state, {', '.join('f.' + name for name in FOLD_COLUMNS.split(', '))}"
            f" FROM {_JOINED} LEFT JOIN {{folds}} f ON f.session_id = s.id"
            " AND f.to_seq = (SELECT MAX(n.to_seq) FROM {folds} n WHERE n.session_id = s.id) WHERE s.id = ?"
        )
        self._take_for_new = render(
            "UPDATE {sessions} SET previous_owner = NULLIF(owner, ''), owner = ?, epoch = epoch + 1,"
            " lease_until_ms = ?, lease_ttl_ms = ?, updated_at_ms = ?, last_op = ?, next_seq = next_seq + 1,"
            " send_count = send_count + 1,"
            f" tick = tick + 1 WHERE id = ? AND {_IS_FREE} AND state = 'open' AND {IS_KNOWN}"
        )
        self._take = render(
            "UPDATE {sessions} SET previous_owner = NULLIF(owner, ''), owner = ?, epoch = epoch + 1,"
            " lease_until_ms = ?, lease_ttl_ms = ?, updated_at_ms = ?, last_op = ?, tick = tick + 1"
            f" WHERE id = ? AND {_IS_FREE} AND {IS_KNOWN}"
        )
        self._take_over = render(
            "UPDATE {sessions} SET previous_owner = NULLIF(owner, ''), owner = ?, epoch = epoch + 1,"
            " lease_until_ms = ?, lease_ttl_ms = ?, updated_at_ms = ?, last_op = ?, tick = tick + 1"
            f" WHERE id = ? AND epoch = ? AND {IS_KNOWN}"
        )
        self._version = render("SELECT MAX(version) FROM {schema_migrations}")
        head = (
            "SELECT s.epoch, s.next_seq, s.version, s.send_count, s.previous_owner, p.status,"
            f" (SELECT COUNT(*) FROM {{tool_calls}} c WHERE c.session_id = s.id"
            f" AND c.reply_seq >= COALESCE(p.first_seq, 0) AND {IS_OPEN_CALL}), s.signals, {_NEXT_INPUT}"
            " FROM {sessions} s LEFT JOIN {sends} p ON p.session_id = s.id AND p.idx = s.send_count"
        )
        self._head_before_last = render(f"{head} - 1 WHERE s.id = ?")
        self._head = render(f"{head} WHERE s.id = ?")
        guard = "WHERE id = ? AND owner = ? AND epoch = ?"
        heard = f"{guard} AND signals BETWEEN ? AND ?"
        self._guard = render(
            "UPDATE {sessions} SET next_seq = next_seq + ?, lease_until_ms = ? + lease_ttl_ms, updated_at_ms = ?,"
            f" last_op = ?, tick = tick + 1 {heard} AND next_seq = ?"
        )
        self._guard_last = render(
            "UPDATE {sessions} SET next_seq = next_seq + ?, owner = NULL, lease_until_ms = 0, updated_at_ms = ?,"
            f" last_op = ?, tick = tick + 1 {heard} AND next_seq = ?"
        )
        self._guard_taking = render(
            f"UPDATE {{sessions}} SET inbox_taken = {_INBOX_TAKEN}, next_seq = next_seq + ?,"
            f" lease_until_ms = ? + lease_ttl_ms, updated_at_ms = ?, last_op = ?, tick = tick + 1 {heard}"
            " AND next_seq = ?"
        )
        # A session whose send still runs is free as well: nobody's lease, long over, says that somebody has to go on.
        self._release = render(
            f"UPDATE {{sessions}} SET owner = CASE WHEN {_LAST_SEND_RUNS} THEN '' END,"
            f" lease_until_ms = CASE WHEN {_LAST_SEND_RUNS} THEN 1 ELSE 0 END, updated_at_ms = ?, tick = tick + 1 "
            + guard
        )
        self._guard_end = render(
            "UPDATE {sessions} SET owner = NULL, lease_until_ms = 0, updated_at_ms = ?, last_op = ?,"
            f" tick = tick + 1 {heard}"
        )
        self._news = render(
            f"SELECT s.owner, s.epoch, s.signals, s.cancel_epoch, s.cancel_reason, {_NEXT_INPUT}"
            " FROM {sessions} s WHERE s.id = ?"
        )
        self._count_input = render(
            "UPDATE {sessions} SET inbox_count = inbox_count + 1, signals = signals + 1, updated_at_ms = ?,"
            " tick = tick + 1 WHERE id = ? AND state = 'open'"
        )
        self._inbox_of = render(
            "SELECT inbox_count, inbox_taken, owner, lease_until_ms, signals FROM {sessions} WHERE id = ?"
        )
        self._signal = render("UPDATE {sessions} SET signals = signals + 1, tick = tick + 1 WHERE id = ?")
        self._settle_inbox = render(
            f"UPDATE {{sessions}} SET inbox_taken = {_INBOX_TAKEN}, tick = tick + 1 WHERE id = ?"
        )
        self._cancel = render(
            "UPDATE {sessions} SET signals = signals + 1, cancel_epoch = epoch, cancel_reason = ?, tick = tick + 1"
            " WHERE id = ? AND owner IS NOT NULL"
        )
        self._last_op = render("SELECT last_op FROM {sessions} WHERE id = ?" + render.dialect.for_update)
        self._renew = render("UPDATE {sessions} SET lease_until_ms = ?, lease_ttl_ms = ?, tick = tick + 1 " + guard)
        self._lease_of = render(
            "SELECT state, owner, epoch, lease_until_ms, lease_ttl_ms, next_seq FROM {sessions} WHERE id = ?"
        )
        self._lock = render("SELECT owner, lease_until_ms FROM {sessions} WHERE id = ?" + render.dialect.for_update)
        self._shorten = render(
            "UPDATE {sessions} SET lease_until_ms = ?, tick = tick + 1 WHERE id = ? AND lease_until_ms > ?"
        )
        self._count_edit = render(
            "UPDATE {sessions} SET version = version + 1, updated_at_ms = ?, tick = tick + 1 WHERE id = ?"
        )
        self._lineage = render("SELECT lineage FROM {session_details} WHERE session_id = ?")
        self._set_prompt = render("UPDATE {session_details} SET system_prompt = ? WHERE session_id = ?")
        self._set_metadata = render("UPDATE {session_details} SET metadata = ? WHERE session_id = ?")
        self._set_tool_state = render("UPDATE {session_details} SET tool_state = ? WHERE session_id = ?")
        # The epoch counts up, so that an owner whose lease had run out cannot write to a closed session.
        self._close = render(
            "UPDATE {sessions} SET state = 'closed', owner = NULL, lease_until_ms = 0, epoch = epoch + 1,"
            f" updated_at_ms = ?, tick = tick + 1 WHERE id = ? AND {_IS_FREE} AND state = 'open'"
        )
        self._contains = render.dialect.contains("d.metadata")
        #: Under what name it is told that there is something to do.
        self.work_channel = f"{render.prefix}work"
        self._render = render

    # ---- making, reading, editing, closing ----

    async def create(
        self, tx: Transaction, session_id: str, *, system_prompt: str | None, metadata: str, at_ms: int, op: str
    ) -> SessionRecord:
        """Make a session. Raises `session.exists`."""
        try:
            # An epoch that no deleted session of this id can have reached: what a process knows of that one is stale.
            await tx.execute(self._insert, (session_id, at_ms, at_ms, at_ms, op))
        except DuplicateKeyError as error:
            raise SessionExistsError(
                f"session {session_id!r} exists already: send to it, or choose another id", session_id=session_id
            ) from error
        await tx.execute(self._insert_details, (session_id, system_prompt, metadata))
        return await self.get(tx, session_id)

    async def get(self, tx: Transaction, session_id: str) -> SessionRecord:
        """Return a session. Raises `session.not_found`."""
        rows = await tx.query(self._select, (session_id,))
        if not rows:
            raise not_found(session_id)
        return _session_of(rows[0])

    async def get_with_state(
        self, tx: Transaction, session_id: str
    ) -> tuple[SessionRecord, dict[str, Any], FoldRecord | None]:
        """Return a session, its dict for tools, and the newest fold that is its own. Raises `session.not_found`."""
        rows = await tx.query(self._select_with_state, (session_id,))
        if not rows:
            raise not_found(session_id)
        head, fold = rows[0][:-FOLD_WIDTH], rows[0][-FOLD_WIDTH:]
        tool_state = decode_json(head[-1], f"tool state of session {session_id!r}")
        return _session_of(head), tool_state, None if fold[0] is None else fold_of(session_id, fold)

    async def spans(self, tx: Transaction, session_id: str) -> tuple[Span, ...]:
        """Return the stretches that a session's log is made of; the last one is its own."""
        rows = await tx.query(self._lineage, (session_id,))
        if not rows:
            raise not_found(session_id)
        return spans_of(session_id, rows[0][0])

    async def edit(
        self,
        tx: Transaction,
        session_id: str,
        *,
        system_prompt: tuple[str | None] | None,
        metadata: str | None,
        at_ms: int,
    ) -> SessionRecord:
        """Change what is given; `system_prompt` is a tuple of one, because None is a prompt as well."""
        if system_prompt is not None or metadata is not None:
            await tx.execute(self._count_edit, (at_ms, session_id))
        if system_prompt is not None:
            await tx.execute(self._set_prompt, (system_prompt[0], session_id))
        if metadata is not None:
            await tx.execute(self._set_metadata, (metadata, session_id))
        return await self.get(tx, session_id)

    def set_tool_state(self, session_id: str, tool_state: str) -> Statement:
        """Return the statement that replaces the session's dict for tools."""
        return self._set_tool_state, (tool_state, session_id)

    async def close(self, tx: Transaction, session_id: str, *, at_ms: int) -> bool | SessionBusyError:
        """Close a session; False if it was closed before, an error to raise if its lease is held."""
        if await self._seize(tx, self._close, (at_ms, session_id, at_ms, None), session_id, at_ms=at_ms):
            return True
        refusal = await self.refusal(tx, session_id, at_ms=at_ms, needs_open=True)
        return False if isinstance(refusal, SessionClosedError) else refusal

    def close_free(self, session_id: str, *, at_ms: int) -> Statement:
        """Return the statement that closes a session which nobody holds; it changes no row of any other."""
        return self._close, (at_ms, session_id, at_ms, None)

    # ---- the lease ----

    async def take_for_new_send(self, tx: Transaction, claim: Claim, *, at_ms: int, op: str) -> Head | None:
        """Take the lease, one sequence number and one send index; None where that is refused."""
        params = _claim_params(claim, at_ms, op)
        if not await self._seize(tx, self._take_for_new, params, claim.session_id, at_ms=at_ms):
            return None
        [row] = await tx.query(self._head_before_last, (claim.session_id,))
        return _head_of(row)

    async def take(self, tx: Transaction, claim: Claim, *, at_ms: int, op: str) -> Head | None:
        """Take the lease; None where that is refused."""
        params = _claim_params(claim, at_ms, op)
        if not await self._seize(tx, self._take, params, claim.session_id, at_ms=at_ms):
            return None
        [row] = await tx.query(self._head, (claim.session_id,))
        return _head_of(row)

    async def _seize(self, tx: Transaction, sql: str, params: Row, session_id: str, *, at_ms: int) -> bool:
        """Run a statement that a lease refuses; False where somebody holds it, whom a look in this transaction shows.

        On a server the holder may give it back behind the statement that it refused: the look locks the row.
        """
        if await tx.execute(sql, params):
            return True
        rows = await tx.query(self._lock, (session_id,))
        is_free = bool(rows) and (rows[0][0] is None or rows[0][1] <= at_ms)
        return is_free and bool(await tx.execute(sql, params))

    async def lock_free(self, tx: Transaction, session_ids: Sequence[str]) -> dict[str, tuple[str | None, int]]:
        """Lock those of these heads that nobody else is writing; return the owner and the epoch of each."""
        places = ", ".join("?" * len(session_ids))
        skip_locked = self._render.dialect.skip_locked
        sql = self._render(f"SELECT id, owner, epoch FROM {{sessions}} WHERE id IN ({places}){skip_locked}")
        return {id_: (owner or None, epoch) for id_, owner, epoch in await tx.query(sql, session_ids)}

    async def take_over(
        self, tx: Transaction, session_id: str, epoch: int, *, owner: str, at_ms: int, ttl_ms: int, op: str
    ) -> bool:
        """Take the lease that had this epoch, whoever holds it; False where it has another one."""
        params = (owner, at_ms + ttl_ms, ttl_ms, at_ms, op, session_id, epoch)
        if await tx.execute(self._take_over, params):
            return True
        refuse_newer((await tx.query(self._version))[0][0], self._render.prefix)
        return False

    async def refusal(
        self, tx: Transaction, session_id: str, *, at_ms: int, needs_open: bool
    ) -> SessionBusyError | SessionClosedError:
        """Return the error for a lease that was not given. Raises `session.not_found`, `store.schema_newer`.

        A lease that runs longer than its owner asked for was taken before the clock was set back; it is cut to what its
        owner asked for, from here on: a living owner renews it in time, a dead one does not hold the session for ever.
        """
        rows = await tx.query(self._lease_of, (session_id,))
        if not rows:
            raise not_found(session_id)
        refuse_newer((await tx.query(self._version))[0][0], self._render.prefix)
        state, owner, _, until_ms, ttl_ms, _ = rows[0]
        if needs_open and state == SessionState.CLOSED.value:
            return SessionClosedError(
                f"session {session_id!r} is closed to input: its log can be read, a new session goes on",
                session_id=session_id,
            )
        if until_ms > at_ms + ttl_ms:
            until_ms = at_ms + ttl_ms
            await tx.execute(self._shorten, (until_ms, session_id, until_ms))
        return SessionBusyError(
            f"session {session_id!r} is busy: {owner!r} holds its lease for {until_ms - at_ms} ms more, and longer"
            " while its turn runs: send(..., on_busy='wait') waits for it, on_busy='queue' leaves the input for it, and"
            " cancel() stops it",
            session_id=session_id,
            owner=owner,
            lease_until_ms=until_ms,
        )

    def guard(self, lease: Lease, *, at_seq: int, count: int, is_last: bool, at_ms: int, op: str) -> Statement:
        """Return the statement that proves the lease, lengthens it or gives it back, and takes `count` sequence numbers
        from `at_seq` on; it changes no row where the lease is lost, or where somebody has signalled."""
        who = (*_heard(lease), at_seq)
        if is_last:
            return self._guard_last, (count, at_ms, op, *who)
        return self._guard, (count, at_ms, at_ms, op, *who)

    def guard_taking(
        self, lease: Lease, *, to_position: int, at_seq: int, count: int, at_ms: int, op: str
    ) -> Statement:
        """Return the guard of a move that takes the waiting inputs up to `to_position`."""
        who = (*_heard(lease), at_seq)
        return self._guard_taking, (to_position, count, at_ms, at_ms, op, *who)

    async def release(self, tx: Transaction, lease: Lease, *, at_ms: int) -> bool:
        """Give the lease back; False if it was lost."""
        return bool(await tx.execute(self._release, (at_ms, lease.session_id, lease.owner, lease.epoch)))

    def guard_end(self, lease: Lease, *, at_ms: int, op: str) -> Statement:
        """Return the statement that proves the lease and gives it back; it changes no row where the lease is lost."""
        return self._guard_end, (at_ms, op, *_heard(lease))

    async def has_op(self, tx: Transaction, session_id: str, op: str) -> bool:
        """Tell whether the last write under a lease has this token."""
        rows = await tx.query(self._last_op, (session_id,))
        return bool(rows) and bool(rows[0][0] == op)

    async def renew(self, tx: Transaction, lease: Lease, *, ttl_ms: int, at_ms: int) -> None:
        """Lengthen the lease. Raises `session.lease_lost`."""
        who = (lease.session_id, lease.owner, lease.epoch)
        if not await tx.execute(self._renew, (at_ms + ttl_ms, ttl_ms, *who)):
            await self.raise_lost(tx, lease, None)

    async def check_held(self, tx: Transaction, lease: Lease, at_seq: int | None) -> None:
        """Raise `session.lease_lost` if the lease is lost or the log stands elsewhere than at `at_seq`."""
        rows = await tx.query(self._lease_of, (lease.session_id,))
        if not rows or (rows[0][1], rows[0][2]) != (lease.owner, lease.epoch) or at_seq not in (None, rows[0][5]):
            await self.raise_lost(tx, lease, at_seq)

    # ---- what is said from outside ----

    async def count_input(self, tx: Transaction, session_id: str, *, at_ms: int) -> bool:
        """Count an input that is put in the inbox, and signal it; False where the session takes none."""
        return bool(await tx.execute(self._count_input, (at_ms, session_id)))

    async def inbox_of(self, tx: Transaction, session_id: str) -> tuple[int, int, str | None, int, int]:
        """Return how many inputs the inbox was given, how many of them left, who holds the lease until when, and the
        count of signals. Raises `session.not_found`."""
        rows = await tx.query(self._inbox_of, (session_id,))
        if not rows:
            raise not_found(session_id)
        count, taken, owner, until_ms, signals = rows[0]
        return count, taken, owner, until_ms, signals

    async def signals_of(self, tx: Transaction, session_ids: Sequence[str]) -> dict[str, tuple[int, int]]:
        """Return (epoch, signals) of the sessions among these that there are."""
        found = {}
        for first in range(0, len(session_ids), _MAX_ASKED):
            asked = session_ids[first : first + _MAX_ASKED]
            # A few lengths only, so that there are few statements to prepare.
            size = next(size for size in (1, 10, 50, _MAX_ASKED) if size >= len(asked))
            places = ", ".join("?" * size)
            sql = self._render(f"SELECT id, epoch, signals FROM {{sessions}} WHERE id IN ({places})")
            rows = await tx.query(sql, (*asked, *[asked[-1]] * (size - len(asked))))
            found.update({id_: (epoch, signals) for id_, epoch, signals in rows})
        return found

    async def tell_of_work(self, tx: Transaction, session_id: str) -> None:
        """Tell who listens, at COMMIT, that there is something to do in a session."""
        sql = self._render.dialect.notify
        if sql is not None:
            await tx.query(self._render(sql), (self.work_channel, session_id))

    async def signal(self, tx: Transaction, session_id: str) -> None:
        """Want the ear of the running turn. Raises `session.not_found`."""
        if not await tx.execute(self._signal, (session_id,)):
            raise not_found(session_id)

    def settle_inbox(self, session_id: str, *, behind: int) -> Statement:
        """Return the statement that counts as gone what has left the inbox up to the first input that waits behind a
        position."""
        return self._settle_inbox, (behind, session_id)

    async def cancel(self, tx: Transaction, session_id: str, *, reason: str) -> None:
        """Ask the turn that holds the lease to stop, if there is one."""
        await tx.execute(self._cancel, (reason, session_id))

    async def news(self, tx: Transaction, lease: Lease) -> News:
        """Return what somebody outside has to say to the turn of a lease. Raises `session.lease_lost`."""
        rows = await tx.query(self._news, (lease.session_id,))
        if not rows or (rows[0][0], rows[0][1]) != (lease.owner, lease.epoch):
            await self.raise_lost(tx, lease, None)
        _, epoch, signals, cancel_epoch, reason, options = rows[0]
        return News(signals, (reason or "cancelled") if cancel_epoch == epoch else None, next_input_of(options))

    async def raise_unwritten(self, tx: Transaction, lease: Lease, at_seq: int | None) -> NoReturn:
        """Raise what a write has to hear whose guard changed no row: `Signalled`, or `session.lease_lost`."""
        news = await self.news(tx, lease)
        if lease.signals not in (ANY_SIGNALS, news.signals):
            raise Signalled(news)
        await self.raise_lost(tx, lease, at_seq)

    async def raise_lost(self, tx: Transaction, lease: Lease, at_seq: int | None) -> NoReturn:
        """Raise `session.lease_lost` for a write whose guard changed no row, and say who holds the session."""
        rows = await tx.query(self._lease_of, (lease.session_id,))
        if not rows:
            raise not_found(lease.session_id)
        _, owner, epoch, _, _, next_seq = rows[0]
        if (owner, epoch) == (lease.owner, lease.epoch):
            reason = f"its log goes on at {next_seq}, this write was made for {at_seq}"
        elif not owner:
            reason = f"its lease was given back (epoch {epoch}, this write has {lease.epoch})"
        else:
            reason = f"{owner!r} took it over (epoch {epoch}, this write has {lease.epoch})"
        raise LeaseLostError(
            f"session {lease.session_id!r} is not {lease.owner!r}'s to write: {reason}; nothing was written",
            session_id=lease.session_id,
        )

    # ---- lists ----

    async def page(
        self,
        tx: Transaction,
        *,
        state: SessionState | None,
        metadata: Mapping[str, Any],
        parent_id: str | None,
        cursor: str | None,
        limit: int,
    ) -> Page[SessionRecord]:
        """Return a page of sessions, newest first, that have this state, these members of metadata and this parent."""
        conditions = ["s.created_at_ms <= ? AND (s.created_at_ms < ? OR s.id < ?)"]
        filters: list[Any] = []
        if parent_id is not None:
            conditions.append("s.parent_id = ?")
            filters.append(parent_id)
        if state is not None:
            conditions.append("s.state = ?")
            filters.append(state.value)
        for key, value in metadata.items():
            # The database leaves out what cannot match; what can is compared as JSON below.
            text = member_text(key, value)
            if text is not None:
                conditions.append(self._contains)
                filters.append(text)
        sql = self._render(
            f"SELECT {_COLUMNS} FROM {_JOINED} WHERE {' AND '.join(conditions)}"
            " ORDER BY s.created_at_ms DESC, s.id DESC LIMIT ?"
        )
        at_ms, last_id = (_MAX_INTEGER, "") if cursor is None else _read_cursor(cursor)
        found: list[SessionRecord] = []
        batch = _SCAN_ROWS if metadata else limit + 1
        while True:
            rows = await tx.query(sql, (at_ms, at_ms, last_id, *filters, batch))
            for row in rows:
                session = _session_of(row)
                if not _has_members(session.metadata, metadata):
                    continue
                if len(found) == limit:
                    last = found[-1]
                    return Page(tuple(found), _write_cursor(last.created_at_ms, last.id))
                found.append(session)
            if len(rows) < batch:
                return Page(tuple(found), None)
            at_ms, last_id = rows[-1][4], rows[-1][0]


def not_found(session_id: str) -> SessionNotFoundError:
    """Return the error for a session that is not there."""
    given: Any = session_id
    advice = "new_session() makes one, list_sessions() shows them"
    if not isinstance(given, str):
        advice = "an id is text, as `await loop.new_session()` gives it"
    return SessionNotFoundError(
        f"session {session_id!r:.200} does not exist in this store: {advice}", session_id=session_id
    )


def next_input_of(options: str | None) -> NextInput:
    """Return what an input with these stored options is to a turn that runs; None is that there is none."""
    if options is None:
        return NextInput.NONE
    return NextInput.FOLLOW_UP if options == "{}" else NextInput.SEND


def ttl_ms_of(ttl_s: float) -> int:
    """Return a lease's time in milliseconds, at least one."""
    return max(1, round(ttl_s * 1000))


def _heard(lease: Lease) -> tuple[Any, ...]:
    """Return what a guard asks for of a lease."""
    least, most = (0, _MAX_INTEGER) if lease.signals == ANY_SIGNALS else (lease.signals, lease.signals)
    return lease.session_id, lease.owner, lease.epoch, least, most


def _claim_params(claim: Claim, at_ms: int, op: str) -> tuple[Any, ...]:
    ttl_ms = ttl_ms_of(claim.ttl_s)
    return (claim.owner, at_ms + ttl_ms, ttl_ms, at_ms, op, claim.session_id, at_ms, claim.dead_owner)


def _head_of(row: Row) -> Head:
    epoch, next_seq, version, send_count, previous_owner, status, open_calls, signals, options = row
    next_input = next_input_of(options)
    return Head(epoch, next_seq, version, send_count, previous_owner, status, open_calls, signals, next_input)


def _session_of(row: Row) -> SessionRecord:
    id_, state, prompt, metadata, created_ms, updated_ms, next_seq, sends, version, owner, epoch, until_ms, *more = row
    return SessionRecord(
        id=id_,
        state=decode_choice(SessionState, state, f"state of session {id_!r}"),
        system_prompt=prompt,
        metadata=decode_json(metadata, f"metadata of session {id_!r}"),
        created_at_ms=created_ms,
        updated_at_ms=updated_ms,
        next_seq=next_seq,
        send_count=sends,
        version=version,
        owner=owner or None,
        epoch=epoch,
        lease_until_ms=until_ms if owner else 0,
        forked_from=more[0],
        forked_at_seq=more[1],
        parent_id=more[2],
        parent_send=more[3],
        root_id=more[4],
        depth=more[5],
        agent=None if more[6] is None else decode_json(more[6], f"agent of session {id_!r}"),
    )


def _has_members(metadata: Mapping[str, Any], members: Mapping[str, Any]) -> bool:
    return all(key in metadata and is_same_json(metadata[key], value) for key, value in members.items())


def _write_cursor(created_at_ms: int, session_id: str) -> str:
    return base64.urlsafe_b64encode(f"{created_at_ms}:{session_id}".encode()).decode("ascii").rstrip("=")


def _read_cursor(cursor: str) -> tuple[int, str]:
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        created_at_ms, _, session_id = base64.b64decode(padded, altchars=b"-_", validate=True).decode().partition(":")
        number = int(created_at_ms)
    except (ValueError, AttributeError, binascii.Error) as error:
        raise InputError(
            f"cursor {cursor!r} is none that list_sessions() gave: hand on a page's next_cursor"
        ) from error
    if not session_id or not 0 <= number <= _MAX_INTEGER:
        raise InputError(f"cursor {cursor!r} is none that list_sessions() gave: hand on a page's next_cursor")
    return number, session_id
