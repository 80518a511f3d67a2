"""Holds what a call may take of a turn's budgets before it is made, and settles what it came to."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import replace

from power_loop.contracts.budgets import Amounts, Granted, ModelPrice, NewHold, Shortage
from power_loop.contracts.errors import PriceMissingError
from power_loop.contracts.events import BudgetExceeded
from power_loop.contracts.llm import LLMRequest, ModelInfo, Usage
from power_loop.contracts.states import SendStatus
from power_loop.core.context.room import calibration
from power_loop.core.turn.purse import Hold, Purse
from power_loop.core.turn.scope import uninterrupted
from power_loop.core.turn.turn import Turn

#: A reply that is cut to fewer tokens than these, because a budget has no more, is not asked for.
USEFUL_OUTPUT_TOKENS = 256
# How long a call waits between two looks whether others gave back what it lacks, at first and at most.
_FIRST_WAIT_S, _LAST_WAIT_S = 0.05, 1.0

_STATUS_OF = {"max_tokens": SendStatus.TOKENS_EXCEEDED, "max_cost": SendStatus.COST_EXCEEDED}


class OutOfBudget(Exception):  # noqa: N818  (a signal of the loop to itself, not an error)
    """Says that a budget does not pay for a model call, with which status a send ends by it, and why."""

    def __init__(self, status: SendStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def price_of(turn: Turn, info: ModelInfo) -> ModelPrice | None:
    """Return what a model costs, if that is known. Raises `config.no_price` where a budget has to know."""
    price = None if turn.kit.prices is None else turn.kit.prices.price_of(info)
    if price is None and turn.purse is not None and turn.purse.has_cost_limit and turn.kit.pays_model:
        raise no_price(info)
    return price


def no_price(info: ModelInfo) -> PriceMissingError:
    """Return the error for a model that a budget of money cannot pay for."""
    return PriceMissingError(
        f"a budget with max_cost pays for the model {info.model!r}, and LoopConfig.prices does not say what it costs:"
        f" add {info.model!r}: ModelPrice(input=..., output=...) to the PriceTable",
        model=info.model,
    )


async def hold_call(
    turn: Turn, request: LLMRequest, *, tokens: int, info: ModelInfo, is_inside: bool = False
) -> tuple[Hold | None, LLMRequest]:
    """Hold what a model call may take, about `tokens` of them its prompt; return the hold and the request with the cap
    that is paid for. Where other sessions hold what is missing, wait for them.

    `is_inside` tells that the turn awaits this inside of a stranger's work. Raises `OutOfBudget`, `TurnStopped`,
    `config.no_price`.
    """
    purse = turn.purse
    if purse is None or not turn.kit.pays_model:
        return None, request
    price = price_of(turn, info)
    cap = request.max_output_tokens or info.max_output_tokens
    wish = NewHold(
        purse.next_number(),
        purse.payers,
        # What the provider counted for the last prompt tells how far off the estimate is.
        input_tokens=max(math.ceil(tokens * max(calibration(turn.window, info), 1.0)), 1),
        output_tokens=cap,
        least_output_tokens=min(cap, USEFUL_OUTPUT_TOKENS),
        input_rate=0 if price is None else price.input_rate,
        output_rate=0 if price is None else price.output_rate,
    )
    wait = _plainly if is_inside else turn.scope.interruptible
    held = await _held(turn, purse, wish, wait)
    return Hold(wish, held.output_tokens), replace(request, max_output_tokens=held.output_tokens)


async def _plainly(work: Awaitable[None]) -> None:
    await work


async def _held(turn: Turn, purse: Purse, wish: NewHold, wait: Callable[[Awaitable[None]], Awaitable[None]]) -> Granted:
    clock = turn.kit.clock
    began_s, delay_s = clock.monotonic_s(), _FIRST_WAIT_S
    while True:
        answer = await _asked(turn, purse, wish)
        if isinstance(answer, Granted):
            return answer
        if not answer.is_held or clock.monotonic_s() - began_s >= turn.kit.retry.total_s:
            raise _out_of(turn, answer)
        await wait(clock.sleep(delay_s))
        delay_s = min(2 * delay_s, _LAST_WAIT_S)


async def _asked(turn: Turn, purse: Purse, wish: NewHold) -> Granted | Shortage:
    """Ask for a hold."""
    charges = purse.untold
    try:
        answer = await uninterrupted(
            turn.kit.store.reserve(turn.lease, wish, charges=charges, at_seq=turn.window.next_seq)
        )
    except asyncio.CancelledError:
        # It may be held by now, and nobody will make the call.
        purse.give_back(wish.number)
        raise
    purse.told(charges)
    return answer


def _out_of(turn: Turn, short: Shortage) -> OutOfBudget:
    status = _STATUS_OF[short.name]
    turn.announce(
        BudgetExceeded(short.key.session_id, short.key.send_index, short.name, short.limit, short.spent, short.is_held)
    )
    unit = "tokens" if short.name == "max_tokens" else "nano-units of money"
    others = ", and others hold what is left" if short.is_held else ""
    return OutOfBudget(
        status,
        f"the budget of send {short.key.send_index} of session {short.key.session_id!r} has {short.spent:,} of its"
        f" {short.limit:,} {unit} spent{others}: the next model call does not fit",
    )


def settle_call(turn: Turn, hold: Hold | None, usage: Usage, price: ModelPrice | None) -> None:
    """Note what a model call came to."""
    if hold is not None and turn.purse is not None:
        cost = 0 if price is None else price.cost_nanos(usage)
        turn.purse.owe(hold.wish.number, Amounts(usage.total_tokens, cost))


async def hold_tool_calls(turn: Turn, wanted: int) -> int:
    """Return how many of the calls of a reply the budgets let run; they are paid for with the reply."""
    purse = turn.purse
    if purse is None or not wanted:
        return wanted
    if not purse.has_tool_call_limit:
        purse.owe(purse.next_number(), Amounts(tool_calls=wanted))
        return wanted
    wish = NewHold(purse.next_number(), purse.payers, tool_calls=wanted)
    answer = await _asked(turn, purse, wish)
    granted = answer.tool_calls if isinstance(answer, Granted) else 0
    if granted:
        purse.owe(wish.number, Amounts(tool_calls=granted))
    return granted
