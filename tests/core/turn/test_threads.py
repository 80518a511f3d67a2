"""The threads of blocking handlers: as many as are needed, none for ever."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from collections.abc import Callable

import pytest

from power_loop.core.turn import threads
from power_loop.core.turn.threads import NeverBegan, ThreadPool

#: Longer than any machine stands still.
LIMIT_S = 60.0


async def test_a_result_and_an_error_come_back() -> None:
    pool = ThreadPool()
    assert await pool.run(lambda: threading.current_thread().name) == "power-loop-tool"
    with pytest.raises(ZeroDivisionError):
        await pool.run(lambda: 1 / 0)


async def test_a_stop_iteration_does_not_pass_for_a_return() -> None:
    def stop() -> None:
        raise StopIteration(1)

    with pytest.raises(RuntimeError, match="StopIteration"):
        await ThreadPool().run(stop)


async def test_the_callers_context_is_the_handlers() -> None:
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name")
    name.set("teal")
    assert await ThreadPool().run(name.get) == "teal"


async def test_a_thread_is_used_again() -> None:
    pool = ThreadPool()
    for _ in range(20):
        await pool.run(lambda: None)
        while not pool.idle:  # noqa: ASYNC110 - the thread is on its way back
            await asyncio.sleep(0)
    assert pool.threads == 1


async def test_blocking_jobs_run_side_by_side_and_never_in_more_threads_than_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(threads, "MAX_THREADS", 3)
    pool = ThreadPool()
    gate, entered = threading.Event(), threading.Semaphore(0)

    def job(n: int) -> int:
        entered.release()
        gate.wait(LIMIT_S)
        return n

    running = [asyncio.create_task(pool.run(lambda n=n: job(n))) for n in range(8)]
    for _ in range(3):
        assert await asyncio.to_thread(entered.acquire, timeout=LIMIT_S)
    assert pool.threads == 3
    gate.set()
    assert await asyncio.gather(*running) == list(range(8))
    assert pool.threads == 3


async def test_a_caller_that_gives_up_leaves_the_pool_usable() -> None:
    pool = ThreadPool()
    gate = threading.Event()
    task = asyncio.create_task(pool.run(lambda: gate.wait(LIMIT_S)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.set()
    assert await pool.run(lambda: 7) == 7


async def given_up(pool: ThreadPool, job: Callable[[], object]) -> str:
    """Return how a job that is cancelled stood; asked in its own task, because a task hands out any cancellation."""
    try:
        await pool.run(job)
    except NeverBegan:
        return "never began"
    except asyncio.CancelledError:
        return "had begun"
    return "done"


async def test_a_job_that_nobody_waits_for_any_more_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "MAX_THREADS", 1)
    pool = ThreadPool()
    gate, entered = threading.Event(), threading.Event()
    ran: list[str] = []

    def hold() -> None:
        entered.set()
        gate.wait(LIMIT_S)
        ran.append("holder")

    holder = asyncio.create_task(given_up(pool, hold))
    assert await asyncio.to_thread(entered.wait, LIMIT_S)
    queued = asyncio.create_task(given_up(pool, lambda: ran.append("given up")))
    await asyncio.sleep(0)
    queued.cancel()
    holder.cancel()
    assert await asyncio.gather(queued, holder) == ["never began", "had begun"]
    gate.set()
    await pool.run(lambda: ran.append("last"))
    assert ran == ["holder", "last"]


async def test_of_a_thread_and_a_caller_that_gives_up_exactly_one_has_the_job() -> None:
    pool = ThreadPool()
    ran: list[int] = []
    never: list[int] = []
    for n in range(400):
        task = asyncio.create_task(given_up(pool, lambda n=n: ran.append(n)))
        for _ in range(1 + n % 3):
            await asyncio.sleep(0)
        task.cancel()
        if await task == "never began":
            never.append(n)
    while pool.idle < pool.threads:  # noqa: ASYNC110 - what runs is on its way to its end
        await asyncio.sleep(0)
    assert sorted(ran + never) == list(range(400)), "each ran, or never will, and none both"


async def test_its_threads_end_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "IDLE_S", 600.0)
    before = set(threading.enumerate())
    pool = ThreadPool()
    gate, entered = threading.Event(), threading.Semaphore(0)

    def job() -> None:
        entered.release()
        gate.wait(LIMIT_S)

    running = [asyncio.create_task(pool.run(job)) for _ in range(3)]
    for _ in range(3):
        assert await asyncio.to_thread(entered.acquire, timeout=LIMIT_S)
    gate.set()
    await asyncio.gather(*running)
    running.clear()
    ours = {one for one in set(threading.enumerate()) - before if one.name == "power-loop-tool"}
    assert len(ours) == 3
    del pool
    gc.collect()
    for thread in ours:
        await asyncio.to_thread(thread.join, LIMIT_S)
        assert not thread.is_alive()
