"""Keeps the effect ledger: one row a tool call, and only the steps that its lifecycle allows."""

from __future__ import annotations

from collections.abc import Sequence

from power_loop.contracts.errors import ResultPrunedError, StoreCorruptError
from power_loop.contracts.frozen import frozen
from power_loop.contracts.messages import ContentPart, clean_text
from power_loop.contracts.records import CallRecord, CallStep, NewCall
from power_loop.contracts.states import CALL_STEPS, OPEN_CALLS, CallState, Effect, WaitKind
from power_loop.runtime.store.blobs import Blobs
from power_loop.runtime.store.codec import (
    decode_choice,
    decode_content,
    decode_json,
    decode_message,
    encode_content,
    encode_json,
)
from power_loop.runtime.store.lineage import END_OF_LOG, Span, spans_of
from power_loop.runtime.store.sql.database import Params, Row, Statement, Transaction
from power_loop.runtime.store.sql.dialect import Renderer
from power_loop.runtime.store.sql.tables import IS_OPEN_CALL, quoted

_COLUMNS = (
    "call_id, reply_seq, idx, send_index, name, arguments, effect, state, attempt, idempotency_key, is_approved,"
    " wait_kind, prompt, wait_data, started_at_ms, ended_at_ms, result_seq, is_keyed"
)


@frozen
class LedgerSteps:
    """Is steps as rows of parameters, each with the state that it leads to, and the whole results that they bring."""

    rows: list[tuple[CallState, Params]]
    wholes: list[Params]


class ToolCalls:
    """Runs the statements on `tool_calls` and `tool_results`, inside of others' transactions."""

    def __init__(self, render: Renderer, blobs: Blobs) -> None:
        self._blobs = blobs
        self._id = render("SELECT 1 FROM {tool_calls} WHERE session_id = ? AND call_id = ?")
        self._insert = render(
            "INSERT INTO {tool_calls} (session_id, reply_seq, idx, send_index, call_id, name, arguments, effect, state,"
            " attempt, idempotency_key, is_keyed, is_approved, started_at_ms, ended_at_ms, result_seq)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?, ?)"
        )
        # The guard of a step is in its statement: the states from which `CALL_STEPS` leads to the one it goes to.
        self._steps = {
            state: render(
                f"UPDATE {{tool_calls}} SET state = '{state.value}', attempt = COALESCE(?, attempt), wait_kind = ?,"
                " prompt = ?, wait_data = ?, arguments = COALESCE(?, arguments),"
                " is_approved = COALESCE(?, is_approved), idempotency_key = COALESCE(?, idempotency_key),"
                " started_at_ms = COALESCE(?, started_at_ms),"
                " ended_at_ms = ?, result_seq = COALESCE(?, result_seq)"
                f" WHERE session_id = ? AND reply_seq = ? AND idx = ? AND state IN ({quoted(_states_before(state))})"
            )
            for state in CallState
            if _states_before(state)
        }
        self._insert_result = render(
            "INSERT INTO {tool_results} (session_id, reply_seq, idx, body) VALUES (?, ?, ?, ?)"
        )
        order = "ORDER BY reply_seq, idx"
        lineage = "(SELECT d.lineage FROM {session_details} d WHERE d.session_id = ?)"
        self._all = render(f"SELECT {_COLUMNS}, {lineage} FROM {{tool_calls}} WHERE session_id = ? {order}")
        self._of_span = render(
            f"SELECT {_COLUMNS} FROM {{tool_calls}} WHERE session_id = ? AND reply_seq > ? AND reply_seq <= ? {order}"
        )
        # Only the last send can have open calls, so that those before it are not looked at.
        is_open = (
            "WHERE session_id = ? AND reply_seq >= COALESCE((SELECT s.first_seq FROM {sends} s WHERE s.session_id = ?"
            f" ORDER BY s.idx DESC LIMIT 1), 0) AND {IS_OPEN_CALL} {order}"
        )
        self._open = render(f"SELECT {_COLUMNS} FROM {{tool_calls}} {is_open}")
        is_keyed = "WHERE session_id = ? AND idempotency_key = ? AND is_keyed = 1"
        self._keyed = render(f"SELECT {_COLUMNS}, {lineage} FROM {{tool_calls}} {is_keyed} {order}")
        self._keyed_of_span = render(
            f"SELECT {_COLUMNS} FROM {{tool_calls}} {is_keyed} AND reply_seq > ? AND reply_seq <= ? {order}"
        )
        self._lineage = render("SELECT lineage FROM {session_details} WHERE session_id = ?")
        self._state = render("SELECT state FROM {tool_calls} WHERE session_id = ? AND reply_seq = ? AND idx = ?")
        self._count = render(
            "SELECT COUNT(*) FROM {tool_calls} WHERE session_id = ? AND reply_seq >= ? AND reply_seq < ?"
        )
        self._result = render(
            "SELECT r.body, m.body, m.role, m.seq, c.result_seq FROM {tool_calls} c LEFT JOIN {tool_results} r"
            " ON r.session_id = c.session_id AND r.reply_seq = c.reply_seq AND r.idx = c.idx"
            " LEFT JOIN {messages} m ON m.session_id = c.session_id AND m.seq = c.result_seq"
            " WHERE c.session_id = ? AND c.call_id = ? AND c.reply_seq <= ?"
        )
        self._pruned_at = render("SELECT MAX(pruned_at_ms) FROM {folds} WHERE session_id = ? AND to_seq >= ?")
        self._result_bytes = render(
            f"SELECT COALESCE(SUM({render.dialect.byte_length('body')}), 0) FROM {{tool_results}} WHERE session_id = ?"
        )

    def inserts(
        self,
        session_id: str,
        calls: Sequence[NewCall],
        *,
        reply_seq: int,
        send_index: int,
        result_seqs: dict[int, int],
        at_ms: int,
    ) -> list[Statement]:
        """Return the statements that enter a reply's calls; `result_seqs` tells for those answered at once where."""
        return [
            (
                self._insert,
                (
                    session_id,
                    reply_seq,
                    call.index,
                    send_index,
                    call.call_id,
                    clean_text(call.name),
                    clean_text(call.arguments),
                    call.effect.value,
                    call.state.value,
                    # A call that is entered as started begins its first attempt with it.
                    1 if call.state is CallState.STARTED else 0,
                    call.idempotency_key,
                    int(call.is_keyed),
                    at_ms if call.state is CallState.STARTED else None,
                    None if call.state in OPEN_CALLS else at_ms,
                    result_seqs.get(call.index),
                ),
            )
            for call in calls
        ]

    def updates(self, session_id: str, steps: LedgerSteps) -> list[Statement]:
        """Return the statements that make steps in order: one a step, then those that keep whole results.

        Raises `store.corrupt` for a step to where no lifecycle leads.
        """
        statements: list[Statement] = []
        for state, row in steps.rows:
            sql = self._steps.get(state)
            if sql is None:
                raise StoreCorruptError(f"session {session_id!r}: no step of the ledger leads to {state.value!r}")
            statements.append((sql, row))
        return statements + [(self._insert_result, whole) for whole in steps.wholes]

    async def check_made(self, tx: Transaction, session_id: str, steps: LedgerSteps, *, changed: Sequence[int]) -> None:
        """Raise `store.corrupt` for a step that the lifecycle did not allow from where its call stood."""
        if all(changed[: len(steps.rows)]):
            return
        # Those that were allowed stand further by now; with this error that is rolled back.
        standing: list[str] = []
        refused = [step for step, count in zip(steps.rows, changed, strict=False) if not count]
        state = refused[0][0]
        for _, row in refused:
            reply_seq, index = row[-2:]
            found = await tx.query(self._state, (session_id, reply_seq, index))
            stands = repr(found[0][0]) if found else "nowhere"
            standing.append(f"call {index} of reply {reply_seq} at {stands}")
        raise StoreCorruptError(
            f"session {session_id!r}: no step of the ledger leads to {state.value!r} from where one of these stands:"
            f" {', '.join(standing)}; nothing was written"
        )

    async def read(
        self, tx: Transaction, session_id: str, *, states: Sequence[CallState] | None = None
    ) -> tuple[CallRecord, ...]:
        """Return calls in order, of these states only if given."""
        if states is None:
            rows = await tx.query(self._all, (session_id, session_id))
            own = tuple([_record_of(session_id, row[:-1]) for row in rows])
            lineage = rows[0][-1] if rows else None
            return own if lineage is None else await self.read_shared(tx, spans_of(session_id, lineage)) + own
        wanted = frozenset(states)
        found = await (self.read_open(tx, session_id) if wanted <= OPEN_CALLS else self.read(tx, session_id))
        return tuple([record for record in found if record.state in wanted])

    async def read_shared(
        self, tx: Transaction, spans: Sequence[Span], *, states: Sequence[CallState] | None = None
    ) -> tuple[CallRecord, ...]:
        """Return the calls of a fork's history that stand under the ids of its ancestors; none of them is open."""
        found: list[CallRecord] = []
        for span in spans[:-1]:
            rows = await tx.query(self._of_span, (span.session_id, span.after_seq, span.to_seq))
            found += [_record_of(span.session_id, row) for row in rows]
        return tuple([record for record in found if states is None or record.state in states])

    async def known_ids(self, tx: Transaction, session_id: str, call_ids: Sequence[str]) -> frozenset[str]:
        """Return those of some ids that calls under this session's id have."""
        found = [bool(await tx.query(self._id, (session_id, call_id))) for call_id in call_ids]
        return frozenset(call_id for call_id, is_known in zip(call_ids, found, strict=True) if is_known)

    async def read_open(self, tx: Transaction, session_id: str) -> tuple[CallRecord, ...]:
        """Return the open calls in order."""
        return tuple([_record_of(session_id, row) for row in await tx.query(self._open, (session_id, session_id))])

    async def read_keyed(self, tx: Transaction, session_id: str, key: str) -> tuple[CallRecord, ...]:
        """Return the calls in order to which a tool's own `key` gave this key."""
        own = await tx.query(self._keyed, (session_id, session_id, key))
        rows = own or await tx.query(self._lineage, (session_id,))
        lineage = rows[0][-1] if rows else None
        found: list[CallRecord] = []
        # A fork goes on from what its ancestors did, so that what was done there is not done again.
        for span in () if lineage is None else spans_of(session_id, lineage)[:-1]:
            params = (span.session_id, key, span.after_seq, span.to_seq)
            found += [_record_of(span.session_id, row) for row in await tx.query(self._keyed_of_span, params)]
        return (*found, *[_record_of(session_id, row[:-1]) for row in own])

    async def count(self, tx: Transaction, session_id: str, *, from_seq: int, to_seq: int) -> int:
        """Return how many calls the replies from `from_seq` to before `to_seq` asked for."""
        [(count,)] = await tx.query(self._count, (session_id, from_seq, to_seq))
        return int(count)

    async def shared_result(
        self, tx: Transaction, spans: Sequence[Span], call_id: str
    ) -> tuple[ContentPart, ...] | None:
        """Return what a call of a fork's history gave that stands under the id of an ancestor."""
        for span in reversed(spans[:-1]):
            found = await self.whole_result(tx, span.session_id, call_id, to_seq=span.to_seq)
            if found is not None:
                return found
        return None

    async def whole_result(
        self, tx: Transaction, session_id: str, call_id: str, *, to_seq: int = END_OF_LOG
    ) -> tuple[ContentPart, ...] | None:
        """Return what a call gave, in full; None if it has no result or is not there. Raises `call.result_pruned`."""
        rows = await tx.query(self._result, (session_id, call_id, to_seq))
        if not rows:
            return None
        whole, body, role, seq, result_seq = rows[0]
        if whole is not None and is_pruned(whole):
            mark = decode_json(whole, f"result of call {call_id!r} of session {session_id!r}")
            raise _pruned(session_id, call_id, mark.get("pruned_at_ms", 0), f" ({mark.get('size_bytes')} bytes)")
        if whole is not None:
            blobs = await self._blobs.of(tx, session_id, (whole,))
            return decode_content(whole, f"result of call {call_id!r} of session {session_id!r}", blobs)
        if body is None:
            [(pruned_at_ms,)] = await tx.query(self._pruned_at, (session_id, result_seq or 0))
            if result_seq is not None and pruned_at_ms is not None:
                raise _pruned(session_id, call_id, pruned_at_ms)
            return None
        blobs = await self._blobs.of(tx, session_id, (body,))
        message = decode_message(role, body, f"message {seq} of session {session_id!r}", blobs)
        return None if message.tool_result is None else message.tool_result.content

    async def count_over(self, tx: Transaction, parts: Sequence[tuple[str, int, int]]) -> int:
        """Return the same for a log whose parts stand under several ids: (session id, from seq, to before seq)."""
        counts = [await self.count(tx, session_id, from_seq=low, to_seq=high) for session_id, low, high in parts]
        return sum(counts)

    async def result_bytes(self, tx: Transaction, session_id: str) -> int:
        """Return how many bytes the whole results take that stand beside the log."""
        [(size,)] = await tx.query(self._result_bytes, (session_id,))
        return int(size)


def is_pruned(body: object) -> bool:
    """Tell whether this stands in the place of a whole result that was pruned: results are lists, this is an object."""
    return isinstance(body, str) and body.startswith("{")


def pruned_body(size_bytes: int, at_ms: int) -> str:
    """Return what is kept in the place of a whole result."""
    return encode_json({"pruned_at_ms": at_ms, "size_bytes": size_bytes}, "mark of a pruned result")


def _pruned(session_id: str, call_id: str, at_ms: int, size: str | None = None) -> ResultPrunedError:
    where = f"the whole result of call {call_id!r} of session {session_id!r}"
    if size is None:
        message = f"{where} was pruned at {at_ms} with its message, behind a fold: the fold's summary tells of it"
    else:
        message = (
            f"{where}{size} was pruned at {at_ms}: what the model was shown of it is still in the log, get_messages()"
            " has it"
        )
    return ResultPrunedError(message, session_id=session_id, call_id=call_id, pruned_at_ms=at_ms)


def _states_before(state: CallState) -> set[str]:
    return {before.value for before, after in CALL_STEPS.items() if state in after}


def ledger_steps(
    session_id: str, steps: Sequence[CallStep], *, at_seq: int, at_ms: int, blobs: dict[str, str]
) -> LedgerSteps:
    """Return steps ready to be made; their messages get the numbers from `at_seq` on.

    Big data of the whole results goes into `blobs`.
    """
    seq = at_seq
    rows: list[tuple[CallState, Params]] = []
    wholes: list[Params] = []
    for step in steps:
        result_seq = None
        if step.message is not None:
            result_seq, seq = seq, seq + 1
        if step.whole is not None:
            wholes.append((session_id, step.reply_seq, step.index, encode_content(step.whole, blobs)))
        rows.append((step.state, _step_row(session_id, step, result_seq, at_ms)))
    return LedgerSteps(rows, wholes)


def _step_row(session_id: str, step: CallStep, result_seq: int | None, at_ms: int) -> Params:
    return (
        step.attempt,
        None if step.wait_kind is None else step.wait_kind.value,
        None if step.prompt is None else clean_text(step.prompt),
        None if step.wait_data is None else encode_json(step.wait_data, "what a waiting call shows"),
        None if step.arguments is None else clean_text(step.arguments),
        None if step.is_approved is None else int(step.is_approved),
        step.idempotency_key,
        at_ms if step.state is CallState.STARTED else None,
        None if step.state in OPEN_CALLS else at_ms,
        result_seq,
        session_id,
        step.reply_seq,
        step.index,
    )


def _record_of(session_id: str, row: Row) -> CallRecord:
    (call_id, reply_seq, index, send_index, name, arguments, effect, state, attempt, key, is_approved) = row[:11]
    (wait_kind, prompt, wait_data, started_at_ms, ended_at_ms, result_seq, is_keyed) = row[11:]
    where = f"call {call_id!r} of session {session_id!r}"
    return CallRecord(
        call_id=call_id,
        reply_seq=reply_seq,
        index=index,
        send_index=send_index,
        name=name,
        arguments=arguments,
        effect=decode_choice(Effect, effect, where),
        state=decode_choice(CallState, state, where),
        attempt=attempt,
        idempotency_key=key,
        is_approved=bool(is_approved),
        wait_kind=None if wait_kind is None else decode_choice(WaitKind, wait_kind, where),
        prompt=prompt,
        wait_data=None if wait_data is None else decode_json(wait_data, f"wait_data of {where}"),
        started_at_ms=started_at_ms,
        ended_at_ms=ended_at_ms,
        result_seq=result_seq,
        is_keyed=bool(is_keyed),
    )
