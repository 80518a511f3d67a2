"""Is a user's agent as a crash matrix takes it, and the same with defects of its own."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from pathlib import Path
from typing import Any

from power_loop import (
    AgentLifecycle,
    AgentSpec,
    LLMRequest,
    LLMResponse,
    LoopConfig,
    StatefulAgentLoop,
    TextPart,
    Usage,
    agent_tools,
    tool,
)
from power_loop.messages import Role, ToolCallPart
from power_loop.testing import ScriptedLLM, crash_point, crash_problem
from power_loop.timers import Clock

_SHORT_LEASE_S = 0.3


@tool(effect="read")
async def look_up(title: str) -> str:
    """Look a book up."""
    return f"{title} costs 7 euros"


@tool(effect="once")
def order(title: str) -> str:
    """Order a book."""
    crash_point("ordered")
    return f"{title} is ordered"


def say(request: LLMRequest) -> LLMResponse:
    """Answer by what stands in the request: look up and order, then tell."""
    usage = Usage(10 * len(request.messages), 5)
    last = max(at for at, message in enumerate(request.messages) if message.role is Role.USER)
    results = [message for message in request.messages[last:] if message.role is Role.TOOL]
    if not results:
        calls = [ToolCallPart("", spec.name, '{"title": "Emma"}') for spec in request.tools]
        return LLMResponse.of_calls(*calls, usage=usage)
    return LLMResponse.of_text(f"I have {len(results)} results.", usage=usage)


def make_shop(dsn: str, *, clock: Clock | None = None) -> StatefulAgentLoop:
    """Return the agent."""
    return _shop(dsn, [look_up, order], clock)


def make_clockless(dsn: str) -> StatefulAgentLoop:
    """Return the agent as one makes it who thinks of no clock."""
    return _shop(dsn, [look_up, order])


def make_with(dsn: str, *, tools: Any, clock: Clock | None = None) -> StatefulAgentLoop:
    """Return an agent with the tools that it is given."""
    return _shop(dsn, tools, clock)


def _shop(dsn: str, tools: Any, clock: Clock | None = None) -> StatefulAgentLoop:
    return StatefulAgentLoop(llm=ScriptedLLM([say], repeat_last=True), dsn=dsn, tool_registry=tools, clock=clock)


async def think(request: LLMRequest) -> str:
    """Take so long that the lease of the turn is renewed meanwhile."""
    await asyncio.sleep(_SHORT_LEASE_S / 2)
    return "Well."


def make_thinker(dsn: str) -> StatefulAgentLoop:
    """Return an agent with a short lease and a slow model."""
    config = LoopConfig(lease_ttl_s=_SHORT_LEASE_S)
    return StatefulAgentLoop(llm=ScriptedLLM([think], repeat_last=True), dsn=dsn, config=config)


async def buy(loop: StatefulAgentLoop, session_id: str) -> Any:
    """Send the wish for a book."""
    return await loop.send("I want Emma.", session_id=session_id, request_id="buy")


def hand_on(request: LLMRequest) -> LLMResponse:
    """Answer by what stands in the request: give an agent work, then give it more, then tell."""
    results = [message.tool_result for message in request.messages if message.tool_result is not None]
    usage = Usage(20 * len(request.messages), 5)
    if len(results) == 2:
        return LLMResponse.of_text("Both are ordered.", usage=usage)
    arguments = {"agent": "buyer", "input": ("I want Emma.", "I want one more.")[len(results)]}
    if results:
        text = "".join(part.text for part in results[0].content if isinstance(part, TextPart))
        arguments["session_id"] = text.rpartition("session_id='")[2].partition("'")[0]
    return LLMResponse.of_calls(ToolCallPart("", "spawn_agent", json.dumps(arguments)), usage=usage)


def make_office(dsn: str) -> StatefulAgentLoop:
    """Return an agent that lets another one order, with a model and a tool of its own, and speaks to it again."""
    buyer = AgentSpec("buyer", "You buy.", tools=["order"], model="small", lifecycle=AgentLifecycle.LINKED)
    return StatefulAgentLoop(
        llm=ScriptedLLM([hand_on], repeat_last=True),
        dsn=dsn,
        tool_registry=[order, *agent_tools([buyer])],
        config=LoopConfig(models={"small": ScriptedLLM([say], repeat_last=True)}),
    )


# ---- defects ----


def _lines() -> Path:
    return Path(os.environ["POWER_LOOP_CRASH_WORLD"]) / "orders"


@tool(effect="idempotent")
def careless_order(title: str) -> str:
    """Order a book, and call it safe to repeat although it is not."""
    with _lines().open("a") as file:
        file.write(f"{title}\n")
    crash_point("ordered")
    return f"{title} is ordered"


async def one_order(loop: StatefulAgentLoop, session_id: str) -> list[str]:
    """Tell how many books came."""
    count = len(_lines().read_text().splitlines()) if _lines().exists() else 0
    return [] if count == 1 else [f"{count} books came"]


async def buy_without_an_id(loop: StatefulAgentLoop, session_id: str) -> Any:
    """Send the wish for a book so that a repeat is another wish."""
    return await loop.send("I want Emma.", session_id=session_id)


@tool(effect="read")
def leave_a_child(title: str) -> str:
    """Start a process and forget it."""
    subprocess.Popen(["sleep", "120"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return f"{title} is on its way"


@tool(effect="read")
def complain(title: str) -> str:
    """Notice something."""
    crash_problem(f"{title} is out of print")
    return "hm"


async def fail(loop: StatefulAgentLoop, session_id: str) -> Any:
    """Fail without any fault."""
    return await loop.resume(session_id, answers={"nobody": "asked"})  # type: ignore[dict-item]


def give_careless() -> list[Any]:
    """Return the tools of a shop that orders carelessly."""
    return [careless_order]


def give_child() -> list[Any]:
    """Return the tools of a shop that leaves processes behind."""
    return [leave_a_child]


def give_complaint() -> list[Any]:
    """Return the tools of a shop that notices something."""
    return [complain]
