"""Lets a model give work to sub-agents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from power_loop.agent.subagents import SPAWN_AGENT
from power_loop.contracts.agent_spec import AgentLifecycle, AgentSpec
from power_loop.contracts.errors import AgentError, AgentSpecError, ConfigError, SessionError, ToolError
from power_loop.contracts.states import Effect
from power_loop.contracts.tools import ToolContext, ToolDefinition, ToolOutput

#: What an agent is called that a model described itself.
INLINE_NAME = "helper"

_GUIDANCE = (
    "Give a sub-agent work that stands by itself and whose details you do not need: it sees nothing of this"
    " conversation, so its input has to say everything, and you get nothing but its answer. Several calls in one reply"
    " work at the same time. Do small things yourself."
)


def agent_tools(
    specs: Sequence[AgentSpec] = (), *, allow_inline: bool = False, models: Sequence[str] = ()
) -> tuple[ToolDefinition, ...]:
    """Return the tool `spawn_agent`, with which a model gives work to the agents of `specs` by name.

    With `allow_inline` it may describe agents of its own: a prompt, and names of tools that it has itself; of `models`,
    names in `LoopConfig.models`, it may choose one then. Raises `config.invalid`, `agent.invalid_spec`.
    """
    by_name = {spec.name: spec for spec in _checked(specs)}
    if not by_name and not allow_inline:
        raise ConfigError("there is no agent that spawn_agent could run: give specs, or allow_inline=True")

    async def spawn_agent(
        context: ToolContext,
        input: str,
        agent: str | None = None,
        session_id: str | None = None,
        prompt: str | None = None,
        tools: list[str] | None = None,
        model: str | None = None,
    ) -> ToolOutput:
        spec = _inline(prompt, tools, model) if agent is None else by_name[agent]
        try:
            return await context.run_agent(spec, input, session_id=session_id)
        except (AgentError, SessionError) as error:
            raise ToolError(error.message) from error

    return (
        ToolDefinition(
            SPAWN_AGENT,
            _description(by_name),
            _schema(by_name, allow_inline=allow_inline, models=tuple(models)),
            spawn_agent,
            effect=Effect.IDEMPOTENT,
            # Its own limits and those of the send end it.
            timeout_s=None,
            takes_context="context",
            guidance=_GUIDANCE,
        ),
    )


def _checked(specs: Any) -> list[AgentSpec]:
    found = list(specs)
    if not all(isinstance(one, AgentSpec) for one in found):
        raise ConfigError(f"specs is {specs!r:.200}: give a list of AgentSpecs")
    names = [one.name for one in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise AgentSpecError(f"several agents are called {', '.join(map(repr, twice))}: give each a name of its own")
    return found


def _inline(prompt: str | None, tools: list[str] | None, model: str | None) -> AgentSpec:
    if not prompt or not prompt.strip():
        raise ToolError("say which agent, or give a prompt that says what the agent is and does")
    return AgentSpec(INLINE_NAME, prompt, tools=() if tools is None else tools, model=model)


def _description(by_name: Mapping[str, AgentSpec]) -> str:
    lines = ["Give work to a sub-agent and get its answer."]
    lines += [f"- {spec.name}: {spec.description or spec.system_prompt[:_SHOWN_CHARS]}" for spec in by_name.values()]
    return "\n".join(lines)


# Of a prompt, where a spec does not say what it is for.
_SHOWN_CHARS = 200


def _schema(by_name: Mapping[str, AgentSpec], *, allow_inline: bool, models: tuple[str, ...]) -> dict[str, Any]:
    properties: dict[str, Any] = {
        "input": {"type": "string", "minLength": 1, "description": "The work, with all that has to be known for it."}
    }
    if by_name:
        properties["agent"] = {"type": "string", "enum": list(by_name), "description": "Which agent."}
    if any(spec.lifecycle is AgentLifecycle.LINKED for spec in by_name.values()):
        properties["session_id"] = {
            "type": "string",
            "description": "To go on talking to an agent that has answered before: the session_id that it gave.",
        }
    if allow_inline:
        properties["prompt"] = {
            "type": "string",
            "description": "For an agent that is none of these: what it is, and how it works.",
        }
        properties["tools"] = {
            "type": "array",
            "items": {"type": "string"},
            "description": "Beside a prompt: the names of those of your own tools that it gets. Without, it has none.",
        }
        if models:
            properties["model"] = {"type": "string", "enum": list(models), "description": "Beside a prompt: its model."}
    return {
        "type": "object",
        "properties": properties,
        "required": ["input"] if allow_inline or not by_name else ["agent", "input"],
        "additionalProperties": False,
    }
