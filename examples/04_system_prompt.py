"""Puts a system prompt together from parts: sections, a condition, and when to use which tool.

You will see the prompt as the model gets it, then an answer that keeps to it. It says nothing that you did not say.
"""

import asyncio

from power_loop import LoopConfig, StatefulAgentLoop, SystemPrompt, create_llm_service_from_env, tool


@tool(effect="read", guidance="For prices of today. Discounts are in the rules, not here.")
def find_price(item: str) -> str:
    """Find the price of an item in the shop."""
    return f"{item}: 42 kroner"


IS_MEMBER = True
PROMPT = (
    SystemPrompt("You sell coffee at the harbour of Bergen.")
    .section("Rules", "Answer in one sentence. Prices are in kroner.")
    .section("Members", "Members get ten per cent off.", when=IS_MEMBER)
    .tools("When to use which tool")
)


async def main() -> None:
    """Show the prompt and ask for a price."""
    async with StatefulAgentLoop(
        llm=create_llm_service_from_env(),
        dsn="app.db",
        tool_registry=[find_price],
        config=LoopConfig(system_prompt=PROMPT),
    ) as loop:
        print(PROMPT.text(loop.tools), end="\n\n")
        sid = await loop.new_session()
        print((await loop.send("What is a coffee for me?", session_id=sid)).final_text)


if __name__ == "__main__":
    asyncio.run(main())
