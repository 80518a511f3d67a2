"""Keeps the effect ledger: one row a tool call, and only the steps that its lifecycle allows."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import NoReturn

from power_loop.contracts.errors import StoreCorruptError
from power_loop.contracts.frozen import frozen
from power_loop.contracts.messages import ContentPart, clean_text
from power_loop.contracts.records import CallRecord, CallStep, NewCall
from power_loop.contracts.states import CALL_STEPS, OPEN_CALLS, CallState, Effect, WaitKind
from power_loop.runtime.store.codec import (
    decode_choice,
    decode_content,
    decode_json,
    decode_message,
    encode_content,
    encode_json,
)
from power_loop.runtime.store.sql.database import Params, Row, Transaction
from power_loop.runtime.store.sql.dialect import Renderer
from power_loop.runtime.store.sql.tables import IS_OPEN_CALL, quoted

_COLUMNS = (
    "call_id, reply_seq, idx, send_index, name, arguments, effect, state, attempt, idempotency_key, is_approved,"
    " wait_kind, prompt, wait_data, started_at_ms, ended_at_ms, result_seq"
)


@frozen
class LedgerSteps:
    """Is steps as rows of parameters, those to the same state together, and the whole results that they bring."""

    groups: list[tuple[CallState, list[Params]]]
    wholes: list[Params]


class ToolCalls:
    """Runs the statements on `tool_calls` and `tool_results`, inside of others' transactions."""

    def __init__(self, render: Renderer) -> None:
        self._insert = render(
            "INSERT INTO {tool_calls} (session_id, reply_seq, idx, send_index, call_id, name, arguments, effect, state,"
            " attempt, idempotency_key, is_approved, started_at_ms, ended_at_ms, result_seq)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?, ?)"
        )
        # The guard of a step is in its statement: the states from which `CALL_STEPS` leads to the one it goes to.
        self._steps = {
            state: render(
                f"UPDATE {{tool_calls}} SET state = '{state.value}', attempt = COALESCE(?, attempt), wait_kind = ?,"
                " prompt = ?, wait_data = ?, arguments = COALESCE(?, arguments),"
                " is_approved = COALESCE(?, is_approved), started_at_ms = COALESCE(?, started_at_ms),"
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
        self._all = render(f"SELECT {_COLUMNS} FROM {{tool_calls}} WHERE session_id = ? {order}")
        # Only the last send can have open calls, so that those before it are not looked at.
        is_open = (
            "WHERE session_id = ? AND reply_seq >= COALESCE((SELECT s.first_seq FROM {sends} s WHERE s.session_id = ?"
            f" ORDER BY s.idx DESC LIMIT 1), 0) AND {IS_OPEN_CALL} {order}"
        )
        self._open = render(f"SELECT {_COLUMNS} FROM {{tool_calls}} {is_open}")
        self._state = render("SELECT state FROM {tool_calls} WHERE session_id = ? AND reply_seq = ? AND idx = ?")
        self._count = render(
            "SELECT COUNT(*) FROM {tool_calls} WHERE session_id = ? AND reply_seq >= ? AND reply_seq < ?"
        )
        self._result = render(
            "SELECT r.body, m.body, m.role, m.seq FROM {tool_calls} c LEFT JOIN {tool_results} r"
            " ON r.session_id = c.session_id AND r.reply_seq = c.reply_seq AND r.idx = c.idx"
            " LEFT JOIN {messages} m ON m.session_id = c.session_id AND m.seq = c.result_seq"
            " WHERE c.session_id = ? AND c.call_id = ?"
        )
        self._result_bytes = render(
            "SELECT COALESCE(SUM(LENGTH(CAST(body AS BLOB))), 0) FROM {tool_results} WHERE session_id = ?"
        )

    async def append(
        self,
        tx: Transaction,
        session_id: str,
        calls: Sequence[NewCall],
        *,
        reply_seq: int,
        send_index: int,
        result_seqs: dict[int, int],
        at_ms: int,
    ) -> None:
        """Enter the calls of a reply; `result_seqs` tells for those that were answered at once where."""
        await tx.execute_many(
            self._insert,
            [
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
                    at_ms if call.state is CallState.STARTED else None,
                    None if call.state in OPEN_CALLS else at_ms,
                    result_seqs.get(call.index),
                )
                for call in calls
            ],
        )

    async def advance(self, tx: Transaction, session_id: str, steps: LedgerSteps) -> None:
        """Make steps in order.

        Raises `store.corrupt` for a step that the lifecycle does not allow from where the call stands.
        """
        for state, rows in steps.groups:
            sql = self._steps.get(state)
            if sql is None or await tx.execute_many(sql, rows) != len(rows):
                await self._raise_refused(tx, session_id, state, rows)
        if steps.wholes:
            await tx.execute_many(self._insert_result, steps.wholes)

    async def _raise_refused(
        self, tx: Transaction, session_id: str, state: CallState, rows: Sequence[Params]
    ) -> NoReturn:
        # Those that were allowed stand at `state` by now; with this error that is rolled back.
        standing: list[str] = []
        for row in rows:
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
            return tuple([_record_of(session_id, row) for row in await tx.query(self._all, (session_id,))])
        wanted = frozenset(states)
        found = await (self.read_open(tx, session_id) if wanted <= OPEN_CALLS else self.read(tx, session_id))
        return tuple([record for record in found if record.state in wanted])

    async def read_open(self, tx: Transaction, session_id: str) -> tuple[CallRecord, ...]:
        """Return the open calls in order."""
        return tuple([_record_of(session_id, row) for row in await tx.query(self._open, (session_id, session_id))])

    async def count(self, tx: Transaction, session_id: str, *, from_seq: int, to_seq: int) -> int:
        """Return how many calls the replies from `from_seq` to before `to_seq` asked for."""
        [(count,)] = await tx.query(self._count, (session_id, from_seq, to_seq))
        return int(count)

    async def whole_result(self, tx: Transaction, session_id: str, call_id: str) -> tuple[ContentPart, ...] | None:
        """Return what a call gave, in full; None if it has no result or is not there."""
        rows = await tx.query(self._result, (session_id, call_id))
        if not rows:
            return None
        whole, body, role, seq = rows[0]
        if whole is not None:
            return decode_content(whole, f"result of call {call_id!r} of session {session_id!r}")
        if body is None:
            return None
        message = decode_message(role, body, f"message {seq} of session {session_id!r}")
        return None if message.tool_result is None else message.tool_result.content

    async def result_bytes(self, tx: Transaction, session_id: str) -> int:
        """Return how many bytes the whole results take that stand beside the log."""
        [(size,)] = await tx.query(self._result_bytes, (session_id,))
        return int(size)


def _states_before(state: CallState) -> set[str]:
    return {before.value for before, after in CALL_STEPS.items() if state in after}


def ledger_steps(session_id: str, steps: Sequence[CallStep], *, at_seq: int, at_ms: int) -> LedgerSteps:
    """Return steps ready to be made; their messages get the numbers from `at_seq` on."""
    seq = at_seq
    groups: list[tuple[CallState, list[Params]]] = []
    wholes: list[Params] = []
    for state, group in groupby(steps, key=lambda step: step.state):
        rows: list[Params] = []
        for step in group:
            result_seq = None
            if step.message is not None:
                result_seq, seq = seq, seq + 1
            if step.whole is not None:
                wholes.append((session_id, step.reply_seq, step.index, encode_content(step.whole)))
            rows.append(_step_row(session_id, step, result_seq, at_ms))
        groups.append((state, rows))
    return LedgerSteps(groups, wholes)


def _step_row(session_id: str, step: CallStep, result_seq: int | None, at_ms: int) -> Params:
    return (
        step.attempt,
        None if step.wait_kind is None else step.wait_kind.value,
        None if step.prompt is None else clean_text(step.prompt),
        None if step.wait_data is None else encode_json(step.wait_data, "what a waiting call shows"),
        None if step.arguments is None else clean_text(step.arguments),
        None if step.is_approved is None else int(step.is_approved),
        at_ms if step.state is CallState.STARTED else None,
        None if step.state in OPEN_CALLS else at_ms,
        result_seq,
        session_id,
        step.reply_seq,
        step.index,
    )


def _record_of(session_id: str, row: Row) -> CallRecord:
    (call_id, reply_seq, index, send_index, name, arguments, effect, state, attempt, key, is_approved) = row[:11]
    (wait_kind, prompt, wait_data, started_at_ms, ended_at_ms, result_seq) = row[11:]
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
    )
