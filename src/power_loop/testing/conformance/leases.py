"""Leases: one owner at a time, an expired or dead one is replaced, and a replaced one can write nothing."""

from __future__ import annotations

import asyncio

from power_loop import SessionStore
from power_loop.errors import LeaseLostError, SessionBusyError
from power_loop.storage import Accepted
from power_loop.testing.conformance.cases import Place, check, raises
from power_loop.testing.conformance.parts import (
    COMPLETED,
    TTL_S,
    HandClock,
    accepted,
    claim,
    new_send,
    new_session,
    reply,
)


@check()
async def a_held_lease_keeps_everybody_else_out(store: SessionStore, clock: HandClock) -> None:
    await new_session(store)
    await accepted(store, "sess_1", "alice")
    clock.ms += 29_999
    before = await store.read_view("sess_1")
    for other in ("bob", "alice"):
        for attempt in (store.accept(claim("sess_1", other), new_send()), store.take_up(claim("sess_1", other))):
            with raises(SessionBusyError) as caught:
                await attempt
            assert caught.value.code == "session.busy"
            assert (caught.value.owner, caught.value.lease_until_ms) == ("alice", clock.ms + 1)
    assert await store.read_view("sess_1") == before


@check(move=["accept", "take_up"])
async def an_expired_lease_is_taken_over_and_its_owner_is_named(
    store: SessionStore, clock: HandClock, move: str
) -> None:
    await new_session(store)
    late = await accepted(store, "sess_1", "alice")
    clock.ms += 30_000
    if move == "accept":
        taken = await accepted(store, "sess_1", "bob")
    else:
        taken = await store.take_up(claim("sess_1", "bob"))
    assert (taken.lease.epoch, taken.previous_owner) == (late.lease.epoch + 1, "alice")
    with raises(LeaseLostError):
        await store.append_reply(late.lease, reply(late))
    await store.append_reply(taken.lease, reply(taken, end=COMPLETED))
    assert (await accepted(store, "sess_1", "carol")).previous_owner is None


@check()
async def an_owner_whose_lease_ran_out_but_was_not_taken_goes_on(store: SessionStore, clock: HandClock) -> None:
    await new_session(store)
    held = await accepted(store, "sess_1")
    clock.ms += 300_000
    await store.append_reply(held.lease, reply(held, end=COMPLETED))


@check()
async def a_lease_of_an_owner_known_to_be_dead_is_free(store: SessionStore) -> None:
    await new_session(store)
    dead = await accepted(store, "sess_1", "alice")
    with raises(SessionBusyError):
        await store.take_up(claim("sess_1", "bob", dead_owner="carol"))
    taken = await store.take_up(claim("sess_1", "bob", dead_owner="alice"))
    assert taken.previous_owner == "alice"
    with raises(LeaseLostError):
        await store.append_reply(dead.lease, reply(dead))


@check()
async def an_owner_can_take_over_its_own_left_lease_under_a_new_epoch(store: SessionStore) -> None:
    await new_session(store)
    left = await accepted(store, "sess_1", "alice")
    again = await store.take_up(claim("sess_1", "alice", dead_owner="alice"))
    assert (again.lease.owner, again.lease.epoch) == ("alice", left.lease.epoch + 1)
    with raises(LeaseLostError):
        await store.append_reply(left.lease, reply(left))


@check()
async def renewing_and_every_write_lengthen_the_lease(store: SessionStore, clock: HandClock) -> None:
    await new_session(store)
    held = await accepted(store, "sess_1")
    clock.ms += 20_000
    await store.renew(held.lease, ttl_s=60.0)
    assert (await store.get_session("sess_1")).lease_until_ms == clock.ms + 60_000
    clock.ms += 50_000
    await store.append_reply(held.lease, reply(held))
    # As long as it was asked for the last time.
    assert (await store.get_session("sess_1")).lease_until_ms == clock.ms + 60_000


@check()
async def a_released_lease_is_free_at_once_and_releasing_again_does_nothing(store: SessionStore) -> None:
    await new_session(store)
    held = await accepted(store, "sess_1", "alice")
    await store.release(held.lease)
    taken = await store.take_up(claim("sess_1", "bob"))
    assert taken.previous_owner is None
    await store.release(held.lease)
    assert (await store.get_session("sess_1")).owner == "bob"


@check()
async def a_clock_set_back_holds_a_session_for_one_lease_time_at_most(store: SessionStore, clock: HandClock) -> None:
    await new_session(store)
    await accepted(store, "sess_1", "alice")
    clock.ms -= 86_400_000
    with raises(SessionBusyError) as caught:
        await accepted(store, "sess_1", "bob")
    assert caught.value.lease_until_ms == clock.ms + 30_000
    clock.ms += 29_999
    with raises(SessionBusyError):
        await accepted(store, "sess_1", "bob")
    clock.ms += 1
    assert (await accepted(store, "sess_1", "bob")).previous_owner == "alice"


@check()
async def an_owner_that_lives_keeps_its_lease_over_a_clock_set_back(store: SessionStore, clock: HandClock) -> None:
    await new_session(store)
    held = await accepted(store, "sess_1", "alice")
    clock.ms -= 86_400_000
    with raises(SessionBusyError):
        await accepted(store, "sess_1", "bob")
    clock.ms += 10_000
    await store.renew(held.lease, ttl_s=TTL_S)
    clock.ms += 25_000
    with raises(SessionBusyError):
        await accepted(store, "sess_1", "bob")
    await store.append_reply(held.lease, reply(held, end=COMPLETED))


@check()
async def of_many_that_want_a_session_at_once_one_gets_it(place: Place, clock: HandClock) -> None:
    handles = [await place.open(clock) for _ in range(4)]
    await new_session(handles[0])
    epoch = (await handles[0].get_session("sess_1")).epoch
    for turn in range(1, 6):
        outcomes = await asyncio.gather(
            *(handle.accept(claim("sess_1", f"owner {n}"), new_send()) for n, handle in enumerate(handles * 5)),
            return_exceptions=True,
        )
        winners = [outcome for outcome in outcomes if isinstance(outcome, Accepted)]
        assert len(winners) == 1
        assert all(isinstance(o, SessionBusyError) for o in outcomes if o is not winners[0])
        assert (winners[0].lease.epoch, winners[0].send_index, winners[0].next_seq) == (epoch + turn, turn, 2 * turn)
        await handles[turn % 4].append_reply(winners[0].lease, reply(winners[0], end=COMPLETED))
    assert [m.seq for m in await handles[0].get_messages("sess_1")] == list(range(1, 11))
    for handle in handles:
        await handle.aclose()


@check()
async def a_session_closed_after_its_lease_ran_out_shuts_out_the_late_owner(
    store: SessionStore, clock: HandClock
) -> None:
    await new_session(store)
    late = await accepted(store, "sess_1", "alice")
    clock.ms += 30_000
    assert await store.close_session("sess_1") is True
    with raises(LeaseLostError):
        await store.append_reply(late.lease, reply(late))
