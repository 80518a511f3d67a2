"""Begins a turn and gives everything back behind it: the place in line, the lease, the window."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any

from power_loop.contracts.answers import Answer
from power_loop.contracts.errors import (
    HookError,
    LeaseLostError,
    PowerLoopError,
    SessionPendingError,
    StoreError,
)
from power_loop.contracts.events import EventPayload, HookFailed, LeaseTaken, SendFinished, SendStarted
from power_loop.contracts.frozen import frozen
from power_loop.contracts.hooks import HookPoint, Rewrite, SendStartContext, Veto
from power_loop.contracts.messages import ContentPart, Message, Role, content_of
from power_loop.contracts.records import Accepted, NewSend, SendRecord
from power_loop.contracts.results import StatefulResult
from power_loop.contracts.states import OPEN_CALLS, RESUMABLE_SENDS, SendStatus
from power_loop.core.bus import EventQueue
from power_loop.core.context.window import Window, WindowCache
from power_loop.core.turn.answers import Answers, check_waiting
from power_loop.core.turn.chain import start
from power_loop.core.turn.drive import abort, drive, rest_again, settle_open_calls
from power_loop.core.turn.fingerprint import fingerprint
from power_loop.core.turn.lease import Heartbeat, claim_lease
from power_loop.core.turn.options import SendOptions
from power_loop.core.turn.outcome import dropped_usage_of, recorded_result, repeated_result
from power_loop.core.turn.scope import StopCause, TurnScope, TurnStopped, uninterrupted
from power_loop.core.turn.turn import Turn, TurnKit
from power_loop.tools.registry import ToolRegistry

_LOG = logging.getLogger("power_loop")


@frozen
class TurnSeat:
    """Is where a turn takes place: what its handle gives it, its session, its tools, its stop switch, who listens."""

    kit: TurnKit
    windows: WindowCache
    session_id: str
    tools: ToolRegistry
    scope: TurnScope
    listener: EventQueue | None = None


async def send(
    seat: TurnSeat, content: tuple[ContentPart, ...], *, options: SendOptions, request_id: str | None, heals: bool
) -> StatefulResult:
    """Store an input and drive it to its rest; one that has this `request_id` already is not stored again."""
    _limit_time(seat, options)
    try:
        async with seat.kit.desk.turn(seat.session_id, seat.scope):
            # A send that is there already is repeated as its caller gave it: hooks had their say about it.
            is_known = await _is_known(seat, request_id)
            asked = content if is_known else await _ask_start(seat, content, is_resume=False)
            if isinstance(asked, StatefulResult):
                return asked
            seat.scope.check()
            message = Message(Role.USER, asked)
            chosen = options.to_json()
            digest = "" if request_id is None else fingerprint(content, chosen.get("output_schema"))
            new = NewSend(message, digest, chosen, request_id)
            try:
                accepted = await _claim(seat, lambda claim: seat.kit.store.accept(claim, new))
            except SessionPendingError:
                if not heals:
                    raise
                await _settle(seat, "healed before another send", only_calls=True)
                accepted = await _claim(seat, lambda claim: seat.kit.store.accept(claim, new))
            if isinstance(accepted, SendRecord):
                is_unfinished = accepted.status in (SendStatus.RUNNING, SendStatus.FAILED)
                last = await _last_send(seat)
                if is_unfinished and last is not None and accepted.index == last.index:
                    asked = await _ask_start(seat, (), is_resume=True) if is_known else asked
                    if isinstance(asked, StatefulResult):
                        return asked
                    return await _go_on(seat, accepted, {})
                return await repeated_result(seat.kit.store, accepted)
            taken = accepted

            async def begin() -> Turn:
                window, is_warm = await _window(seat, taken, taken.next_seq - 1)
                turn = _turn(seat, taken, window, options, request_id)
                turn.announce(SendStarted(request_id, is_resume=False))
                await turn.note_input(message, is_in_window=not is_warm)
                return turn

            return await _hold(seat, accepted, begin)
    except TurnStopped:
        # It was stopped before it began: nothing was stored.
        return _never_began(seat, seat.scope.status or SendStatus.CANCELLED, seat.scope.reason)


async def resume(seat: TurnSeat, answers: Mapping[str, Answer]) -> StatefulResult:
    """Drive the last send on, with answers to its waiting calls if there are any; a send that rests gives its recorded
    result."""
    begun = await _last_send(seat)
    if begun is not None:
        # Waiting in line takes of its time too.
        _limit_time(seat, SendOptions.from_json(begun.options))
    try:
        async with seat.kit.desk.turn(seat.session_id, seat.scope):
            sent = await _last_send(seat)
            if answers:
                check_waiting(seat.session_id, await seat.kit.store.get_calls(seat.session_id), answers)
            if sent is None:
                return _no_send(seat)
            if not answers and _rests(sent.status):
                return await repeated_result(seat.kit.store, sent)
            asked = await _ask_start(seat, (), is_resume=True)
            if isinstance(asked, StatefulResult):
                return asked
            seat.scope.check()
            return await _go_on(seat, sent, answers)
    except TurnStopped:
        return _never_began(seat, seat.scope.status or SendStatus.CANCELLED, seat.scope.reason)


async def settle(seat: TurnSeat, reason: str, *, only_calls: bool = False) -> StatefulResult:
    """End the last send as aborted, with its open calls answered and not run; one that rests gives its recorded
    result.

    With `only_calls`, so does one that failed and has no open calls: it can be driven on.
    """
    async with seat.kit.desk.turn(seat.session_id, seat.scope, is_stoppable=False):
        return await _settle(seat, reason, only_calls=only_calls)


async def _settle(seat: TurnSeat, reason: str, *, only_calls: bool) -> StatefulResult:
    store = seat.kit.store
    sent = await _last_send(seat)
    if sent is None:
        return _no_send(seat)
    # The ledger says what is open, whatever is recorded of the send.
    is_open = bool(await store.get_calls(seat.session_id, states=tuple(OPEN_CALLS)))
    if not is_open and (sent.status not in RESUMABLE_SENDS or (only_calls and sent.status is SendStatus.FAILED)):
        return await recorded_result(store, sent)
    taken = await _claim(seat, store.take_up)

    async def end(turn: Turn) -> StatefulResult:
        found = await store.get_send(seat.session_id, index=turn.send_index)
        if found is None or found.status is SendStatus.RUNNING:
            return await abort(turn, SendStatus.ABORTED, reason=reason)
        await settle_open_calls(turn, None)
        return await recorded_result(store, found)

    try:
        return await _hold(seat, taken, lambda: _from_store(seat, taken, sent.index, with_ended=True), end)
    except _Rests as rests:
        return await recorded_result(seat.kit.store, rests.send)


async def _go_on(seat: TurnSeat, sent: SendRecord, answers: Mapping[str, Answer]) -> StatefulResult:
    """Take a stored send up and drive it."""
    taken = await _claim(seat, seat.kit.store.take_up)

    async def go_on(turn: Turn) -> StatefulResult:
        try:
            given = Answers(turn, answers)
        except PowerLoopError:
            await rest_again(turn)
            raise
        turn.count_dropped(dropped_usage_of(sent))
        turn.announce(SendStarted(sent.request_id, is_resume=True, missing_tools=turn.missing_tools))
        await given.commit()
        return await drive(turn)

    try:
        return await _hold(seat, taken, lambda: _from_store(seat, taken, sent.index), go_on)
    except _Rests as rests:
        if answers:
            check_waiting(seat.session_id, await seat.kit.store.get_calls(seat.session_id), answers)
        return await repeated_result(seat.kit.store, rests.send)


class _Rests(Exception):  # noqa: N818  (a signal of this room to itself, not an error)
    """Says that a send came to rest, through somebody else, before its lease was taken to drive it on."""

    def __init__(self, send: SendRecord) -> None:
        super().__init__(send.index)
        self.send = send


# ---- taking ----


async def _claim(seat: TurnSeat, take: Callable[..., Any]) -> Any:
    kit = seat.kit
    return await claim_lease(
        seat.session_id,
        take,
        desk=kit.desk,
        scope=seat.scope,
        ttl_s=kit.lease_ttl_s,
        is_owner_dead=kit.is_owner_dead,
    )


async def _last_send(seat: TurnSeat) -> SendRecord | None:
    """Return the last send of a session, or None before the first. Raises `session.not_found`."""
    sent = await seat.kit.store.get_send(seat.session_id)
    if sent is None:
        await seat.kit.store.get_session(seat.session_id)
    return sent


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
        _announce(seat, HookFailed(context.point.value, error.hook, f"{type(cause).__name__}: {cause}"))
        raise
    if isinstance(decision, Veto):
        return _never_began(seat, SendStatus.VETOED, decision.reason)
    if isinstance(decision, Rewrite) and decision.content is not None:
        return content_of(decision.content)
    return content


def _never_began(seat: TurnSeat, status: SendStatus, reason: str) -> StatefulResult:
    """Announce and return the result of a turn that did not begin: nothing is stored of it."""
    result = StatefulResult(seat.session_id, 0, status, reason=reason)
    _announce(seat, SendFinished(result))
    return result


def _announce(seat: TurnSeat, payload: EventPayload) -> None:
    """Tell subscribers of a turn that has not begun."""
    with _listening(seat):
        seat.kit.bus.emit(payload, session_id=seat.session_id)


@contextlib.contextmanager
def _listening(seat: TurnSeat) -> Iterator[None]:
    """Let the seat's listener hear what is announced of its session: while its turn runs, that is this turn's alone."""
    if seat.listener is None:
        yield
        return
    subscription = seat.kit.bus.subscribe(seat.listener.put, session_id=seat.session_id, name="stream")
    try:
        yield
    finally:
        subscription.unsubscribe()


def _limit_time(seat: TurnSeat, options: SendOptions) -> None:
    """Let the time of a send run, from before it waits for anything."""
    limit_s = (options.limits or seat.kit.limits).max_seconds
    if limit_s is not None:
        seat.scope.stop_after(limit_s)


async def _is_known(seat: TurnSeat, request_id: str | None) -> bool:
    """Tell whether a request is stored already, where that makes a difference before it is accepted."""
    if request_id is None or not seat.kit.hooks.has(HookPoint.SEND_START):
        return False
    return await seat.kit.store.get_send(seat.session_id, request_id=request_id) is not None


async def _window(seat: TurnSeat, taken: Accepted, seq: int) -> tuple[Window, bool]:
    """Return the session's window, and whether it is the kept one, which stands before `seq`; else it is read."""
    kept = seat.windows.take(seat.session_id)
    if kept is not None and kept.is_current(seq, taken.version, epoch=taken.lease.epoch):
        return kept, True
    return Window.of(await seat.kit.store.read_view(seat.session_id)), False


def _turn(seat: TurnSeat, taken: Accepted, window: Window, options: SendOptions, request_id: str | None) -> Turn:
    tools = seat.tools if options.tools is None else _offered(seat.tools, options.tools)
    turn = Turn(
        seat.kit,
        lease=taken.lease,
        scope=seat.scope,
        window=window,
        tools=tools,
        options=options,
        send_index=taken.send_index,
        request_id=request_id,
    )
    if taken.previous_owner is not None:
        turn.announce(LeaseTaken(taken.previous_owner))
    return turn


def _offered(tools: ToolRegistry, names: tuple[str, ...]) -> ToolRegistry:
    """Return the tools of a send that are still registered; a call of one that is gone is answered with that."""
    return tools.subset([name for name in names if name in tools])


async def _from_store(seat: TurnSeat, taken: Accepted, index: int, *, with_ended: bool = False) -> Turn:
    """Return the turn of a send as the store has it.

    Raises `_Rests` for one that does not run (any more); `with_ended`, one that has open calls all the same is given.
    """
    seat.windows.take(seat.session_id)
    view = await seat.kit.store.read_view(seat.session_id)
    send = view.send
    if send is not None and send.index != index:
        send = await seat.kit.store.get_send(seat.session_id, index=index)
    assert send is not None
    is_left = with_ended and bool(view.calls)
    if send.index != taken.send_index or not (send.status is SendStatus.RUNNING or is_left):
        raise _Rests(send)
    turn = _turn(seat, taken, Window.of(view), SendOptions.from_json(send.options), send.request_id)
    turn.go_on_from(send, view.calls)
    return turn


# ---- holding ----


async def _hold(
    seat: TurnSeat,
    taken: Accepted,
    begin: Callable[[], Coroutine[Any, Any, Turn]],
    go_on: Callable[[Turn], Coroutine[Any, Any, StatefulResult]] = drive,
) -> StatefulResult:
    """Run a turn under its lease, and give back what it held, however it ends."""
    kit, scope, lease = seat.kit, seat.scope, taken.lease
    heartbeat = Heartbeat(kit.store, lease, kit.lease_ttl_s, scope)
    turn: Turn | None = None
    is_owner = True
    try:
        with _listening(seat):
            turn = await begin()
            return await go_on(turn)
    except LeaseLostError:
        is_owner = False
        raise
    except asyncio.CancelledError:
        # Somebody cancels every task there is: settle what the store says, and let it be known.
        scope.stop_quietly()
        turn = None
        with _listening(seat):
            await uninterrupted(_settle_cancelled(seat, taken))
        raise
    finally:
        kit.desk.end(seat.session_id, scope)
        rests = turn is not None and turn.is_at_rest
        if turn is not None and rests:
            turn.window.epoch = lease.epoch
            seat.windows.put(turn.window)
        await heartbeat.stop()
        if is_owner and not rests:
            with contextlib.suppress(StoreError):
                await kit.store.release(lease)


async def _settle_cancelled(seat: TurnSeat, taken: Accepted) -> None:
    try:
        # Whatever was on its way into the store when the cancellation came is there behind this.
        await seat.kit.store.renew(taken.lease, ttl_s=seat.kit.lease_ttl_s)
        turn = await _from_store(seat, taken, taken.send_index)
        await abort(turn, SendStatus.CANCELLED, reason=seat.scope.reason)
    except (_Rests, LeaseLostError):
        pass  # it had come to rest
    except Exception as error:
        _LOG.warning("session %s could not be settled after a cancellation: %s", seat.session_id, error)


async def join(work: Coroutine[Any, Any, StatefulResult], scope: TurnScope) -> StatefulResult:
    """Run a turn in a task of its own; cancelling the caller stops the turn, which is brought to rest before that is
    raised."""
    task = start(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if not task.done():
            scope.stop(StopCause.CANCELLED, "its task was cancelled")
            while not task.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait((task,))
        if not task.cancelled():
            task.exception()  # seen: the cancellation is what the caller gets
        raise
    finally:
        scope.close()
