"""Timers stay where they were made, go with their session, are forgotten when they are old, and are part of others'
moves."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from power_loop.contracts.errors import TimerNotFoundError
from power_loop.contracts.schedules import After, Every
from power_loop.contracts.timers import NewTimer, TimerMaker, TimerState, timer_id_of
from power_loop.runtime.store.sql.database import Transaction
from power_loop.runtime.store.store import SqlSessionStore
from power_loop.testing.conformance.timers import claimed, delivered, new_timer, waiting
from tests.conformance.backends import Place
from tests.conformance.parts import HandClock, accepted, new_session, one_send


async def ids(store: SqlSessionStore, session_id: str) -> list[str]:
    return [timer.id for timer in (await store.list_timers(session_id, include_ended=True)).items]


@pytest.mark.promise("portable-archive")
async def test_neither_an_archive_nor_a_fork_makes_a_timer_a_second_time(store: SqlSessionStore) -> None:
    await new_session(store)
    await one_send(store, "sess_1")
    await store.schedule_timer(new_timer())
    copy = await store.import_session(await store.export_session("sess_1"), session_id="copy")
    fork = await store.fork_session("sess_1")
    assert (await ids(store, copy), await ids(store, fork)) == ([], [])
    assert await ids(store, "sess_1") == ["tmr_1"]
    assert [one async for one in store.diagnose()] == []


async def test_the_timers_of_a_session_go_with_it(store: SqlSessionStore, clock: HandClock) -> None:
    await new_session(store)
    await store.schedule_timer(new_timer())
    clock.ms += 60_000
    held = (await claimed(store))["tmr_1"]
    # Head, details and timer.
    assert (await store.delete_session("sess_1")).rows == 3
    assert not await delivered(store, held)
    with pytest.raises(TimerNotFoundError):
        await store.get_timer("tmr_1")
    await new_session(store)
    assert await ids(store, "sess_1") == []
    assert not await delivered(store, held), "a new session of this id is another one"


async def test_timers_that_ended_are_forgotten_by_their_age(store: SqlSessionStore, clock: HandClock) -> None:
    await new_session(store)
    await new_session(store, "sess_2")
    for number in range(450):
        await store.schedule_timer(new_timer(number, session_id=f"sess_{1 + number % 2}", max_timers=None))
        if number < 440:
            await store.cancel_timer(f"tmr_{number}")
    clock.ms += 3_600_000
    assert (await store.prune_timers(older_than_s=7200)).rows == 0
    told: list[int] = []
    gone = await store.prune_timers("sess_2", older_than_s=3600, on_progress=lambda so_far: told.append(so_far.rows))
    assert (gone.rows, told) == (220, [200, 220])
    assert (await store.prune_timers(older_than_s=0)).rows == 220
    assert len((await store.list_timers(include_ended=True)).items) == 10, "those that are armed stay"


async def test_a_timer_is_part_of_a_larger_move_and_made_once(store: SqlSessionStore, clock: HandClock) -> None:
    await new_session(store)
    await new_session(store, "sess_closed")
    await store.close_session("sess_closed")
    rows: Any = store._rooms.timers
    timer_id = timer_id_of("run_1", "ended")

    def insert(session_id: str, *, fails: bool = False) -> Any:
        message = new_timer().message
        new = NewTimer(timer_id, session_id, message, "", After(0), made_by=TimerMaker.WORKFLOW, max_timers=None)

        async def body(tx: Transaction) -> bool:
            made: bool = await rows.insert_absent(tx, new, at_ms=clock.ms, op="op")
            if fails:
                raise LookupError
            return made

        return store._database.write("larger_move", body)

    with pytest.raises(LookupError):
        await insert("sess_1", fails=True)
    assert [await insert(name) for name in ("sess_closed", "sess_9", "sess_1", "sess_1")] == [False, False, True, False]
    assert list(await claimed(store)) == [timer_id]


async def test_a_timer_that_cannot_be_read_holds_up_no_other(store: SqlSessionStore, clock: HandClock) -> None:
    await new_session(store)
    for number in range(3):
        await store.schedule_timer(new_timer(number))
    table = store._render("{timers}")

    async def damage(tx: Transaction) -> None:
        await tx.execute(f"UPDATE {table} SET schedule = '[' WHERE id = 'tmr_1'")

    await store._database.write("damage", damage)
    clock.ms += 60_000
    assert list(await claimed(store)) == ["tmr_0", "tmr_2"]
    assert [one.check async for one in store.diagnose()] == ["timer.damaged"]


async def test_a_closed_session_that_still_has_a_timer_ends_it_when_it_fires(
    store: SqlSessionStore, clock: HandClock
) -> None:
    await new_session(store)
    await store.schedule_timer(new_timer(schedule=Every(60)))
    clock.ms += 60_000
    held = (await claimed(store))["tmr_1"]
    sessions = store._render("{sessions}")

    async def close(tx: Transaction) -> None:
        # As a process does that knows no timers yet.
        await tx.execute(f"UPDATE {sessions} SET state = 'closed' WHERE id = 'sess_1'")

    await store._database.write("damage", close)
    [found] = [one async for one in store.diagnose()]
    assert found.check == "timer.left"
    delivery = await store.deliver_timer(held, held.timer.message, input_hash="")
    assert delivery is not None
    assert (delivery.input, delivery.timer.state) == (None, TimerState.SESSION_CLOSED)
    assert [one async for one in store.diagnose()] == []


async def test_the_doctor_tells_of_timers_that_nobody_delivers(store: SqlSessionStore, clock: HandClock) -> None:
    await new_session(store)
    await store.schedule_timer(new_timer())
    clock.ms += 60_000 + 5 * 60_000
    assert [one async for one in store.diagnose()] == []
    clock.ms += 1
    [found] = [one async for one in store.diagnose()]
    assert (found.check, found.is_problem) == ("timer.overdue", False)


@pytest.mark.promise("durable-timers")
async def test_deliveries_and_turns_on_one_session_do_not_hinder_each_other(place: Place, clock: HandClock) -> None:
    """Both hold the session's head first, so that neither waits for the other in a circle."""
    stores: list[SqlSessionStore] = [await place.open(clock) for _ in range(3)]
    try:
        await new_session(stores[0])
        for number in range(30):
            await stores[0].schedule_timer(new_timer(number, After(0)))

        async def deliver(store: SqlSessionStore) -> None:
            while claims := await store.claim_timers(f"runner {id(store)}", ttl_s=60, limit=4):
                await asyncio.gather(*[delivered(store, claim) for claim in claims])

        async def cancel(store: SqlSessionStore) -> None:
            for number in range(0, 30, 7):
                await store.cancel_timer(f"tmr_{number}")

        lease = (await accepted(stores[0], "sess_1")).lease

        async def renew(store: SqlSessionStore) -> None:
            for _ in range(20):
                await store.renew(lease, ttl_s=60)

        await asyncio.gather(deliver(stores[0]), deliver(stores[1]), cancel(stores[2]), renew(stores[2]))
        counted = Counter(await waiting(stores[0]))
        done = {timer.id for timer in (await stores[0].list_timers(include_ended=True)).items if timer.delivered}
        assert counted == {f"{timer_id}:1": 1 for timer_id in done}
        assert len(done) >= 25
    finally:
        for store in stores:
            await store.aclose()
