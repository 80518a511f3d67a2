"""Makes turns of what waits in inboxes, in the background, one after the other."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from power_loop.agent.in_flight import InFlight
from power_loop.contracts.errors import (
    LeaseLostError,
    OutputError,
    PowerLoopError,
    SessionBusyError,
    SessionClosedError,
    SessionNotFoundError,
    SessionPendingError,
)
from power_loop.contracts.results import StatefulResult
from power_loop.contracts.states import SendStatus

_LOG = logging.getLogger("power_loop")

#: Makes a turn of what waits first in a session's inbox; None if nothing does.
NextTurn = Callable[[str], Coroutine[Any, Any, StatefulResult | None]]

# Somebody else drives the session on, or it takes nothing before a person answered.
_LEFT_TO_OTHERS = (SessionBusyError, SessionPendingError, SessionClosedError, SessionNotFoundError, LeaseLostError)


class InboxDriver:
    """Drives the inboxes of one handle: one task a session and event loop, counted among what is in flight.

    A turn that fails ends its task, and what is left waits for the next send, follow-up or recovery: a model that is
    down is not asked on and on. Its error is told of by the events of the turn.
    """

    __slots__ = ("_again", "_is_closed", "_next_turn", "_tasks", "_work")

    def __init__(self, work: InFlight, next_turn: NextTurn, is_closed: Callable[[], bool]) -> None:
        self._work = work
        self._next_turn = next_turn
        self._is_closed = is_closed
        self._tasks: dict[tuple[int, str], asyncio.Task[Exception | None]] = {}
        # Sessions of which somebody said again that something waits there.
        self._again: set[tuple[int, str]] = set()

    def start(self, session_id: str) -> asyncio.Task[Exception | None]:
        """See to it that a session's inbox is driven; return the task that does it."""
        loop = asyncio.get_running_loop()
        key = (id(loop), session_id)
        task = self._tasks.get(key)
        if task is not None and not task.done():
            self._again.add(key)
            return task
        in_flight = contextlib.ExitStack()
        in_flight.enter_context(self._work.turn())
        # In a context of its own: it is nothing that the turn waits for which happens to start it.
        task = contextvars.Context().run(loop.create_task, self._drive(key))
        task.add_done_callback(lambda _: in_flight.close())
        self._tasks[key] = task
        return task

    async def drive(self, session_id: str) -> Exception | None:
        """Drive a session's inbox until nothing waits there that could be driven; return what ended it before, if
        anything did."""
        return await asyncio.shield(self.start(session_id))

    async def _drive(self, key: tuple[int, str]) -> Exception | None:
        session_id = key[1]
        try:
            while True:
                self._again.discard(key)
                has_more, error = await self._one(session_id)
                if self._is_closed() or not (has_more or key in self._again):
                    return error
        finally:
            # At once, so that whoever comes now begins anew.
            self._again.discard(key)
            self._tasks.pop(key, None)

    async def _one(self, session_id: str) -> tuple[bool, Exception | None]:
        """Make one turn; tell whether there may be another, and what went wrong."""
        try:
            result = await self._next_turn(session_id)
        except OutputError:
            return True, None
        except _LEFT_TO_OTHERS as error:
            return False, error
        except PowerLoopError as error:
            _LOG.debug("the inbox of session %s was not driven on: %s", session_id, error)
            return False, error
        except Exception as error:  # a stranger's code inside of the turn
            _LOG.warning("the inbox of session %s was not driven on: %r", session_id, error)
            return False, error
        return result is not None and result.status is not SendStatus.WAITING_FOR_INPUT, None
