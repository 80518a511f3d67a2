"""Live state stands behind all messages of each request, as it is then, and nowhere else."""

from __future__ import annotations

import asyncio

import pytest

from power_loop import LoopConfig, ToolContext, ToolRegistry, tool
from power_loop.context import LiveContext, LiveState
from power_loop.errors import ConfigError, ToolDefinitionError
from power_loop.events import LiveStateFailed
from power_loop.testing import ScriptedLLM, call

from .conftest import MakeLoop
from .parts import Ears, Panic, Unprintable


def _counter(context: ToolContext) -> str:
    """Count."""
    context.state["count"] = context.state.get("count", 0) + 1
    return "counted"


def _shown(context: LiveContext) -> str | None:
    count = context.state.get("count")
    return None if count is None else f"count is {count}"


COUNTER = tool(live=LiveState("counter", _shown))(_counter)


@pytest.mark.promise("live-tail")
async def test_a_tools_live_state_is_shown_as_it_is_at_each_call_behind_all_messages(make_loop: MakeLoop) -> None:
    llm = ScriptedLLM([call("_counter"), call("_counter"), "Done.", "Bye."])
    loop = make_loop(llm=llm, tool_registry=[COUNTER])
    sid = await loop.new_session()
    await loop.send("Go.", session_id=sid)
    await loop.send("And?", session_id=sid)
    assert [request.tail for request in llm.requests] == [None, "count is 1", "count is 2", "count is 2"]
    # The messages of a request begin as those of the one before, so that a provider finds them in its cache.
    for before, after in zip(llm.requests, llm.requests[1:], strict=False):
        assert after.messages[: len(before.messages)] == before.messages
    assert [record.message.text for record in await loop.get_messages(sid)][-1] == "Bye."


async def test_live_state_goes_with_its_tool_and_one_name_is_shown_once(make_loop: MakeLoop) -> None:
    llm = ScriptedLLM([call("_counter"), "Done.", "Bye."])
    own = [LiveState("counter", lambda context: "hidden"), LiveState("place", lambda context: context.metadata["city"])]
    loop = make_loop(llm=llm, tool_registry=[COUNTER], config=LoopConfig(live=own))
    sid = await loop.new_session(metadata={"city": "Ghent"})
    await loop.send("Go.", session_id=sid)
    await loop.send("And without it?", session_id=sid, tools=[])
    assert [request.tail for request in llm.requests] == ["Ghent", "count is 1\n\nGhent", "hidden\n\nGhent"]


async def test_live_state_that_raises_is_told_of_once_and_ends_nothing(make_loop: MakeLoop) -> None:
    llm = ScriptedLLM([call("_counter"), "Done."])

    def broken(context: LiveContext) -> str:
        raise KeyError("city")

    live = [
        LiveState("bad", broken),
        LiveState("odd", lambda context: 3),
        LiveState("long", lambda context: "x" * 40_000),
    ]
    loop = make_loop(llm=llm, tool_registry=[COUNTER], config=LoopConfig(live=live))  # type: ignore[list-item]
    ears = Ears(loop)
    result = await loop.send("Go.", session_id=await loop.new_session())
    assert result.is_completed
    assert [(failed.name, failed.message.split(":")[0]) for failed in ears.of(LiveStateFailed)] == [
        ("bad", "KeyError"),
        ("odd", "TypeError"),
    ]
    tail = llm.requests[0].tail or ""
    assert len(tail) < 33_000
    assert tail.endswith("(cut: 40000 characters)")


@pytest.mark.parametrize("error", [Unprintable(), Panic("no"), asyncio.CancelledError("mine")])
async def test_whatever_live_state_raises_ends_nothing(make_loop: MakeLoop, error: BaseException) -> None:
    def broken(context: LiveContext) -> str:
        raise error

    loop = make_loop("Done.", config=LoopConfig(live=[LiveState("bad", broken)]))
    ears = Ears(loop)
    assert (await loop.send("Go.", session_id=await loop.new_session())).is_completed
    assert [failed.name for failed in ears.of(LiveStateFailed)] == ["bad"]


async def test_live_state_changes_nothing_of_what_it_looks_at(make_loop: MakeLoop) -> None:
    def greedy(context: LiveContext) -> str:
        context.metadata["city"] = "Rome"  # type: ignore[index]
        context.state["count"] = 9  # type: ignore[index]
        return "greedy"

    own = [LiveState("place", lambda context: context.metadata["city"]), LiveState("greedy", greedy)]
    llm = ScriptedLLM([call("_counter"), "Done."])
    loop = make_loop(llm=llm, tool_registry=[COUNTER], config=LoopConfig(live=own))
    ears = Ears(loop)
    await loop.send("Go.", session_id=await loop.new_session(metadata={"city": "Ghent"}))
    assert [request.tail for request in llm.requests] == ["Ghent", "count is 1\n\nGhent"]
    assert {failed.name for failed in ears.of(LiveStateFailed)} == {"greedy"}


@pytest.mark.parametrize("live", ["no list", [lambda context: "no name"], 3])
def test_what_is_no_live_state_is_refused_where_it_is_given(live: object) -> None:
    with pytest.raises(ConfigError, match="LiveState"):
        LoopConfig(live=live)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="1 to 64"):
        LiveState("", lambda context: None)
    with pytest.raises(ConfigError, match="show"):
        LiveState("clock", "12:00")  # type: ignore[arg-type]
    with pytest.raises(ToolDefinitionError, match="LiveState"):
        tool(live="shown")(_counter)  # type: ignore[arg-type]
    assert ToolRegistry([COUNTER]).names == ("_counter",)
