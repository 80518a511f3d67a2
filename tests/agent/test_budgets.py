"""What a send may take together: it is held before a call, settled after it, and exact whatever becomes of the call."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from power_loop import (
    Approve,
    Budget,
    Compaction,
    HookPoint,
    LLMRequest,
    LLMResponse,
    LLMRetryPolicy,
    LoopConfig,
    ModelPrice,
    PriceTable,
    SendLimits,
    SendStatus,
    StatefulAgentLoop,
    Usage,
    tool,
)
from power_loop.budgets import Amounts, BudgetRecord
from power_loop.core.context.tokens import estimate_request
from power_loop.errors import (
    ConfigError,
    InputError,
    LLMError,
    LLMServerError,
    PriceMissingError,
    SessionNotFoundError,
    StoreFullError,
)
from power_loop.events import BudgetExceeded, FoldFailed, FoldStarted
from power_loop.hooks import Veto
from power_loop.llm import ModelInfo
from power_loop.messages import user_message
from power_loop.storage import Charge, Granted, NewHold, NewSend, SendEnd
from power_loop.testing import FrozenClock, ScriptedLLM, call, calls
from power_loop.testing.conformance.budgets import ROOT, budgeted
from power_loop.timers import SystemClock

from .conftest import MakeLoop
from .elsewhere import elsewhere
from .parts import Ears, Gate, commits_of, error_answers, is_fold, until, within_limit

PRICES = PriceTable({"scripted": ModelPrice("1", "2", cached_input="0.1", cache_write="1.25", reasoning="3")})
PRICED = LoopConfig(prices=PRICES)
SMALL = ModelInfo("scripted", "scripted", max_output_tokens=1_000)


@tool(effect="read")
def look() -> str:
    """Look."""
    return "seen"


async def budget_of(loop: StatefulAgentLoop, sid: str, **options: Any) -> BudgetRecord:
    found = await loop.get_budget(sid, **options)
    assert found is not None
    return found


# ---- what a limit does ----


async def test_a_call_that_the_tokens_left_do_not_pay_for_is_not_made(make_loop: MakeLoop) -> None:
    used = Usage(400, 500)
    loop = make_loop(calls(("look", {}), usage=used), "never said", tool_registry=[look])
    ears = Ears(loop)
    sid = await loop.new_session()
    result = await loop.send("go", session_id=sid, budget=Budget(max_tokens=1_000))
    assert (result.status, result.rounds, result.usage) == (SendStatus.TOKENS_EXCEEDED, 1, used)
    assert "has 900 of its 1,000 tokens spent" in (result.reason or "")
    assert loop.llm.steps_left == 1
    [told] = ears.of(BudgetExceeded)
    assert (told.budget_session_id, told.name, told.limit, told.spent) == (sid, "max_tokens", 1_000, 900)
    budget = await budget_of(loop, sid)
    assert (budget.spent, budget.lost, budget.reserved) == (Amounts(900, 0, 1), Amounts(), Amounts())
    again = await make_loop().resume(sid)
    assert (again.status, again.reason) == (result.status, result.reason)
    # The next send has a budget of its own, or none.
    assert (await loop.send("more", session_id=sid)).final_text == "never said"
    assert await loop.get_budget(sid) is None
    assert (await budget_of(loop, sid, send_index=1)) == budget


async def test_a_reply_is_capped_to_what_is_left(make_loop: MakeLoop) -> None:
    loop = make_loop("Short.", llm=ScriptedLLM(["Short."], info=SMALL))
    sid = await loop.new_session()
    await loop.send("go", session_id=sid, budget=Budget(max_tokens=700))
    [request] = loop.llm.requests
    tokens = estimate_request(request)
    assert request.max_output_tokens == 700 - tokens < 1_000
    assert (await budget_of(loop, sid)).spent == Amounts(15)


@pytest.mark.promise("budgets")
async def test_money_is_counted_by_the_kind_of_token_and_ends_a_send(make_loop: MakeLoop) -> None:
    used = Usage(1_000_000, 100_000, 500_000, 200_000, 40_000)
    cost = Decimal("0.3") + Decimal("0.05") + Decimal("0.25") + Decimal("0.12") + Decimal("0.12")
    loop = make_loop(calls(("look", {}), usage=used), "never said", tool_registry=[look], config=PRICED)
    sid = await loop.new_session()
    result = await loop.send("go", session_id=sid, budget=Budget(max_cost=cost))
    assert (result.status, result.cost) == (SendStatus.COST_EXCEEDED, cost)
    budget = await budget_of(loop, sid)
    assert (budget.spent.cost, budget.limits.max_cost) == (cost, cost)
    assert (await loop.get_session_stats(sid)).cost == cost
    assert (await make_loop().resume(sid)).cost == cost, "the recorded result says the same"


async def test_without_prices_no_cost_is_known_and_with_them_it_is_without_a_budget(make_loop: MakeLoop) -> None:
    plain = make_loop("One.", "Two.")
    sid = await plain.new_session()
    assert (await plain.send("go", session_id=sid)).cost is None
    assert (await plain.get_session_stats(sid)).cost is None
    priced = make_loop("Three.", config=PRICED)
    assert (await priced.send("go", session_id=sid)).cost == Decimal("0.00002")
    assert (await priced.get_session_stats(sid)).cost == Decimal("0.00002")


@pytest.mark.parametrize("prices", [None, PriceTable({"another": ModelPrice(1, 1)})])
async def test_a_model_without_a_price_is_never_free(make_loop: MakeLoop, prices: PriceTable | None) -> None:
    loop = make_loop("free?", config=LoopConfig(prices=prices))
    sid = await loop.new_session()
    with pytest.raises(PriceMissingError, match=r"'scripted'.*add 'scripted': ModelPrice") as caught:
        await loop.send("go", session_id=sid, budget=Budget(max_cost=1))
    assert (caught.value.code, caught.value.model) == ("config.no_price", "scripted")
    assert (await loop.get_session(sid)).send_count == 0


async def test_a_handle_without_the_price_does_not_go_on_for_free(make_loop: MakeLoop) -> None:
    loop = make_loop(call("look"), LLMError("down", model="scripted"), "Seen.", tool_registry=[look], config=PRICED)
    sid = await loop.new_session()
    with pytest.raises(LLMError, match="down"):
        await loop.send("go", session_id=sid, budget=Budget(max_cost=1))
    other = make_loop("free?", tool_registry=[look])
    with pytest.raises(PriceMissingError):
        await other.resume(sid)
    assert other.llm.requests == []
    assert (await loop.resume(sid)).final_text == "Seen."
    assert (await budget_of(loop, sid)).spent == Amounts(30, 40_000, 1)


async def test_calls_beyond_the_budget_do_not_run_and_the_model_concludes(make_loop: MakeLoop) -> None:
    ran: list[int] = []

    @tool
    def act(n: int) -> str:
        """Act."""
        ran.append(n)
        return "acted"

    three = calls(*[("act", {"n": n}) for n in range(3)])
    loop = make_loop(three, "What I have.", tool_registry=[act])
    sid = await loop.new_session()
    result = await loop.send("go", session_id=sid, budget=Budget(max_tool_calls=2))
    assert (result.status, result.final_text, ran) == (SendStatus.TOOL_CALLS_EXCEEDED, "What I have.", [0, 1])
    [refused] = error_answers(loop.llm.requests[1])
    assert "tool calls" in refused
    budget = await budget_of(loop, sid)
    assert (budget.spent.tool_calls, budget.reserved) == (2, Amounts())


async def test_a_last_reply_that_is_not_paid_for_is_not_asked_for(make_loop: MakeLoop) -> None:
    loop = make_loop(calls(("look", {}), usage=Usage(900, 50)), tool_registry=[look])
    sid = await loop.new_session()
    budget = Budget(max_tokens=1_000, max_tool_calls=0)
    result = await loop.send("go", session_id=sid, budget=budget)
    assert (result.status, result.rounds) == (SendStatus.TOOL_CALLS_EXCEEDED, 1)


class MovedClock(SystemClock):
    """Is the time, moved on by hand."""

    __slots__ = ("moved_ms",)

    def __init__(self) -> None:
        self.moved_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.moved_ms


async def test_time_runs_on_while_a_send_waits_and_is_the_same_in_another_process(
    make_loop: MakeLoop, dsn: str
) -> None:
    @tool(requires_approval=True)
    def act() -> str:
        """Act."""
        raise AssertionError("its time was over")

    clock = MovedClock()
    loop = make_loop(call("act"), tool_registry=[act], clock=clock)
    sid = await loop.new_session()
    waiting = await loop.send("go", session_id=sid, budget=Budget(max_seconds=3600))
    assert waiting.status is SendStatus.WAITING_FOR_INPUT
    clock.moved_ms += 3_600_000
    other = elsewhere(make_loop, dsn, "never said", tool_registry=[act], clock=clock)
    result = await other.resume(sid, answers={waiting.pending[0].call_id: Approve()})
    assert (result.status, other.llm.requests) == (SendStatus.TIME_EXCEEDED, [])


async def test_time_that_is_over_ends_a_call(make_loop: MakeLoop) -> None:
    loop = make_loop(Gate().then("never said"))
    sid = await loop.new_session()
    result = await within_limit(loop.send("go", session_id=sid, budget=Budget(max_seconds=0.05)))
    assert result.status is SendStatus.TIME_EXCEEDED
    assert (await budget_of(loop, sid)).reserved == Amounts()


async def test_a_call_that_is_cancelled_costs_its_prompt(make_loop: MakeLoop) -> None:
    gate = Gate()
    loop = make_loop(gate.then("never said"))
    sid = await loop.new_session()
    sending = asyncio.ensure_future(loop.send("go", session_id=sid, budget=Budget(max_tokens=10_000)))
    await gate.someone()
    assert await loop.cancel(sid)
    assert (await within_limit(sending)).status is SendStatus.CANCELLED
    budget = await budget_of(loop, sid)
    # The provider had it.
    assert budget.spent == budget.lost == Amounts(estimate_request(loop.llm.requests[0]))
    assert budget.reserved == Amounts()


# ---- what is held ----


async def test_what_a_call_may_take_is_held_while_it_runs(make_loop: MakeLoop) -> None:
    gate = Gate()
    loop = make_loop(gate.then("Done."), config=PRICED)
    sid = await loop.new_session()
    ears = Ears(loop)
    sending = asyncio.ensure_future(loop.send("go", session_id=sid, budget=Budget(max_tokens=10_000, max_cost=1)))
    await gate.someone()
    tokens = estimate_request(loop.llm.requests[0])
    budget = await budget_of(loop, sid)
    assert budget.spent == Amounts()
    assert budget.reserved == Amounts(tokens + 4_096, tokens * 1_250 + 4_096 * 3_000)
    gate.open()
    assert (await within_limit(sending)).final_text == "Done."
    assert not ears.of(BudgetExceeded)
    budget = await budget_of(loop, sid)
    assert (budget.spent, budget.reserved) == (Amounts(15, 20_000), Amounts())


async def test_a_budget_costs_one_more_transaction_a_call_and_none_costs_nothing(make_loop: MakeLoop) -> None:
    loop = make_loop("One.", "Two.")
    sid = await loop.new_session()
    with commits_of(await loop.get_store()) as moves:
        await loop.send("go", session_id=sid)
        assert moves == ["accept", "append_reply"]
        await loop.send("go", session_id=sid, budget=Budget(max_tokens=10_000))
    assert moves[2:] == ["accept", "reserve", "append_reply"]


# ---- what becomes of a call ----

TWICE = LoopConfig(retry=LLMRetryPolicy(max_attempts=2), prices=PRICES)


async def test_an_attempt_that_was_refused_costs_nothing(make_loop: MakeLoop) -> None:
    loop = make_loop(LLMServerError("busy"), "Done.", config=TWICE, clock=FrozenClock(skips_sleep=True))
    sid = await loop.new_session()
    await loop.send("go", session_id=sid, budget=Budget(max_tokens=10_000))
    budget = await budget_of(loop, sid)
    assert (budget.spent, budget.lost, budget.reserved) == (Amounts(15, 20_000), Amounts(), Amounts())


async def test_a_stream_that_broke_costs_its_prompt(make_loop: MakeLoop) -> None:
    class Breaking(ScriptedLLM):
        async def generate(self, request: LLMRequest, emit: Any) -> LLMResponse:
            reply = await super().generate(request, emit)
            if len(self.requests) == 1:
                raise LLMServerError("cut in the middle")
            return reply

    loop = make_loop(llm=Breaking(["Done."], repeat_last=True), config=TWICE, clock=FrozenClock(skips_sleep=True))
    sid = await loop.new_session()
    result = await loop.send("go", session_id=sid, budget=Budget(max_tokens=10_000))
    lost = estimate_request(loop.llm.requests[0])
    budget = await budget_of(loop, sid)
    assert (budget.spent.tokens, budget.lost.tokens, budget.reserved) == (15 + lost, lost, Amounts())
    assert result.usage.total_tokens == 15, "the result tells of the replies that there are"


async def test_a_send_that_fails_holds_nothing(make_loop: MakeLoop) -> None:
    loop = make_loop(LLMError("down", model="scripted"))
    sid = await loop.new_session()
    with pytest.raises(LLMError, match="down"):
        await loop.send("go", session_id=sid, budget=Budget(max_tokens=10_000))
    budget = await budget_of(loop, sid)
    assert (budget.spent, budget.reserved) == (Amounts(), Amounts())


async def test_a_reply_that_a_hook_keeps_out_of_the_log_is_paid_for(make_loop: MakeLoop) -> None:
    loop = make_loop("A secret.", config=PRICED)
    loop.hooks.add(HookPoint.LLM_AFTER, lambda context: Veto("no secrets"))
    sid = await loop.new_session()
    result = await loop.send("go", session_id=sid, budget=Budget(max_tokens=10_000))
    assert (result.status, result.cost) == (SendStatus.VETOED, Decimal("0.00002"))
    assert (await budget_of(loop, sid)).spent == Amounts(15, 20_000)
    assert (await make_loop().resume(sid)).cost == result.cost


async def test_a_reply_that_has_to_be_mended_is_paid_for_each_time(make_loop: MakeLoop) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    loop = make_loop("no json", '{"n": 1}')
    sid = await loop.new_session()
    result = await loop.send("go", session_id=sid, output_schema=schema, budget=Budget(max_tokens=10_000))
    assert result.output == {"n": 1}
    assert (await budget_of(loop, sid)).spent == Amounts(30)


class Folding:
    """Is a model that looks so many times, and folds what it is given to fold."""

    def __init__(self, places: int) -> None:
        self.left = places
        self.taken = Amounts()
        self.folds = 0

    def __call__(self, request: LLMRequest) -> Any:
        usage = Usage(estimate_request(request), 10)
        self.taken = self.taken + Amounts(usage.total_tokens, ModelPrice(1, 2).cost_nanos(usage))
        if is_fold(request):
            self.folds += 1
            return LLMResponse.of_text("Much was looked at.", usage=usage)
        self.left -= 1
        return calls(("look", {}), usage=usage) if self.left > 0 else LLMResponse.of_text("All seen.", usage=usage)


async def test_a_fold_is_paid_by_the_send_that_needs_it(make_loop: MakeLoop) -> None:
    @tool(effect="read")
    def look() -> str:
        """Look at a place."""
        return "grass and stones " * 30

    info = ModelInfo("scripted", "scripted", context_window_tokens=8_000, max_output_tokens=1_000)
    model = Folding(60)
    config = LoopConfig(
        limits=SendLimits(max_rounds=None), compaction=Compaction(), prices=PriceTable({"scripted": ModelPrice(1, 2)})
    )
    loop = make_loop(llm=ScriptedLLM([model], info=info, repeat_last=True), tool_registry=[look], config=config)
    sid = await loop.new_session()
    result = await loop.send("Look.", session_id=sid, budget=Budget(max_tokens=10_000_000, max_cost=1000))
    assert (result.final_text, model.folds > 0) == ("All seen.", True)
    budget = await budget_of(loop, sid)
    assert budget.spent == model.taken + Amounts(tool_calls=59)
    assert (budget.lost, budget.reserved) == (Amounts(), Amounts())
    assert (result.usage.total_tokens, result.cost) == (model.taken.tokens, model.taken.cost)
    assert (await loop.get_session_stats(sid)).cost == model.taken.cost


async def test_a_fold_whose_payment_cannot_be_stored_is_made_by_a_resume(
    make_loop: MakeLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    @tool(effect="read")
    def look() -> str:
        """Look at a place."""
        return "grass and stones " * 30

    info = ModelInfo("scripted", "scripted", context_window_tokens=8_000, max_output_tokens=1_000)
    model = Folding(60)
    config = LoopConfig(limits=SendLimits(max_rounds=None), compaction=Compaction())
    loop = make_loop(llm=ScriptedLLM([model], info=info, repeat_last=True), tool_registry=[look], config=config)
    ears, store = Ears(loop), await loop.get_store()
    reserve, refused = type(store).reserve, []

    async def reserve_unless_a_fold_begins(self: Any, *args: Any, **more: Any) -> Any:
        if ears.of(FoldStarted) and not refused:
            refused.append(True)
            raise StoreFullError("the disk is full")
        return await reserve(self, *args, **more)

    monkeypatch.setattr(type(store), "reserve", reserve_unless_a_fold_begins)
    sid = await loop.new_session()
    with pytest.raises(StoreFullError):
        await loop.send("Look.", session_id=sid, budget=Budget(max_tokens=10_000_000))
    asked = len(loop.llm.requests)
    result = await loop.resume(sid)
    assert is_fold(loop.llm.requests[asked])
    assert (result.final_text, model.folds > 0) == ("All seen.", True)
    budget = await budget_of(loop, sid)
    assert (budget.spent.tokens, budget.lost, budget.reserved) == (model.taken.tokens, Amounts(), Amounts())


async def test_a_fold_that_is_not_paid_for_is_not_made(make_loop: MakeLoop) -> None:
    info = ModelInfo("scripted", "scripted", context_window_tokens=3_000, max_output_tokens=1_000)
    loop = make_loop(
        llm=ScriptedLLM([Folding(60)], info=info, repeat_last=True),
        tool_registry=[look],
        config=LoopConfig(limits=SendLimits(max_rounds=None)),
    )
    ears = Ears(loop)
    sid = await loop.new_session()
    await loop.send("Look. " + "word " * 1_500, session_id=sid, budget=Budget(max_tokens=2_700))
    for failed in ears.of(FoldFailed):
        assert "budget" in failed.message
    budget = await budget_of(loop, sid)
    assert budget.spent.tokens <= 2_700
    assert budget.reserved == Amounts()


# ---- where it comes from ----


async def test_each_send_has_the_budget_of_the_configuration_and_a_resume_the_one_it_began_with(
    make_loop: MakeLoop,
) -> None:
    loop = make_loop("One.", LLMError("down", model="scripted"), config=LoopConfig(budget=Budget(max_tokens=10_000)))
    sid = await loop.new_session()
    await loop.send("go", session_id=sid)
    assert (await budget_of(loop, sid)).spent == Amounts(15)
    with pytest.raises(LLMError):
        await loop.send("go on", session_id=sid)
    # A handle that knows of no budget does not take it away.
    other = make_loop("Two.")
    await other.resume(sid)
    assert (await budget_of(loop, sid)).spent == Amounts(15)
    assert other.llm.requests[0].max_output_tokens is not None


async def test_what_is_taken_in_is_paid_by_the_send_that_takes_it(make_loop: MakeLoop) -> None:
    gate = Gate()
    loop = make_loop(gate.then("One."), "Two.", config=LoopConfig(budget=Budget(max_tokens=20_000)))
    sid = await loop.new_session()
    sending = asyncio.ensure_future(loop.send("go", session_id=sid))
    await gate.someone()
    await loop.follow_up(sid, "and this")
    gate.open()
    assert (await within_limit(sending)).final_text == "Two."
    assert (await budget_of(loop, sid)).spent == Amounts(30)


async def test_what_is_no_budget_is_refused(make_loop: MakeLoop) -> None:
    loop = make_loop("One.")
    sid = await loop.new_session()
    with pytest.raises(ConfigError, match="budget is 5: give a Budget"):
        await loop.send("go", session_id=sid, budget=5)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="budget is 5: give a Budget"):
        LoopConfig(budget=5)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"prices is \{\}: give a PriceTable"):
        LoopConfig(prices={})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="send_index is 'last'"):
        await loop.get_budget(sid, send_index="last")  # type: ignore[arg-type]
    with pytest.raises(SessionNotFoundError):
        await loop.get_budget("nobody")
    assert await loop.get_budget(sid) is None


# ---- what others hold ----

CHILD_OPTIONS = {"payer": ["sess_root", 1]}


async def a_child_of(loop: StatefulAgentLoop, root: Budget, *, held: int) -> tuple[Any, str]:
    """Let a send hold `held` tokens of its budget, and another one wait for its turn, for which that budget pays."""
    store = await loop.get_store()
    taken = await budgeted(store, "sess_root", root)
    wish = NewHold(1, (ROOT,), input_tokens=held - 10, output_tokens=10, least_output_tokens=10)
    assert await store.reserve(taken.lease, wish, at_seq=2) == Granted(10)
    sid = await loop.new_session()
    await store.put_input(sid, NewSend(user_message("go"), "", CHILD_OPTIONS))
    return taken.lease, sid


async def test_a_call_waits_for_what_others_hold(make_loop: MakeLoop) -> None:
    clock = FrozenClock(skips_sleep=True)
    loop = make_loop("Done.", llm=ScriptedLLM(["Done."], info=SMALL), clock=clock)
    ears = Ears(loop)
    lease, sid = await a_child_of(loop, Budget(max_tokens=1_000), held=900)
    driving = asyncio.ensure_future(loop.recover())
    await until(lambda: len(clock.slept) > 3)
    assert loop.llm.requests == []
    store = await loop.get_store()
    charges = (Charge(1, (ROOT,), Amounts(200)),)
    await store.end_send(lease, 1, SendEnd(SendStatus.COMPLETED, {}, charges=charges, has_payers=True))
    await within_limit(driving)
    assert [send.final_text for send in [await loop.resume(sid)]] == ["Done."]
    assert not ears.of(BudgetExceeded)
    root = await store.get_budget(ROOT)
    assert root is not None
    assert (root.spent, root.reserved) == (Amounts(215), Amounts())
    assert await loop.get_budget(sid) == root


async def test_a_call_waits_no_longer_than_a_reply_may_take(make_loop: MakeLoop) -> None:
    clock = FrozenClock(skips_sleep=True)
    config = LoopConfig(retry=LLMRetryPolicy(total_s=60))
    loop = make_loop(llm=ScriptedLLM(["never said"], info=SMALL), clock=clock, config=config)
    ears = Ears(loop)
    _, sid = await a_child_of(loop, Budget(max_tokens=1_000), held=900)
    await within_limit(loop.recover())
    result = await loop.resume(sid)
    # The one that holds so long is taken for dead, and gone on with: that is not this one's call.
    asked = [request.cache_key for request in loop.llm.requests]
    assert (result.status, sid in asked) == (SendStatus.TOKENS_EXCEEDED, False)
    assert "others hold what is left" in (result.reason or "")
    assert [event.is_held for event in ears.of(BudgetExceeded)] == [True]
    assert 60 <= sum(clock.slept) < 65


async def test_a_call_that_waits_for_others_can_be_cancelled(make_loop: MakeLoop) -> None:
    clock = FrozenClock()
    loop = make_loop(llm=ScriptedLLM(["never said"], info=SMALL), clock=clock)
    _, sid = await a_child_of(loop, Budget(max_tokens=1_000), held=900)
    driving = asyncio.ensure_future(loop.recover())
    await within_limit(clock.until_asleep())
    assert await loop.cancel(sid)
    await within_limit(driving)
    assert (await loop.resume(sid)).status is SendStatus.CANCELLED
    root = await (await loop.get_store()).get_budget(ROOT)
    assert root is not None
    assert (root.spent, root.reserved) == (Amounts(), Amounts(900))
