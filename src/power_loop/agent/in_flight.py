"""Counts the turns of a handle that run, in whatever thread, so that closing can wait for them."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator

from power_loop.core.background import resolve_from_any_thread


class InFlight:
    """Is the turns of one handle that run, and who waits for their end."""

    __slots__ = ("_pid", "_turns", "_waiting")

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._turns: set[object] = set()
        self._waiting: set[asyncio.Future[None]] = set()

    def __bool__(self) -> bool:
        return bool(self._turns)

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Count a turn for as long as the block lasts."""
        self._look_where_we_are()
        turn = object()
        self._turns.add(turn)
        try:
            yield
        finally:
            self._turns.discard(turn)
            if not self._turns:
                for one in tuple(self._waiting):
                    resolve_from_any_thread(one)

    async def ended(self) -> None:
        """Wait until no turn runs."""
        self._look_where_we_are()
        while self._turns:
            idle = asyncio.get_running_loop().create_future()
            self._waiting.add(idle)
            try:
                # The last turn may have ended, in another thread, before anybody waited.
                if self._turns:
                    await idle
            finally:
                self._waiting.discard(idle)

    def _look_where_we_are(self) -> None:
        """Forget, in a forked child, the turns that run in the parent."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._turns.clear()
            self._waiting.clear()
