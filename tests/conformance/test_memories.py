"""Memories are found by their words, the same on every database, and by nobody but their own namespace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from power_loop.contracts.errors import InputError
from power_loop.contracts.memory import Memory
from power_loop.contracts.states import SchemaPolicy
from power_loop.runtime.store.memories import Memories, MemoryRows
from power_loop.runtime.store.open import open_store
from power_loop.runtime.store.sql.dialect import Renderer, SqliteDialect
from power_loop.runtime.store.sql.provision import provision
from power_loop.runtime.store.sql.sqlite import SqliteDatabase
from power_loop.runtime.store.sql.sqlite_connection import SqliteFile
from power_loop.runtime.store.store import SqlSessionStore
from tests.conformance.backends import BACKENDS
from tests.conformance.parts import HandClock

ANN, BOB = "user=ann", "user=bob"

FACTS = (
    "Ann drinks green tea in the morning.",
    "The deploy script lives in tools/deploy.sh and needs AWS_PROFILE.",
    "Her cat is called Miso.",
    "She never wants meetings before ten.",
    "我喜欢喝绿茶，不喜欢咖啡。",
    "寿司が好きです。",
    "Das Straßenfest beginnt um acht.",
    "Payments are retried three times; invoices are sent on Mondays.",
)

# Questions, and which facts answer them, the best first.
QUESTIONS = {
    "What tea does she drink?": [0],
    "cats": [2],
    "CAT?": [2],
    "where is deploy.sh": [1],
    "aws_profile": [1],
    "绿茶": [4],
    "喜欢什么咖啡": [4],
    "寿司": [5],
    "STRASSENFEST": [6],
    "invoice payment": [7],
    "morning meeting tea": [0, 3],
    "the": [0, 1],
    "nothing of that": [],
    "": [],
    "?!*\"'()": [],
    "zzzz OR tea": [0],
    "tea* NOT green": [0],
    '"green tea" NEAR(morning)': [0],
    "terms:tea ^cat {x} -- ; DROP TABLE pl_memories": [2, 0],
    "+tea -green @ > < ( ) ~ * \\": [0],
    "tea & !cat | <-> 'x'": [2, 0],
}


async def _plain_store(folder: Path, clock: HandClock) -> Memories:
    """Return the memories of a SQLite that was built without FTS5."""
    database = SqliteDatabase(SqliteFile(str(folder / "plain.db"), synchronous="off", busy_timeout_s=5.0))
    database.dialect = SqliteDialect(has_full_text=False)
    render = Renderer(database.dialect, "pl_")
    await provision(database, render, SchemaPolicy.AUTO_CREATE)
    return Memories(database, clock, MemoryRows(render))


@pytest.fixture(params=[*BACKENDS, None], ids=[*(backend.name for backend in BACKENDS), "sqlite-without-fts5"])
async def memories(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Memories]:
    clock = HandClock()
    if request.param is None:
        plain = await _plain_store(tmp_path, clock)
        yield plain
        await plain._database.aclose()
        return
    async with request.param.fresh() as place:
        store = await place.open(clock)
        assert isinstance(store, SqlSessionStore)
        yield store.memories
        await store.aclose()


def texts(found: tuple[Memory, ...]) -> list[str]:
    return [memory.text for memory in found]


@pytest.mark.promise("same-search")
async def test_every_database_gives_the_same_answers_in_the_same_order(memories: Memories) -> None:
    for fact in FACTS:
        await memories.add(ANN, fact)
        await memories.add(BOB, f"Bob knows: {fact}")
    for question, answers in QUESTIONS.items():
        found = await memories.search(ANN, question)
        assert texts(found) == [FACTS[answer] for answer in answers], question
        assert all(memory.score is not None and memory.score > 0 for memory in found)


async def test_a_rarer_word_counts_more_and_a_newer_memory_comes_first_among_equals(memories: Memories) -> None:
    for number in range(30):
        await memories.add(ANN, f"report {number}")
    await memories.add(ANN, "report on whales")
    found = texts(await memories.search(ANN, "report whales", limit=3))
    assert found[0] == "report on whales"
    assert len(found) == 3
    assert texts(await memories.search(ANN, "report 7"))[0] == "report 7"


async def test_a_text_is_remembered_once_and_becomes_the_newest(memories: Memories) -> None:
    clock = memories._clock
    assert isinstance(clock, HandClock)
    first = await memories.add(ANN, " tea ", session_id="sess_1", metadata={"kind": "taste"})
    await memories.add(ANN, "cat")
    clock.ms += 1_000
    again = await memories.add(ANN, "tea", session_id="sess_2")
    assert again.id == first.id
    page = await memories.page(ANN)
    assert [(memory.text, memory.session_id, memory.metadata) for memory in page.items] == [
        ("tea", "sess_2", None),
        ("cat", None, None),
    ]
    assert texts(await memories.search(ANN, "tea")) == ["tea"]


async def test_what_is_forgotten_is_found_no_more(memories: Memories) -> None:
    tea = await memories.add(ANN, "tea and cake")
    await memories.add(ANN, "cake")
    await memories.add(BOB, "tea and cake")
    assert tea.id is not None
    assert await memories.forget(BOB, tea.id) is False
    assert await memories.forget(ANN, tea.id) is True
    assert await memories.forget(ANN, tea.id) is False
    for odd in ("", "mem_", "mem_zzzzzzzzzzzzzzzz", "mem_" + "f" * 16, "mem_" + "0" * 17, "1"):
        assert await memories.forget(ANN, odd) is False
    assert texts(await memories.search(ANN, "tea cake")) == ["cake"]
    assert await memories.forget_all(ANN) == 1
    assert await memories.search(ANN, "cake") == ()
    assert texts(await memories.search(BOB, "cake")) == ["tea and cake"]
    # What is added again is found again.
    await memories.add(ANN, "tea and cake")
    assert texts(await memories.search(ANN, "cake")) == ["tea and cake"]


async def test_the_oldest_leave_where_there_are_too_many_and_old_ones_are_pruned(memories: Memories) -> None:
    clock = memories._clock
    assert isinstance(clock, HandClock)
    for number in range(6):
        clock.ms += 1_000
        await memories.add(ANN, f"tea {number}", max_count=4)
    assert texts((await memories.page(ANN)).items) == ["tea 5", "tea 4", "tea 3", "tea 2"]
    assert len(await memories.search(ANN, "tea")) == 4
    await memories.add(BOB, "tea")
    assert await memories.prune(older_than_s=2, namespace=ANN) == 2
    assert texts((await memories.page(ANN)).items) == ["tea 5", "tea 4"]
    assert await memories.prune(older_than_s=0) == 3
    with pytest.raises(InputError, match="older_than_s"):
        await memories.prune(older_than_s=-1)
    assert (await memories.page(BOB)).items == ()


async def test_pages_go_through_all_memories_once(memories: Memories) -> None:
    for number in range(7):
        await memories.add(ANN, f"fact {number}")
    seen: list[str] = []
    cursor = None
    while True:
        page = await memories.page(ANN, cursor=cursor, limit=3)
        seen += texts(page.items)
        cursor = page.next_cursor
        if cursor is None:
            break
    assert sorted(seen) == [f"fact {number}" for number in range(7)]
    with pytest.raises(InputError, match="no cursor"):
        await memories.page(ANN, cursor="1.2")


async def test_many_add_at_once_and_nothing_is_lost_or_kept_twice(memories: Memories) -> None:
    await asyncio.gather(*[memories.add(ANN, f"fact {number % 10}") for number in range(40)])
    assert sorted(texts((await memories.page(ANN)).items)) == [f"fact {number}" for number in range(10)]
    assert len(await memories.search(ANN, "fact", limit=100)) == 10


async def test_what_cannot_be_a_namespace_a_text_or_a_limit_is_refused(memories: Memories) -> None:
    for namespace in ("", "x" * 201, "a\0b", "a\nb", "\ud800", None, 3):
        for work in (
            memories.add(namespace, "tea"),  # type: ignore[arg-type]
            memories.search(namespace, "tea"),  # type: ignore[arg-type]
            memories.newest(namespace),  # type: ignore[arg-type]
            memories.page(namespace),  # type: ignore[arg-type]
            memories.forget(namespace, "mem_1"),  # type: ignore[arg-type]
            memories.forget_all(namespace),  # type: ignore[arg-type]
        ):
            with pytest.raises(InputError, match="namespace"):
                await work
    for text in ("", " \n", "x" * 20_001, 3):
        with pytest.raises(InputError, match="memory"):
            await memories.add(ANN, text)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="limit"):
        await memories.search(ANN, "tea", limit=0)


HOSTILE = (
    "a",
    "A",
    "a ",
    " a",
    "%",
    "_",
    "a%",
    "a_",
    "*",
    "a*",
    "'",
    '"',
    "a'--",
    "ä",
    "a\u0308",
    "user=ann",
    "user=an",
    "ａ",
)
_NAMES = st.sampled_from(HOSTILE) | st.text(min_size=1, max_size=8).filter(str.isprintable)
_TEXTS = st.sampled_from(["tea", "tea cat", "* OR tea", '"tea', "茶", "NOT tea"]) | st.text(min_size=1, max_size=20)


@pytest.mark.promise("own-memory-only")
async def test_no_namespace_sees_another(memories: Memories) -> None:
    for namespace in HOSTILE:
        await memories.add(namespace, f"tea of {namespace!a}")
    for namespace in HOSTILE:
        own = [f"tea of {namespace!a}"]
        assert texts((await memories.page(namespace)).items) == own
        assert texts(await memories.search(namespace, "tea of user ann a %")) == own
    assert await memories.forget_all("a") == 1
    assert texts(await memories.search("A", "tea")) == ["tea of 'A'"]
    assert texts(await memories.search("a ", "tea")) == ["tea of 'a '"]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(_NAMES, _TEXTS), min_size=1, max_size=12), _NAMES, _TEXTS)
async def test_whatever_is_asked_an_answer_is_from_the_namespace(
    pairs: list[tuple[str, str]], asked: str, question: str
) -> None:
    store = await open_store(":memory:")
    try:
        memories = store.memories
        added = set()
        for namespace, text in pairs:
            if text.strip():
                added.add((namespace, (await memories.add(namespace, text)).text))
        for namespace in {asked, *(name for name, _ in pairs)}:
            found = await memories.search(namespace, question)
            assert {(namespace, memory.text) for memory in found} <= added
            listed = await memories.page(namespace)
            assert {(namespace, memory.text) for memory in listed.items} == {
                one for one in added if one[0] == namespace
            }
    finally:
        await store.aclose()
