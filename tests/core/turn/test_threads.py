"""The threads of blocking handlers: as many as are needed, none for ever."""

from __future__ import annotations

import asyncio
import contextvars
import threading

import pytest

from power_loop.core.turn import threads
from power_loop.core.turn.threads import ThreadPool


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
        while not pool._idle:  # noqa: ASYNC110 - the thread is on its way back
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
        gate.wait(10)
        return n

    running = [asyncio.create_task(pool.run(lambda n=n: job(n))) for n in range(8)]
    for _ in range(3):
        assert await asyncio.to_thread(entered.acquire, timeout=10)
    assert pool.threads == 3
    gate.set()
    assert await asyncio.gather(*running) == list(range(8))
    assert pool.threads == 3


async def test_a_caller_that_gives_up_leaves_the_pool_usable() -> None:
    pool = ThreadPool()
    gate = threading.Event()
    task = asyncio.create_task(pool.run(lambda: gate.wait(10)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.set()
    assert await pool.run(lambda: 7) == 7
