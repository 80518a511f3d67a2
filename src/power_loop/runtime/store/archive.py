"""Carries a session out of a database as one archive, and into another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from power_loop.contracts.errors import RunSessionError, SessionExistsError
from power_loop.contracts.states import OPEN_CALLS
from power_loop.runtime.store.archive_format import (
    BLOB,
    BOARD,
    BUDGET,
    DETAILS,
    ENTRY,
    FOLD,
    INPUT,
    LINES,
    MESSAGE,
    MODEL_CALL,
    PROJECTED,
    SEND,
    SESSION,
    TOOL_CALL,
    TOOL_RESULT,
    Archive,
    Kept,
)
from power_loop.runtime.store.blobs import referred
from power_loop.runtime.store.lineage import END_OF_LOG, Span, clipped, spans_of
from power_loop.runtime.store.sessions import not_found
from power_loop.runtime.store.sql.database import DuplicateKeyError, Row, Transaction
from power_loop.runtime.store.sql.dialect import Renderer
from power_loop.runtime.store.sql.rows import insert_into, row_params
from power_loop.runtime.store.sql.tables import SESSIONS

# Rows that go to the database together, and those of which each may be megabytes long.
_ROWS, _BLOBS = 200, 1
# By which seq the rows of a log stand in it.
_SEQ_OF = {MESSAGE: "seq", MODEL_CALL: "reply_seq", TOOL_CALL: "reply_seq", TOOL_RESULT: "reply_seq"}
_WITH_BODIES = (MESSAGE, TOOL_RESULT, PROJECTED)
_OPEN = frozenset(state.value for state in OPEN_CALLS)


class Archives:
    """Runs the statements that read and write whole sessions."""

    def __init__(self, render: Renderer) -> None:
        self._head = render(
            f"SELECT {_names(SESSION, 's.')}, d.lineage, {_names(DETAILS, 'd.')} FROM {{sessions}} s"
            " JOIN {session_details} d ON d.session_id = s.id WHERE s.id = ?"
        )
        self._selects = {
            kept: render(
                f"SELECT {_names(kept)} FROM {{{kept.table.name}}} WHERE session_id = ? AND {seq} >= ? AND {seq} < ?"
                f" ORDER BY {', '.join(kept.table.primary_key[1:])}"
            )
            for kept, seq in _SEQ_OF.items()
        }
        self._sends = render(
            f"SELECT {_names(SEND)} FROM {{sends}} WHERE session_id = ? AND first_seq <= ? AND idx < ? ORDER BY idx"
        )
        # Of the inputs that left the inbox those count by which a repeated request is recognized.
        self._inputs = render(
            f"SELECT {_names(INPUT)} FROM {{inbox}} WHERE session_id = ?"
            " AND (request_id IS NOT NULL OR taken_at_ms IS NULL) ORDER BY position"
        )
        self._folds = render(
            f"SELECT {_names(FOLD)} FROM {{folds}} WHERE session_id = ? AND last_seq < ? ORDER BY to_seq"
        )
        self._pruned = render("SELECT MAX(pruned_at_ms) FROM {folds} WHERE session_id = ?")
        self._projected = render(
            f"SELECT {_names(PROJECTED)} FROM {{project_messages}}"
            " WHERE session_id = ? AND to_seq > ? AND to_seq <= ? ORDER BY seq"
        )
        self._blob = render(f"SELECT {_names(BLOB)} FROM {{blobs}} WHERE session_id = ? AND digest = ?")
        self._own = {
            kept: render(
                f"SELECT {_names(kept)} FROM {{{kept.table.name}}} WHERE session_id = ?"
                f" ORDER BY {', '.join(kept.table.primary_key)}"
            )
            for kept in (BOARD, ENTRY, BUDGET)
        }
        self._run = render("SELECT state FROM {workflow_runs} WHERE session_id = ?")
        self._inserts = {kept: render(insert_into(kept.table)) for kept in LINES}

    # ---- out ----

    async def read(self, tx: Transaction, session_id: str, *, with_inbox: bool) -> Mapping[str, Sequence[Row]]:
        """Return by the word for them the rows of a session; those of a fork's ancestors as if they were its own."""
        found = await tx.query(self._head, (session_id,))
        if not found:
            raise not_found(session_id)
        if await tx.query(self._run, (session_id,)):
            raise _is_run(session_id)
        width = len(SESSION.columns)
        head, lineage, details = found[0][:width], found[0][width], found[0][width + 1 :]
        spans = spans_of(session_id, lineage)
        rows: dict[str, Sequence[Row]] = {DETAILS.word: [details], SEND.word: await self._read_sends(tx, spans)}
        # By its digest the session that has the data which the rows refer to.
        owners: dict[str, str] = {}
        for kept, select in self._selects.items():
            kept_rows: list[Row] = []
            for part in clipped(spans, from_seq=0, to_seq=END_OF_LOG):
                own = await tx.query(select, part)
                kept_rows += own
                _note_owner(owners, kept, part[0], own)
            rows[kept.word] = kept_rows
        next_seq = head[_place(SESSION, "next_seq")]
        # What is no number is refused when it is written.
        has_gap = isinstance(next_seq, int) and len(rows[MESSAGE.word]) < next_seq - 1
        rows[FOLD.word] = await self._read_folds(tx, spans, has_gap=has_gap)
        rows[PROJECTED.word] = await self._read_projected(tx, spans, owners)
        rows[BLOB.word] = await self._read_blobs(tx, owners)
        for kept, select in self._own.items():
            rows[kept.word] = await tx.query(select, (session_id,))
        rows[TOOL_CALL.word] = [_unapproved(row) for row in rows[TOOL_CALL.word]]
        taken_at = _place(INPUT, "taken_at_ms")
        inputs = await tx.query(self._inputs, (session_id,))
        rows[INPUT.word] = [row for row in inputs if with_inbox or row[taken_at] is not None]
        waiting = sum(row[taken_at] is None for row in rows[INPUT.word])
        # What waits and stays behind counts as gone, so that no position is given twice.
        count = head[_place(SESSION, "inbox_count")]
        rows[SESSION.word] = [_with(SESSION, head, "inbox_taken", count - waiting)]
        return rows

    async def _read_sends(self, tx: Transaction, spans: Sequence[Span]) -> list[Row]:
        """Return the sends of a log; a fork's own row of the send in which it left goes over that of its ancestor."""
        found: list[Row] = []
        before = END_OF_LOG
        for span in reversed(spans):
            rows: list[Row] = await tx.query(self._sends, (span.session_id, span.to_seq, before))
            if span is not spans[-1]:
                # A request id is its own session's.
                rows = [_with(SEND, row, "request_id", None) for row in rows]
            found = rows + found
            before = found[0][0] if found else before
        return found

    async def _read_folds(self, tx: Transaction, spans: Sequence[Span], *, has_gap: bool) -> list[Row]:
        """Return the folds of a log; where messages are gone that an ancestor's fold covered, the newest says so."""
        found = [row for span in spans for row in await tx.query(self._folds, (span.session_id, span.to_seq))]
        if has_gap and found and found[-1][_place(FOLD, "pruned_at_ms")] is None:
            times = [(await tx.query(self._pruned, (span.session_id,)))[0][0] for span in spans]
            pruned_at_ms = max([at_ms for at_ms in times if at_ms is not None], default=None)
            found[-1] = _with(FOLD, found[-1], "pruned_at_ms", pruned_at_ms)
        return found

    async def _read_projected(self, tx: Transaction, spans: Sequence[Span], owners: dict[str, str]) -> list[Row]:
        found: list[Row] = []
        first, last = _place(PROJECTED, "seq"), _place(PROJECTED, "to_seq")
        for span in spans:
            rows = await tx.query(self._projected, (span.session_id, span.after_seq, span.to_seq))
            while rows and found and found[-1][last] >= rows[0][first]:
                found.pop()
            found += rows
            _note_owner(owners, PROJECTED, span.session_id, rows)
        return found

    async def _read_blobs(self, tx: Transaction, owners: Mapping[str, str]) -> list[Row]:
        found: list[Row] = []
        for digest, session_id in sorted(owners.items()):
            found += await tx.query(self._blob, (session_id, digest))
        return found

    # ---- in ----

    async def write(self, tx: Transaction, archive: Archive, session_id: str, *, epoch: int, op: str) -> None:
        """Write a checked archive as a session of its own, which nobody holds. Raises `session.exists`."""
        [head] = archive.rows[SESSION.word]
        own: Mapping[str, Any] = {"id": session_id, "epoch": epoch, "last_op": op}
        try:
            await tx.execute(self._inserts[SESSION], row_params(SESSIONS, {**head, **own}))
        except DuplicateKeyError as error:
            raise SessionExistsError(
                f"session {session_id!r} exists already: import it under another session_id, or with"
                " on_conflict='rename' or 'replace'",
                session_id=session_id,
            ) from error
        more: dict[str, Mapping[str, Any]] = {SEND.word: {"accept_op": op}, INPUT.word: {"op": op}}
        for kept in LINES[1:]:
            added = {"session_id": session_id, **more.get(kept.word, {})}
            rows = archive.rows[kept.word]
            at_once = _BLOBS if kept is BLOB else _ROWS
            for start in range(0, len(rows), at_once):
                params = [row_params(kept.table, {**row, **added}) for row in rows[start : start + at_once]]
                await tx.execute_many(self._inserts[kept], params)


def _is_run(session_id: str) -> RunSessionError:
    return RunSessionError(
        f"session {session_id!r} is a workflow's run, and no archive holds what its leaves did: get_run() gives its"
        " result; backup() copies the whole database, runs and all",
        session_id=session_id,
    )


def _names(kept: Kept, prefix: str = "") -> str:
    return ", ".join(prefix + column.name for column in kept.columns)


def _place(kept: Kept, name: str) -> int:
    return [column.name for column in kept.columns].index(name)


def _with(kept: Kept, row: Row, name: str, value: Any) -> Row:
    place = _place(kept, name)
    return (*row[:place], value, *row[place + 1 :])


def _note_owner(owners: dict[str, str], kept: Kept, session_id: str, rows: Sequence[Row]) -> None:
    """Note whose data the bodies of rows refer to."""
    if kept in _WITH_BODIES:
        body = _place(kept, "body")
        for digest in referred(row[body] for row in rows):
            owners.setdefault(digest, session_id)


def _unapproved(row: Row) -> Row:
    """Return a call's row without an approval that was not used yet: it was given to this store."""
    is_open = row[_place(TOOL_CALL, "state")] in _OPEN
    return _with(TOOL_CALL, row, "is_approved", 0) if is_open else row
