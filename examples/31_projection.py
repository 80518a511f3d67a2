"""Shows finished sends to the model in short: a line for each call, in place of calls and results as they were.

You will see what the second request begins with, and that the log has everything. A tool says itself what is worth
keeping of a call.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from power_loop import HookPoint, LoopConfig, Projection, StatefulAgentLoop, create_llm_service_from_env, tool
from power_loop.hooks import LLMBeforeContext


def in_short(arguments: Mapping[str, Any], result: str) -> str:
    """Say what is worth keeping of a list of orders."""
    return f"{len(result.splitlines())} orders of {arguments['customer']}, the first is {result.split()[0]}"


@tool(effect="read", project=in_short)
def list_orders(customer: str) -> str:
    """List the orders of a customer."""
    return "\n".join(f"{number} a lamp, ordered in spring, delivered, paid" for number in range(4711, 4791))


def show(context: LLMBeforeContext) -> None:
    """Print what the model is shown."""
    for message in context.request.messages:
        print(f"  {message.role.value}: {message.text[:100]}")
    print("  --")


async def main() -> None:
    """Ask two things, and look at the requests."""
    async with StatefulAgentLoop(
        llm=create_llm_service_from_env(),
        dsn="app.db",
        tool_registry=[list_orders],
        config=LoopConfig(projection=Projection()),
    ) as loop:
        sid = await loop.new_session()
        print((await loop.send("How many orders does Ada have?", session_id=sid)).final_text)
        loop.hooks.add(HookPoint.LLM_BEFORE, show)
        print((await loop.send("Thank you. And what did she order?", session_id=sid)).final_text)
        print(f"the log has {len(await loop.get_messages(sid))} messages")


if __name__ == "__main__":
    asyncio.run(main())
