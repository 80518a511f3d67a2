"""Is what a handler is given of its call."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Mapping
from typing import Any

from power_loop.contracts.cancellation import CancellationToken
from power_loop.contracts.errors import InputError
from power_loop.contracts.events import ToolCallProgressed
from power_loop.core.turn.turn import OpenCall, Turn


class CallContext:
    """Satisfies `ToolContext` for one attempt of one call."""

    __slots__ = ("_call", "_deadline_s", "_loop", "_thread", "_token", "_turn")

    def __init__(self, turn: Turn, call: OpenCall, *, deadline_s: float | None) -> None:
        self._turn = turn
        self._call = call
        self._deadline_s = deadline_s
        self._token = CancellationToken()
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
        return self._turn.window.metadata

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
    is_number = isinstance(fraction, (int, float)) and not isinstance(fraction, bool) and not math.isnan(fraction)
    if fraction is not None and not is_number:
        raise InputError(f"progress() was told fraction={fraction!r:.200}: give a number from 0.0 to 1.0, or None")
