"""Begins a turn: of a new input, of one that waits in the inbox, or of a send that is stored already."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from typing import cast

from power_loop.contracts.answers import Answer
from power_loop.contracts.errors import (
    HookError,
    InputError,
    LeaseLostError,
    PowerLoopError,
    SendPoisonedError,
    SessionBusyError,
    SessionPendingError,
    StoreError,
)
from power_loop.contracts.events import HookFailed, InputQueued, InputRefused, SendStarted
from power_loop.contracts.hooks import HookPoint, Rewrite, SendStartContext, Veto
from power_loop.contracts.messages import ContentPart, Message, Role, content_of
from power_loop.contracts.records import Accepted, InboxRecord, NewSend, Queued, SendRecord
from power_loop.contracts.results import FollowUp, StatefulResult
from power_loop.contracts.states import OPEN_CALLS, RESUMABLE_SENDS, CallState, OnBusy, SendStatus, WaitKind
from power_loop.core.stray import said
from power_loop.core.turn.answers import Answers, check_waiting
from power_loop.core.turn.drive import abort, drive, rest_again, settle_open_calls
from power_loop.core.turn.fingerprint import fingerprint
from power_loop.core.turn.options import SendOptions
from power_loop.core.turn.outcome import recorded_result, repeated_result
from power_loop.core.turn.scope import TurnStopped
from power_loop.core.turn.seat import (
    Rests,
    TurnSeat,
    announce,
    budgeted,
    claim,
    from_store,
    hold,
    last_send,
    limit_time,
    never_began,
    open_purse,
    turn_of,
    window_of,
)
from power_loop.core.turn.turn import OpenCall, Turn, step_of


async def send(
    seat: TurnSeat,
    content: tuple[ContentPart, ...],
    *,
    options: SendOptions,
    request_id: str | None,
    heals: bool,
    digest: str | None = None,
) -> StatefulResult:
    """Store an input and drive it to its rest; one that has this `request_id` already is not stored again.

    Where somebody else's turn runs, `seat.on_busy` decides. Inputs that wait in the inbox come before. `digest` stands
    for what is asked where the `request_id` says it all.
    """
    limit_time(seat, options)
    if digest is None:
        digest = "" if request_id is None else fingerprint(content, options.to_json().get("output_schema"))
    new = NewSend(Message(Role.USER, content), digest, options.to_json(), request_id, paid_by=seat.paid_by)
    first: InboxRecord | None = None
    failure: Exception | None = None
    try:
        if seat.on_busy is OnBusy.QUEUE and seat.kit.desk.is_taken(seat.session_id):
            return await _put(seat, new)
        while True:
            async with seat.kit.desk.turn(seat.session_id, seat.scope):
                outcome = await _send_in_line(seat, new, options, heals=heals)
            if isinstance(outcome, StatefulResult):
                return outcome
            if seat.on_busy is OnBusy.QUEUE:
                return await _put(seat, new)
            if first is not None and outcome.position == first.position:
                _check_in_the_way(seat, outcome, failure)
            first = outcome
            with seat.kit.desk.in_line(seat.session_id, seat.scope):
                failure = await seat.scope.interruptible(seat.drive_inbox())
    except TurnStopped:
        # It was stopped before it began: nothing was stored.
        return never_began(seat, seat.scope.status or SendStatus.CANCELLED, seat.scope.reason)


async def _send_in_line(
    seat: TurnSeat, new: NewSend, options: SendOptions, *, heals: bool
) -> StatefulResult | InboxRecord:
    """Make a send whose place in line has come; return the input that has to come before, if there is one."""
    # A send that is there already is repeated as its caller gave it: hooks had their say about it.
    is_known = await _is_known(seat, new.request_id)
    content = _content(new.message)
    asked = content if is_known else await _ask_start(seat, content, is_resume=False)
    if isinstance(asked, StatefulResult):
        return asked
    seat.scope.check()
    stored = new if asked is content else replace(new, message=Message(Role.USER, asked))
    options, stored = budgeted(seat, options, stored)
    try:
        accepted = await _accept(seat, stored, heals=heals)
    except SessionBusyError:
        if seat.on_busy is not OnBusy.QUEUE:
            raise
        return await _put(seat, new)
    if isinstance(accepted, InboxRecord):
        if accepted.is_waiting:
            return accepted
        given = await _delivered(seat, accepted)
        if isinstance(given, StatefulResult):
            return given
        accepted = given
    if isinstance(accepted, SendRecord):
        is_unfinished = accepted.status in (SendStatus.RUNNING, SendStatus.FAILED) or await _is_awake(seat, accepted)
        last = await last_send(seat)
        if is_unfinished and last is not None and accepted.index == last.index:
            asked = await _ask_start(seat, (), is_resume=True) if is_known else asked
            return asked if isinstance(asked, StatefulResult) else await _go_on(seat, accepted, {})
        return await repeated_result(seat.kit.store, accepted)
    return await _run(seat, accepted, stored, options)


async def _accept(seat: TurnSeat, new: NewSend, *, heals: bool) -> Accepted | SendRecord | InboxRecord:
    store = seat.kit.store
    accepted: Accepted | SendRecord | InboxRecord
    try:
        accepted = await claim(seat, lambda claim: store.accept(claim, new))
    except SessionPendingError:
        if not heals:
            raise
        await _settle(seat, "healed before another send", only_calls=True)
        accepted = await claim(seat, lambda claim: store.accept(claim, new))
    return accepted


async def _run(seat: TurnSeat, taken: Accepted, new: NewSend, options: SendOptions) -> StatefulResult:
    """Drive a send that was accepted."""

    async def begin() -> Turn:
        window, is_warm = await window_of(seat, taken, taken.next_seq - 1)
        turn = turn_of(seat, taken, window, options, new.request_id)
        await open_purse(turn, options)
        turn.announce(SendStarted(new.request_id, is_resume=False, missing_tools=turn.missing_tools))
        await turn.note_input(new.message, is_in_window=not is_warm)
        return turn

    return await hold(seat, taken, begin, drive)


# ---- the inbox ----


async def leave(seat: TurnSeat, new: NewSend) -> Queued | SendRecord:
    """Leave an input in the inbox, and see to it that somebody drives it where no turn runs that will."""
    queued = await seat.kit.store.put_input(seat.session_id, new)
    if isinstance(queued, Queued):
        if not queued.is_known:
            announce(seat, InputQueued(queued.record.position, new.request_id))
        if queued.record.is_waiting and not queued.is_turn_running:
            seat.on_waiting()
    return queued


async def follow_up(seat: TurnSeat, content: tuple[ContentPart, ...], request_id: str | None) -> FollowUp:
    """Leave an input without options of its own, and return where it is."""
    digest = "" if request_id is None else fingerprint(content)
    known = await leave(seat, NewSend(Message(Role.USER, content), digest, {}, request_id))
    if isinstance(known, SendRecord):
        is_running = known.status is SendStatus.RUNNING
        return FollowUp(seat.session_id, None, request_id, is_running, is_known=True, send_index=known.index)
    record = known.record
    return FollowUp(
        seat.session_id,
        record.position,
        request_id,
        known.is_turn_running,
        is_known=known.is_known,
        send_index=record.send_index,
    )


async def queue(
    seat: TurnSeat, content: tuple[ContentPart, ...], *, options: SendOptions, request_id: str | None
) -> StatefulResult:
    """Leave an input for a turn that nobody waits for, and return what is known of it."""
    digest = "" if request_id is None else fingerprint(content, options.to_json().get("output_schema"))
    return await _put(seat, NewSend(Message(Role.USER, content), digest, options.to_json(), request_id))


async def _put(seat: TurnSeat, new: NewSend) -> StatefulResult:
    """Leave an input in the inbox and return what is known of it."""
    queued = await leave(seat, new)
    if isinstance(queued, SendRecord):
        return await _known_result(seat, queued)
    record = queued.record
    if not record.is_waiting:
        given = await _delivered(seat, record)
        return given if isinstance(given, StatefulResult) else await _known_result(seat, given, record.position)
    return _queued(seat, record.request_id, record.position)


def _queued(seat: TurnSeat, request_id: str | None, position: int | None, send_index: int = 0) -> StatefulResult:
    return StatefulResult(
        seat.session_id, send_index, SendStatus.QUEUED, request_id=request_id, inbox_position=position
    )


async def _known_result(seat: TurnSeat, send: SendRecord, position: int | None = None) -> StatefulResult:
    """Return what a send came to that has an input already; one that runs is to be asked for again."""
    if send.status is SendStatus.RUNNING:
        return _queued(seat, send.request_id, position, send.index)
    return await repeated_result(seat.kit.store, send)


async def _delivered(seat: TurnSeat, record: InboxRecord) -> SendRecord | StatefulResult:
    """Return the send that took an input in; the result of one that left the inbox without."""
    if record.send_index is None:
        reason = "this input was withdrawn from the inbox, or a hook refused it"
        return StatefulResult(
            seat.session_id, 0, SendStatus.ABORTED, request_id=record.request_id, reason=reason, is_replayed=True
        )
    send = await seat.kit.store.get_send(seat.session_id, index=record.send_index)
    assert send is not None
    return send


def _check_in_the_way(seat: TurnSeat, record: InboxRecord, failure: Exception | None) -> None:
    """Raise why no turn was made of an input that came first, unless that was the moment's doing."""
    if isinstance(failure, StoreError) or (isinstance(failure, SessionBusyError) and seat.on_busy is OnBusy.RAISE):
        raise failure
    if failure is not None and not isinstance(failure, (SessionBusyError, SessionPendingError, LeaseLostError)):
        raise _stands_in_the_way(record) from failure


def _stands_in_the_way(record: InboxRecord) -> InputError:
    return InputError(
        f"input {record.position} of the inbox of session {record.session_id!r} came first and cannot be made a turn"
        " of: the log and the events of its turn say why; mend that, or withdraw() it"
    )


async def next_turn(seat: TurnSeat) -> StatefulResult | None:
    """Make a turn of the input that waits first; a send whose process died goes on instead, and takes it in.

    None if nothing waits. Raises `input.invalid` where it is not the moment that hinders: the same would come of
    another try.
    """
    first: list[InboxRecord] = []
    try:
        return await _next_turn(seat, first)
    except TurnStopped:
        stopped = never_began(seat, seat.scope.status or SendStatus.CANCELLED, seat.scope.reason)
        if first and stopped.status is SendStatus.TIME_EXCEEDED:
            raise _stands_in_the_way(first[0]) from None
        return stopped


async def _next_turn(seat: TurnSeat, first: list[InboxRecord]) -> StatefulResult | None:
    store = seat.kit.store
    async with seat.kit.desk.turn(seat.session_id, seat.scope):
        while True:
            waiting = await store.get_inbox(seat.session_id, limit=1)
            if not waiting:
                return None
            first[:] = [record] = waiting
            sent = await last_send(seat)
            if sent is not None and sent.status is SendStatus.RUNNING:
                result = await _recover(seat, sent)
                if result.status is SendStatus.VETOED and not result.send_index:
                    raise _stands_in_the_way(record)
                return result
            assert record.message is not None
            options = SendOptions.from_json(record.options)
            limit_time(seat, options)
            asked = await _ask_start(seat, _content(record.message), is_resume=False)
            if isinstance(asked, StatefulResult):
                await store.withdraw_input(seat.session_id, record.position)
                announce(seat, InputRefused(record.position, record.request_id, asked.reason or ""))
                return asked
            seat.scope.check()
            new = NewSend(
                Message(Role.USER, asked), record.input_hash, record.options, record.request_id, record.position
            )
            options, new = budgeted(seat, options, new)
            accepted = await claim(seat, lambda claim, new=new: store.accept(claim, new))
            if isinstance(accepted, Accepted):
                return await _run(seat, accepted, new, options)


# ---- what was left ----


async def recover(seat: TurnSeat) -> StatefulResult | None:
    """Go on with a send whose process died; None if the session has none."""
    try:
        async with seat.kit.desk.turn(seat.session_id, seat.scope):
            sent = await last_send(seat)
            return None if sent is None or sent.status is not SendStatus.RUNNING else await _recover(seat, sent)
    except TurnStopped:
        return never_began(seat, seat.scope.status or SendStatus.CANCELLED, seat.scope.reason)


async def _recover(seat: TurnSeat, sent: SendRecord) -> StatefulResult:
    """Go on with a send whose process died; one with which too many died is given up."""
    if sent.attempts > seat.kit.max_recoveries:
        return await _give_up(seat, sent)
    limit_time(seat, SendOptions.from_json(sent.options))
    asked = await _ask_start(seat, (), is_resume=True)
    if isinstance(asked, StatefulResult):
        return asked
    seat.scope.check()
    return await _go_on(seat, sent, {})


async def _give_up(seat: TurnSeat, sent: SendRecord) -> StatefulResult:
    """End a send as failed, with its calls settled and the session free. Raises `send.poisoned`."""
    error = SendPoisonedError(
        f"send {sent.index} of session {seat.session_id!r} was given up: {sent.attempts} processes ended while they"
        " drove it; resume() tries once more, any other send goes on without it",
        session_id=seat.session_id,
        attempts=sent.attempts,
    )
    taken = await claim(seat, seat.kit.store.take_up)

    async def end(turn: Turn) -> StatefulResult:
        await abort(turn, SendStatus.FAILED, reason=f"{error.code}: {error.message}")
        raise error

    try:
        return await hold(seat, taken, lambda: from_store(seat, taken, sent.index, drives=False), end)
    except Rests as rests:
        return await recorded_result(seat.kit.store, rests.send)


async def cancel_left(seat: TurnSeat, reason: str, *, epoch: int) -> bool:
    """End a send as cancelled whose owner is dead or whose lease is over; False if its owner lives and hears, or if it
    is over and another turn came since the lease had this epoch."""
    async with seat.kit.desk.turn(seat.session_id, seat.scope, is_stoppable=False):
        head, sent = await seat.kit.store.get_session(seat.session_id), await last_send(seat)
        if head.epoch != epoch or sent is None or sent.status is not SendStatus.RUNNING:
            return False
        try:
            taken = await claim(seat, seat.kit.store.take_up)
        except SessionBusyError:
            return False
        with contextlib.suppress(Rests):
            await hold(
                seat,
                taken,
                lambda: from_store(seat, taken, taken.send_index, drives=False),
                lambda turn: abort(turn, SendStatus.CANCELLED, reason=reason),
            )
        return True


# ---- a send that is there ----


async def resume(seat: TurnSeat, answers: Mapping[str, Answer]) -> StatefulResult:
    """Drive the last send on, with answers to its waiting calls if there are any; a send that rests gives its recorded
    result."""
    begun = await last_send(seat)
    if begun is not None:
        # Waiting in line takes of its time too.
        limit_time(seat, SendOptions.from_json(begun.options))
    try:
        async with seat.kit.desk.turn(seat.session_id, seat.scope):
            sent = await last_send(seat)
            if answers:
                check_waiting(seat.session_id, await seat.kit.store.get_calls(seat.session_id), answers)
            if sent is None:
                return _no_send(seat)
            if not answers and _rests(sent.status) and not await _is_awake(seat, sent):
                return await repeated_result(seat.kit.store, sent)
            asked = await _ask_start(seat, (), is_resume=True)
            if isinstance(asked, StatefulResult):
                return asked
            seat.scope.check()
            return await _go_on(seat, sent, answers)
    except TurnStopped:
        return never_began(seat, seat.scope.status or SendStatus.CANCELLED, seat.scope.reason)


async def settle(seat: TurnSeat, reason: str, *, only_calls: bool = False) -> StatefulResult:
    """End the last send as aborted, with its open calls answered and not run; one that rests gives its recorded
    result.

    With `only_calls`, so does one that failed and has no open calls: it can be driven on.
    """
    async with seat.kit.desk.turn(seat.session_id, seat.scope, is_stoppable=False):
        return await _settle(seat, reason, only_calls=only_calls)


async def _settle(seat: TurnSeat, reason: str, *, only_calls: bool) -> StatefulResult:
    store = seat.kit.store
    sent = await last_send(seat)
    if sent is None:
        return _no_send(seat)
    # The ledger says what is open, whatever is recorded of the send.
    is_open = bool(await store.get_calls(seat.session_id, states=tuple(OPEN_CALLS)))
    if not is_open and (sent.status not in RESUMABLE_SENDS or (only_calls and sent.status is SendStatus.FAILED)):
        return await recorded_result(store, sent)
    taken = await claim(seat, store.take_up)

    async def end(turn: Turn) -> StatefulResult:
        found = await store.get_send(seat.session_id, index=turn.send_index)
        if found is None or found.status is SendStatus.RUNNING:
            return await abort(turn, SendStatus.ABORTED, reason=reason)
        await settle_open_calls(turn)
        return await recorded_result(store, found)

    try:
        return await hold(seat, taken, lambda: from_store(seat, taken, sent.index, with_ended=True, drives=False), end)
    except Rests as rests:
        return await recorded_result(seat.kit.store, rests.send)


async def _go_on(seat: TurnSeat, sent: SendRecord, answers: Mapping[str, Answer]) -> StatefulResult:
    """Take a stored send up and drive it."""
    taken = await claim(seat, seat.kit.store.take_up)

    async def go_on(turn: Turn) -> StatefulResult:
        try:
            given = Answers(turn, answers)
        except PowerLoopError:
            await rest_again(turn)
            raise
        turn.count_dropped(sent.dropped_usage, sent.dropped_cost_nanos)
        turn.announce(SendStarted(sent.request_id, is_resume=True, missing_tools=turn.missing_tools))
        # Before their calls are settled: whoever dies in between finds agents that wait for nobody.
        for call in given.left_agents:
            if turn.agents is not None:
                await turn.agents.end_of(call, "its parent's call was answered without it")
        await given.commit()
        await _wake_calls(turn)
        return await drive(turn)

    try:
        return await hold(seat, taken, lambda: from_store(seat, taken, sent.index), go_on)
    except Rests as rests:
        if answers:
            check_waiting(seat.session_id, await seat.kit.store.get_calls(seat.session_id), answers)
        return await repeated_result(seat.kit.store, rests.send)


async def _is_awake(seat: TurnSeat, sent: SendRecord) -> bool:
    """Tell whether a send waits for a sub-agent that waits for nobody any more."""
    if sent.status is not SendStatus.WAITING_FOR_INPUT or seat.agents is None:
        return False
    calls = await seat.kit.store.get_calls(seat.session_id, states=(CallState.WAITING,))
    return any([call.wait_kind is WaitKind.AGENT and await seat.agents.is_awake(OpenCall.of(call)) for call in calls])


async def _wake_calls(turn: Turn) -> None:
    """Let the calls run again whose sub-agents wait for nobody any more."""
    waiting = [call for call in turn.calls if call.state is CallState.WAITING and call.wait_kind is WaitKind.AGENT]
    awake = [call for call in waiting if turn.agents is not None and await turn.agents.is_awake(call)]
    if not awake:
        return
    await turn.advance_calls(
        [step_of(one, CallState.REQUESTED, arguments=one.arguments, is_approved=one.is_approved) for one in awake]
    )
    for one in awake:
        one.state, one.wait_kind, one.prompt, one.wait_data = CallState.REQUESTED, None, None, None


def _rests(status: SendStatus) -> bool:
    """Tell whether nothing but an answer lets a send of this status go on."""
    return status not in RESUMABLE_SENDS or status is SendStatus.WAITING_FOR_INPUT


def _no_send(seat: TurnSeat) -> StatefulResult:
    return StatefulResult(seat.session_id, 0, SendStatus.NO_SEND, reason="the session has no send yet")


async def _ask_start(
    seat: TurnSeat, content: tuple[ContentPart, ...], *, is_resume: bool
) -> tuple[ContentPart, ...] | StatefulResult:
    """Ask the hooks about an input; return the input to store, or the result of one that was vetoed."""
    hooks = seat.kit.hooks
    if not hooks.has(HookPoint.SEND_START):
        return content
    session = await seat.kit.store.get_session(seat.session_id)
    context = SendStartContext(
        seat.session_id, session.send_count + (not is_resume), 0, session.metadata, content, is_resume
    )
    try:
        decision = await seat.scope.interruptible(hooks.ask(context))
    except HookError as error:
        cause = error.__cause__ or error
        announce(seat, HookFailed(context.point.value, error.hook, said(cause)))
        raise
    if isinstance(decision, Veto):
        return never_began(seat, SendStatus.VETOED, decision.reason)
    if isinstance(decision, Rewrite) and decision.content is not None:
        return content_of(decision.content)
    return content


def _content(message: Message) -> tuple[ContentPart, ...]:
    """Return what a user's message says: it holds nothing else."""
    return cast("tuple[ContentPart, ...]", message.parts)


async def _is_known(seat: TurnSeat, request_id: str | None) -> bool:
    """Tell whether a request is stored already, where that makes a difference before it is accepted."""
    if request_id is None or not seat.kit.hooks.has(HookPoint.SEND_START):
        return False
    return await seat.kit.store.get_send(seat.session_id, request_id=request_id) is not None
