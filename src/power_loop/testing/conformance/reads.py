"""Reads: windows of the log, figures, and snapshots that never show half a move."""

from __future__ import annotations

import asyncio

from power_loop import SendStatus, SessionStore, Usage
from power_loop.errors import InputError
from power_loop.records import CallState
from power_loop.testing.conformance.cases import check, raises
from power_loop.testing.conformance.parts import (
    COMPLETED,
    accepted,
    new_session,
    one_send,
    reply,
    result_step,
    step,
    waiting_call,
)


@check()
async def a_window_of_the_log_is_read_from_where_one_stands(store: SessionStore) -> None:
    await new_session(store)
    for number in range(5):
        await one_send(store, "sess_1", text=str(number))

    async def seqs(**bounds: int) -> list[int]:
        return [row.seq for row in await store.get_messages("sess_1", **bounds)]

    assert await seqs() == list(range(1, 11))
    assert await seqs(after_seq=7) == [8, 9, 10]
    assert await seqs(after_seq=3, limit=2) == [4, 5]
    assert await seqs(after_seq=10) == []
    assert await seqs(limit=0) == []
    with raises(InputError):
        await store.get_messages("sess_1", limit=-1)


@check()
async def figures_of_a_session_add_up(store: SessionStore) -> None:
    await new_session(store)
    nothing = await store.get_stats("sess_1")
    assert (nothing.sends, nothing.messages, nothing.model_calls, nothing.tool_calls) == (0, 0, 0, 0)
    assert (nothing.usage, nothing.stored_bytes) == (Usage(), 0)
    await one_send(store, "sess_1", text="ä" * 1000)
    held = await waiting_call(store, "sess_1", "c1", "c2")
    await store.advance_calls(
        held.lease, [result_step(4, 0, "c1"), result_step(4, 1, "c2")], at_seq=5, send_index=2, round=1
    )
    await store.append_reply(held.lease, reply(held, at_seq=7, round=2, usage=None, end=COMPLETED))
    stats = await store.get_stats("sess_1")
    assert (stats.session_id, stats.sends, stats.messages) == ("sess_1", 2, 7)
    assert (stats.model_calls, stats.tool_calls, stats.usage) == (3, 2, Usage(20, 6))
    assert 2000 < stats.stored_bytes < 4000


@check()
async def a_provider_s_senseless_figures_do_not_break_the_sums(store: SessionStore) -> None:
    await new_session(store)
    for _ in range(3):
        held = await accepted(store, "sess_1")
        await store.append_reply(held.lease, reply(held, usage=Usage(10**40, -5), end=COMPLETED))
    usage = (await store.get_stats("sess_1")).usage
    assert usage.input_tokens > 10**9
    assert usage.output_tokens == 0


@check()
async def a_write_is_seen_by_the_read_that_follows_it(store: SessionStore) -> None:
    async def talk(session_id: str) -> None:
        await new_session(store, session_id)
        for number in range(1, 11):
            await one_send(store, session_id)
            assert (await store.get_session(session_id)).send_count == number
            assert len(await store.get_messages(session_id)) == 2 * number

    await asyncio.gather(*(talk(f"sess_{n}") for n in range(8)))


@check()
async def a_view_never_shows_half_a_move(store: SessionStore) -> None:
    await new_session(store)
    is_over = False

    async def watch() -> int:
        looks = 0
        while not is_over:
            view = await store.read_view("sess_1")
            looks += 1
            assert len(view.messages) == view.session.next_seq - 1
            assert [row.seq for row in view.messages] == list(range(1, view.session.next_seq))
            if view.send is not None:
                assert view.send.index == view.session.send_count
                is_done = view.send.status is not SendStatus.RUNNING
                assert is_done == (view.session.owner is None)
                replies = [row for row in view.messages if row.send_index == view.send.index and row.message.tool_calls]
                answers = [
                    row for row in view.messages if row.send_index == view.send.index and row.message.tool_result
                ]
                open_calls = {call.state for call in view.calls}
                assert len(view.calls) + len(answers) == view.send.tool_calls == 2 * len(replies)
                assert open_calls in (set(), {CallState.REQUESTED}, {CallState.STARTED})
        return looks

    watchers = [asyncio.create_task(watch()) for _ in range(3)]
    seq = 1
    for number in range(1, 26):
        held = await waiting_call(store, "sess_1", f"a{number}", f"b{number}")
        await store.advance_calls(
            held.lease,
            [step(seq + 1, 0, CallState.STARTED), step(seq + 1, 1, CallState.STARTED)],
            at_seq=seq + 2,
            send_index=number,
            round=1,
        )
        await store.advance_calls(
            held.lease,
            [result_step(seq + 1, 0, f"a{number}"), result_step(seq + 1, 1, f"b{number}")],
            at_seq=seq + 2,
            send_index=number,
            round=1,
        )
        await store.append_reply(held.lease, reply(held, at_seq=seq + 4, round=2, end=COMPLETED))
        seq += 5
    is_over = True
    assert sum(await asyncio.gather(*watchers)) > 0


@check()
async def sessions_do_not_see_each_other(store: SessionStore) -> None:
    for session_id in ("sess_1", "sess_2", "sess_10"):
        await new_session(store, session_id)
        held = await waiting_call(store, session_id, "c1")
        await store.advance_calls(
            held.lease,
            [result_step(2, 0, "c1", session_id)],
            at_seq=3,
            send_index=1,
            round=1,
            tool_state={session_id: 1},
        )
    for session_id in ("sess_1", "sess_2", "sess_10"):
        view = await store.read_view(session_id)
        assert view.tool_state == {session_id: 1}
        assert view.messages[2].message.tool_result is not None
        assert view.messages[2].message.tool_result.content[0].text == session_id  # type: ignore[union-attr]
        assert (await store.get_stats(session_id)).tool_calls == 1
