"""Makes every durable move of a turn, one transaction each: the complete list of the points where a turn can die."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from power_loop.contracts.clock import Clock
from power_loop.contracts.errors import (
    InputError,
    RequestConflictError,
    SessionBusyError,
    SessionClosedError,
    SessionPendingError,
)
from power_loop.contracts.messages import clean_text
from power_loop.contracts.records import (
    Accepted,
    CallRecord,
    CallStep,
    Claim,
    Lease,
    NewReply,
    NewSend,
    SendEnd,
    SendRecord,
)
from power_loop.contracts.states import CallState, WaitKind
from power_loop.runtime.store.codec import encode_json
from power_loop.runtime.store.messages import Messages, message_row
from power_loop.runtime.store.sends import UNFINISHED_SENDS, Sends
from power_loop.runtime.store.sessions import Head, Sessions, ttl_ms_of
from power_loop.runtime.store.sql.database import Database, Transaction
from power_loop.runtime.store.tool_calls import ToolCalls, ledger_steps
from power_loop.runtime.store.usage import ModelCalls

_MAX_REQUEST_ID_CHARS = 255
_UNFINISHED = frozenset(status.value for status in UNFINISHED_SENDS)


class Commits:
    """Makes the moves. What can be prepared is prepared before the transaction, which holds up all others."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        sessions: Sessions,
        messages: Messages,
        sends: Sends,
        calls: ToolCalls,
        model_calls: ModelCalls,
    ) -> None:
        self._database = database
        self._clock = clock
        self._sessions = sessions
        self._messages = messages
        self._sends = sends
        self._calls = calls
        self._model_calls = model_calls

    async def accept(self, claim: Claim, new: NewSend) -> Accepted | SendRecord:
        """Take the lease and store the input of a new send, or return the send that has this `request_id` already."""
        at_ms = self._clock.now_ms()
        session_id = claim.session_id
        row = message_row(new.message)
        options = encode_json(new.options, "options of a send")
        request_id = None if new.request_id is None else checked_request_id(new.request_id)

        async def body(tx: Transaction) -> Accepted | SendRecord | SessionBusyError | SessionClosedError:
            if request_id is not None:
                known = await self._sends.get(tx, session_id, request_id=request_id)
                if known is not None:
                    return _same_request(known, new, request_id)
            head = await self._sessions.take_for_new_send(tx, claim, at_ms=at_ms)
            if head is None:
                return await self._sessions.refusal(tx, session_id, at_ms=at_ms, needs_open=True)
            if head.open_calls:
                raise _pending(session_id, await self._calls.read_open(tx, session_id))
            if head.send_status in _UNFINISHED:
                await self._sends.interrupt(tx, session_id, head.send_count - 1, at_ms=at_ms)
            seq = head.next_seq - 1
            await self._sends.append(
                tx,
                session_id,
                head.send_count,
                request_id=request_id,
                input_hash=new.input_hash,
                options=options,
                first_seq=seq,
                at_ms=at_ms,
            )
            await self._messages.append(
                tx, session_id, (row,), at_seq=seq, send_index=head.send_count, round=0, at_ms=at_ms
            )
            return _accepted(claim, head, at_ms)

        outcome = await self._database.write("accept", body)
        if isinstance(outcome, (SessionBusyError, SessionClosedError)):
            raise outcome
        return outcome

    async def take_up(self, claim: Claim) -> Accepted:
        """Take the lease to drive the last send on; one that has ended for good stays as it is."""
        at_ms = self._clock.now_ms()

        async def body(tx: Transaction) -> Accepted | SessionBusyError | SessionClosedError:
            head = await self._sessions.take(tx, claim, at_ms=at_ms)
            if head is None:
                return await self._sessions.refusal(tx, claim.session_id, at_ms=at_ms, needs_open=False)
            await self._sends.run_again(tx, claim.session_id, head.send_count)
            return _accepted(claim, head, at_ms)

        outcome = await self._database.write("take_up", body)
        if isinstance(outcome, (SessionBusyError, SessionClosedError)):
            raise outcome
        return outcome

    async def append_reply(self, lease: Lease, reply: NewReply) -> None:
        """Store a reply, its calls, its usage and, if the send ends with it, the end."""
        at_ms = self._clock.now_ms()
        session_id = lease.session_id
        end = reply.end
        rows = [message_row(message) for message in reply.messages]
        result = None if end is None else encode_json(end.result, "result of a send")
        result_seqs = {index: reply.at_seq + place for place, index in enumerate(reply.answered, 1)}

        async def body(tx: Transaction) -> None:
            await self._sessions.guard(
                tx, lease, at_seq=reply.at_seq, count=len(rows), is_last=end is not None, at_ms=at_ms
            )
            await self._messages.append(
                tx,
                session_id,
                rows,
                at_seq=reply.at_seq,
                send_index=reply.send_index,
                round=reply.round,
                at_ms=at_ms,
            )
            await self._model_calls.append(
                tx,
                session_id,
                reply.call,
                reply_seq=reply.at_seq,
                send_index=reply.send_index,
                round=reply.round,
                at_ms=at_ms,
            )
            if reply.calls:
                await self._calls.append(
                    tx,
                    session_id,
                    reply.calls,
                    reply_seq=reply.at_seq,
                    send_index=reply.send_index,
                    result_seqs=result_seqs,
                    at_ms=at_ms,
                )
            if end is not None and result is not None:
                await self._sends.end(tx, session_id, reply.send_index, status=end.status, result=result, at_ms=at_ms)

        await self._database.write("append_reply", body)

    async def advance_calls(
        self,
        lease: Lease,
        steps: Sequence[CallStep],
        *,
        at_seq: int,
        send_index: int,
        round: int,
        tool_state: Mapping[str, Any] | None,
        end: SendEnd | None,
    ) -> None:
        """Make steps of the ledger and append the answers that they bring."""
        at_ms = self._clock.now_ms()
        session_id = lease.session_id
        rows = [message_row(step.message) for step in steps if step.message is not None]
        prepared = ledger_steps(session_id, steps, at_seq=at_seq, at_ms=at_ms)
        state = None if tool_state is None else encode_json(tool_state, "state of tools")
        result = None if end is None else encode_json(end.result, "result of a send")

        async def body(tx: Transaction) -> None:
            await self._sessions.guard(tx, lease, at_seq=at_seq, count=len(rows), is_last=end is not None, at_ms=at_ms)
            await self._calls.advance(tx, session_id, prepared)
            if rows:
                await self._messages.append(
                    tx, session_id, rows, at_seq=at_seq, send_index=send_index, round=round, at_ms=at_ms
                )
            if state is not None:
                await self._sessions.set_tool_state(tx, session_id, state)
            if end is not None and result is not None:
                await self._sends.end(tx, session_id, send_index, status=end.status, result=result, at_ms=at_ms)

        await self._database.write("advance_calls", body)

    async def end_send(self, lease: Lease, send_index: int, end: SendEnd) -> None:
        """Bring a send to rest and release the lease."""
        at_ms = self._clock.now_ms()
        result = encode_json(end.result, "result of a send")

        async def body(tx: Transaction) -> None:
            await self._sessions.guard_end(tx, lease, at_ms=at_ms)
            await self._sends.end(tx, lease.session_id, send_index, status=end.status, result=result, at_ms=at_ms)

        await self._database.write("end_send", body)

    async def renew(self, lease: Lease, *, ttl_s: float) -> None:
        """Lengthen the lease."""
        at_ms = self._clock.now_ms()

        async def body(tx: Transaction) -> None:
            await self._sessions.renew(tx, lease, ttl_ms=ttl_ms_of(ttl_s), at_ms=at_ms)

        await self._database.write("renew", body)

    async def release(self, lease: Lease) -> None:
        """Give the lease back; does nothing if it is lost already."""
        at_ms = self._clock.now_ms()

        async def body(tx: Transaction) -> None:
            await self._sessions.release(tx, lease, at_ms=at_ms)

        await self._database.write("release", body)


def _accepted(claim: Claim, head: Head, at_ms: int) -> Accepted:
    return Accepted(
        Lease(claim.session_id, claim.owner, head.epoch),
        head.send_count,
        head.next_seq,
        head.version,
        at_ms,
        head.previous_owner,
    )


def _same_request(known: SendRecord, new: NewSend, request_id: str) -> SendRecord:
    if known.input_hash != new.input_hash:
        raise RequestConflictError(
            f"request_id {request_id!r} was used in session {known.session_id!r} for send {known.index} with another"
            " input or output_schema: a request_id belongs to one request, give this one a new one",
            session_id=known.session_id,
            request_id=request_id,
        )
    return known


def _pending(session_id: str, calls: tuple[CallRecord, ...]) -> SessionPendingError:
    call_ids = tuple([call.call_id for call in calls])
    waiting = [call for call in calls if call.state is CallState.WAITING]
    ways = [] if len(waiting) == len(calls) else [f"resume({session_id!r}) goes on with what did not come to its end"]
    if waiting:
        answer = "Approve()" if waiting[0].wait_kind is WaitKind.APPROVAL else "Give(...)"
        answers = f"{{{waiting[0].call_id!r}: {answer}}}"
        ways.append(f"resume({session_id!r}, answers={answers}) answers what waits")
    ways.append("send(..., heal_pending=True) gives all of it up and goes on")
    return SessionPendingError(
        f"session {session_id!r} has {_counted(call_ids)}: {', '.join(ways)}", session_id=session_id, call_ids=call_ids
    )


def _counted(call_ids: tuple[str, ...]) -> str:
    """Return open calls in words, such as `2 open calls ('c1', 'c2')`."""
    count = f"{len(call_ids)} open call{'' if len(call_ids) == 1 else 's'}"
    return f"{count} ({', '.join(map(repr, call_ids))})"


def checked_request_id(request_id: Any) -> str:
    """Return a request id that can be stored. Raises `input.invalid` for anything else."""
    is_text = isinstance(request_id, str) and 0 < len(request_id) <= _MAX_REQUEST_ID_CHARS
    if not is_text or clean_text(request_id) != request_id:
        raise InputError(
            f"request_id {request_id!r:.80} is not usable: give text of 1 to {_MAX_REQUEST_ID_CHARS} characters"
        )
    return str(request_id)
