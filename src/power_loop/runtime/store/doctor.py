"""Looks through a store session by session, tells what it finds, and mends what can be mended from the rows alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

from power_loop.contracts.clock import Clock
from power_loop.contracts.diagnosis import Finding, FindingKind
from power_loop.contracts.errors import StoreCorruptError
from power_loop.runtime.store.blobs import referred
from power_loop.runtime.store.codec import BLOB_MEMBER, AnyBlob, decode_content, decode_json, digest_of
from power_loop.runtime.store.examination import Ailment, Columns, SessionFacts, examine, mistyped, unread
from power_loop.runtime.store.lineage import spans_of
from power_loop.runtime.store.run_examination import examine_run
from power_loop.runtime.store.sessions import not_found
from power_loop.runtime.store.sql.database import Database, Row, Transaction
from power_loop.runtime.store.sql.dialect import Renderer
from power_loop.runtime.store.sql.rows import SESSION_TABLES
from power_loop.runtime.store.sql.tables import (
    BLACKBOARD_ENTRIES,
    BLACKBOARDS,
    BUDGET_HOLDS,
    BUDGETS,
    FOLDS,
    INBOX,
    MODEL_CALLS,
    PROJECT_MESSAGES,
    SENDS,
    SESSION_DETAILS,
    SESSIONS,
    TIMERS,
    TOOL_CALLS,
    TOOL_RESULTS,
    WORKFLOW_RUNS,
    WORKFLOW_SIGNALS,
    WORKFLOW_STEPS,
    Table,
)
from power_loop.runtime.store.tool_calls import is_pruned
from power_loop.runtime.store.word_index import WordIndex

# Sessions whose ids, and messages whose text, are held in memory at the same time.
_PAGE = 200
_MESSAGES = 500
# How often a session is looked at anew that changes while it is looked at.
_TRIES = 3
# Arguments, keys of requests and summaries may be long, and nothing is held against them.
_LEFT_OUT = {TOOL_CALLS.name: {"arguments"}, FOLDS.name: {"summary"}}
# What the replies of each send took that a provider gave.
_REPLIES = (
    "SELECT send_index, COALESCE(SUM(input_tokens), 0) + COALESCE(SUM(output_tokens), 0) FROM {model_calls}"
    " WHERE session_id = ? AND attempts > 0 GROUP BY send_index"
)
_DIGESTS = "SELECT digest FROM {blobs} WHERE session_id = ? ORDER BY digest"


class Doctor:
    """Reads each session in one snapshot, its log in pages behind that; nothing is written unless it is asked for."""

    def __init__(self, database: Database, render: Renderer, clock: Clock) -> None:
        self._database = database
        self._render = render
        self._clock = clock
        self._contains = render.dialect.contains("lineage")

    async def findings(self, session_id: str | None, *, repairs: bool) -> AsyncIterator[Finding]:
        """Yield what is found, of one session or of all and of rows that belong to none.

        With `repairs` what can be mended is, a session's in one transaction. Raises `session.not_found`.
        """
        if session_id is not None:
            if await self._head(session_id) is None:
                raise not_found(session_id)
            for finding in await self._session(session_id, repairs=repairs):
                yield finding
            return
        last = ""
        while ids := await self._page("SELECT id FROM {sessions} WHERE id > ? ORDER BY id LIMIT ?", (last, _PAGE)):
            for (found,) in ids:
                for finding in await self._session(found, repairs=repairs):
                    yield finding
            last = ids[-1][0]
        for table in SESSION_TABLES:
            async for finding in self._strays(table, repairs=repairs):
                yield finding
        index = await WordIndex(self._database, self._render).examine(repairs=repairs)
        if index is not None:
            yield index

    # ---- one session ----

    async def _session(self, session_id: str, *, repairs: bool) -> list[Finding]:
        found: list[Ailment] = []
        tick = 0
        for _ in range(_TRIES):
            facts = await self._facts(session_id)
            if facts is None:
                return []  # it was removed meanwhile
            tick = facts.head["tick"]
            found = mistyped(facts) or [*examine(facts, self._clock.now_ms()), *examine_run(facts)]
            head = await self._head(session_id)
            if not any(one.finding.is_problem for one in found) or (head is not None and head["tick"] == tick):
                break
        cures = [one for one in found if one.cure]
        is_done = bool(repairs and cures) and await self._cure(session_id, tick, cures)
        return [replace(one.finding, is_repaired=is_done and bool(one.cure)) for one in found]

    async def _cure(self, session_id: str, tick: int, ailments: Sequence[Ailment]) -> bool:
        """Mend a session, if it stands as it was looked at and no turn runs on it."""
        render, at_ms = self._render, self._clock.now_ms()
        guard = render(
            "UPDATE {sessions} SET tick = tick + 1 WHERE id = ? AND tick = ? AND (owner IS NULL OR lease_until_ms <= ?)"
        )

        async def body(tx: Transaction) -> bool:
            if not await tx.execute(guard, (session_id, tick, at_ms)):
                return False
            for ailment in ailments:
                for sql, params in ailment.cure:
                    await tx.execute(render(sql), params)
            return True

        return await self._database.write("repair", body)

    async def _facts(self, session_id: str) -> SessionFacts | None:
        async def body(tx: Transaction) -> SessionFacts | None:
            head = await self._rows(tx, SESSIONS, "id = ?", session_id)
            if not head:
                return None
            mine = "session_id = ?"
            details = await self._rows(tx, SESSION_DETAILS, mine, session_id)
            results = await self._query(
                tx, "SELECT reply_seq, idx FROM {tool_results} WHERE session_id = ?", session_id
            )
            facts = SessionFacts(
                head=head[0],
                details=details[0] if details else None,
                sends=await self._rows(tx, SENDS, f"{mine} ORDER BY idx", session_id),
                calls=await self._rows(tx, TOOL_CALLS, f"{mine} ORDER BY reply_seq, idx", session_id),
                results=[(reply_seq, index) for reply_seq, index in results],
                model_calls=await self._rows(tx, MODEL_CALLS, f"{mine} ORDER BY reply_seq", session_id),
                inbox=await self._rows(tx, INBOX, f"{mine} ORDER BY position", session_id),
                folds=await self._rows(tx, FOLDS, f"{mine} ORDER BY to_seq", session_id),
                projected=await self._rows(tx, PROJECT_MESSAGES, f"{mine} ORDER BY seq", session_id),
                boards=await self._rows(tx, BLACKBOARDS, mine, session_id),
                entries=await self._rows(tx, BLACKBOARD_ENTRIES, f"{mine} ORDER BY entry_key", session_id),
                budgets=await self._rows(tx, BUDGETS, f"{mine} ORDER BY send_index", session_id),
                holds=await self._rows(tx, BUDGET_HOLDS, f"{mine} ORDER BY number, level", session_id),
                timers=await self._rows(tx, TIMERS, f"{mine} ORDER BY id", session_id),
                runs=await self._rows(tx, WORKFLOW_RUNS, mine, session_id),
                steps=await self._rows(tx, WORKFLOW_STEPS, f"{mine} ORDER BY path", session_id),
                signals=await self._rows(tx, WORKFLOW_SIGNALS, f"{mine} ORDER BY position", session_id),
                reply_tokens=_tokens_of(await self._query(tx, _REPLIES, session_id)),
                blobs=[digest for (digest,) in await self._query(tx, _DIGESTS, session_id)],
                shown_beside=await self._shown_beside(tx, session_id),
            )
            await self._share(tx, facts)
            facts.missing = await self._missing(tx, facts)
            await self._end_of_log(tx, facts)
            return facts

        facts = await self._database.read(body)
        if facts is not None:
            await self._read_log(facts)
            await self._read_results(facts)
            await self._read_blobs(facts)
        return facts

    async def _missing(self, tx: Transaction, facts: SessionFacts) -> frozenset[str]:
        """Return the sessions above this one that are not there."""
        above = {facts.head["parent_id"], *(send["paid_by"] for send in facts.sends)}
        ids = sorted(one for one in above if isinstance(one, str))
        return frozenset(
            [one for one in ids if not await self._query(tx, "SELECT 1 FROM {sessions} WHERE id = ?", one)]
        )

    async def _shown_beside(self, tx: Transaction, session_id: str) -> set[str]:
        """Return the digests of data to which whole results and the projection refer."""
        contains = self._render.dialect.contains("body")
        shown: set[str] = set()
        for table in (TOOL_RESULTS, PROJECT_MESSAGES):
            sql = f"SELECT body FROM {{{table.name}}} WHERE session_id = ? AND {contains}"
            rows = await self._query(tx, sql, session_id, f'{BLOB_MEMBER}"')
            shown |= referred([body for (body,) in rows if isinstance(body, str)])
        return shown

    async def _share(self, tx: Transaction, facts: SessionFacts) -> None:
        """Note up to where the folds that a fork shares with its ancestors stand for the log, and what of that log is
        not there."""
        try:
            spans = spans_of(facts.session_id, facts.details["lineage"] if facts.details else None)[:-1]
        except StoreCorruptError:
            return
        folds = "SELECT MAX(to_seq) FROM {folds} WHERE session_id = ? AND last_seq < ?"
        heads = "SELECT next_seq FROM {sessions} WHERE id = ?"
        for span in spans:
            [(to_seq,)] = await self._query(tx, folds, span.session_id, span.to_seq)
            if isinstance(to_seq, int):
                facts.shared_fold_seq = max(facts.shared_fold_seq, to_seq)
            head = await self._query(tx, heads, span.session_id)
            if not head:
                facts.lost_origins.append(f"it shares the log of session {span.session_id!r}, which is not there")
            elif isinstance(head[0][0], int) and head[0][0] <= span.to_seq:
                ends = f"which ends with {head[0][0] - 1}"
                facts.lost_origins.append(f"it shares the log of {span.session_id!r} up to {span.to_seq}, {ends}")

    async def _end_of_log(self, tx: Transaction, facts: SessionFacts) -> None:
        """Note where the log ends in this snapshot: what comes behind it belongs to a later one."""
        sql = "SELECT MAX(seq) FROM {messages} WHERE session_id = ?"
        [(last,)] = await self._query(tx, sql, facts.session_id)
        facts.last_message_seq = last or 0

    async def _read_log(self, facts: SessionFacts) -> None:
        """Gather what matters of the log, which only grows, so that it can be read in pages."""
        sql = (
            "SELECT seq, send_index, role, body FROM {messages} WHERE session_id = ? AND seq > ? AND seq <= ?"
            " ORDER BY seq LIMIT ?"
        )
        last: int | None = None
        while True:
            # Not the least integer: seqs that no store has written are read as well.
            after = -(1 << 62) if last is None else last
            rows = await self._page(sql, (facts.session_id, after, facts.last_message_seq, _MESSAGES))
            for row in rows:
                facts.log.add(facts.session_id, row)
            if len(rows) < _MESSAGES:
                return
            last = rows[-1][0]

    async def _read_results(self, facts: SessionFacts) -> None:
        """Find whole results that cannot be read."""
        sql = "SELECT body FROM {tool_results} WHERE session_id = ? AND reply_seq = ? AND idx = ?"
        for reply_seq, index in facts.results:
            where = f"the whole result of call {index} of reply {reply_seq}"
            for (body,) in await self._page(sql, (facts.session_id, reply_seq, index)):
                problem = unread(decode_json if is_pruned(body) else _whole, body, where)
                if problem is not None:
                    facts.damaged_results.append(problem)

    async def _read_blobs(self, facts: SessionFacts) -> None:
        """Find data that is not what its digest says."""
        sql = "SELECT data FROM {blobs} WHERE session_id = ? AND digest = ?"
        for digest in facts.blobs:
            for (data,) in await self._page(sql, (facts.session_id, digest)):
                if not isinstance(data, str) or not data.isascii() or digest_of(data) != digest:
                    facts.damaged_blobs.append(digest)

    async def _head(self, session_id: str) -> Columns | None:
        rows = await self._database.read(lambda tx: self._rows(tx, SESSIONS, "id = ?", session_id))
        return rows[0] if rows else None

    # ---- rows that belong to no session ----

    async def _strays(self, table: Table, *, repairs: bool) -> AsyncIterator[Finding]:
        last = ""
        sql = (
            f"SELECT DISTINCT t.session_id FROM {{{table.name}}} t WHERE t.session_id > ?"
            " AND NOT EXISTS (SELECT 1 FROM {sessions} s WHERE s.id = t.session_id) ORDER BY t.session_id LIMIT ?"
        )
        while rows := await self._page(sql, (last, _PAGE)):
            for (session_id,) in rows:
                yield await self._stray(table, session_id, repairs=repairs)
            last = rows[-1][0]

    async def _stray(self, table: Table, session_id: str, *, repairs: bool) -> Finding:
        render = self._render
        count = f"SELECT COUNT(*) FROM {{{table.name}}} WHERE session_id = ?"
        shared = f"SELECT COUNT(*) FROM {{session_details}} WHERE lineage IS NOT NULL AND {self._contains}"
        delete = f"DELETE FROM {{{table.name}}} WHERE session_id = ?"

        async def look(tx: Transaction) -> tuple[int, bool]:
            [(rows,)] = await self._query(tx, count, session_id)
            [(forks,)] = await self._query(tx, shared, f'"{session_id}"')
            return rows, bool(forks)

        async def remove(tx: Transaction) -> bool:
            if await self._rows(tx, SESSIONS, "id = ?", session_id):
                return False
            await tx.execute(render(delete), (session_id,))
            return True

        rows, is_shared = await self._database.read(look)
        what = "a row" if rows == 1 else f"{rows} rows"
        message = f"{what} of {render.prefix}{table.name} for session {session_id!r}, which is none"
        finding = Finding(FindingKind.ORPHANED, "row.orphaned", session_id, message, "they are removed")
        if is_shared:
            return replace(finding, message=f"{message}, and a fork shares its log", repair=None)
        is_done = repairs and await self._database.write("repair", remove)
        return replace(finding, is_repaired=is_done)

    # ---- reading ----

    async def _page(self, sql: str, params: Sequence[Any]) -> list[Row]:
        rendered = self._render(sql)
        return await self._database.read(lambda tx: tx.query(rendered, params))

    async def _query(self, tx: Transaction, sql: str, *params: Any) -> list[Row]:
        return await tx.query(self._render(sql), params)

    async def _rows(self, tx: Transaction, table: Table, where: str, session_id: str) -> list[Columns]:
        left_out = _LEFT_OUT.get(table.name, set())
        names = [column.name for column in table.columns if column.name not in left_out]
        sql = f"SELECT {', '.join(names)} FROM {{{table.name}}} WHERE {where}"
        return [dict(zip(names, row, strict=True)) for row in await self._query(tx, sql, session_id)]


def _tokens_of(rows: Sequence[Row]) -> dict[int, int]:
    """Return the tokens of each send; a row whose values are no numbers is found as that."""
    # MySQL makes a decimal of a sum of integers.
    return {send: int(n) for send, n in rows if isinstance(send, int) and isinstance(n, (int, Decimal))}


def _whole(body: object, where: str) -> None:
    """Read a whole result. Raises `store.corrupt`."""
    if not isinstance(body, str):
        raise StoreCorruptError(f"{where} is damaged: it is no text")
    decode_content(body, where, AnyBlob())
