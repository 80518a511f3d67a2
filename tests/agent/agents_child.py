"""Lets processes run agents with sub-agents and die at a point, and others find what they left: a fork for each life.

`python -m tests.agent.agents_child DSN PREFIX FOLDER STORY FIRST EVERY` prints a line of JSON for each point at which
it killed a process: the first one, and every so many behind it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from power_loop import (
    AgentLifecycle,
    AgentSpec,
    LLMRequest,
    LLMResponse,
    LoopConfig,
    StatefulAgentLoop,
    ToolContext,
    Usage,
    agent_tools,
    tool,
)
from power_loop.llm import ModelInfo
from power_loop.messages import Role, ToolCallPart

A_CALL = Usage(10, 5)
_PASSES = 2


def _call(*wanted: tuple[str, dict[str, Any]]) -> LLMResponse:
    parts = [ToolCallPart("", name, json.dumps(arguments)) for name, arguments in wanted]
    return LLMResponse.of_calls(*parts, usage=A_CALL)


def _work(name: str) -> list[Any]:
    return [_call(("charge", {"by": name}), ("save", {"by": name})), f"{name} has worked."]


def _spawn(*names: str) -> LLMResponse:
    return _call(*[("spawn_agent", {"agent": name, "input": f"Work, {name}."}) for name in names])


#: By story and system prompt the replies in order: what is said depends on the transcript alone.
SCRIPTS: dict[str, dict[str, list[Any]]] = {
    "waits": {
        "top": [_spawn("a", "c"), "All is done."],
        "a": [_spawn("b"), *_work("a")],
        "b": _work("b"),
        "c": _work("c"),
    },
    "detached": {"top": [_spawn("d"), "It is at work.", "I have heard of it."], "d": _work("d")},
}
SPECS = [
    AgentSpec("a", "a"),
    AgentSpec("b", "b", tools=["charge", "save"]),
    AgentSpec("c", "c", tools=["charge", "save"]),
    AgentSpec("d", "d", tools=["charge", "save"], lifecycle=AgentLifecycle.DETACHED),
]


class Model:
    """Says what the script of the system prompt says next."""

    info = ModelInfo("story", "story")

    def __init__(self, story: str) -> None:
        self._scripts = SCRIPTS[story]

    async def generate(self, request: LLMRequest, emit: Any) -> LLMResponse:
        """Answer by what stands in the request."""
        await asyncio.sleep(0)
        script = self._scripts[request.system or "top"]
        reply = script[sum(message.role is Role.ASSISTANT for message in request.messages)]
        return LLMResponse.of_text(reply, usage=A_CALL) if isinstance(reply, str) else reply


def _tools(effects: Path) -> list[Any]:
    def have(name: str, by: str, context: ToolContext) -> str:
        file = os.open(effects, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.write(file, f"{name}:{by} {context.idempotency_key}\n".encode())
        os.close(file)
        return "done"

    @tool(effect="once")
    async def charge(by: str, context: ToolContext) -> str:
        """Have an effect that must not come twice."""
        return have("charge", by, context)

    @tool(effect="idempotent")
    async def save(by: str, context: ToolContext) -> str:
        """Have an effect that is the same however often it comes."""
        return have("save", by, context)

    return [charge, save, *agent_tools(SPECS)]


class Life:
    """Is one process: where it lives, and at which point it dies."""

    def __init__(self, dsn: str, prefix: str, folder: Path, story: str, sid: str) -> None:
        self.story, self.sid = story, sid
        self._dsn, self._prefix = dsn, prefix
        self._folder = folder / sid
        self._folder.mkdir(exist_ok=True)
        self.effects = self._folder / "effects"

    async def begin(self, kill_at: int | None) -> None:
        """Send, and end once everything has come to its end."""
        seen: list[str] = []

        def on_point(point: str, name: str) -> None:
            if kill_at is not None and len(seen) == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            seen.append(f"{point} {name}")

        # Closing it waits for what works on in the background.
        async with self._loop() as loop:
            store: Any = await loop.get_store()
            await loop.new_session(session_id=self.sid)
            store.on_point = on_point
            await loop.send("Go.", session_id=self.sid, request_id="once")
        (self._folder / "points").write_text(json.dumps(seen), "utf-8")

    async def go_on(self) -> None:
        """Find what was left, and write down what has become of it."""
        for _ in range(_PASSES):
            async with self._loop() as loop:
                await loop.recover()
                await loop.send("Go.", session_id=self.sid, request_id="once")
        async with self._loop() as loop:
            store = await loop.get_store()
            result = await loop.send("Go.", session_id=self.sid, request_id="once")
            stats = await loop.get_session_stats(self.sid)
            tree = [self.sid]
            for parent in tree:
                tree += [one.id for one in (await loop.list_sessions(parent_id=parent)).items]
            heads = [await loop.get_session(one) for one in tree]
            sends = [await store.get_send(one.id) for one in heads]
            messages = await loop.get_messages(self.sid)
            facts = {
                "status": result.status.value,
                "text": result.final_text,
                "tokens": result.usage.total_tokens,
                "children_tokens": result.children_usage.total_tokens,
                "stats_tokens": stats.usage.total_tokens,
                "model_calls": sum([(await loop.get_session_stats(one)).model_calls for one in tree]),
                "sessions": len(tree),
                "sends": [one.send_count for one in heads],
                "rest": [None if one is None else one.status.value for one in sends],
                "leases": [one.owner for one in heads],
                "inputs": [one.message.text for one in messages if one.message.role is Role.USER],
                "effects": self.effects.read_text("utf-8").splitlines() if self.effects.exists() else [],
                "stalled": [str(one) for one in await loop.recover(drive=False)],
                "findings": [str(one) async for one in store.diagnose() if one.is_problem],
            }
            (self._folder / "facts").write_text(json.dumps(facts), "utf-8")

    def left(self, name: str) -> Any:
        """Return what a life wrote down."""
        return json.loads((self._folder / name).read_text("utf-8"))

    def _loop(self) -> StatefulAgentLoop:
        return StatefulAgentLoop(
            llm=Model(self.story),
            dsn=self._dsn,
            table_prefix=self._prefix,
            tool_registry=_tools(self.effects),
            config=LoopConfig(),
        )


def live(work: Coroutine[Any, Any, None]) -> int:
    """Run something in a process of its own and return how that ended."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            asyncio.run(work)
            code = 0
        finally:
            sys.stderr.flush()
            os._exit(code)
    work.close()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def main() -> None:
    """Kill a process at every so many points, and tell what the next one made of it."""
    dsn, prefix, folder, story, first, every = sys.argv[1:]
    where = (dsn, prefix, Path(folder), story)
    whole = Life(*where, f"{story}_whole")
    assert live(whole.begin(None)) == 0
    points = whole.left("points")
    for at in range(int(first), len(points), int(every)):
        life = Life(*where, f"{story}_{at}")
        # What is side by side may come in another order, so that a life may pass a point less.
        died = live(life.begin(at))
        assert died in (0, -signal.SIGKILL), died
        assert live(life.go_on()) == 0
        print(json.dumps({"point": f"{at} {points[at]}", **life.left("facts")}), flush=True)


if __name__ == "__main__":
    main()
