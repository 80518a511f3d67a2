"""Runs the commands of a model in a sandbox: Linux namespaces, no network, a read-only system. Needs bubblewrap.

You will see the model's commands and what they gave: it may write its workspace, and sees neither your home nor your
keys nor the network. Where the sandbox cannot be had, nothing runs.
"""

import asyncio
import tempfile
from pathlib import Path

from power_loop import RuntimeEnv, StatefulAgentLoop, create_llm_service_from_env
from power_loop.sandbox import BubblewrapShellBackend
from power_loop.tools import bash_tools


async def main() -> None:
    """Have a model look round."""
    with tempfile.TemporaryDirectory() as workspace:
        shell = BubblewrapShellBackend(RuntimeEnv(workspace=Path(workspace)))
        async with StatefulAgentLoop(
            llm=create_llm_service_from_env(), dsn="app.db", tool_registry=bash_tools(shell)
        ) as loop:
            sid = await loop.new_session(system_prompt="You try commands, one at a time, and say what you found.")
            result = await loop.send(
                "Write the word hello into hello.txt. Then run `env`. Then see whether /root can be listed.",
                session_id=sid,
            )
            for record in await loop.get_messages(sid):
                for call in record.message.tool_calls:
                    print(f"$ {call.arguments}")
                if record.message.tool_result:
                    print(record.message.tool_result.text)
            print(result.final_text)


if __name__ == "__main__":
    asyncio.run(main())
