"""Makes a store in which something of everything is, for the inspector's pictures and its tests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from power_loop import (
    AgentSpec,
    Budget,
    Compaction,
    LLMRequest,
    LLMResponse,
    LoopConfig,
    ModelPrice,
    PriceTable,
    StatefulAgentLoop,
    agent_tools,
    tool,
)
from power_loop.context import Folded, FoldTask
from power_loop.llm import Emit, ModelInfo
from power_loop.testing import ScriptedLLM, call, calls
from power_loop.workflow import create_workflow

TEAS = ["sencha", "gyokuro", "matcha"]

FLOW: dict[str, Any] = {
    "name": "tea guide",
    "input": "the Japanese tea ceremony",
    "root": {
        "type": "sequence",
        "steps": [
            {"type": "agent", "id": "plan", "spec": {"name": "planner", "system_prompt": "Plan."}},
            {
                "type": "parallel",
                "id": "gather",
                "steps": [
                    {
                        "type": "foreach",
                        "id": "teas",
                        "items": TEAS,
                        "as": "tea",
                        "parallel": True,
                        "body": {
                            "type": "agent",
                            "id": "taste",
                            "spec": {"name": "taster", "system_prompt": "Sip."},
                            "input": "Taste {{tea}}.",
                        },
                    },
                    {"type": "agent", "id": "history", "spec": {"name": "historian", "system_prompt": "Remember."}},
                ],
            },
            {"type": "wait", "id": "editor", "person": "Is this fit to print?", "choices": ["yes", "no"]},
            {"type": "agent", "id": "write", "spec": {"name": "writer", "system_prompt": "Write."}},
        ],
    },
}


@tool(effect="read")
def find_tea(name: str) -> str:
    """Find a tea in the shop's list."""
    return json.dumps({"name": name, "in_stock": 12, "price": "9.50", "note": "first flush, from Uji"})


@tool(requires_approval=True)
def order(name: str, grams: int) -> str:
    """Order tea."""
    return f"ordered {grams} g of {name}: number 4711"


class Cast:
    """Is a model that plays several parts, by the first word of the system prompt; its price is known."""

    def __init__(self, parts: Mapping[str, list[Any]]) -> None:
        self._parts = {name: ScriptedLLM(steps) for name, steps in parts.items()}

    @property
    def info(self) -> ModelInfo:
        """What the kernel has to know of it."""
        return ModelInfo("scripted", "scripted", has_json_schema=True)

    async def generate(self, request: LLMRequest, emit: Emit) -> LLMResponse:
        """Answer as the part that is asked, which says that it is done where it has no script."""
        name = (request.system or "?").split()[0].strip(".").lower()
        model = self._parts.get(name)
        return await (model or ScriptedLLM([f"{name.capitalize()}: done."])).generate(request, emit)


class Summary:
    """Is a fold strategy that asks no model."""

    name = "summary"

    async def fold(self, task: FoldTask) -> Folded:
        """Return what a model would have said."""
        return Folded("Ada asked for sencha: 12 bags are in stock, at 9.50 each. Then she asked what gyokuro is.")


PRICES = PriceTable({"scripted": ModelPrice(input=3, output=15)})
SENCHA = """We have 12 bags of sencha from Uji, at 9.50 each. It is the first flush: fresh, green, a little sweet.

The leaves are steamed within a day of the harvest, rolled into needles and dried. Give them water of 70 degrees \
and one minute for the first cup; the second and the third take half of that. A pot of three cups wants two \
spoons of leaves. Opened, a bag keeps its taste for about six weeks, away from light, from warmth and from \
anything that smells.

The other harvests are not here yet: the second flush comes in June, and is stronger, a little bitter, and half \
the price. Some roast it over charcoal, which takes most of the caffeine and gives a taste of nuts; that is \
called hojicha, and is what one drinks in the evening. If you like it mild, take the first flush; if you drink \
it with food, wait for the second. The bags have 100 grams each, which is about fifty cups, and we send them on \
the day of the order."""
SHOP = "Shopkeeper. You sell Japanese tea, and you never order without being asked to."


def loop_of(dsn: str, parts: Mapping[str, list[Any]]) -> StatefulAgentLoop:
    """Return the agent of this world, with these scripts by part."""
    return StatefulAgentLoop(
        llm=Cast(parts),
        dsn=dsn,
        tool_registry=[
            find_tea,
            order,
            *agent_tools([AgentSpec("taster", "Taste what you are told."), AgentSpec("buyer", "Buyer.")]),
        ],
        # So little is kept that a short conversation is folded, too.
        config=LoopConfig(prices=PRICES, compaction=Compaction(Summary(), keep=0.0001, offers_recall=False)),
    )


def make_waiting(dsn: str) -> StatefulAgentLoop:
    """Return an agent that goes on with the session `shop`, whose order waits."""
    return loop_of(dsn, {"shopkeeper": ["It is **ordered**: number 4711."]})


async def build(dsn: str) -> dict[str, str]:
    """Fill a store, and return the ids of its sessions by name."""
    shop = [
        call("find_tea", {"name": "sencha"}, text="Let me look."),
        SENCHA,
        "Gyokuro is shaded for three weeks before the harvest, which makes it sweeter and dearer.",
        calls(("find_tea", {"name": "gyokuro"}), ("order", {"name": "gyokuro", "grams": 100})),
    ]
    host = [
        calls(
            ("spawn_agent", {"agent": "taster", "input": "Taste sencha."}),
            ("spawn_agent", {"agent": "taster", "input": "Taste matcha."}),
            ("spawn_agent", {"agent": "buyer", "input": "Find a cheap gyokuro."}),
        ),
        "The sencha is fresh, the matcha is rich, and gyokuro is 9.50.",
    ]
    buyer = [call("spawn_agent", {"agent": "taster", "input": "Taste gyokuro."}), "9.50 is cheap enough."]
    taster = ["Fresh and grassy.", "Rich and round.", "Sweet, with umami."]
    async with loop_of(dsn, {"shopkeeper": shop, "host": host, "buyer": buyer, "taste": taster}) as loop:
        run = await create_workflow(FLOW, parent_loop=loop).run()
        party = await loop.new_session(
            session_id="party", system_prompt="Host. You plan a tasting.", metadata={"title": "A tasting"}
        )
        await loop.send("Have three teas tasted.", session_id=party, budget=Budget(max_tokens=2_000, max_cost="0.02"))
        one = await loop.new_session(
            session_id="shop", system_prompt=SHOP, metadata={"title": "An order of tea", "customer": "ada"}
        )
        await loop.send("Do you have sencha?", session_id=one)
        await loop.send("And what is gyokuro?", session_id=one)
        if await loop.compact(one) is None:
            raise RuntimeError("there was nothing to fold")
        await loop.send("Then order 100 g of gyokuro, please.", session_id=one, budget=Budget(max_tokens=20_000))
    return {"shop": one, "party": party, "run": run.run_id}
