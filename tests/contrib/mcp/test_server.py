"""A loop and its sessions are an MCP server: the official client talks to it, and so does ours."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from power_loop.contrib.mcp import MCPClient, StdioMCPClient
from power_loop.testing import leak_check
from tests.agent.parts import until, within_limit

APP = '''
import asyncio
from pathlib import Path
from power_loop import LoopConfig, StatefulAgentLoop, ToolDefinition, ToolRegistry
from power_loop.testing import ScriptedLLM, call

print("an application that prints")

def pay(amount: int) -> str:
    """Pay."""
    return f"paid {amount}"

async def wait() -> str:
    """Wait for ever."""
    Path("waits").touch()
    try:
        await asyncio.Event().wait()
    finally:
        Path("stopped").touch()

def answer(request):
    said = request.messages[-1].text
    if "pay" in said:
        return call("pay", {"amount": 3})
    if "wait" in said:
        return call("wait", {})
    return "You said: " + (said or request.messages[-1].tool_result.content[0].text)

def make_loop(dsn):
    schema = {"type": "object", "properties": {"amount": {"type": "integer"}}, "required": ["amount"]}
    tools = ToolRegistry([wait, ToolDefinition("pay", "Pay.", schema, pay, requires_approval=True)])
    return StatefulAgentLoop(llm=ScriptedLLM([answer], repeat_last=True), dsn=dsn, tool_registry=tools)
'''
MAIN = "import sys; from power_loop.cli.main import main; sys.exit(main(sys.argv[1:]))"
RUN = ["-c", MAIN, "mcp", "--dsn", "app.db", "--app", "my_app:make_loop"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "my_app.py").write_text(APP, "utf-8")
    return tmp_path


@pytest.fixture
async def agent(folder: Path) -> AsyncIterator[MCPClient]:
    with leak_check():
        async with StdioMCPClient(sys.executable, RUN, folder=folder, timeout_s=100.0) as client:
            yield client


async def told(client: MCPClient, name: str, **arguments: Any) -> Any:
    result = await within_limit(client.call_tool(name, arguments))
    assert not result.is_error, result.content
    return json.loads(result.content[0]["text"])


async def test_a_client_gives_work_reads_it_and_answers_what_waits(agent: MCPClient, folder: Path) -> None:
    assert {tool.name for tool in await agent.list_tools()} == {
        "new_session",
        "send",
        "list_sessions",
        "get_messages",
        "get_pending",
        "answer",
    }
    sid = (await told(agent, "new_session", title="Tea"))["session_id"]
    sent = await told(agent, "send", session_id=sid, text="hello", request_id="r1")
    assert (sent["status"], sent["final_text"]) == ("completed", "You said: hello")
    assert (await told(agent, "send", session_id=sid, text="hello", request_id="r1"))["is_replayed"]
    listed = (await told(agent, "list_sessions"))["sessions"]
    assert [(one["session_id"], one["title"], one["sends"]) for one in listed] == [(sid, "Tea", 1)]
    messages = (await told(agent, "get_messages", session_id=sid, after_seq=1))["messages"]
    assert [(one["role"], one["parts"][0]["text"]) for one in messages] == [("assistant", "You said: hello")]
    # ---- a call that waits for a person
    waiting = await told(agent, "send", session_id=sid, text="pay")
    assert waiting["status"] == "waiting_for_input"
    (pending,) = (await told(agent, "get_pending", session_id=sid))["pending"]
    assert pending == waiting["pending"][0]
    assert (pending["name"], pending["arguments"], pending["wait_kind"]) == ("pay", {"amount": 3}, "approval")
    done = await told(agent, "answer", session_id=sid, call_id=pending["call_id"], decision="approve")
    assert (done["status"], done["final_text"]) == ("completed", "You said: paid 3")
    # ---- what goes wrong has the code of its error, and bad arguments are named
    wrong = await agent.call_tool("send", {"session_id": "none", "text": "x"})
    assert wrong.is_error
    assert json.loads(wrong.content[0]["text"])["error"] == "session.not_found"
    bad = await agent.call_tool("list_sessions", {"limit": 0, "more": 1})
    assert "'limit' is no whole number within its bounds; 'more' is not known" in bad.content[0]["text"]
    # ---- a request that is cancelled stops its turn
    heard: list[str | None] = []
    running = asyncio.ensure_future(
        agent.call_tool("send", {"session_id": sid, "text": "wait"}, on_progress=lambda *told: heard.append(told[2]))
    )
    await within_limit(until(lambda: bool(heard) and (folder / "waits").exists()))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await within_limit(until((folder / "stopped").exists))
    assert heard == ["wait runs"]
    after = await told(agent, "send", session_id=sid, text="again")
    assert after["final_text"] == "You said: again"


async def test_the_official_client_uses_it(folder: Path) -> None:
    sdk: Any = pytest.importorskip("mcp")
    parameters = sdk.StdioServerParameters(command=sys.executable, args=RUN, cwd=str(folder))
    async with sdk.stdio_client(parameters) as (read, write), sdk.ClientSession(read, write) as session:
        await session.initialize()
        listed = (await session.list_tools()).model_dump(by_alias=True)["tools"]
        assert [tool["name"] for tool in listed][:2] == ["new_session", "send"]
        made = (await session.call_tool("new_session", {})).model_dump(by_alias=True)
        sid = made["structuredContent"]["session_id"]
        sent = (await session.call_tool("send", {"session_id": sid, "text": "hello"})).model_dump(by_alias=True)
        assert sent["structuredContent"]["final_text"] == "You said: hello"


def test_an_answer_that_is_being_written_is_whole_although_its_request_is_cancelled(folder: Path) -> None:
    def asked(number: int, method: str, **params: Any) -> bytes:
        return json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}).encode() + b"\n"

    with subprocess.Popen([sys.executable, *RUN], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(asked(1, "tools/call", name="new_session", arguments={}))
        server.stdin.flush()
        sid = json.loads(server.stdout.readline())["result"]["structuredContent"]["session_id"]
        given = {"session_id": sid, "text": "x" * 1_000_000}
        server.stdin.write(asked(2, "tools/call", name="send", arguments=given))
        server.stdin.flush()
        # Its answer is longer than a pipe holds, so that it is not written to its end before it is read.
        first = server.stdout.read(1)
        cancelled = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 2}}
        server.stdin.write(json.dumps(cancelled).encode() + b"\n" + asked(3, "ping"))
        server.stdin.close()
        lines = (first + server.stdout.read()).splitlines()
    assert [json.loads(line)["id"] for line in lines] == [2, 3]


def test_it_ends_with_its_input_and_prints_nothing_but_the_protocol(folder: Path) -> None:
    lines = [
        "no message",
        json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-06-18"}}),
        json.dumps({"jsonrpc": "2.0", "id": 2, "method": "ping"}),
        json.dumps({"jsonrpc": "2.0", "id": 3, "method": "resources/list"}),
    ]
    # A file as input ends at once: what was asked before that is answered all the same.
    given = "".join(line + "\n" for line in lines)
    done = subprocess.run(
        [sys.executable, *RUN], input=given, cwd=folder, capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.returncode, done.stderr) == (0, "an application that prints\n")
    answers = {one["id"]: one for one in map(json.loads, done.stdout.splitlines())}
    assert answers[1]["result"]["protocolVersion"] == "2025-06-18"
    assert answers[2]["result"] == {}
    assert answers[3]["error"]["code"] == -32601
