"""Lets processes run a workflow and die at a point, and others go on with what they left: a fork for each life.

`python -m tests.workflow.runs_child DSN PREFIX FOLDER STORY FIRST EVERY` prints a line of JSON for each point at which
it killed a process: every so many from the first on.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from power_loop import Approve, LLMRequest, LLMResponse, StatefulAgentLoop, ToolContext, Usage, tool
from power_loop.events import WorkflowRunFinished
from power_loop.llm import ModelInfo
from power_loop.messages import Role
from power_loop.workflow import RunStatus, Workflow, create_workflow, drive_runs, get_run, resume_run
from tests.agent.agents_child import live

from .parts import agent, prompt_of

A_CALL = Usage(10, 5)
TOPICS = ["a", "b"]


def _foreach(body: dict[str, Any]) -> dict[str, Any]:
    return {"type": "foreach", "id": "all", "items_from": "plan.topics", "as": "t", "parallel": True, "body": body}


def _tool(name: str, **members: Any) -> dict[str, Any]:
    return {"type": "tool", "id": name, "tool": name, "args": {"by": "{{write}}"}, **members}


SPECS: dict[str, dict[str, Any]] = {
    "research": {
        "name": "research",
        "input": "tea",
        "root": {
            "type": "sequence",
            "steps": [
                agent(
                    "plan",
                    output_schema={
                        "name": "Plan",
                        "schema": {
                            "type": "object",
                            "required": ["topics"],
                            "properties": {"topics": {"type": "array", "items": {"type": "string"}}},
                        },
                    },
                ),
                _foreach(agent("r", "Write {{t}}.")),
                agent("write", inputs_from=["all"]),
                _tool("save"),
                _tool("charge", on_error="continue"),
                agent("end"),
            ],
        },
    },
    "detached": {"name": "detached", "root": agent("only")},
    "asked": {
        "name": "asked",
        "root": {"type": "sequence", "steps": [{"type": "tool", "id": "allow", "tool": "allow"}, agent("end")]},
    },
}


class Model:
    """Answers by the system prompt, and writes down who asked."""

    info = ModelInfo("story", "story", has_json_schema=True)

    def __init__(self, asked: Path) -> None:
        self._asked = asked

    async def generate(self, request: LLMRequest, emit: Any) -> LLMResponse:
        """Answer."""
        await asyncio.sleep(0)
        prompt = prompt_of(request)
        _note(self._asked, prompt)
        text = json.dumps({"topics": TOPICS}) if prompt == "Plan." else f"Said: {prompt}"
        return LLMResponse.of_text(text, usage=A_CALL)


def _note(path: Path, line: str) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(file, f"{line}\n".encode())
    os.close(file)


def _lines(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines() if path.exists() else []


def _tools(effects: Path) -> list[Any]:
    @tool(effect="once")
    async def charge(by: str, context: ToolContext) -> str:
        """Have an effect that must not come twice."""
        _note(effects, f"charge {context.idempotency_key}")
        return "charged"

    @tool(effect="idempotent")
    async def save(by: str, context: ToolContext) -> str:
        """Have an effect that is the same however often it comes."""
        _note(effects, f"save {context.idempotency_key}")
        return "saved"

    @tool(effect="idempotent", requires_approval=True)
    async def allow(context: ToolContext) -> str:
        """Have an effect that a person has to allow."""
        _note(effects, f"allow {context.idempotency_key}")
        return "allowed"

    return [charge, save, allow]


class Life:
    """Is one process: where it lives, and at which point it dies."""

    def __init__(self, dsn: str, prefix: str, folder: Path, story: str, name: str) -> None:
        self.story, self.sid, self.run_id = story, f"sess_{name}", f"run_{name}"
        self._dsn, self._prefix = dsn, prefix
        self._folder = folder / name
        self._folder.mkdir(exist_ok=True)

    async def begin(self, kill_at: int | None) -> None:
        """Run the workflow, and end once it has come to its end."""
        seen: list[str] = []

        def on_point(point: str, name: str) -> None:
            if kill_at is not None and len(seen) == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            seen.append(f"{point} {name}")

        async with self._loop("first") as loop:
            await loop.new_session(session_id=self.sid, system_prompt="Boss.")
            store: Any = await loop.get_store()
            store.on_point = on_point
            await self._work(loop)
        (self._folder / "points").write_text(json.dumps(seen), "utf-8")

    async def _work(self, loop: StatefulAgentLoop) -> None:
        if self.story == "detached":
            await self._workflow(loop, self.sid).start(detached=True)
        elif self.story == "asked":
            await self._rested(loop)
            for step in (await get_run(loop, self.run_id)).waits_for:
                leaf_id = str(step.child_session_id)
                for pending in await loop.get_pending(leaf_id):
                    await loop.resume(leaf_id, answers={pending.call_id: Approve()})
        else:
            await self._workflow(loop, None).run()

    async def _rested(self, loop: StatefulAgentLoop) -> None:
        """Begin the run, or go on with it, and return once it rests."""
        rests = asyncio.Event()
        loop.event_bus.subscribe(
            lambda event: rests.set() if isinstance(event.payload, WorkflowRunFinished) else None,
            session_id=self.run_id,
        )
        await self._workflow(loop, self.sid).start(detached=True)
        while (await get_run(loop, self.run_id)).status is RunStatus.RUNNING:
            await rests.wait()
            rests.clear()

    def _workflow(self, loop: StatefulAgentLoop, parent_id: str | None) -> Workflow:
        return create_workflow(
            SPECS[self.story], parent_loop=loop, run_id=self.run_id, parent_session_id=parent_id, max_concurrency=2
        )

    async def go_on(self) -> None:
        """Go on with what was left, and write down what has become of it."""
        async with self._loop("second") as loop:
            store: Any = await loop.get_store()
            done = []
            for child in await store.get_children(self.run_id):
                sent = await store.get_send(child.id)
                if sent is not None and sent.status.value == "completed":
                    done.append(child.system_prompt)
            drive_runs(loop)
            await loop.recover()
            await self._work(loop)
        async with self._loop("third") as loop:
            store = await loop.get_store()
            drive_runs(loop)
            await loop.recover()
            result = await resume_run(loop, None, self.run_id)
            children = await store.get_children(self.run_id)
            heads = [await store.get_session(one) for one in (self.run_id, self.sid, *[one.id for one in children])]
            inputs = [
                record.message.text for record in await loop.get_messages(self.sid) if record.message.role is Role.USER
            ]
            facts = {
                "status": result.status.value,
                "outputs": {name: one for name, one in result.outputs.items() if name != "charge"},
                "steps": [[one.path, one.state, one.attempt] for one in result.steps if one.path != "charge"],
                "tokens": result.usage.total_tokens,
                "model_calls": sum([(await loop.get_session_stats(one.id)).model_calls for one in children]),
                "children": len(children),
                "leases": [one.owner for one in heads],
                "woken": sum(self.run_id in text for text in inputs),
                "waiting": len(await loop.get_inbox(self.sid)),
                "done": done,
                "asked": {life: _lines(self._folder / f"{life}.asked") for life in ("first", "second", "third")},
                "effects": _lines(self._folder / "effects"),
                "stalled": [str(one) for one in await loop.recover(drive=False)],
                "findings": [str(one) async for one in store.diagnose() if one.is_problem],
            }
        (self._folder / "facts").write_text(json.dumps(facts), "utf-8")

    def left(self, name: str) -> Any:
        """Return what a life wrote down."""
        return json.loads((self._folder / name).read_text("utf-8"))

    def _loop(self, life: str) -> StatefulAgentLoop:
        return StatefulAgentLoop(
            llm=Model(self._folder / f"{life}.asked"),
            dsn=self._dsn,
            table_prefix=self._prefix,
            tool_registry=_tools(self._folder / "effects"),
        )


def main() -> None:
    """Kill a process at every so many points, and tell what the next one made of it."""
    dsn, prefix, folder, story, first, every = sys.argv[1:]
    where = (dsn, prefix, Path(folder), story)
    whole = Life(*where, f"{story}-whole")
    assert live(whole.begin(None)) == 0
    points = whole.left("points")
    for kill_at in range(int(first), len(points), int(every)):
        life = Life(*where, f"{story}-{kill_at}")
        if live(life.begin(kill_at)) != -signal.SIGKILL:
            continue  # this time there were fewer points
        assert live(life.go_on()) == 0, f"{points[kill_at]} ({kill_at})"
        print(json.dumps({"point": points[kill_at], "at": kill_at, **life.left("facts")}), flush=True)


if __name__ == "__main__":
    main()
