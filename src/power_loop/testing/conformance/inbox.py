"""The inbox: inputs are delivered once and in order, a running turn cannot miss them, and nobody is left waiting."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from power_loop import NextInput, SendStatus, SessionStore
from power_loop.errors import (
    InboxFullError,
    LeaseLostError,
    RequestConflictError,
    SessionClosedError,
    SessionNotFoundError,
    StoreCorruptError,
)
from power_loop.records import InboxRecord, Queued, SendRecord, TakenInput
from power_loop.storage import ANY_SIGNALS, Accepted, Lease, NewSend, SendEnd, Signalled
from power_loop.testing.conformance.cases import Place, check, raises
from power_loop.testing.conformance.parts import (
    COMPLETED,
    TTL_S,
    HandClock,
    accepted,
    claim,
    new_send,
    new_session,
    one_send,
    reply,
    reply_with_calls,
)


async def put(store: SessionStore, text: str, **members: object) -> Queued:
    queued = await store.put_input("sess_1", new_send(text, **members))  # type: ignore[arg-type]
    assert isinstance(queued, Queued)
    return queued


async def texts_of(store: SessionStore) -> list[str]:
    return [record.message.text for record in await store.get_messages("sess_1")]


async def heard(store: SessionStore, lease: Lease) -> Lease:
    """Return the lease of a turn that has heard everything."""
    return replace(lease, signals=(await store.read_news(lease)).signals)


@check()
async def inputs_wait_in_order_and_keep_what_they_are(store: SessionStore, clock: HandClock) -> None:
    await new_session(store)
    first = await put(store, "one", request_id="r1", input_hash="h1", options={"max_output_tokens": 5})
    clock.ms += 7
    second = await put(store, "two")
    assert (first.record.position, second.record.position) == (1, 2)
    assert not first.is_turn_running
    assert not first.is_known
    assert await store.get_inbox("sess_1") == (first.record, second.record)
    assert await store.get_inbox("sess_1", limit=1) == (first.record,)
    assert first.record.message == new_send("one").message
    assert (first.record.request_id, dict(first.record.options)) == ("r1", {"max_output_tokens": 5})
    assert second.record.created_at_ms == first.record.created_at_ms + 7
    assert first.record.is_waiting
    assert first.record.seq is None
    with raises(SessionNotFoundError):
        await store.put_input("sess_2", new_send())
    with raises(SessionNotFoundError):
        await store.get_inbox("sess_2")


@check(move=["append_reply", "append_last_reply", "advance_calls", "end_send", "take_inputs"], insists=[False, True])
async def a_write_of_a_turn_that_did_not_hear_changes_nothing_unless_it_insists(
    store: SessionStore, move: str, insists: bool
) -> None:
    await new_session(store)
    held = await accepted(store, "sess_1")
    assert (await put(store, "more")).is_turn_running
    before = await store.read_view("sess_1")

    async def make(lease: Lease) -> None:
        if move == "append_reply":
            await store.append_reply(lease, reply_with_calls(held, "c1"))
        elif move == "append_last_reply":
            await store.append_reply(lease, reply(held, end=COMPLETED))
        elif move == "advance_calls":
            await store.advance_calls(lease, (), at_seq=held.next_seq, send_index=1, round=1, tool_state={"n": 1})
        elif move == "take_inputs":
            await store.take_inputs(
                lease, (TakenInput(1, new_send("more").message),), at_seq=held.next_seq, send_index=1, round=1
            )
        else:
            await store.end_send(lease, 1, SendEnd(SendStatus.CANCELLED, {}))

    with raises(Signalled) as caught:
        await make(held.lease)
    news = caught.value.news
    assert (news.next_input, news.cancel_reason) == (NextInput.FOLLOW_UP, None)
    assert await store.read_view("sess_1") == before
    await make(replace(held.lease, signals=ANY_SIGNALS if insists else news.signals))
    assert await store.read_view("sess_1") != before


@check()
async def a_turn_takes_inputs_in_and_they_stand_in_the_log(store: SessionStore, clock: HandClock) -> None:
    await new_session(store)
    held = await accepted(store, "sess_1", text="go")
    for text in ("one", "two", "three"):
        await put(store, text)
    lease = await heard(store, held.lease)
    taken = [TakenInput(1, new_send("one").message), TakenInput(2, None)]
    await store.take_inputs(lease, taken, at_seq=held.next_seq, send_index=1, round=0)
    assert await texts_of(store) == ["go", "one"]
    assert [one.position for one in await store.get_inbox("sess_1")] == [3]
    assert (await store.read_news(lease)).next_input is NextInput.FOLLOW_UP
    with raises(StoreCorruptError):
        await store.take_inputs(lease, taken[:1], at_seq=3, send_index=1, round=0)
    await store.take_inputs(lease, [TakenInput(3, new_send("three").message)], at_seq=3, send_index=1, round=0)
    assert await texts_of(store) == ["go", "one", "three"]
    assert (await store.read_news(lease)).next_input is NextInput.NONE
    await store.append_reply(lease, reply(held, at_seq=4, end=COMPLETED))
    assert [one.send_index for one in await store.get_messages("sess_1")] == [1, 1, 1, 1]


@check()
async def an_input_that_waits_comes_before_any_other_send(store: SessionStore) -> None:
    await new_session(store)
    await put(store, "first", request_id="r1", options={"temperature": 1})
    outcome = await store.accept(claim("sess_1"), new_send("second"))
    assert isinstance(outcome, InboxRecord)
    assert outcome.position == 1
    assert (await store.get_session("sess_1")).owner is None, "the lease was not taken"
    assert await texts_of(store) == []
    taken = await store.accept(claim("sess_1"), _from(outcome))
    assert isinstance(taken, Accepted)
    assert taken.next_input is NextInput.NONE
    sent = await store.get_send("sess_1")
    assert sent is not None
    assert (sent.request_id, dict(sent.options), sent.first_seq) == ("r1", {"temperature": 1}, 1)
    assert await store.get_inbox("sess_1") == ()
    await store.append_reply(taken.lease, reply(taken, end=COMPLETED))
    assert isinstance(await store.accept(claim("sess_1"), new_send("second")), Accepted)


def _from(record: InboxRecord) -> NewSend:
    assert record.message is not None
    return NewSend(record.message, record.input_hash, record.options, record.request_id, record.position)


@check()
async def an_input_becomes_a_send_once(store: SessionStore) -> None:
    await new_session(store)
    record = (await put(store, "one")).record
    taken = await store.accept(claim("sess_1"), _from(record))
    assert isinstance(taken, Accepted)
    await store.append_reply(taken.lease, reply(taken, end=COMPLETED))
    again = await store.accept(claim("sess_1"), _from(record))
    assert isinstance(again, InboxRecord)
    assert (again.is_waiting, again.send_index, again.seq, again.message) == (False, 1, 1, None)
    assert await texts_of(store) == ["one", "hi there"]


@check()
async def a_request_is_recognized_wherever_it_stands(store: SessionStore) -> None:
    await new_session(store)
    await one_send(store, "sess_1", text="zero")
    sent = await store.accept(claim("sess_1"), new_send("direct", request_id="d", input_hash="hd"))
    assert isinstance(sent, Accepted)
    await put(store, "one", request_id="r1", input_hash="h1")

    async def repeated(request_id: str, input_hash: str) -> Queued | SendRecord:
        return await store.put_input("sess_1", new_send("again", request_id=request_id, input_hash=input_hash))

    waiting = await repeated("r1", "h1")
    assert isinstance(waiting, Queued)
    assert waiting.is_known
    assert waiting.record.is_waiting
    direct = await repeated("d", "hd")
    assert isinstance(direct, SendRecord)
    assert direct.index == 2
    for request_id in ("r1", "d"):
        with raises(RequestConflictError):
            await repeated(request_id, "other")
    lease = await heard(store, sent.lease)
    await store.take_inputs(
        lease, [TakenInput(1, new_send("one").message)], at_seq=sent.next_seq, send_index=2, round=0
    )
    delivered = await repeated("r1", "h1")
    assert isinstance(delivered, Queued)
    assert delivered.is_known
    assert (delivered.record.send_index, delivered.record.seq) == (2, sent.next_seq)
    await store.end_send(lease, 2, COMPLETED)
    known = await store.accept(claim("sess_1"), new_send("again", request_id="r1", input_hash="h1"))
    assert isinstance(known, InboxRecord)
    assert known.send_index == 2
    with raises(RequestConflictError):
        await store.accept(claim("sess_1"), new_send("again", request_id="r1", input_hash="other"))
    assert (await store.get_session("sess_1")).owner is None


@check()
async def an_input_is_withdrawn_while_it_waits(store: SessionStore) -> None:
    await new_session(store)
    for text in ("one", "two", "three"):
        await put(store, text)
    assert await store.withdraw_input("sess_1", 3) is True
    assert await store.withdraw_input("sess_1", 3) is False
    assert await store.withdraw_input("sess_1", 1) is True
    assert [one.position for one in await store.get_inbox("sess_1")] == [2]
    assert await store.withdraw_input("sess_1", 2) is True
    assert isinstance(await store.accept(claim("sess_1"), new_send()), Accepted), "nothing waits"


@check()
async def a_cancellation_is_heard_by_the_turn_that_it_was_meant_for_alone(
    store: SessionStore, clock: HandClock
) -> None:
    await new_session(store)
    assert (await store.ask_to_cancel("sess_1", reason="nobody there")).owner is None
    first = await accepted(store, "sess_1", "alice")
    assert (await store.ask_to_cancel("sess_1", reason="enough")).owner == "alice"
    with raises(Signalled) as caught:
        await store.append_reply(first.lease, reply(first))
    assert caught.value.news.cancel_reason == "enough"
    clock.ms += 30_000
    second = await store.take_up(claim("sess_1", "bob"))
    assert (await store.read_news(second.lease)).cancel_reason is None
    await store.append_reply(second.lease, reply(second, end=COMPLETED))
    with raises(LeaseLostError):
        await store.read_news(first.lease)


@check()
async def signals_are_read_for_many_sessions_at_once(store: SessionStore) -> None:
    ids = [await new_session(store, f"sess_{n}") for n in range(1, 8)]
    await put(store, "one")
    found = await store.read_signals([*ids, "sess_none"])
    epochs = {session_id: (await store.get_session(session_id)).epoch for session_id in ids}
    assert found == {session_id: (epochs[session_id], int(session_id == "sess_1")) for session_id in ids}
    assert await store.read_signals([]) == {}


@check()
async def a_closed_session_takes_no_input_and_a_full_inbox_says_so(store: SessionStore) -> None:
    await new_session(store, "sess_2")
    await store.close_session("sess_2")
    with raises(SessionClosedError):
        await store.put_input("sess_2", new_send())
    await new_session(store)
    for n in range(1_000):
        await put(store, f"{n}")
    with raises(InboxFullError) as caught:
        await put(store, "one too many")
    assert caught.value.code == "session.inbox_full"
    assert len(await store.get_inbox("sess_1")) == 1_000


@check()
async def of_inputs_from_many_handles_each_is_there_once_and_in_one_order(place: Place, clock: HandClock) -> None:
    handles = [await place.open(clock) for _ in range(4)]
    await new_session(handles[0])
    held = await accepted(handles[0], "sess_1")
    given = [f"{n}" for n in range(40)]
    queued = await asyncio.gather(*(put(handles[n % 4], text) for n, text in enumerate(given)))
    assert sorted(one.record.position for one in queued) == list(range(1, 41))
    waiting = await handles[1].get_inbox("sess_1")
    lease = await heard(handles[0], held.lease)
    await handles[0].take_inputs(
        lease, [TakenInput(one.position, one.message) for one in waiting], at_seq=2, send_index=1, round=0
    )
    log = (await texts_of(handles[2]))[1:]
    assert sorted(log) == sorted(given)
    assert log == [one.message.text for one in waiting if one.message is not None]
    for handle in handles:
        await handle.aclose()


@check()
async def what_nobody_drives_is_found(store: SessionStore, clock: HandClock) -> None:
    for session_id in ("sess_idle", "sess_died", "sess_left", "sess_lives", "sess_dead_owner"):
        await new_session(store, session_id)
    await new_session(store)
    await one_send(store, "sess_idle")
    await accepted(store, "sess_died", "alice")
    left = await accepted(store, "sess_left", "alice")
    await store.release(left.lease)
    clock.ms += 20_000
    await put(store, "one")
    await accepted(store, "sess_lives", "bob")
    await accepted(store, "sess_dead_owner", "carol")
    clock.ms += 10_000
    assert set(await store.list_owners()) == {"bob", "carol"}
    found = {one.session_id: one for one in await store.find_stalled(dead_owners=["carol"])}
    assert set(found) == {"sess_died", "sess_left", "sess_dead_owner", "sess_1"}
    assert (found["sess_died"].owner, found["sess_died"].send_status) == ("alice", SendStatus.RUNNING)
    assert (found["sess_left"].owner, found["sess_left"].send_status) == (None, SendStatus.RUNNING)
    assert (found["sess_1"].waiting_inputs, found["sess_1"].send_status) == (1, None)
    assert len(await store.find_stalled(dead_owners=["carol"], limit=2)) == 2
    later = await store.find_stalled(older_than_ms=15_000)
    assert [one.session_id for one in later] == ["sess_left"]


async def claimed(store: SessionStore, owner: str = "bob", *, limit: int = 10, **more: object) -> dict[str, int]:
    """Claim what can be driven; return the new epoch of each session, in order."""
    found = await store.claim_stalled(owner, ttl_s=TTL_S, limit=limit, **more)  # type: ignore[arg-type]
    return {one.session_id: one.epoch for one in found}


@check()
async def what_can_be_driven_is_claimed_with_its_lease(store: SessionStore, clock: HandClock) -> None:
    for session_id in ("sess_idle", "sess_died", "sess_asks", "sess_failed", "sess_handed", "sess_lives"):
        await new_session(store, session_id)
    await new_session(store)
    await accepted(store, "sess_died", "alice")
    asks = await accepted(store, "sess_asks")
    await store.append_reply(asks.lease, reply(asks, end=SendEnd(SendStatus.WAITING_FOR_INPUT, {})))
    clock.ms += 30_000
    failed = await accepted(store, "sess_failed")
    await store.append_reply(failed.lease, reply(failed, end=SendEnd(SendStatus.FAILED, {})))
    for session_id in ("sess_asks", "sess_failed", "sess_1"):
        await store.put_input(session_id, new_send("more"))
    handed = await accepted(store, "sess_handed", "alice")
    await store.release(handed.lease, hands_back=True)
    await accepted(store, "sess_lives", "carol")
    heads = {session_id: await store.get_session(session_id) for session_id in ("sess_died", "sess_handed", "sess_1")}
    assert await claimed(store, limit=1, failed_within_ms=1000, passing_over=["sess_handed"]) == {
        "sess_died": heads["sess_died"].epoch + 1
    }
    found = await store.claim_stalled("bob", ttl_s=TTL_S, limit=10, failed_within_ms=1000)
    assert [(one.session_id, one.owner, one.waiting_inputs, one.attempts) for one in found] == [
        ("sess_handed", None, 0, 0),
        ("sess_1", None, 1, 0),
    ]
    for one in found:
        head = await store.get_session(one.session_id)
        assert (head.owner, head.epoch, head.lease_until_ms) == ("bob", one.epoch, clock.ms + 30_000)
        assert head.epoch == heads[one.session_id].epoch + 1
    assert await claimed(store, failed_within_ms=1000) == {}
    assert list(await claimed(store, "dave", dead_owners=["carol"])) == ["sess_lives", "sess_failed"]
    # Who claimed it drives it; whoever had it before writes nothing.
    taken = await store.take_up(claim("sess_died", "bob", dead_owner="bob"))
    assert (taken.lease.epoch, taken.previous_owner) == (heads["sess_died"].epoch + 2, "bob")
    with raises(LeaseLostError):
        await store.renew(handed.lease, ttl_s=TTL_S)


@check()
async def who_was_served_longest_ago_is_claimed_first(store: SessionStore, clock: HandClock) -> None:
    names = [f"sess_{n}" for n in (3, 1, 2)]
    for session_id in names:
        await new_session(store, session_id)
        await store.put_input(session_id, new_send("one"))
        await store.put_input(session_id, new_send("two"))
        clock.ms += 1
    assert list(await claimed(store)) == names
    for session_id in ("sess_1", "sess_3", "sess_2"):
        clock.ms += 1
        held = await store.accept(claim(session_id, "bob", dead_owner="bob"), new_send("one"))
        assert isinstance(held, InboxRecord)
        held = await store.accept(
            claim(session_id, "bob", dead_owner="bob"), replace(new_send("one"), inbox_position=1)
        )
        assert isinstance(held, Accepted)
        await store.append_reply(replace(held.lease, signals=ANY_SIGNALS), reply(held, end=COMPLETED))
    assert list(await claimed(store)) == ["sess_1", "sess_3", "sess_2"]


@check()
async def of_many_that_claim_at_once_each_gets_others(place: Place, clock: HandClock) -> None:
    handles = [await place.open(clock) for _ in range(4)]
    names = {f"sess_{n}" for n in range(30)}
    for session_id in sorted(names):
        await new_session(handles[0], session_id)
        await handles[0].put_input(session_id, new_send())
    given: list[str] = []
    for _ in range(10):
        rounds = await asyncio.gather(*(claimed(handle, f"owner {n}", limit=3) for n, handle in enumerate(handles)))
        given += [session_id for one in rounds for session_id in one]
    assert sorted(given) == sorted(names)
    for handle in handles:
        await handle.aclose()
