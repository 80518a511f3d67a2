"""Whatever an MCP server does, a call ends, nothing is trusted that nobody accepted, and no process is left."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from power_loop import AudioPart, Effect, TextPart, ToolDefinition, ToolRegistry
from power_loop.contrib.mcp import MCPResult, StdioMCPClient, register_mcp_tools
from power_loop.contrib.mcp.content import tool_result
from power_loop.contrib.mcp.json_lines import JsonLines
from power_loop.contrib.mcp.names import portable_names
from power_loop.errors import ConfigError, MCPConnectionError, MCPError, ToolDefinitionError, ToolError
from power_loop.testing import leak_check
from tests.agent.parts import until, within_limit
from tests.runtime.host.trees import Mark

SERVER = Path(__file__).with_name("hostile_server.py")
START_S = 100.0


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    with leak_check():
        yield


def hostile(how: str, state: str | Path = "", **more: Any) -> StdioMCPClient:
    return StdioMCPClient(sys.executable, ["-I", "-S", str(SERVER), how, str(state)], **{"timeout_s": START_S, **more})


async def acted(how: str, state: str | Path = "", **more: Any) -> MCPResult:
    async with hostile(how, state, **more) as client:
        return await within_limit(client.call_tool("act"))


# ---- what it says ----


async def test_garbage_beside_the_protocol_is_passed_over() -> None:
    assert (await acted("garbage")).content == [{"type": "text", "text": "done"}]


async def test_a_message_without_an_end_ends_the_connection_and_not_the_memory() -> None:
    with pytest.raises(MCPConnectionError, match="more than 100000 bytes") as caught:
        await acted("huge", max_message_bytes=100_000)
    assert caught.value.may_have_run


async def test_only_the_first_answer_to_a_request_counts() -> None:
    assert (await acted("twice")).content == [{"type": "text", "text": "first"}]


async def test_a_result_without_a_shape_is_an_error() -> None:
    with pytest.raises(MCPError, match="no blocks of content"):
        await acted("shapeless")


async def test_a_server_that_asks_for_the_model_is_refused_and_a_ping_is_answered() -> None:
    assert (await acted("asks")).content == [{"type": "text", "text": "[-32601, {}]"}]


async def test_links_are_told_and_never_followed_and_strange_media_are_named() -> None:
    parts = tool_result(await acted("links")).content
    assert parts == (
        TextPart("[link to file:///etc/passwd: passwd]"),
        TextPart("[resource a://b of the type 'x/y', 3 bytes, which cannot be shown]"),
        TextPart("[image of the type 'image/svg+xml', 3 bytes, which cannot be shown]"),
        AudioPart("AAAA", "wav"),
        TextPart("[content of the unknown type 'hologram']"),
    )


@pytest.mark.parametrize("how", ["endless", "empty pages"])
async def test_a_list_without_an_end_is_an_error(how: str) -> None:
    async with hostile(how) as client:
        client.MAX_LISTED = 10
        with pytest.raises(MCPError, match="more than 10 tools"):
            await within_limit(client.list_tools())


async def test_numbers_that_are_none_and_listeners_that_fail_end_no_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told: list[Any] = []

    def listener(*heard: Any) -> None:
        told.append(heard)
        raise KeyError("of the application")

    async with hostile("progresses") as client:
        result = await within_limit(client.call_tool("act", on_progress=listener))
    assert (result.content, told) == ([{"type": "text", "text": "done"}], [(1.0, 4.0, None)])
    async with hostile("changes", os.devnull) as client:
        client.on_tools_changed = lambda: listener("changed")
        assert (await within_limit(client.call_tool("act"))).content == [{"type": "text", "text": "done"}]
    assert told[1:] == [("changed",)]
    assert caplog.text.count("of the application") >= 2


async def test_a_server_gets_no_secret_of_this_process_and_answers_every_event_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SHOP_API_KEY", "secret")
    async with hostile("environment") as client:
        told = await within_limit(asyncio.to_thread(asyncio.run, client.call_tool("act")))
    names = told.content[0]["text"].split()
    assert "PATH" in names
    assert "SHOP_API_KEY" not in names


# ---- when it says nothing ----


async def test_a_server_that_does_not_answer_the_handshake_is_given_up() -> None:
    with pytest.raises(MCPError, match=r"did not answer 'initialize' within 0\.3 seconds"):
        await hostile("slow", timeout_s=0.3).connect()


async def test_a_call_that_is_not_answered_ends_with_whoever_waits() -> None:
    async with hostile("silent") as client:
        running = asyncio.ensure_future(client.call_tool("act"))
        await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert [tool.name for tool in await client.list_tools()] == ["act"]


async def test_a_program_that_is_no_server_says_why() -> None:
    with pytest.raises(MCPConnectionError, match="ended with status 3: a trace of what went wrong"):
        await hostile("no server").connect()
    with pytest.raises(MCPConnectionError, match=r"did not start: .*No such file"):
        await StdioMCPClient("/no/such/server").connect()
    with pytest.raises(MCPError, match="version '2031-01-01'"):
        await hostile("future").connect()


async def test_a_program_that_ended_before_it_was_spoken_to_says_why_too() -> None:
    class Late(StdioMCPClient):
        async def open_channel(self) -> Any:
            channel = await super().open_channel()
            writer: Any = channel._process._writer
            await within_limit(until(writer.is_closing))
            return channel

    with pytest.raises(MCPConnectionError, match="ended with status 3: a trace of what went wrong"):
        await Late(sys.executable, ["-I", "-S", str(SERVER), "no server"]).connect()


async def test_a_server_that_stays_is_killed_with_what_it_started() -> None:
    mark = Mark()
    client = await hostile("stays", mark.sleep).connect()
    await mark.someone()
    await client.aclose()
    await mark.nobody()


# ---- whether it ran ----


async def test_a_call_that_died_is_not_repeated_unless_that_changes_nothing(tmp_path: Path) -> None:
    for effect, runs in ((Effect.ONCE, 1), (Effect.READ, 2)):
        state = tmp_path / effect.value
        async with hostile("dies", state) as client:
            made = await register_mcp_tools(ToolRegistry(), client, effects={"act": effect})
            with pytest.raises(ToolError, match="may have had its effect"):
                await made.call("act", {}, None)
        assert state.read_text() == "x" * runs


# ---- whom it wants to be taken for ----


async def test_what_a_server_says_of_its_effects_is_believed_only_where_that_is_asked() -> None:
    async with hostile("lies") as client:
        registry = ToolRegistry()
        await register_mcp_tools(registry, client, prefix="a.")
        await register_mcp_tools(registry, client, prefix="b.", trusts_annotations=True)
    assert [definition.effect for definition in registry] == [Effect.ONCE, Effect.READ]


async def test_a_tool_that_is_changed_behind_ones_back_is_not_called(tmp_path: Path) -> None:
    state = tmp_path / "calls"
    async with hostile("changes", state) as client:
        made = await register_mcp_tools(ToolRegistry(), client, prefix="x.")
        assert (await made.call("x_act", {}, None)).content == (TextPart("done"),)
        with pytest.raises(ToolError, match="has changed what it says of the tool 'act'"):
            await made.call("x_act", {}, None)
        assert made.changed == {"x_act"}
        # ---- another process, which was given what the first one had accepted
        again = await register_mcp_tools(ToolRegistry(), client, pins=made.pins)
        assert again.changed == {"act"}
    assert state.read_text() == "x"


async def test_a_server_that_does_not_say_what_it_changed_is_asked_again_before_it_is_called(tmp_path: Path) -> None:
    state = tmp_path / "calls"
    async with hostile("hides", state) as client:
        made = await register_mcp_tools(ToolRegistry(), client)
        await made.call("act", {}, None)
        with pytest.raises(ToolError, match="not at the moment"):
            await made.call("act", {}, None)
        # ---- nor is it called by whoever comes while another one looks
        ends = await asyncio.gather(*(made.call("act", {}, None) for _ in range(3)), return_exceptions=True)
    assert ["has changed" in str(end) for end in ends] == [True] * 3
    assert state.read_text() == "xl"


async def test_what_a_person_cannot_see_in_a_description_is_not_shown_to_a_model() -> None:
    async with hostile("hidden") as client:
        registry = ToolRegistry()
        await register_mcp_tools(registry, client)
    (definition,) = registry
    assert definition.description == "Act.[2J" + "y" * (4_000 - 7)


async def test_a_tool_that_cannot_be_offered_or_is_there_already_leaves_the_registry_alone() -> None:
    registry = ToolRegistry([ToolDefinition("fs_act", "Mine.", {"type": "object"}, lambda: "mine")])
    async with hostile("bad schema") as client:
        with pytest.raises(ToolDefinitionError, match="worse"):
            await register_mcp_tools(registry, client)
    async with hostile("fine") as client:
        with pytest.raises((ToolDefinitionError, ConfigError), match="fs_act"):
            await register_mcp_tools(registry, client, prefix="fs.")
        with pytest.raises(ConfigError, match="the effect of 'act' is 'raed': give one of 'read'"):
            await register_mcp_tools(registry, client, effects={"act": "raed"})
        with pytest.raises(ConfigError, match="does not offer"):
            await register_mcp_tools(registry, client, only=["nothing"])
    assert registry.names == ("fs_act",)


# ---- its parts ----


@settings(max_examples=40)
@given(st.lists(st.text(max_size=80), max_size=20), st.text(max_size=10))
def test_names_are_portable_unique_and_lead_back(names: list[str], prefix: str) -> None:
    made = portable_names(names, prefix=prefix)
    assert set(made) == set(names)
    assert len(set(made.values())) == len(made)
    for name in made.values():
        assert 1 <= len(name) <= 64
        assert all(char.isascii() and (char.isalnum() or char in "_-") for char in name)
    assert portable_names(reversed(names), prefix=prefix) == made


# None of them is longer than a line may be.
OBJECTS = st.dictionaries(st.text(max_size=5), st.integers(-(2**60), 2**60), max_size=5)


@settings(max_examples=30)
@given(st.lists(OBJECTS, max_size=5), st.data())
def test_objects_are_the_same_however_their_bytes_arrive(values: list[dict[str, int]], data: st.DataObject) -> None:
    text = b"".join(json.dumps(value).encode() + b"\n" for value in values)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=20)))
    lines, found = JsonLines(max_bytes=1_000), list[Any]()
    for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        found += lines.feed(text[begin:end])
    assert found == values


def test_a_line_that_is_too_long_is_dropped_whole_and_the_next_one_is_read() -> None:
    lines = JsonLines(max_bytes=10)
    assert lines.feed(b'{"a": 1}\n{"a": "xxxx') == [{"a": 1}]
    assert lines.feed(b'xxxxxxx"}\n{"b": 2}\n') == [{"b": 2}]
    assert lines.too_long == 1
