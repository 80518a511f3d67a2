"""Lets a model make workflows itself: it checks a spec, submits it, follows the run and stops it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from power_loop.agent.loop import StatefulAgentLoop
from power_loop.contracts.budgets import Budget
from power_loop.contracts.errors import AgentError, RunNotFoundError, ToolError, WorkflowSpecError
from power_loop.contracts.session_ids import RUN_PREFIX
from power_loop.contracts.states import Effect
from power_loop.contracts.tools import ToolContext, ToolDefinition
from power_loop.core.turn.turn import id_of_place
from power_loop.workflow.executors import LeafExecutor
from power_loop.workflow.parse import problems_text, validate_workflow
from power_loop.workflow.run import DEFAULT_CONCURRENCY, WorkflowResult, cancel_run, create_workflow, get_run

#: How much of a run's output its tool shows.
MAX_SHOWN_CHARS = 20_000

_SPEC = {
    "type": "object",
    "description": (
        "The workflow: {name, input?, root}. root is a node: {type: 'agent', id, spec: {name, system_prompt}, input?,"
        " output_schema?, inputs_from?}, {type: 'sequence' | 'parallel', steps: [...]}, {type: 'foreach', id,"
        " items_from, as, parallel?, body}, {type: 'branch', cases: [{when, then}], else?}, {type: 'loop', id, body,"
        " until, max_iterations}, {type: 'tool', id, tool, args}. Texts may refer to {{input}}, {{item}} and"
        " {{id.path}}."
    ),
}
_RUN_ID = {"type": "string", "description": "What submit_workflow gave."}
_GUIDANCE = (
    "For work with many independent parts, or steps that have to come in an order, write a workflow: its steps are run"
    " by plain code, side by side where they can be, and survive a crash. Check it first, mend every problem, then"
    " submit it; you hear of its end in this conversation and need not ask for it again and again."
)


def workflow_tools(
    loop: StatefulAgentLoop,
    *,
    executor: LeafExecutor | None = None,
    budget: Budget | None = None,
    max_concurrency: int = DEFAULT_CONCURRENCY,
) -> tuple[ToolDefinition, ...]:
    """Return the tools `check_workflow`, `submit_workflow`, `get_workflow` and `cancel_workflow` for models of `loop`.

    A run stands below the session that submitted it, and has no more than that; its leaves run in `executor`, and may
    take `budget` together. A session sees and stops its own runs only.
    """

    async def check_workflow(spec: dict[str, Any]) -> str:
        problems = validate_workflow(spec)
        return problems_text(problems) if problems else "The workflow can be run."

    async def submit_workflow(context: ToolContext, spec: dict[str, Any], input: Any = None) -> str:
        given: dict[str, Any] = {} if input is None else {"input": input}
        try:
            workflow = create_workflow(
                spec,
                parent_loop=loop,
                parent_session_id=context.session_id,
                executor=executor,
                budget=budget,
                max_concurrency=max_concurrency,
                # The same however often this call runs.
                run_id=id_of_place(RUN_PREFIX, context.idempotency_key),
                **given,
            )
            run_id = await workflow.start(detached=True)
        except (WorkflowSpecError, AgentError) as error:
            raise ToolError(error.message) from error
        return f"It runs as {run_id}. You hear of its end in this conversation."

    async def get_workflow(context: ToolContext, run_id: str) -> str:
        return _shown(await _own(context, run_id))

    async def cancel_workflow(context: ToolContext, run_id: str) -> str:
        await _own(context, run_id)
        was_stopped = await cancel_run(loop, run_id, reason="its agent stopped it")
        return "It is stopped." if was_stopped else "It had ended already."

    async def _own(context: ToolContext, run_id: str) -> WorkflowResult:
        store = await loop.get_store()
        try:
            run = await store.get_run(run_id)
        except RunNotFoundError:
            run = None
        if run is None or run.parent_session_id != context.session_id:
            raise ToolError(f"there is no run {run_id!r:.80} of yours: give the run_id that submit_workflow gave")
        return await get_run(loop, run_id)

    return (
        ToolDefinition(
            "check_workflow",
            "Tell all that is wrong with a workflow, without running it.",
            _schema(spec=_SPEC),
            check_workflow,
            effect=Effect.READ,
            guidance=_GUIDANCE,
        ),
        ToolDefinition(
            "submit_workflow",
            "Start a workflow in the background and get its run_id.",
            _schema(spec=_SPEC, optional={"input": {"description": "What {{input}} stands for."}}),
            submit_workflow,
            effect=Effect.IDEMPOTENT,
            takes_context="context",
        ),
        ToolDefinition(
            "get_workflow",
            "Look how a workflow stands: its status, what its steps gave so far, what it waits for.",
            _schema(run_id=_RUN_ID),
            get_workflow,
            effect=Effect.READ,
            takes_context="context",
        ),
        ToolDefinition(
            "cancel_workflow",
            "Stop a workflow and everything that it set going.",
            _schema(run_id=_RUN_ID),
            cancel_workflow,
            effect=Effect.IDEMPOTENT,
            takes_context="context",
        ),
    )


def _schema(*, optional: Mapping[str, Any] | None = None, **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {**properties, **(optional or {})},
        "required": list(properties),
        "additionalProperties": False,
    }


def _shown(result: WorkflowResult) -> str:
    shown = {
        "status": result.status.value,
        "output": result.output,
        "error": result.error,
        "steps": {step.path: step.state for step in result.steps},
        "outputs": result.outputs,
        "waits_for": [step.path for step in result.waits_for],
    }
    text = json.dumps(shown, ensure_ascii=False)
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]} … (cut)"
