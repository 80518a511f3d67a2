"""Is the seam for what stands above a handle: whoever drives sessions that are no conversations, such as workflows."""

from __future__ import annotations

import asyncio
from typing import Protocol

from power_loop.contracts.errors import RunSessionError
from power_loop.contracts.results import StatefulResult
from power_loop.core.turn.scope import TurnScope


class RunDriver(Protocol):
    """Drives the runs of workflows for a handle that was given it."""

    async def go_on(self, run_id: str, scope: TurnScope) -> StatefulResult | None:
        """Go on with a run whose process died, and return how its send rests; None if there is nothing to do.

        Raises `session.busy` where somebody else drives it.
        """
        ...

    def start(self, run_id: str) -> asyncio.Task[None]:
        """See to it that a run is driven in the background; return the task that does it. What goes wrong in it is told
        by its events."""
        ...

    async def end(self, run_id: str, reason: str, scope: TurnScope, *, epoch: int) -> bool:
        """End a run as cancelled whose process died; False if it is over, or if somebody drives it since the lease had
        this epoch."""
        ...


def no_conversation(run_id: str) -> RunSessionError:
    """Return the error for somebody who talks to a run."""
    return RunSessionError(
        f"session {run_id!r} is a workflow's run, and no conversation: power_loop.workflow.resume_run() goes on with"
        " it, signal_run() tells it something, cancel() stops it",
        session_id=run_id,
    )


def not_driven(run_id: str) -> RunSessionError:
    """Return the error for a run that this handle cannot drive."""
    return RunSessionError(
        f"run {run_id!r} is left by its process, and this handle was not told who drives workflows: call"
        " power_loop.workflow.drive_runs(loop), or resume_run()",
        session_id=run_id,
    )
