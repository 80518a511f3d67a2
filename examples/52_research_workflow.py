"""Runs many agents by a plan that survives a crash: a workflow, written down as data.

You will see a topic taken apart, each part researched (three at a time), and the report. Plain code decides what comes
next, and every step stands in a journal: started again with the run's id, the program does nothing twice.
"""

import asyncio
import sys

from power_loop import StatefulAgentLoop, create_llm_service_from_env
from power_loop.events import WorkflowStepFinished
from power_loop.workflow import create_workflow, resume_run

PLAN = {
    "type": "object",
    "required": ["subtopics"],
    "properties": {"subtopics": {"type": "array", "items": {"type": "string"}, "maxItems": 5}},
}
SPEC = {
    "name": "research",
    "input": "the Japanese tea ceremony",
    "root": {
        "type": "sequence",
        "steps": [
            {
                "type": "agent",
                "id": "plan",
                "spec": {"name": "planner", "system_prompt": "Break the topic into 3 subtopics."},
                "output_schema": {"name": "Plan", "schema": PLAN},
                "retry": {"attempts": 2},
            },
            {
                "type": "foreach",
                "id": "research",
                "items_from": "plan.subtopics",
                "as": "t",
                "parallel": True,
                "max_concurrency": 3,
                "body": {
                    "type": "agent",
                    "id": "r",
                    "spec": {"name": "researcher", "system_prompt": "Write 2 sentences on {{t}}."},
                    "input": "Subtopic: {{t}}",
                },
            },
            {
                "type": "agent",
                "id": "write",
                "spec": {"name": "writer", "system_prompt": "Make a short report of the notes."},
                "inputs_from": ["research"],
            },
        ],
    },
}


async def main(run_id: str | None = None) -> None:
    """Begin a run, or take one up."""
    async with StatefulAgentLoop(llm=create_llm_service_from_env(), dsn="app.db") as loop:
        loop.event_bus.subscribe(
            lambda event: print(f"[{event.payload.path}: {event.payload.state}]"), types=[WorkflowStepFinished]
        )
        if run_id is None:
            result = await create_workflow(SPEC, parent_loop=loop).run()
        else:
            result = await resume_run(loop, None, run_id)
        print(result.output if result.error is None else result.error)
        print(f"{result.run_id}: {result.status.value}, {len(result.steps)} steps, {result.usage.total_tokens} tokens")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
