"""What remembers beyond one session: asked once before a send's first model call, told once at its end."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Protocol

from power_loop.contracts.frozen import frozen
from power_loop.contracts.messages import Message
from power_loop.contracts.states import SendStatus


@frozen
class Memory:
    """Is one thing that is remembered: its `text`, and where it came from as far as that is known.

    `id` names it within its namespace, `score` is how well it fits the question (higher is better; comparable within
    one answer only), `created_at_ms` is in epoch milliseconds.
    """

    text: str
    id: str | None = None
    score: float | None = None
    created_at_ms: int | None = None
    session_id: str | None = None
    metadata: Mapping[str, Any] | None = None


@frozen
class RecallQuery:
    """Is what a provider is asked before a send: the input as `text` and as a message, and the session that it is for.

    What comes back should take at most `max_tokens`; what is more is cut.
    """

    session_id: str
    send_index: int
    text: str
    message: Message
    metadata: Mapping[str, Any]
    max_tokens: int


@frozen
class Exchange:
    """Is a send that came to rest, for a provider to remember what it likes: its messages in order, as far as the
    window still holds them, and its last text."""

    session_id: str
    send_index: int
    status: SendStatus
    input_text: str
    final_text: str
    messages: tuple[Message, ...]
    metadata: Mapping[str, Any]


class MemoryProvider(Protocol):
    """Remembers across sessions. What it raises, or does not finish in time, is an event and ends nothing."""

    def recall(self, query: RecallQuery) -> Awaitable[Sequence[Memory]]:
        """Return what fits a send, best first; asked once a send."""
        ...

    def remember(self, exchange: Exchange) -> Awaitable[None]:
        """Take in a send that came to rest; called once a send, behind the transaction that ended it."""
        ...
