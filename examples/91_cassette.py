"""Records a model once, and plays it ever after: a test with real answers that needs no key and no network.

You will see the model asked in the first run and not in the second, and what a request that was not recorded says. A
cassette is a text file that reads well in a diff, and holds no key.
"""

import asyncio

from power_loop import LLMService, StatefulAgentLoop, create_llm_service_from_env, tool
from power_loop.errors import LLMError
from power_loop.testing import Cassette, RecordMode


@tool(effect="read")
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


async def ask(model: LLMService, question: str) -> str:
    """Ask the agent that is tested."""
    async with StatefulAgentLoop(llm=model, dsn=":memory:", tool_registry=[add]) as loop:
        return (await loop.send(question, session_id=await loop.new_session())).final_text


async def main() -> None:
    """Record, play, and ask something else."""
    question = "Add 17 and 4."
    with Cassette("add.jsonl", create_llm_service_from_env, record=RecordMode.ONCE) as model:
        print("first: ", await ask(model, question))
    with Cassette("add.jsonl") as model:
        print("played:", await ask(model, question))
    try:
        with Cassette("add.jsonl") as model:
            await ask(model, "Add 17 and 5.")
    except LLMError as error:
        print(error.message)


if __name__ == "__main__":
    asyncio.run(main())
