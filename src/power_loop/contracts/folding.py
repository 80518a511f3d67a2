"""What a fold strategy is given and what it gives back: a summary that stands for the older part of a conversation."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from power_loop.contracts.frozen import frozen
from power_loop.contracts.llm import LLMService, Usage
from power_loop.contracts.messages import Message


@frozen
class FoldTask:
    """Is what is to be folded.

    `messages` is a valid transcript of what the model saw of the part that goes: the summary of the fold before (if
    `previous_summary` is not None, its first message shows it) and the messages from `from_seq` to `to_seq`; no reply
    in it is split from its results. What is `pinned` stays in the window as it is. The summary should take at most
    `max_summary_tokens`. `llm` is the loop's model, `metadata` the session's. `tool_state` is the session's dict for
    tools: a strategy that changes it returns its own in `Folded.tool_state`. `tell` reports progress in words.
    """

    session_id: str
    messages: tuple[Message, ...]
    from_seq: int
    to_seq: int
    max_summary_tokens: int
    llm: LLMService
    previous_summary: str | None = None
    pinned: tuple[Message, ...] = ()
    metadata: Mapping[str, Any] | None = None
    tool_state: Mapping[str, Any] | None = None
    tell: Callable[[str], None] | None = None
    with_retries: Callable[[LLMService], LLMService] | None = None


@frozen
class Folded:
    """Is what a strategy made of a task.

    `summary` is plain text. `usage`, `model_calls` and `model` say what it took; a strategy that asks no model leaves
    them. `tool_state`, if not None, replaces the session's dict for tools in the transaction that stores the fold.
    """

    summary: str
    usage: Usage | None = None
    model_calls: int = 0
    model: str | None = None
    tool_state: Mapping[str, Any] | None = None


class FoldStrategy(Protocol):
    """Makes summaries. Anything that it raises means: not now; the turn goes on with what fits."""

    def fold(self, task: FoldTask) -> Awaitable[Folded]:
        """Return the summary of a task; it may be cancelled at any await."""
        ...
