"""Bounds what a turn may take: rounds and seconds of a send, and money for all that it sets going.

You will see a send that looks for something that is not there: it is ended by its limit, and the model concludes with
what it has. Then a budget that is too small for a single call, and what was paid.
"""

import asyncio

from power_loop import (
    Budget,
    LoopConfig,
    ModelPrice,
    PriceTable,
    SendLimits,
    StatefulAgentLoop,
    create_llm_service_from_env,
    tool,
)


@tool(effect="read")
def look(place: str) -> str:
    """Look for the key in one place."""
    return f"It is not in the {place}."


async def main() -> None:
    """Search within limits."""
    llm = create_llm_service_from_env()
    # Prices are for a million tokens. A model without a price is never taken for free.
    prices = PriceTable({llm.info.model: ModelPrice(input="0.40", output="1.60")})
    async with StatefulAgentLoop(llm=llm, dsn="app.db", tool_registry=[look], config=LoopConfig(prices=prices)) as loop:
        sid = await loop.new_session(system_prompt="Look in one place after the other until you find it.")
        limits = SendLimits(max_rounds=2, max_tool_calls=10, max_seconds=120)
        result = await loop.send("Where is my key?", session_id=sid, limits=limits)
        print(f"{result.status.value}: {result.final_text}")

        result = await loop.send("Look on.", session_id=sid, budget=Budget(max_cost="0.000001"))
        print(f"{result.status.value}: {result.reason}")
        print(f"paid so far: {(await loop.get_session_stats(sid)).cost}")


if __name__ == "__main__":
    asyncio.run(main())
