"""Shows the model what changes, such as the time or a cart, without making its prompt new each time.

You will see what stands at the end of each request. It is made for each call and stored nowhere, and the start of the
prompt stays the same, so that the provider's cache goes on serving it.
"""

import asyncio
from datetime import datetime, timezone

from power_loop import HookPoint, LoopConfig, StatefulAgentLoop, ToolContext, create_llm_service_from_env, tool
from power_loop.context import LiveContext, LiveState
from power_loop.hooks import LLMBeforeContext


def now(context: LiveContext) -> str:
    """Say what time it is for this user."""
    return f"It is {datetime.now(timezone.utc):%A} at the user's place, {context.metadata.get('city', 'unknown')}."


def cart(context: LiveContext) -> str | None:
    """Say what the cart holds; the tool's own state is there to look at."""
    things = context.state.get("cart", [])
    return f"In the cart: {', '.join(things)}." if things else None


@tool(effect="idempotent", live=LiveState("cart", cart))
def add(thing: str, context: ToolContext) -> str:
    """Put a thing into the cart."""
    context.state["cart"] = [*context.state.get("cart", []), thing]
    return "done"


def show(context: LLMBeforeContext) -> None:
    """Print the end of a request."""
    print(f"--- round {context.round}\n{context.request.tail}")


async def main() -> None:
    """Fill a cart."""
    async with StatefulAgentLoop(
        llm=create_llm_service_from_env(),
        dsn="app.db",
        tool_registry=[add],
        config=LoopConfig(live=[LiveState("now", now)]),
    ) as loop:
        loop.hooks.add(HookPoint.LLM_BEFORE, show)
        sid = await loop.new_session(metadata={"city": "Ghent"})
        print((await loop.send("Put a teapot into the cart. What is in it?", session_id=sid)).final_text)


if __name__ == "__main__":
    asyncio.run(main())
