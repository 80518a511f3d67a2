"""With a projection, finished sends are shown in short, in rows that are stored with their end and lose nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from power_loop import ImagePart, LLMRequest, LoopConfig, Projection, StatefulAgentLoop, TextPart, ToolDefinition, tool
from power_loop.core.context.rules import check
from power_loop.errors import LLMAuthError
from power_loop.events import ProjectionFailed
from power_loop.testing import ScriptedLLM, call

from .conftest import MakeLoop
from .parts import CountingStore, Ears, Panic, Unprintable, said

SHORT = LoopConfig(projection=Projection(offers_recall=False))
PNG = ImagePart("image/png", data="iVBORw0KGgoAAAA=")


@tool(effect="read")
def search(query: str) -> str:
    """Search."""
    return f"three results for {query}"


def requests(loop: StatefulAgentLoop) -> list[LLMRequest]:
    llm = loop.llm
    assert isinstance(llm, ScriptedLLM)
    return llm.requests


RECORD = '<record turn="1">\nsearch {"query": "x"} -> ok: three results for x\n</record>'


async def session_with_a_search(loop: StatefulAgentLoop) -> str:
    session_id = await loop.new_session()
    await loop.send("Search x.", session_id=session_id)
    return session_id


async def test_a_finished_send_is_shown_in_short_warm_and_cold(make_loop: MakeLoop) -> None:
    warm = make_loop(call("search", {"query": "x"}, id="c1"), "Found.", "Warm.", config=SHORT, tool_registry=[search])
    session_id = await session_with_a_search(warm)
    assert said(requests(warm)[1].messages)[1:] == [("assistant", ""), ("tool", "three results for x")]
    await warm.send("And now?", session_id=session_id)
    cold = make_loop("Cold.", config=SHORT, tool_registry=[search])
    await cold.send("And then?", session_id=session_id)
    told = [("user", "Search x."), ("assistant", f"{RECORD}\n\nFound."), ("user", "And now?")]
    assert said(requests(warm)[2].messages) == told
    assert said(requests(cold)[0].messages) == [*told, ("assistant", "Warm."), ("user", "And then?")]
    assert check(requests(cold)[0].messages) == []


async def test_the_originals_stay_in_the_log(make_loop: MakeLoop) -> None:
    loop = make_loop(call("search", {"query": "x"}, id="c1"), "Found.", config=SHORT, tool_registry=[search])
    session_id = await session_with_a_search(loop)
    log = await loop.get_messages(session_id)
    assert [one.message.role.value for one in log] == ["user", "assistant", "tool", "assistant"]
    assert log[1].message.tool_calls[0].arguments == '{"query": "x"}'


async def test_the_records_are_explained_behind_everything_and_only_where_there_are_some(make_loop: MakeLoop) -> None:
    loop = make_loop(
        "Hello.", call("search", {"query": "x"}, id="c1"), "Found.", "Yes.", config=SHORT, tool_registry=[search]
    )
    session_id = await loop.new_session()
    for text in ("Hi.", "Search x.", "And?"):
        await loop.send(text, session_id=session_id)
    tails = [request.tail for request in requests(loop)]
    assert tails[:3] == [None, None, None]
    assert tails[3] is not None
    assert "to use a tool, call it" in tails[3]


async def test_rows_are_stored_in_the_transaction_that_ends_the_send(make_loop: MakeLoop, dsn: str) -> None:
    store = CountingStore(await make_loop().get_store())
    loop = make_loop(call("search", {"query": "x"}), "Found.", config=SHORT, tool_registry=[search], store=store)
    session_id = await session_with_a_search(loop)
    view = await store.read_view(session_id, projected=True)
    assert [(row.seq, row.to_seq) for row in view.projected] == [(1, 1), (2, 4)]
    assert view.messages == ()
    assert store.asked.count("append_reply") == 2
    assert "end_send" not in store.asked


async def test_switching_on_and_off_on_a_live_session_loses_nothing(make_loop: MakeLoop) -> None:
    plain = make_loop(call("search", {"query": "x"}, id="c1"), "Found.", "Plain.", tool_registry=[search])
    short = make_loop(
        "Short.", call("search", {"query": "y"}, id="c2"), "Also.", "End.", config=SHORT, tool_registry=[search]
    )
    session_id = await session_with_a_search(plain)
    await short.send("Two.", session_id=session_id)
    # What was finished before the switch is shown as it is.
    assert [role for role, _ in said(requests(short)[0].messages)] == ["user", "assistant", "tool", "assistant", "user"]
    await short.send("Three.", session_id=session_id)
    await plain.send("Four.", session_id=session_id)
    assert said(requests(plain)[-1].messages) == said(await plain.get_messages(session_id))[:-1]
    await short.send("Five.", session_id=session_id)
    assert said(requests(short)[-1].messages)[4:] == [
        ("user", "Two."),
        ("assistant", "Short."),
        ("user", "Three."),
        ("assistant", RECORD.replace("1", "3").replace('"x"', '"y"').replace("for x", "for y") + "\n\nAlso."),
        ("user", "Four."),
        ("assistant", "Plain."),
        ("user", "Five."),
    ]


async def test_a_send_that_waits_or_failed_is_shown_as_it_is_until_it_ends(make_loop: MakeLoop) -> None:
    asks = ToolDefinition("ask", "Ask.", {"type": "object"}, effect="read")
    loop = make_loop(call("ask", id="c1"), LLMAuthError("no key"), "Thanks.", "On.", config=SHORT, tool_registry=[asks])
    store = await loop.get_store()
    session_id = await loop.new_session()
    await loop.send("Go.", session_id=session_id)
    assert (await store.read_view(session_id, projected=True)).projected == ()
    with pytest.raises(LLMAuthError):
        await loop.submit_tool_result(session_id, "c1", "blue")
    assert (await store.read_view(session_id, projected=True)).projected == ()
    await loop.resume(session_id)
    await loop.send("Next.", session_id=session_id)
    assert said(requests(loop)[-1].messages)[1] == (
        "assistant",
        '<record turn="1">\nask {} -> ok: blue\n</record>\n\nThanks.',
    )


async def test_a_send_that_is_given_up_is_shown_with_what_became_of_its_calls(make_loop: MakeLoop) -> None:
    asks = ToolDefinition("ask", "Ask.", {"type": "object"})
    loop = make_loop(call("ask", id="c1"), "On.", config=SHORT, tool_registry=[asks])
    session_id = await loop.new_session()
    await loop.send("Go.", session_id=session_id)
    await loop.abort_pending(session_id)
    await loop.send("Next.", session_id=session_id)
    text = said(requests(loop)[-1].messages)[1][1]
    assert text.startswith("<record turn=\"1\">\nask {} -> error: 'ask' was cancelled while its result was waited for")


async def test_media_of_the_user_stay_and_those_of_tools_are_named(make_loop: MakeLoop) -> None:
    @tool(effect="read")
    def plot() -> Any:
        """Plot."""
        return [PNG]

    loop = make_loop(call("plot", id="c1"), "Done.", "Yes.", config=SHORT, tool_registry=[plot])
    session_id = await loop.new_session()
    await loop.send([TextPart("Like this."), PNG], session_id=session_id)
    cold = make_loop("Yes.", config=SHORT, tool_registry=[plot])
    await cold.send("And?", session_id=session_id)
    shown = requests(cold)[0].messages
    assert shown[0].parts == (TextPart("Like this."), PNG)
    assert "[an image of 1 kB]" in shown[1].text


async def test_a_tool_words_its_own_calls_and_one_that_cannot_is_announced(make_loop: MakeLoop) -> None:
    @tool(effect="read", project=lambda arguments, result: f"looked for {arguments['query']}")
    def find(query: str) -> str:
        """Find."""
        return "long " * 100

    @tool(effect="read", project=lambda arguments, result: arguments["missing"])
    def broken() -> str:
        """Break."""
        return "fine"

    loop = make_loop(
        call("find", {"query": "x"}), call("broken"), "Done.", "Yes.", config=SHORT, tool_registry=[find, broken]
    )
    ears = Ears(loop)
    session_id = await loop.new_session()
    await loop.send("Go.", session_id=session_id)
    assert [one.tool for one in ears.of(ProjectionFailed)] == ["broken"]
    await loop.send("Next.", session_id=session_id)
    lines = said(requests(loop)[-1].messages)[1][1].splitlines()
    assert lines[1] == "find -> ok: looked for x"
    assert "broken {} -> ok: fine" in lines


@pytest.mark.parametrize("error", [Unprintable(), Panic("no"), asyncio.CancelledError("mine")])
async def test_whatever_a_tools_own_words_raise_ends_nothing(make_loop: MakeLoop, error: BaseException) -> None:
    def broken(arguments: Any, result: str) -> str:
        raise error

    @tool(effect="read", project=broken)
    def look() -> str:
        """Look."""
        return "grass"

    loop = make_loop(call("look"), "Done.", "Yes.", config=SHORT, tool_registry=[look])
    ears = Ears(loop)
    session_id = await loop.new_session()
    assert (await loop.send("Go.", session_id=session_id)).is_completed
    assert [one.tool for one in ears.of(ProjectionFailed)] == ["look"]
    await loop.send("Next.", session_id=session_id)
    assert "look {} -> ok: grass" in requests(loop)[-1].messages[1].text


async def test_without_a_projection_nothing_of_it_is_stored(make_loop: MakeLoop) -> None:
    loop = make_loop(call("search", {"query": "x"}), "Found.", tool_registry=[search])
    session_id = await session_with_a_search(loop)
    store = await loop.get_store()
    assert (await store.read_view(session_id, projected=True)).projected == ()
