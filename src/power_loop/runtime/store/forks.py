"""Makes forks: sessions that share another one's log up to a seq, and go on from there by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from power_loop.contracts.errors import InputError, RunSessionError, SessionExistsError, StoreCorruptError
from power_loop.contracts.frozen import frozen
from power_loop.contracts.numbers import is_whole
from power_loop.contracts.states import SendStatus
from power_loop.runtime.store.folds import Folds
from power_loop.runtime.store.lineage import MAX_ANCESTORS, Span, clipped, encode_lineage, lineage_at, spans_of
from power_loop.runtime.store.sends import UNFINISHED_SENDS
from power_loop.runtime.store.sessions import not_found
from power_loop.runtime.store.sql.database import DuplicateKeyError, Row, Transaction
from power_loop.runtime.store.sql.dialect import Renderer
from power_loop.runtime.store.sql.rows import insert_into, row_params
from power_loop.runtime.store.sql.tables import IS_OPEN_CALL, SENDS, SESSION_DETAILS, SESSIONS

# Sessions that one statement holds; a log is made of more only where forks were made of forks many times over.
_HELD_AT_ONCE = 20
_UNFINISHED = frozenset(status.value for status in UNFINISHED_SENDS)


@frozen
class _Sent:
    """Is the send in which a fork leaves, with what a fork keeps of its row, and the seqs where it begins and where the
    next one does."""

    index: int
    input_hash: str
    status: str
    first_seq: int
    options: str
    result: str | None
    attempts: int
    started_at_ms: int
    ended_at_ms: int | None
    next_first_seq: int | None


class Forks:
    """Runs the statements that make a fork: as many for ten messages as for ten thousand, and no message is copied."""

    def __init__(self, render: Renderer) -> None:
        self._run = render("SELECT state FROM {workflow_runs} WHERE session_id = ?")
        self._origin = render(
            "SELECT s.next_seq, s.version, d.system_prompt, d.metadata, d.tool_state, d.lineage FROM {sessions} s"
            " JOIN {session_details} d ON d.session_id = s.id WHERE s.id = ?"
        )
        # A session is not removed while somebody else makes a fork of it.
        self._hold = render("SELECT id FROM {sessions} WHERE id = ?" + render.dialect.for_update)
        # Nothing that a fork will show is pruned while somebody makes it: a prune holds the row of its session.
        self._hold_all = render(
            f"SELECT id FROM {{sessions}} WHERE id IN ({', '.join('?' * _HELD_AT_ONCE)}) ORDER BY id"
            + render.dialect.for_update
        )
        self._pruned = render(
            "SELECT MAX(last_seq) FROM {folds} WHERE session_id = ? AND pruned_at_ms IS NOT NULL AND from_seq <= ?"
        )
        self._count = render("SELECT COUNT(*) FROM {messages} WHERE session_id = ? AND seq >= ? AND seq < ?")
        self._send_index = render("SELECT send_index FROM {messages} WHERE session_id = ? AND seq = ?")
        self._send = render(
            "SELECT s.idx, s.input_hash, s.status, s.first_seq, s.options, s.result, s.attempts, s.started_at_ms,"
            " s.ended_at_ms, n.first_seq FROM {sends} s LEFT JOIN {sends} n ON n.session_id = s.session_id"
            " AND n.idx = s.idx + 1 WHERE s.session_id = ? AND s.idx = ? AND s.first_seq <= ?"
        )
        # Only the calls of one send are looked at: those of the sends before it were answered before it began.
        self._unanswered = render(
            "SELECT reply_seq, result_seq FROM {tool_calls} WHERE session_id = ? AND reply_seq >= ? AND reply_seq < ?"
            f" AND (result_seq > ? OR (result_seq IS NULL AND {IS_OPEN_CALL}))"
        )
        self._folds = Folds(render)
        self._insert_session = render(insert_into(SESSIONS))
        self._insert_details = render(insert_into(SESSION_DETAILS))
        self._insert_send = render(insert_into(SENDS))

    async def fork(
        self,
        tx: Transaction,
        origin_id: str,
        fork_id: str,
        *,
        at_seq: int | None,
        metadata: str | None,
        at_ms: int,
        op: str,
    ) -> None:
        """Make `fork_id` out of the log of `origin_id` up to `at_seq`, or of as much of it as has no open call.

        Raises `session.not_found`, `session.exists`, and `input.invalid` for a seq at which nothing can go on.
        """
        await self._hold_session(tx, origin_id)
        found = await tx.query(self._origin, (origin_id,))
        if not found:
            raise _damaged(origin_id, "its details are not there")
        if await tx.query(self._run, (origin_id,)):
            raise RunSessionError(
                f"session {origin_id!r} is a workflow's run, which is no conversation that could be forked: make"
                " another run of the same spec with create_workflow()",
                session_id=origin_id,
            )
        [(next_seq, version, prompt, own_metadata, tool_state, lineage)] = found
        spans = spans_of(origin_id, lineage)
        last_seq = next_seq - 1
        seq = _checked_seq(origin_id, at_seq, last_seq)
        await self._check_there(tx, spans, seq)
        sent = await self._sent_at(tx, spans, seq)
        seq = await self._without_open_calls(tx, origin_id, spans, sent, seq, is_exact=at_seq is not None)
        ancestors = lineage_at(spans, seq)
        if len(ancestors) > MAX_ANCESTORS:
            raise InputError(
                f"session {origin_id!r} is a fork of a fork {len(ancestors) - 1} times over, and no log is read from"
                f" more than {MAX_ANCESTORS} sessions: export it and import it under another id, which makes one of it"
            )
        forked_from, _ = ancestors[-1]
        if forked_from != origin_id:
            await self._hold_session(tx, forked_from)
        head = {
            "id": fork_id,
            "state": "open",
            "created_at_ms": at_ms,
            "updated_at_ms": at_ms,
            "next_seq": seq + 1,
            "send_count": sent.index,
            "version": version,
            # An epoch that no earlier session of this id can have reached: what was known of that one is stale.
            "epoch": at_ms,
            "last_op": op,
            "forked_from": forked_from,
            "forked_at_seq": seq,
        }
        details = {
            "session_id": fork_id,
            "system_prompt": prompt,
            "metadata": own_metadata if metadata is None else metadata,
            # What the tools had noted at an earlier seq is not known.
            "tool_state": tool_state if seq == last_seq else "{}",
            "lineage": encode_lineage(ancestors),
        }
        try:
            await tx.execute(self._insert_session, row_params(SESSIONS, head))
        except DuplicateKeyError as error:
            raise SessionExistsError(
                f"session {fork_id!r} exists already: choose another id for the fork", session_id=fork_id
            ) from error
        await tx.execute_all(
            (
                (self._insert_details, row_params(SESSION_DETAILS, details)),
                (self._insert_send, row_params(SENDS, _send_row(fork_id, sent, seq, last_seq, at_ms, op))),
            )
        )

    async def _hold_session(self, tx: Transaction, session_id: str) -> None:
        if not await tx.query(self._hold, (session_id,)):
            raise not_found(session_id)

    async def _check_there(self, tx: Transaction, spans: Sequence[Span], seq: int) -> None:
        """Raise `input.invalid` where messages are gone that a fork at `seq` would show."""
        ids = [span.session_id for span in spans if span.after_seq < seq]
        for start in range(0, len(ids), _HELD_AT_ONCE):
            part = ids[start : start + _HELD_AT_ONCE]
            await tx.query(self._hold_all, (*part, *[part[-1]] * (_HELD_AT_ONCE - len(part))))
        pruned = [(await tx.query(self._pruned, (session_id, seq)))[0][0] for session_id in ids]
        last_seq = max([last for last in pruned if last is not None], default=None)
        if last_seq is None:
            return
        shared = [
            Span(span.session_id, span.after_seq, min(span.to_seq, seq)) for span in spans if span.after_seq < seq
        ]
        fold = await self._folds.newest(tx, shared)
        after_seq = 0 if fold is None else fold.to_seq
        count = 0
        for owner in clipped(spans, from_seq=after_seq + 1, to_seq=seq + 1):
            [(own,)] = await tx.query(self._count, owner)
            count += own
        if count < seq - after_seq or seq <= after_seq:
            raise InputError(
                f"session {spans[-1].session_id!r} cannot be forked at {seq}, because messages that a fork would show"
                f" there were pruned behind a fold: give at={last_seq + 1} or more"
            )

    async def _sent_at(self, tx: Transaction, spans: Sequence[Span], seq: int) -> _Sent:
        """Return the send to which a message belongs; a fork's row of it goes over that of its ancestor."""
        [(owner, _, _)] = clipped(spans, from_seq=seq, to_seq=seq + 1)
        found = await tx.query(self._send_index, (owner, seq))
        if not found:
            raise _damaged(spans[-1].session_id, f"message {seq} is not there")
        [(index,)] = found
        for span in reversed(spans):
            rows: list[Row] = await tx.query(self._send, (span.session_id, index, span.to_seq))
            if rows:
                return _Sent(*rows[0])
        raise _damaged(spans[-1].session_id, f"send {index}, of which message {seq} is, is not there")

    async def _without_open_calls(
        self, tx: Transaction, origin_id: str, spans: Sequence[Span], sent: _Sent, seq: int, *, is_exact: bool
    ) -> int:
        """Return `seq`, or the last one before it at which every call is answered, which `is_exact` forbids."""
        open_calls: list[Row] = []
        for owner, low, high in clipped(spans, from_seq=sent.first_seq, to_seq=seq + 1):
            open_calls += await tx.query(self._unanswered, (owner, low, high, seq))
        if not open_calls:
            return seq
        before: int = min(reply_seq for reply_seq, _ in open_calls) - 1
        if not is_exact:
            return before
        answered = [result_seq for _, result_seq in open_calls]
        after = "" if None in answered else f" or at={max(answered)}"
        calls = f"{len(open_calls)} call{'' if len(open_calls) == 1 else 's'}"
        raise InputError(
            f"session {origin_id!r} cannot be forked at {seq}, where {calls} had no answer yet: give at={before}{after}"
        )


def _damaged(session_id: str, what: str) -> StoreCorruptError:
    return StoreCorruptError(
        f"session {session_id!r} cannot be forked, because {what}: store.diagnose() and power-loop doctor tell more"
    )


def _checked_seq(session_id: str, at_seq: Any, last_seq: int) -> int:
    if last_seq < 1:
        raise InputError(f"session {session_id!r} has no message yet, so that there is nothing to fork: make a new one")
    if at_seq is None:
        return last_seq
    if not is_whole(at_seq, least=1, most=last_seq):
        raise InputError(f"at {at_seq!r:.80} is no seq of session {session_id!r}: give 1 to {last_seq}, or nothing")
    return at_seq


def _send_row(fork_id: str, sent: _Sent, seq: int, last_seq: int, at_ms: int, op: str) -> dict[str, Any]:
    """Return a fork's own row of the send in which it leaves: as it ended, or given up where it had not."""
    end = last_seq if sent.next_first_seq is None else sent.next_first_seq - 1
    is_whole = seq == end and sent.status not in _UNFINISHED
    return {
        "session_id": fork_id,
        "idx": sent.index,
        "input_hash": sent.input_hash,
        "status": sent.status if is_whole else SendStatus.INTERRUPTED.value,
        "first_seq": sent.first_seq,
        "options": sent.options,
        "result": sent.result if is_whole else None,
        "attempts": sent.attempts,
        "started_at_ms": sent.started_at_ms,
        "ended_at_ms": sent.ended_at_ms if is_whole else at_ms,
        "accept_op": op,
    }
