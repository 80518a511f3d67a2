"""Gives a turn its place: the lease, the window, who listens; and takes everything back behind it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from typing import Any, TypeVar

from power_loop.contracts.budgets import NewBudget
from power_loop.contracts.errors import LeaseLostError, PowerLoopError, SessionBusyError, StoreCorruptError, StoreError
from power_loop.contracts.events import EventPayload, LeaseTaken, SendFinished
from power_loop.contracts.frozen import frozen
from power_loop.contracts.records import Accepted, NewSend, SendRecord, SessionView
from power_loop.contracts.results import StatefulResult
from power_loop.contracts.states import RESUMABLE_SENDS, NextInput, OnBusy, SendStatus
from power_loop.core.bus import EventQueue
from power_loop.core.context.window import Window, WindowCache
from power_loop.core.turn.agent import Agent
from power_loop.core.turn.chain import start
from power_loop.core.turn.drive import abort
from power_loop.core.turn.lease import Heartbeat, claim_lease, until_free
from power_loop.core.turn.options import SendOptions
from power_loop.core.turn.purse import Purse
from power_loop.core.turn.scope import StopCause, TurnScope, uninterrupted
from power_loop.core.turn.turn import AgentRunner, Turn, TurnKit
from power_loop.tools.registry import ToolRegistry

T = TypeVar("T")

_LOG = logging.getLogger("power_loop")
#: What waits in the inbox is not driven behind a turn that rests so: it may go on itself.
_NOT_BEHIND = frozenset({None, SendStatus.WAITING_FOR_INPUT, SendStatus.FAILED})


def _nobody() -> None:
    """Is told of an inbox that nobody here drives."""


async def _nothing() -> Exception | None:
    """Drives no inbox."""
    return None


@frozen
class Listener:
    """Is who watches a turn: where its events go, and whether those of the sub-agents below go there too."""

    events: EventQueue
    with_children: bool = False


@frozen
class TurnSeat:
    """Is where a turn takes place: what its handle gives it, its session, its tools, its stop switch, who listens.

    `on_busy` is what becomes of it while somebody else's turn runs. `on_waiting` is told where inputs wait in the inbox
    of a session whose turn came to rest: it sees to it that the next turn begins. `drive_inbox` makes turns of what
    waits there, and returns when there is nothing more, or what ended it before. `agents` runs sub-agents. In the
    session of a sub-agent, `agent` is what it may do and `payer` the turn that waits for it; where that turn runs in
    another process, `awaited_by` are its session and its send.
    """

    kit: TurnKit
    windows: WindowCache
    session_id: str
    tools: ToolRegistry
    scope: TurnScope
    listener: Listener | None = None
    on_busy: OnBusy = OnBusy.RAISE
    on_waiting: Callable[[], object] = _nobody
    drive_inbox: Callable[[], Coroutine[Any, Any, Exception | None]] = _nothing
    agents: AgentRunner | None = None
    agent: Agent | None = None
    payer: Turn | None = None
    awaited_by: tuple[str, int] | None = None

    @property
    def path(self) -> tuple[str, ...]:
        """The sessions from the top of the tree of sub-agents down to this one."""
        return (self.session_id,) if self.agent is None else (*self.agent.above, self.session_id)

    @property
    def paid_by(self) -> tuple[str, int] | None:
        """The session and the send that wait for it."""
        return self.awaited_by if self.payer is None else (self.payer.session_id, self.payer.send_index)


class Rests(Exception):  # noqa: N818  (a signal of this room to itself, not an error)
    """Says that a send came to rest, through somebody else, before its lease was taken to drive it on."""

    def __init__(self, send: SendRecord) -> None:
        super().__init__(send.index)
        self.send = send


# ---- taking ----


async def claim(seat: TurnSeat, take: Callable[..., Any]) -> Any:
    """Return what `take` gives for a claim; a seat that waits does so until the lease is free or its scope stopped."""
    kit = seat.kit
    attempt = 0
    while True:
        try:
            return await claim_lease(
                seat.session_id,
                take,
                desk=kit.desk,
                scope=seat.scope,
                ttl_s=kit.lease_ttl_s,
                is_owner_dead=kit.is_owner_dead,
            )
        except SessionBusyError:
            if seat.on_busy is not OnBusy.WAIT:
                raise
        await seat.scope.interruptible(until_free(seat.session_id, desk=kit.desk, attempt=attempt))
        attempt += 1


async def last_send(seat: TurnSeat) -> SendRecord | None:
    """Return the last send of a session, or None before the first. Raises `session.not_found`."""
    sent = await seat.kit.store.get_send(seat.session_id)
    if sent is None:
        await seat.kit.store.get_session(seat.session_id)
    return sent


def never_began(seat: TurnSeat, status: SendStatus, reason: str) -> StatefulResult:
    """Announce and return the result of a turn that did not begin: nothing is stored of it."""
    result = StatefulResult(seat.session_id, 0, status, reason=reason)
    announce(seat, SendFinished(result))
    return result


def announce(seat: TurnSeat, payload: EventPayload) -> None:
    """Tell subscribers of a turn that has not begun."""
    with _listening(seat):
        seat.kit.bus.emit(payload, session_id=seat.session_id, agent_path=seat.path)


@contextlib.contextmanager
def _listening(seat: TurnSeat) -> Iterator[None]:
    """Let the seat's listener hear what is announced of its session: while its turn runs, that is this turn's alone."""
    if seat.listener is None:
        yield
        return
    subscription = seat.kit.bus.subscribe(
        seat.listener.events.put,
        session_id=seat.session_id,
        with_children=seat.listener.with_children,
        name="stream",
    )
    try:
        yield
    finally:
        subscription.unsubscribe()


def limit_time(seat: TurnSeat, options: SendOptions) -> None:
    """Let the time of a send run, from before it waits for anything."""
    limit_s = (options.limits or seat.kit.limits).max_seconds
    if limit_s is not None:
        seat.scope.stop_after(limit_s)


def budgeted(seat: TurnSeat, options: SendOptions, new: NewSend) -> tuple[SendOptions, NewSend]:
    """Return a send as it is stored with its budget, which is the handle's where it has none of its own: a resume, in
    whatever process, finds it there."""
    budget = options.budget or seat.kit.budget
    if budget is None:
        return options, new
    stored = {**new.options, "budget": budget.to_json()}
    return replace(options, budget=budget), replace(new, options=stored, budget=NewBudget(budget, options.payer))


async def open_purse(turn: Turn, options: SendOptions) -> None:
    """Let the budgets of a send pay for its turn, and their time run."""
    payer = options.budget_of(turn.session_id, turn.send_index)
    path = () if payer is None else await turn.kit.store.get_budget_path(payer)
    if not path:
        return
    turn.purse = Purse(path)
    if turn.purse.deadline_at_ms is not None:
        left_ms = turn.purse.deadline_at_ms - turn.kit.clock.now_ms()
        if left_ms <= 0:
            turn.scope.stop(StopCause.OUT_OF_TIME)
        else:
            turn.scope.stop_after(left_ms / 1000)


async def window_of(seat: TurnSeat, taken: Accepted, seq: int) -> tuple[Window, bool]:
    """Return the session's window, and whether it is the kept one, which stands before `seq`; else it is read."""
    kept = seat.windows.take(seat.session_id)
    if kept is not None and kept.is_current(seq, taken.version, epoch=taken.lease.epoch):
        return kept, True
    return Window.of(await _view(seat)), False


async def _view(seat: TurnSeat) -> SessionView:
    return await seat.kit.store.read_view(seat.session_id, projected=seat.kit.projection is not None)


def turn_of(seat: TurnSeat, taken: Accepted, window: Window, options: SendOptions, request_id: str | None) -> Turn:
    """Return the turn of a lease that was taken."""
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
    turn.next_input = taken.next_input
    turn.path, turn.agent, turn.agents = seat.path, seat.agent, seat.agents
    turn.is_awaited = seat.paid_by is not None
    if seat.payer is not None:
        turn.be_paid_by(seat.payer)
    if taken.previous_owner is not None:
        turn.announce(LeaseTaken(taken.previous_owner))
    return turn


def _offered(tools: ToolRegistry, names: tuple[str, ...]) -> ToolRegistry:
    """Return the tools of a send that are still registered; a call of one that is gone is answered with that."""
    return tools.subset([name for name in names if name in tools])


async def from_store(
    seat: TurnSeat, taken: Accepted, index: int, *, with_ended: bool = False, drives: bool = True
) -> Turn:
    """Return the turn of a send as the store has it.

    Raises `Rests` for one that does not run (any more); `with_ended`, one that has open calls all the same is given.
    One that nothing `drives` is given also where its options cannot be read, so that it can be given up.
    """
    seat.windows.take(seat.session_id)
    view = await _view(seat)
    send = view.send
    if send is not None and send.index != index:
        send = await seat.kit.store.get_send(seat.session_id, index=index)
    assert send is not None
    is_left = with_ended and bool(view.calls)
    if send.index != taken.send_index or not (send.status is SendStatus.RUNNING or is_left):
        raise Rests(send)
    try:
        options = SendOptions.from_json(send.options)
    except StoreCorruptError:
        if drives:
            raise
        options = SendOptions()
    turn = turn_of(seat, taken, Window.of(view), options, send.request_id)
    turn.go_on_from(send, view.calls)
    await open_purse(turn, options)
    turn.note_paid(await seat.kit.store.get_children_spending(seat.session_id, index))
    await turn.read_covered()
    return turn


async def at_rest(seat: TurnSeat, taken: Accepted) -> Turn:
    """Return a turn of a session as it stands, whose last send is not driven."""
    seat.windows.take(seat.session_id)
    view = await _view(seat)
    send, window = view.send, Window.of(view)
    if send is None:
        return turn_of(seat, taken, window, SendOptions(), None)
    turn = turn_of(seat, taken, window, SendOptions.from_json(send.options), send.request_id)
    if send.status in RESUMABLE_SENDS:
        turn.go_on_from(send, view.calls)
        await turn.read_covered()
    turn.round, turn.rest_status = send.rounds, send.status
    return turn


# ---- holding ----


async def hold(
    seat: TurnSeat,
    taken: Accepted,
    begin: Callable[[], Coroutine[Any, Any, Turn]],
    go_on: Callable[[Turn], Coroutine[Any, Any, T]],
) -> T:
    """Run a turn under its lease, and give back what it held, however it ends."""
    kit, scope, lease = seat.kit, seat.scope, taken.lease
    heartbeat = Heartbeat(kit.store, lease, kit.lease_ttl_s, scope)
    watcher = kit.desk.watcher()
    turn: Turn | None = None
    watched: Turn | None = None
    is_owner = True
    try:
        with _listening(seat):
            turn = watched = await begin()
            watcher.add(turn, kit.store)
            return await go_on(turn)
    except LeaseLostError:
        is_owner = False
        raise
    except asyncio.CancelledError:
        # Somebody cancels every task there is: settle what the store says, and let it be known.
        scope.stop_quietly()
        turn = None
        if not scope.is_background:
            with _listening(seat):
                await uninterrupted(_settle_cancelled(seat, taken))
        raise
    finally:
        if watched is not None:
            watcher.remove(watched)
            watched.end_payment()
        kit.desk.end(seat.session_id, scope)
        rests = turn is not None and turn.is_at_rest
        if turn is not None and rests:
            turn.window.epoch = lease.epoch
            seat.windows.put(turn.window)
        await heartbeat.stop()
        if is_owner and not rests:
            with contextlib.suppress(StoreError):
                await kit.store.release(lease, hands_back=scope.is_left or scope.is_handed_back)
        if turn is not None and turn.rest_status not in _NOT_BEHIND and await _has_next(turn):
            seat.on_waiting()
        await watcher.rest()


async def _has_next(turn: Turn) -> bool:
    """Tell whether something waits behind a turn that rests."""
    if turn.next_input is not NextInput.NONE or not turn.is_behind:
        return turn.next_input is not NextInput.NONE
    with contextlib.suppress(PowerLoopError):
        return bool(await turn.kit.store.get_inbox(turn.session_id, limit=1))
    return False


async def _settle_cancelled(seat: TurnSeat, taken: Accepted) -> None:
    try:
        # Whatever was on its way into the store when the cancellation came is there behind this.
        await seat.kit.store.renew(taken.lease, ttl_s=seat.kit.lease_ttl_s)
        turn = await from_store(seat, taken, taken.send_index)
        await abort(turn, SendStatus.CANCELLED, reason=seat.scope.reason)
    except (Rests, LeaseLostError):
        pass  # it had come to rest
    except Exception as error:
        _LOG.warning("session %s could not be settled after a cancellation: %s", seat.session_id, error)


async def join(work: Coroutine[Any, Any, T], scope: TurnScope) -> T:
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
