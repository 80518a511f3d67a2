"""Keeps the head rows: who holds a session's lease, which number the next message gets, and what an edit changes."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from power_loop.contracts.errors import (
    InputError,
    LeaseLostError,
    SessionBusyError,
    SessionClosedError,
    SessionExistsError,
    SessionNotFoundError,
)
from power_loop.contracts.frozen import frozen
from power_loop.contracts.records import Claim, Lease, Page, SessionRecord
from power_loop.contracts.states import SessionState
from power_loop.runtime.store.codec import decode_choice, decode_json, is_same_json, member_text
from power_loop.runtime.store.sql.database import DuplicateKeyError, Row, Transaction
from power_loop.runtime.store.sql.dialect import Renderer
from power_loop.runtime.store.sql.tables import IS_OPEN_CALL

# Rows that a filtered list looks at in one query.
_SCAN_ROWS = 500
_MAX_INTEGER = (1 << 63) - 1

_COLUMNS = (
    "s.id, s.state, d.system_prompt, d.metadata, s.created_at_ms, s.updated_at_ms, s.next_seq, s.send_count,"
    " s.version, s.owner, s.epoch, s.lease_until_ms"
)
_JOINED = "{sessions} s JOIN {session_details} d ON d.session_id = s.id"
_IS_FREE = "(owner IS NULL OR lease_until_ms <= ? OR owner = ?)"


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


class Sessions:
    """Runs the statements on `sessions` and `session_details`, inside of others' transactions."""

    def __init__(self, render: Renderer) -> None:
        self._insert = render(
            "INSERT INTO {sessions} (id, state, created_at_ms, updated_at_ms, next_seq, send_count, version, owner,"
            " previous_owner, epoch, lease_until_ms, lease_ttl_ms, tick)"
            " VALUES (?, 'open', ?, ?, 1, 0, 0, NULL, NULL, 0, 0, 0, 0)"
        )
        self._insert_details = render(
            "INSERT INTO {session_details} (session_id, system_prompt, metadata, tool_state) VALUES (?, ?, ?, '{{}}')"
        )
        self._select = render(f"SELECT {_COLUMNS} FROM {_JOINED} WHERE s.id = ?")
        self._select_with_state = render(f"SELECT {_COLUMNS}, d.tool_state FROM {_JOINED} WHERE s.id = ?")
        self._take_for_new = render(
            "UPDATE {sessions} SET previous_owner = owner, owner = ?, epoch = epoch + 1, lease_until_ms = ?,"
            " lease_ttl_ms = ?, next_seq = next_seq + 1, send_count = send_count + 1, updated_at_ms = ?,"
            f" tick = tick + 1 WHERE id = ? AND {_IS_FREE} AND state = 'open'"
        )
        self._take = render(
            "UPDATE {sessions} SET previous_owner = owner, owner = ?, epoch = epoch + 1, lease_until_ms = ?,"
            f" lease_ttl_ms = ?, updated_at_ms = ?, tick = tick + 1 WHERE id = ? AND {_IS_FREE}"
        )
        head = (
            "SELECT s.epoch, s.next_seq, s.version, s.send_count, s.previous_owner, p.status,"
            f" (SELECT COUNT(*) FROM {{tool_calls}} c WHERE c.session_id = s.id"
            f" AND c.reply_seq >= COALESCE(p.first_seq, 0) AND {IS_OPEN_CALL})"
            " FROM {sessions} s LEFT JOIN {sends} p ON p.session_id = s.id AND p.idx = s.send_count"
        )
        self._head_before_last = render(f"{head} - 1 WHERE s.id = ?")
        self._head = render(f"{head} WHERE s.id = ?")
        guard = "WHERE id = ? AND owner = ? AND epoch = ?"
        self._guard = render(
            "UPDATE {sessions} SET next_seq = next_seq + ?, lease_until_ms = ? + lease_ttl_ms, updated_at_ms = ?,"
            f" tick = tick + 1 {guard} AND next_seq = ?"
        )
        self._guard_last = render(
            "UPDATE {sessions} SET next_seq = next_seq + ?, owner = NULL, lease_until_ms = 0, updated_at_ms = ?,"
            f" tick = tick + 1 {guard} AND next_seq = ?"
        )
        self._release = render(
            "UPDATE {sessions} SET owner = NULL, lease_until_ms = 0, updated_at_ms = ?, tick = tick + 1 " + guard
        )
        self._renew = render("UPDATE {sessions} SET lease_until_ms = ?, lease_ttl_ms = ?, tick = tick + 1 " + guard)
        self._lease_of = render(
            "SELECT state, owner, epoch, lease_until_ms, lease_ttl_ms, next_seq FROM {sessions} WHERE id = ?"
        )
        self._shorten = render(
            "UPDATE {sessions} SET lease_until_ms = ?, tick = tick + 1 WHERE id = ? AND lease_until_ms > ?"
        )
        self._count_edit = render(
            "UPDATE {sessions} SET version = version + 1, updated_at_ms = ?, tick = tick + 1 WHERE id = ?"
        )
        self._set_prompt = render("UPDATE {session_details} SET system_prompt = ? WHERE session_id = ?")
        self._set_metadata = render("UPDATE {session_details} SET metadata = ? WHERE session_id = ?")
        self._set_tool_state = render("UPDATE {session_details} SET tool_state = ? WHERE session_id = ?")
        # The epoch counts up, so that an owner whose lease had run out cannot write to a closed session.
        self._close = render(
            "UPDATE {sessions} SET state = 'closed', owner = NULL, lease_until_ms = 0, epoch = epoch + 1,"
            f" updated_at_ms = ?, tick = tick + 1 WHERE id = ? AND {_IS_FREE} AND state = 'open'"
        )
        self._contains = render.dialect.contains("d.metadata")
        self._render = render

    # ---- making, reading, editing, closing ----

    async def create(
        self, tx: Transaction, session_id: str, *, system_prompt: str | None, metadata: str, at_ms: int
    ) -> SessionRecord:
        """Make a session. Raises `session.exists`."""
        try:
            await tx.execute(self._insert, (session_id, at_ms, at_ms))
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

    async def get_with_state(self, tx: Transaction, session_id: str) -> tuple[SessionRecord, dict[str, Any]]:
        """Return a session and its dict for tools. Raises `session.not_found`."""
        rows = await tx.query(self._select_with_state, (session_id,))
        if not rows:
            raise not_found(session_id)
        return _session_of(rows[0]), decode_json(rows[0][-1], f"tool state of session {session_id!r}")

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

    async def set_tool_state(self, tx: Transaction, session_id: str, tool_state: str) -> None:
        """Replace the session's dict for tools."""
        await tx.execute(self._set_tool_state, (tool_state, session_id))

    async def close(self, tx: Transaction, session_id: str, *, at_ms: int) -> bool | SessionBusyError:
        """Close a session; False if it was closed before, an error to raise if its lease is held."""
        if await tx.execute(self._close, (at_ms, session_id, at_ms, None)):
            return True
        refusal = await self.refusal(tx, session_id, at_ms=at_ms, needs_open=True)
        return False if isinstance(refusal, SessionClosedError) else refusal

    # ---- the lease ----

    async def take_for_new_send(self, tx: Transaction, claim: Claim, *, at_ms: int) -> Head | None:
        """Take the lease, one sequence number and one send index; None where that is refused."""
        if not await tx.execute(self._take_for_new, _claim_params(claim, at_ms)):
            return None
        [row] = await tx.query(self._head_before_last, (claim.session_id,))
        return Head(*row)

    async def take(self, tx: Transaction, claim: Claim, *, at_ms: int) -> Head | None:
        """Take the lease; None where that is refused."""
        if not await tx.execute(self._take, _claim_params(claim, at_ms)):
            return None
        [row] = await tx.query(self._head, (claim.session_id,))
        return Head(*row)

    async def refusal(
        self, tx: Transaction, session_id: str, *, at_ms: int, needs_open: bool
    ) -> SessionBusyError | SessionClosedError:
        """Return the error for a lease that was not given. Raises `session.not_found`.

        A lease that runs longer than its owner asked for was taken before the clock was set back; it is cut to what its
        owner asked for, from here on: a living owner renews it in time, a dead one does not hold the session for ever.
        """
        rows = await tx.query(self._lease_of, (session_id,))
        if not rows:
            raise not_found(session_id)
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
            " while its turn runs: try again later; that process can cancel the turn",
            session_id=session_id,
            owner=owner,
            lease_until_ms=until_ms,
        )

    async def guard(self, tx: Transaction, lease: Lease, *, at_seq: int, count: int, is_last: bool, at_ms: int) -> None:
        """Prove the lease, lengthen it or give it back, and take `count` sequence numbers from `at_seq` on.

        Raises `session.lease_lost`.
        """
        who = (lease.session_id, lease.owner, lease.epoch, at_seq)
        if is_last:
            changed = await tx.execute(self._guard_last, (count, at_ms, *who))
        else:
            changed = await tx.execute(self._guard, (count, at_ms, at_ms, *who))
        if not changed:
            await self._raise_lost(tx, lease, at_seq)

    async def release(self, tx: Transaction, lease: Lease, *, at_ms: int) -> bool:
        """Give the lease back; False if it was lost."""
        return bool(await tx.execute(self._release, (at_ms, lease.session_id, lease.owner, lease.epoch)))

    async def guard_end(self, tx: Transaction, lease: Lease, *, at_ms: int) -> None:
        """Prove the lease and give it back. Raises `session.lease_lost`."""
        if not await self.release(tx, lease, at_ms=at_ms):
            await self._raise_lost(tx, lease, None)

    async def renew(self, tx: Transaction, lease: Lease, *, ttl_ms: int, at_ms: int) -> None:
        """Lengthen the lease. Raises `session.lease_lost`."""
        who = (lease.session_id, lease.owner, lease.epoch)
        if not await tx.execute(self._renew, (at_ms + ttl_ms, ttl_ms, *who)):
            await self._raise_lost(tx, lease, None)

    async def _raise_lost(self, tx: Transaction, lease: Lease, at_seq: int | None) -> None:
        rows = await tx.query(self._lease_of, (lease.session_id,))
        if not rows:
            raise not_found(lease.session_id)
        _, owner, epoch, _, _, next_seq = rows[0]
        if (owner, epoch) == (lease.owner, lease.epoch):
            reason = f"its log goes on at {next_seq}, this write was made for {at_seq}"
        elif owner is None:
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
        cursor: str | None,
        limit: int,
    ) -> Page[SessionRecord]:
        """Return a page of sessions, newest first, that have this state and these members of metadata."""
        conditions = ["s.created_at_ms <= ? AND (s.created_at_ms < ? OR s.id < ?)"]
        filters: list[Any] = []
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
    return SessionNotFoundError(
        f"session {session_id!r} does not exist in this store: new_session() makes one, list_sessions() shows them",
        session_id=session_id,
    )


def ttl_ms_of(ttl_s: float) -> int:
    """Return a lease's time in milliseconds, at least one."""
    return max(1, round(ttl_s * 1000))


def _claim_params(claim: Claim, at_ms: int) -> tuple[Any, ...]:
    ttl_ms = ttl_ms_of(claim.ttl_s)
    return (claim.owner, at_ms + ttl_ms, ttl_ms, at_ms, claim.session_id, at_ms, claim.dead_owner)


def _session_of(row: Row) -> SessionRecord:
    (id_, state, prompt, metadata, created_ms, updated_ms, next_seq, sends, version, owner, epoch, until_ms, *_) = row
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
        owner=owner,
        epoch=epoch,
        lease_until_ms=until_ms,
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
