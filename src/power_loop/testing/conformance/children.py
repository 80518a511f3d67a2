"""The tree of sessions: who makes a child, who pays for it, what it reports, and what goes with its parent."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from power_loop import SendStatus, SessionStore
from power_loop.errors import AgentLimitError, LeaseLostError, SessionExistsError, SessionNotFoundError
from power_loop.messages import user_message
from power_loop.records import StalledSession
from power_loop.storage import Accepted, AgentReport, NewChild, SendEnd
from power_loop.testing.conformance.cases import Place, check, raises
from power_loop.testing.conformance.parts import (
    TEN_AND_THREE,
    HandClock,
    accepted,
    claim,
    new_send,
    new_session,
    one_send,
    reply,
)

AGENT = {"name": "tea"}


def child(session_id: str = "agt_1", parent_id: str = "sess_1", **members: Any) -> NewChild:
    """Return a session to be made below another."""
    made = NewChild(session_id, "You know tea.", AGENT, parent_id=parent_id, parent_send=1, root_id="sess_1", depth=1)
    return replace(made, **members)


async def paid_send(store: SessionStore, session_id: str, by: str, *, end: SendEnd | None) -> Accepted:
    """Begin a send that the first one of another session pays for, with one reply."""
    held = await store.accept(claim(session_id), replace(new_send(), paid_by=(by, 1)))
    assert isinstance(held, Accepted)
    await store.append_reply(held.lease, reply(held, end=end))
    return held


@check()
async def a_child_knows_its_place_and_is_made_once(store: SessionStore) -> None:
    await new_session(store)
    made = await store.create_child(child())
    assert (made.parent_id, made.parent_send, made.root_id, made.depth) == ("sess_1", 1, "sess_1", 1)
    assert (made.agent, made.system_prompt, made.next_seq) == (AGENT, "You know tea.", 1)
    assert await store.create_child(child()) == made
    await new_session(store, "sess_2")
    with raises(SessionExistsError):
        await store.create_child(child(parent_id="sess_2"))
    with raises(SessionNotFoundError):
        await store.create_child(child("agt_2", parent_id="sess_3"))
    assert [one.id for one in (await store.list_sessions(parent_id="sess_1")).items] == ["agt_1"]
    assert (await store.get_session("sess_1")).agent is None


@check()
async def one_is_made_under_the_lease_of_its_parents_turn_only(store: SessionStore) -> None:
    await new_session(store)
    held = await accepted(store, "sess_1")
    await store.create_child(child(), lease=held.lease)
    with raises(LeaseLostError):
        await store.create_child(child("agt_2"), lease=replace(held.lease, epoch=held.lease.epoch - 1))
    assert len((await store.list_sessions(parent_id="sess_1")).items) == 1


@check()
async def a_send_has_as_many_as_it_may(store: SessionStore) -> None:
    await new_session(store)
    for number in (1, 2):
        await store.create_child(child(f"agt_{number}", max_children=2))
    with raises(AgentLimitError):
        await store.create_child(child("agt_3", max_children=2))
    # One that is there is no other one, and another send has its own.
    await store.create_child(child("agt_2", max_children=2))
    await store.create_child(child("agt_3", max_children=2, parent_send=2))


@check()
async def what_children_took_is_told_with_all_below_them(store: SessionStore) -> None:
    await new_session(store)
    await one_send(store, "sess_1")
    await store.create_child(child())
    await store.create_child(child("agt_2", parent_id="agt_1", depth=2))
    done = SendEnd(SendStatus.COMPLETED, {"text_seq": 2})
    await paid_send(store, "agt_1", "sess_1", end=done)
    await paid_send(store, "agt_2", "agt_1", end=done)
    [spent] = await store.get_children_spending("sess_1", 1)
    assert (spent.session_id, spent.send_index, spent.model_calls) == ("agt_1", 1, 2)
    assert spent.usage == TEN_AND_THREE + TEN_AND_THREE
    assert await store.get_children_spending("sess_1", 2) == ()
    send = await store.get_send("agt_1")
    assert send is not None
    assert (send.paid_by, send.usage) == (("sess_1", 1), TEN_AND_THREE)
    stats = await store.get_stats("sess_1")
    assert (stats.children, stats.children_usage) == (2, TEN_AND_THREE + TEN_AND_THREE)
    assert stats.usage == stats.children_usage + TEN_AND_THREE


@check()
async def what_somebody_pays_for_is_found_with_them_and_not_by_itself(place: Place) -> None:
    clock = HandClock()
    store = await place.open(clock)
    try:
        await new_session(store)
        await accepted(store, "sess_1")
        for number in (1, 2):
            await store.create_child(child(f"agt_{number}"))
        await paid_send(store, "agt_1", "sess_1", end=None)
        await accepted(store, "agt_2")
        clock.ms += 60_000
        found: tuple[StalledSession, ...] = await store.find_stalled()
        assert {one.session_id for one in found} == {"sess_1", "agt_2"}
    finally:
        await store.aclose()


@check()
async def a_report_comes_with_the_end_of_a_send_and_once(store: SessionStore) -> None:
    await new_session(store)
    await store.create_child(child())
    report = AgentReport("sess_1", "key:end", user_message("it is a leaf"))
    for _ in range(2):
        held = await accepted(store, "agt_1")
        await store.append_reply(held.lease, reply(held, end=SendEnd(SendStatus.COMPLETED, {}, report=report)))
    [left] = await store.get_inbox("sess_1")
    assert (left.request_id, left.message) == ("key:end", user_message("it is a leaf"))
    # To one that is closed nothing is said, and the send ends all the same.
    await store.close_session("sess_1")
    held = await accepted(store, "agt_1")
    late = replace(report, request_id="key2:end")
    await store.append_reply(held.lease, reply(held, end=SendEnd(SendStatus.COMPLETED, {}, report=late)))
    assert len(await store.get_inbox("sess_1")) == 1
