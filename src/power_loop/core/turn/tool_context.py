"""Is what a handler is given of its call."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from power_loop.contracts.agent_spec import AgentSpec
from power_loop.contracts.blackboard import BlackboardEntry
from power_loop.contracts.cancellation import CancellationToken
from power_loop.contracts.errors import InputError, ToolError
from power_loop.contracts.events import ToolCallProgressed
from power_loop.contracts.numbers import is_number
from power_loop.contracts.states import Effect
from power_loop.contracts.timers import TimerRecord
from power_loop.contracts.tools import InTransaction, SessionLog, ToolBody, ToolOutput
from power_loop.core.turn.session_log import TurnLog
from power_loop.core.turn.turn import OpenCall, Turn


class CallContext:
    """Satisfies `ToolContext` for one attempt of one call."""

    __slots__ = ("_agents", "_call", "_deadline_s", "_loop", "_thread", "_token", "_turn")

    def __init__(self, turn: Turn, call: OpenCall, *, deadline_s: float | None) -> None:
        self._turn = turn
        self._call = call
        self._deadline_s = deadline_s
        self._token = CancellationToken()
        self._agents = 0
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    @property
    def session_id(self) -> str:
        """The session of the call."""
        return self._turn.session_id

    @property
    def send_index(self) -> int:
        """The send of the call."""
        return self._turn.send_index

    @property
    def call_id(self) -> str:
        """The id that the model knows the call by."""
        return self._call.call_id

    @property
    def tool_name(self) -> str:
        """The name of the tool."""
        return self._call.name

    @property
    def idempotency_key(self) -> str:
        """The same over every retry and resume of this call."""
        return self._call.idempotency_key

    @property
    def attempt(self) -> int:
        """Counts from 1."""
        return self._call.attempt

    @property
    def deadline_s(self) -> float | None:
        """The monotonic second at which the call is ended, or None."""
        return self._deadline_s

    @property
    def cancellation(self) -> CancellationToken:
        """Is cancelled when the call should end: the turn was stopped, or its time is over."""
        return self._token

    @property
    def state(self) -> dict[str, Any]:
        """JSON values that last as long as the session."""
        return self._turn.tool_state

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The session's metadata."""
        return self._turn.metadata

    @property
    def log(self) -> SessionLog:
        """The session's log, to read in."""
        return TurnLog(self._turn)

    async def read_blackboard(
        self,
        *,
        keys: Sequence[str] | None = None,
        prefix: str = "",
        after: str | None = None,
        limit: int = 100,
    ) -> tuple[BlackboardEntry, ...]:
        """Return entries of the blackboard of the session's tree."""
        store = self._turn.kit.store
        return await store.read_entries(self._turn.session_id, keys=keys, prefix=prefix, after=after, limit=limit)

    async def read_timers(self, *, limit: int = 100) -> tuple[TimerRecord, ...]:
        """Return the armed timers of the session."""
        return (await self._turn.kit.store.list_timers(self._turn.session_id, limit=limit)).items

    def tx(self, body: ToolBody) -> InTransaction:
        """Return what a handler returns to have `body` run in the transaction that commits its call.

        Raises `tool.failed` where the tool's effect is `read`.
        """
        if self._call.effect is Effect.READ:
            raise ToolError(f"{self._call.name!r} has the effect 'read', so that it may not write: say another one")
        return InTransaction(body)

    @property
    def is_held(self) -> bool:
        """True while a sub-agent works for the call, which is waited for."""
        return self._agents > 0

    async def run_agent(self, spec: AgentSpec, input: str, *, session_id: str | None = None) -> ToolOutput:
        """Give `input` to a sub-agent and return what it comes to.

        Raises `agent.not_granted`, `agent.limit`, `tool.failed` where the tool is not `idempotent`, where a hook vetoes
        it and outside of a loop.
        """
        turn, call = self._turn, self._call
        if call.effect is not Effect.IDEMPOTENT:
            raise ToolError(
                f"{call.name!r} has the effect {call.effect.value!r}, and a call that waits for a sub-agent runs again"
                " after a crash to find it: say effect='idempotent'"
            )
        if turn.agents is None:
            raise ToolError(f"{call.name!r} runs outside of a loop, where no sub-agent can be run")
        self._agents += 1
        try:
            return await turn.agents.run(turn, call, spec, input, session_id, stopped=self._token)
        finally:
            self._agents -= 1

    def progress(self, message: str, *, fraction: float | None = None) -> None:
        """Tell subscribers how far the call is; may be called from any thread. Raises `input.invalid`."""
        _check_progress(message, fraction)
        fraction = None if fraction is None else min(max(float(fraction), 0.0), 1.0)
        payload = ToolCallProgressed(self._call.call_id, self._call.name, message, fraction)
        if threading.get_ident() == self._thread:
            self._turn.announce(payload)
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._turn.announce, payload)


def _check_progress(message: Any, fraction: Any) -> None:
    if not isinstance(message, str):
        raise InputError(f"progress() was told {message!r:.200}: give text")
    if fraction is not None and not is_number(fraction):
        raise InputError(f"progress() was told fraction={fraction!r:.200}: give a number from 0.0 to 1.0, or None")
