"""Gives the model tools: a function with type hints is one.

You will see what the model called and what it made of the results. Arguments are checked against the hints before your
code runs; a model that gets them wrong is told every problem and may call again.
"""

import asyncio
from dataclasses import dataclass
from typing import Annotated, Literal

from power_loop import StatefulAgentLoop, ToolContext, create_llm_service_from_env, tool
from power_loop.errors import ToolError

PRICES = {"Oslo": 120, "Rome": 80}


@dataclass
class Flight:
    """A flight."""

    city: str
    at: str
    euros: int


@tool(effect="read")
def find_flights(city: str, cabin: Literal["economy", "business"] = "economy") -> list[Flight]:
    """Find flights to a city."""
    if city not in PRICES:
        raise ToolError(f"nobody flies to {city}; there are flights to {', '.join(PRICES)}")
    return [Flight(city, "9:40", PRICES[city] * (3 if cabin == "business" else 1))]


@tool(effect="idempotent")
async def book(city: str, seats: Annotated[int, "how many people travel"], context: ToolContext) -> str:
    """Book a flight to a city."""
    context.state["booked"] = [*context.state.get("booked", []), city]  # lasts as long as the session
    # Give context.idempotency_key to the airline: it stays the same over every retry and resume of this call.
    return f"{seats} seats to {city} are booked"


async def main() -> None:
    """Book a flight in words."""
    async with StatefulAgentLoop(
        llm=create_llm_service_from_env(), dsn="app.db", tool_registry=[find_flights, book]
    ) as loop:
        sid = await loop.new_session(system_prompt="Find a flight before you book it.")
        result = await loop.send("Two of us want to fly to Rome. Book it.", session_id=sid)
        for record in await loop.get_messages(sid):
            for call in record.message.tool_calls:
                print(f"→ {call.name} {call.arguments}")
        print(result.final_text)


if __name__ == "__main__":
    asyncio.run(main())
