"""What a model is shown behind all messages, because it may change from call to call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from power_loop.contracts.errors import ConfigError
from power_loop.contracts.explanation import SegmentKind
from power_loop.contracts.frozen import frozen

#: How long the name of a live state and what it shows may be, in characters; what is longer is cut.
MAX_NAME_CHARS = 64
MAX_LIVE_CHARS = 32_000


@frozen
class LiveContext:
    """Is what a live state may look at: the session with its metadata, the call that is about to be made, and the
    `state` that tools keep. It changes none of it."""

    session_id: str
    send_index: int
    round: int
    metadata: Mapping[str, Any]
    state: Mapping[str, Any]


@frozen
class LiveState:
    """Is something that a model sees as it is at each call, such as notes or the time.

    `show` is called for every model call, in the event loop: it gives text, or None where there is nothing to show, and
    waits for nobody. It stands behind all messages, so that the start of the prompt stays as it is and a provider finds
    it in its cache; it is stored nowhere. What `show` raises is an event, and the call goes on without it. `name` tells
    it from others; of two with the same name the first is shown.
    """

    name: str
    show: Callable[[LiveContext], str | None]
    kind: SegmentKind = SegmentKind.LIVE

    def __post_init__(self) -> None:
        name: Any = self.name
        if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME_CHARS:
            raise ConfigError(f"name is {name!r:.200}: give 1 to {MAX_NAME_CHARS} characters")
        if not callable(self.show):
            raise ConfigError(f"show is {self.show!r:.200}: give a function of a LiveContext that returns text or None")
