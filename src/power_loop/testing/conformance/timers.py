"""Timers: each due one is given to one owner at a time, and each firing is delivered once, whoever comes late."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from power_loop import After, At, Every, Message, SessionStore, TextPart
from power_loop.errors import (
    InboxFullError,
    InputError,
    RequestConflictError,
    ScheduleError,
    SessionClosedError,
    SessionNotFoundError,
    TimerLimitError,
    TimerNotFoundError,
)
from power_loop.messages import Role, user_message
from power_loop.records import CallState, EffectFailure
from power_loop.storage import CallStep, NewTimer, TimerClaim
from power_loop.testing.conformance.cases import Place, check, raises
from power_loop.testing.conformance.parts import HandClock, new_send, new_session, result_step, waiting_call
from power_loop.timers import Missed, Schedule, TimerMaker, TimerState

_TTL_S = 60.0
_HOUR_MS = 3_600_000
_MAX_WAITING = 1_000


def new_timer(
    number: int = 1, schedule: Schedule | None = None, *, session_id: str = "sess_1", **more: Any
) -> NewTimer:
    """Return a timer that is due after a minute, unless a schedule says otherwise."""
    return NewTimer(
        f"tmr_{number}", session_id, user_message(f"wake {number}"), f"hash {number}", schedule or After(60), **more
    )


async def claimed(store: SessionStore, owner: str = "alice", *, limit: int = 10) -> dict[str, TimerClaim]:
    """Return what is due and nobody has, claimed, by the timers' ids."""
    return {one.timer.id: one for one in await store.claim_timers(owner, ttl_s=_TTL_S, limit=limit)}


async def delivered(store: SessionStore, claim: TimerClaim, text: str | None = None) -> bool:
    """Deliver a claim; False where it was lost."""
    message = claim.timer.message if text is None else user_message(text)
    return await store.deliver_timer(claim, message, input_hash="h") is not None


async def waiting(store: SessionStore, session_id: str = "sess_1") -> list[str | None]:
    """Return the request ids of what waits in an inbox, in order."""
    return [record.request_id for record in await store.get_inbox(session_id)]


@check()
async def a_timer_is_what_was_scheduled(store: SessionStore, clock: HandClock) -> None:
    await new_session(store)
    assert await store.next_timer_in_s() is None
    began_ms = clock.ms
    made = await store.schedule_timer(new_timer(name="tea – 茶", made_by=TimerMaker.WORKFLOW))
    assert (made.id, made.session_id, made.name, made.made_by) == ("tmr_1", "sess_1", "tea – 茶", TimerMaker.WORKFLOW)
    assert (made.schedule, made.message) == (At(began_ms + 60_000), user_message("wake 1"))
    assert (made.number, made.due_at_ms, made.created_at_ms) == (1, began_ms + 60_000, began_ms)
    assert (made.state, made.is_armed, made.request_id) == (TimerState.ARMED, True, "tmr_1:1")
    assert await store.get_timer("tmr_1") == made
    assert (await store.list_timers("sess_1")).items == (made,)
    assert (await store.list_timers()).items == (made,)
    assert await store.next_timer_in_s() == 60
    clock.ms += 90_000
    assert await store.next_timer_in_s() == 0


@check()
async def a_repeated_request_meets_the_timer_that_it_made(store: SessionStore, clock: HandClock) -> None:
    await new_session(store)
    made = await store.schedule_timer(new_timer())
    clock.ms += 5
    assert await store.schedule_timer(new_timer()) == made
    with raises(RequestConflictError):
        await store.schedule_timer(NewTimer("tmr_1", "sess_1", user_message("other"), "other", After(1)))
    assert len((await store.list_timers()).items) == 1


@check()
async def what_can_be_no_timer_is_refused_and_makes_none(store: SessionStore) -> None:
    with raises(SessionNotFoundError):
        await store.schedule_timer(new_timer(session_id="sess_9"))
    await new_session(store)
    await new_session(store, "sess_2")
    await store.close_session("sess_2")
    with raises(SessionClosedError):
        await store.schedule_timer(new_timer(session_id="sess_2"))
    with raises(ScheduleError):
        await store.schedule_timer(new_timer(schedule=Every(60, until=1)))
    big = Message(Role.USER, (TextPart("x" * 300_000),))
    with raises(InputError):
        await store.schedule_timer(NewTimer("tmr_1", "sess_1", big, "h", After(1)))
    for number in (1, 2):
        await store.schedule_timer(new_timer(number, max_timers=2))
    with raises(TimerLimitError) as caught:
        await store.schedule_timer(new_timer(3, max_timers=2))
    assert caught.value.max_timers == 2
    await store.cancel_timer("tmr_1")
    await store.schedule_timer(new_timer(3, max_timers=2))
    for attempt in (store.get_timer("tmr_9"), store.cancel_timer("tmr_9"), store.cancel_timer("tmr_2", session_id="s")):
        with raises(TimerNotFoundError):
            await attempt
    assert [timer.id for timer in (await store.list_timers()).items] == ["tmr_2", "tmr_3"]


@check()
async def a_due_timer_is_given_to_one_owner_until_its_claim_is_over(store: SessionStore, clock: HandClock) -> None:
    await new_session(store)
    for number, seconds in ((1, 60), (2, 30), (3, 600)):
        await store.schedule_timer(new_timer(number, After(seconds)))
    clock.ms += 59_999
    assert list(await claimed(store)) == ["tmr_2"], "the others are not due"
    clock.ms += 1
    held = await claimed(store, "alice")
    assert [(one.timer.id, one.timer.owner, one.at_ms) for one in held.values()] == [("tmr_1", "alice", clock.ms)]
    assert await claimed(store, "bob") == {}
    assert await store.next_timer_in_s() == 59.999, "when the first claim is over"
    clock.ms += 60_000
    again = await claimed(store, "bob")
    assert set(again) == {"tmr_1", "tmr_2"}
    assert not await delivered(store, held["tmr_1"]), "whoever comes late writes nothing"
    assert await waiting(store) == []
    assert await delivered(store, again["tmr_1"])
    assert not await delivered(store, again["tmr_1"])
    assert await waiting(store) == ["tmr_1:1"]


@check()
async def a_claim_that_ran_out_counts_until_somebody_takes_it(store: SessionStore, clock: HandClock) -> None:
    await new_session(store)
    await store.schedule_timer(new_timer())
    clock.ms += 60_000
    held = (await claimed(store))["tmr_1"]
    clock.ms += 10 * 60_000
    assert await delivered(store, held)
    assert await claimed(store, "bob") == {}


@check()
async def a_delivery_is_the_input_and_the_end_of_a_timer(store: SessionStore, clock: HandClock) -> None:
    await new_session(store)
    await store.schedule_timer(new_timer())
    clock.ms += 61_000
    claim = (await claimed(store))["tmr_1"]
    delivery = await store.deliver_timer(claim, user_message("changed"), input_hash="h")
    assert delivery is not None
    assert delivery.input is not None
    assert (delivery.input.position, delivery.input.request_id) == (1, "tmr_1:1")
    assert delivery.input.message == user_message("changed")
    assert not delivery.is_turn_running
    ended = await store.get_timer("tmr_1")
    assert delivery.timer == ended
    assert (ended.state, ended.delivered, ended.due_at_ms, ended.owner) == (TimerState.DONE, 1, None, None)
    assert (ended.delivered_at_ms, ended.ended_at_ms) == (clock.ms, clock.ms)
    assert (await store.list_timers()).items == ()
    assert (await store.list_timers(include_ended=True)).items == (ended,)
    assert await store.next_timer_in_s() is None


@check(missed=(Missed.ONCE, Missed.ALL))
async def a_rhythm_goes_on_from_its_own_beat(store: SessionStore, clock: HandClock, missed: Missed) -> None:
    await new_session(store)
    began_ms = clock.ms
    await store.schedule_timer(new_timer(schedule=Every(3600, missed=missed, max_runs=3)))
    clock.ms += _HOUR_MS + 7
    assert await delivered(store, (await claimed(store))["tmr_1"])
    timer = await store.get_timer("tmr_1")
    assert (timer.number, timer.due_at_ms, timer.missed) == (2, began_ms + 2 * _HOUR_MS, 0)
    clock.ms += 3 * _HOUR_MS
    assert await delivered(store, (await claimed(store))["tmr_1"])
    timer = await store.get_timer("tmr_1")
    if missed is Missed.ONCE:
        assert (timer.number, timer.due_at_ms, timer.missed) == (3, began_ms + 5 * _HOUR_MS, 2)
        clock.ms += _HOUR_MS
    else:
        assert (timer.number, timer.due_at_ms, timer.missed) == (3, began_ms + 3 * _HOUR_MS, 0)
    assert await delivered(store, (await claimed(store))["tmr_1"])
    timer = await store.get_timer("tmr_1")
    assert (timer.state, timer.delivered) == (TimerState.DONE, 3)
    assert await waiting(store) == ["tmr_1:1", "tmr_1:2", "tmr_1:3"]


@check()
async def a_firing_is_left_out_or_put_back_under_its_claim_only(store: SessionStore, clock: HandClock) -> None:
    await new_session(store)
    await store.schedule_timer(new_timer(1, Every(60)))
    await store.schedule_timer(new_timer(2, After(60)))
    clock.ms += 60_000
    held = await claimed(store)
    vetoed = await store.drop_timer(held["tmr_1"], is_veto=True)
    assert vetoed is not None
    assert (vetoed.state, vetoed.number, vetoed.vetoed, vetoed.delivered) == (TimerState.ARMED, 2, 1, 0)
    assert await store.drop_timer(held["tmr_1"], is_veto=True) is None
    failed = await store.put_back_timer(held["tmr_2"], after_s=10, error="no – 茶")
    assert failed is not None
    assert (failed.number, failed.failures, failed.last_error, failed.owner) == (1, 1, "no – 茶", None)
    assert failed.due_at_ms == clock.ms, "it was due then, and is late"
    assert await store.put_back_timer(held["tmr_2"], after_s=10, error=None) is None
    assert await store.next_timer_in_s() == 10
    clock.ms += 10_000
    again = (await claimed(store))["tmr_2"]
    postponed = await store.put_back_timer(again, after_s=20, error=None)
    assert postponed is not None
    assert (postponed.due_at_ms, postponed.failures, postponed.last_error) == (clock.ms + 20_000, 1, None)
    clock.ms += 20_000
    vetoed = await store.drop_timer((await claimed(store))["tmr_2"], is_veto=True)
    assert vetoed is not None
    assert (vetoed.state, vetoed.vetoed) == (TimerState.VETOED, 1)
    assert await waiting(store) == []


@check()
async def a_timer_that_was_cancelled_is_never_delivered(store: SessionStore, clock: HandClock) -> None:
    await new_session(store)
    await store.schedule_timer(new_timer())
    clock.ms += 60_000
    held = (await claimed(store))["tmr_1"]
    assert await store.cancel_timer("tmr_1", session_id="sess_1")
    assert not await store.cancel_timer("tmr_1")
    assert not await delivered(store, held)
    assert await waiting(store) == []
    assert (await store.get_timer("tmr_1")).state is TimerState.CANCELLED


@check()
async def the_timers_of_a_session_end_with_it(store: SessionStore, clock: HandClock) -> None:
    await new_session(store)
    await new_session(store, "sess_2")
    await store.schedule_timer(new_timer(1, Every(60)))
    await store.schedule_timer(new_timer(2, session_id="sess_2"))
    clock.ms += 60_000
    held = await claimed(store)
    assert set(held) == {"tmr_1", "tmr_2"}
    await store.close_session("sess_1")
    assert (await store.get_timer("tmr_1")).state is TimerState.SESSION_CLOSED
    assert not await delivered(store, held["tmr_1"])
    assert [timer.id for timer in (await store.list_timers()).items] == ["tmr_2"]


@check()
async def a_full_inbox_takes_no_firing_and_the_timer_stays(store: SessionStore, clock: HandClock) -> None:
    await new_session(store)
    await store.schedule_timer(new_timer())
    for _ in range(_MAX_WAITING):
        await store.put_input("sess_1", new_send())
    clock.ms += 60_000
    held = (await claimed(store))["tmr_1"]
    with raises(InboxFullError):
        await delivered(store, held)
    assert await store.withdraw_input("sess_1", 1)
    assert await delivered(store, held)
    assert (await waiting(store))[-1] == "tmr_1:1"


@check()
async def timers_come_in_pages_of_one_session_or_of_all(store: SessionStore) -> None:
    for number in range(6):
        session_id = f"sess_{number % 2}"
        if number < 2:
            await new_session(store, session_id)
        await store.schedule_timer(new_timer(number, session_id=session_id))
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = await store.list_timers(cursor=cursor, limit=4)
        seen += [timer.id for timer in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == [f"tmr_{number}" for number in range(6)]
    assert [timer.id for timer in (await store.list_timers("sess_1")).items] == ["tmr_1", "tmr_3", "tmr_5"]


@check()
async def what_a_dead_owner_claimed_is_due_at_once(store: SessionStore, clock: HandClock) -> None:
    await new_session(store)
    for number in (1, 2):
        await store.schedule_timer(new_timer(number))
    clock.ms += 60_000
    [lost] = (await claimed(store, "dead", limit=1)).values()
    await claimed(store, "alive", limit=1)
    assert set(await store.list_timer_owners(within_s=_TTL_S)) == {"dead", "alive"}
    assert await store.list_timer_owners(within_s=_TTL_S - 1) == ()
    [taken] = await store.claim_timers("bob", ttl_s=_TTL_S, limit=10, dead_owners=["dead", "nobody"])
    assert (taken.timer.id, taken.timer.epoch) == (lost.timer.id, lost.timer.epoch + 1)
    assert not await delivered(store, lost)
    assert await delivered(store, taken)
    assert set(await store.list_timer_owners(within_s=_TTL_S)) == {"alive"}


@check()
async def those_who_claim_at_the_same_time_share_what_is_due(place: Place, clock: HandClock) -> None:
    stores = [await place.open(clock) for _ in range(4)]
    try:
        await new_session(stores[0])
        for number in range(20):
            await stores[0].schedule_timer(new_timer(number))
        clock.ms += 60_000
        counts: Counter[str] = Counter()

        async def deliver_all(store: SessionStore, owner: str) -> None:
            while len((await store.list_timers(limit=1)).items):
                for claim in await store.claim_timers(owner, ttl_s=_TTL_S, limit=3):
                    counts[claim.timer.id] += 1
                    assert await delivered(store, claim)

        await asyncio.gather(*[deliver_all(store, f"owner {nth}") for nth, store in enumerate(stores)])
        assert counts == {f"tmr_{number}": 1 for number in range(20)}
        assert sorted(map(str, await waiting(stores[0]))) == sorted(f"tmr_{number}:1" for number in range(20))
    finally:
        for store in stores:
            await store.aclose()


@check()
async def a_handle_hears_of_timers_that_its_process_makes(store: SessionStore) -> None:
    await new_session(store)
    heard: list[int] = []
    leave = store.watch_timers(lambda: heard.append(1))
    await store.schedule_timer(new_timer(1))
    assert heard == [1]
    leave()
    await store.schedule_timer(new_timer(2))
    assert heard == [1]


@check()
async def a_tool_makes_a_timer_with_its_result_or_neither(store: SessionStore, clock: HandClock) -> None:
    await new_session(store)
    lease = (await waiting_call(store, "sess_1", "c1")).lease
    made: list[str] = []

    async def schedule(tx: Any) -> str:
        made.append((await tx.timers.schedule("wake", After(60), name="n")).id)
        try:
            await tx.timers.cancel("tmr_9")
        except TimerNotFoundError:
            return "made"
        raise AssertionError("there is no such timer")

    async def fail(tx: Any) -> str:
        await tx.timers.schedule("wake", After(60))
        raise ValueError("no")

    def end(value: Any) -> CallStep:
        return result_step(2, 0, "c1", str(value), state=CallState.SUCCEEDED)

    rest: dict[str, Any] = {"end": end, "at_seq": 3, "send_index": 1, "round": 1}
    assert isinstance(await store.run_effect(lease, "act", fail, **rest), EffectFailure)
    assert (await store.list_timers()).items == ()
    assert isinstance(await store.run_effect(lease, "act", schedule, **rest), CallStep)
    [timer] = (await store.list_timers("sess_1")).items
    assert (timer.id, timer.made_by, timer.name) == (made[-1], TimerMaker.MODEL, "n")
    assert timer.due_at_ms == clock.ms + 60_000
