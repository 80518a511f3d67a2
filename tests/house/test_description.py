"""The blocks of the project's description run as they stand there, one after the other."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import Any

import pytest

from power_loop import ToolRegistry, create_llm_service_from_env
from power_loop.contrib.jsonl_sink import replay
from power_loop.events import AgentEventBus, SessionCreated
from power_loop.workflow import WorkerPlan
from tests.house.pages import Block, blocks_of, run_blocks
from tests.model_server import ThreadedModelServer

PAGE = Path(__file__).with_name("description.md")
# Stands where the description starts a server of npm's.
NPX = """#!{python}
import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    answer = {{
        "initialize": {{"protocolVersion": "2025-11-25", "capabilities": {{"tools": {{}}}}, "serverInfo": {{}}}},
        "tools/list": {{"tools": [{{"name": "read", "description": "Read.", "inputSchema": {{"type": "object"}}}}]}},
    }}.get(asked["method"])
    if answer:
        print(json.dumps({{"jsonrpc": "2.0", "id": asked["id"], "result": answer}}), flush=True)
"""


class Launched:
    """Is a launcher that wraps a worker's command in a program of its own."""

    def __init__(self) -> None:
        self.plans: list[WorkerPlan] = []

    def __call__(self, plan: WorkerPlan) -> tuple[str, ...]:
        self.plans.append(plan)
        return ("env", *plan.argv)


@pytest.mark.promise("readme")
def test_every_block_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "npx").write_text(NPX.format(python=sys.executable))
    (tmp_path / "npx").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/local/bin:/usr/bin:/bin")
    text = PAGE.read_text("utf-8").replace("StatefulAgentLoop(...)", "StatefulAgentLoop(llm=llm, dsn=DSN)")
    first, cold, databases, request, workflow, sandboxes, operations, observing, mcp = blocks_of(text, PAGE.name)
    launched, bus, registry = Launched(), AgentEventBus(), ToolRegistry()
    with ThreadedModelServer() as server:
        for name, value in {"BASE_URL": server.base_url, "API_KEY": "k", "MODEL": "gpt-test"}.items():
            monkeypatch.setenv(f"POWER_LOOP_{name}", value)
        known: dict[str, Any] = {
            "__name__": "description",
            "llm": create_llm_service_from_env(),
            "DSN": "app.db",
            "user_text": "Hello.",
            "my_gvisor_launcher": launched,
            "bus": bus,
            "registry": registry,
            "SessionCreated": SessionCreated,
        }

        def given(source: str) -> Block:
            return Block(PAGE.name, 1, "python", source, [])

        printed = run_blocks(
            [
                first,
                cold,
                databases,
                given("session_id = sid"),
                request,
                workflow,
                sandboxes,
                given("await ex.aclose()\nstore = await loop.get_store()"),
                operations,
                observing,
                given("bus.emit(SessionCreated(), session_id=sid)\nawait bus.aclose()"),
                mcp,
                given("await client.aclose()"),
            ],
            server,
            known,
        )
    assert printed[0].strip() == "Your favorite color is teal."
    assert len(launched.plans) > 0
    assert all("bash" in (plan.tools or ()) for plan in launched.plans)
    assert [event.type for event in replay("events.jsonl")] == ["session.created"]
    assert registry.names == ("fs_read",)
    gc.collect()
