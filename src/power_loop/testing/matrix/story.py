"""Is what one process of a history leaves behind."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from typing import Any

from power_loop.testing.matrix.moves import Move

#: How a process ends that a SIGKILL ended.
KILLED = -signal.SIGKILL


@dataclass
class LifeStory:
    """Is what one process left: how it ended, the points that it passed, and what it wrote down.

    `moves` are those of a process that was watched.
    """

    pid: int
    way: str
    end: dict[str, int]
    points: list[str]
    left: dict[str, Any]
    trouble: str = ""
    moves: list[Move] = field(default_factory=list)

    @property
    def is_killed(self) -> bool:
        """Tell whether a SIGKILL ended it."""
        return self.end.get("exit") == KILLED

    @property
    def error(self) -> str | None:
        """The code of the error that its act gave."""
        outcome = self.left.get("outcome")
        return outcome.get("error") if isinstance(outcome, dict) else None
