"""Lets the model read a folder, and nothing else: the tools of `explore` change nothing and leave it never.

    python examples/40_files.py FOLDER "What is this project about?"

You will see which files it looked at, and its answer. Links that lead out of the folder, pipes and devices are refused.
"""

import asyncio
import sys
from pathlib import Path

from power_loop import RuntimeEnv, StatefulAgentLoop, create_llm_service_from_env, tool_preset
from power_loop.events import ToolCallStarted


async def main(folder: str, question: str) -> None:
    """Ask something about a folder."""
    tools = tool_preset("explore", RuntimeEnv(workspace=Path(folder)))
    async with StatefulAgentLoop(llm=create_llm_service_from_env(), dsn="app.db", tool_registry=tools) as loop:
        sid = await loop.new_session(system_prompt="Answer from the files. Name the file that says it.")
        async with loop.stream(question, session_id=sid) as events:
            async for event in events:
                if isinstance(event.payload, ToolCallStarted):
                    print(f"→ {event.payload.name} {dict(event.payload.arguments)}")
        print(events.result.final_text)


if __name__ == "__main__":
    asyncio.run(main(*(sys.argv[1:] or [".", "What is in this folder?"])))
