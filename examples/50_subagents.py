"""Gives work to other agents: each has a prompt, a session and a context of its own, and gives back its answer.

You will see two researchers at work at the same time, then their parent's answer, and what all of them took together. A
child never has more tools, budget or rights than its parent.
"""

import asyncio

from power_loop import AgentSpec, SendLimits, StatefulAgentLoop, agent_tools, create_llm_service_from_env, tool
from power_loop.events import AgentFinished, AgentStarted

PAGES = {"teal": "a blue-green, named after a duck", "ochre": "a yellow earth, used in caves"}


@tool(effect="read")
def look_up(word: str) -> str:
    """Look a word up in the encyclopedia."""
    return PAGES.get(word.lower(), "there is no page about that")


RESEARCHER = AgentSpec(
    "researcher",
    "You look one thing up and answer in one sentence.",
    description="finds out what something is",
    tools=["look_up"],
    limits=SendLimits(max_rounds=4),
)


async def main() -> None:
    """Compare two colors, by two agents."""
    async with StatefulAgentLoop(
        llm=create_llm_service_from_env(),
        dsn="app.db",
        tool_registry=[look_up, *agent_tools([RESEARCHER])],
    ) as loop:
        sid = await loop.new_session(
            system_prompt="Give each thing to look up to a researcher of its own, all at once."
        )
        async with loop.stream("Compare teal and ochre.", session_id=sid) as events:
            async for event in events:
                match event.payload:
                    case AgentStarted(name=name):
                        print(f"{name} begins")
                    case AgentFinished(result=found):
                        print(f"found: {found.final_text}")
        result = events.result
        print(result.final_text)
        print(f"[{len((await loop.list_sessions(parent_id=sid)).items)} agents took a part of the tokens:", end=" ")
        print(f"{result.children_usage.total_tokens} of {result.usage.total_tokens}]")


if __name__ == "__main__":
    asyncio.run(main())
