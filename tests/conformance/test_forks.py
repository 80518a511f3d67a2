"""A fork shares what was said and goes its own way: nothing is copied or lost, and neither sees the other's future."""

from __future__ import annotations

import asyncio

import pytest

from power_loop.contracts.errors import (
    InputError,
    SessionBusyError,
    SessionExistsError,
    SessionForkedError,
    SessionNotFoundError,
)
from power_loop.contracts.messages import TextPart
from power_loop.contracts.states import CallState, SendStatus, SessionState
from power_loop.runtime.store.store import SqlSessionStore
from tests.conformance.parts import (
    COMPLETED,
    HandClock,
    accepted,
    claim,
    new_send,
    new_session,
    one_send,
    reply,
    reply_with_calls,
    result_step,
    step,
    waiting_call,
)


async def texts(store: SqlSessionStore, session_id: str, **bounds: int) -> list[str]:
    """Return what stands in a log, each message as its seq and its text."""
    records = await store.get_messages(session_id, **bounds)
    return [f"{record.seq} {record.message.text}" for record in records]


async def grown(store: SqlSessionStore, session_id: str, *pairs: tuple[str, str]) -> None:
    for text, back in pairs:
        await one_send(store, session_id, text, back)


@pytest.fixture
async def talked(store: SqlSessionStore) -> SqlSessionStore:
    """A store with a session of three sends."""
    await new_session(store, system_prompt="be kind", metadata={"user": "u1"})
    await grown(store, "sess_1", ("one", "eins"), ("two", "zwei"), ("three", "drei"))
    return store


@pytest.mark.promise("forks")
async def test_a_fork_shares_the_log_up_to_its_seq_and_goes_on_by_itself(talked: SqlSessionStore) -> None:
    fork = await talked.fork_session("sess_1", at=4, fork_id="fork")
    assert fork == "fork"
    assert await texts(talked, fork) == ["1 one", "2 eins", "3 two", "4 zwei"]
    await grown(talked, fork, ("other", "anders"))
    await grown(talked, "sess_1", ("four", "vier"))
    assert await texts(talked, fork) == ["1 one", "2 eins", "3 two", "4 zwei", "5 other", "6 anders"]
    assert await texts(talked, "sess_1") == [
        *("1 one", "2 eins", "3 two", "4 zwei"),
        *("5 three", "6 drei", "7 four", "8 vier"),
    ]
    head = await talked.get_session(fork)
    assert (head.forked_from, head.forked_at_seq, head.next_seq, head.send_count) == ("sess_1", 4, 7, 3)
    assert (head.state, head.system_prompt, head.metadata) == (SessionState.OPEN, "be kind", {"user": "u1"})
    assert (await talked.get_session("sess_1")).forked_from is None


async def test_a_part_of_a_forks_log_is_read_like_that_of_any_other(talked: SqlSessionStore) -> None:
    await talked.fork_session("sess_1", at=4, fork_id="fork")
    await grown(talked, "fork", ("other", "anders"))
    assert await texts(talked, "fork", after_seq=3) == ["4 zwei", "5 other", "6 anders"]
    assert await texts(talked, "fork", after_seq=1, limit=2) == ["2 eins", "3 two"]
    assert await texts(talked, "fork", after_seq=3, limit=2) == ["4 zwei", "5 other"]
    assert await texts(talked, "fork", after_seq=5) == ["6 anders"]
    assert await texts(talked, "fork", after_seq=6) == []
    assert await texts(talked, "fork", limit=0) == []


async def test_a_view_of_a_fork_holds_everything_a_turn_needs(talked: SqlSessionStore) -> None:
    await talked.fork_session("sess_1", at=4, fork_id="fork")
    view = await talked.read_view("fork")
    assert [record.seq for record in view.messages] == [1, 2, 3, 4]
    assert view.send is not None
    assert (view.send.session_id, view.send.index, view.send.status) == ("fork", 2, SendStatus.COMPLETED)
    assert (view.send.rounds, view.send.usage.input_tokens) == (1, 10), "what was paid for the shared part is told"
    assert view.calls == ()


async def test_sends_of_the_shared_part_are_found_by_index_and_not_by_request_id(store: SqlSessionStore) -> None:
    await new_session(store)
    for number in (1, 2, 3):
        held = await store.accept(claim("sess_1"), new_send(f"n{number}", request_id=f"r{number}"))
        await store.append_reply(held.lease, reply(held, end=COMPLETED))
    await store.fork_session("sess_1", at=6, fork_id="fork")
    await one_send(store, "fork")
    found = [await store.get_send("fork", index=index) for index in (1, 2, 3, 4)]
    assert [(send.session_id, send.index, send.first_seq, send.rounds) for send in found if send] == [
        ("fork", 1, 1, 1),
        ("fork", 2, 3, 1),
        ("fork", 3, 5, 1),
        ("fork", 4, 7, 1),
    ]
    assert await store.get_send("fork", index=5) is None
    assert await store.get_send("fork", request_id="r1") is None, "a request id is its own session's"
    again = await store.accept(claim("fork"), new_send("n1", request_id="r1"))
    assert again.next_seq == 10, "so that it is a new request here"


async def test_calls_and_whole_results_of_the_shared_part_are_found(store: SqlSessionStore) -> None:
    await new_session(store)
    held = await waiting_call(store, "sess_1", "c1", "c2")
    whole = (TextPart("all of it"),)
    await store.advance_calls(
        held.lease,
        [result_step(2, 0, "c1", "a part", whole=whole), result_step(2, 1, "c2")],
        at_seq=3,
        send_index=1,
        round=1,
    )
    await store.append_reply(held.lease, reply(held, at_seq=5, round=2, end=COMPLETED))
    await store.fork_session("sess_1", fork_id="fork")
    assert [call.call_id for call in await store.get_calls("fork")] == ["c1", "c2"]
    assert await store.get_calls("fork", states=[CallState.REQUESTED]) == ()
    assert await store.get_tool_result("fork", "c1") == whole
    held = await waiting_call(store, "fork", "c3")
    assert [call.call_id for call in await store.get_calls("fork")] == ["c1", "c2", "c3"]
    assert [call.call_id for call in await store.get_calls("sess_1")] == ["c1", "c2"]
    stats = await store.get_stats("fork")
    assert (stats.messages, stats.model_calls, stats.tool_calls, stats.sends) == (7, 3, 3, 2)
    assert (await store.get_stats("sess_1")).tool_calls == 2


async def test_a_fork_of_a_fork_of_a_fork_reads_through_all_of_them(talked: SqlSessionStore) -> None:
    await talked.fork_session("sess_1", at=4, fork_id="f1")
    await grown(talked, "f1", ("f1", "a"))
    await talked.fork_session("f1", fork_id="f2")
    await grown(talked, "f2", ("f2", "b"), ("f2 again", "c"))
    await talked.fork_session("f2", at=8, fork_id="f3")
    await grown(talked, "f1", ("f1 goes on", "x"))
    assert await texts(talked, "f3") == ["1 one", "2 eins", "3 two", "4 zwei", "5 f1", "6 a", "7 f2", "8 b"]
    sends = [await talked.get_send("f3", index=index) for index in (1, 2, 3, 4)]
    assert [(send.first_seq, send.rounds) for send in sends if send] == [(1, 1), (3, 1), (5, 1), (7, 1)]
    assert (await talked.get_stats("f3")).model_calls == 4
    assert (await talked.get_session("f3")).forked_from == "f2"


async def test_a_fork_of_a_forks_shared_part_is_one_of_the_session_that_holds_it(talked: SqlSessionStore) -> None:
    await talked.fork_session("sess_1", at=4, fork_id="f1")
    await grown(talked, "f1", ("f1", "a"))
    await talked.fork_session("f1", at=2, fork_id="f2")
    head = await talked.get_session("f2")
    assert (head.forked_from, head.forked_at_seq) == ("sess_1", 2)
    await talked.delete_session("f1")
    assert await texts(talked, "f2") == ["1 one", "2 eins"]


async def test_in_the_middle_of_a_send_a_fork_leaves_it_interrupted(store: SqlSessionStore) -> None:
    await new_session(store)
    held = await waiting_call(store, "sess_1", "c1", "c2")
    with pytest.raises(InputError, match=r"2 calls had no answer yet: give at=1$"):
        await store.fork_session("sess_1", at=2)
    await store.advance_calls(held.lease, [result_step(2, 0, "c1")], at_seq=3, send_index=1, round=1)
    with pytest.raises(InputError, match=r"1 call had no answer yet: give at=1$"):
        await store.fork_session("sess_1", at=3)
    assert await texts(store, await store.fork_session("sess_1")) == ["1 hello"], "a running turn's open calls stay"
    await store.advance_calls(held.lease, [result_step(2, 1, "c2")], at_seq=4, send_index=1, round=1)
    with pytest.raises(InputError, match="2 calls had no answer yet: give at=1 or at=4"):
        await store.fork_session("sess_1", at=2)
    fork = await store.fork_session("sess_1")
    assert [record.seq for record in await store.get_messages(fork)] == [1, 2, 3, 4]
    send = await store.get_send(fork)
    assert send is not None
    assert (send.status, send.result, send.rounds, send.tool_calls) == (SendStatus.INTERRUPTED, None, 1, 2)
    await store.append_reply(held.lease, reply(held, at_seq=5, round=2, end=COMPLETED))
    assert (await one_send(store, fork)).send_index == 2
    assert (await store.get_session("sess_1")).next_seq == 6


@pytest.mark.parametrize("at", [0, -1, 7, 10**30, True, "2", 2.0])
async def test_what_is_no_seq_of_the_log_is_refused(talked: SqlSessionStore, at: object) -> None:
    with pytest.raises(InputError, match="give 1 to 6"):
        await talked.fork_session("sess_1", at=at)  # type: ignore[arg-type]


async def test_ids_that_cannot_be_are_refused(talked: SqlSessionStore) -> None:
    await new_session(talked, "empty")
    with pytest.raises(InputError, match="nothing to fork"):
        await talked.fork_session("empty")
    with pytest.raises(SessionExistsError):
        await talked.fork_session("sess_1", fork_id="empty")
    with pytest.raises(InputError):
        await talked.fork_session("sess_1", fork_id="../x")
    assert len((await talked.list_sessions()).items) == 2, "and nothing was made"


async def test_a_forks_tool_state_is_known_at_the_end_of_a_log_only(store: SqlSessionStore) -> None:
    await new_session(store)
    held = await waiting_call(store, "sess_1", "c1")
    await store.advance_calls(
        held.lease, [result_step(2, 0, "c1")], at_seq=3, send_index=1, round=1, tool_state={"todo": [1]}, end=COMPLETED
    )
    at_end, before = await store.fork_session("sess_1"), await store.fork_session("sess_1", at=1, metadata={"try": 2})
    assert (await store.read_view(at_end)).tool_state == {"todo": [1]}
    assert (await store.read_view(before)).tool_state == {}
    assert (await store.get_session(before)).metadata == {"try": 2}


async def test_a_session_whose_log_is_shared_stays(talked: SqlSessionStore) -> None:
    await talked.fork_session("sess_1", at=2, fork_id="f1")
    with pytest.raises(SessionForkedError) as raised:
        await talked.delete_session("sess_1")
    assert raised.value.fork_ids == ("f1",)
    await talked.delete_session("f1")
    assert (await talked.delete_session("sess_1")).sessions == 1
    assert (await talked.list_sessions()).items == ()


async def test_a_closed_session_may_be_forked_and_the_fork_is_open(talked: SqlSessionStore) -> None:
    await talked.close_session("sess_1")
    fork = await talked.fork_session("sess_1")
    await one_send(talked, fork)
    assert (await talked.get_session("sess_1")).state is SessionState.CLOSED


async def test_a_fork_is_leased_by_itself(talked: SqlSessionStore, clock: HandClock) -> None:
    fork = await talked.fork_session("sess_1")
    mine, theirs = await accepted(talked, "sess_1"), await accepted(talked, fork, "bob")
    with pytest.raises(SessionBusyError):
        await talked.delete_session(fork)
    await talked.append_reply(mine.lease, reply(mine, end=COMPLETED))
    await talked.append_reply(theirs.lease, reply_with_calls(theirs, "c1"))
    await talked.advance_calls(
        theirs.lease, [step(8, 0, CallState.STARTED, attempt=1)], at_seq=9, send_index=4, round=1
    )
    assert [call.state for call in await talked.get_calls(fork)] == [CallState.STARTED]
    assert await talked.get_calls("sess_1") == ()


async def test_a_session_is_never_removed_from_under_a_fork_that_is_being_made(talked: SqlSessionStore) -> None:
    archive = await talked.export_session("sess_1")
    for number in range(12):
        origin = await talked.import_session(archive, session_id=f"origin_{number}")
        order = [talked.fork_session(origin, fork_id=f"fork_{number}"), talked.delete_session(origin)]
        outcomes = await asyncio.gather(*(order if number % 2 else reversed(order)), return_exceptions=True)
        made, gone = outcomes if number % 2 else reversed(outcomes)
        if isinstance(made, BaseException):
            assert isinstance(made, SessionNotFoundError)
            assert not isinstance(gone, BaseException)
        else:
            assert isinstance(gone, SessionForkedError)
            assert len(await talked.get_messages(f"fork_{number}")) == 6
