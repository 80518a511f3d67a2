"""Asks a memory provider before a send's first model call, and tells it of the send behind its end."""

from __future__ import annotations

from typing import Any

from power_loop.contracts.events import MemoryFailed, MemoryRecalled
from power_loop.contracts.explanation import SegmentKind
from power_loop.contracts.memory import Exchange, Memory, MemoryProvider, RecallQuery
from power_loop.contracts.states import RESUMABLE_SENDS, SendStatus
from power_loop.core.context.assemble import LiveText
from power_loop.core.context.memory import framed
from power_loop.core.stray import EXITS, said
from power_loop.core.turn.scope import StrayExit, TookTooLong, TurnStopped
from power_loop.core.turn.turn import Turn


async def recall(turn: Turn) -> None:
    """Ask the provider about the turn's input, unless it was asked already; what it gives goes with every request of
    the turn.

    A failure of the provider is announced and ends nothing. Raises `TurnStopped`.
    """
    provider, use, message = turn.kit.memory, turn.kit.memory_use, turn.input
    if provider is None or turn.has_recalled or message is None:
        return
    query = RecallQuery(
        turn.session_id, turn.send_index, message.text, message, turn.metadata, max_tokens=use.max_tokens
    )
    try:
        given = await turn.scope.interruptible(_recalled(provider, query), within_s=use.timeout_s)
        found = framed(given, max_tokens=use.max_tokens)
    except TurnStopped:
        raise
    except TookTooLong:
        _failed(turn, "recall", f"it took longer than {use.timeout_s:g} s")
    except StrayExit as error:
        _failed(turn, "recall", str(error))
    except Exception as error:  # a user's own provider may raise anything
        _failed(turn, "recall", said(error))
    else:
        if found.text is not None:
            turn.recalled = LiveText(SegmentKind.MEMORY, found.text)
        turn.announce(MemoryRecalled(found.memories, found.tokens, found.left_out))
    turn.has_recalled = True


def exchange_of(turn: Turn, status: SendStatus) -> Exchange | None:
    """Return what a provider is told of a send that came to rest for good, as the window shows it then; None where
    nobody is told."""
    if turn.kit.memory is None or status in RESUMABLE_SENDS:
        return None
    return Exchange(
        turn.session_id,
        turn.send_index,
        status,
        "" if turn.input is None else turn.input.text,
        turn.final_text,
        tuple([message for _, message in turn.window.messages_since(turn.first_seq)]),
        turn.metadata,
    )


async def remember(turn: Turn, exchange: Exchange | None) -> None:
    """Tell the provider of a send that came to rest; a failure is announced.

    The send is in the store and its result announced when this begins, and its caller gets the result when it ends: so
    whoever sends again knows that the provider was told. It has `MemoryUse.timeout_s` seconds, and a moment if the turn
    was stopped.
    """
    provider, within_s = turn.kit.memory, turn.kit.memory_use.timeout_s
    if provider is None or exchange is None:
        return
    try:
        await turn.scope.patiently(_remembered(provider, exchange), within_s=within_s)
    except EXITS:
        raise
    except BaseException as error:  # a user's own provider may raise anything; the turn's cancellations its scope hears
        _failed(turn, "remember", said(error))


async def _recalled(provider: MemoryProvider, query: RecallQuery) -> list[Memory]:
    # A call that raises at once is no different from one that raises later.
    given: Any = await provider.recall(query)
    return given  # type: ignore[no-any-return]


async def _remembered(provider: MemoryProvider, exchange: Exchange) -> None:
    await provider.remember(exchange)


def _failed(turn: Turn, step: str, message: str) -> None:
    turn.announce(MemoryFailed(step, message[:_MAX_MESSAGE_CHARS]))


_MAX_MESSAGE_CHARS = 2_000
