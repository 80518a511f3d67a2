"""Mends a program: a coding agent that reads, edits and runs its tests in a sandbox. Needs bubblewrap.

    python examples/42_coding_agent.py [FOLDER "what to do"]

Without a folder it gets one with a bug in it. You will see each step, then what it changed. Commands and edits go on
unasked, because the sandbox has neither your home nor the network; the folder itself is all that they can spoil.
"""

import asyncio
import sys
import tempfile
from pathlib import Path

from power_loop import (
    LoopConfig,
    PermissionMode,
    PermissionPolicy,
    PermissionRule,
    RuntimeEnv,
    SendLimits,
    StatefulAgentLoop,
    SystemPrompt,
    create_llm_service_from_env,
    tool_preset,
)
from power_loop.events import ToolCallFinished, ToolCallStarted
from power_loop.sandbox import BubblewrapShellBackend

BUGGY = {
    "mean.py": "def mean(numbers):\n    return sum(numbers) / (len(numbers) + 1)\n",
    "test_mean.py": "from mean import mean\n\nassert mean([1, 2, 3]) == 2\nprint('ok')\n",
}
PROMPT = SystemPrompt("You are a careful programmer.").section(
    "How you work",
    "Look before you change anything. Keep a todo list. Change as little as you can. Run the tests before you say that "
    "you are done, and say what you changed in two sentences.",
)
POLICY = PermissionPolicy(rules=(PermissionRule.deny("*", path=".git/*"),), mode=PermissionMode.AUTO)


async def work(folder: Path, task: str) -> None:
    """Give the agent a task in a folder, and show its steps."""
    env = RuntimeEnv(workspace=folder)
    config = LoopConfig(system_prompt=PROMPT, permissions=POLICY, limits=SendLimits(max_rounds=40, max_seconds=900))
    tools = tool_preset("core", env, shell=BubblewrapShellBackend(env))
    async with StatefulAgentLoop(
        llm=create_llm_service_from_env(), dsn="app.db", tool_registry=tools, config=config
    ) as loop:
        sid = await loop.new_session(metadata={"folder": str(folder)})
        async with loop.stream(task, session_id=sid) as events:
            async for event in events:
                match event.payload:
                    case ToolCallStarted(name=name, arguments=arguments):
                        print(f"→ {name} {str(dict(arguments))[:100]}")
                    case ToolCallFinished(is_error=True, name=name):
                        print(f"  {name} failed, and the model is told why")
        print(events.result.final_text)


async def main() -> None:
    """Take a folder and a task, or bring both."""
    if len(sys.argv) == 3:
        await work(Path(sys.argv[1]), sys.argv[2])
        return
    with tempfile.TemporaryDirectory() as name:
        for file, text in BUGGY.items():
            (Path(name) / file).write_text(text)
        await work(Path(name), "`python3 test_mean.py` fails. Mend mean.py.")
        print((Path(name) / "mean.py").read_text(), end="")


if __name__ == "__main__":
    asyncio.run(main())
