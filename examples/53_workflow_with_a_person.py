"""Has a workflow wait for a person, for minutes or for months, without a process that waits.

    python examples/53_workflow_with_a_person.py                     drafts, asks, and ends
    python examples/53_workflow_with_a_person.py RUN "print it"      answers, and the run goes on

You will see a draft and a question, and in the second process what the answer set going.
"""

import asyncio
import sys

from power_loop import StatefulAgentLoop, create_llm_service_from_env
from power_loop.workflow import create_workflow, get_run, signal_run

SPEC = {
    "name": "letter",
    "input": "Invite the neighbours to the summer party.",
    "root": {
        "type": "sequence",
        "steps": [
            {"type": "agent", "id": "draft", "spec": {"name": "writer", "system_prompt": "Write a short letter."}},
            {"type": "wait", "id": "verdict", "person": "{{draft}}", "choices": ["print it", "throw it away"]},
            {
                "type": "branch",
                "cases": [
                    {
                        "when": {"ref": "verdict", "op": "eq", "value": "print it"},
                        "then": {
                            "type": "agent",
                            "id": "print",
                            "spec": {"name": "printer", "system_prompt": "Confirm in one sentence that it is printed."},
                            "input": "{{draft}}",
                        },
                    }
                ],
            },
        ],
    },
}


async def main(run_id: str = "", answer: str = "") -> None:
    """Begin a run, or answer what one asks."""
    async with StatefulAgentLoop(llm=create_llm_service_from_env(), dsn="app.db") as loop:
        if run_id:
            # A person's step is answered by its path. The end of the block waits for the run, which goes on behind it.
            await signal_run(loop, run_id, "verdict", answer)
        else:
            result = await create_workflow(SPEC, parent_loop=loop).run()
            run_id = result.run_id
            print(result.outputs["draft"])
            print(f"waits for: {', '.join(step.path for step in result.waits_for)}")
    async with StatefulAgentLoop(llm=create_llm_service_from_env(), dsn="app.db") as again:
        found = await get_run(again, run_id)
        print(f"{run_id}: {found.status.value}, {found.output}")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
