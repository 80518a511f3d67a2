"""Lends a model to a stranger inside a turn: its calls are tried again as the turn's own are, counted, and bounded."""

from __future__ import annotations

from power_loop.contracts.budgets import sum_of_costs
from power_loop.contracts.errors import LeaseLostError, LLMError, StoreError
from power_loop.contracts.llm import Emit, LLMRequest, LLMResponse, LLMService, ModelInfo, Usage
from power_loop.core.context.tokens import estimate_message, estimate_request
from power_loop.core.turn.given_reply import read_reply
from power_loop.core.turn.paying import OutOfBudget, hold_call, price_of, settle_call
from power_loop.core.turn.points import pass_point
from power_loop.core.turn.retry import retry_delay_s
from power_loop.core.turn.turn import Turn

#: Replies that one stranger may ask for in one piece of work.
MAX_CALLS = 256


class Meter:
    """Counts what lent models took together, as long as they are lent.

    `failure` is why the store could not write down what pays for a call: that is no failure of the stranger's work.
    """

    def __init__(self) -> None:
        self.asked = 0
        self.calls = 0
        self.usage = Usage()
        self.cost_nanos: int | None = None
        self.is_over = False
        self.failure: StoreError | LeaseLostError | None = None

    def count(self, usage: Usage, cost_nanos: int | None) -> None:
        """Count a reply."""
        self.calls += 1
        self.usage = self.usage + usage
        self.cost_nanos = sum_of_costs(self.cost_nanos, cost_nanos)


class LentModel:
    """Is a model in a stranger's hands."""

    def __init__(self, turn: Turn, llm: LLMService, meter: Meter) -> None:
        self._turn = turn
        self._llm = llm
        self._meter = meter

    @property
    def info(self) -> ModelInfo:
        """What the model is."""
        return self._llm.info

    async def generate(self, request: LLMRequest, emit: Emit) -> LLMResponse:
        """Return a reply, after as many attempts as the loop's retry policy allows. Raises `llm.failed` where the
        tokens of the send, or the calls of this piece of work, are used up, where a budget does not pay for the call,
        and where the work is over."""
        turn, info = self._turn, self._llm.info
        self._check_left()
        self._meter.asked += 1
        tokens = 0 if turn.purse is None else estimate_request(request)
        try:
            hold, request = await hold_call(turn, request, tokens=tokens, info=info, is_inside=True)
        except OutOfBudget as out:
            raise LLMError(out.reason, model=info.model) from None
        except (StoreError, LeaseLostError) as error:
            self._meter.failure = error
            raise
        try:
            response = await self._generate(request, emit)
        except LLMError:
            if hold is not None and turn.purse is not None:
                turn.purse.give_back(hold.wish.number)
            raise
        except BaseException:
            if hold is not None and turn.purse is not None:
                turn.purse.lose(hold)
            raise
        usage = response.usage
        if usage is None:
            usage = Usage(estimate_request(request), estimate_message(response.message), is_estimated=True)
        price = price_of(turn, info)
        settle_call(turn, hold, usage, price)
        cost_nanos = None if price is None else price.cost_nanos(usage)
        if self._meter.is_over:
            # What the work took is counted already; this came behind it.
            turn.count_dropped(usage, cost_nanos)
        else:
            self._meter.count(usage, cost_nanos)
        self._check_lent()
        return response

    async def _generate(self, request: LLMRequest, emit: Emit) -> LLMResponse:
        turn, model = self._turn, self._llm.info.model
        clock, policy = turn.kit.clock, turn.kit.retry
        began_s, attempt = clock.monotonic_s(), 0
        while True:
            attempt += 1
            try:
                pass_point(turn.kit.store, "model.before", model)
                given = await self._llm.generate(request, emit)
                pass_point(turn.kit.store, "model.after", model)
                return read_reply(given, giver="the model service", model=model)
            except LLMError as error:
                elapsed_s = clock.monotonic_s() - began_s
                delay_s = retry_delay_s(error, policy, attempt=attempt, elapsed_s=elapsed_s, random=turn.kit.random)
                if delay_s is None:
                    raise
                await clock.sleep(delay_s)
                self._check_lent()

    def _check_lent(self) -> None:
        if self._meter.is_over:
            raise LLMError("this model was lent for one piece of work, and that is over: keep a model of your own")

    def _check_left(self) -> None:
        self._check_lent()
        turn, meter = self._turn, self._meter
        limit = turn.limits.max_tokens
        if limit is not None and turn.spent_tokens + meter.usage.total_tokens >= limit:
            raise LLMError(f"the {limit:,} tokens that SendLimits(max_tokens=...) gives to the send are used up")
        if meter.asked >= MAX_CALLS:
            raise LLMError(f"the model was called {meter.asked} times, and may not be called more often here")
