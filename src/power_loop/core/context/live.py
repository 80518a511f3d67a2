"""Asks live states what they show, and keeps each within its limits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from power_loop.contracts.live import MAX_LIVE_CHARS, LiveContext, LiveState
from power_loop.contracts.messages import clean_text
from power_loop.core.context import texts
from power_loop.core.context.assemble import LiveText
from power_loop.core.stray import EXITS


def shown(
    states: Iterable[LiveState], context: LiveContext, on_error: Callable[[str, BaseException], None]
) -> Iterator[LiveText]:
    """Give what live states show, in their order; `on_error` is told of each that raised or gave no text, by name."""
    seen: set[str] = set()
    for state in states:
        if state.name in seen:
            continue
        seen.add(state.name)
        try:
            text = _text(state, context)
        except EXITS:
            raise
        except BaseException as error:  # an application's own function
            on_error(state.name, error)
            continue
        if text:
            yield LiveText(state.kind, text, state.name)


def _text(state: LiveState, context: LiveContext) -> str:
    text = state.show(context)
    if text is None:
        return ""
    if not isinstance(text, str):
        raise TypeError(f"live state {state.name!r} gave a {type(text).__name__}: give text, or None for nothing")
    text = clean_text(text).strip()
    return text if len(text) <= MAX_LIVE_CHARS else texts.live_cut(text[:MAX_LIVE_CHARS], chars=len(text))
