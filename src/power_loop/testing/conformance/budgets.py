"""Budgets: what a call may take is held on every level or on none, it is paid once, and nothing stays held."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from power_loop import Budget, SendStatus, SessionStore
from power_loop.budgets import Amounts, BudgetKey
from power_loop.errors import LeaseLostError
from power_loop.storage import Accepted, Charge, Granted, NewBudget, NewHold, SendEnd, Shortage
from power_loop.testing.conformance.cases import Place, check, raises
from power_loop.testing.conformance.parts import COMPLETED, HandClock, claim, new_send, new_session, reply

ROOT, CHILD = BudgetKey("sess_root", 1), BudgetKey("sess_child", 1)


async def budgeted(
    store: SessionStore, session_id: str, limits: Budget, *, parent: BudgetKey | None = None, owner: str = "alice"
) -> Accepted:
    """Make a session whose first send runs with a budget."""
    await new_session(store, session_id)
    outcome = await store.accept(claim(session_id, owner), replace(new_send(), budget=NewBudget(limits, parent)))
    assert isinstance(outcome, Accepted)
    return outcome


def hold(number: int, *payers: BudgetKey, **members: Any) -> NewHold:
    """Return the wish for 100 tokens of a prompt and 50 of a reply."""
    members = {"input_tokens": 100, "output_tokens": 50, "least_output_tokens": 50} | members
    return NewHold(number, payers, **members)


async def spent(store: SessionStore, key: BudgetKey) -> tuple[Amounts, Amounts, Amounts]:
    """Return what a budget paid, what of it was lost, and what is held."""
    found = await store.get_budget(key)
    assert found is not None
    return found.spent, found.lost, found.reserved


@check()
async def a_budget_is_there_with_its_send_and_is_given_back_as_it_was_asked(
    store: SessionStore, clock: HandClock
) -> None:
    limits = Budget(max_tokens=1000, max_cost="0.123456789", max_tool_calls=3, max_seconds=1.5)
    await budgeted(store, "sess_root", limits)
    found = await store.get_budget(ROOT)
    assert found is not None
    assert (found.key, found.limits, found.parent, found.children) == (ROOT, limits, None, ())
    assert (found.spent, found.lost, found.reserved) == (Amounts(), Amounts(), Amounts())
    assert (found.created_at_ms, found.deadline_at_ms) == (clock.now_ms(), clock.now_ms() + 1500)
    assert await store.get_budget(BudgetKey("sess_root", 2)) is None
    assert await store.get_budget_path(BudgetKey("nobody", 1)) == ()


@check()
async def a_call_is_held_on_every_level_and_paid_on_every_level(store: SessionStore) -> None:
    await budgeted(store, "sess_root", Budget(max_tokens=1000, max_cost="1"))
    held = await budgeted(store, "sess_child", Budget(max_tokens=400), parent=ROOT)
    wish = hold(1, CHILD, ROOT, input_rate=2_000_000, output_rate=4_000_000)
    assert await store.reserve(held.lease, wish, at_seq=2) == Granted(50)
    reserved = Amounts(150, 400)
    for key in (CHILD, ROOT):
        assert await spent(store, key) == (Amounts(), Amounts(), reserved)
    paid = Amounts(120, 300, 2)
    await store.append_reply(held.lease, replace(reply(held), charges=(Charge(1, (CHILD, ROOT), paid),)))
    for key in (CHILD, ROOT):
        assert await spent(store, key) == (paid, Amounts(), Amounts())
    root = await store.get_budget(ROOT)
    assert root is not None
    assert [child.key for child in root.children] == [CHILD]
    assert [one.key for one in await store.get_budget_path(CHILD)] == [CHILD, ROOT]


@check()
async def what_one_level_cannot_bear_is_held_on_none(store: SessionStore) -> None:
    await budgeted(store, "sess_root", Budget(max_tokens=120))
    held = await budgeted(store, "sess_child", Budget(max_tokens=1000), parent=ROOT)
    assert await store.reserve(held.lease, hold(1, CHILD, ROOT), at_seq=2) == Shortage(
        ROOT, "max_tokens", 120, 0, is_held=False
    )
    for key in (CHILD, ROOT):
        assert await spent(store, key) == (Amounts(), Amounts(), Amounts())
    # Less of a reply than was asked for is something.
    assert await store.reserve(held.lease, hold(2, CHILD, ROOT, least_output_tokens=20), at_seq=2) == Granted(20)


@check()
async def what_others_hold_is_told_from_what_is_spent(store: SessionStore) -> None:
    one = await budgeted(store, "sess_root", Budget(max_tokens=200, max_tool_calls=3))
    other = await budgeted(store, "sess_child", Budget(), parent=ROOT)
    assert await store.reserve(one.lease, hold(1, ROOT), at_seq=2) == Granted(50)
    short = await store.reserve(other.lease, hold(1, CHILD, ROOT), at_seq=2)
    assert short == Shortage(ROOT, "max_tokens", 200, 0, is_held=True)
    assert await store.reserve(one.lease, NewHold(2, (ROOT,), tool_calls=2), at_seq=2) == Granted(0, 2)
    assert await store.reserve(other.lease, NewHold(2, (CHILD, ROOT), tool_calls=5), at_seq=2) == Granted(0, 1)
    assert await store.reserve(other.lease, NewHold(3, (CHILD, ROOT), tool_calls=5), at_seq=2) == Granted(0, 0)
    # What was held and not needed is there for others with the next wish.
    charges = (Charge(1, (ROOT,), Amounts(20)), Charge(2, (ROOT,)))
    assert await store.reserve(one.lease, hold(3, ROOT, input_tokens=1), charges=charges, at_seq=2) == Granted(50)
    assert await spent(store, ROOT) == (Amounts(), Amounts(), Amounts(71, 0, 1))
    # It counts as spent where something is short: nobody gives it back.
    assert await store.reserve(other.lease, hold(4, CHILD, ROOT, input_tokens=150), at_seq=2) == Shortage(
        ROOT, "max_tokens", 200, 20, is_held=False
    )
    # A process that dies here has paid for what it knew, and for the prompt that was under way.
    await store.take_up(claim("sess_root", "bob", dead_owner="alice"))
    assert await spent(store, ROOT) == (Amounts(21), Amounts(21), Amounts(0, 0, 1))


@check()
async def a_deadline_goes_down_the_tree(store: SessionStore, clock: HandClock) -> None:
    begun_ms = clock.now_ms()
    await budgeted(store, "sess_root", Budget(max_seconds=10))
    clock.ms += 4000
    await budgeted(store, "sess_child", Budget(max_seconds=60), parent=ROOT)
    found = await store.get_budget_path(CHILD)
    assert [one.deadline_at_ms for one in found] == [begun_ms + 10_000] * 2


@check()
async def the_end_of_a_send_leaves_nothing_held(store: SessionStore) -> None:
    held = await budgeted(store, "sess_root", Budget(max_tokens=1000))
    for number in (1, 2):
        await store.reserve(held.lease, hold(number, ROOT), at_seq=2)
    end = SendEnd(SendStatus.FAILED, {}, charges=(Charge(1, (ROOT,), Amounts(30)),), has_payers=True)
    await store.end_send(held.lease, 1, end)
    # The one that nobody settled may have been billed for its prompt.
    assert await spent(store, ROOT) == (Amounts(130), Amounts(100), Amounts())


@check()
async def whoever_takes_a_session_up_pays_for_the_prompts_that_were_under_way(store: SessionStore) -> None:
    await budgeted(store, "sess_root", Budget(max_tokens=1000, max_cost=1))
    held = await budgeted(store, "sess_child", Budget(), parent=ROOT)
    wish = hold(1, CHILD, ROOT, input_rate=2_000_000, output_rate=4_000_000)
    await store.reserve(held.lease, wish, at_seq=2)
    await store.take_up(claim("sess_child", "bob", dead_owner="alice"))
    lost = Amounts(100, 200)
    for key in (CHILD, ROOT):
        assert await spent(store, key) == (lost, lost, Amounts())
    # A stale owner pays and holds nothing any more.
    with raises(LeaseLostError):
        await store.reserve(held.lease, hold(2, CHILD, ROOT), at_seq=2)
    with raises(LeaseLostError):
        await store.append_reply(held.lease, replace(reply(held), charges=(Charge(1, (CHILD, ROOT), Amounts(110)),)))
    assert await spent(store, ROOT) == (lost, lost, Amounts())


@check()
async def a_send_that_goes_on_without_a_dead_one_settles_what_that_held(store: SessionStore) -> None:
    held = await budgeted(store, "sess_root", Budget(max_tokens=1000))
    await store.reserve(held.lease, hold(1, ROOT), at_seq=2)
    await store.accept(claim("sess_root", "bob", dead_owner="alice"), new_send("another"))
    assert await spent(store, ROOT) == (Amounts(100), Amounts(100), Amounts())


async def spend(store: SessionStore, held: Accepted, number: int) -> int:
    """Make calls below the root's budget until nothing is left of it, each of 110 tokens at most, and end the send.

    Returns what they came to, as a provider would have counted it.
    """
    own = BudgetKey(held.lease.session_id, held.send_index)
    charges: tuple[Charge, ...] = ()
    for call in range(1, 10_000):
        wish = NewHold(call, (own, ROOT), input_tokens=100, output_tokens=10, least_output_tokens=5)
        granted = await store.reserve(held.lease, wish, charges=charges[-1:], at_seq=held.next_seq)
        if isinstance(granted, Granted):
            used = Amounts(100 + (number + call) % (granted.output_tokens + 1))
            charges = (*charges, Charge(call, (own, ROOT), used))
        elif granted.is_held:
            await asyncio.sleep(0.001)
        else:
            break
    await store.end_send(held.lease, held.send_index, replace(COMPLETED, charges=charges, has_payers=True))
    return sum(charge.spent.tokens for charge in charges)


@check()
async def many_sessions_never_hold_more_than_there_is(place: Place, clock: HandClock) -> None:
    stores = [await place.open(clock) for _ in range(3)]
    try:
        await budgeted(stores[0], "sess_root", Budget(max_tokens=1000))
        held = [
            await budgeted(stores[number % 3], f"sess_{number}", Budget(max_tokens=600), parent=ROOT)
            for number in range(6)
        ]
        totals = await asyncio.gather(*(spend(stores[number % 3], held[number], number) for number in range(6)))
        found = await stores[0].get_budget(ROOT)
        assert found is not None
        assert found.spent.tokens == sum(totals)
        assert 895 <= found.spent.tokens <= 1000
        assert found.reserved == found.lost == Amounts()
        assert [child.spent.tokens for child in found.children] == totals
    finally:
        for store in stores:
            await store.aclose()
