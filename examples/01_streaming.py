"""Streams an answer: each piece is shown as the model says it.

You will see the answer grow, then how the turn ended and what it took.
"""

import asyncio

from power_loop import StatefulAgentLoop, create_llm_service_from_env
from power_loop.events import StreamReset, TextDelta


async def main() -> None:
    """Stream one answer to the terminal."""
    async with StatefulAgentLoop(llm=create_llm_service_from_env(), dsn="app.db") as loop:
        sid = await loop.new_session()
        async with loop.stream("Write a haiku about rivers.", session_id=sid) as events:
            async for event in events:
                match event.payload:
                    case TextDelta(text=text):
                        print(text, end="", flush=True)
                    case StreamReset():  # the connection broke, and the model is asked again: forget what was shown
                        print("\n[once more]")
        result = events.result
        print(f"\n[{result.status.value}, {result.usage.output_tokens} tokens]")


if __name__ == "__main__":
    asyncio.run(main())
