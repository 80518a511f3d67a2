"""A clock that stands still: who sleeps by it wakes when it is moved, and its ids are the same in every run."""

from __future__ import annotations

import asyncio
import math
import threading
from pathlib import Path

import pytest

from power_loop import LLMRetryPolicy, LoopConfig, StatefulAgentLoop, open_store
from power_loop.errors import ConfigError, LLMOverloadedError, LLMRateLimitedError, SessionBusyError
from power_loop.testing import FrozenClock, ScriptedLLM
from power_loop.testing.conformance.parts import accepted, claim
from tests.agent.parts import within_limit


def test_time_stands_still_until_it_is_moved() -> None:
    clock = FrozenClock(5_000)
    assert (clock.now_ms(), clock.monotonic_s()) == (5_000, 0.0)
    clock.advance(1.5)
    assert (clock.now_ms(), clock.monotonic_s()) == (6_500, 1.5)


def test_a_jump_of_the_wall_clock_is_no_time() -> None:
    clock = FrozenClock(5_000)
    clock.jump(-3_600)
    assert (clock.now_ms(), clock.monotonic_s()) == (5_000 - 3_600_000, 0.0)


@pytest.mark.parametrize("seconds", [-0.1, math.inf, math.nan])
def test_it_moves_on_only(seconds: float) -> None:
    with pytest.raises(ConfigError, match=r"jump\(\) sets it back"):
        FrozenClock().advance(seconds)


def test_ids_are_the_same_in_every_run_and_differ_by_seed_kind_and_count() -> None:
    clock = FrozenClock(seed=1)
    made = [clock.new_id(kind) for kind in ("sess", "sess", "call")]
    again = FrozenClock(seed=1)
    assert [again.new_id(kind) for kind in ("call", "sess", "sess")] == [made[2], *made[:2]], "each kind has its count"
    assert FrozenClock(seed=2).new_id("sess") not in made
    for one in made:
        kind, _, letters = one.partition("_")
        assert (kind in ("sess", "call"), len(letters)) == (True, 16)
        assert set(letters) <= set("0123456789abcdefghjkmnpqrstvwxyz")
    assert len({one.partition("_")[2] for one in made}) == 3


async def test_sleepers_wake_in_the_order_in_which_they_are_due() -> None:
    clock, woken = FrozenClock(), list[float]()

    async def nap(seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append(seconds)

    naps = [asyncio.create_task(nap(seconds)) for seconds in (3, 1, 2, 0)]
    await within_limit(clock.until_asleep(3))
    assert clock.sleepers == 3
    clock.advance(0.999)
    assert clock.sleepers == 3
    clock.advance(1.001)
    await within_limit(asyncio.gather(*naps[1:]))
    assert woken == [0, 1, 2]
    clock.advance(1)
    await within_limit(naps[0])
    assert woken == [0, 1, 2, 3]
    assert clock.slept == [3, 1, 2, 0]


async def test_a_sleeper_that_is_cancelled_sleeps_no_more() -> None:
    clock = FrozenClock()
    nap = asyncio.create_task(clock.sleep(1))
    await within_limit(clock.until_asleep())
    nap.cancel()
    await asyncio.wait([nap])
    assert clock.sleepers == 0
    clock.advance(2)


async def test_it_is_moved_from_another_thread() -> None:
    clock = FrozenClock()
    nap = asyncio.create_task(clock.sleep(0.1 + 0.2))
    await within_limit(clock.until_asleep())
    mover = threading.Thread(target=lambda: [clock.advance(0.1) for _ in range(3)])
    mover.start()
    await within_limit(nap)
    mover.join()


async def test_where_nobody_waits_a_sleep_moves_the_clock() -> None:
    clock = FrozenClock(0, skips_sleep=True)
    await clock.sleep(2.5)
    await clock.sleep(0)
    assert (clock.now_ms(), clock.monotonic_s(), clock.slept) == (2_500, 2.5, [2.5, 0])


async def test_a_loop_that_waits_for_its_model_goes_on_when_the_clock_is_moved(tmp_path: Path) -> None:
    clock = FrozenClock()
    llm = ScriptedLLM([LLMRateLimitedError("slow", retry_after_s=60.0), "Here."])
    async with StatefulAgentLoop(llm=llm, dsn=str(tmp_path / "app.db"), clock=clock) as loop:
        sid = await loop.new_session()
        sending = asyncio.create_task(loop.send("hello", session_id=sid))
        await within_limit(clock.until_asleep())
        clock.advance(59)
        assert (clock.sleepers, len(llm.requests)) == (1, 1)
        clock.advance(61)
        assert (await within_limit(sending)).final_text == "Here."
        assert [one.created_at_ms - 1_700_000_000_000 for one in await loop.get_messages(sid)] == [0, 120_000]


async def test_two_runs_by_the_same_clock_have_the_same_log() -> None:
    async def run() -> list[object]:
        clock = FrozenClock(skips_sleep=True)
        llm = ScriptedLLM([LLMOverloadedError("x"), "One."])
        config = LoopConfig(retry=LLMRetryPolicy(base_delay_s=0.0))
        async with StatefulAgentLoop(llm=llm, dsn=":memory:", clock=clock, config=config) as loop:
            sid = await loop.new_session()
            await loop.send("go", session_id=sid)
            return [await loop.get_session(sid), *await loop.get_messages(sid)]

    assert await run() == await run()


async def test_a_lease_is_over_when_the_clock_says_so() -> None:
    clock = FrozenClock()
    store = await open_store(":memory:", clock=clock)
    await store.create_session("sess_1", system_prompt=None, metadata={})
    await accepted(store, "sess_1", "alice")
    clock.advance(29)
    assert (await store.get_session("sess_1")).owner == "alice"
    with pytest.raises(SessionBusyError):
        await store.take_up(claim("sess_1", "bob"))
    clock.advance(2)
    await store.take_up(claim("sess_1", "bob"))
    assert (await store.get_session("sess_1")).owner == "bob"
    await store.aclose()
