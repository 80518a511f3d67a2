"""Says how a conversation is kept within what a model takes: when it is folded, how finished sends are shown, and how
much of memory goes along."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from power_loop.contracts.errors import ConfigError
from power_loop.contracts.folding import FoldStrategy
from power_loop.contracts.frozen import frozen
from power_loop.contracts.numbers import is_number, is_whole


@frozen
class Compaction:
    """Is when and how the older part of a conversation is folded into a summary.

    A fold is due when the prompt would take more than `trigger` of the room that the model's context window leaves
    beside its output cap (default 0.8); what stays as it is takes at most `keep` of that room (default 0.3).
    `strategy` makes the summary (default: `LLMSummaryFold()` with the loop's own model), of at most
    `max_summary_tokens` tokens (default 2,000, and at most a quarter of the room), within `timeout_s` seconds (default
    120). With `offers_recall`, a model whose conversation was folded gets the tool `recall_compacted` (default).
    """

    strategy: FoldStrategy | None = None
    trigger: float = 0.8
    keep: float = 0.3
    max_summary_tokens: int = 2_000
    timeout_s: float = 120.0
    offers_recall: bool = True

    def __post_init__(self) -> None:
        _check(self, "trigger", _is_share, "a number above 0 and at most 1")
        _check(
            self,
            "keep",
            lambda value: _is_share(value) and value < self.trigger,
            "a number above 0 and below the trigger",
        )
        _check(self, "max_summary_tokens", lambda value: is_whole(value, least=50), "at least 50 tokens")
        _check(self, "timeout_s", _is_seconds, "seconds above 0")
        strategy: Any = self.strategy
        if strategy is not None and (isinstance(strategy, type) or not callable(getattr(strategy, "fold", None))):
            raise ConfigError(f"strategy is {self.strategy!r:.200}: give an object with `async def fold(task)`")


@frozen
class Projection:
    """Is how finished sends are shown: as terse plain text, in which the user's own words are never cut.

    Arguments and results of tools whose definition has no `project` of its own are cut to `max_arguments_chars` and
    `max_result_chars` characters (default 200 and 400). With `offers_recall`, a model that is shown such a send gets
    the tool `recall_send` (default).
    """

    max_arguments_chars: int = 200
    max_result_chars: int = 400
    offers_recall: bool = True

    def __post_init__(self) -> None:
        for name in ("max_arguments_chars", "max_result_chars"):
            _check(self, name, is_whole, "a whole number of at least 0")


@frozen
class MemoryUse:
    """Is how much of a `MemoryProvider` goes into a send: at most `max_tokens` tokens (default 1,000) of what it
    recalls within `timeout_s` seconds (default 10), which it also has to remember."""

    max_tokens: int = 1_000
    timeout_s: float = 10.0

    def __post_init__(self) -> None:
        _check(self, "max_tokens", lambda value: is_whole(value, least=1), "a whole number of at least 1")
        _check(self, "timeout_s", _is_seconds, "seconds above 0")


def _check(settings: Any, name: str, is_valid: Callable[[Any], bool], wanted: str) -> None:
    value = getattr(settings, name)
    if not is_valid(value):
        raise ConfigError(f"{name} is {value!r:.200}: give {wanted}")


def _is_share(value: Any) -> bool:
    return is_number(value, above=0, most=1)


def _is_seconds(value: Any) -> bool:
    return is_number(value, above=0)
