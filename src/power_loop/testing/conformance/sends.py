"""Sends: accepting an input, repeating a request, and bringing a send to rest."""

from __future__ import annotations

import asyncio

from power_loop import ImagePart, SendStatus, SessionStore, TextPart, Usage
from power_loop.errors import (
    InputError,
    LeaseLostError,
    RequestConflictError,
    SessionClosedError,
    SessionPendingError,
    StoreCorruptError,
)
from power_loop.messages import user_message
from power_loop.records import CallState, SendRecord
from power_loop.storage import Accepted, Lease, NewSend, SendEnd
from power_loop.testing.conformance.cases import check, raises
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
    result_step,
    waiting_call,
)


@check()
async def accept_takes_the_lease_and_stores_the_input(store: SessionStore, clock: HandClock) -> None:
    await new_session(store)
    epoch = (await store.get_session("sess_1")).epoch + 1
    message = user_message(["look at this", ImagePart(data="AAAA")])
    clock.ms += 10
    held = await store.accept(claim("sess_1"), NewSend(message, "hash", {"tools": ["a"]}, "req-1"))
    assert held == Accepted(Lease("sess_1", "alice", epoch), 1, 2, 0, clock.ms, None)
    view = await store.read_view("sess_1")
    assert (view.session.owner, view.session.lease_until_ms) == ("alice", clock.ms + 30_000)
    assert (view.session.next_seq, view.session.send_count, view.session.epoch) == (2, 1, epoch)
    [row] = view.messages
    assert (row.seq, row.send_index, row.round, row.message, row.created_at_ms) == (1, 1, 0, message, clock.ms)
    assert view.send == SendRecord(
        session_id="sess_1",
        index=1,
        request_id="req-1",
        input_hash="hash",
        status=SendStatus.RUNNING,
        first_seq=1,
        options={"tools": ["a"]},
        result=None,
        rounds=0,
        tool_calls=0,
        usage=Usage(),
        attempts=1,
        started_at_ms=clock.ms,
        ended_at_ms=None,
    )


@check()
async def a_reply_that_ends_the_send_stores_all_of_it_and_gives_the_lease_back(
    store: SessionStore, clock: HandClock
) -> None:
    await new_session(store)
    held = await accepted(store, "sess_1")
    clock.ms += 700
    usage = Usage(100, 20, 30, 5, 7)
    await store.append_reply(held.lease, reply(held, end=COMPLETED, usage=usage))
    view = await store.read_view("sess_1")
    assert [(m.seq, m.round, m.message.text) for m in view.messages] == [(1, 0, "hello"), (2, 1, "hi there")]
    assert (view.session.owner, view.session.lease_until_ms, view.session.next_seq) == (None, 0, 3)
    assert view.send is not None
    assert (view.send.status, view.send.result) == (SendStatus.COMPLETED, {"text_seq": 2})
    assert (view.send.rounds, view.send.tool_calls, view.send.usage) == (1, 0, usage)
    assert view.send.ended_at_ms == clock.ms
    with raises(LeaseLostError):
        await store.renew(held.lease, ttl_s=TTL_S)


@check()
async def sends_follow_each_other_without_a_gap(store: SessionStore) -> None:
    await new_session(store)
    epoch = (await store.get_session("sess_1")).epoch
    for number in range(1, 6):
        held = await one_send(store, "sess_1", text=f"in {number}", back=f"out {number}")
        assert (held.send_index, held.next_seq, held.lease.epoch) == (number, 2 * number, epoch + number)
        assert held.previous_owner is None
    messages = await store.get_messages("sess_1")
    assert [m.seq for m in messages] == list(range(1, 11))
    assert [m.send_index for m in messages] == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    for number in range(1, 6):
        send = await store.get_send("sess_1", index=number)
        assert send is not None
        assert (send.index, send.first_seq, send.rounds, send.usage) == (number, 2 * number - 1, 1, Usage(10, 3))


@check()
async def what_a_send_took_counts_its_own_rounds_only(store: SessionStore) -> None:
    await new_session(store)
    await one_send(store, "sess_1")
    held = await waiting_call(store, "sess_1", "c1", "c2")
    await store.advance_calls(
        held.lease,
        [result_step(4, 0, "c1"), result_step(4, 1, "c2")],
        at_seq=5,
        send_index=2,
        round=1,
    )
    estimated = Usage(7, 1, is_estimated=True)
    await store.append_reply(held.lease, reply(held, at_seq=7, round=2, usage=None))
    await store.append_reply(held.lease, reply(held, at_seq=8, round=3, usage=estimated, end=COMPLETED))
    await one_send(store, "sess_1")
    first, second, third = [await store.get_send("sess_1", index=index) for index in (1, 2, 3)]
    assert first is not None
    assert second is not None
    assert third is not None
    assert (first.rounds, first.tool_calls, first.usage) == (1, 0, Usage(10, 3))
    assert (second.rounds, second.tool_calls, second.usage) == (3, 2, Usage(17, 4, is_estimated=True))
    assert (third.rounds, third.tool_calls, third.usage) == (1, 0, Usage(10, 3))


@check()
async def a_send_is_found_by_index_by_request_or_as_the_last(store: SessionStore) -> None:
    await new_session(store)
    assert await store.get_send("sess_1") is None
    assert await store.get_send("sess_1", index=1) is None
    assert await store.get_send("sess_1", request_id="r") is None
    for number, request_id in enumerate(["r1", None, "r3"], 1):
        held = await store.accept(claim("sess_1"), new_send(str(number), request_id=request_id))
        assert isinstance(held, Accepted)
        await store.end_send(held.lease, held.send_index, COMPLETED)
    by_index = await store.get_send("sess_1", index=1)
    assert by_index is not None
    assert by_index == await store.get_send("sess_1", request_id="r1")
    last = await store.get_send("sess_1")
    assert last is not None
    assert (last.index, last.request_id) == (3, "r3")
    assert await store.get_send("sess_1", index=4) is None
    with raises(InputError):
        await store.get_send("sess_1", index=1, request_id="r1")


@check()
async def a_repeated_request_gets_its_send_and_writes_nothing(store: SessionStore) -> None:
    await new_session(store)
    held = await store.accept(claim("sess_1"), new_send(request_id="r1"))
    assert isinstance(held, Accepted)
    running = await store.accept(claim("sess_1", "bob"), new_send(request_id="r1"))
    assert isinstance(running, SendRecord)
    assert (running.index, running.status) == (1, SendStatus.RUNNING)
    await store.append_reply(held.lease, reply(held, end=COMPLETED))
    before = await store.read_view("sess_1")
    again = await store.accept(claim("sess_1", "bob"), new_send(request_id="r1"))
    assert again == before.send
    assert await store.read_view("sess_1") == before
    await store.close_session("sess_1")
    assert await store.accept(claim("sess_1", "bob"), new_send(request_id="r1")) == before.send


@check()
async def a_request_id_with_another_input_is_a_conflict(store: SessionStore) -> None:
    await new_session(store)
    held = await store.accept(claim("sess_1"), new_send(request_id="r1", input_hash="h1"))
    assert isinstance(held, Accepted)
    await store.append_reply(held.lease, reply(held, end=COMPLETED))
    before = await store.read_view("sess_1")
    with raises(RequestConflictError) as caught:
        await store.accept(claim("sess_1"), new_send(request_id="r1", input_hash="h2"))
    assert (caught.value.code, caught.value.request_id) == ("request.conflict", "r1")
    assert await store.read_view("sess_1") == before


@check()
async def a_request_id_belongs_to_its_session(store: SessionStore) -> None:
    for session_id in ("sess_1", "sess_2"):
        await new_session(store, session_id)
        assert isinstance(await store.accept(claim(session_id), new_send(request_id="r1")), Accepted)


@check()
async def of_many_that_bring_one_request_at_once_one_is_accepted(store: SessionStore) -> None:
    await new_session(store)
    outcomes = await asyncio.gather(
        *(store.accept(claim("sess_1", f"owner {n}"), new_send(request_id="r1")) for n in range(20))
    )
    assert sum(isinstance(outcome, Accepted) for outcome in outcomes) == 1
    assert {outcome.index for outcome in outcomes if isinstance(outcome, SendRecord)} == {1}
    assert len(await store.get_messages("sess_1")) == 1


@check(bad=["", "x" * 256, "a\0b", "\ud800"])
async def a_request_id_that_no_database_could_keep_is_refused(store: SessionStore, bad: str) -> None:
    await new_session(store)
    with raises(InputError):
        await store.accept(claim("sess_1"), new_send(request_id=bad))
    assert (await store.get_session("sess_1")).send_count == 0


@check()
async def open_calls_stand_in_the_way_of_a_new_send(store: SessionStore) -> None:
    await new_session(store)
    held = await waiting_call(store, "sess_1", "c1", "c2", "c3")
    await store.advance_calls(held.lease, [result_step(2, 1, "c2")], at_seq=3, send_index=1, round=1)
    await store.release(held.lease)
    before = await store.read_view("sess_1")
    with raises(SessionPendingError) as caught:
        await store.accept(claim("sess_1"), new_send())
    assert caught.value.code == "session.pending"
    assert caught.value.call_ids == ("c1", "c3")
    assert "has 2 open calls ('c1', 'c3'):" in str(caught.value)
    assert "resume(" in str(caught.value)
    assert "heal_pending=True" in str(caught.value)
    assert await store.read_view("sess_1") == before


@check(is_released=[True, False])
async def a_send_that_was_left_running_becomes_interrupted(
    store: SessionStore, clock: HandClock, is_released: bool
) -> None:
    await new_session(store)
    held = await accepted(store, "sess_1")
    if is_released:
        await store.release(held.lease)
    else:
        clock.ms += 30_000
    second = await accepted(store, "sess_1", "bob")
    assert second.previous_owner == (None if is_released else "alice")
    left = await store.get_send("sess_1", index=1)
    assert left is not None
    assert (left.status, left.ended_at_ms) == (SendStatus.INTERRUPTED, clock.ms)


@check(status=[status for status in SendStatus if status is not SendStatus.RUNNING])
async def a_send_that_came_to_rest_stays_as_it_is_under_the_next(store: SessionStore, status: SendStatus) -> None:
    await new_session(store)
    held = await accepted(store, "sess_1")
    await store.end_send(held.lease, 1, SendEnd(status, {"reason": "so"}))
    ended = await store.get_send("sess_1")
    assert ended is not None
    assert (ended.status, ended.result) == (status, {"reason": "so"})
    await accepted(store, "sess_1")
    after = await store.get_send("sess_1", index=1)
    assert after is not None
    # Nothing is open that a waiting one could still wait for.
    expected = SendStatus.INTERRUPTED if status is SendStatus.WAITING_FOR_INPUT else status
    assert after.status is expected


@check()
async def a_send_ends_once(store: SessionStore) -> None:
    await new_session(store)
    held = await accepted(store, "sess_1")
    await store.end_send(held.lease, 1, COMPLETED)
    with raises(LeaseLostError):
        await store.end_send(held.lease, 1, SendEnd(SendStatus.FAILED, {}))
    again = await store.take_up(claim("sess_1"))
    before = await store.read_view("sess_1")
    with raises(StoreCorruptError):
        await store.end_send(again.lease, 1, SendEnd(SendStatus.FAILED, {}))
    assert await store.read_view("sess_1") == before


@check(status=list(SendStatus))
async def take_up_lets_a_resumable_send_run_on_and_leaves_an_ended_one(store: SessionStore, status: SendStatus) -> None:
    await new_session(store)
    held = await accepted(store, "sess_1")
    if status is SendStatus.RUNNING:
        await store.release(held.lease)
    else:
        await store.end_send(held.lease, 1, SendEnd(status, {}))
    taken = await store.take_up(claim("sess_1", "bob"))
    assert (taken.lease, taken.send_index, taken.next_seq) == (Lease("sess_1", "bob", held.lease.epoch + 1), 1, 2)
    send = await store.get_send("sess_1")
    assert send is not None
    if status in {SendStatus.RUNNING, SendStatus.WAITING_FOR_INPUT, SendStatus.FAILED}:
        attempts = 1 if status is SendStatus.WAITING_FOR_INPUT else 2
        assert (send.status, send.attempts, send.result, send.ended_at_ms) == (SendStatus.RUNNING, attempts, None, None)
    else:
        assert (send.status, send.attempts, send.result) == (status, 1, {})


@check(status=list(SendStatus))
async def take_up_that_drives_nothing_gives_the_lease_and_leaves_the_send(
    store: SessionStore, status: SendStatus
) -> None:
    await new_session(store)
    held = await accepted(store, "sess_1")
    if status is SendStatus.RUNNING:
        await store.release(held.lease)
    else:
        await store.end_send(held.lease, 1, SendEnd(status, {}))
    before = await store.get_send("sess_1")
    taken = await store.take_up(claim("sess_1", "bob"), drives=False)
    assert (taken.lease, taken.send_index, taken.next_seq) == (Lease("sess_1", "bob", held.lease.epoch + 1), 1, 2)
    assert await store.get_send("sess_1") == before
    await store.release(taken.lease)
    assert (await store.get_session("sess_1")).owner is None


@check()
async def take_up_of_a_session_without_sends_gives_the_lease_only(store: SessionStore) -> None:
    await new_session(store)
    taken = await store.take_up(claim("sess_1"))
    assert (taken.send_index, taken.next_seq) == (0, 1)
    await store.release(taken.lease)
    assert (await store.get_session("sess_1")).owner is None


@check()
async def a_closed_session_can_be_taken_up_to_settle_what_is_open_but_takes_no_input(store: SessionStore) -> None:
    await new_session(store)
    held = await waiting_call(store, "sess_1", "c1")
    await store.release(held.lease)
    await store.close_session("sess_1")
    taken = await store.take_up(claim("sess_1"))
    await store.advance_calls(
        taken.lease,
        [result_step(2, 0, "c1", state=CallState.ABORTED)],
        at_seq=3,
        send_index=1,
        round=1,
        end=SendEnd(SendStatus.ABORTED, {}),
    )
    with raises(SessionClosedError):
        await store.accept(claim("sess_1"), new_send())


@check()
async def an_input_of_every_kind_and_of_ten_megabytes_comes_back_whole(store: SessionStore) -> None:
    await new_session(store)
    text = "x" * 10_000_000
    message = user_message([text, TextPart("ü\0\ud83d\ude00\ud800")])
    held = await store.accept(claim("sess_1"), NewSend(message, "h", {}))
    assert isinstance(held, Accepted)
    [row] = await store.get_messages("sess_1")
    assert row.message == message
    assert row.message.parts[1] == TextPart("ü\ufffd😀\ufffd")


@check()
async def calls_of_an_earlier_send_that_are_settled_stand_in_nobodys_way(store: SessionStore) -> None:
    await new_session(store)
    held = await waiting_call(store, "sess_1", "c1")
    await store.advance_calls(
        held.lease, [result_step(2, 0, "c1")], at_seq=3, send_index=1, round=1, end=SendEnd(SendStatus.CANCELLED, {})
    )
    second = await accepted(store, "sess_1")
    assert (second.send_index, second.next_seq) == (2, 5)
    await store.append_reply(second.lease, reply_with_calls(second, "c9"))
    assert [call.call_id for call in (await store.read_view("sess_1")).calls] == ["c9"]
