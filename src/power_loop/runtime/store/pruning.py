"""Finds what is old enough to go, in pages, and takes it out of a database, a bounded number of rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from power_loop.contracts.errors import InputError, PowerLoopError
from power_loop.contracts.numbers import is_number
from power_loop.contracts.states import RESUMABLE_SENDS
from power_loop.contracts.upkeep import Pruned
from power_loop.runtime.store.removal import Removal
from power_loop.runtime.store.sql.database import Database, Params, Row, Transaction
from power_loop.runtime.store.sql.dialect import Renderer
from power_loop.runtime.store.sql.tables import quoted
from power_loop.runtime.store.tool_calls import pruned_body

#: Hears after each transaction what is gone so far.
OnProgress = Callable[[Pruned], None]

_MAX_AGE_S = 100 * 365 * 86400

#: Rows, or whole sessions, that one look at the database brings.
PAGE_ROWS = 200
# Whole results that one transaction empties: each may be megabytes long.
_RESULTS_AT_ONCE = 20

_UNENDED = frozenset(status.value for status in RESUMABLE_SENDS)

#: A session that no turn runs on.
IS_FREE = "(s.owner IS NULL OR s.lease_until_ms <= ?)"


class Pruning:
    """Prunes. Each step is a transaction of its own: what was done stays done if the rest is not, and a second run goes
    on. A session whose lease is held is left alone."""

    def __init__(self, database: Database, render: Renderer, removal: Removal) -> None:
        self._database = database
        self._removal = removal
        size = render.dialect.byte_length("r.body")
        self._old_results = render(
            f"SELECT r.session_id, r.reply_seq, r.idx, {size} FROM {{tool_results}} r"
            " JOIN {tool_calls} c ON c.session_id = r.session_id AND c.reply_seq = r.reply_seq AND c.idx = r.idx"
            " JOIN {sessions} s ON s.id = r.session_id"
            " WHERE (r.session_id > ? OR (r.session_id = ? AND (r.reply_seq > ? OR (r.reply_seq = ? AND r.idx > ?))))"
            f" AND r.session_id >= ? AND r.session_id <= ? AND c.ended_at_ms <= ? AND SUBSTR(r.body, 1, 1) = '['"
            f" AND {IS_FREE} ORDER BY r.session_id, r.reply_seq, r.idx LIMIT {PAGE_ROWS}"
        )
        self._empty = render(
            "UPDATE {tool_results} SET body = ? WHERE session_id = ? AND reply_seq = ? AND idx = ?"
            f" AND SUBSTR(body, 1, 1) = '[' AND EXISTS (SELECT 1 FROM {{sessions}} s WHERE s.id = ? AND {IS_FREE})"
        )
        self._old_inputs = render(
            "SELECT i.session_id, i.position FROM {inbox} i JOIN {sessions} s ON s.id = i.session_id"
            " WHERE (i.session_id > ? OR (i.session_id = ? AND i.position > ?))"
            f" AND i.session_id >= ? AND i.session_id <= ? AND i.taken_at_ms <= ? AND {IS_FREE}"
            f" ORDER BY i.session_id, i.position LIMIT {PAGE_ROWS}"
        )
        self._forget_input = render("DELETE FROM {inbox} WHERE session_id = ? AND position = ? AND taken_at_ms <= ?")
        self._old_timers = render(
            "SELECT id, ended_at_ms FROM {timers} WHERE ended_at_ms <= ? AND (ended_at_ms > ? OR id > ?)"
            " AND ended_at_ms >= ? AND session_id >= ? AND session_id <= ? ORDER BY ended_at_ms, id"
            f" LIMIT {PAGE_ROWS}"
        )
        self._forget_timer = render("DELETE FROM {timers} WHERE id = ? AND ended_at_ms <= ?")
        old = (
            "SELECT s.id, s.created_at_ms FROM {sessions} s WHERE s.created_at_ms <= ?"
            " AND (s.created_at_ms < ? OR s.id < ?) AND s.updated_at_ms <= ?"
            # Whoever waits for the session of a sub-agent finds it there.
            " AND NOT EXISTS (SELECT 1 FROM {sends} c JOIN {sends} p ON p.session_id = c.paid_by"
            f" AND p.idx = c.paid_by_send WHERE c.session_id = s.id AND p.status IN ({quoted(_UNENDED)}))"
        )
        # Newest first, so that a fork goes before the session whose log it shares.
        order = f"ORDER BY s.created_at_ms DESC, s.id DESC LIMIT {PAGE_ROWS}"
        self._old_sessions = render(f"{old} {order}")
        self._old_closed = render(f"{old} AND s.state = 'closed' {order}")
        self._updated = render("SELECT updated_at_ms, state FROM {sessions} WHERE id = ?" + render.dialect.for_update)

    async def whole_results(
        self,
        session_id: str | None,
        *,
        before_ms: int,
        at_ms: int,
        touched: set[str],
        tell: OnProgress | None = None,
    ) -> Pruned:
        """Put a mark in the place of whole results that are older than `before_ms`, and note the sessions in
        `touched`."""
        total = Pruned()
        low, high = id_range(session_id)
        last: tuple[Any, ...] = ("", "", -1, -1, -1)
        while True:
            params = (*last, low, high, before_ms, at_ms)
            found = await self._page(self._old_results, params)
            for start in range(0, len(found), _RESULTS_AT_ONCE):
                total += await self._empty_results(found[start : start + _RESULTS_AT_ONCE], at_ms)
                touched.update(owner for owner, *_ in found[start : start + _RESULTS_AT_ONCE])
                if tell is not None:
                    tell(total)
            if len(found) < PAGE_ROWS:
                return total
            owner, reply_seq, index, _ = found[-1]
            last = (owner, owner, reply_seq, reply_seq, index)

    async def _empty_results(self, rows: Sequence[Row], at_ms: int) -> Pruned:
        async def body(tx: Transaction) -> Pruned:
            gone = Pruned()
            for owner, reply_seq, index, size in rows:
                mark = pruned_body(size, at_ms)
                if await tx.execute(self._empty, (mark, owner, reply_seq, index, owner, at_ms)):
                    gone += Pruned(rows=1, freed_bytes=max(size - len(mark), 0))
            return gone

        return await self._database.write("prune_tool_results", body)

    async def inputs(
        self, session_id: str | None, *, before_ms: int, at_ms: int, tell: OnProgress | None = None
    ) -> Pruned:
        """Forget inputs that left their inbox before `before_ms`; a repeat of such a request counts as a new one."""
        count = 0
        low, high = id_range(session_id)
        last: tuple[Any, ...] = ("", "", -1)
        while True:
            params = (*last, low, high, before_ms, at_ms)
            found = await self._page(self._old_inputs, params)
            rows = [(owner, position, before_ms) for owner, position in found]

            async def body(tx: Transaction, rows: Sequence[Row] = rows) -> int:
                return sum([await tx.execute(self._forget_input, row) for row in rows])

            if rows:
                count += await self._database.write("prune_inbox", body)
                if tell is not None:
                    tell(Pruned(rows=count))
            if len(found) < PAGE_ROWS:
                return Pruned(rows=count)
            owner, position = found[-1]
            last = (owner, owner, position)

    async def timers(self, session_id: str | None, *, before_ms: int, tell: OnProgress | None = None) -> Pruned:
        """Forget timers that ended before `before_ms`."""
        count = 0
        low, high = id_range(session_id)
        last = ("", 0)
        while True:
            last_id, last_ms = last
            found = await self._page(self._old_timers, (before_ms, last_ms, last_id, last_ms, low, high))
            rows = [(timer_id, before_ms) for timer_id, _ in found]

            async def body(tx: Transaction, rows: Sequence[Row] = rows) -> int:
                return sum([await tx.execute(self._forget_timer, row) for row in rows])

            if rows:
                count += await self._database.write("prune_timers", body)
                if tell is not None:
                    tell(Pruned(rows=count))
            if len(found) < PAGE_ROWS:
                return Pruned(rows=count)
            last = found[-1]

    async def sessions(self, *, before_ms: int, at_ms: int, with_open: bool, tell: OnProgress | None = None) -> Pruned:
        """Remove sessions that nothing changed since `before_ms`, each in a transaction of its own."""
        rows = sessions = skipped = 0
        select = self._old_sessions if with_open else self._old_closed
        last: tuple[Any, ...] = (before_ms, before_ms + 1, "")
        while True:
            params = (*last, before_ms)
            found = await self._page(select, params)
            for session_id, _ in found:
                removed = await self._remove_old(session_id, before_ms=before_ms, at_ms=at_ms, with_open=with_open)
                if removed is None:
                    skipped += 1
                elif removed:
                    rows, sessions = rows + removed, sessions + 1
                if tell is not None:
                    tell(Pruned(rows, sessions, skipped))
            if len(found) < PAGE_ROWS:
                return Pruned(rows, sessions, skipped)
            session_id, created_at_ms = found[-1]
            last = (created_at_ms, created_at_ms, session_id)

    async def _remove_old(self, session_id: str, *, before_ms: int, at_ms: int, with_open: bool) -> int | None:
        """Remove a session and return its rows; 0 if it changed meanwhile or is gone, None if it has to stay."""

        async def body(tx: Transaction) -> int | PowerLoopError:
            found = await tx.query(self._updated, (session_id,))
            if not found or found[0][0] > before_ms or (found[0][1] != "closed" and not with_open):
                return 0
            return await self._removal.remove(tx, session_id, at_ms=at_ms)

        removed = await self._database.write("prune_sessions", body)
        return removed if isinstance(removed, int) else None

    async def _page(self, select: str, params: Params) -> list[Row]:
        async def body(tx: Transaction) -> list[Row]:
            return await tx.query(select, params)

        return await self._database.read(body)


def checked_age_ms(older_than_s: Any) -> int:
    """Return an age in milliseconds. Raises `input.invalid` for what is none."""
    if not is_number(older_than_s, least=0, most=_MAX_AGE_S):
        raise InputError(f"older_than_s is {older_than_s!r:.80}: give seconds from 0 to {_MAX_AGE_S}")
    return round(older_than_s * 1000)


def id_range(session_id: str | None) -> tuple[str, str]:
    """Return the first and the last id of the sessions that are meant; ids are ASCII, and sort byte for byte."""
    return ("", "\x7f") if session_id is None else (session_id, session_id)
