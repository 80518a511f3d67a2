"""Runs a step that is one tool call: it stands in the ledger of a session below the run's, as a model's call does."""

from __future__ import annotations

import json
from typing import Any

from power_loop.agent.subagents import Agents
from power_loop.contracts.agent_spec import AgentSpec
from power_loop.contracts.cancellation import CancellationToken
from power_loop.contracts.errors import ToolError
from power_loop.contracts.limits import SendLimits
from power_loop.contracts.llm import Emit, LLMRequest, LLMResponse, ModelInfo, Usage
from power_loop.contracts.messages import Role, TextPart, ToolCallPart
from power_loop.contracts.states import CallState, Effect, SendStatus
from power_loop.core.turn.turn import OpenCall, Turn
from power_loop.workflow.actions import StartTool
from power_loop.workflow.executors import LeafOutcome
from power_loop.workflow.leaf import outcome_of

#: The code of a step whose `once` call nobody saw the end of.
UNKNOWN = "tool.outcome_unknown"
_CALL_ID = "call_step"
# It waits, or it did not run: the send says why.
_NOT_RUN = (SendStatus.WAITING_FOR_INPUT, SendStatus.CANCELLED, SendStatus.TOOL_CALLS_EXCEEDED)
# One call and no second one, also where a person's answer is brought by a turn that asks a real model.
_LIMITS = SendLimits(max_rounds=1, max_tool_calls=1)


class StepCaller:
    """Stands where a model stands and asks for one call; satisfies `LLMService`. It says nothing of its own."""

    def __init__(self, tool: str, arguments: str) -> None:
        self._call = ToolCallPart(_CALL_ID, tool, arguments)

    @property
    def info(self) -> ModelInfo:
        """What it is."""
        return ModelInfo("power-loop", "workflow-tool-step")

    async def generate(self, request: LLMRequest, emit: Emit) -> LLMResponse:
        """Ask for the call, and be content with whatever came of it."""
        if any(message.role is Role.TOOL for message in request.messages):
            return LLMResponse.of_text("(done)", usage=Usage())
        return LLMResponse.of_calls(self._call, usage=Usage())


async def run_tool_step(
    turn: Turn, agents: Agents, action: StartTool, *, key: str, stopped: CancellationToken
) -> LeafOutcome:
    """Return what became of the call: its output is the JSON that its result says, and the text where that is none."""
    call = OpenCall(
        0, 0, action.path, "workflow", "", Effect.IDEMPOTENT, CallState.STARTED, key, attempt=action.attempt
    )
    spec = AgentSpec(f"tool {action.tool}"[:64], "(a step of a workflow)", tools=(action.tool,), limits=_LIMITS)
    arguments = json.dumps(dict(action.args), ensure_ascii=False)
    caller = StepCaller(action.tool, arguments)
    asked = f"{action.tool} {arguments}"
    result = await agents.run_leaf(turn, call, spec, asked, stopped=stopped, caller=caller)
    if result.status in _NOT_RUN:
        return outcome_of(result)
    store, session_id = turn.kit.store, result.session_id
    ledger = await store.get_calls(session_id)
    if not ledger:
        return outcome_of(result)
    content = await store.get_tool_result(session_id, ledger[0].call_id) or ()
    text = "".join(part.text for part in content if isinstance(part, TextPart))
    state = ledger[0].state
    if state is CallState.SUCCEEDED:
        return LeafOutcome(SendStatus.COMPLETED, text, _value_of(text), session_id=session_id)
    code = UNKNOWN if state is CallState.UNKNOWN else ToolError.code
    return LeafOutcome.failed(code, text or f"the call of {action.tool} ended as {state.value}", session_id=session_id)


def _value_of(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
