"""Runs each agent of a workflow in a process of its own, in a sandbox, without the model's key. Needs bubblewrap.

You will see one worker a step. It has an empty folder, a database of its own, no network, and asks its parent for each
model call over a pipe. Where the sandbox cannot be had, no step runs.
"""

import asyncio

from power_loop import StatefulAgentLoop, create_llm_service_from_env
from power_loop.workflow import BubblewrapWorkerLauncher, SubprocessExecutor, WorkerBootstrap, create_workflow

SPEC = {
    "name": "counting",
    "root": {
        "type": "foreach",
        "items": ["the first ten primes", "the first ten squares"],
        "as": "what",
        "parallel": True,
        "body": {
            "type": "agent",
            "id": "count",
            "spec": {
                "name": "counter",
                "system_prompt": "Work it out with bash, and answer with the numbers alone.",
                "tools": ["bash"],
                "limits": {"max_rounds": 6},
            },
            "input": "Which are {{what}}?",
        },
    },
}


async def main() -> None:
    """Count in two sandboxes."""
    executor = SubprocessExecutor(
        bootstrap=WorkerBootstrap(llm="proxy", tool_preset="core"),
        launcher=BubblewrapWorkerLauncher(),
        timeout_s=120,
    )
    async with StatefulAgentLoop(llm=create_llm_service_from_env(), dsn="app.db") as loop:
        try:
            result = await create_workflow(SPEC, parent_loop=loop, executor=executor).run()
        finally:
            await executor.aclose()
    print(result.status.value)
    for answer in result.output or [result.error]:
        print(answer)


if __name__ == "__main__":
    asyncio.run(main())
