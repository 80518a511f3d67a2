"""Starts a command beside the conversation: the model goes on talking while it runs, and looks after it later.

You will see a build started, another question answered meanwhile, and the build's end. The record of it stands in the
session; the commands end with this process, and what was lost so is told.
"""

import asyncio
import tempfile
from pathlib import Path

from power_loop import RuntimeEnv, StatefulAgentLoop, create_llm_service_from_env
from power_loop.sandbox import LocalShellBackend
from power_loop.tools import background_tools


async def main() -> None:
    """Build, talk, and look."""
    with tempfile.TemporaryDirectory() as workspace:
        # A plain shell holds nothing back: 41_sandbox.py has one that does.
        shell = LocalShellBackend(RuntimeEnv(workspace=Path(workspace)))
        async with StatefulAgentLoop(
            llm=create_llm_service_from_env(), dsn="app.db", tool_registry=background_tools(shell)
        ) as loop:
            sid = await loop.new_session()
            for text in (
                "Start `for n in 1 2 3; do echo step $n; sleep 0.1; done` in the background, and do not wait for it.",
                "Name a river meanwhile.",
                "Wait for the command to end, and tell me its last line.",
            ):
                print(f"> {text}\n{(await loop.send(text, session_id=sid)).final_text}")


if __name__ == "__main__":
    asyncio.run(main())
