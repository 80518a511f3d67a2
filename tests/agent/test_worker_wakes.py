"""A worker that has nothing to do learns of what is left: at once where the database tells it, else by looking."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from power_loop import LLMRequest, StatefulAgentLoop, Worker
from power_loop.testing import ScriptedLLM
from tests.conformance.backends import BACKENDS, DatabaseServer
from tests.servers import shared_server

from .parts import within_limit

#: A worker that looks so seldom that a test would end long before it does.
NEVER_S = 3600.0
# Cuts off everybody.
_KILL = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


@pytest.fixture(params=[one for one in BACKENDS if one.name != "sqlite-memory"], ids=lambda one: one.name)
async def place(request: pytest.FixtureRequest) -> AsyncIterator[tuple[str, str, str]]:
    async with request.param.fresh() as place:
        yield place.dsn, getattr(place, "prefix", "pl_"), request.param.name


def loop_on(place: tuple[str, str, str], *steps: Any, query: str = "", **options: Any) -> StatefulAgentLoop:
    """Return a handle; with a `query`, one whose database is opened apart, as by another process."""
    dsn = place[0] if "://" in place[0] else f"sqlite:///{place[0]}"
    dsn = f"{dsn}{'&' if '?' in dsn else '?'}{query}" if query else dsn
    return StatefulAgentLoop(llm=ScriptedLLM(steps), dsn=dsn, table_prefix=place[1], **options)


class Driven:
    """Is a model that tells what it was asked."""

    def __init__(self) -> None:
        self.texts: asyncio.Queue[str] = asyncio.Queue()

    def __call__(self, request: LLMRequest) -> str:
        self.texts.put_nowait(request.messages[-1].text)
        return "Yes."

    async def next(self) -> str:
        return await within_limit(self.texts.get())


@pytest.mark.promise("fleet")
async def test_what_another_process_leaves_is_driven(place: tuple[str, str, str]) -> None:
    driven = Driven()
    is_told = place[2] == "postgres"
    apart = "busy_timeout_s=9.5" if place[2] == "sqlite" else "pool_size=3"
    async with loop_on(place, *[driven] * 3) as back, loop_on(place, query=apart) as front:
        sid = await front.new_session()
        # Where the database tells of work, nothing but that can wake it.
        async with Worker(back, poll_s=NEVER_S if is_told else 0.02) as worker:
            for n in range(3):
                await front.enqueue(sid, f"{n}")
                assert await driven.next() == f"{n}"
        assert worker.turns == 3


@pytest.fixture
async def postgres() -> AsyncIterator[tuple[str, str, str]]:
    backend = next(one for one in BACKENDS if isinstance(one, DatabaseServer) and one.name == "postgres")
    async with backend.fresh() as place:
        yield place.dsn, place.prefix, "postgres"  # type: ignore[attr-defined]


@pytest.mark.promise("fleet")
async def test_a_worker_whose_ear_was_cut_off_listens_again(postgres: tuple[str, str, str]) -> None:
    driven = Driven()
    async with loop_on(postgres, *[driven] * 2) as back, loop_on(postgres, query="pool_size=3") as front:
        sid = await front.new_session()
        async with Worker(back, poll_s=NEVER_S):
            for text in ("before", "behind"):
                await front.enqueue(sid, text)
                assert await driven.next() == text
                shared_server("postgres").run(_KILL, dsn=postgres[0])


async def test_an_ear_hears_what_is_left_and_what_is_handed_back_until_it_is_closed(
    postgres: tuple[str, str, str],
) -> None:
    async with loop_on(postgres) as loop, loop_on(postgres, query="pool_size=3") as front:
        heard: asyncio.Queue[None] = asyncio.Queue()
        here = asyncio.get_running_loop()
        store = await loop.get_store()
        ear = await store.listen(lambda: here.call_soon_threadsafe(heard.put_nowait, None))
        assert ear is not None
        assert await ear.check()
        sid = await front.new_session()
        await front.enqueue(sid, "one")
        await within_limit(heard.get())
        [claimed] = await store.claim_stalled("alice", ttl_s=30, limit=1)
        # Whoever drives it goes on with it: nobody has to be told.
        await front.enqueue(sid, "two")
        assert heard.empty()
        shared_server("postgres").run(_KILL, dsn=postgres[0])
        await within_limit(heard.get())
        assert not ear.is_open
        assert not await ear.check()
        await ear.aclose()
        assert claimed.session_id == sid


async def test_behind_a_pooler_and_elsewhere_there_is_no_ear(place: tuple[str, str, str]) -> None:
    query = "statement_cache_size=0" if place[2] == "postgres" else ""
    async with loop_on(place, query=query) as loop:
        assert await (await loop.get_store()).listen(lambda: None) is None


async def test_closing_a_store_ends_its_ears(postgres: tuple[str, str, str]) -> None:
    loop = loop_on(postgres, query="pool_size=4")
    ear = await (await loop.get_store()).listen(lambda: None)
    await within_limit(loop.aclose())
    assert ear is not None
    assert not ear.is_open
    assert not await ear.check()
    await ear.aclose()
