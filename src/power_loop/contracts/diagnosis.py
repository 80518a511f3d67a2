"""What a look at a store's rows finds: what waits, what is unknown, and what is damaged."""

from __future__ import annotations

from enum import Enum

from power_loop.contracts.frozen import frozen


class FindingKind(str, Enum):
    """Is what a finding is; the first two are no damage."""

    PENDING = "pending"  # it waits for an answer, or for its turn
    UNKNOWN = "unknown"  # an effect of which nobody knows whether it happened; the model was told so
    STALLED = "stalled"  # a turn that nobody drives: recover() or resume() goes on with it
    ORPHANED = "orphaned"  # a row without the row that it belongs to
    INCONSISTENT = "inconsistent"  # rows that contradict each other, or that cannot be read


@frozen
class Finding:
    """Is one thing that was found.

    `check` is the frozen word for it, such as "log.gap"; `session_id` where it stands, `message` what it is. `repair`
    says what a repair does about it, or did; None where nothing can be done without inventing facts. `is_repaired` is
    set where that was done.
    """

    kind: FindingKind
    check: str
    session_id: str
    message: str
    repair: str | None = None
    is_repaired: bool = False

    @property
    def is_problem(self) -> bool:
        """True unless it is only worth knowing."""
        return self.kind not in (FindingKind.PENDING, FindingKind.UNKNOWN)
