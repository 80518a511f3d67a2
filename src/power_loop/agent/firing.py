"""Delivers a timer that was claimed: asks the hooks, then brings its input to the inbox, or wakes a workflow's run."""

from __future__ import annotations

import asyncio
import logging
from typing import cast

from power_loop.contracts.errors import PowerLoopError, SessionNotFoundError, StoreError
from power_loop.contracts.events import (
    EventPayload,
    InputQueued,
    TimerEnded,
    TimerFailed,
    TimerFired,
    TimerPostponed,
    TimerSkipped,
)
from power_loop.contracts.hooks import HookPoint, Postpone, Rewrite, TimerFireContext, Veto
from power_loop.contracts.messages import ContentPart, Message, Role
from power_loop.contracts.ports import SessionStore
from power_loop.contracts.schedules import is_missed
from power_loop.contracts.timers import TimerClaim, TimerDelivery
from power_loop.core.bus import AgentEventBus
from power_loop.core.hooks import Hooks
from power_loop.core.turn.chain import start
from power_loop.core.turn.fingerprint import fingerprint

_LOG = logging.getLogger("power_loop")

#: How long a claim lasts, and what a hook has of it, in seconds.
CLAIM_TTL_S = 60.0
HOOK_TIMEOUT_S = 30.0
#: How long a firing that failed waits: 1 second, twice as long each time, and no longer than this, in seconds.
MAX_BACKOFF_S = 300.0
_MAX_DOUBLINGS = 10


class Firing:
    """Delivers claimed timers with the hooks and the bus of a handle."""

    def __init__(self, hooks: Hooks, bus: AgentEventBus, *, hook_timeout_s: float = HOOK_TIMEOUT_S) -> None:
        self._hooks = hooks
        self._bus = bus
        self._hook_timeout_s = hook_timeout_s

    async def fire(self, store: SessionStore, claim: TimerClaim) -> TimerDelivery | None:
        """Deliver a claimed firing, whatever the hooks and the database do; what was delivered, if it was."""
        try:
            try:
                return await self._deliver(store, claim)
            except StoreError:
                raise
            except (PowerLoopError, asyncio.TimeoutError) as error:
                await self._failed(store, claim, error)
        except SessionNotFoundError:
            _LOG.debug("timer %s is gone with its session", claim.timer.id)
        except StoreError as error:
            # Its claim runs out, and it comes again then.
            _LOG.warning("timer %s was not delivered and is tried again: %s", claim.timer.id, error)
        return None

    async def _deliver(self, store: SessionStore, claim: TimerClaim) -> TimerDelivery | None:
        timer, late_s = claim.timer, _late_s(claim)
        assert timer.due_at_ms is not None
        if is_missed(timer.schedule, timer.due_at_ms, claim.at_ms):
            await self._skip(store, claim, f"it came {late_s:.0f} seconds late", is_veto=False)
            return None
        content = cast("tuple[ContentPart, ...]", timer.message.parts)
        session = await store.get_session(timer.session_id) if self._hooks.has(HookPoint.TIMER_FIRE) else None
        # What wakes a run is the workflow's own, and brings no input about which anybody could be asked.
        if session is not None and not (timer.is_of_a_run and session.agent is not None):
            context = TimerFireContext(timer.session_id, 0, 0, session.metadata, timer, content, late_s)
            decision = await asyncio.wait_for(start(self._hooks.ask(context)), self._hook_timeout_s)
            if isinstance(decision, Veto):
                await self._skip(store, claim, decision.reason, is_veto=True)
                return None
            if isinstance(decision, Postpone):
                put_back = await store.put_back_timer(claim, after_s=decision.seconds, error=None)
                if put_back is not None and put_back.due_at_ms is not None:
                    self._announce(claim, TimerPostponed(timer.id, timer.number, put_back.due_at_ms))
                return None
            if isinstance(decision, Rewrite):
                content = cast("tuple[ContentPart, ...]", decision.content)
        message = Message(Role.USER, content)
        delivery = await store.deliver_timer(claim, message, input_hash=fingerprint(content))
        if delivery is None:
            return None
        if delivery.input is not None:
            position = delivery.input.position
            self._announce(claim, InputQueued(position, timer.request_id))
            self._announce(claim, TimerFired(timer.id, timer.number, position, late_s, delivery.timer.due_at_ms))
        elif delivery.woke_run or timer.is_of_a_run:
            self._announce(claim, TimerFired(timer.id, timer.number, 0, late_s, delivery.timer.due_at_ms))
        else:
            self._announce(claim, TimerEnded(timer.id))
        return delivery

    async def _skip(self, store: SessionStore, claim: TimerClaim, reason: str, *, is_veto: bool) -> None:
        moved = await store.drop_timer(claim, is_veto=is_veto)
        if moved is not None:
            self._announce(claim, TimerSkipped(moved.id, claim.timer.number, reason, moved.due_at_ms))

    async def _failed(self, store: SessionStore, claim: TimerClaim, error: Exception) -> None:
        is_slow_hook = isinstance(error, asyncio.TimeoutError)
        said = f"a hook took longer than {self._hook_timeout_s:g} s" if is_slow_hook else str(error)
        after_s = min(2.0 ** min(claim.timer.failures, _MAX_DOUBLINGS), MAX_BACKOFF_S)
        put_back = await store.put_back_timer(claim, after_s=after_s, error=said)
        if put_back is not None:
            failed = TimerFailed(put_back.id, put_back.number, put_back.failures, after_s, said)
            self._announce(claim, failed)

    def _announce(self, claim: TimerClaim, payload: EventPayload) -> None:
        self._bus.emit(payload, session_id=claim.timer.session_id)


def wakes(delivery: TimerDelivery) -> bool:
    """Tell whether somebody has to drive what a delivery woke: no turn runs that will see it."""
    return delivery.woke_run or (delivery.input is not None and not delivery.is_turn_running)


def _late_s(claim: TimerClaim) -> float:
    due_ms = claim.timer.due_at_ms
    return 0.0 if due_ms is None else max(claim.at_ms - due_ms, 0) / 1000
