"""Sub-agents pay from their parent's budget, side by side and never more than there is, and from their own besides."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from power_loop import (
    AgentLifecycle,
    AgentSpec,
    Budget,
    LLMRequest,
    LLMResponse,
    LoopConfig,
    ModelPrice,
    PriceTable,
    SendStatus,
    StatefulAgentLoop,
    ToolContext,
    Usage,
    agent_tools,
    run_agent_spec,
    tool,
)
from power_loop.budgets import Amounts, BudgetRecord
from power_loop.core.context.tokens import estimate_request
from power_loop.errors import AgentSpecError
from power_loop.llm import ModelInfo
from power_loop.testing import ScriptedLLM, call, calls

from .conftest import MakeLoop
from .parts import Ears, Gate, answers, until, within_limit

SMALL = ModelInfo("scripted", "scripted", max_output_tokens=400)
PRICED = LoopConfig(prices=PriceTable({"scripted": ModelPrice(1, 2)}))
TEA = AgentSpec("tea", "You know tea.")


@tool(effect="read")
def look() -> str:
    """Look."""
    return "seen"


class Metered(ScriptedLLM):
    """Answers as `part` says of each request, counts what a provider would bill, and never more than it may say."""

    def __init__(self, part: Any) -> None:
        super().__init__([self.answer], info=SMALL, repeat_last=True)
        self.part = part
        self.billed = Amounts()
        self.gate: Gate | None = None

    async def answer(self, request: LLMRequest) -> Any:
        if self.gate is not None and request.system:
            await self.gate.passing()
        given = self.part(request)
        usage = Usage(estimate_request(request), min(200, request.max_output_tokens or 200))
        self.billed = self.billed + Amounts(usage.total_tokens, ModelPrice(1, 2).cost_nanos(usage))
        return LLMResponse.of_text(given, usage=usage) if isinstance(given, str) else with_usage(given, usage)


def with_usage(reply: LLMResponse, usage: Usage) -> LLMResponse:
    return LLMResponse(reply.message, reply.stop, usage)


def spawns(count: int, agent: str = "tea") -> LLMResponse:
    return calls(*[("spawn_agent", {"agent": agent, "input": f"Find tea {n}."}) for n in range(count)])


def delegating(count: int, child: Any = "Tea is a leaf.") -> Any:
    """Return the part of a model that gives work to `count` sub-agents, which say `child`, and then answers."""

    def part(request: LLMRequest) -> Any:
        if request.system:
            return child(request) if callable(child) else child
        return "Done." if answers(request) else spawns(count)

    return part


async def budget_of(loop: StatefulAgentLoop, sid: str) -> BudgetRecord:
    found = await loop.get_budget(sid)
    assert found is not None
    return found


async def children_of(loop: StatefulAgentLoop, sid: str) -> list[str]:
    return sorted([child.id for child in (await loop.list_sessions(parent_id=sid)).items])


async def test_what_children_take_is_paid_by_the_budget_of_the_send_that_made_them(make_loop: MakeLoop) -> None:
    llm = Metered(delegating(3))
    loop = make_loop(llm=llm, tool_registry=agent_tools([TEA]), config=PRICED)
    sid = await loop.new_session()
    budget = Budget(max_tokens=100_000, max_cost=1, max_tool_calls=10)
    result = await within_limit(loop.send("go", session_id=sid, budget=budget))
    assert (result.status, result.cost) == (SendStatus.COMPLETED, llm.billed.cost)
    paid = await budget_of(loop, sid)
    assert (paid.spent, paid.reserved, paid.lost) == (llm.billed + Amounts(tool_calls=3), Amounts(), Amounts())
    for child in await children_of(loop, sid):
        assert await loop.get_budget(child) == paid, "it has none of its own"


@pytest.mark.promise("budgets")
@pytest.mark.parametrize("count", [2, 5])
async def test_children_side_by_side_never_take_more_than_there_is(make_loop: MakeLoop, count: int) -> None:
    def look_on(request: LLMRequest) -> Any:
        return call("look")

    llm = Metered(delegating(count, look_on))
    loop = make_loop(llm=llm, tool_registry=[look, *agent_tools([TEA])])
    sid = await loop.new_session()
    result = await within_limit(loop.send("go", session_id=sid, budget=Budget(max_tokens=12_000)))
    # The prompt of the parent may be small enough for what is left.
    assert result.status in (SendStatus.TOKENS_EXCEEDED, SendStatus.COMPLETED)
    paid = await budget_of(loop, sid)
    assert paid.spent.tokens == llm.billed.tokens == result.usage.total_tokens <= 12_000
    assert (paid.reserved, paid.lost) == (Amounts(), Amounts())
    store = await loop.get_store()
    for child in await children_of(loop, sid):
        send = await store.get_send(child)
        assert send is not None
        assert send.status is SendStatus.TOKENS_EXCEEDED


async def test_a_child_with_a_budget_of_its_own_pays_from_both(make_loop: MakeLoop) -> None:
    llm = Metered(delegating(1, lambda request: call("look")))
    spec = AgentSpec("tea", "You know tea.", budget=Budget(max_tokens=2_000, max_seconds=3_600))
    loop = make_loop(llm=llm, tool_registry=[look, *agent_tools([spec])])
    sid = await loop.new_session()
    result = await within_limit(loop.send("go", session_id=sid, budget=Budget(max_tokens=100_000, max_seconds=60)))
    assert (result.status, result.final_text) == (SendStatus.COMPLETED, "Done.")
    paid = await budget_of(loop, sid)
    [below] = paid.children
    [child] = await children_of(loop, sid)
    assert (below.key.session_id, below.parent, below.limits.max_tokens) == (child, paid.key, 2_000)
    assert below.deadline_at_ms == paid.deadline_at_ms, "its time is its parent's"
    assert 0 < below.spent.tokens <= 2_000
    assert paid.spent.tokens == llm.billed.tokens == result.usage.total_tokens
    assert await loop.get_budget(child) == below
    send = await (await loop.get_store()).get_send(child)
    assert send is not None
    assert send.status is SendStatus.TOKENS_EXCEEDED
    # What it spent stays spent when it is gone.
    await (await loop.get_store()).delete_session(child)
    assert (await budget_of(loop, sid)).spent == paid.spent


async def test_calls_of_tools_are_shared_as_well(make_loop: MakeLoop) -> None:
    ran: list[int] = []

    @tool
    def act() -> str:
        """Act."""
        ran.append(1)
        return "acted"

    llm = Metered(delegating(2, lambda request: "Acted." if answers(request) else calls(("act", {}), ("act", {}))))
    loop = make_loop(llm=llm, tool_registry=[act, *agent_tools([TEA])])
    sid = await loop.new_session()
    # Two for the children, and three of the four that these want.
    await within_limit(loop.send("go", session_id=sid, budget=Budget(max_tool_calls=5)))
    paid = await budget_of(loop, sid)
    assert (len(ran), paid.spent.tool_calls, paid.reserved) == (3, 5, Amounts())


async def test_a_cancelled_tree_holds_nothing_and_has_paid_for_what_was_asked(make_loop: MakeLoop) -> None:
    llm = Metered(delegating(3))
    llm.gate = Gate()
    loop = make_loop(llm=llm, tool_registry=agent_tools([TEA]))
    sid = await loop.new_session()
    sending = asyncio.ensure_future(loop.send("go", session_id=sid, budget=Budget(max_tokens=100_000)))
    await llm.gate.someone()
    assert await loop.cancel(sid)
    assert (await within_limit(sending)).status is SendStatus.CANCELLED
    paid = await budget_of(loop, sid)
    assert paid.reserved == Amounts()
    assert paid.spent.tokens == llm.billed.tokens + paid.lost.tokens
    assert paid.lost.tokens == sum(estimate_request(one) for one in llm.requests if one.system)


async def test_a_detached_one_pays_on_behind_the_send_that_made_it(make_loop: MakeLoop) -> None:
    llm = Metered(delegating(1))
    llm.gate = Gate()
    spec = AgentSpec("tea", "You know tea.", lifecycle=AgentLifecycle.DETACHED)
    loop = make_loop(llm=llm, tool_registry=agent_tools([spec]), config=PRICED)
    ears = Ears(loop)
    sid = await loop.new_session()
    await within_limit(loop.send("go", session_id=sid, budget=Budget(max_tokens=100_000)))
    await llm.gate.someone()
    begun = await budget_of(loop, sid)
    assert begun.reserved.tokens > 0
    llm.gate.open()
    [child] = await children_of(loop, sid)
    await within_limit(
        until(lambda: child in [event.session_id for event in ears.events if event.type == "send.finished"])
    )
    paid = await loop.get_budget(sid, send_index=1)
    assert paid is not None
    taken = (await loop.get_session_stats(child)).usage.total_tokens
    assert paid.spent.tokens == begun.spent.tokens + taken > begun.spent.tokens
    assert paid.reserved == Amounts()


async def test_what_a_tool_of_the_application_gives_to_an_agent_is_paid_as_well(make_loop: MakeLoop) -> None:
    loops: list[StatefulAgentLoop] = []

    @tool(effect="idempotent")
    async def ask_tea(context: ToolContext) -> str:
        """Ask somebody who knows."""
        key = context.idempotency_key
        given = await run_agent_spec(loops[0], TEA, "Find tea.", parent_session_id=context.session_id, request_id=key)
        return given.final_text

    def part(request: LLMRequest) -> Any:
        return "A leaf." if request.system else "Done." if answers(request) else call("ask_tea")

    llm = Metered(part)
    loop = make_loop(llm=llm, tool_registry=[ask_tea])
    loops.append(loop)
    sid = await loop.new_session()
    await within_limit(loop.send("go", session_id=sid, budget=Budget(max_tokens=100_000)))
    paid = await budget_of(loop, sid)
    assert (paid.spent.tokens, paid.reserved, len(llm.requests)) == (llm.billed.tokens, Amounts(), 3)


def test_what_is_no_budget_is_refused() -> None:
    with pytest.raises(AgentSpecError, match="budget is 5: give a Budget"):
        AgentSpec("tea", "You know tea.", budget=5)  # type: ignore[arg-type]
