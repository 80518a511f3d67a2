"""The tools of real MCP servers are tools of a loop, over pipes and HTTP, and nothing of a server is left."""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from power_loop import Effect, ImagePart, StatefulAgentLoop, ToolRegistry
from power_loop.contrib.mcp import HttpMCPClient, MCPClient, StdioMCPClient, register_mcp_tools
from power_loop.errors import MCPConnectionError, MCPError
from power_loop.events import ToolCallProgressed
from power_loop.testing import ScriptedLLM, call, leak_check
from tests.agent.parts import until, within_limit

SERVER = Path(__file__).with_name("sdk_server.py")
# The SDK alone takes seconds to be imported where tests share a machine.
START_S = 100.0


async def stdio(tmp_path: Path) -> MCPClient:
    env = {"SLOW_LOG": str(tmp_path / "slow"), "DEATHS": str(tmp_path / "deaths")}
    return await StdioMCPClient(sys.executable, [str(SERVER)], env=env, timeout_s=START_S).connect()


@pytest.fixture(scope="module")
def http_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A server of the SDK by HTTP: its address, and the folder of its marks."""
    folder = tmp_path_factory.mktemp("http")
    env = {**os.environ, "SLOW_LOG": str(folder / "slow"), "DEATHS": str(folder / "deaths")}
    server = subprocess.Popen([sys.executable, str(SERVER), "http"], env=env, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    yield f"http://127.0.0.1:{int(server.stdout.readline())}/mcp", folder
    server.kill()
    server.wait()
    server.stdout.close()


@pytest.fixture(params=["stdio", "http"])
async def client(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[MCPClient, Path]]:
    if request.param == "stdio":
        made, folder = await stdio(tmp_path), tmp_path
    else:
        url, folder = request.getfixturevalue("http_server")
        made = await HttpMCPClient(url, timeout_s=START_S).connect()
    yield made, folder
    await made.aclose()


async def appears(path: Path, text: str) -> None:
    await until(lambda: path.exists() and text in path.read_text("utf-8"))


@pytest.mark.promise("mcp")
async def test_what_a_server_offers_is_used_by_a_model(client: tuple[MCPClient, Path], tmp_path: Path) -> None:
    source, folder = client
    registry = ToolRegistry()
    made = await register_mcp_tools(registry, source, prefix="fs.", effects={"add": "read"})
    assert made.names["fs_add"] == "add"
    assert made.names["fs_dots_and_spaces__"] == "dots.and spaces/ü"
    add, odd = registry.get("fs_add"), registry.get("fs_dots_and_spaces__")
    assert add is not None
    assert odd is not None
    assert (add.description, add.effect, odd.effect) == ("Add two numbers.", Effect.READ, Effect.ONCE)
    assert sorted(add.input_schema["properties"]) == ["a", "b"]
    steps = [call(name, {"a": 1, "b": 2} if name == "fs_add" else {}) for name in ("fs_add", *ASKED)]
    llm = ScriptedLLM([*steps, "Done."])
    async with StatefulAgentLoop(llm=llm, dsn=str(tmp_path / "app.db"), tool_registry=registry) as loop:
        sid = await loop.new_session()
        assert (await loop.send("Use them.", session_id=sid)).is_completed
        results = [one.message.tool_result for one in await loop.get_messages(sid) if one.message.tool_result]
    contents = [result.content[0] for result in results]
    assert [getattr(content, "text", None) for content in contents][:2] == ["3", "odd"]
    assert [result.is_error for result in results] == [False, False, True, False]
    assert isinstance(contents[3], ImagePart)
    assert contents[3].media_type == "image/png"
    # ---- resources and prompts
    assert [one["uri"] for one in await source.list_resources()] == ["note://today"]
    assert (await source.read_resource("note://today"))[0]["text"] == "buy tea"
    assert [one["name"] for one in await source.list_prompts()] == ["greet"]
    assert (await source.get_prompt("greet", {"name": "Ada"}))[0]["content"]["text"] == "Say hello to Ada."
    with pytest.raises(MCPError, match="error"):
        await source.get_prompt("nobody")
    # ---- a call that is cancelled tells how far it is, and ends over there too
    told: list[Any] = []
    begun = asyncio.Event()

    def progress(done: float, total: float | None, message: str | None) -> None:
        told.append((done, total))
        begun.set()

    running = asyncio.ensure_future(source.call_tool("slow", on_progress=progress))
    await within_limit(begun.wait())
    assert told == [(1.0, 4.0)]
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await within_limit(appears(folder / "slow", "cancelled"))
    assert (await source.call_tool("add", {"a": 2, "b": 2})).content[0]["text"] == "4"


ASKED = ("fs_dots_and_spaces__", "fs_fail", "fs_picture")


async def test_a_server_that_dies_is_started_again_and_no_call_is_repeated(tmp_path: Path) -> None:
    with leak_check():
        source = await stdio(tmp_path)
        registry = ToolRegistry()
        made = await register_mcp_tools(registry, source)
        llm = ScriptedLLM([call("die", {}), call("add", {"a": 1, "b": 1}), "Done."])
        async with StatefulAgentLoop(llm=llm, dsn=str(tmp_path / "app.db"), tool_registry=registry) as loop:
            sid = await loop.new_session()
            await loop.send("Die.", session_id=sid)
            results = [one.message.tool_result for one in await loop.get_messages(sid) if one.message.tool_result]
        texts = [getattr(result.content[0], "text", "") for result in results]
        assert results[0].is_error
        assert "It may have had its effect, or not" in texts[0]
        assert texts[1] == "2"
        assert (tmp_path / "deaths").read_text() == "x"
        assert made.changed == frozenset()
        # ---- killed while nobody asks, it is started again without a word
        old = int((await source.call_tool("pid")).content[0]["text"])
        os.kill(old, signal.SIGKILL)
        await within_limit(asyncio.to_thread(_wait_dead, old))
        # What is sent before its end was heard may have run, so that it is not sent again.
        await within_limit(until(lambda: source._peer is None or not source._peer.is_open))
        assert int((await source.call_tool("pid")).content[0]["text"]) != old
        await source.aclose()
        with pytest.raises(MCPConnectionError, match="the client is closed"):
            await source.list_tools()


async def test_a_loop_shows_how_far_a_call_is(http_server: tuple[str, Path], tmp_path: Path) -> None:
    url, _ = http_server
    source = await HttpMCPClient(url, timeout_s=START_S).connect()
    registry = ToolRegistry()
    await register_mcp_tools(registry, source, only=["slow"], timeout_s=None)
    llm = ScriptedLLM([call("slow", {}), "Done."])
    async with StatefulAgentLoop(llm=llm, dsn=str(tmp_path / "app.db"), tool_registry=registry) as loop:
        sid = await loop.new_session()
        told = None
        async with loop.stream("Go.", session_id=sid) as events:
            async for event in events:
                if isinstance(event.payload, ToolCallProgressed):
                    told = event.payload
                    break
    assert told is not None
    assert (told.name, told.fraction) == ("slow", 0.25)
    await source.aclose()


async def test_a_server_that_forgot_the_session_is_asked_again_and_others_are_named(
    http_server: tuple[str, Path],
) -> None:
    url, _ = http_server
    source = await HttpMCPClient(url, timeout_s=START_S).connect()
    # What a restarted server does: it knows the session of this client no more.
    peer: Any = source._peer
    peer._channel._headers["mcp-session-id"] = "0" * 32
    assert (await source.call_tool("add", {"a": 1, "b": 2})).content[0]["text"] == "3"
    await source.aclose()
    with pytest.raises(MCPError, match="status 404"):
        await HttpMCPClient(url.replace("/mcp", "/nothing"), timeout_s=START_S).connect()
    with pytest.raises(MCPConnectionError, match="cannot be reached"):
        await HttpMCPClient("http://127.0.0.1:9/mcp").connect()


async def test_an_answer_whose_stream_ends_early_is_taken_up_and_the_call_runs_once(
    http_server: tuple[str, Path],
) -> None:
    if not hasattr(
        importlib.import_module("mcp.server.streamable_http").StreamableHTTPServerTransport, "close_sse_stream"
    ):
        pytest.skip("this SDK ends no streams early")
    url, folder = http_server
    heard: list[float | None] = []
    async with HttpMCPClient(url, timeout_s=START_S) as source:
        result = await source.call_tool("leave_early", {}, on_progress=lambda done, total, text: heard.append(done))
    assert (result.content[0]["text"], heard) == ("it came all the same", [0.25, 0.75])
    assert (folder / "slow").read_text("utf-8").count("ran,") == 1


async def test_a_session_of_the_official_sdk_is_a_source_too(tmp_path: Path) -> None:
    sdk: Any = pytest.importorskip("mcp")
    parameters = sdk.StdioServerParameters(command=sys.executable, args=[str(SERVER)])
    async with sdk.stdio_client(parameters) as (read, write), sdk.ClientSession(read, write) as session:
        await session.initialize()
        registry = ToolRegistry()
        made = await register_mcp_tools(registry, session, only=["add"], prefix="sdk_")
        assert dict(made.names) == {"sdk_add": "add"}
        result = await made.call("sdk_add", {"a": 1, "b": 2}, None)
        assert getattr(result.content[0], "text", None) == "3"


def _wait_dead(pid: int) -> None:
    while True:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return
        if state == "Z":
            return
