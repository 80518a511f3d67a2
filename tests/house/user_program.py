"""Is a program that a user writes: `mypy --strict` reads it, and so holds that all the docs let one give has a type."""

from __future__ import annotations

from pathlib import Path

from power_loop import (
    AgentLifecycle,
    AgentSpec,
    ContentPart,
    Cron,
    Effect,
    Every,
    ImagePart,
    LoopConfig,
    OnUnknown,
    Permission,
    PermissionMode,
    PermissionPolicy,
    PermissionRule,
    RuntimeEnv,
    StatefulAgentLoop,
    TextPart,
    ToolDefinition,
    ToolResult,
    create_llm_service_from_env,
    tool,
)
from power_loop.timers import Missed
from power_loop.workflow import WorkerBootstrap


@tool(effect="read")
def look_up(word: str) -> str:
    """Look a word up."""
    return word


async def main() -> None:
    """Give words for choices, text for paths and lists for tuples; what is kept is the choice, the path, the tuple."""
    rule = PermissionRule("ask", "bash", command="git push *")
    policy = PermissionPolicy(rules=[rule, PermissionRule.allow("look_up")], mode="auto")
    env = RuntimeEnv(workspace=".", read_only_roots=["/usr/share"], home="/tmp", variables=["PATH"], protected=[".git"])
    same = RuntimeEnv(Path(), read_only_roots=[Path("/usr/share")], unsearched=("build",))
    define = ToolDefinition("define", "Define a word.", {"type": "object"}, effect="read", on_unknown="ask")
    agent = AgentSpec("reader", "You read.", tools=["look_up"], permission_mode="read_only", lifecycle="linked")
    every, cron = Every(60, missed="skip"), Cron("0 9 * * *", missed="all")
    worker = WorkerBootstrap(tool_preset="core", workspace=Path(), read_only_roots=["/usr/share"], variables=["PATH"])
    config = LoopConfig(on_unknown="ask", permissions=policy)

    permissions: tuple[Permission, PermissionMode, PermissionMode | None] = (
        rule.permission,
        policy.mode,
        agent.permission_mode,
    )
    effects: tuple[Effect, OnUnknown | None, OnUnknown] = (define.effect, define.on_unknown, config.on_unknown)
    others: tuple[AgentLifecycle, Missed, Missed] = (agent.lifecycle, every.missed, cron.missed)
    folders: tuple[Path, tuple[Path, ...], str | None] = (env.workspace, same.read_only_roots, worker.workspace)
    rules: tuple[PermissionRule, ...] = policy.rules
    shown = ToolResult([TextPart("A chart:"), ImagePart(url="https://example.com/chart.png")])
    seen: str | tuple[ContentPart, ...] = shown.content
    print(permissions, effects, others, folders, rules, seen)

    # What is none of them is still found: these ignores would be reported if they were not needed.
    PermissionPolicy(mode=1)  # type: ignore[arg-type]
    RuntimeEnv(".", variables="PATH")  # type: ignore[arg-type]
    LoopConfig(on_unknwon="ask")  # type: ignore[call-arg]

    async with StatefulAgentLoop(
        llm=create_llm_service_from_env(), dsn="app.db", config=config, tool_registry=[look_up, define]
    ) as loop:
        sid = await loop.new_session()
        result = await loop.send("Hello.", session_id=sid, on_busy="queue")
        print(result.final_text.upper())
