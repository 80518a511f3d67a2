"""Nothing grows without a way to shrink it, and what is shrunk takes nothing along that somebody still needs."""

from __future__ import annotations

import math
from typing import Any

import pytest

from power_loop.contracts.errors import InputError, ResultPrunedError, SessionBusyError, SessionNotFoundError
from power_loop.contracts.messages import TextPart
from power_loop.contracts.upkeep import Pruned
from power_loop.runtime.store.store import SqlSessionStore
from tests.conformance.parts import (
    COMPLETED,
    HandClock,
    accepted,
    new_send,
    new_session,
    one_send,
    reply,
    reply_with_calls,
    result_step,
)

WHOLE = (TextPart("all of it " * 50),)
HOUR_MS = 3_600_000


async def with_whole_results(store: SqlSessionStore, session_id: str, count: int = 2) -> None:
    """Make a session with so many calls whose log shows a part of their results."""
    await new_session(store, session_id)
    held = await accepted(store, session_id)
    ids = [f"c{number}" for number in range(count)]
    await store.append_reply(held.lease, reply_with_calls(held, *ids))
    steps = [result_step(2, index, call_id, "a part", whole=WHOLE) for index, call_id in enumerate(ids)]
    await store.advance_calls(held.lease, steps, at_seq=3, send_index=1, round=1)
    await store.append_reply(held.lease, reply(held, at_seq=3 + count, round=2, end=COMPLETED))


async def test_a_pruned_result_says_so_and_the_log_keeps_what_was_shown(
    store: SqlSessionStore, clock: HandClock
) -> None:
    await with_whole_results(store, "sess_1")
    before = (await store.get_stats("sess_1")).stored_bytes
    view = await store.read_view("sess_1")
    gone = await store.prune_tool_results("sess_1")
    with pytest.raises(ResultPrunedError) as raised:
        await store.get_tool_result("sess_1", "c0")
    assert raised.value.pruned_at_ms == clock.now_ms()
    freed = before - (await store.get_stats("sess_1")).stored_bytes
    assert freed > 700
    assert gone == Pruned(rows=2, freed_bytes=freed)
    assert await store.read_view("sess_1") == view
    assert await store.prune_tool_results("sess_1") == Pruned(), "a second run finds nothing"
    archive = await store.export_session("sess_1")
    await store.import_session(archive, session_id="copy")
    with pytest.raises(ResultPrunedError):
        await store.get_tool_result("copy", "c1")


async def test_results_are_pruned_by_age_session_and_lease(store: SqlSessionStore, clock: HandClock) -> None:
    for name in ("old", "held", "sess"):
        await with_whole_results(store, name)
    clock.ms += HOUR_MS
    await with_whole_results(store, "young")
    held = await accepted(store, "held")
    assert (await store.prune_tool_results("sess", older_than_s=3600)).rows == 2
    assert (await store.prune_tool_results(older_than_s=3600)).rows == 2, "those of `old`"
    assert await store.get_tool_result("held", "c0") == WHOLE
    assert await store.get_tool_result("young", "c0") == WHOLE
    assert await store.prune_tool_results(older_than_s=3601) == Pruned()
    await store.end_send(held.lease, held.send_index, COMPLETED)
    assert (await store.prune_tool_results()).rows == 4


async def test_more_results_than_a_page_are_pruned_to_the_last(store: SqlSessionStore) -> None:
    await with_whole_results(store, "sess_1", count=230)
    await with_whole_results(store, "sess_2", count=5)
    assert (await store.prune_tool_results()).rows == 235


async def test_sessions_go_by_age_and_state(store: SqlSessionStore, clock: HandClock) -> None:
    for name in ("closed", "open", "touched"):
        await new_session(store, name)
        await one_send(store, name)
    await store.close_session("closed")
    await store.close_session("touched")
    clock.ms += HOUR_MS
    await store.update_session("touched", metadata={"kept": True})
    await new_session(store, "young")
    await store.close_session("young")
    assert (await store.prune_sessions(older_than_s=3601)) == Pruned()
    gone = await store.prune_sessions(older_than_s=3600)
    assert (gone.sessions, gone.rows, gone.skipped) == (1, 6, 0), "head, details, send, two messages, model call"
    gone = await store.prune_sessions(older_than_s=3600, include_open=True)
    assert gone.sessions == 1
    assert sorted(one.id for one in (await store.list_sessions()).items) == ["touched", "young"]


@pytest.mark.promise("retention")
async def test_a_held_session_and_one_whose_log_is_shared_stay(store: SqlSessionStore, clock: HandClock) -> None:
    for name in ("origin", "held"):
        await new_session(store, name)
        await one_send(store, name)
    clock.ms += HOUR_MS
    await store.fork_session("origin", fork_id="fork")
    await accepted(store, "held")
    gone = await store.prune_sessions(older_than_s=3600, include_open=True)
    assert (gone.sessions, gone.skipped) == (0, 1), "`held` was changed just now"
    clock.ms += HOUR_MS
    gone = await store.prune_sessions(older_than_s=3600, include_open=True)
    assert (gone.sessions, gone.skipped) == (3, 0), "a fork goes before its origin, a lease has run out"


async def test_many_sessions_go_in_one_run(store: SqlSessionStore, clock: HandClock) -> None:
    for number in range(205):
        await new_session(store, f"s{number}")
        clock.ms += number % 2
    clock.ms += HOUR_MS
    assert (await store.prune_sessions(older_than_s=1, include_open=True)).sessions == 205
    assert (await store.list_sessions()).items == ()


async def test_a_prune_tells_how_far_it_is_and_what_hears_of_it_may_end_it(store: SqlSessionStore) -> None:
    for number in range(3):
        await store.close_session(await new_session(store, f"s{number}"))
    heard: list[int] = []

    def enough(so_far: Pruned) -> None:
        heard.append(so_far.sessions)
        if so_far.sessions == 2:
            raise KeyError("enough")

    with pytest.raises(KeyError):
        await store.prune_sessions(older_than_s=0, on_progress=enough)
    assert heard == [1, 2]
    assert len((await store.list_sessions()).items) == 1


async def test_deleting_takes_everything_that_is_a_sessions_own(store: SqlSessionStore) -> None:
    await with_whole_results(store, "sess_1")
    await with_whole_results(store, "other")
    assert await store.delete_session("sess_1") == Pruned(rows=14, sessions=1)
    with pytest.raises(SessionNotFoundError):
        await store.delete_session("sess_1")
    await new_session(store, "sess_1")
    await one_send(store, "sess_1")
    assert len(await store.get_messages("sess_1")) == 2, "nothing of the one before is in the way"
    assert await store.get_tool_result("other", "c1") == WHOLE
    await accepted(store, "sess_1")
    with pytest.raises(SessionBusyError):
        await store.delete_session("sess_1")


async def test_prunes_refuse_what_they_cannot_mean(store: SqlSessionStore) -> None:
    for seconds in (-1, float("nan"), float("inf"), "1", True, None):
        with pytest.raises(InputError, match="older_than_s"):
            await store.prune_sessions(older_than_s=seconds)  # type: ignore[arg-type]
    for prune in (store.prune_tool_results, store.prune_inbox, store.prune_compacted_messages):
        with pytest.raises(SessionNotFoundError):
            await prune("sess_0")
    await new_session(store)
    await one_send(store, "sess_1")
    assert await store.prune_compacted_messages("sess_1") == Pruned()
    assert await store.prune_compacted_messages() == Pruned()


async def test_looking_after_a_database_changes_nothing_in_it(store: SqlSessionStore) -> None:
    await with_whole_results(store, "sess_1")
    archive = await store.export_session("sess_1")
    for _ in range(2):
        await store.vacuum()
        assert (await store.checkpoint()).is_complete
    assert await store.export_session("sess_1") == archive
    await one_send(store, "sess_1")


async def with_an_inbox(store: SqlSessionStore) -> None:
    """Make a session whose inbox has an input that left it, and two that wait."""
    await new_session(store)
    held = await accepted(store, "sess_1")
    for number in (1, 2, 3):
        await store.put_input("sess_1", new_send(f"n{number}", request_id=f"r{number}"))
    assert await store.withdraw_input("sess_1", 1)
    await store.release(held.lease)


async def test_inputs_that_left_the_inbox_are_forgotten_and_those_that_wait_stay(
    store: SqlSessionStore, clock: HandClock
) -> None:
    await with_an_inbox(store)
    clock.ms += HOUR_MS
    assert await store.prune_inbox(older_than_s=3601) == Pruned()
    assert await store.prune_inbox("sess_1", older_than_s=3600) == Pruned(rows=1)
    assert await store.prune_inbox() == Pruned()
    assert [one.position for one in await store.get_inbox("sess_1")] == [2, 3]


async def test_inputs_that_wait_go_with_an_archive_only_if_they_are_asked_for(store: SqlSessionStore) -> None:
    await with_an_inbox(store)
    without = await store.export_session("sess_1")
    with_them = await store.export_session("sess_1", include_inbox=True)
    for archive, waiting in ((without, []), (with_them, [2, 3])):
        name = await store.import_session(archive, on_conflict="rename")
        assert [one.position for one in await store.get_inbox(name)] == waiting
        again = await store.export_session(name, include_inbox=True)
        assert again.partition(b"\n")[2] == archive.partition(b"\n")[2]
        held = await accepted(store, name) if not waiting else None
        if held is not None:
            put = await store.put_input(name, new_send("later", request_id="r9"))
            assert put.record.position == 4, "no position is given twice"


async def test_numbers_and_texts_that_cannot_be_are_refused_before_a_database_sees_them(store: SqlSessionStore) -> None:
    await one_send(store, await new_session(store))
    wrong: Any
    for wrong in (1 << 70, 1.5, "x", True):
        for work in (
            store.get_messages("sess_1", after_seq=wrong),
            store.get_messages("sess_1", limit=wrong),
            store.search_messages("sess_1", "hi", after_seq=wrong),
            store.search_messages("sess_1", "hi", to_seq=wrong),
            store.search_messages("sess_1", "hi", limit=wrong),
            store.get_model_calls("sess_1", before_seq=wrong),
            store.get_send("sess_1", index=wrong),
            store.get_inbox("sess_1", limit=wrong),
            store.withdraw_input("sess_1", wrong),
            store.find_stalled(limit=wrong),
            store.find_stalled(older_than_ms=wrong),
            store.list_sessions(limit=wrong),
            store.list_sessions(state=wrong),
            store.fork_session("sess_1", at=wrong),
            store.memories.newest("ann", limit=wrong),
            store.memories.add("ann", "tea", max_count=wrong),
            store.memories.add("ann", "tea", session_id="\0" if isinstance(wrong, str) else wrong),
        ):
            with pytest.raises(InputError):
                await work
    for wrong in (math.nan, math.inf, 1e300, -1, "x", True):
        with pytest.raises(InputError, match="older_than_s"):
            await store.memories.prune(older_than_s=wrong)
    for wrong in (None, 5):
        with pytest.raises(InputError, match="text"):
            await store.memories.search("ann", wrong)
        with pytest.raises(InputError, match="text"):
            await store.search_messages("sess_1", wrong)
