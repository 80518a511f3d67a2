"""What is remembered in a store is recalled in later sessions of the same user, and in no other's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from power_loop import LoopConfig, SendStatus, tool
from power_loop.errors import ConfigError, NamespaceError
from power_loop.events import MemoryFailed, MemoryRecalled
from power_loop.llm import LLMFacts, OutputSchema
from power_loop.memory import Exchange, StoreMemory, by_metadata
from power_loop.runtime.store.open import open_store
from power_loop.testing import ScriptedLLM, call
from power_loop.tools import memory_tools

from .conftest import MakeLoop
from .parts import Ears

OF_USER = by_metadata("user")


def _results(llm: ScriptedLLM) -> list[str]:
    """The texts of the results that the last request shows."""
    parts = [part for message in llm.requests[-1].messages for part in message.parts]
    return [part.content[0].text for part in parts if hasattr(part, "call_id")]


@pytest.mark.promise("own-memory-only")
async def test_what_the_model_remembers_is_recalled_in_the_users_later_sessions_only(
    make_loop: MakeLoop, dsn: str
) -> None:
    memory = StoreMemory(dsn, namespace=OF_USER)
    llm = ScriptedLLM([call("remember", {"text": "Ann is allergic to nuts."}), "Noted.", "No nuts.", "Nuts?"])
    loop = make_loop(llm=llm, tool_registry=memory_tools(memory), config=LoopConfig(memory=memory))
    try:
        await loop.send("I cannot have nuts.", session_id=await loop.new_session(metadata={"user": "ann"}))
        await loop.send("Suggest a cake with nuts.", session_id=await loop.new_session(metadata={"user": "ann"}))
        await loop.send("Suggest a cake with nuts.", session_id=await loop.new_session(metadata={"user": "bob"}))
        tails = [request.tail or "" for request in llm.requests]
        assert "allergic" not in tails[0]
        assert "Ann is allergic to nuts." in tails[2]
        assert tails[3] == ""
        # What a user has, an application lists and takes away.
        memories = await memory.get_memories()
        [kept] = (await memories.page("user=ann")).items
        assert kept.text == "Ann is allergic to nuts."
        assert await memories.forget_all("user=ann") == 1
        llm.add("Cake.")
        await loop.send("Suggest a cake with nuts.", session_id=await loop.new_session(metadata={"user": "ann"}))
        assert llm.requests[-1].tail is None
    finally:
        await memory.aclose()


async def test_the_model_searches_and_forgets_in_its_own_namespace(make_loop: MakeLoop, dsn: str) -> None:
    store = await open_store(dsn)
    memory = StoreMemory(store, namespace=OF_USER, max_chars=100)
    tea = await memory.add("user=ann", "tea is fine")
    other = await memory.add("user=bob", "tea is not fine")
    llm = ScriptedLLM(
        [
            call("search_memory", {"query": "tea"}),
            call("search_memory", {"query": "coffee"}),
            call("forget_memory", {"id": other.id}),
            call("forget_memory", {"id": tea.id}),
            call("remember", {"text": "x" * 101}),
            call("remember", {"text": " "}),
            "Done.",
        ]
    )
    loop = make_loop(llm=llm, tool_registry=memory_tools(memory))
    await loop.send("Go.", session_id=await loop.new_session(metadata={"user": "ann"}))
    results = _results(llm)
    assert results[0] == f'- {tea.id}: "tea is fine"'
    assert results[1].startswith("Nothing")
    assert "is remembered: search_memory tells ids" in results[2]
    assert results[3] == "Forgotten."
    assert "101 characters and may have 100" in results[4]
    assert "0 characters" in results[5]
    assert [one.text for one in (await store.memories.page("user=bob")).items] == ["tea is not fine"]
    await memory.aclose()
    await store.aclose()


async def test_a_session_of_nobody_recalls_and_remembers_nothing_and_an_event_says_so(
    make_loop: MakeLoop, dsn: str
) -> None:
    store = await open_store(dsn)
    memory = StoreMemory(store, namespace=OF_USER, extract=lambda exchange: [exchange.final_text])
    await memory.add("user=ann", "tea")
    llm = ScriptedLLM([call("remember", {"text": "tea"}), "Tea."])
    loop = make_loop(llm=llm, tool_registry=memory_tools(memory), config=LoopConfig(memory=memory))
    ears = Ears(loop)
    result = await loop.send("tea", session_id=await loop.new_session())
    assert result.is_completed
    assert [failed.step for failed in ears.of(MemoryFailed)] == ["recall", "remember"]
    assert all("NamespaceError" in failed.message for failed in ears.of(MemoryFailed))
    assert "nobody says whose memory" in _results(llm)[0]
    assert llm.requests[0].tail is None
    await store.aclose()


async def test_what_extract_says_is_remembered_of_each_send_and_a_text_is_everybodys_namespace(
    make_loop: MakeLoop, dsn: str
) -> None:
    asked: list[SendStatus] = []

    async def extract(exchange: Exchange) -> Sequence[str]:
        asked.append(exchange.status)
        return [f"{exchange.input_text} -> {exchange.final_text}", "always"]

    store = await open_store(dsn)
    memory = StoreMemory(store, namespace="team", extract=extract, max_memories=3, newest=0)
    llm = ScriptedLLM(["One.", "Two.", "Three."])
    loop = make_loop(llm=llm, config=LoopConfig(memory=memory))
    ears = Ears(loop)
    for text in ("alpha", "beta", "gamma alpha"):
        await loop.send(text, session_id=await loop.new_session())
    assert asked == [SendStatus.COMPLETED] * 3
    assert [one.memories for one in ears.of(MemoryRecalled)] == [0, 0, 1]
    assert '"alpha -> One."' in (llm.requests[2].tail or "")
    kept = {one.text for one in (await store.memories.page("team")).items}
    assert len(kept) == 3
    assert {"always", "gamma alpha -> Three."} <= kept
    await store.aclose()


@pytest.mark.parametrize("given", ["text", 3, [3], [""]])
async def test_what_extract_gives_and_is_no_text_is_an_event(make_loop: MakeLoop, dsn: str, given: Any) -> None:
    store = await open_store(dsn)
    loop = make_loop("Ok.", config=LoopConfig(memory=StoreMemory(store, namespace="all", extract=lambda _: given)))
    ears = Ears(loop)
    await loop.send("Hi.", session_id=await loop.new_session())
    assert [failed.step for failed in ears.of(MemoryFailed)] == ["remember"]
    assert (await store.memories.page("all")).items == ()
    await store.aclose()


async def test_a_model_picks_out_the_facts_of_sends_that_completed(make_loop: MakeLoop, dsn: str) -> None:
    store = await open_store(dsn)
    teller = ScriptedLLM(
        ["Here:\n- Ann is vegan.\n* Ann lives in Ghent.\n- third\nnot a fact", "NONE", RuntimeError("down")]
    )
    memory = StoreMemory(store, namespace=OF_USER, extract=LLMFacts(teller, max_facts=2, instructions="Skip names."))
    loop = make_loop("Ok </x>.", call("look"), "Fine.", "Bye.", tool_registry=[look], config=LoopConfig(memory=memory))
    ears = Ears(loop)
    sid = await loop.new_session(metadata={"user": "ann"})
    for text in ("I am\nvegan.", "Look!", "Bye."):
        assert (await loop.send(text, session_id=sid)).is_completed
    assert {one.text for one in (await store.memories.page("user=ann")).items} == {
        "Ann is vegan.",
        "Ann lives in Ghent.",
    }
    asked = [request.messages[0].text for request in teller.requests]
    assert asked[0] == 'user: "I am\\nvegan."\nassistant: "Ok <\\/x>."'
    assert "poisoned" not in asked[1]
    assert "Skip names." in (teller.requests[0].system or "")
    assert [failed.message for failed in ears.of(MemoryFailed)] == ["RuntimeError: down"]
    with pytest.raises(ConfigError, match="max_facts"):
        LLMFacts(teller, max_facts=0)
    await store.aclose()


async def test_what_the_kernel_asks_for_again_is_no_word_of_the_user(make_loop: MakeLoop, dsn: str) -> None:
    store, teller = await open_store(dsn), ScriptedLLM(["NONE"])
    memory = StoreMemory(store, namespace=OF_USER, extract=LLMFacts(teller))
    loop = make_loop("seven", '{"n": 7}', config=LoopConfig(memory=memory))
    schema = OutputSchema({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]})
    sid = await loop.new_session(metadata={"user": "ann"})
    assert (await loop.send("How many?", session_id=sid, output_schema=schema)).output == {"n": 7}
    assert len(await loop.get_messages(sid)) == 4
    assert teller.requests[0].messages[0].text == 'user: "How many?"\nassistant: "{\\"n\\": 7}"'
    await store.aclose()


@tool(effect="read")
def look() -> str:
    """Look."""
    return "Ann is poisoned."


VALUES = st.text(max_size=5) | st.integers() | st.none() | st.booleans() | st.lists(st.integers(), max_size=1)


@given(st.fixed_dictionaries({"a": VALUES, "b": VALUES}), st.fixed_dictionaries({"a": VALUES, "b": VALUES}))
def test_two_sessions_share_a_namespace_only_if_all_its_values_are_the_same(
    one: Mapping[str, Any], other: Mapping[str, Any]
) -> None:
    namespace = by_metadata("a", "b")
    first, second = namespace(one), namespace(other)
    if first is not None and first == second:
        assert {key: str(value) for key, value in one.items()} == {key: str(value) for key, value in other.items()}
    for metadata, found in ((one, first), (other, second)):
        assert (found is not None) == all(type(value) in (str, int) and value != "" for value in metadata.values())


def test_what_cannot_work_is_refused_where_it_is_given(dsn: str) -> None:
    for options in (
        {"namespace": 3},
        {"namespace": None},
        {"namespace": "all", "newest": -1},
        {"namespace": "all", "max_recalled": 101},
        {"namespace": "all", "max_memories": True},
    ):
        with pytest.raises(ConfigError):
            StoreMemory(dsn, **options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        by_metadata()
    with pytest.raises(NamespaceError):
        StoreMemory(dsn, namespace=lambda metadata: None).namespace_of({})
