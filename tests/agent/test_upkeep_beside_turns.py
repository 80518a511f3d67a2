"""Who prunes, deletes and forks beside a running turn takes nothing from it, and leaves nothing of what is removed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from power_loop import LLMRequest, SendStatus, tool
from power_loop.errors import SessionBusyError, SessionNotFoundError
from power_loop.testing import ScriptedLLM, calls
from power_loop.timers import SystemClock

from .bank import Bank, bank, town
from .conftest import MakeLoop
from .parts import said, within_limit

__all__ = ["bank", "town"]

ROUNDS = 3
TALKS = 5
WHOLE = "seen " * 100


@tool(effect="read", max_result_chars=50)
async def look(n: int) -> str:
    """Look."""
    await asyncio.sleep(0)
    return WHOLE


def turns(times: int) -> list[Any]:
    """Return what a model says in so many turns of a few rounds."""
    return [*[calls(("look", {"n": n}), ("look", {"n": -n})) for n in range(ROUNDS)], "Done."] * times


@pytest.fixture
async def other(bank: Bank) -> AsyncIterator[Any]:
    """A handle on the same database that no turn has."""
    store = await bank.place.open(SystemClock())
    yield store
    await store.aclose()


async def upkeep(other: Any, sid: str) -> str:
    """Do everything to a session that an operator may do at any time; return the fork that was made of it."""
    await other.prune_tool_results(sid)
    await other.prune_inbox(sid)
    await other.prune_compacted_messages(sid)
    fork: str = await other.fork_session(sid)
    return fork


async def problems(bank: Bank, *sids: str) -> list[Any]:
    return [one async for one in bank.store.diagnose() if one.session_id in sids and one.is_problem]


async def test_inside_of_a_turn_it_is_kept_whole_and_its_forks_go_on_by_themselves(
    make_loop: MakeLoop, bank: Bank, other: Any
) -> None:
    forks: list[str] = []
    has_pruned = asyncio.Event()

    @tool(name="look", effect="read", max_result_chars=50)
    async def look_beside(n: int) -> str:
        """Look; once others prune, not before they did: a session that changes meanwhile is no candidate of theirs."""
        if n > 1:
            await has_pruned.wait()
        return WHOLE

    async def meddle() -> None:
        with pytest.raises(SessionBusyError):
            await other.delete_session(bank.sid)
        if not forks:
            # It takes every session that nobody has a lease of.
            assert (await other.prune_sessions(older_than_s=0, include_open=True)).skipped >= 1
            has_pruned.set()
        forks.append(await upkeep(other, bank.sid))

    @tool(effect="read")
    async def work() -> str:
        """Work while somebody meddles."""
        await meddle()
        return "worked"

    async def conclude(request: LLMRequest) -> str:
        await meddle()
        return "Done."

    script = [calls(("look", {"n": 1})), calls(("work", {}), ("look", {"n": 2})), conclude, *["Fine."] * 3]
    loop = make_loop(llm=ScriptedLLM(script), store=bank.store, tool_registry=[look_beside, work])
    await loop.new_session(session_id=bank.sid)
    result = await within_limit(loop.send("go", session_id=bank.sid))
    assert (result.status, result.final_text, len(forks)) == (SendStatus.COMPLETED, "Done.", 2)
    log = said(await loop.get_messages(bank.sid))
    assert [role for role, _ in log] == ["user", "assistant", "tool", "assistant", "tool", "tool", "assistant"]
    # Where a call was open no fork leaves.
    shared = [said(await loop.get_messages(fork)) for fork in forks]
    assert shared == [log[:3], log[:6]]
    for fork in (*forks, bank.sid):
        assert (await within_limit(loop.send("on", session_id=fork))).final_text == "Fine."
    assert await problems(bank, bank.sid, *forks) == []


async def test_beside_turns_upkeep_changes_nothing_that_they_say(make_loop: MakeLoop, bank: Bank, other: Any) -> None:
    loop = make_loop(llm=ScriptedLLM(turns(TALKS)), store=bank.store, tool_registry=[look])
    await loop.new_session(session_id=bank.sid)
    forks: list[str] = []
    is_over = asyncio.Event()

    async def talk() -> None:
        for number in range(TALKS):
            result = await loop.send(f"go {number}", session_id=bank.sid)
            assert (result.status, result.final_text, result.rounds) == (SendStatus.COMPLETED, "Done.", ROUNDS + 1)
        is_over.set()

    async def keep_up() -> None:
        while not is_over.is_set():
            forks.append(await upkeep(other, bank.sid))

    await within_limit(asyncio.gather(talk(), keep_up()))
    log = said(await loop.get_messages(bank.sid))
    assert len(log) == TALKS * (2 + 3 * ROUNDS)
    assert forks
    for fork in forks:
        shared = said(await loop.get_messages(fork))
        assert shared == log[: len(shared)]
    assert await problems(bank, bank.sid, *forks) == []


@pytest.mark.parametrize("how", ["delete", "prune"])
async def test_a_session_that_is_removed_beside_its_turns_goes_between_two_of_them_and_as_a_whole(
    make_loop: MakeLoop, bank: Bank, other: Any, how: str
) -> None:
    loop = make_loop(llm=ScriptedLLM(turns(100)), store=bank.store, tool_registry=[look])
    await loop.new_session(session_id=bank.sid)
    has_talked = asyncio.Event()

    async def talk() -> None:
        for _ in range(TALKS):
            try:
                result = await loop.send("go", session_id=bank.sid)
            except SessionNotFoundError:
                return
            assert (result.status, result.final_text) == (SendStatus.COMPLETED, "Done.")
            has_talked.set()

    async def remove() -> None:
        await has_talked.wait()
        while True:
            try:
                if how == "delete":
                    await other.delete_session(bank.sid)
                else:
                    await other.prune_sessions(older_than_s=0, include_open=True)
                    await other.get_session(bank.sid)
            except SessionBusyError:
                continue
            except SessionNotFoundError:
                return
            if how == "delete":
                return

    await within_limit(asyncio.gather(talk(), remove()))
    for act in (loop.get_messages(bank.sid), loop.send("go", session_id=bank.sid), loop.resume(bank.sid)):
        with pytest.raises(SessionNotFoundError):
            await within_limit(act)
    assert [one async for one in bank.store.diagnose() if one.session_id == bank.sid] == []
