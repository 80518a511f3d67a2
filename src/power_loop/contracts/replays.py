"""Says what a replay found: whether today's code asks a model what it was asked when a session was recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from power_loop.contracts.frozen import frozen
from power_loop.contracts.llm import LLMRequest


@frozen
class ReplayDifference:
    """Is where today's code parts from what was recorded.

    `call` is the seq of the reply that was recorded for the call, None where the send did not end as it had. `lines`
    say what differs.
    """

    send_index: int
    call: int | None
    lines: tuple[str, ...]

    def __str__(self) -> str:
        where = f"send {self.send_index}" if self.call is None else f"call {self.call} (send {self.send_index})"
        return f"{where} differs:" + "".join(f"\n- {line}" for line in self.lines)


@frozen
class Replayed:
    """Is what came of a replay: `calls` model calls were asked what they had been asked, up to the first `difference`.

    `unchecked` says what could not be compared, because the store does not keep it. `requests` are what today's code
    asks, by the seq of the recorded reply, the differing one included.
    """

    session_id: str
    calls: int
    difference: ReplayDifference | None = None
    unchecked: tuple[str, ...] = ()
    requests: Mapping[int, LLMRequest] = field(default_factory=dict, compare=False, repr=False)

    @property
    def is_same(self) -> bool:
        """True if nothing that was compared differs."""
        return self.difference is None

    def raise_for_difference(self) -> None:
        """Raise an AssertionError that says what differs, if anything does."""
        if self.difference is not None:
            raise AssertionError(str(self))

    def __str__(self) -> str:
        head = f"session {self.session_id!r}: {self.calls} model call{'' if self.calls == 1 else 's'} asked the same"
        found = [] if self.difference is None else [str(self.difference)]
        return "\n".join([head, *found, *(f"not compared: {one}" for one in self.unchecked)])
