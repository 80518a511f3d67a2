"""Looks in at points of a turn: a hook refuses, changes or delays what is about to happen, or just watches.

You will see a payment that is refused, one that is capped, and how long the turn took. The same hooks run on `resume`,
after a crash and after a person's answer; one that raises where it may refuse keeps things from happening.
"""

import asyncio
import time

from power_loop import HookPoint, StatefulAgentLoop, create_llm_service_from_env, tool
from power_loop.hooks import Rewrite, SendEndContext, SendStartContext, ToolBeforeContext, Veto

begun: dict[str, float] = {}


@tool(effect="idempotent")
def pay(euros: int, name: str) -> str:
    """Pay an amount of money to a person."""
    return f"Paid {euros} euros to {name}."


def spending_limit(context: ToolBeforeContext) -> Veto | Rewrite | None:
    """Refuse what is far too much, and cap what is a little too much."""
    euros = context.call.arguments.get("euros", 0)
    if euros > 500:
        return Veto("payments above 500 euros are made by a person")
    if euros > 50:
        return Rewrite(arguments={**context.call.arguments, "euros": 50})
    return None


def start_watch(context: SendStartContext) -> None:
    """Note when a turn began."""
    begun[context.session_id] = time.monotonic()


def stop_watch(context: SendEndContext) -> None:
    """Tell how long it took. Nothing here can fail the turn: it is durable already."""
    print(f"[{context.result.status.value} in {time.monotonic() - begun.pop(context.session_id):.1f} s]")


async def main() -> None:
    """Pay two people."""
    async with StatefulAgentLoop(llm=create_llm_service_from_env(), dsn="app.db", tool_registry=[pay]) as loop:
        loop.hooks.add(HookPoint.TOOL_BEFORE, spending_limit)
        loop.hooks.add(HookPoint.SEND_START, start_watch)
        loop.hooks.add(HookPoint.SEND_END, stop_watch)
        sid = await loop.new_session()
        result = await loop.send("Pay Anna 900 euros and Bob 60 euros.", session_id=sid)
        for record in await loop.get_messages(sid):
            if record.message.tool_result:
                print(f"→ {record.message.tool_result.text}")
        print(result.final_text)


if __name__ == "__main__":
    asyncio.run(main())
