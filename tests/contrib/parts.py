"""Makes the small things that the tests of sinks are about: a loop, a run with a tool, and a sub-agent."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from power_loop import AgentSpec, StatefulAgentLoop, ToolRegistry, agent_tools
from power_loop.testing import ScriptedLLM, call


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def fail() -> str:
    """Fail."""
    raise ValueError("no")


def make_loop(folder: Path, steps: Iterable[Any], **more: Any) -> StatefulAgentLoop:
    """Return a loop on a database in `folder`, whose model says `steps`."""
    return StatefulAgentLoop(
        llm=ScriptedLLM(steps),
        dsn=str(folder / "app.db"),
        tool_registry=more.pop("tools", ToolRegistry([add, fail])),
        **more,
    )


async def run(loop: StatefulAgentLoop, text: str = "1 + 2?") -> str:
    """Send one input in a session of its own, and return the session's id."""
    sid = await loop.new_session()
    await loop.send(text, session_id=sid)
    return sid


SUM = call("add", {"a": 1, "b": 2})
RESEARCHER = AgentSpec(name="researcher", system_prompt="Find out.", tools=("add",))


def with_researcher() -> ToolRegistry:
    """Return tools with which a model gives work to a sub-agent."""
    return ToolRegistry([add, *agent_tools([RESEARCHER])])
