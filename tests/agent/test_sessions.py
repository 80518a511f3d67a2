"""Sessions: made, edited, listed, closed, read, and never mixed up."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from power_loop import PowerLoopError, SchemaPolicy, SessionState, StatefulAgentLoop, open_store, tool
from power_loop.errors import (
    ConfigError,
    InputError,
    SessionBusyError,
    SessionClosedError,
    SessionExistsError,
    SessionNotFoundError,
    StoreSchemaError,
)
from power_loop.events import SessionCreated
from power_loop.testing import ScriptedLLM, call

from .conftest import MakeLoop
from .parts import CountingStore, Gate, said


async def test_a_new_session_has_an_id_of_its_own_and_keeps_what_it_was_given(make_loop: MakeLoop) -> None:
    loop = make_loop()
    first = await loop.new_session()
    second = await loop.new_session(system_prompt="Be brief.", metadata={"user": "ann", "n": [1, None, 0.5]})
    third = await loop.new_session(session_id="chat:42")
    assert len({first, second, third}) == 3
    assert first.startswith("sess_")
    assert third == "chat:42"
    record = await loop.get_session(second)
    assert (record.system_prompt, record.metadata) == ("Be brief.", {"user": "ann", "n": [1, None, 0.5]})
    assert (record.state, record.send_count, record.next_seq) == (SessionState.OPEN, 0, 1)


@pytest.mark.parametrize("session_id", ["", " ", "a b", "é", "x" * 65, "a\nb", "\0", 5, b"x"])
@pytest.mark.promise("bad-input")
async def test_an_id_that_not_every_database_and_url_can_hold_is_refused(make_loop: MakeLoop, session_id: Any) -> None:
    with pytest.raises(InputError, match="session_id"):
        await make_loop().new_session(session_id=session_id)


async def test_a_session_that_may_exist_is_made_once_and_left_as_it_is(make_loop: MakeLoop) -> None:
    loop = make_loop()
    made: list[str] = []
    loop.event_bus.subscribe(lambda event: made.append(event.session_id), types=[SessionCreated])
    many = (loop.new_session(session_id="one", system_prompt=f"Number {n}.", may_exist=True) for n in range(8))
    assert set(await asyncio.gather(*many)) == {"one"}
    first = (await loop.get_session("one")).system_prompt
    assert await loop.new_session(session_id="one", system_prompt="Later.", may_exist=True) == "one"
    assert (await loop.get_session("one")).system_prompt == first
    assert made == ["one"]


async def test_a_session_that_exists_is_not_made_again(make_loop: MakeLoop) -> None:
    loop = make_loop()
    await loop.new_session(session_id="one", system_prompt="First.")
    with pytest.raises(SessionExistsError) as caught:
        await loop.new_session(session_id="one", system_prompt="Second.")
    assert caught.value.session_id == "one"
    assert (await loop.get_session("one")).system_prompt == "First."


@pytest.mark.parametrize("metadata", [{"a": object()}, {"a": float("nan")}, {"a": {1, 2}}, "text", 5, ["a"]])
@pytest.mark.promise("bad-input")
async def test_metadata_that_is_no_json_object_is_refused_and_nothing_is_made(
    make_loop: MakeLoop, metadata: Any
) -> None:
    loop = make_loop()
    with pytest.raises(InputError):
        await loop.new_session(session_id="one", metadata=metadata)
    with pytest.raises(SessionNotFoundError):
        await loop.get_session("one")


async def test_an_edit_reaches_the_next_model_call_also_of_a_warm_handle(make_loop: MakeLoop) -> None:
    loop = make_loop("One.", "Two.", "Three.")
    sid = await loop.new_session(system_prompt="Be brief.")
    await loop.send("a", session_id=sid)
    # Through another handle, as another process would.
    other = make_loop()
    edited = await other.update_session(sid, system_prompt="Be long.", metadata={"k": 1})
    assert (edited.system_prompt, edited.metadata) == ("Be long.", {"k": 1})
    await loop.send("b", session_id=sid)
    edited = await other.update_session(sid, clear_system_prompt=True)
    assert (edited.system_prompt, edited.metadata) == (None, {"k": 1}), "what is not named stays"
    await loop.send("c", session_id=sid)
    assert [request.system for request in loop.llm.requests] == ["Be brief.", "Be long.", None]


async def test_an_edit_that_contradicts_itself_is_refused(make_loop: MakeLoop) -> None:
    loop = make_loop()
    sid = await loop.new_session(system_prompt="Be brief.")
    with pytest.raises(InputError):
        await loop.update_session(sid, system_prompt="x", clear_system_prompt=True)
    assert (await loop.get_session(sid)).system_prompt == "Be brief."


async def test_sessions_are_listed_page_by_page_newest_first(make_loop: MakeLoop) -> None:
    loop = make_loop()
    made = [await loop.new_session(metadata={"odd": bool(n % 2), "n": n}) for n in range(7)]
    listed: list[str] = []
    cursor = None
    pages = 0
    while True:
        page = await loop.list_sessions(limit=3, cursor=cursor)
        listed += [one.id for one in page.items]
        pages += 1
        if page.next_cursor is None:
            break
        # What comes meanwhile moves nothing.
        await loop.new_session()
        cursor = page.next_cursor
    assert pages == 3
    assert set(listed) == set(made)
    assert len(listed) == len(made)
    times = {one: (await loop.get_session(one)).created_at_ms for one in made}
    assert [times[one] for one in listed] == sorted(times.values(), reverse=True)
    odd = await loop.list_sessions(metadata={"odd": True})
    assert {one.metadata["n"] for one in odd.items} == {1, 3, 5}


async def test_sessions_are_listed_by_state(make_loop: MakeLoop) -> None:
    loop = make_loop()
    first, second = [await loop.new_session() for _ in range(2)]
    await loop.close_session(first)
    assert [one.id for one in (await loop.list_sessions(state="open")).items] == [second]
    assert [one.id for one in (await loop.list_sessions(state=SessionState.CLOSED)).items] == [first]


@pytest.mark.parametrize(
    "options",
    [{"state": "gone"}, {"cursor": "not-a-cursor"}, {"cursor": ""}, {"limit": 0}, {"limit": 10_000}, {"limit": "3"}],
)
@pytest.mark.promise("bad-input")
async def test_a_list_that_cannot_be_given_is_refused(make_loop: MakeLoop, options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        await make_loop().list_sessions(**options)


async def test_a_closed_session_takes_no_input_and_can_be_read(make_loop: MakeLoop) -> None:
    loop = make_loop("Hello.")
    sid = await loop.new_session()
    await loop.send("Hi.", session_id=sid)
    assert await loop.close_session(sid) is True
    assert await loop.close_session(sid) is False
    with pytest.raises(SessionClosedError):
        await loop.send("More.", session_id=sid)
    assert said(await loop.get_messages(sid)) == [("user", "Hi."), ("assistant", "Hello.")]
    assert (await loop.get_session(sid)).state is SessionState.CLOSED


async def test_a_session_is_not_closed_under_a_turn(make_loop: MakeLoop) -> None:
    gate = Gate()
    loop = make_loop(gate.then("Hello."))
    sid = await loop.new_session()
    async with loop.stream("Hi.", session_id=sid) as events:
        await gate.someone()
        with pytest.raises(SessionBusyError):
            await loop.close_session(sid)
        gate.open()
        await events.wait()
    assert await loop.close_session(sid) is True


async def test_messages_are_read_from_anywhere_on(make_loop: MakeLoop) -> None:
    loop = make_loop("A.", "B.", "C.")
    sid = await loop.new_session()
    for text in "abc":
        await loop.send(text, session_id=sid)
    everything = await loop.get_messages(sid)
    assert said(everything) == [(r, t) for u in "abc" for r, t in (("user", u), ("assistant", f"{u.upper()}."))]
    assert [one.seq for one in everything] == [1, 2, 3, 4, 5, 6]
    assert [(one.send_index, one.round) for one in everything] == [(1, 0), (1, 1), (2, 0), (2, 1), (3, 0), (3, 1)]
    assert await loop.get_messages(sid, after_seq=2, limit=3) == everything[2:5]
    assert await loop.get_messages(sid, after_seq=6) == ()
    with pytest.raises(InputError):
        await loop.get_messages(sid, limit=-1)


@pytest.mark.promise("bad-input")
async def test_an_unknown_session_is_an_error_that_says_so_at_every_door(make_loop: MakeLoop) -> None:
    loop = make_loop()
    doors = [
        loop.get_session("none"),
        loop.update_session("none", system_prompt="x"),
        loop.close_session("none"),
        loop.get_messages("none"),
        loop.get_session_stats("none"),
        loop.get_tool_result("none", "c"),
        loop.prewarm("none"),
        loop.send("Hi.", session_id="none"),
        loop.send("Hi.", session_id="none", request_id="r"),
        loop.send("Hi.", session_id="none", heal_pending=True),
        loop.resume("none"),
        loop.submit_tool_result("none", "c", "x"),
        loop.get_pending("none"),
        loop.heal_pending("none"),
        loop.abort_pending("none"),
        loop.send("Hi.", session_id="é \0"),
    ]
    for door in doors:
        with pytest.raises(SessionNotFoundError, match="new_session"):
            await door
    assert await loop.cancel("none") is False
    with pytest.raises(SessionNotFoundError):
        async with loop.stream("Hi.", session_id="none") as events:
            await events.wait()
    assert (await loop.list_sessions()).items == ()


async def test_stats_tell_what_a_session_took(make_loop: MakeLoop) -> None:
    @tool(effect="read")
    def look() -> str:
        """Look."""
        return "seen"

    loop = make_loop(call("look"), "Done.", "Again.", tool_registry=[look])
    sid = await loop.new_session()
    empty = await loop.get_session_stats(sid)
    assert (empty.sends, empty.messages, empty.model_calls, empty.tool_calls, empty.stored_bytes) == (0, 0, 0, 0, 0)
    await loop.send("a", session_id=sid)
    await loop.send("b", session_id=sid)
    stats = await loop.get_session_stats(sid)
    assert (stats.sends, stats.messages, stats.model_calls, stats.tool_calls) == (2, 6, 3, 1)
    assert (stats.usage.input_tokens, stats.usage.output_tokens) == (30, 15)
    assert stats.stored_bytes > 0


async def test_a_prewarmed_session_is_not_read_again_by_its_send(make_loop: MakeLoop, dsn: str) -> None:
    writer = make_loop("One.")
    sid = await writer.new_session()
    await writer.send("a", session_id=sid)
    store = CountingStore(await open_store(dsn))
    loop = make_loop("Two.", store=store)
    await loop.prewarm(sid)
    assert store.asked.count("read_view") == 1
    store.asked.clear()
    result = await loop.send("b", session_id=sid)
    assert result.final_text == "Two."
    assert "read_view" not in store.asked
    assert said(loop.llm.requests[0].messages) == [("user", "a"), ("assistant", "One."), ("user", "b")]
    await store.aclose()


async def test_prewarming_is_cheap_when_warm_and_right_when_outdated(make_loop: MakeLoop, dsn: str) -> None:
    store = CountingStore(await open_store(dsn))
    loop, other = make_loop("One.", "Three.", store=store), make_loop("Two.")
    sid = await loop.new_session()
    await loop.send("a", session_id=sid)
    store.asked.clear()
    await loop.prewarm(sid)
    assert "read_view" not in store.asked
    await other.send("b", session_id=sid)
    await loop.prewarm(sid)
    assert store.asked.count("read_view") == 1
    await loop.send("c", session_id=sid)
    assert [text for _, text in said(loop.llm.requests[-1].messages)] == ["a", "One.", "b", "Two.", "c"]
    await store.aclose()


async def test_a_store_that_was_brought_stays_open_and_the_callers(make_loop: MakeLoop, dsn: str) -> None:
    store = await open_store(dsn)
    async with StatefulAgentLoop(llm=ScriptedLLM(["One."]), store=store) as loop:
        sid = await loop.new_session()
        await loop.send("a", session_id=sid)
    assert len(await store.get_messages(sid)) == 2
    second = make_loop("Two.", store=store)
    assert (await second.send("b", session_id=sid)).final_text == "Two."
    await store.aclose()


@pytest.mark.promise("bad-input")
async def test_a_handle_has_one_store_only(dsn: str) -> None:
    store = await open_store(dsn)
    with pytest.raises(ConfigError, match="give one of them"):
        StatefulAgentLoop(llm=ScriptedLLM(), dsn=dsn, store=store)
    await store.aclose()


async def test_table_prefixes_are_worlds_of_their_own(make_loop: MakeLoop) -> None:
    ours, theirs = make_loop("Ours."), make_loop("Theirs.", table_prefix="theirs_")
    await ours.new_session(session_id="one")
    await theirs.new_session(session_id="one")
    await ours.send("a", session_id="one")
    await theirs.send("b", session_id="one")
    assert said(await ours.get_messages("one")) == [("user", "a"), ("assistant", "Ours.")]
    assert said(await theirs.get_messages("one")) == [("user", "b"), ("assistant", "Theirs.")]


async def test_a_handle_that_may_only_verify_says_which_tables_are_missing(make_loop: MakeLoop, tmp_path: Path) -> None:
    careful = make_loop(schema=SchemaPolicy.VERIFY)
    with pytest.raises(StoreSchemaError) as caught:
        await careful.new_session()
    assert "CREATE TABLE" in caught.value.ddl
    # Once they are there, the same handle works: a failed opening is tried again by the next use.
    await make_loop().new_session(session_id="one")
    assert (await careful.get_session("one")).id == "one"


@pytest.mark.promise("bad-input")
@pytest.mark.parametrize("dsn_of", ["postgresql://h/x?nonsense=1", "sqlite:///x?nonsense=1", "", "http://x", "a\0b"])
async def test_a_dsn_that_cannot_be_used_is_a_coded_error_at_first_use(dsn_of: str) -> None:
    loop = StatefulAgentLoop(llm=ScriptedLLM(), dsn=dsn_of)
    with pytest.raises(PowerLoopError) as caught:
        await loop.new_session()
    assert caught.value.code in ("store.invalid_dsn", "config.missing_extra", "store.unavailable")


async def test_an_id_that_a_deleted_session_had_is_another_session_to_every_handle(make_loop: MakeLoop) -> None:
    here, there = make_loop("A", "C"), make_loop("B")
    await here.new_session(session_id="x")
    await here.send("old", session_id="x")
    await (await there.get_store()).delete_session("x")
    await there.new_session(session_id="x")
    await there.send("new", session_id="x")
    await here.send("third", session_id="x")
    assert [message.text for message in here.llm.requests[-1].messages] == ["new", "B", "third"]
