"""What the page shows is what the store has, on every database, and it is told of every change, whoever makes it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from power_loop import Budget, LLMRequest, LoopConfig, StatefulAgentLoop, tool
from power_loop.contrib.inspect.views import PAGE_MESSAGES, bounded
from power_loop.testing import ScriptedLLM, call
from scripts.inspector_world import build, loop_of, make_waiting
from tests.agent.parts import Gate
from tests.runtime.store.sites import KINDS, Site, fresh_site

from .conftest import Visit
from .visitor import Visitor


@pytest.fixture(params=KINDS)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    with fresh_site(request.param, tmp_path) as found:
        yield found


@pytest.mark.promise("inspector")
@pytest.mark.usefixtures("patient")
async def test_everything_is_shown_and_answered_on_every_database(site: Site, visit: Visit) -> None:
    ids = await build(site.dsn)
    async with make_waiting(site.dsn) as loop:
        visitor = await visit(loop, can_write=True, can_drive=True)
        listed = {one["id"]: one for one in (await visitor.read("sessions"))["sessions"]}
        assert (listed["shop"]["waits"], listed["party"]["status"], len(listed)) == (True, "completed", 12)
        overview = await visitor.read("overview")
        assert [one["name"] for one in overview["runs"]] == ["tea guide"]
        assert (overview["owners"], overview["stalled"]) == ([], [])

        shop = await visitor.read("session", session="shop")
        [asked] = [one for one in shop["pending"] if one["wait_kind"]]
        assert (asked["name"], json.loads(asked["arguments"])) == ("order", {"name": "gyokuro", "grams": 100})
        assert asked["is_whole"]
        assert [one["message"]["role"] for one in shop["messages"]][:2] == ["user", "assistant"]
        assert {one["name"]: one["state"] for one in shop["calls"]} == {"find_tea": "succeeded", "order": "waiting"}
        assert shop["budget"]["limits"]["max_tokens"] == 20_000
        assert (shop["stats"]["model_calls"], float(shop["stats"]["cost"])) == (4, 0.00042)

        tree = await visitor.read("tree", session=next(one for one in listed if listed[one]["agent"] == "buyer"))
        names = {one["id"]: one["agent"] for one in tree["nodes"]}
        edges = {(names.get(one["parent_id"]), one["agent"]) for one in tree["nodes"]}
        assert edges == {(None, None), (None, "taster"), (None, "buyer"), ("buyer", "taster")}

        run = (await visitor.read("session", session=ids["run"]))["run"]
        assert {one["path"]: one["state"] for one in run["steps"]}["editor"] == "waiting"
        told = await visitor.ask("POST", "/api/signal", {"session_id": ids["run"], "name": "editor", "value": "yes"})
        assert told.status == 200
        await _until(visitor, ids["run"], lambda found: found["run"]["state"] == "completed")

        answer = {"session_id": "shop", "answers": {asked["call_id"]: {"kind": "approve"}}}
        assert (await visitor.ask("POST", "/api/resume", answer)).status in (200, 202)
        done = await _until(visitor, "shop", lambda found: found["sends"][-1]["status"] == "completed")
        assert "4711" in json.dumps(done["messages"][-1])
        again = await visitor.ask("POST", "/api/resume", answer)
        assert (again.status, again.value["code"]) == (409, "call.not_waiting")


async def _until(visitor: Visitor, session_id: str, holds: Any) -> Any:
    """Return a session once something holds of it; it is looked at whenever the page is told that it changed."""
    async for name, _ in visitor.events(session_id):
        if name == "changed":
            found = await visitor.read("session", session=session_id)
            if holds(found):
                return found
    raise AssertionError("the events ended")


async def test_what_another_process_writes_is_told(site: Site, visit: Visit) -> None:
    """The second loop has a bus of its own: nothing but rows leads from it to the page."""
    gate = Gate()

    @tool
    async def wait() -> str:
        """Wait."""
        await gate.passing()
        return "done"

    model = ScriptedLLM([call("wait"), "Ready."])
    async with (
        StatefulAgentLoop(llm=model, dsn=site.dsn, tool_registry=[wait]) as writer,
        StatefulAgentLoop(llm=ScriptedLLM(), dsn=site.dsn) as looking,
    ):
        session_id = await writer.new_session()
        visitor = await visit(looking)
        events = visitor.events(session_id)
        assert await anext(events) == ("changed", None)
        turn = asyncio.create_task(writer.send("Go.", session_id=session_id))
        await gate.someone()
        found = await _seen(visitor, events, session_id, "started")
        assert (found["session"]["owner"] is not None, found["sends"][-1]["status"]) == (True, "running")
        gate.open()
        await turn
        found = await _seen(visitor, events, session_id, "succeeded")
        assert found["messages"][-1]["message"]["parts"] == [{"type": "text", "text": "Ready."}]
        await events.aclose()  # type: ignore[attr-defined]


async def _seen(visitor: Visitor, events: AsyncIterator[tuple[str, Any]], session_id: str, state: str) -> Any:
    async for name, _ in events:
        found = await visitor.read("session", session=session_id)
        is_there = [one["state"] for one in found["calls"]] == [state]
        if name == "changed" and is_there and (state == "started" or found["sends"][-1]["status"] == "completed"):
            return found
    raise AssertionError("the events ended")


async def test_the_events_of_an_attached_loop_stream_with_their_pieces(tmp_path: Path, visit: Visit) -> None:
    model = ScriptedLLM(["A long answer.", "Another."])
    async with StatefulAgentLoop(llm=model, dsn=str(tmp_path / "app.db")) as loop:
        session_id, other = await loop.new_session(), await loop.new_session()
        visitor = await visit(loop, is_attached=True)
        events = visitor.events(session_id)
        await anext(events)
        await loop.send("Not for this page.", session_id=other)
        await loop.send("Hello?", session_id=session_id)
        told: list[Any] = []
        async for name, value in events:
            if name == "told":
                told.append(value)
                if value["type"] == "send.finished":
                    break
        assert {one["session_id"] for one in told} == {session_id}
        types = [one["type"] for one in told]
        assert types.index("send.started") < types.index("delta.text") < types.index("message.appended", 5)
        assert "".join(one["payload"]["text"] for one in told if one["type"] == "delta.text") == "Another."
        await events.aclose()  # type: ignore[attr-defined]


async def test_a_prompt_is_shown_part_by_part_with_what_is_new(tmp_path: Path, visit: Visit) -> None:
    @tool(effect="read")
    def look() -> str:
        """Look around."""
        return "a room"

    dsn = str(tmp_path / "app.db")
    model = ScriptedLLM([call("look"), "A room.", "Still a room."])
    async with StatefulAgentLoop(llm=model, dsn=dsn, tool_registry=[look]) as loop:
        attached = await visit(loop, is_attached=True)
        session_id = await loop.new_session(system_prompt="Be brief.")
        await loop.send("Where are you?", session_id=session_id)
        await loop.update_session(session_id, system_prompt="Be long.")
        await loop.send("And now?", session_id=session_id)
        calls = [one.reply_seq for one in await (await loop.get_store()).get_model_calls(session_id)][::-1]
        exact = [await attached.read("prompt", session=session_id, call=one) for one in calls]
    async with StatefulAgentLoop(llm=ScriptedLLM(), dsn=dsn) as looking:
        visitor = await visit(looking)
        first, second, third = [await visitor.read("prompt", session=session_id, call=one) for one in calls]
        missing = await visitor.ask("GET", f"/api/prompt?session={session_id}&call=1")
        assert (missing.status, missing.value["code"]) == (404, "model_call.not_found")
    assert [one["segment"]["kind"] for one in first["parts"]] == ["tools", "system", "messages"]
    assert (first["previous_call"], first["is_exact"], first["gone"]) == (None, False, [])
    # Of tools that this process does not have, and of a prompt that was replaced, there are digests only.
    assert [one["is_known"] for one in first["parts"]] == [False, False, True]
    assert [(one["seq"], one["is_new"]) for one in second["parts"][2]["messages"]] == [(1, False), (2, True), (3, True)]
    assert (second["broken_by"], second["previous_call"]) == (None, calls[0])
    assert (third["parts"][1]["text"], third["parts"][1]["is_new"]) == ("Be long.", True)
    assert [one["segment"]["kind"] for one in third["gone"]] == ["system"]
    assert "the system prompt changed" in third["reason"]
    # In the process that sent them, every word is there.
    assert [one["is_exact"] for one in exact] == [True] * 3
    assert [one["parts"][1]["text"] for one in exact] == ["Be brief.", "Be brief.", "Be long."]
    assert [one["name"] for one in exact[0]["parts"][0]["tools"]] == ["look"]
    assert any("system" in line for line in exact[2]["lines"])


async def test_a_long_session_comes_page_by_page(loop: StatefulAgentLoop, visit: Visit) -> None:
    session_id = await loop.new_session()
    for _ in range(PAGE_MESSAGES // 2 + 3):
        await loop.send("And?", session_id=session_id)
    visitor = await visit(loop)
    last = await visitor.read("session", session=session_id)
    assert [one["seq"] for one in last["messages"]] == list(range(7, PAGE_MESSAGES + 7))
    first = await visitor.read("session", session=session_id, before=last["first_seq"])
    assert [one["seq"] for one in first["messages"]] == list(range(1, 7))
    more = await visitor.read("session", session=session_id, after=PAGE_MESSAGES + 5)
    assert [one["seq"] for one in more["messages"]] == [PAGE_MESSAGES + 6]
    assert len(more["sends"]) == 1


async def test_ten_megabytes_are_cut_until_all_of_it_is_asked_for(tmp_path: Path, visit: Visit) -> None:
    @tool(effect="read")
    def flood() -> str:
        """Say much."""
        return "x" * 10_000_000

    @tool(requires_approval=True)
    def pay(note: str) -> str:
        """Pay."""
        return note

    model = ScriptedLLM([call("flood"), call("pay", {"note": "n" * 300_000})])
    config = LoopConfig()
    async with StatefulAgentLoop(
        llm=model, dsn=str(tmp_path / "a.db"), tool_registry=[flood, pay], config=config
    ) as loop:
        session_id = await loop.new_session(metadata={"title": "t" * 50_000})
        await loop.send("Go.", session_id=session_id)
        visitor = await visit(loop)
        answer = await visitor.ask("GET", f"/api/session?session={session_id}")
        assert len(answer.body) < 200_000
        # Who cannot see all of a call's arguments cannot approve it.
        [asked] = answer.value["pending"]
        assert (asked["is_whole"], len(asked["arguments"]) < 25_000) == (False, True)
        whole = await visitor.read("message", session=session_id, seq=3)
        assert 300_000 < len(whole["whole"][0]["text"]) < 500_000


def test_whatever_an_answer_holds_its_size_is_bounded() -> None:
    deep: Any = "end"
    for _ in range(900):
        deep = {"in": [deep]}
    wide = {f"{'k' * 1_000}{number}": ["v" * 100_000] * 1_000 for number in range(1_000)}
    assert len(json.dumps(bounded({"deep": deep}))) < 1_000
    assert len(json.dumps(bounded(wide))) < 8_000_000


async def test_a_turn_that_fails_later_is_told_to_its_page(tmp_path: Path, visit: Visit) -> None:
    gate = Gate()

    async def refuse(request: LLMRequest) -> Any:
        await gate.passing()
        raise RuntimeError("the model is gone")

    @tool(requires_approval=True)
    def pay() -> str:
        """Pay."""
        return "paid"

    model = ScriptedLLM([call("pay"), refuse])
    async with StatefulAgentLoop(llm=model, dsn=str(tmp_path / "a.db"), tool_registry=[pay]) as loop:
        session_id = await loop.new_session()
        waiting = await loop.send("Pay.", session_id=session_id, budget=Budget(max_tokens=10_000))
        visitor = await visit(loop, can_write=True, can_drive=True)
        events = visitor.events(session_id)
        await anext(events)
        answers = {waiting.pending[0].call_id: {"kind": "approve"}}
        begun = await visitor.ask("POST", "/api/resume", {"session_id": session_id, "answers": answers})
        assert begun.status == 202
        gate.open()
        async for name, value in events:
            if name == "notice":
                assert "the model is gone" in value["text"]
                break
        await events.aclose()  # type: ignore[attr-defined]


async def test_a_turn_that_runs_is_cancelled(tmp_path: Path, visit: Visit) -> None:
    gate = Gate()
    async with loop_of(str(tmp_path / "a.db"), {"be": [gate.then("Never said.")]}) as loop:
        session_id = await loop.new_session(system_prompt="Be.")
        visitor = await visit(loop, can_write=True)
        async with loop.stream("Go.", session_id=session_id) as stream:
            async for event in stream:
                if event.type == "llm.started":
                    assert (await visitor.ask("POST", "/api/cancel", {"session_id": session_id})).status in (200, 202)
        assert stream.result.status.value == "cancelled"


async def test_a_turn_of_another_process_and_a_run_are_cancelled_without_a_model(tmp_path: Path, visit: Visit) -> None:
    dsn = str(tmp_path / "a.db")
    ids = await build(dsn)
    gate = Gate()
    async with (
        loop_of(dsn, {"be": [gate.then("Never said.")]}) as writer,
        StatefulAgentLoop(llm=ScriptedLLM(), dsn=dsn) as looking,
    ):
        session_id = await writer.new_session(system_prompt="Be.")
        visitor = await visit(looking, can_write=True)
        turn = asyncio.create_task(writer.send("Go.", session_id=session_id))
        await gate.someone()
        assert (await visitor.ask("POST", "/api/cancel", {"session_id": session_id})).status in (200, 202)
        assert (await turn).status.value == "cancelled"
        assert (await visitor.ask("POST", "/api/cancel", {"session_id": ids["run"]})).status in (200, 202)
        await _until(visitor, ids["run"], lambda found: found["run"]["state"] == "cancelled")
