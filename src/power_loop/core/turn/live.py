"""Gathers what stands behind the messages of every request of a turn: what was remembered, notes, todo, live state."""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType

from power_loop.contracts.events import LiveStateFailed
from power_loop.contracts.live import LiveContext, LiveState
from power_loop.core.context.assemble import LiveText
from power_loop.core.context.live import shown
from power_loop.core.stray import said
from power_loop.core.turn.turn import Turn


def live_texts(turn: Turn) -> tuple[LiveText, ...]:
    """Return the live texts as they stand, in the order in which a request has them."""
    context = LiveContext(
        turn.session_id, turn.send_index, turn.round, turn.metadata, MappingProxyType(turn.tool_state)
    )
    live = shown(_states(turn), context, lambda name, error: _failed(turn, name, error))
    return (*((turn.recalled,) if turn.recalled is not None else ()), *live)


def _states(turn: Turn) -> Iterator[LiveState]:
    """Give the live states of the tools that are offered, then those of the handle."""
    for name in turn.tools.names:
        prepared = turn.tools.prepared(name)
        if prepared is not None and prepared.definition.live is not None:
            yield prepared.definition.live
    yield from turn.kit.live


def _failed(turn: Turn, name: str, error: BaseException) -> None:
    """Announce a failure, once a turn as long as it stays the same."""
    message = said(error)
    if turn.live_failures.get(name) != message:
        turn.live_failures[name] = message
        turn.announce(LiveStateFailed(name, message))
