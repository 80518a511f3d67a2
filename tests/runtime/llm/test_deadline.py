"""The deadline: its own end is a TimeoutError, a cancellation by others stays one."""

from __future__ import annotations

import asyncio

import pytest

from power_loop.runtime.llm.deadline import Deadline


async def test_a_block_that_takes_too_long_ends_in_a_timeout() -> None:
    with pytest.raises(TimeoutError), Deadline(0.001):
        await asyncio.Event().wait()
    # The task is whole again.
    await asyncio.sleep(0)


async def test_a_block_that_ends_in_time_is_left_alone() -> None:
    with Deadline(30):
        await asyncio.sleep(0)


async def test_a_cancellation_by_others_stays_a_cancellation() -> None:
    inside = asyncio.Event()

    async def work() -> None:
        with Deadline(30):
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_inner_deadline_that_passes_leaves_the_outer_one_running() -> None:
    with Deadline(30):
        with pytest.raises(TimeoutError), Deadline(0.001):
            await asyncio.Event().wait()
        await asyncio.sleep(0)


async def test_an_error_inside_is_not_hidden_by_a_deadline() -> None:
    with pytest.raises(KeyError), Deadline(30):
        raise KeyError("x")
