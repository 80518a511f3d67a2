"""Asks a person at the terminal before something happens that cannot be undone.

You will see the call with its arguments, and be asked. The wait is a row in the database: press Ctrl-C instead of
answering, and any process may bring the answer tomorrow (`21_approve_in_browser.py` does).
"""

import asyncio

from power_loop import Answer, Approve, Deny, PendingCall, StatefulAgentLoop, create_llm_service_from_env, tool


@tool(requires_approval=True)
def delete_account(name: str) -> str:
    """Delete a customer's account, for good."""
    return f"The account of {name} was deleted."


async def ask(call: PendingCall) -> Answer:
    """Ask about one call."""
    said = await asyncio.to_thread(input, f"{call.name} {dict(call.arguments)} [y, or a reason why not] ")
    return Approve() if said.strip().lower() in ("y", "yes") else Deny(said)


async def main() -> None:
    """Send, and answer until nothing waits any more."""
    async with StatefulAgentLoop(
        llm=create_llm_service_from_env(), dsn="app.db", tool_registry=[delete_account]
    ) as loop:
        sid = await loop.new_session(system_prompt="You look after the customers of a shop.")
        result = await loop.send("Delete the accounts of Ben and Eve.", session_id=sid)
        while result.pending:
            answers = {call.call_id: await ask(call) for call in result.pending}
            result = await loop.resume(sid, answers=answers)
        print(result.final_text)


if __name__ == "__main__":
    asyncio.run(main())
