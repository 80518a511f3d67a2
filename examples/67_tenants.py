"""Keeps tenants apart: each has a database of its own, so that nothing of one reaches another.

You will see two tenants with a session of the same name, and that one cannot see the other's. Handles are cheap: one is
made for each request, and all handles on a database share its connections.
"""

import asyncio
from pathlib import Path

from power_loop import StatefulAgentLoop, create_llm_service_from_env

LLM = create_llm_service_from_env()
TENANTS = {"key-of-acme": "acme", "key-of-zeta": "zeta"}  # in life: your table of customers


def loop_for(api_key: str) -> StatefulAgentLoop:
    """Return a handle on the database of the tenant with this key. On a server, a DSN or a `table_prefix` a tenant."""
    return StatefulAgentLoop(llm=LLM, dsn=f"tenants/{TENANTS[api_key]}.db")


async def handle(api_key: str, sid: str, text: str) -> str:
    """Answer one request."""
    async with loop_for(api_key) as loop:
        await loop.new_session(session_id=sid, may_exist=True)
        return (await loop.send(text, session_id=sid)).final_text


async def main() -> None:
    """Serve two tenants at the same time."""
    Path("tenants").mkdir(exist_ok=True)
    answers = await asyncio.gather(
        handle("key-of-acme", "plan", "Our secret word is ochre."),
        handle("key-of-zeta", "plan", "What is the secret word?"),
    )
    print(*answers, sep="\n")
    for key, tenant in TENANTS.items():
        async with loop_for(key) as loop:
            said = [record.message.text for record in await loop.get_messages("plan")]
            print(f"{tenant}: {said[0]}")


if __name__ == "__main__":
    asyncio.run(main())
